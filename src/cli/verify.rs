//! `kmodld verify`

use std::fmt::Write;
use std::path::Path;

use kmodld::Error;
use kmodld::verify::extract::extract;
use kmodld::verify::report::{Alarm, ModuleReport, Report, Verdict, VerifyDocument};
use kmodld::verify::sarif::sarif;
use kmodld::verify::{Target, Wanted};

use super::Outcome;
use super::options::Verify;
use super::report::{self, Progress, counted, one_line};
use super::terminal::amount;

/// The running kernel's memory.
const LIVE: &str = "/proc/kcore";

pub fn run(args: &Verify) -> Result<Outcome, Error> {
    let source = args.kernel.source()?;
    let path = args.memory_image.as_deref().unwrap_or(Path::new(LIVE));
    if args.memory_image.is_some() && args.kernel.is_none_given() {
        report::note("no --kernel is given: the dump is compared with the running kernel");
    }
    let mut target = Target::open(path, &source)?;
    let mut wanted = Wanted { with: args.with.clone(), ..Wanted::default() };
    for module in &args.modules {
        let path = Path::new(module);
        if path.is_file() {
            wanted.with.push(path.to_owned());
        }
        wanted.only.push(kmodld::modprobe::tables::module_name(path));
    }
    let mut progress = Progress::new();
    let verified = target.verify(&source, &wanted, &mut |done, of| progress.show(done, of));
    progress.hide();
    let verified = verified?;
    if let Some(folder) = &args.extract {
        for (name, file) in extract(&mut target, folder)? {
            report::note(&format!("{name}: written to {}", file.display()));
        }
    }
    if args.json {
        report::json(&VerifyDocument::from(&verified))?;
    } else if args.sarif {
        report::print(&format!("{}\n", sarif(&verified)))?;
    } else {
        show(&verified)?;
    }
    let unknown: Vec<&String> =
        wanted.only.iter().filter(|name| verified.modules.iter().all(|m| m.name != **name)).collect();
    for name in &unknown {
        report::warn(&format!("no module {name} is in this memory"));
    }
    Ok(if !verified.alarms.is_empty() {
        Outcome::Refused
    } else if verified.is_decided() && unknown.is_empty() {
        Outcome::Done
    } else {
        Outcome::Undecided
    })
}

fn show(verified: &Report) -> Result<(), Error> {
    let told = |text: &str| report::note(text);
    told(&format!(
        "{} ({}), {:#x} bytes from its link addresses",
        verified.release, verified.how, verified.slide
    ));
    verified.damage.iter().for_each(|what| report::warn(&format!("the dump is damaged: {what}")));
    verified.unread.iter().for_each(|what| report::warn(&format!("not judged: {what}")));
    let mut out = String::new();
    for module in &verified.modules {
        line(&mut out, module);
    }
    for alarm in &verified.alarms {
        out.push('\n');
        tell(&mut out, alarm);
    }
    summary(&mut out, verified);
    report::print(&out)
}

/// A module in a line, and with -v its legal changes.
fn line(out: &mut String, module: &ModuleReport) {
    let name = one_line(&module.name);
    let what = match module.verdict {
        Verdict::NoFile if module.open.is_empty() => "no file for it".into(),
        Verdict::NoFile => module.open.join("; "),
        Verdict::Undecided => format!("not judged: {}", module.open.join("; ")),
        Verdict::Clean if module.changes.is_empty() => "identical".into(),
        Verdict::Clean => {
            format!("identical; {} in a legal changed state", counted(module.changes.len(), "site", "sites"))
        }
        Verdict::Changed => format!(
            "{}: {} that nobody explains",
            counted(module.alarms, "alarm", "alarms"),
            counted(usize::try_from(module.alarm_bytes).unwrap_or(usize::MAX), "byte", "bytes")
        ),
    };
    let _ = writeln!(out, "{name}: {what}");
    if amount().verbose {
        for change in &module.changes {
            let _ = writeln!(out, "    {:#x} {}: {}", change.address, change.what, change.why);
        }
    }
}

/// An alarm, over several lines.
fn tell(out: &mut String, alarm: &Alarm) {
    let module = alarm.module.as_deref().map_or(String::new(), |name| format!(" [{}]", one_line(name)));
    let symbol = alarm.symbol.as_deref().unwrap_or("no symbol");
    let section = alarm.section.as_deref().map_or(String::new(), |name| format!(" in {}", one_line(name)));
    let place = match (&alarm.symbol, &alarm.section) {
        (None, None) => String::new(),
        _ => format!(" {}{section}", one_line(symbol)),
    };
    let _ = writeln!(
        out,
        "ALARM {} {:#x}{place}{module}: {}",
        alarm.kind.name(),
        alarm.address,
        one_line(&alarm.message)
    );
    let hex = kmodld::verify::report::hex;
    let code = |code: &Option<String>| code.as_deref().map_or(String::new(), |code| format!("    {code}"));
    if !alarm.expected.is_empty() {
        let _ = writeln!(out, "    expected {}{}", hex(&alarm.expected), code(&alarm.expected_code));
    }
    if !alarm.found.is_empty() {
        let _ = writeln!(out, "    found    {}{}", hex(&alarm.found), code(&alarm.found_code));
    }
    if let Some((target, words)) = &alarm.leads_to {
        let _ = writeln!(out, "    leads to {target:#x}: {}", one_line(words));
    }
    if alarm.legal.len() > 1 {
        let _ = writeln!(out, "    legal    {}", alarm.legal.join(" | "));
    }
}

fn summary(out: &mut String, verified: &Report) {
    let sum = |of: fn(&ModuleReport) -> u64| verified.modules.iter().map(of).fold(0u64, u64::saturating_add);
    let count = |verdict| verified.modules.iter().filter(|module| module.verdict == verdict).count();
    let _ = writeln!(
        out,
        "\n{}: {} clean, {} changed, {} without a file, {} not judged; {}",
        counted(verified.modules.len(), "module", "modules"),
        count(Verdict::Clean),
        count(Verdict::Changed),
        count(Verdict::NoFile),
        count(Verdict::Undecided),
        counted(verified.alarms.len(), "alarm", "alarms"),
    );
    let _ = writeln!(
        out,
        "{} bytes compared, {} sites judged, {} pointers to functions followed, {} legal changes",
        sum(|m| m.bytes),
        sum(|m| m.sites),
        sum(|m| m.pointers),
        sum(|m| m.changes.len() as u64),
    );
}
