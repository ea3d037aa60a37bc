#!/usr/bin/env bash
# Trains on a Cloud TPU, on every worker of the slice, and resumes after a preemption.
#
#   launch/tpu_vm.sh [--dry-run] run CONFIG WORKDIR [FLAGS]    create, setup and train, again and again until it is done
#   launch/tpu_vm.sh [--dry-run] create                        creates the TPU VM; waits if it is queued
#   launch/tpu_vm.sh [--dry-run] setup                         installs this checkout and its packages on every worker
#   launch/tpu_vm.sh [--dry-run] train CONFIG WORKDIR [FLAGS]  starts the training, and returns
#   launch/tpu_vm.sh [--dry-run] logs | status | stop          follows the log; prints the state; saves and ends the
#                                                              training (end a `run` first, or it starts it again)
#   launch/tpu_vm.sh [--dry-run] delete                        deletes the TPU VM and its disk
#
# Environment:
#   TPU_NAME=cdc  ZONE=us-west4-a  PROJECT=        which TPU VM; the project defaults to gcloud's
#   ACCELERATOR=v5litepod-8                        which accelerator: v5litepod-256, v4-16, v5p-16, v6e-8, ...
#   RUNTIME=                                       its software version; unset: a suitable one
#   PROVISIONING=on-demand                         or spot, queued, queued-spot
#   SETUP_COMMAND=                                 what every worker runs at the end of setup, for instance to mount data
#   POLL_SECONDS=60                                `run` checks the state this often
#   ATTEMPTS=3  CREATE_ATTEMPTS=50                 `run` gives up after this many crashes on a VM, requests for a TPU
# --dry-run prints every command and runs nothing. WORKDIR is in a bucket, gs://...: the VM's disk is deleted with it.
set -euo pipefail
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/show.sh"

usage() {
    sed -n '4,10s/^# \{0,3\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}
fail() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

dry_run=
if [[ "${1:-}" == --dry-run ]]; then
    dry_run=1
    shift
fi
action=${1:-}
(( $# )) && shift
name=${TPU_NAME:-cdc} zone=${ZONE:-us-west4-a} accelerator=${ACCELERATOR:-v5litepod-8}
provisioning=${PROVISIONING:-on-demand} poll_seconds=${POLL_SECONDS:-60}
queue=$name-queue
location=("--zone=$zone")
if [[ -n "${PROJECT:-}" ]]; then location+=("--project=$PROJECT"); fi
tpus=(gcloud compute tpus)

case $provisioning in
    on-demand | spot | queued | queued-spot) ;;
    *) fail "PROVISIONING is $provisioning; it must be on-demand, spot, queued or queued-spot." 2 ;;
esac
case $accelerator in
    v5litepod-* | v5e-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) runtime=tpu-ubuntu2204-base ;;
esac
runtime=${RUNTIME:-$runtime}

# Runs a command, or prints it.
call() {
    if [[ -n "$dry_run" ]]; then
        show "$@"
    else
        "$@"
    fi
}

# Runs the shell command $2 on worker $1 ("all": on all workers in parallel).
on_worker() {
    call "${tpus[@]}" tpu-vm ssh "$name" "${location[@]}" --quiet "--worker=$1" "--command=$2"
}

is_queued() { [[ "$provisioning" == queued* ]]; }

# Prints READY, PREEMPTED, ...; "gone" if there is no such VM, "unknown" if the cloud does not answer.
vm_state() {
    local answer
    if answer=$("${tpus[@]}" tpu-vm describe "$name" "${location[@]}" '--format=value(state)' 2>&1); then
        tail -n 1 <<<"$answer"
    elif [[ "$answer" == *NOT_FOUND* ]]; then
        echo gone
    else
        echo unknown
    fi
}

create() {
    local spot=()
    case $provisioning in *spot) spot=(--spot) ;; esac
    if ! is_queued; then
        call "${tpus[@]}" tpu-vm create "$name" "${location[@]}" "--accelerator-type=$accelerator" "--version=$runtime" \
            ${spot[@]+"${spot[@]}"}
        return
    fi
    call "${tpus[@]}" queued-resources create "$queue" "--node-id=$name" "${location[@]}" \
        "--accelerator-type=$accelerator" "--runtime-version=$runtime" ${spot[@]+"${spot[@]}"} || return
    await_queue
}

