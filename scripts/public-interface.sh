#!/usr/bin/env bash
# The public interface of the library crates: what scripts/public_interface.py asks of it, and what of it is gone or another since the
# last tag, which a version has to say. Reads the JSON of rustdoc, which stable compilers give out with RUSTC_BOOTSTRAP. Takes no
# arguments. Where cargo-semver-checks is installed, it is asked as well.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
libraries=(elf-layout kernel-image kmodld-kernel symres reloc finalize module-signature memory-image kmodld-run kmodld)

# interface FOLDER: that of the workspace in the current folder, as one file for each crate.
interface() {
    local package features
    rm -f "$target"/doc/*.json
    for package in "${libraries[@]}"; do
        features=()
        [ "$package" != kmodld ] || features=(--no-default-features --features signature,schema,verify,trace,run)
        RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$target cargo rustdoc --quiet --locked --package "$package" --lib "${features[@]}" \
            -- -Z unstable-options --output-format json
    done
    mkdir -p "$1"
    mv "$target"/doc/*.json "$1/"
}

# version FILE: the part of a version that changes when something breaks: 0.2 of 0.2.1, 1 of 1.2.1.
version() {
    sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(0\.[0-9]*\|[1-9][0-9]*\).*"/\1/p' "$1"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
interface "$work/now"
python3 scripts/public_interface.py rules "$work/now"

if ! tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
    echo 'no version is tagged yet: there is nothing to compare with'
    exit 0
fi
mkdir "$work/tagged"
git archive "$tag" | tar -x -C "$work/tagged"
(cd "$work/tagged" && interface "$work/then")
breaking=$([ "$(version Cargo.toml)" = "$(version "$work/tagged/Cargo.toml")" ] && echo 0 || echo 1)
echo "since $tag:"
python3 scripts/public_interface.py compare "$work/then" "$work/now" "$breaking"
if cargo semver-checks --version >/dev/null 2>&1; then
    for package in "${libraries[@]}"; do
        cargo semver-checks --package "$package" --baseline-rev "$tag"
    done
fi
