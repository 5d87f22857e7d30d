//! batch KERNEL MODULE...: the verdict on many modules, on as many threads as there are processors.

use std::error::Error;
use std::io::Write;
use std::sync::Mutex;
use std::thread;

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut (dyn Write + Send)) -> Result<(), Box<dyn Error>> {
    let [kernel, modules @ ..] = args else { return Err("batch KERNEL MODULE...".into()) };
    let kernel = kmodld::Kernel::builder().image(kernel)?.build()?;
    let (next, out) = (Mutex::new(modules.iter()), Mutex::new(out));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(path) = next.lock().ok().and_then(|mut next| next.next()) {
                    let verdict = std::fs::read(path).map_err(|why| why.to_string());
                    let verdict =
                        verdict.and_then(|bytes| kernel.check(path, &bytes).map_err(|e| e.to_string()));
                    let line = match verdict {
                        Ok(v) => format!("{path}: {} {}", v.word(), v.errno.map_or("", |errno| errno.name())),
                        Err(why) => format!("{path}: {why}"),
                    };
                    let _ = out.lock().map(|mut out| writeln!(out, "{}", line.trim_end()));
                }
            });
        }
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
