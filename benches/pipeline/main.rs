//! How fast the pipeline is, stage by stage and as a whole.
//!
//! `cargo bench -p kmodld --bench pipeline` measures on the fixtures; with the environment variable
//! `KMODLD_KERNELS` (a folder that `scripts/fetch-kernels.sh` filled) also on large modules and on whole trees.
//! docs/performance.md says what the groups mean. Nothing here can fail for being slow.
#![allow(clippy::restriction, reason = "a benchmark fails by panicking, and its numbers are small")]

mod inputs;
mod relocations;
mod stages;
mod symbols;
mod trees;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    stages::parse(&mut criterion);
    stages::layout(&mut criterion);
    symbols::index(&mut criterion);
    symbols::kernel_image(&mut criterion);
    stages::resolve(&mut criterion);
    relocations::apply(&mut criterion);
    stages::finalize(&mut criterion);
    stages::link(&mut criterion);
    trees::large_modules(&mut criterion);
    trees::sections_of_a_large_module(&mut criterion);
    trees::whole_trees(&mut criterion);
    criterion.final_summary();
}
