#!/usr/bin/env bash
# Trains on this machine, and goes on after a crash: an interrupted run resumes from its last checkpoint.
#
#   launch/local.sh [--dry-run] CONFIG WORKDIR [MORE FLAGS OF cdc_jax.main ...]
#   launch/local.sh configs/demo.py runs/demo --config.train.steps=2000
#
# ATTEMPTS=3 is how often it starts in all. --dry-run prints the command and runs nothing.
set -euo pipefail

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

if [[ -n "$dry_run" ]]; then
    printf '%q ' "${command[@]}"
    printf '\n'
    exit 0
fi
for (( attempt = 1; attempt <= ${ATTEMPTS:-3}; attempt++ )); do
    status=0
    "${command[@]}" || status=$?
    # 0: done; 2: a mistake in the settings; 130: Ctrl-C. Starting again would change nothing.
    case $status in 0 | 2 | 130) exit "$status" ;; esac
    echo "attempt $attempt ended with status $status" >&2
done
exit "$status"
