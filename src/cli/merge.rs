//! `kmodld merge`

use std::collections::BTreeMap;
use std::io::Write;

use kmodld::check::read::Line;
use kmodld::check::summary::Summary;
use kmodld::input::read;
use kmodld::outputs::keep_apart;
use kmodld::raw_output::replace;
use kmodld::sarif::{BEGIN, Sarif};
use kmodld::{Error, input};

use super::Outcome;
use super::check::in_sum;
use super::options::Merge;
use super::report::{self, one_line};

pub fn run(args: &Merge) -> Result<Outcome, Error> {
    keep_apart(args.sarif.as_slice(), args.files.iter().map(std::path::PathBuf::as_path))?;
    let mut outcome = Outcome::Done;
    let mut summaries: BTreeMap<String, Summary> = BTreeMap::new();
    let mut unreadable = 0usize;
    let mut sarif = Sarif::default();
    let mut results = String::new();
    for path in &args.files {
        let bytes = read(path)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|e| Error::unusable(path, format!("not UTF-8: {e}")))?;
        let lines = (1usize..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        for (number, line) in lines {
            let read =
                Line::read(line).map_err(|what| Error::unusable(path, format!("line {number}: {what}")))?;
            match read {
                Line::Unreadable(why) => {
                    sarif.unreadable(&why);
                    unreadable = unreadable.saturating_add(1);
                    outcome = Outcome::Input;
                }
                Line::Verdict(verdict) => {
                    outcome = outcome.and(verdict.verdict);
                    let kernel = verdict.kernel.as_deref().unwrap_or("kernel of unknown release");
                    summaries.entry(kernel.to_owned()).or_default().add(&verdict);
                    if args.sarif.is_some() {
                        for result in sarif.results(&verdict) {
                            results.push_str(if results.is_empty() { "" } else { "," });
                            results.push_str(&report::json_text(&result)?);
                        }
                    }
                }
            }
        }
    }
    let to_stdout = args.sarif.as_deref().is_some_and(|path| path.as_os_str() == input::STDIN);
    if let Some(output) = &args.sarif {
        let end = sarif.end();
        replace(output, |file| {
            [BEGIN, &results, &end].into_iter().try_for_each(|piece| file.write_all(piece.as_bytes()))
        })?;
    }
    if !to_stdout {
        if summaries.is_empty() {
            report::print(&format!(
                "no verdict in {}\n",
                report::counted(args.files.len(), "file", "files")
            ))?;
        }
        for (kernel, summary) in &summaries {
            report::print(&in_sum(summary, &one_line(kernel), unreadable))?;
        }
    }
    Ok(outcome)
}
