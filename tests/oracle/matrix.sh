#!/usr/bin/env bash
# The oracle at length: kernels and ways to boot them that differ in what becomes of a module. Each is booted, its modules are
# captured and compared at every stage, and where they lie is compared with where kmodld puts them. One row each goes to
# docs/exactness.md. Goes on where it was stopped: sets stay in target/oracle, rows in target/oracle/matrix.jsonl; a set is
# compared anew when kmodld has changed. One boot takes two minutes on an idle machine, all of them two hours and 8 GB of disk.
#
#   tests/oracle/matrix.sh [--kernel TREE|SERIES-FLAVOUR]... [SET...]
#
#   SET                  names of sets, or patterns as '6.12-*' (default: all)
#   --kernel             sets of this kernel beside those below: how a new release is looked at. Repeatable
#
#   KMODLD_KERNELS=DIR   cache of distribution kernels (default: target/kernels)
#   KMODLD_BIN=FILE      the program (default: target/release/kmodld, built if need be)
#   MATRIX=DIR           where sets and rows are kept (default: target/oracle)
#
# A kernel that is in no archive any more is left out, with a word. Exit status 1: a set is not exact or not whole.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

extra=() patterns=()
while [ $# -gt 0 ]; do
    case $1 in
        --kernel) extra+=("$2"); shift ;;
        -*) sed -n '2,/^set/s/^# \?//p' "${BASH_SOURCE[0]}"; exit 2 ;;
        *) patterns+=("$1") ;;
    esac
    shift
done

export KMODLD_KERNELS=${KMODLD_KERNELS:-$PWD/target/kernels}
kmodld=${KMODLD_BIN:-${CARGO_TARGET_DIR:-target}/release/kmodld}
[ -n "${KMODLD_BIN:-}" ] || cargo build --release --locked --package kmodld
out=${MATRIX:-target/oracle}
mkdir -p "$out" "$KMODLD_KERNELS"

# Names that a kernel does not have are left out: libcrc32c went with 6.15.
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
    # Before 5.13 the boot CPU decides which nops there are.
    "5.10-amd64|5.10-amd64||nokaslr|$file_systems $network $machine $x86"
    "5.10-amd64-intel|5.10-amd64|Skylake-Client-v1|nokaslr|$small $x86"
    "5.10-amd64-milan|5.10-amd64|EPYC-Milan|nokaslr|$small $x86"
    "5.10-amd64-mitoff|5.10-amd64||nokaslr mitigations=off|$small $x86"
    "5.10-arm64|5.10-arm64||nokaslr|$file_systems $network $machine"
    "6.16-amd64|6.16-amd64||nokaslr|$file_systems $network $machine $x86"
    "6.17-amd64|6.17-amd64||nokaslr|$file_systems $network $machine $x86"
    "6.18-amd64|6.18-amd64||nokaslr|$file_systems $network $machine $x86"
    "6.18-arm64|6.18-arm64||nokaslr|$file_systems $network $machine"
    "7.2-amd64|7.2-amd64||nokaslr|$file_systems $network $machine $x86"
    "newest-amd64|newest-amd64||nokaslr|$file_systems $network $machine $x86"
    "newest-amd64-kaslr|newest-amd64|||$small $x86"
    "newest-amd64-smp|newest-amd64||nokaslr|$small $x86"
    "newest-amd64-mitoff|newest-amd64||nokaslr mitigations=off|$small $x86"
    "newest-amd64-milan|newest-amd64|EPYC-Milan|nokaslr spec_rstack_overflow=safe-ret|$small $x86"
    "newest-cloud-amd64|newest-cloud-amd64||nokaslr|$cloud $x86"
    "newest-rt-amd64|newest-rt-amd64||nokaslr|$file_systems $network $machine $x86"
    "newest-arm64|newest-arm64||nokaslr|$file_systems $network $machine"
    "newest-arm64-kaslr|newest-arm64|||$small"
    "newest-arm64-a53|newest-arm64|$a53|nokaslr|$small"
    "newest-arm64-n1|newest-arm64|neoverse-n1|nokaslr|$small"
    # Pages of 16 KiB need a CPU that has them.
    "newest-arm64-16k|newest-arm64-16k|max|nokaslr|$file_systems $network $machine"
)
for kernel in "${extra[@]}"; do
    name=${kernel%/}
    cpu=
    [[ $kernel != *16k ]] || cpu=max
    sets+=("${name##*/}|$kernel|$cpu|nokaslr|$small")
done
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

wanted() {
    [ ${#patterns[@]} != 0 ] || return 0
    local pattern
    for pattern in "${patterns[@]}"; do
        # shellcheck disable=SC2053 # a pattern
        [[ $1 != $pattern ]] || return 0
    done
    return 1
}

# The modules of a list that a tree has.
present() {
    local tree=$1 name
    shift
    find "$tree/lib/modules" -name '*.ko*' | sed 's,.*/,,; s,[.]ko.*,,' | tr - _ | sort >"$out/names"
    for name; do
        ! grep -qxF -- "${name//-/_}" "$out/names" || echo "$name"
    done
}

declare -A trees=()
status=0
for line in "${sets[@]}"; do
    IFS='|' read -r set kernel cpu append modules <<<"$line"
    wanted "$set" || continue
    if [ -d "$kernel" ]; then
        trees[$kernel]=$kernel
    elif [ -z "${trees[$kernel]+known}" ]; then
        trees[$kernel]=$(scripts/fetch-kernels.sh --dir "$KMODLD_KERNELS" "$kernel" | cut -d' ' -f2) || true
    fi
    tree=${trees[$kernel]}
    if [ -z "$tree" ]; then
        echo "$set: left out: no kernel $kernel" >&2
        continue
    fi
    smp=1
    [[ $set != *-smp ]] || smp=2
    release=$(ls "$tree/lib/modules")
    # A set of another release is old.
    if ! grep -qsF "\"kernel\": \"$release\"" "$out/$set/set.json"; then
        read -ra names <<<"$modules"
        mapfile -t names < <(present "$tree" "${names[@]}")
        nice python3 tests/oracle/oracle.py capture --kernel "$tree" --out "$out/$set" --cpu "$cpu" --smp $smp --memory 2048 \
            --append "$append" "${names[@]}" 2>"$out/$set.log" || { status=1; grep -v ' bytes$' "$out/$set.log" >&2 || true; }
    fi
    [ -e "$out/$set/set.json" ] || continue
    nice python3 tests/oracle/matrix.py row --kernel "$tree" --kmodld "$kmodld" --rows "$out/matrix.jsonl" "$out/$set" || status=1
done

table=$(python3 tests/oracle/matrix.py table "$out/matrix.jsonl") || status=1
TABLE=$table awk '
    /<!-- end of memory -->/ { inside = 0 }
    !inside
    /<!-- memory -->/ { inside = 1; print ""; print ENVIRON["TABLE"]; print "" }
' docs/exactness.md >docs/exactness.md.new
mv docs/exactness.md.new docs/exactness.md
exit $status
