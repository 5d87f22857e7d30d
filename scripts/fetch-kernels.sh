#!/usr/bin/env bash
# Fetches Debian kernel packages and lays them out as trees for kmodld.
# See --help.
set -euo pipefail
export LC_ALL=C

prog=${0##*/}
suites_default="bullseye bullseye-security bookworm bookworm-security bookworm-backports trixie trixie-security trixie-backports sid"

usage() {
    cat <<USAGE
usage: KMODLD_KERNELS=DIR $prog [--dir DIR] [--no-update] [KERNEL...]

Fetches Debian's current kernel for each KERNEL into the cache folder DIR:

    DIR/RELEASE/lib/modules/RELEASE/...                  modules as shipped (.ko or .ko.xz); since
                                                         7.2 also vmlinuz, config and System.map
    DIR/RELEASE/boot/{vmlinuz,config,System.map}-RELEASE before 7.2
    DIR/RELEASE/usr/src/linux-headers-RELEASE/Module.symvers
                                                         unless the archive has the headers no longer
    DIR/RELEASE/.complete                                written last: what the tree was made from

and prints one line per tree on stdout: RELEASE PATH. Messages go to stderr.

KERNEL is [SUITE:]SERIES-FLAVOUR: 6.1-amd64, 6.12-arm64, newest-amd64, trixie:6.12-amd64, and other flavours
such as 6.12-cloud-amd64 or 6.12-rt-amd64. SERIES newest is the highest version there is. Default: 6.1-amd64 6.12-amd64.
A series that is in the archive as images alone (no headers, or no modules) gives a tree without the rest.
Without SUITE, this machine's own Debian suite is asked first, then all others together (a suite means its -security
and -backports as well).

  --dir DIR      the cache folder (default: the environment variable KMODLD_KERNELS)
  --no-update    resolve against the package lists as they are, without apt-get update
  -h, --help     this text

The package lists are this script's own, in DIR/.apt: nothing of the system's package sources, lists or architectures
is used up or changed, nothing is installed, and root is not needed. The mirror is the one that this machine's apt uses for Debian,
or deb.debian.org. KMODLD_SUITES names the suites that are looked at. Default:
$suites_default.
A complete tree is kept as long as its suite offers no newer version of its packages.

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

# KERNEL -> $suite (perhaps empty), $series, $flavour, $arch
parse_kernel() {
    [[ $1 =~ ^(([a-z]+):)?(newest|[0-9]+\.[0-9]+)-([a-z0-9]+(-[a-z0-9]+)*)$ ]] ||
        bad_usage "kernel '$1' is not [SUITE:]SERIES-FLAVOUR, as in 6.12-amd64 or newest-arm64"
    suite=${BASH_REMATCH[2]} series=${BASH_REMATCH[3]} flavour=${BASH_REMATCH[4]}
    case -$flavour- in
        *-amd64-*) arch=amd64 ;;
        *-arm64-*) arch=arm64 ;;
        *) bad_usage "kernel '$1' is for neither amd64 nor arm64" ;;
    esac
    [[ -z $suite || " $suites " == *" $suite "* ]] || bad_usage "kernel '$1': the suites are $suites"
}
own_suite=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}") || own_suite=
suites=${KMODLD_SUITES:-$suites_default}
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

# apt with lists, cache and sources of its own; proxies and the like stay as this machine has them.
apt=$dir/.apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
[ -e "$apt/status" ] || : >"$apt/status"
apt_opts=(-q -o Acquire::Retries=3
    -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
    -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=srcpkgcache.bin
    -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=-
    -o APT::Architectures::= -o APT::Architectures::=amd64 -o APT::Architectures::=arm64)
# As root: the cache folder need not be open to the user _apt.
[ "$(id -u)" != 0 ] || apt_opts+=(-o APT::Sandbox::User=root)

show_log() { sed 's/^/    /' "$tmp/log" >&2; }

# The mirror is the one that the machine's own sources name for Debian.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    sed -n 's,^Debian \(.*/debian\)/*$,\1,p' | head -n 1) || true
mirror=${mirror:-http://deb.debian.org/debian}
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ ! -f $keys ] || signed="signed-by=$keys "
for suite in $suites; do
    at=$mirror
    [[ $suite != *-security ]] || at=$mirror-security
    echo "deb [${signed:-}target=Packages] $at $suite main"
done >"$tmp/sources.list"
# One that is newer than apt's cache has the cache made anew.
cmp -s "$tmp/sources.list" "$apt/sources.list" || cp -- "$tmp/sources.list" "$apt/sources.list"

