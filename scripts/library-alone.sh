#!/usr/bin/env bash
# The library without its default features: it compiles, stays small, and has nothing that only the program needs.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

most=50

cargo check --locked --package kmodld --lib --no-default-features
# Each package once, with its version and without where it lies.
packages=$(cargo tree --locked --package kmodld --edges normal --no-default-features --no-dedupe --prefix none |
    awk '{ print $1, $2 }' | sort -u)
count=$(wc -l <<<"$packages")
echo "the library alone is built from $count packages, itself included"
status=0
if [ "$count" -gt $most ]; then
    echo "more than $most:"
    echo "$packages"
    status=1
fi
for unwanted in anstream anstyle clap cms der mimalloc p256 p384 rsa sha1 sha2; do
    if grep -q "^$unwanted " <<<"$packages"; then
        echo "$unwanted is for the program alone, or for the feature signature"
        status=1
    fi
done
exit $status
