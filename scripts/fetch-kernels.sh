#!/usr/bin/env bash
# Fetches the current Debian kernel packages and lays them out as trees for kmodld.
# See --help.
set -euo pipefail
export LC_ALL=C

prog=${0##*/}

usage() {
    cat <<USAGE
usage: KMODLD_KERNELS=DIR $prog [--dir DIR] [--no-update] [KERNEL...]

Fetches the newest Debian kernel of each KERNEL into the cache folder DIR:

    DIR/RELEASE/lib/modules/RELEASE/...                  modules as shipped (.ko or .ko.xz)
    DIR/RELEASE/boot/{vmlinuz,config,System.map}-RELEASE
    DIR/RELEASE/usr/src/linux-headers-RELEASE/Module.symvers
    DIR/RELEASE/.complete                                written last: what the tree was made from

and prints one line per tree on stdout: RELEASE PATH. Messages go to stderr.

KERNEL is SERIES-FLAVOUR: 6.1-amd64, 6.12-amd64, 6.1-arm64, 6.12-arm64, and other
flavours such as 6.12-cloud-amd64 or 6.12-rt-amd64. Default: 6.1-amd64 6.12-amd64.

  --dir DIR      the cache folder (default: the environment variable KMODLD_KERNELS)
  --no-update    resolve against the package lists as they are, without apt-get update
  -h, --help     this text

A complete tree is kept as long as apt offers no newer version of its packages.
Nothing is installed. As root, the package lists are brought up to date first, and
the architecture of a KERNEL is enabled (dpkg --add-architecture) where it is not yet.
Without root, the lists and architectures must be there already.
apt must have Debian sources: bookworm with bookworm-security offers both 6.1 and 6.12.

Exit status: 0 all trees are there, 1 something failed, 2 wrong usage.
USAGE
}

note() { printf '%s: %s\n' "$prog" "$*" >&2; }
die() { note "error: $*"; exit 1; }
bad_usage() { note "error: $*"; note "try $prog --help"; exit 2; }

dir=${KMODLD_KERNELS:-}
update=yes
kernels=()
while [ $# -gt 0 ]; do
    case $1 in
        -h|--help) usage; exit 0 ;;
        --dir) [ $# -ge 2 ] || bad_usage "--dir needs a folder"; dir=$2; shift ;;
        --dir=*) dir=${1#--dir=} ;;
        --no-update) update=no ;;
        -*) bad_usage "unknown option $1" ;;
        *) kernels+=("$1") ;;
    esac
    shift
done
[ ${#kernels[@]} -gt 0 ] || kernels=(6.1-amd64 6.12-amd64)
[ -n "$dir" ] || bad_usage "no cache folder: set KMODLD_KERNELS or give --dir DIR"

# KERNEL -> $series, $flavour, $arch
parse_kernel() {
    [[ $1 =~ ^([0-9]+\.[0-9]+)-([a-z0-9]+(-[a-z0-9]+)*)$ ]] ||
        bad_usage "kernel '$1' is not SERIES-FLAVOUR, as in 6.12-amd64"
    series=${BASH_REMATCH[1]} flavour=${BASH_REMATCH[2]}
    case -$flavour- in
        *-amd64-*) arch=amd64 ;;
        *-arm64-*) arch=arm64 ;;
        *) bad_usage "kernel '$1' is for neither amd64 nor arm64" ;;
    esac
}
for k in "${kernels[@]}"; do parse_kernel "$k"; done

for tool in apt-get apt-cache dpkg dpkg-deb tar flock; do
    command -v "$tool" >/dev/null ||
        die "$tool is missing: this needs a Debian-like system with apt, dpkg, tar and util-linux"
done

mkdir -p -- "$dir" || die "cannot create $dir"
dir=$(cd -- "$dir" && pwd)
[ -w "$dir" ] || die "$dir is not writable"