if [ $update = yes ]; then
    note "updating the package lists of $suites"
    # A suite that is no longer on the mirror is no reason to stop: what is missing shows below.
    apt-get "${apt_opts[@]}" update >"$tmp/log" 2>&1 9>&- || true
    if grep -E '^[WE]:' "$tmp/log" | sed 's/^/    /' >"$tmp/trouble" && [ -s "$tmp/trouble" ]; then
        cat "$tmp/trouble" >&2
        note "warning: apt-get update had the trouble above; going on with the lists there are"
    fi
fi

# All packages of kernels for $arch as lines "PACKAGE VERSION SUITE", asked for once: apt-cache takes a second each time.
packages_of_arch() {
    local out=$tmp/packages-$arch
    [ ! -e "$out" ] || return 0
    apt-cache "${apt_opts[@]}" pkgnames linux- | grep -E '^linux-(headers|image|binary|base|modules)-[0-9]' >"$tmp/names" || true
    sed "s/$/:$arch/" "$tmp/names" | xargs -r apt-cache "${apt_opts[@]}" madison 2>/dev/null |
        awk -F' *[|] *' '/ Packages$/ { split($3, words, " "); split(words[2], of, "/"); sub(/-(security|backports)$/, "", of[1])
            sub(/^ */, "", $1); sub(/:.*/, "", $1); print $1, $2, of[1] }' >"$out"
}

# Versions of package $1 for $arch that can be downloaded from $suite (any where empty), newest first.
versions() {
    packages_of_arch
    awk -v name="$1" -v suite="$suite" '$1 == name && (suite == "" || $3 == suite) { print $2 }' "$tmp/packages-$arch" | sort -Vru
}

