//! `kmodld check`

use kmodld::check::{Verdict, check};
use kmodld::input::read_decompressed;
use kmodld::load::Args;
use kmodld::{Error, Stage};

use super::Outcome;
use super::kernel_args::{cpu, prepare};
use crate::cli::Check;
use crate::report;

pub fn run(args: &Check) -> Result<Outcome, Error> {
    let mut outcome = Outcome::Done;
    let mut verdicts = Vec::new();
    let mut loader = None;
    for path in &args.files {
        let bytes = match read_decompressed(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                report::error(&error);
                outcome = Outcome::Input;
                continue;
            }
        };
        // The first module tells what nothing else tells of the kernel.
        if loader.is_none() {
            loader = prepare(&args.kernel, &args.live, &args.with, &bytes)?;
        }
        let Some(loader) = &loader else { return Ok(Outcome::Refused) };
        let how = Args {
            flags: args.live.flags(),
            cpu: cpu(&args.live, loader),
            stage: Stage::Relocated,
            params: Some(args.params.as_bytes()),
            choices: false,
        };
        let verdict = check(loader, &path.display().to_string(), &bytes, &how);
        if verdict.verdict != "loads" && outcome == Outcome::Done {
            outcome = Outcome::Refused;
        }
        if args.jsonl {
            report::json(&verdict)?;
        } else if args.json {
            verdicts.push(verdict);
        } else {
            show(&verdict)?;
        }
    }
    if args.json {
        report::json(&verdicts)?;
    }
    Ok(outcome)
}

/// The verdict on stdout, the reasons on stderr.
fn show(v: &Verdict) -> Result<(), Error> {
    report::findings(&v.file, &v.findings);
    if v.suppressed != 0 {
        report::warn(&format!("{}: {} more findings are not shown", v.file, v.suppressed));
    }
    let errno = v.errno.map_or(String::new(), |e| format!(" with {e}"));
    let taints = if v.taints.is_empty() { String::new() } else { format!(", taints {}", v.taints) };
    let verdict = match v.verdict {
        "oops" => "the kernel would crash",
        other => other,
    };
    report::print(&format!("{}: {verdict}{errno}{taints}\n", v.file))
}
