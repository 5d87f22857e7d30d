//! One of the targets of `kmodld-fuzz` under libFuzzer: the one that this program is named after. Its mutator takes
//! turns with libFuzzer's own.
#![no_main]

use std::sync::LazyLock;

use kmodld_fuzz::Target;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// The file name of this program is the name of its target.
static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let program = std::env::current_exe().ok();
    let name = program.as_ref().and_then(|path| path.file_name()).and_then(|name| name.to_str());
    name.and_then(kmodld_fuzz::target).unwrap_or_else(|| panic!("no target is called {name:?}"))
});

fuzz_target!(|data: &[u8]| (TARGET.body)(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut random = fastrand::Rng::with_seed(u64::from(seed));
    if size == 0 || random.bool() {
        return fuzzer_mutate(data, size, max_size);
    }
    let good = data[..size].to_vec();
    let mutant = TARGET.mutate(&mut random, &good, &good);
    let len = mutant.len().min(max_size);
    data[..len].copy_from_slice(&mutant[..len]);
    len
});
