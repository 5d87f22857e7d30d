//! What a test tells beside passing or failing, and work on all processors.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Reports a test, or a part of one, that needs something that is not here.
pub fn skipped(name: &str, reason: &str) {
    use std::io::Write;
    // Past the capture of the test harness, so that it is seen in every run.
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// Is this program there? If not, this says which test goes without.
pub fn has_tool(test: &str, tool: &str) -> bool {
    let mut command = Command::new(tool);
    let run = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if run.is_err() {
        skipped(test, &format!("there is no {tool} in PATH"));
    }
    run.is_ok()
}

/// A path from the environment; without it this says which test goes without.
pub fn from_environment(test: &str, variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).filter(|p| !p.is_empty()).map(PathBuf::from);
    if path.is_none() {
        skipped(test, &format!("{variable} is not set"));
    }
    path
}

/// Does something for every item, on as many threads as there are processors.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let done = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(item) = items.get(i) else { break };
                    let result = work(item);
                    done.lock().unwrap().push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Prints a line about a long test past the capture of the test harness.
pub fn tell(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The first few of many complaints.
pub fn first_of(complaints: &[String]) -> String {
    let shown = complaints.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
    format!("{} complaints:\n  {shown}", complaints.len())
}
