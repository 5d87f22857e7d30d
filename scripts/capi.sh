#!/usr/bin/env bash
# The C library: its header is what cbindgen makes of the sources (where cbindgen is installed), and the examples do what they say, under
# the address sanitizer. With a folder as argument it installs library, header and kmodld.pc there (lib, include, lib/pkgconfig).
#
#   KMODLD_PROFILE   dev (default), release or dist
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

profile=${KMODLD_PROFILE:-dev}
target=${CARGO_TARGET_DIR:-target}
built=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")
header=crates/capi/include/kmodld.h

cargo build --quiet --locked --package kmodld-capi --profile "$profile"

install_into() {
    local prefix=$1
    mkdir -p "$prefix/lib/pkgconfig" "$prefix/include"
    cp "$built/libkmodld_c.so" "$built/libkmodld_c.a" "$prefix/lib/"
    cp "$header" "$prefix/include/"
    local version
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    sed "s|@PREFIX@|$(realpath "$prefix")|; s|@VERSION@|$version|" crates/capi/kmodld.pc.in >"$prefix/lib/pkgconfig/kmodld.pc"
}

if [ $# = 1 ]; then
    install_into "$1"
    exit
fi

if command -v cbindgen >/dev/null; then
    cbindgen --quiet --config crates/capi/cbindgen.toml crates/capi | diff -u "$header" - ||
        { echo "$header is not what cbindgen makes of the sources: cbindgen --config crates/capi/cbindgen.toml crates/capi -o $header" >&2; exit 1; }
else
    echo 'skipped: cbindgen is not installed: nobody compared the header with the sources'
fi

# The kernel of the fixtures as one file; a test makes it.
spec=$target/tmp/examples.spec
[ -f "$spec" ] || cargo test --quiet --locked --test examples -- batch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_into "$work/prefix"
export PKG_CONFIG_PATH=$work/prefix/lib/pkgconfig
if command -v pkg-config >/dev/null; then
    read -ra flags < <(pkg-config --cflags --libs kmodld)
else
    flags=("-I$work/prefix/include" "-L$work/prefix/lib" -lkmodld_c)
fi
for name in link compare; do
    gcc -g -O1 -std=c11 -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all \
        "crates/capi/examples/$name.c" -o "$work/$name" "${flags[@]}"
done
export LD_LIBRARY_PATH=$work/prefix/lib
hello=fixtures/6.12-amd64/hello.ko
"$work/link" "$spec" $hello "$work/hello.elf" | tee "$work/out"
grep -q ' _printk of vmlinux$' "$work/out"
readelf -hW "$work/hello.elf" | grep -q 'EXEC (Executable file)'
# A module that the kernel refuses: errno, and why.
status=0
"$work/link" "$spec" fixtures/6.12-amd64/importer.ko "$work/none.elf" >"$work/out" 2>&1 || status=$?
[ $status = 1 ] && grep -q '^-2: the kernel refuses the module with ENOENT' "$work/out" && grep -q '^error\[SYM-5\]' "$work/out"
"$work/compare" "$spec" $hello | tee "$work/out"
grep -q ': 1 bytes, ALARM: ' "$work/out"
# Also without the shared library.
gcc -std=c11 -Icrates/capi/include crates/capi/examples/link.c "$built/libkmodld_c.a" -lgcc_s -lutil -lrt -lpthread -lm -ldl -o "$work/static"
"$work/static" "$spec" $hello "$work/hello2.elf" >/dev/null
cmp "$work/hello.elf" "$work/hello2.elf"
echo 'the C library does what its header says'