# One run at a time per cache folder. With the lock held, what earlier runs left half-made is garbage.
exec 9>"$dir/.lock" || die "cannot write $dir/.lock"
flock -n 9 || { note "waiting for another run on $dir"; flock 9; }
rm -rf -- "$dir"/.fetch.*
tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf -- "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

root=no
apt_opts=(-q -o Acquire::Retries=3)
if [ "$(id -u)" = 0 ]; then
    root=yes
    apt_opts+=(-o APT::Sandbox::User=root)  # the cache folder need not be open to the user _apt
fi

# Runs a command, its output in $tmp/log, again for as long as another apt or dpkg holds a lock (10 minutes at most).
locked_retry() {
    local try
    for try in {1..120}; do
        "$@" >"$tmp/log" 2>&1 9>&- && return 0
        grep -Eq 'Could not get lock|Unable to lock|unable to (lock|access) .*lock|locked by another process' "$tmp/log" || return 1
        [ "$try" != 1 ] || note "waiting for a lock held by another apt or dpkg"
        sleep 5
    done
    return 1
}

show_log() { sed 's/^/    /' "$tmp/log" >&2; }

known_arch() {
    local all
    all=" $(dpkg --print-architecture) $(dpkg --print-foreign-architectures | tr '\n' ' ') "
    [[ $all == *" $1 "* ]]
}

added=no
for k in "${kernels[@]}"; do
    parse_kernel "$k"
    known_arch "$arch" && continue
    [ $root = yes ] ||
        die "$k: architecture $arch is not enabled; as root: dpkg --add-architecture $arch && apt-get update"
    note "enabling architecture $arch"
    locked_retry dpkg --add-architecture "$arch" || { show_log; die "dpkg --add-architecture $arch failed"; }
    added=yes
done

if [ $root = no ]; then
    note "not root: using the package lists as they are"
elif [ $update = yes ] || [ $added = yes ]; then
    note "updating the package lists"
    # A source that fails (a third party's, say) is no reason to stop: what is missing shows below. apt-get update
    # exits with 0 after most such failures and only warns.
    if ! locked_retry apt-get "${apt_opts[@]}" update; then
        show_log
        note "warning: apt-get update failed; going on with the lists there are"
    elif grep -E '^[WE]:' "$tmp/log" | sed 's/^/    /' >&2; then
        note "warning: apt-get update had the trouble above; going on with the lists there are"
    fi
fi

# Versions of package $1 for architecture $2 that can be downloaded, newest first.
# (pkgnames and policy also know packages that are only installed or only depended upon.)
versions() {
    apt-cache madison "$1:$2" 2>/dev/null | awk -F' *[|] *' '/ Packages$/ { print $2 }' | sort -Vru
}

# $series, $flavour, $arch -> $release, $image, $headers, $version: the newest release that has an image package and
# a headers package of the same version. The unsigned image is preferred (it is the one built with the headers; its
# modules are signed all the same), the signed one taken where a release has no other.
resolve() {
    local re rel suffix v
    # linux-image-6.1.0-56-amd64-unsigned, linux-image-6.12.117+deb12-amd64: after the series at least one more
    # number (linux-image-6.12-amd64 is a metapackage), perhaps +SUITE, perhaps an ABI number, then just the flavour.
    re="^linux-image-${series//./[.]}([.][0-9]+)+([+][a-z0-9.]+)?(-[0-9][a-z0-9.]*)?-$flavour(-unsigned)?$"
    apt-cache pkgnames "linux-image-$series." >"$tmp/names" || die "apt-cache pkgnames failed"
    { grep -E -- "$re" "$tmp/names" || true; } | sed 's/^linux-image-//; s/-unsigned$//' | sort -Vru >"$tmp/releases"
    while read -r rel; do
        headers=linux-headers-$rel
        versions "$headers" "$arch" >"$tmp/headers"
        for suffix in -unsigned ''; do
            image=linux-image-$rel$suffix
            versions "$image" "$arch" >"$tmp/versions"
            while read -r v; do
                if grep -qxF -- "$v" "$tmp/headers"; then
                    release=$rel version=$v
                    return 0
                fi
            done <"$tmp/versions"
        done
    done <"$tmp/releases"
    return 1
}

