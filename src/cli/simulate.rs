//! `kmodld simulate`

use std::path::Path;

use elf_layout::bytes::printed;
use kernel::{Exit, Init, Kernel};
use kmodld::Error;
use kmodld::check::Ending;
use kmodld::modprobe::settings::words;
use kmodld::simulate::{Document, EventEntry, Simulation, Step, StepEntry};
use symres::LoadFlags;

use super::init::init_result;
use super::options::Simulate;
use super::report::{self, Told, one_line};
use super::{Outcome, prepared};

/// One step, read.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Something of the kernel.
    Step(Step),
    /// `lsmod`
    Lsmod,
    /// `events`
    Events,
    /// `dmesg`
    Dmesg,
    /// `print_modules`
    PrintModules,
    /// `#...`
    Comment,
}

pub fn run(args: &Simulate) -> Result<Outcome, Error> {
    let steps = args.steps.iter().map(|step| parse(step)).collect::<Result<Vec<_>, _>>()?;
    let facts = args.live.facts(args.kernel.facts.secure_boot);
    let Some(loader) = prepared(&args.kernel.source()?, &facts, &args.with.files, || None)? else {
        return Ok(Outcome::Refused);
    };
    let mut simulation = Simulation::new(loader);
    let mut results: Vec<StepEntry> = Vec::new();
    let mut told = Told::default();
    for (asked, text) in steps.iter().zip(&args.steps) {
        let result = take(asked, text, &mut simulation)?;
        if !args.json {
            show(&result, &mut told)?;
        }
        results.push(result);
    }
    if args.json {
        report::json(&Document::new(simulation.kernel(), &results))?;
    }
    let is_refused = |r: &StepEntry| matches!(r.ending, Ending::Refused | Ending::Oops);
    Ok(if results.iter().any(is_refused) {
        Outcome::Refused
    } else if results.iter().any(|r| r.ending == Ending::Undecided) {
        Outcome::Undecided
    } else {
        Outcome::Done
    })
}

/// Takes one step.
fn take(asked: &Asked, text: &str, simulation: &mut Simulation) -> Result<StepEntry, Error> {
    match asked {
        Asked::Step(step) => Ok(StepEntry::of(text, simulation.take(step)?)),
        asked => Ok(StepEntry::printing(text, printed_by(asked, simulation))),
    }
}

/// What a step prints that asks nothing of the kernel.
pub fn printed_by(asked: &Asked, simulation: &Simulation) -> Option<String> {
    match asked {
        Asked::Step(_) | Asked::Comment => None,
        Asked::Lsmod => Some(simulation.kernel().proc_modules()),
        Asked::Events => Some(events_text(simulation.kernel())),
        Asked::Dmesg => Some(simulation.dmesg().iter().map(|line| format!("{line}\n")).collect()),
        Asked::PrintModules => Some(simulation.kernel().print_modules()),
    }
}

fn show(result: &StepEntry, told: &mut Told) -> Result<(), Error> {
    if let Some(output) = &result.output {
        return report::print(output);
    }
    if result.step.starts_with('#') {
        return report::print(&format!("{}\n", result.step));
    }
    let mut out = match (result.ending, result.errno) {
        (Ending::Good, _) => format!("{}: done\n", result.step),
        (_, Some(errno)) => format!("{}: {}\n", result.step, errno.name()),
        _ => format!("{}: never returns\n", result.step),
    };
    let lines = result.dmesg.iter().flat_map(|message| message.lines());
    lines.for_each(|line| out.push_str(&format!("    kernel: {line}\n")));
    report::print(&out)?;
    if result.ending != Ending::Good {
        told.reasons(&result.step, &result.findings);
    }
    Ok(())
}

