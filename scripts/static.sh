#!/usr/bin/env bash
# One static binary for any Linux of this architecture, in target/static/. Needs musl-gcc (Debian: musl-tools) and
#   rustup target add "$(uname -m)-unknown-linux-musl"
#   KMODLD_PROFILE=release   instead of dist: built in a third of the time
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
profile=${KMODLD_PROFILE:-dist}
target=$(uname -m)-unknown-linux-musl

cargo build --locked --profile "$profile" --target "$target" --bin kmodld
folder=${CARGO_TARGET_DIR:-target}
mkdir -p "$folder/static"
install -s "$folder/$target/$profile/kmodld" "$folder/static/kmodld"
# ldd takes a static PIE for a dynamic one that needs nothing.
if readelf -lW "$folder/static/kmodld" | grep -q ' INTERP '; then
    echo 'it is not static' >&2
    exit 1
fi
"$folder/static/kmodld" --version
ls -l "$folder/static/kmodld"
