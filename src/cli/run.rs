//! `kmodld run`

use std::fs;
use std::path::Path;

use kmodld::modprobe::Modprobe;
use kmodld::modprobe::providers::Home;
use kmodld::run::{Action, Document, Plan, ResultEntry, boot, run as run_module};
use kmodld::setup::parameters;
use kmodld::{Error, Loader};

use super::modules::{Meaning, Ways};
use super::options::Run;
use super::report::{self, counted, one_line};
use super::{Outcome, prepared};

pub fn run(args: &Run) -> Result<Outcome, Error> {
    let actions = actions(args)?;
    let source = args.kernel.source()?;
    let image = source.image()?;
    let facts = args.live.facts(args.kernel.facts.secure_boot);
    let Some(mut loader) = prepared(&source, &facts, &[], || None)? else { return Ok(Outcome::Refused) };
    let mut home = Home::new(&source, &loader.kernel)?;
    let plan = plan(args, &mut home, &mut loader, actions)?;
    let (mut kernel, booted) = boot(&image, args.budget)?;
    for (name, stopped) in booted.failed() {
        report::note(&format!("{name} of the kernel's boot is left out: {stopped}"));
    }
    let mut show = |entry: &ResultEntry| if args.json { Ok(()) } else { show(entry) };
    let document = run_module(&mut *kernel, &booted, &plan, &mut show)?;
    if args.json {
        report::json(&document)?;
    } else {
        rest(&document)?;
    }
    Ok(if document.has_stopped() {
        Outcome::Undecided
    } else if document.is_loaded() {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

/// The actions of -e and of the script, in this order.
fn actions(args: &Run) -> Result<Vec<(String, Action)>, Error> {
    let script = match &args.script {
        Some(path) => fs::read_to_string(path).map_err(|error| Error::read(path, error))?,
        None => String::new(),
    };
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let texts = lines.map(str::to_owned).chain(args.actions.iter().cloned());
    let read = |text: String| match Action::parse(&text) {
        Ok(action) => Ok((text, action)),
        Err(what) => Err(Error::Usage(format!("action \"{text}\": {what}"))),
    };
    texts.map(read).collect()
}

/// What is loaded, in which order.
fn plan(
    args: &Run,
    home: &mut Home,
    loader: &mut Loader,
    actions: Vec<(String, Action)>,
) -> Result<Plan, Error> {
    let mut meaning = Meaning::of(std::slice::from_ref(&args.file), Some(home), &loader.kernel.release)?;
    let file = meaning.only_file(&args.file)?;
    let way = meaning.way(&file, home, loader)?;
    let mut given = way.options.clone();
    let mut ways = Ways::default();
    ways.add(&file, way);
    let before = ways
        .steps(&file)
        .iter()
        .filter_map(|step| Some((step.file.clone()?, step.options.clone())))
        .collect();
    given = parameters(&given, &args.words);
    Ok(Plan {
        before,
        name: Modprobe::name_of(Path::new(&file)),
        file,
        parameters: given,
        actions,
        load_only: args.load_only,
    })
}

/// One result, as soon as it is there.
fn show(entry: &ResultEntry) -> Result<(), Error> {
    let mut out = String::new();
    for message in &entry.dmesg {
        for line in message.text.lines() {
            out.push_str(&format!("    kernel: {line}\n"));
        }
    }
    let action = one_line(&entry.action).into_owned();
    out.push_str(&match (&entry.stopped, entry.errno, entry.result) {
        (Some(stopped), ..) => {
            let calls: String =
                stopped.stack.iter().map(|call| format!("    called from {call}\n")).collect();
            format!("{action}: stopped: {}, at {}\n{calls}", stopped.reason, stopped.symbol)
        }
        (_, Some(errno), _) => format!("{action}: {}\n", errno.name()),
        (_, _, result) => format!("{action}: {}\n", result.unwrap_or_default()),
    });
    for line in entry.output.as_deref().unwrap_or_default().lines() {
        out.push_str(&format!("    | {line}\n"));
    }
    report::print(&report::harmless(&out))
}

/// What there is to say at the end.
fn rest(document: &Document) -> Result<(), Error> {
    let mut out = String::new();
    for device in &document.devices {
        let functions: Vec<String> =
            device.fops.iter().map(|(member, function)| format!(".{member} = {function}")).collect();
        out.push_str(&format!(
            "device {} {}:{} ({}): {}\n",
            device.name,
            device.major_number,
            device.minor_number,
            counted(device.count as usize, "minor", "minors"),
            if functions.is_empty() { String::from("nothing serves it") } else { functions.join(", ") }
        ));
    }
    document.events.iter().for_each(|event| out.push_str(&format!("event: {event}\n")));
    if let Some(left) = &document.left_behind {
        left.devices.iter().for_each(|device| {
            out.push_str(&format!(
                "left behind: device {} {}:{}\n",
                device.name, device.major_number, device.minor_number
            ));
        });
        out.push_str(&format!(
            "left behind: {} bytes in {} (the kernel's own caches included)\n",
            left.memory,
            counted(left.pieces, "piece", "pieces")
        ));
    }
    out.push_str(&format!("{} instructions\n", document.instructions));
    report::print(&report::harmless(&out))
}