explain_nothing() {
    note "error: $1: apt offers no linux-image-$series.*-$flavour with its headers for $arch"
    local have
    have=$(apt-cache pkgnames linux-image- |
        sed -nE "s/^linux-image-([0-9]+[.][0-9]+)[.].*[0-9]-$flavour(-unsigned)?$/\1/p" | sort -Vu | tr '\n' ' ')
    note "series apt knows for $flavour: ${have:-none}"
    note "Debian's sources are needed (bookworm and bookworm-security for 6.1 and 6.12), and lists that are up to date (apt-get update)"
}

# Makes the tree of $release in $tmp and renames it to its place.
fetch() {
    local dest=$dir/$release work=$tmp/work tree=$tmp/work/tree debs part n
    rm -rf -- "$work"
    mkdir -p "$tree"
    note "$release: downloading $image and $headers $version"
    if ! (cd "$work" && apt-get "${apt_opts[@]}" download "$image:$arch=$version" "$headers:$arch=$version") >"$tmp/log" 2>&1 9>&-; then
        show_log
        die "$release: download failed (if the archive has moved on: apt-get update, then again)"
    fi
    for part in "$image" "$headers"; do
        debs=("$work/${part}_"*.deb)
        [[ ${#debs[@]} = 1 && -f ${debs[0]} ]] || die "$release: the download left no single $part package"
        mv -- "${debs[0]}" "$work/$part.deb"
    done

    note "$release: unpacking"
    mkdir "$work/image"
    dpkg-deb -x "$work/$image.deb" "$work/image" || die "$release: cannot unpack $image"
    mkdir -p "$tree/lib/modules" "$tree/boot"
    for part in lib usr/lib; do # Debian 13 and later ship modules below /usr/lib
        [ ! -d "$work/image/$part/modules/$release" ] || mv "$work/image/$part/modules/$release" "$tree/lib/modules/"
    done
    for part in vmlinuz config System.map; do
        part=$part-$release
        [ -s "$work/image/boot/$part" ] || die "$release: $image has no boot/$part"
        mv "$work/image/boot/$part" "$tree/boot/"
    done
    n=$(find "$tree/lib/modules" -name '*.ko*' -type f | wc -l)
    [ "$n" -gt 0 ] || die "$release: $image has no modules"

    part=usr/src/$headers/Module.symvers
    dpkg-deb --fsys-tarfile "$work/$headers.deb" | tar -xf - -C "$tree" "./$part" ||
        die "$release: cannot unpack $part from $headers"
    [ -s "$tree/$part" ] || die "$release: $part is empty"

    chmod -R u+rwX,go+rX "$tree"
    printf '%s\n' "image $image $version $arch" "headers $headers $version $arch" "modules $n" >"$tree/.complete"
    if [ -e "$dest" ]; then
        mv -T -- "$dest" "$work/old"
    fi
    mv -T -- "$tree" "$dest"
    rm -rf -- "$work"
    note "$release: $n modules"
}

failed=0
declare -A seen=()
for k in "${kernels[@]}"; do
    parse_kernel "$k"
    [ -z "${seen[$k]:-}" ] || continue
    seen[$k]=1
    if ! resolve; then
        explain_nothing "$k"
        failed=1
        continue
    fi
    if [ -f "$dir/$release/.complete" ] &&
        grep -Eq "^image [^ ]+ ${version//[.+]/[&]} $arch\$" "$dir/$release/.complete"; then
        note "$release: complete, kept"
    else
        fetch
    fi
    printf '%s %s\n' "$release" "$dir/$release"
done
exit $failed
