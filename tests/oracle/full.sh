#!/usr/bin/env bash
# The oracle at length: kernels and ways to boot them that differ in what finalisation makes of a module. Sets go to
# target/oracle/SET and stay there. Allow half an hour, 3 GB of disk, one CPU.
#
#   tests/oracle/full.sh [SET...]           default: all
#
#   KMODLD_KERNELS=DIR   cache of distribution kernels (default: target/kernels)
#   KMODLD_BIN=FILE      the program (default: target/release/kmodld, built if need be)
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

export KMODLD_KERNELS=${KMODLD_KERNELS:-$PWD/target/kernels}
kmodld=${KMODLD_BIN:-${CARGO_TARGET_DIR:-target}/release/kmodld}
[ -n "${KMODLD_BIN:-}" ] || cargo build --release --locked --package kmodld
out=target/oracle
mkdir -p "$out" "$KMODLD_KERNELS"

file_systems="crc-itu-t libcrc32c msdos vfat cdrom ext4 xfs btrfs"
network="nf_conntrack nf_tables nft_ct nfsd sctp openvswitch bonding tun"
machine="dm_mod usbnet cfg80211 mac80211 drm snd_dummy"
cloud="${file_systems/ ext4/} $network cifs virtio_net mlx5_core"
small="crc-itu-t libcrc32c vfat cdrom usbnet nf_conntrack snd_dummy dm_mod"
x86="kvm_amd kvm_intel"
a53=cortex-a53,midr=0x410fd033 # a revision with erratum 843419

# SET | KERNEL | CPU | command line | modules
sets=(
    "6.12-amd64|6.12-amd64||nokaslr|$file_systems $network $machine $x86"
    "6.1-amd64|6.1-amd64||nokaslr|$file_systems $network $machine $x86"
    "6.12-cloud-amd64|6.12-cloud-amd64||nokaslr|$cloud $x86"
    "6.12-rt-amd64|6.12-rt-amd64||nokaslr|$file_systems $network $machine $x86"
    "6.12-arm64|6.12-arm64||nokaslr|$file_systems $network $machine"
    "6.1-arm64|6.1-arm64||nokaslr|$file_systems $network $machine"
    "6.12-cloud-arm64|6.12-cloud-arm64||nokaslr|$cloud"
    "6.12-arm64-kaslr|6.12-arm64|||$file_systems $network $machine"
    "6.12-arm64-max|6.12-arm64|max|nokaslr|$small"
    "6.12-arm64-a53|6.12-arm64|$a53|nokaslr|$small"
    "6.12-amd64-kaslr|6.12-amd64|||$small $x86"
    "6.12-amd64-smp|6.12-amd64||nokaslr|$small $x86"
)
for series in 6.12 6.1; do
    # What decides on retpolines, return thunks, call depth, alternatives and static calls.
    for variant in \
        "stuff|Skylake-Client-v1|nokaslr spectre_v2=retpoline retbleed=stuff" \
        "unret|EPYC|nokaslr retbleed=unret" \
        "srso|EPYC-Milan|nokaslr spec_rstack_overflow=safe-ret" \
        "lfence||nokaslr spectre_v2=retpoline,lfence" \
        "its|Icelake-Server|nokaslr indirect_target_selection=force" \
        "preempt-full||nokaslr preempt=full" \
        "preempt-none||nokaslr preempt=none" \
        "qemu64|qemu64|nokaslr" \
        "mitoff||nokaslr mitigations=off"; do
        IFS='|' read -r name cpu append <<<"$variant"
        sets+=("$series-amd64-$name|$series-amd64|$cpu|$append|$small $x86")
    done
done

declare -A trees=()
status=0
for line in "${sets[@]}"; do
    IFS='|' read -r set kernel cpu append modules <<<"$line"
    [ $# = 0 ] || [[ " $* " == *" $set "* ]] || continue
    if [ -z "${trees[$kernel]:-}" ]; then
        trees[$kernel]=$(scripts/fetch-kernels.sh --dir "$KMODLD_KERNELS" "$kernel" | cut -d' ' -f2)
    fi
    tree=${trees[$kernel]}
    smp=1
    [[ $set != *-smp ]] || smp=2
    read -ra names <<<"$modules"
    nice python3 tests/oracle/oracle.py capture --kernel "$tree" --out "$out/$set" --cpu "$cpu" --smp $smp --memory 2048 \
        --append "$append" "${names[@]}" 2>"$out/$set.log" || { status=1; grep -v ' bytes$' "$out/$set.log" >&2 || true; }
    nice python3 tests/oracle/oracle.py compare --kmodld "$kmodld" --kernel "$tree" "$out/$set" || status=1
done
exit $status
