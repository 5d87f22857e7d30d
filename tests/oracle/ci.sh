#!/usr/bin/env bash
# The oracle in small: boots one kernel, loads a few modules, and compares every stage that kmodld offers. About half a minute
# with a kernel in the cache.
#
#   tests/oracle/ci.sh [SERIES-FLAVOUR]     default: 6.12-amd64
#
#   KMODLD_KERNELS=DIR   cache of distribution kernels (default: target/kernels)
#   KMODLD_BIN=FILE      the program (default: target/release/kmodld, built if need be)
#
# Needs python3, gcc and qemu-system-x86 (arm64: gcc-aarch64-linux-gnu and qemu-system-arm).
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

kernel=${1:-6.12-amd64}
kernels=${KMODLD_KERNELS:-$PWD/target/kernels}
fixtures=fixtures/${kernel%%-*}-${kernel##*-}
kmodld=${KMODLD_BIN:-${CARGO_TARGET_DIR:-target}/release/kmodld}
[ -n "${KMODLD_BIN:-}" ] || cargo build --release --locked --package kmodld

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
mkdir -p "$kernels"
tree=$(scripts/fetch-kernels.sh --dir "$kernels" "$kernel" | cut -d' ' -f2)
modules=(vfat crc-itu-t nf_conntrack)
# The fixtures are for one release; on another the kernel would refuse them.
if [ "$(cat "$fixtures/release" 2>/dev/null)" = "${tree##*/}" ]; then
    modules+=("$fixtures/patching.ko" "$fixtures/relocs.ko")
fi
oracle=(timeout 600 python3 tests/oracle/oracle.py)
"${oracle[@]}" capture --kernel "$tree" --out "$scratch/$kernel" --limit 300 "${modules[@]}"
"${oracle[@]}" compare --kmodld "$kmodld" --kernel "$tree" --verbose "$scratch/$kernel"
