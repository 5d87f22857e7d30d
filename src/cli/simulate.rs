//! `kmodld simulate`

use std::path::{Path, PathBuf};

use elf_layout::bytes::printed;
use elf_layout::{Errno, Findings};
use kmodld::check::end;
use kmodld::document::{FindingEntry, findings, text};
use kmodld::input::read_decompressed;
use kmodld::kernel_source::vermagic_release;
use kmodld::load::{Args, open};
use kmodld::{Error, Loader, Stage};
use serde::Serialize;
use symres::lifecycle::{Event, Happening};
use symres::{Exit, Init, Kernel, LoadFlags};

use super::Outcome;
use super::kernel_args::prepare;
use super::options::Simulate;
use super::report::{self, one_line};

/// One step, read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Insmod { file: PathBuf, params: String, flags: LoadFlags, init: Init },
    Rmmod { name: String, force: bool, exit: Exit },
    Get(String),
    Put(String),
    Lsmod,
    Events,
    Dmesg,
    PrintModules,
    Comment,
}

/// What came of one step.
#[derive(Debug, Serialize)]
struct Result {
    /// The step as it was given.
    step: String,
    /// `done`, `refused`, or `oops`.
    result: &'static str,
    /// What the system call returns; null if it succeeds, or never returns.
    errno: Option<&'static str>,
    /// What the kernel logs.
    dmesg: Vec<String>,
    /// What happened to modules.
    events: Vec<EventEntry>,
    /// What the step prints; null if it prints nothing.
    output: Option<String>,
    /// Why.
    findings: Vec<FindingEntry>,
}

/// One event.
#[derive(Debug, Serialize)]
struct EventEntry {
    /// The module.
    module: String,
    /// `notified`, `init`, `exit`, `init_freed` or `freed`.
    event: &'static str,
    /// Notifiers: COMING, LIVE or GOING. init and exit: what they return.
    value: Option<String>,
}

/// Everything.
#[derive(Debug, Serialize)]
struct Document<'r> {
    release: &'r str,
    /// The module notifier chain in the order of its calls.
    notifiers: Vec<NotifierEntry>,
    steps: &'r [Result],
}

/// One function of the notifier chain.
#[derive(Debug, Serialize)]
struct NotifierEntry {
    function: &'static str,
    priority: i32,
}

pub fn run(args: &Simulate) -> std::result::Result<Outcome, Error> {
    let steps = args.steps.iter().map(|step| parse(step)).collect::<std::result::Result<Vec<_>, _>>()?;
    let first = steps.iter().find_map(|step| match step {
        Step::Insmod { file, .. } => Some(file),
        _ => None,
    });
    // The first module tells what nothing else tells of the kernel.
    let first = first.or(args.with.first());
    let release = || first.and_then(|file| vermagic_release(&read_decompressed(file).ok()?));
    let Some(mut loader) = prepare(&args.kernel.source(), &args.live, &args.with, release)? else {
        return Ok(Outcome::Refused);
    };
    let mut results: Vec<Result> = Vec::new();
    for (step, text) in steps.iter().zip(&args.steps) {
        let mark = loader.kernel.history.events.len();
        let (said, output) = take(step, &mut loader, &results)?;
        let events = loader.kernel.history.events.get(mark..).unwrap_or_default();
        results.push(Result {
            step: text.clone(),
            result: end(&said, "done"),
            errno: said.errno().map(|e| e.name()),
            dmesg: said.dmesg().map(str::to_owned).collect(),
            events: events.iter().map(EventEntry::from).collect(),
            output,
            findings: findings(&said),
        });
        if let Some(result) = results.last().filter(|_| !args.json) {
            show(result)?;
        }
    }
    if args.json {
        let notifiers = loader.kernel.notifiers().into_iter();
        let entry =
            |n: symres::lifecycle::Notifier| NotifierEntry { function: n.function, priority: n.priority };
        report::json(&Document {
            release: &loader.kernel.release,
            notifiers: notifiers.map(entry).collect(),
            steps: &results,
        })?;
    }
    Ok(if results.iter().all(|r| r.result == "done") { Outcome::Done } else { Outcome::Refused })
}

