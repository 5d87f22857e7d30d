#!/usr/bin/env bash
# What of the public interface has changed since the last tag, and whether the version says so: cargo-semver-checks, which compares the
# JSON of rustdoc. Takes no arguments. Without that tool (`cargo install cargo-semver-checks --locked` builds some 400 packages), or without
# a tag, there is nothing to compare: that is said, and is no failure.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

if ! tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null); then
    echo 'skipped: no version is tagged yet, so there is nothing to compare with'
    exit 0
fi
if ! cargo semver-checks --version >/dev/null 2>&1; then
    echo 'skipped: no cargo-semver-checks'
    exit 0
fi
status=0
for manifest in Cargo.toml crates/*/Cargo.toml; do
    # A workspace of its own, which is no package of this registry.
    ! grep -q '^publish = false' "$manifest" || continue
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -n 1)
    printf '\n=== %s since %s\n' "$name" "$tag"
    cargo semver-checks --package "$name" --baseline-rev "$tag" || status=1
done
exit $status