queue_question=("${tpus[@]}" queued-resources describe "$queue" "${location[@]}" '--format=value(state.state)')

# Waits until the queue grants the TPU. Fails if it never will.
await_queue() {
    local state
    if [[ -n "$dry_run" ]]; then
        echo "# every $poll_seconds s, until it says ACTIVE:"
        call "${queue_question[@]}"
        return
    fi
    while :; do
        state=$("${queue_question[@]}") || state=unknown
        case $state in
            ACTIVE) return 0 ;;
            FAILED | SUSPENDING | SUSPENDED | DELETING)
                echo "the queued request $queue is $state" >&2
                return 1
                ;;
        esac
        echo "$(date +%T) $queue: $state" >&2
        sleep "$poll_seconds"
    done
}

# A preempted spot VM cannot be started again. It has to be deleted before one with the same name can be created.
delete() {
    if is_queued; then
        call "${tpus[@]}" queued-resources delete "$queue" "${location[@]}" --force --quiet
    else
        call "${tpus[@]}" tpu-vm delete "$name" "${location[@]}" --quiet
    fi
}

# Installs the committed files of this checkout, and a newer Python: the VM's is too old for JAX.
setup() {
    local root archive code=0
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    archive=${TMPDIR:-/tmp}/cdc_jax-$name.tar.gz
    call git -C "$root" archive --format=tar.gz "--output=$archive" HEAD || return
    call "${tpus[@]}" tpu-vm scp "$archive" "$name:cdc_jax.tar.gz" "${location[@]}" --quiet --worker=all || code=$?
    [[ -n "$dry_run" ]] || rm -f "$archive"
    (( code == 0 )) || return "$code"
    # shellcheck disable=SC2016 # $HOME is the worker's
    on_worker all 'set -e; mkdir -p cdc_jax; tar -xzf cdc_jax.tar.gz -C cdc_jax
python3 -m pip install --user --quiet --upgrade uv; uv=$HOME/.local/bin/uv
$uv venv --quiet --allow-existing --python 3.12 cdc_venv
$uv pip install --quiet --python cdc_venv/bin/python "./cdc_jax[train,tpu]"'"${SETUP_COMMAND:+
$SETUP_COMMAND}"
}

# All workers run the same command. It continues when this connection ends, and writes its exit code to a file.
train() {
    local command
    printf -v command '%q ' env CDC_DISTRIBUTED=1 ../cdc_venv/bin/python -m cdc_jax.main "--config=$1" "--workdir=$2" "${@:3}"
    # The trap keeps bash alive, to write the exit code; the trainer itself still gets the signal.
    printf -v command '%q' "trap : TERM; cd cdc_jax; $command; echo \$? > ../cdc_train.status"
    on_worker all "rm -f cdc_train.status; nohup setsid bash -c $command >> cdc_train.log 2>&1 < /dev/null &
echo \$! > cdc_train.pid"
}

# Prints a line per worker: the exit code, "running", or "lost" if the process ended without an exit code.
# shellcheck disable=SC2016 # expanded on the worker
status_text='cat cdc_train.status 2>/dev/null || { kill -0 $(cat cdc_train.pid) 2>/dev/null && echo running || echo lost; }'

# Prints the distinct lines of all workers as one line; "unknown" if the VM cannot be reached.
worker_codes() {
    local lines
    lines=$(on_worker all "$status_text" 2>/dev/null | grep -xE 'running|lost|[0-9]+' | sort -u) || lines=unknown
    echo "${lines//$'\n'/ }"
}

# Sends SIGTERM, on which the trainer saves its state, and kills processes that have not ended after two minutes.
# shellcheck disable=SC2016
stop_text='p=$(cat cdc_train.pid 2>/dev/null) || exit 0; kill -TERM -- -$p 2>/dev/null
for i in $(seq 120); do kill -0 -- -$p 2>/dev/null || exit 0; sleep 1; done; kill -KILL -- -$p'

