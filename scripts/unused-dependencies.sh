#!/usr/bin/env bash
# Every dependency that a Cargo.toml of the workspace names is named by the package's sources too. Textual and offline:
# it finds what is left over, not what is only needed on paper.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

status=0
for manifest in Cargo.toml crates/*/Cargo.toml fuzz/Cargo.toml fuzz/libfuzzer/Cargo.toml; do
    package=$(dirname "$manifest")
    folders=()
    for folder in src tests benches examples fuzz_targets; do
        [ ! -d "$package/$folder" ] || folders+=("$package/$folder")
    done
    for section in dependencies dev-dependencies build-dependencies; do
        names=$(awk -v wanted="[$section]" '/^\[/ { inside = $0 == wanted } inside && /^[A-Za-z0-9_-]+(\.workspace)? *=/ {
            sub(/[. =].*/, ""); print }' "$manifest")
        for name in $names; do
            if ! grep -rqE --include='*.rs' "\b${name//-/_}(::|;| as |!)" "${folders[@]}"; then
                echo "$manifest: [$section] $name is used nowhere in $package"
                status=1
            fi
        done
    done
done
exit $status
