#!/usr/bin/env bash
# Builds small kernels with options that no distribution has, as trees for the oracle. See --help.
set -euo pipefail
export LC_ALL=C

prog=${0##*/}
here=$(cd -- "$(dirname -- "$0")" && pwd)

usage() {
    cat <<USAGE
usage: KMODLD_KERNELS=DIR $prog [--dir DIR] [--source TARBALL] [--jobs N] NAME...

Builds a kernel for each NAME, one of:
    $(cd "$here" && ls ./*.config | sed 's,^\./,,; s,[.]config$,,' | grep -v '^base$' | tr '\n' ' ')

and lays it out as scripts/fetch-kernels.sh does, in DIR/RELEASE, where RELEASE ends in -NAME. Prints a line per tree: RELEASE PATH.
The configuration is NAME.config and base.config, of which the first counts where both have an option; what neither has is off. A
warning names each line that the kernel's own rules override.

  --dir DIR          where trees go (default: the environment variable KMODLD_KERNELS)
  --source TARBALL   the kernel's source (default: /usr/src/linux-source-6.12.tar.xz of Debian's package)
  --jobs N           default: the number of CPUs
  -h, --help         this text

Source and objects are kept in DIR/.own, so that a second NAME and a second run are fast. A kernel takes ten to forty minutes on two CPUs.

    apt-get install linux-source-6.12 clang-19 lld-19 llvm-19 gcc flex bison libelf-dev libssl-dev dwarves bc rsync kmod

CLANG=-19 is the suffix of clang's programs. Exit status: 0 all trees are there, 1 something failed, 2 wrong usage.
USAGE
}

note() { printf '%s: %s\n' "$prog" "$*" >&2; }
die() { note "error: $*"; exit 1; }
bad_usage() { note "error: $*"; note "try $prog --help"; exit 2; }

dir=${KMODLD_KERNELS:-} source=/usr/src/linux-source-6.12.tar.xz jobs=$(nproc) names=()
while [ $# -gt 0 ]; do
    case $1 in
        -h|--help) usage; exit 0 ;;
        --dir|--source|--jobs) [ $# -ge 2 ] || bad_usage "$1 needs a value"; declare "${1#--}=$2"; shift ;;
        -*) bad_usage "unknown option $1" ;;
        *) [ "$1" != base ] && [ -f "$here/$1.config" ] || bad_usage "no $1.config in $here"; names+=("$1") ;;
    esac
    shift
done
[ ${#names[@]} -gt 0 ] || bad_usage "no NAME"
[ -n "$dir" ] || bad_usage "no folder: set KMODLD_KERNELS or give --dir DIR"
[ -f "$source" ] || die "$source is not there: apt-get install linux-source-6.12, or --source"

mkdir -p "$dir/.own"
dir=$(cd -- "$dir" && pwd)
src=$dir/.own/$(basename "$source" .tar.xz)
if [ ! -f "$src/Makefile" ]; then
    note "unpacking $source"
    rm -rf "$src.part"
    mkdir "$src.part"
    tar -xf "$source" -C "$src.part" --strip-components=1
    mv "$src.part" "$src"
fi

for name in "${names[@]}"; do
    out=$src-$name
    mkdir -p "$out"
    compiler=$(sed -n 's/^# compiler: //p' "$here/$name.config")
    flags=(O="$out" KBUILD_BUILD_USER=own KBUILD_BUILD_HOST=own)
    [ "$compiler" != clang ] || flags+=(LLVM="${CLANG:--19}")
    run() { make -C "$src" "${flags[@]}" "$@" >>"$out/log" 2>&1 || { tail -n 20 "$out/log" >&2; die "$name: make $* failed: $out/log"; }; }
    # Of two lines for one option the first counts.
    { printf 'CONFIG_LOCALVERSION="-%s"\n' "$name"; cat "$here/$name.config"; cat "$here/base.config"; } |
        grep '^CONFIG' | awk -F= '!seen[$1]++' >"$out/wanted"
    : >"$out/log"
    run KCONFIG_ALLCONFIG="$out/wanted" allnoconfig
    while IFS='=' read -r option value; do
        have=$(grep "^$option=" "$out/.config" | cut -d= -f2- || true)
        [ "${have:-n}" = "$value" ] || note "warning: $name: $option is ${have:-n}, not $value"
    done <"$out/wanted"
    [ -z "${CONFIG_ONLY:-}" ] || continue
    note "$name: building"
    run -j"$jobs" bzImage modules
    release=$(cat "$out/include/config/kernel.release")
    tree=$out/tree
    rm -rf "$tree"
    run INSTALL_MOD_PATH="$tree" INSTALL_MOD_STRIP=--strip-debug DEPMOD=true modules_install
    rm -f "$tree/lib/modules/$release"/{build,source}
    mkdir -p "$tree/boot" "$tree/usr/src/linux-headers-$release"
    cp "$out/arch/x86/boot/bzImage" "$tree/boot/vmlinuz-$release"
    cp "$out/System.map" "$tree/boot/System.map-$release"
    cp "$out/.config" "$tree/boot/config-$release"
    cp "$out/Module.symvers" "$tree/usr/src/linux-headers-$release/"
    echo "own $name" >"$tree/.complete"
    rm -rf "${dir:?}/$release"
    mv "$tree" "$dir/$release"
    note "$release: $(find "$dir/$release" -name '*.ko' | wc -l) modules"
    printf '%s %s\n' "$release" "$dir/$release"
done