# The releases of $series and $flavour that have a package $1-RELEASE, newest first.
releases() {
    local number=${series//./[.]}
    [ "$series" != newest ] || number='[0-9]+[.][0-9]+'
    # linux-image-6.1.0-56-amd64-unsigned, linux-image-6.12.117+deb12-amd64: after the series at least one more
    # number (linux-image-6.12-amd64 is a metapackage), perhaps +SUITE, perhaps an ABI number, then just the flavour.
    packages_of_arch
    cut -d' ' -f1 "$tmp/packages-$arch" |
        { grep -E -- "^$1-$number([.][0-9]+)+([+][a-z0-9.]+)?(-[0-9][a-z0-9.]*)?-$flavour(-unsigned)?$" || true; } |
        sed "s/^$1-//; s/-unsigned$//" | sort -Vru
}

# Is the release one whose packages turned out not to be there?
is_gone() { grep -qxF -- "$1 $arch" "$tmp/gone" 2>/dev/null; }

# $suite, $series, $flavour, $arch -> $release, $version, $image, and the packages ${packages[@]}. Since 7.2 an image is in
# parts: linux-binary has vmlinuz, linux-base config and System.map, linux-modules the modules. Before, the unsigned image
# is preferred (it is the one built with the headers; its modules are signed all the same), the signed one taken where a
# release has no other. The newest release that has all its packages and its headers in one version; else, as the archive
# drops headers first, the newest that has its image and modules; else the newest that has an image.
resolve() {
    local rel p v
    releases linux-headers >"$tmp/releases"
    while read -r rel; do
        ! is_gone "$rel" || continue
        versions "linux-headers-$rel" >"$tmp/headers"
        for image in linux-binary-"$rel" linux-image-"$rel"{-unsigned,}; do
            packages=("$image")
            [[ $image != linux-binary-* ]] || packages+=("linux-base-$rel" "linux-modules-$rel")
            while read -r v; do
                for p in "${packages[@]}"; do
                    versions "$p" | grep -qxF -- "$v" || continue 2
                done
                release=$rel version=$v packages+=("linux-headers-$rel")
                return 0
            done <"$tmp/headers"
        done
    done <"$tmp/releases"
    { releases linux-image; releases linux-binary; } | sort -Vru >"$tmp/releases"
    while read -r rel; do
        ! is_gone "$rel" || continue
        image=linux-image-$rel
        # Where there is linux-binary, linux-image is empty.
        [ -z "$(versions "linux-binary-$rel")" ] || image=linux-binary-$rel
        for v in $(versions "$image"); do
            release=$rel version=$v packages=("$image")
            for p in linux-base-"$rel" linux-modules-"$rel"; do
                ! versions "$p" | grep -qxF -- "$v" || packages+=("$p")
            done
            return 0
        done
    done <"$tmp/releases"
    return 1
}

# resolve, where no suite is named in the machine's own first.
resolve_anywhere() {
    if [ -z "$suite" ] && [ "$series" != newest ] && [[ " $suites " == *" ${own_suite:-none} "* ]]; then
        suite=$own_suite
        ! resolve || return 0
        suite=
    fi
    resolve
}

explain_nothing() {
    note "error: $1: no kernel $series.*-$flavour for $arch in the suites ${suite:-$suites}"
    local have
    have=$(cut -d' ' -f1 "$tmp/packages-$arch" |
        sed -nE "s/^linux-image-([0-9]+[.][0-9]+)[.].*[0-9]-$flavour(-unsigned)?$/\1/p" | sort -Vu | tr '\n' ' ')
    note "series known for $flavour: ${have:-none}"
}

# Makes the tree of $release in $tmp and renames it to its place; 1 if the mirror does not have the packages that its lists name.
fetch() {
    local dest=$dir/$release work=$tmp/work tree=$tmp/work/tree headers=linux-headers-$release debs p part n
    rm -rf -- "$work"
    mkdir -p "$tree/lib/modules/$release" "$work/image"
    note "$release: downloading ${packages[*]} $version"
    if ! (cd "$work" && apt-get "${apt_opts[@]}" download "${packages[@]/%/:$arch=$version}") >"$tmp/log" 2>&1 9>&-; then
        show_log
        grep -q '^E: Failed to fetch .* 404 ' "$tmp/log" ||
            die "$release: download failed (if the archive has moved on: again, without --no-update)"
        return 1
    fi
    for p in "${packages[@]}"; do
        debs=("$work/${p}_"*.deb)
        [[ ${#debs[@]} = 1 && -f ${debs[0]} ]] || die "$release: the download left no single $p package"
        mv -- "${debs[0]}" "$work/$p.deb"
    done

    note "$release: unpacking"
    for p in "${packages[@]}"; do
        [ "$p" != "$headers" ] || continue
        dpkg-deb -x "$work/$p.deb" "$work/image" || die "$release: cannot unpack $p"
    done
    for part in lib usr/lib; do # Debian 13 and later ship modules below /usr/lib
        [ ! -d "$work/image/$part/modules/$release" ] || cp -al "$work/image/$part/modules/$release/." "$tree/lib/modules/$release/"
    done
    [ ! -d "$work/image/boot" ] || mv "$work/image/boot" "$tree/"
    for part in vmlinuz config System.map; do
        [ -s "$tree/boot/$part-$release" ] || [ -s "$tree/lib/modules/$release/$part" ] ||
            { [ $part != vmlinuz ] && [[ $image = linux-binary-* && " ${packages[*]} " != *" linux-base-"* ]]; } ||
            die "$release: no $part in ${packages[*]}"
    done
    n=$(find "$tree/lib/modules" -name '*.ko*' -type f | wc -l)
    [ "$n" -gt 0 ] || [[ $image = linux-binary-* && " ${packages[*]} " != *" linux-modules-"* ]] ||
        die "$release: no modules in ${packages[*]}"

    if [ -e "$work/$headers.deb" ]; then
        part=usr/src/$headers/Module.symvers
        dpkg-deb --fsys-tarfile "$work/$headers.deb" | tar -xf - -C "$tree" "./$part" ||
            die "$release: cannot unpack $part from $headers"
        [ -s "$tree/$part" ] || die "$release: $part is empty"
    else
        note "$release: the archive has its headers no longer, so no Module.symvers"
    fi

    chmod -R u+rwX,go+rX "$tree"
    printf '%s\n' "image $image $version $arch" "headers $headers $version $arch" "modules $n" >"$tree/.complete"
    [ -e "$work/$headers.deb" ] || sed -i '/^headers /d' "$tree/.complete"
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
    while :; do
        if ! resolve_anywhere; then
            explain_nothing "$k"
            failed=1
            break
        fi
        if [ -f "$dir/$release/.complete" ] &&
            grep -Eq "^image [^ ]+ ${version//[.+]/[&]} $arch\$" "$dir/$release/.complete"; then
            note "$release: complete, kept"
        elif ! fetch; then
            note "warning: $release: the mirror does not have what its lists name; trying an older release"
            echo "$release $arch" >>"$tmp/gone"
            continue
        fi
        printf '%s %s\n' "$release" "$dir/$release"
        break
    done
done
exit $failed
