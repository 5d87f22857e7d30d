#!/usr/bin/env bash
# The tests that take long, in full: every module of Debian's 6.1 and 6.12 for amd64 and arm64, every captured memory and
# verdict of real kernels, every damaged file, kernels booted under QEMU (tests/oracle). Allow two hours and 6 GB of disk.
#
#   KMODLD_KERNELS=DIR   cache of distribution kernels (default: target/kernels)
#   KMODLD_TRUTH=DIR     captured data of real kernels (default: ../shared beside the repository, if it is there)
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

export KMODLD_KERNELS=${KMODLD_KERNELS:-$PWD/target/kernels}
if [ -z "${KMODLD_TRUTH:-}" ] && [ -d ../shared ]; then
    KMODLD_TRUTH=$(realpath ../shared)
fi
if [ -n "${KMODLD_TRUTH:-}" ]; then
    export KMODLD_TRUTH
else
    echo 'KMODLD_TRUTH is not set: no memory of real kernels to compare with'
fi
unset KMODLD_TREE_SAMPLE

mkdir -p "$KMODLD_KERNELS"
scripts/fetch-kernels.sh 6.1-amd64 6.12-amd64 6.1-arm64 6.12-arm64

status=0
for test in tree image_tree check_tree truth boots btf verdicts hostile; do
    [ -f "tests/$test.rs" ] || continue
    from=$SECONDS
    printf '\n=== %s\n' "$test"
    cargo test --release --locked --package kmodld --test "$test" -- --nocapture --include-ignored || status=1
    printf -- '--- %s: %d s\n' "$test" $((SECONDS - from))
done

printf '\n=== public interface\n'
scripts/public-interface.sh || status=1

from=$SECONDS
printf '\n=== oracle\n'
missing=()
for tool in qemu-system-x86_64 qemu-system-aarch64 aarch64-linux-gnu-gcc gcc python3; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} = 0 ]; then
    tests/oracle/matrix.sh || status=1
else
    echo "skipped: no ${missing[*]} (tests/oracle/README.md names the packages)"
fi
printf -- '--- oracle: %d s\n' $((SECONDS - from))
exit $status