# Whether a request is already waiting in the queue: a new request would lose its position.
is_waiting() {
    is_queued || return 1
    case $("${queue_question[@]}" 2>/dev/null) in
        ACCEPTED | CREATING | PROVISIONING | WAITING_FOR_RESOURCES) ;;
        *) return 1 ;;
    esac
}

# Tries to create the TPU VM until it succeeds, since spot capacity varies.
create_until_there() {
    local attempt
    for (( attempt = 1; attempt <= ${CREATE_ATTEMPTS:-50}; attempt++ )); do
        if is_waiting; then
            await_queue && return
        else
            create && return
        fi
        delete >/dev/null 2>&1 || true
        echo "$(date +%T) no TPU yet (attempt $attempt)" >&2
        sleep "$poll_seconds"
    done
    fail "No $accelerator in $zone after ${CREATE_ATTEMPTS:-50} attempts."
}

run() {
    if [[ "$2" != gs://* ]]; then
        fail "WORKDIR is $2; it must be in a bucket (gs://...), since a preempted TPU VM loses its disk." 2
    fi
    if [[ -n "$dry_run" ]]; then
        create
        setup
        train "$@"
        echo "# every $poll_seconds s:"
        call "${tpus[@]}" tpu-vm describe "$name" "${location[@]}" '--format=value(state)'
        on_worker all "$status_text"
        echo "# after a preemption, and then from the top; after a crash only stop and train:"
        delete
        on_worker all "$stop_text"
        return
    fi
    local crashes=0 failed_setups=0 training='' codes
    while :; do
        case $(vm_state) in
            READY) ;;
            gone)
                start_over
                continue
                ;;
            PREEMPTED | TERMINATED | STOPPED | SUSPENDED)
                echo "$(date +%T) $name was taken away; asking for another" >&2
                delete || true
                start_over
                continue
                ;;
            *) # it is being created, or the cloud does not answer
                sleep "$poll_seconds"
                continue
                ;;
        esac
        if [[ -z "$training" && $(worker_codes) == *running* ]]; then
            training=1 # this script was interrupted, but the training continued
            continue
        elif [[ -z "$training" ]]; then
            # The connection may have failed because the VM was preempted: check its state again.
            if setup && train "$@"; then
                training=1 failed_setups=0
            else
                failed_setups=$(( failed_setups + 1 ))
                give_up_after "$failed_setups" "the set-up has failed"
            fi
            sleep "$poll_seconds"
            continue
        fi
        codes=$(worker_codes)
        case " $codes " in
            " 0 ") break ;;
            *" 2 "*) give_up "The settings are wrong; see the log: ${BASH_SOURCE[0]} logs" 2 ;;
            *" 130 "*) exit 130 ;;
            " running " | " 0 running " | " unknown ") ;;
            *)
                echo "$(date +%T) the training has ended with: $codes" >&2
                if [[ "$codes" != *143* ]]; then
                    crashes=$(( crashes + 1 ))
                    give_up_after "$crashes" "the training has crashed; see the log: ${BASH_SOURCE[0]} logs"
                fi
                on_worker all "$stop_text" || true
                train "$@" || training=
                ;;
        esac
        sleep "$poll_seconds"
    done
    echo "done: $2; '${BASH_SOURCE[0]} delete' gives the TPU back" >&2
}

# Creates another VM, and counts crashes and failed set-ups from 0 again.
start_over() {
    training='' crashes=0 failed_setups=0
    create_until_there
}

# Ends `run` with the message $2 if $1 attempts have reached the limit.
give_up_after() {
    if (( $1 >= ${ATTEMPTS:-3} )); then give_up "Attempt $1 of ${ATTEMPTS:-3}: $2"; fi
}

give_up() {
    fail "$1; the TPU is still there, and paid for, until '${BASH_SOURCE[0]} delete'." "${2:-1}"
}

case $action in
    create | setup | delete)
        (( $# == 0 )) || usage
        "$action"
        ;;
    run | train)
        (( $# >= 2 )) || usage
        "$action" "$@"
        ;;
    logs) on_worker 0 'tail -n 100 -F cdc_train.log' ;;
    status) on_worker all "$status_text" ;;
    stop) on_worker all "$stop_text" ;;
    *) usage ;;
esac
