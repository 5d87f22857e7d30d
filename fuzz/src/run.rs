//! Running a target on an input, within bounds of time.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::{Duration, Instant};

use crate::Target;

/// How long an input of so many bytes may take.
pub fn time_limit(len: usize) -> Duration {
    Duration::from_millis(500) + Duration::from_micros(20) * u32::try_from(len).unwrap_or(u32::MAX)
}

/// How much memory an input of so many bytes may take, in bytes.
pub fn memory_limit(len: usize) -> usize {
    (64 << 20) + 512 * len
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are kept rather than printed.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let kept = PANIC.try_with(|panic| *panic.borrow_mut() = info.to_string());
            if kept.is_err() {
                print(info);
            }
        }));
    });
}

/// Runs the body once; the time it took, or what does not hold.
fn once(target: &Target, input: &[u8]) -> Result<Duration, String> {
    keep_panics();
    let start = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| (target.body)(input))) {
        Ok(()) => Ok(start.elapsed()),
        Err(_) => Err(PANIC.with_borrow(Clone::clone)),
    }
}

/// How long this thread has run so far, the time not counted in which it had to wait for a processor.
fn on_cpu() -> Option<Duration> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    schedstat.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// As [`once`], without the time in which others ran, if the system tells that.
fn once_alone(target: &Target, input: &[u8]) -> Result<Duration, String> {
    let before = on_cpu();
    let elapsed = once(target, input)?;
    Ok(before.and_then(|before| Some(on_cpu()?.saturating_sub(before))).unwrap_or(elapsed))
}

/// Gives a target an input; the error says what does not hold. Slow is what is slow five times. A build without
/// optimisation, on a machine with other things to do, is given `patience` times as long.
pub fn run(target: &Target, input: &[u8], patience: u32) -> Result<Duration, String> {
    let limit = time_limit(input.len()) * patience;
    let mut best = once(target, input)?;
    for _ in 0..4 {
        if best <= limit {
            break;
        }
        best = best.min(once_alone(target, input)?);
    }
    if best > limit {
        return Err(format!("{best:?} for {} bytes, of {limit:?}", input.len()));
    }
    Ok(best)
}

/// Where inputs are kept that once broke a target.
pub fn regressions(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(target.name)
}

/// Keeps an input that breaks a target.
pub fn keep(target: &Target, input: &[u8]) -> std::io::Result<PathBuf> {
    let folder = regressions(target);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{:016x}", crate::bodies::checksum(input)));
    std::fs::write(&path, input)?;
    Ok(path)
}
