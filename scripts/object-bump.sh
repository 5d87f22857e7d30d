#!/usr/bin/env bash
# What is built on kmodld does not see which version of `object` kmodld is built on: in a copy, `object` gets another major version, and
# the programs of examples/ are built as a package of their own that uses today's version beside it. Works offline, if the workspace
# was built before. Takes no arguments.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
manifest=$(cargo metadata --format-version 1 --locked --offline --filter-platform "$(rustc -vV | awk "/^host:/ { print \$2 }")" |
    python3 -c 'import json, sys; print(*(p["manifest_path"] for p in json.load(sys.stdin)["packages"] if p["name"] == "object"), sep="\n")')
[ "$(wc -l <<<"$manifest")" = 1 ] || { echo "more than one version of object: $manifest" >&2; exit 1; }
now=$(sed -n 's/^version = "\(.*\)"/\1/p' "$manifest" | head -n 1)
next=0.$(($(cut -d. -f2 <<<"$now") + 1)).0

mkdir "$work/copy" "$work/dependent" "$work/dependent/src"
git ls-files -z -- Cargo.toml Cargo.lock README.md src crates examples docs/findings docs/spec CHANGELOG.md fuzz benches tests |
    xargs -0 cp --parents -t "$work/copy"
cp -r "$(dirname "$manifest")" "$work/object"
chmod -R u+w "$work/object"
sed -i "0,/^version = /s/^version = .*/version = \"$next\"/" "$work/object/Cargo.toml"
sed -i "s|^object = { version = \"[^\"]*\"|object = { path = \"$work/object\", version = \"$next\"|" "$work/copy/Cargo.toml"
grep -q "^object = { path" "$work/copy/Cargo.toml"

cat >"$work/dependent/Cargo.toml" <<END
[package]
name = "dependent"
version = "0.0.0"
edition = "2024"

[dependencies]
kmodld = { path = "../copy", default-features = false, features = ["signature", "bzip2-lz4-lzo", "disassemble", "verify"] }
elf-layout = { path = "../copy/crates/elf-layout" }
symres = { path = "../copy/crates/symres" }
reloc = { path = "../copy/crates/reloc" }
iced-x86 = "1"
object = { version = "$now", default-features = false, features = ["read_core", "elf", "unaligned"] }

[workspace]
END
mkdir "$work/dependent/src/bin"
cp examples/*.rs "$work/dependent/src/bin/"
# Bytes are what both understand.
cat >"$work/dependent/src/bin/both.rs" <<'END'
use elf_layout::elf::SymFields;
use object::LittleEndian;
use object::elf::Sym64;

fn main() {
    let mut record = [0; 24];
    record[8] = 7;
    let of_object: &Sym64<LittleEndian> = object::pod::from_bytes(&record).unwrap().0;
    assert_eq!(of_object.st_value.get(LittleEndian), record.value());
}
END
cp Cargo.lock "$work/dependent/Cargo.lock"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/object-bump
cargo check --quiet --offline --bins --manifest-path "$work/dependent/Cargo.toml"
cargo tree --offline --manifest-path "$work/dependent/Cargo.toml" --invert "object@$next" --depth 1 --prefix none | sort -u
echo "built with object $next, where kmodld is built on $now"
