//! Threads that begin at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// A new thread begins sooner than this if there is a processor for it: mostly after 70 us.
const PATIENCE: Duration = Duration::from_micros(100);

/// Starts a thread, and sees to it that it does not wait for the processor of this one.
///
/// Systems that pack threads on few processors, as virtual machines which share a host do, leave others idle until the
/// next tick, 4 ms later. So one of both moves on: the thread if it took the processor over, else this one.
pub fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    let here = processor();
    // Has the one begun, or the other moved?
    let settled = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&settled);
    let thread = Builder::new().spawn_scoped(scope, move || {
        if !begins.swap(true, Ordering::Relaxed) && processor() == here {
            leave_processor();
        }
        work()
    })?;
    let since = Instant::now();
    while !settled.load(Ordering::Relaxed) {
        if since.elapsed() > PATIENCE && !settled.swap(true, Ordering::Relaxed) {
            leave_processor();
        }
        std::hint::spin_loop();
    }
    Ok(thread)
}

#[cfg(target_os = "linux")]
fn processor() -> usize {
    rustix::thread::sched_getcpu()
}

/// Moves this thread to another processor, if it may run on several.
#[cfg(target_os = "linux")]
fn leave_processor() {
    use rustix::thread::{sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut others = allowed;
    others.unset(processor());
    if others.count() != 0 && sched_setaffinity(None, &others).is_ok() {
        let _ = sched_setaffinity(None, &allowed);
    }
}

#[cfg(not(target_os = "linux"))]
fn processor() -> usize {
    0
}

#[cfg(not(target_os = "linux"))]
fn leave_processor() {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn every_thread_does_its_work() {
        let done = thread::scope(|scope| {
            let threads: Vec<_> = (0..50u64).map(|n| spawn(scope, move || n).unwrap()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        assert_eq!(done, 49 * 50 / 2);
    }
}
