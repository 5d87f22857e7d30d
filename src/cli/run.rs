//! `kmodld run`

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kmodld::input::read_decompressed;
use kmodld::judge::told;
use kmodld::kernel_source::KernelSource;
use kmodld::modprobe::Modprobe;
use kmodld::modprobe::providers::Home;
use kmodld::run::compared::{Own, RunningImage, compare};
use kmodld::run::{
    Action, Document, MisusedEntry, Plan, ResultEntry, View, boot, coverage, lcov, lines, run_in_view,
};
use kmodld::setup::{RunningFacts, parameters};
use kmodld::{Error, Failure, Kernel, Loader};
use run::watch::Wanted;

use super::modules::{Meaning, Ways};
use super::options::{Run, Traced};
use super::report::{self, counted, one_line};
use super::{Outcome, gdb, prepared};

pub fn run(args: &Run) -> Result<Outcome, Error> {
    let actions = actions(args)?;
    let source = args.kernel.source()?;
    let image = source.image()?;
    let facts = args.live.facts(args.kernel.facts.secure_boot);
    let Some(mut loader) = prepared(&source, &facts, &[], || None)? else { return Ok(Outcome::Refused) };
    let mut home = Home::new(&source, &loader.kernel)?;
    let plan = plan(args, &mut home, &mut loader, actions)?;
    if args.wants_lines() && !lcov::has_lines(&read_decompressed(&plan.file)?) {
        return Err(Error::unusable(
            &plan.file,
            "it has no debug information, which tells lines of sources (.debug_line): build it with -g and leave that in, \
             or have blocks written (--coverage-format drcov)",
        ));
    }
    let (mut kernel, booted) = boot(&image, &told(&facts), args.budget, source.cache.as_ref())?;
    let mut view =
        if plan.wanted.calls || plan.wanted.instructions { View::of(&image)? } else { View::default() };
    for (name, stopped) in booted.failed() {
        report::note(&format!("{name} of the kernel's boot is left out: {stopped}"));
    }
    let mut traced = String::new();
    let mut show = |entry: &ResultEntry| {
        if args.trace_file.is_some() {
            traced.push_str(&format!("{}:\n", one_line(&entry.action)));
            lines(&entry.trace).iter().for_each(|(_, line)| traced.push_str(&format!("  {line}\n")));
        }
        if args.json { Ok(()) } else { show(entry, args.trace_file.is_none()) }
    };
    let ended = gdb::Ended::default();
    if let Some(address) = args.gdb {
        kernel.debug(Some(gdb::listen(address, &ended)?));
    }
    let mut document = run_in_view(&mut *kernel, &booted, &mut view, &plan, &mut show)?;
    ended.store(outcome(&document) as u8, Ordering::Relaxed);
    kernel.debug(None);
    let mut lines = None;
    if args.compare && document.is_loaded() || args.wants_lines() {
        let running = Arc::new(RunningImage::of(&mut *kernel)?);
        let own = own_kernel(source, facts, running, &plan)?;
        let file = read_decompressed(&plan.file)?.to_vec();
        let own = Own { kernel: &own, name: plan.name.clone(), file, parameters: plan.parameters.clone() };
        let unusable = |what: &str, failure| Error::unusable(&plan.file, format!("{what}: {failure}"));
        if args.wants_lines() {
            lines =
                Some(lcov::lcov(&mut *kernel, own).map_err(|f: Failure| unusable("no lines are known", f))?);
        } else {
            let compared = compare(&mut *kernel, own).map_err(|f| unusable("it is not compared", f))?;
            document.compared = Some(compared);
        }
    }
    if !document.watched {
        report::note(
            "the module's code is not looked at on this architecture: no trace, no coverage, no event of what it does",
        );
    }
    if document.trace_cut != 0 {
        report::note(&format!(
            "{} of the trace are cut off: --trace-limit {} keeps the first ones",
            counted(usize::try_from(document.trace_cut).unwrap_or(usize::MAX), "entry", "entries"),
            args.trace_limit
        ));
    }
    if let Some(file) = &args.trace_file {
        fs::write(file, traced).map_err(|error| Error::write(file, error))?;
    }
    if let (Some(file), Some(watch)) = (&args.coverage, kernel.watched()) {
        let bytes = lines.map_or_else(|| coverage::drcov(watch, &plan.file), String::into_bytes);
        fs::write(file, bytes).map_err(|error| Error::write(file, error))?;
    }
    if args.json {
        report::json(&document)?;
    } else {
        rest(&document)?;
    }
    Ok(outcome(&document))
}

