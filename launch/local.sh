#!/usr/bin/env bash
# Trains on this machine. After a crash, the training resumes from its last checkpoint.
#
#   launch/local.sh [--dry-run] CONFIG WORKDIR [MORE FLAGS OF cdc_jax.main ...]
#   launch/local.sh configs/demo.py runs/local --config.train.steps=2000
#   PROCESSES=2 DEVICES_PER_PROCESS=4 launch/local.sh configs/demo.py runs/local --config.data.batch_size=8
#
# Environment:
#   ATTEMPTS=3             how many times to start the training at most
#   PROCESSES=1            number of processes that train together; the first one prints here, the others into files
#   DEVICES_PER_PROCESS=   number of virtual CPU devices of each process; unset: the devices that JAX finds
#   PORT=                  port at which the other processes find the first one; unset: a random one for each attempt
#   PYTHON=python3         the interpreter
# Without DEVICES_PER_PROCESS, each of several processes uses one GPU: process 0 the first, and so on.
# --dry-run prints the commands and runs nothing. SIGTERM is passed on: the run saves its state and ends. So is Ctrl-C:
# the run ends without saving, and its last checkpoint remains.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/show.sh"

dry_run=
if [[ "${1:-}" == --dry-run ]]; then
    dry_run=1
    shift
fi
if (( $# < 2 )); then
    echo "usage: launch/local.sh [--dry-run] CONFIG WORKDIR [FLAGS ...]" >&2
    exit 2
fi
config=$1 workdir=$2
shift 2
command=("${PYTHON:-python3}" -m cdc_jax.main "--config=$config" "--workdir=$workdir" "$@")
processes=${PROCESSES:-1}
if ! [[ "$processes" =~ ^[1-9][0-9]*$ && "${DEVICES_PER_PROCESS:-1}" =~ ^[1-9][0-9]*$ ]]; then
    echo "PROCESSES and DEVICES_PER_PROCESS must be whole numbers from 1." >&2
    exit 2
fi
port=
draw_port() { port=${PORT:-$(( 20000 + RANDOM % 20000 ))}; }
draw_port

# Sets the array `settings` to the environment of process number $1, each entry NAME=VALUE.
settings_of() {
    settings=()
    if (( processes > 1 )); then
        settings+=("CDC_COORDINATOR=localhost:$port" "CDC_PROCESS_COUNT=$processes" "CDC_PROCESS_INDEX=$1")
    fi
    if [[ -n "${DEVICES_PER_PROCESS:-}" ]]; then
        local flags="--xla_force_host_platform_device_count=$DEVICES_PER_PROCESS${XLA_FLAGS:+ $XLA_FLAGS}"
        settings+=("JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}" "XLA_FLAGS=$flags")
    elif (( processes > 1 )); then
        settings+=("JAX_LOCAL_DEVICE_IDS=$1")
    fi
}

if [[ -n "$dry_run" ]]; then
    for (( index = 0; index < processes; index++ )); do
        settings_of "$index"
        if (( ${#settings[@]} )); then
            show env "${settings[@]}" "${command[@]}"
        else
            show "${command[@]}"
        fi
    done
    exit 0
fi

logs=
if (( processes > 1 )); then
    logs=$(mktemp -d "${TMPDIR:-/tmp}/cdc-processes.XXXXXX")
    echo "processes 1 to $(( processes - 1 )) write into $logs" >&2
fi

children=() asked_to_stop=
# Sends signal $1 to every process that is still running.
pass_on() {
    local child
    for child in ${children[@]+"${children[@]}"}; do
        kill -s "$1" "$child" 2>/dev/null || true
    done
}
trap 'asked_to_stop=130; pass_on INT' INT
trap 'asked_to_stop=143; pass_on TERM' TERM

# Runs all processes to their end. If one fails, the others are ended; `status` is the first exit code that is not 0.
run_all() {
    local index ended
    children=()
    status=0
    set -m # children in process groups of their own: they get Ctrl-C from this script only, once, and do not ignore it
    for (( index = 0; index < processes; index++ )); do
        settings_of "$index"
        if (( index )); then
            env "${settings[@]}" "${command[@]}" </dev/null >>"$logs/process-$index.log" 2>&1 &
        else
            env ${settings[@]+"${settings[@]}"} "${command[@]}" </dev/null &
        fi
        children[index]=$!
    done
    set +m
    while (( ${#children[@]} )); do
        for index in "${!children[@]}"; do
            if kill -0 "${children[index]}" 2>/dev/null; then continue; fi
            ended=0
            wait "${children[index]}" || ended=$?
            unset "children[$index]"
            if (( ended && status == 0 )); then
                status=$ended
                if (( index )); then tail -n 20 "$logs/process-$index.log" >&2; fi
                pass_on TERM
            fi
        done
        sleep 0.1
    done
}

for (( attempt = 1; attempt <= ${ATTEMPTS:-3}; attempt++ )); do
    draw_port
    run_all
    if [[ -n "$asked_to_stop" ]]; then exit "$asked_to_stop"; fi
    # 0: done; 2: a mistake in the settings; 130: Ctrl-C; 143: SIGTERM, state saved. Do not start again after these.
    case $status in 0 | 2 | 130 | 143) exit "$status" ;; esac
    echo "attempt $attempt ended with status $status" >&2
done
exit "$status"
