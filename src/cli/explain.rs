//! `kmodld explain`

use kmodld::Error;
use kmodld::explain::{all, explain, similar};

use super::Outcome;
use super::options::Explain;
use super::report;

pub fn run(args: &Explain) -> Result<Outcome, Error> {
    let Some(code) = &args.code else {
        let lines: String = all().map(|e| format!("{:<13} {}\n", e.code, e.title)).collect();
        report::print(&lines)?;
        return Ok(Outcome::Done);
    };
    let Some(found) = explain(code) else {
        return Err(Error::Usage(match similar(code).as_slice() {
            [] => format!("no finding has the code {code}; `kmodld explain` lists all codes"),
            codes => format!("no finding has the code {code}; did you mean {}?", codes.join(", ")),
        }));
    };
    report::print(&format!("{}: {}\n\n{}\n", found.code, found.title, found.text))?;
    Ok(Outcome::Done)
}
