#!/usr/bin/env bash
# Every package of the workspace can be published: `cargo publish` takes it in a dry run, it says what a registry shows of it, and has no
# file of the fixtures, which are GPL-2.0. Needs the index of the registry. Takes no arguments; KMODLD_VERIFY=1 builds each package as well, from what is in it alone.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

verify=(--no-verify)
[ -z "${KMODLD_VERIFY:-}" ] || verify=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo publish --workspace --dry-run --locked --allow-dirty "${verify[@]}" >"$log" 2>&1 || { cat "$log"; exit 1; }
grep 'Uploading\|Packaged' "$log"

status=0
for manifest in Cargo.toml crates/*/Cargo.toml; do
    # A workspace of its own, which is no package of this registry.
    ! grep -q '^publish = false' "$manifest" || continue
    for field in description license readme keywords categories rust-version; do
        grep -q "^$field\b" "$manifest" || { echo "$manifest says no $field" >&2; status=1; }
    done
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -n 1)
    if cargo package --list --locked --allow-dirty --package "$name" 2>/dev/null | grep -E '\.ko(\.|$)|^fixtures/|LICENSE-GPL'; then
        echo "$name: fixtures are in its package" >&2
        status=1
    fi
done
exit $status
