#!/usr/bin/env bash
# A slice of the verdict oracle: 300 mutants of three fixtures, judged by a booted kernel and by `kmodld check`.
#
#   tests/oracle/verdicts_ci.sh [SERIES-FLAVOUR]     default: 6.12-amd64
#
# The environment is that of ci.sh. Nothing may differ but 0.5 % of the logs; 1 % may be undecided.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

kernel=${1:-6.12-amd64}
kernels=${KMODLD_KERNELS:-$PWD/target/kernels}
kmodld=${KMODLD_BIN:-${CARGO_TARGET_DIR:-target}/release/kmodld}
[ -n "${KMODLD_BIN:-}" ] || cargo build --release --locked --package kmodld

python3 tests/oracle/test_verdicts.py

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
mkdir -p "$kernels"
tree=$(scripts/fetch-kernels.sh --dir "$kernels" "$kernel" | cut -d' ' -f2) || tree=
# Without network, a tree that an earlier run has left is as good.
series=${kernel%%-*}
pattern="/${series//./\\.}\\.[0-9]+([+][a-z0-9]+)?(-[0-9]+)?-${kernel#*-}\$"
[ -n "$tree" ] || tree=$(find "$kernels" -mindepth 1 -maxdepth 1 | grep -E "$pattern" | sort -V | tail -n 1) || true
if [ -z "$tree" ]; then
    echo "verdicts of $kernel: SKIPPED, it could not be fetched"
    exit 0
fi
timeout 600 python3 tests/oracle/verdicts.py run --kernel "$tree" --kmodld "$kmodld" --out "$scratch" \
    --seed 1 --count 300 --base exporter,params,patching
