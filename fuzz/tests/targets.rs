//! Every target for some seconds, and what once broke one.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

use kmodld_fuzz::{TARGETS, Target, run, seeds};

/// Inputs of each target. A test build is slow, so it gives fewer; none may be without any.
const INPUTS: u64 = if cfg!(debug_assertions) { 4_000 } else { 20_000 };

/// Tests run beside each other and with little optimisation.
const PATIENCE: u32 = 20;

/// Gives a target its seeds, then mutants.
fn give(target: &'static Target) {
    let all = (target.seeds)();
    for (n, seed) in all.iter().enumerate() {
        run::run(target, seed, PATIENCE).unwrap_or_else(|why| panic!("{}: seed {n}: {why}", target.name));
    }
    for number in 0..INPUTS {
        let input = target.mutant(&all, 7, number);
        run::run(target, &input, PATIENCE)
            .unwrap_or_else(|why| panic!("{}: input {number} of seed 7: {why}", target.name));
    }
}

/// On as many threads as there are processors: the bodies share nothing.
#[test]
fn every_target_holds() {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let worker = || {
            while let Some(target) = TARGETS.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                give(target);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let broken: Vec<_> = workers.into_iter().filter_map(|worker| worker.join().err()).collect();
        let text =
            |e: &Box<dyn std::any::Any + Send>| e.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(broken.is_empty(), "{}", broken.iter().map(text).collect::<Vec<_>>().join("\n"));
    });
}

#[test]
fn what_broke_a_target_once_breaks_it_no_more() {
    for target in TARGETS {
        for path in seeds::files(&run::regressions(target)) {
            let input = std::fs::read(&path).unwrap();
            run::run(target, &input, PATIENCE)
                .unwrap_or_else(|why| panic!("{}: {}: {why}", target.name, path.display()));
        }
    }
}

/// No folder of regressions that no target reads.
#[test]
fn regressions_belong_to_targets() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for path in seeds::files(&folder) {
        let known = TARGETS.iter().any(|target| run::regressions(target) == path);
        assert!(known || path.is_file(), "{}: no such target", path.display());
    }
}