/// All events, then whom each notification goes to.
fn events_text(kernel: &Kernel) -> String {
    let mut out = String::new();
    for event in &kernel.state.history.events {
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
pub fn parse(step: &str) -> Result<Asked, Error> {
    let bad = |what: &str| Error::Usage(format!("step \"{step}\": {what}"));
    let words = words(step);
    let mut words = words.iter().map(String::as_str);
    let command = words.next().unwrap_or_default();
    if command.starts_with('#') {
        return Ok(Asked::Comment);
    }
    let rest: Vec<&str> = words.collect();
    let parsed = match command {
        "insmod" => Asked::Step(insmod(&rest).map_err(|what| bad(&what))?),
        "rmmod" => Asked::Step(rmmod(&rest).map_err(|what| bad(&what))?),
        "get" | "put" => match (command, rest.as_slice()) {
            ("get", [name]) => Asked::Step(Step::Get(String::from(*name))),
            (_, [name]) => Asked::Step(Step::Put(String::from(*name))),
            _ => return Err(bad("one NAME of a module goes with it")),
        },
        "lsmod" | "events" | "dmesg" | "print_modules" if !rest.is_empty() => {
            return Err(bad("nothing goes with it"));
        }
        "lsmod" => Asked::Lsmod,
        "events" => Asked::Events,
        "dmesg" => Asked::Dmesg,
        "print_modules" => Asked::PrintModules,
        _ => {
            return Err(bad(
                "unknown; there are insmod, rmmod, get, put, lsmod, events, dmesg and print_modules",
            ));
        }
    };
    Ok(parsed)
}

fn insmod(words: &[&str]) -> Result<Step, String> {
    let (mut file, mut params, mut init) = (None, Vec::new(), Init::Returns(0));
    let (mut together, mut flags) = (Vec::new(), LoadFlags::default());
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--params" => {
                together.push(words.next().ok_or("--params: parameters go with it")?.trim_matches('"'))
            }
            option if option.starts_with("--params=") => {
                together.push(option.get(9..).unwrap_or("").trim_matches('"'))
            }
            "--force-vermagic" => flags.ignore_vermagic = true,
            "--force-modversion" => flags.ignore_modversions = true,
            option if option.starts_with("--init=") => init = init_result(option.get(7..).unwrap_or(""))?,
            path if file.is_none() => file = Some(Path::new(path.trim_matches('"')).to_owned()),
            param => params.push(param),
        }
    }
    let file = file.ok_or("a FILE goes with it")?;
    together.extend(params);
    Ok(Step::Insmod { file, params: together.join(" "), flags, init })
}

fn rmmod(words: &[&str]) -> Result<Step, String> {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use elf_layout::Errno;

    use super::*;

    #[test]
    fn steps_are_read() {
        let file = PathBuf::from("a b.ko");
        let insmod = |params: &str, flags, init| {
            Asked::Step(Step::Insmod { file: file.clone(), params: params.into(), flags, init })
        };
        let none = LoadFlags::default();
        let force = LoadFlags { ignore_vermagic: true, ..none };
        for (step, want) in [
            ("insmod \"a b.ko\"", insmod("", none, Init::Returns(0))),
            ("insmod \"a b.ko\"  x=1  y=\"2  3\"", insmod("x=1 y=\"2  3\"", none, Init::Returns(0))),
            ("insmod \"a b.ko\" z=3 --params \"x=1 y=2\"", insmod("x=1 y=2 z=3", none, Init::Returns(0))),
            ("insmod --params=x=1 \"a b.ko\"", insmod("x=1", none, Init::Returns(0))),
            ("insmod --init=-ENODEV \"a b.ko\" x", insmod("x", none, Init::Fails(Errno::ENODEV))),
            ("insmod \"a b.ko\" --init=-11", insmod("", none, Init::Fails(Errno::EWOULDBLOCK))),
            ("insmod \"a b.ko\" --init=7 --force-vermagic", insmod("", force, Init::Returns(7))),
            ("insmod \"a b.ko\" --init=crash", insmod("", none, Init::Crashes)),
            ("rmmod m -f", Asked::Step(Step::Rmmod { name: "m".into(), force: true, exit: Exit::Returns })),
            (
                "rmmod --exit=crash m",
                Asked::Step(Step::Rmmod { name: "m".into(), force: false, exit: Exit::Crashes }),
            ),
            ("get m", Asked::Step(Step::Get("m".into()))),
            (" lsmod ", Asked::Lsmod),
            ("# a b", Asked::Comment),
        ] {
            assert_eq!(parse(step).unwrap(), want, "{step}");
        }
        for step in [
            "",
            "insmod",
            "insmod x --params",
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