/// Takes one step: what the kernel says, and what the step prints.
fn take(
    step: &Step,
    loader: &mut Loader,
    before: &[Result],
) -> std::result::Result<(Findings, Option<String>), Error> {
    let nothing = Findings::new;
    Ok(match step {
        Step::Insmod { file, params, flags, init } => {
            let bytes = read_decompressed(file)?;
            let how = Args {
                flags: *flags,
                stage: Stage::Relocated,
                params: Some(params.as_bytes()),
                choices: false,
            };
            let opened = open(&bytes, &loader.kernel, how.flags);
            (loader.insmod(&opened, &how, *init), None)
        }
        Step::Rmmod { name, force, exit } => {
            known(&loader.kernel, name)?;
            (loader.rmmod(name.as_bytes(), *force, *exit), None)
        }
        Step::Get(name) => {
            known(&loader.kernel, name)?;
            (loader.kernel.get(name.as_bytes()), None)
        }
        Step::Put(name) => {
            known(&loader.kernel, name)?;
            (loader.kernel.put(name.as_bytes()), None)
        }
        Step::Lsmod => (nothing(), Some(loader.kernel.proc_modules())),
        Step::Events => (nothing(), Some(events_text(&loader.kernel))),
        Step::Dmesg => {
            let lines = before.iter().flat_map(|r| &r.dmesg).map(|line| format!("{line}\n"));
            (nothing(), Some(lines.collect()))
        }
        Step::PrintModules => (nothing(), Some(loader.kernel.print_modules())),
        Step::Comment => (nothing(), None),
    })
}

/// Of a module that only the symbol table lists nobody knows who uses it.
fn known(kernel: &Kernel, name: &str) -> std::result::Result<(), Error> {
    match kernel.module(name.as_bytes()).filter(|m| m.listed) {
        Some(_) => Err(Error::Usage(format!(
            "only the symbol table tells of module {name}: load it with --with or insmod, so that its users are known"
        ))),
        None => Ok(()),
    }
}

fn show(result: &Result) -> std::result::Result<(), Error> {
    if let Some(output) = &result.output {
        return report::print(output);
    }
    if result.step.starts_with('#') {
        return report::print(&format!("{}\n", result.step));
    }
    let mut out = match (result.result, result.errno) {
        ("done", _) => format!("{}: done\n", result.step),
        (_, Some(errno)) => format!("{}: {errno}\n", result.step),
        _ => format!("{}: never returns\n", result.step),
    };
    let lines = result.dmesg.iter().flat_map(|message| message.lines());
    lines.for_each(|line| out.push_str(&format!("    kernel: {line}\n")));
    report::print(&out)?;
    if result.result != "done" {
        let quiet = |f: &FindingEntry| f.severity == "error" || f.severity == "oops";
        for f in result.findings.iter().filter(|f| quiet(f)) {
            report::reason(&result.step, f);
        }
    }
    Ok(())
}

impl From<&Event> for EventEntry {
    fn from(event: &Event) -> Self {
        let (what, value) = match event.happening {
            Happening::Notified(state) => ("notified", Some(String::from(state.name()))),
            Happening::InitCalled(Init::Returns(value)) => ("init", Some(value.to_string())),
            Happening::InitCalled(Init::Fails(errno)) => ("init", Some(format!("-{errno}"))),
            Happening::InitCalled(Init::Crashes) => ("init", Some(String::from("crash"))),
            Happening::ExitCalled(Exit::Returns) => ("exit", None),
            Happening::ExitCalled(Exit::Crashes) => ("exit", Some(String::from("crash"))),
            Happening::InitFreed => ("init_freed", None),
            Happening::Freed => ("freed", None),
        };
        EventEntry { module: text(&event.module), event: what, value }
    }
}

/// All events, then whom each notification goes to.
fn events_text(kernel: &Kernel) -> String {
    let mut out = String::new();
    for event in &kernel.history.events {
        let (module, entry) = (printed(&event.module), EventEntry::from(event));
        let value = entry.value.map_or(String::new(), |value| format!(" {value}"));
        out.push_str(&format!("{}: {}{value}\n", one_line(&module), entry.event));
    }
    out.push_str("notifiers, in the order of their calls:");
    for notifier in kernel.notifiers() {
        out.push_str(&format!(" {}({})", notifier.function, notifier.priority));
    }
    out.push('\n');
    out
}

/// Reads a step.
fn parse(step: &str) -> std::result::Result<Step, Error> {
    let bad = |what: &str| Error::Usage(format!("step \"{step}\": {what}"));
    let words = words(step);
    let mut words = words.iter().map(String::as_str);
    let command = words.next().unwrap_or_default();
    if command.starts_with('#') {
        return Ok(Step::Comment);
    }
    let rest: Vec<&str> = words.collect();
    let parsed = match command {
        "insmod" => insmod(&rest).map_err(|what| bad(&what))?,
        "rmmod" => rmmod(&rest).map_err(|what| bad(&what))?,
        "get" | "put" => match (command, rest.as_slice()) {
            ("get", [name]) => Step::Get(String::from(*name)),
            (_, [name]) => Step::Put(String::from(*name)),
            _ => return Err(bad("one NAME of a module goes with it")),
        },
        "lsmod" | "events" | "dmesg" | "print_modules" if !rest.is_empty() => {
            return Err(bad("nothing goes with it"));
        }
        "lsmod" => Step::Lsmod,
        "events" => Step::Events,
        "dmesg" => Step::Dmesg,
        "print_modules" => Step::PrintModules,
        _ => {
            return Err(bad(
                "unknown; there are insmod, rmmod, get, put, lsmod, events, dmesg and print_modules",
            ));
        }
    };
    Ok(parsed)
}