/// What kmodld itself knows of the kernel, with the modules that are loaded before.
fn own_kernel(
    source: KernelSource,
    facts: RunningFacts,
    running: Arc<RunningImage>,
    plan: &Plan,
) -> Result<Kernel, Error> {
    let mut own = Kernel::builder().source(source).facts(facts).live_memory(running).accept_undecided();
    for (file, _) in &plan.before {
        own = own.with_module(file)?;
    }
    own.build()
        .map_err(|failure| Error::unusable(&plan.file, format!("nothing is known of its kernel: {failure}")))
}

fn outcome(document: &Document) -> Outcome {
    if document.has_stopped() {
        Outcome::Undecided
    } else if document.is_loaded() {
        Outcome::Done
    } else {
        Outcome::Refused
    }
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
        load_only: args.load_only || args.compare,
        wanted: Wanted {
            calls: args.trace.contains(&Traced::Calls),
            blocks: args.trace.contains(&Traced::Blocks),
            instructions: args.trace.contains(&Traced::Instructions),
            coverage: args.coverage.is_some(),
            sanitize: args.sanitize,
        },
        trace_max: args.trace_limit,
    })
}

/// One result, as soon as it is there; with what is traced between its messages.
fn show(entry: &ResultEntry, with_trace: bool) -> Result<(), Error> {
    let mut out = String::new();
    let mut trace = if with_trace { lines(&entry.trace) } else { Vec::new() }.into_iter().peekable();
    for told in 0..=entry.dmesg.len() {
        while let Some((_, line)) = trace.next_if(|(after, _)| *after <= told) {
            out.push_str(&format!("    trace: {line}\n"));
        }
        let Some(message) = entry.dmesg.get(told) else { break };
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
        (_, Some(errno), _) => {
            let why = entry.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("{action}: {}{why}\n", errno.name())
        }
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
    for event in &document.events {
        let on = event.symbol.as_ref().map(|symbol| format!(": {symbol}")).unwrap_or_default();
        out.push_str(&format!("event: {} at {} {}{on}\n", event.kind, event.by, event.what));
        if let Some(memory) = &event.memory {
            out.push_str(&misused(memory));
        }
        if event.first {
            out.push_str("    what follows is contained in the machine, and may mean nothing\n");
        }
    }
    if let Some(compared) = &document.compared {
        for region in &compared.regions {
            out.push_str(&format!("{}: {} of {} bytes differ\n", region.region, region.differ, region.size));
        }
        for one in &compared.differences {
            let at = one.symbol.as_ref().unwrap_or(&one.address);
            out.push_str(&format!("  {}: {}: {} bytes, first at {at}", one.kind, one.cause, one.bytes));
            out.push_str(&format!(": {}, here {}\n", one.found, one.expected));
        }
        out.push_str(&format!("{} bytes differ that nothing explains\n", compared.unsound()));
    }
    if let Some(covered) = &document.coverage {
        out.push_str(&format!(
            "coverage: {} of {} of code, in {}\n",
            covered.bytes,
            counted(usize::try_from(covered.of).unwrap_or(usize::MAX), "byte", "bytes"),
            counted(covered.blocks, "block", "blocks")
        ));
    }
    if let Some(left) = &document.left_behind {
        for one in &left.allocations {
            let bytes = one.bytes.map(|bytes| format!("{bytes} bytes of ")).unwrap_or_default();
            let pieces = if one.pieces == 1 { String::new() } else { format!(", in {} pieces", one.pieces) };
            out.push_str(&format!("left behind: {bytes}{}, at {}{pieces}\n", one.function, one.site));
        }
        left.files.iter().for_each(|file| out.push_str(&format!("left behind: {file}\n")));
        for stray in &left.strays {
            let function = if stray.function.is_empty() {
                String::new()
            } else {
                format!(", which calls {}", stray.function)
            };
            out.push_str(&format!("left behind: {} {}{function}\n", stray.kind, stray.what));
        }
        left.queues.iter().for_each(|queue| out.push_str(&format!("left behind: work queue {queue}\n")));
        for (module, count) in &left.references {
            let references = counted(usize::try_from(*count).unwrap_or(0), "reference", "references");
            out.push_str(&format!("left behind: {references} to module {module}\n"));
        }
        left.unknown
            .iter()
            .for_each(|what| out.push_str(&format!("not known: whether {what} are left behind\n")));
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

/// Where memory is misused, and where it comes from.
fn misused(memory: &MisusedEntry) -> String {
    let calls = |what: &str, stack: &[String]| format!("    {what}: {}\n", stack.join(", "));
    let mut out = calls("called from", memory.stack.get(1..).unwrap_or_default());
    if let Some(object) = &memory.object {
        out.push_str(&format!(
            "    object at {}: {} bytes of {}\n",
            object.address, object.size, object.function
        ));
        out.push_str(&calls("allocated at", &object.allocated));
        object.freed.iter().for_each(|freed| out.push_str(&calls("freed at", freed)));
    }
    out
}
