//! The program `kmodld`.
#![forbid(unsafe_code)]

// Verdicts are made by one thread and freed by another, for which the C library takes locks: 7 % of the time of a tree.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