fn insmod(words: &[&str]) -> std::result::Result<Step, String> {
    let (mut file, mut params, mut init) = (None, Vec::new(), Init::Returns(0));
    let mut flags = LoadFlags::default();
    for word in words {
        match *word {
            "--force-vermagic" => flags.ignore_vermagic = true,
            "--force-modversion" => flags.ignore_modversions = true,
            option if option.starts_with("--init=") => init = init_result(option.get(7..).unwrap_or(""))?,
            path if file.is_none() => file = Some(Path::new(path.trim_matches('"')).to_owned()),
            param => params.push(param),
        }
    }
    let file = file.ok_or("a FILE goes with it")?;
    Ok(Step::Insmod { file, params: params.join(" "), flags, init })
}

/// `0`, a positive number, `-ENODEV`, `-19` or `crash`.
fn init_result(text: &str) -> std::result::Result<Init, String> {
    let wrong = || format!("--init={text}: not 0, a positive number, an error such as -ENODEV, or crash");
    if text == "crash" {
        return Ok(Init::Crashes);
    }
    match text.strip_prefix('-') {
        None => {
            text.parse::<i32>().ok().and_then(|v| u32::try_from(v).ok()).map(Init::Returns).ok_or_else(wrong)
        }
        Some(error) => {
            let by_number = || error.parse().ok().and_then(Errno::from_number);
            Errno::from_name(error).or_else(by_number).map(Init::Fails).ok_or_else(wrong)
        }
    }
}

fn rmmod(words: &[&str]) -> std::result::Result<Step, String> {
    let (mut name, mut force, mut exit) = (None, false, Exit::Returns);
    for word in words {
        match *word {
            "-f" | "--force" => force = true,
            "--exit=crash" => exit = Exit::Crashes,
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            module if name.is_none() => name = Some(String::from(module)),
            other => return Err(format!("one NAME goes with it, not {other} too")),
        }
    }
    Ok(Step::Rmmod { name: name.ok_or("the NAME of a module goes with it")?, force, exit })
}

/// Words between blanks; blanks between double quotes belong to a word, and the quotes stay: what
/// they mean is for parse_args to say.
fn words(step: &str) -> Vec<String> {
    let mut quoted = false;
    let mut words = vec![String::new()];
    for c in step.chars() {
        quoted ^= c == '"';
        match words.last_mut() {
            Some(word) if quoted || !c.is_whitespace() => word.push(c),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        let file = PathBuf::from("a b.ko");
        let insmod = |params: &str, flags, init| Step::Insmod {
            file: file.clone(),
            params: params.into(),
            flags,
            init,
        };
        let none = LoadFlags::default();
        let force = LoadFlags { ignore_vermagic: true, ..none };
        for (step, want) in [
            ("insmod \"a b.ko\"", insmod("", none, Init::Returns(0))),
            ("insmod \"a b.ko\"  x=1  y=\"2  3\"", insmod("x=1 y=\"2  3\"", none, Init::Returns(0))),
            ("insmod --init=-ENODEV \"a b.ko\" x", insmod("x", none, Init::Fails(Errno::ENODEV))),
            ("insmod \"a b.ko\" --init=-11", insmod("", none, Init::Fails(Errno::EWOULDBLOCK))),
            ("insmod \"a b.ko\" --init=7 --force-vermagic", insmod("", force, Init::Returns(7))),
            ("insmod \"a b.ko\" --init=crash", insmod("", none, Init::Crashes)),
            ("rmmod m -f", Step::Rmmod { name: "m".into(), force: true, exit: Exit::Returns }),
            ("rmmod --exit=crash m", Step::Rmmod { name: "m".into(), force: false, exit: Exit::Crashes }),
            ("get m", Step::Get("m".into())),
            (" lsmod ", Step::Lsmod),
            ("# a b", Step::Comment),
        ] {
            assert_eq!(parse(step).unwrap(), want, "{step}");
        }
        for step in [
            "",
            "insmod",
            "insmod x --init=-EWHAT",
            "insmod x --init=-4096",
            "rmmod",
            "rmmod a b",
            "rmmod -x a",
            "lsmod x",
            "get",
            "reboot",
        ] {
            assert!(matches!(parse(step), Err(Error::Usage(_))), "{step}");
        }
    }
}
