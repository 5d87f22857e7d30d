#!/usr/bin/env bash
# Remakes the figures of docs/exactness.md: mutants judged by booted kernels and by `kmodld check`. Goes on where it was stopped;
# what kernels have judged is kept in target/verdicts, and only kmodld is asked again after it has changed.
#
#   tests/oracle/verdicts.sh [--count N] [--seed S] [KERNEL...]
#
#   N                    mutants of each kernel (default: 2000)
#   S                    default: 20261
#   KERNEL               SERIES-FLAVOUR or a tree (default: the five below)
#   KMODLD_KERNELS=DIR   cache of distribution kernels (default: target/kernels)
#   KMODLD_BIN=FILE      the program (default: target/release/kmodld, built if need be)
#   VERDICTS=DIR         where the rows are kept (default: target/verdicts)
#
# Two thousand mutants take some ten minutes on an idle machine. Exit status 1: something differs that must not.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

count=2000 seed=20261 kernels=()
while [ $# -gt 0 ]; do
    case $1 in
        --count) count=$2; shift ;;
        --seed) seed=$2; shift ;;
        -*) sed -n '2,/^set/s/^# \?//p' "${BASH_SOURCE[0]}"; exit 2 ;;
        *) kernels+=("$1") ;;
    esac
    shift
done
[ ${#kernels[@]} != 0 ] || kernels=(6.1-amd64 6.12-amd64 newest-amd64 6.12-arm64 newest-arm64)

export KMODLD_KERNELS=${KMODLD_KERNELS:-$PWD/target/kernels}
kmodld=${KMODLD_BIN:-${CARGO_TARGET_DIR:-target}/release/kmodld}
[ -n "${KMODLD_BIN:-}" ] || cargo build --release --locked --package kmodld
out=${VERDICTS:-target/verdicts}
mkdir -p "$out" "$KMODLD_KERNELS"

rows=()
for kernel in "${kernels[@]}"; do
    tree=$kernel
    [ -d "$tree" ] || tree=$(scripts/fetch-kernels.sh --dir "$KMODLD_KERNELS" "$kernel" | cut -d' ' -f2)
    # Its figures stand in the table, so it is no failure here that something differs.
    nice python3 tests/oracle/verdicts.py run --kernel "$tree" --kmodld "$kmodld" --out "$out" --seed "$seed" --count "$count" || [ $? = 1 ]
    release=$(basename "$tree"/lib/modules/*)
    rows+=("$out/$release-$seed.jsonl")
done

status=0
table=$(python3 tests/oracle/verdicts.py table "${rows[@]}") || status=$?
TABLE=$table awk '
    /<!-- end of figures -->/ { inside = 0 }
    !inside
    /<!-- figures -->/ { inside = 1; print ""; print ENVIRON["TABLE"]; print "" }
' docs/exactness.md >docs/exactness.md.new
mv docs/exactness.md.new docs/exactness.md
printf '%s\n' "$table"
exit $status
