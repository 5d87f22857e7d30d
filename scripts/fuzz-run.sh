#!/usr/bin/env bash
# Runs every fuzz target for a while and prints what it did as a table in Markdown (docs/robustness.md).
#
#   scripts/fuzz-run.sh [SECONDS [SEED [TARGET...]]]   default: 60 s, a seed of today, all targets
#
# Exit code 1 if anything broke; the input is then kept in fuzz/regressions/TARGET/. FUZZ_JOBS: how many processes.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

seconds=${1:-60}
seed=${2:-$(date +%Y%m%d)}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- all

cargo build --quiet --locked --profile fuzz --package kmodld-fuzz
program=${CARGO_TARGET_DIR:-target}/fuzz/kmodld-fuzz
# All that a process may have, decoders written in C and images of modules (at most 7 regions of 2 GiB, mostly holes)
# included.
ulimit -v $((16 << 20)) -c 0
status=0
"$program" "$@" --seconds "$seconds" --seed "$seed" -j "${FUZZ_JOBS:-$(nproc)}" --markdown || status=$?
printf '\n%s s for each target, seed %s, commit %s\n' "$seconds" "$seed" "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
exit $status
