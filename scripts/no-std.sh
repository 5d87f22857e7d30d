#!/usr/bin/env bash
# Builds every library crate for targets that have no standard library: kernels, hypervisors and WebAssembly can use them.
# Needs rustup for targets that are not installed yet. Takes no arguments.
set -euo pipefail
export LC_ALL=C.UTF-8
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

targets=(x86_64-unknown-none aarch64-unknown-none wasm32-unknown-unknown)

there() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]
}

for target in "${targets[@]}"; do
    there "$target" || rustup target add "$target"
done

packages=()
for manifest in crates/*/Cargo.toml; do
    # What says that it is one; a crate for tests only need not be.
    grep -q '^#!\[no_std\]' "$(dirname "$manifest")/src/lib.rs" || continue
    packages+=(--package "$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -n 1)")
done

# The decompressors of kernel-image need std; the cryptography of module-signature does not.
for target in "${targets[@]}"; do
    cargo build --locked --target "$target" --no-default-features --features module-signature/verify "${packages[@]}"
done
