//! `kmodld trace`

use std::path::{Path, PathBuf};

use elf_layout::Findings;
use elf_layout::bytes::printed;
use kernel::{Init, Kernel};
use kmodld::check::Ending;
use kmodld::document::errno_text;
use kmodld::input::read_decompressed;
use kmodld::load::{Args, open, vermagic_version};
use kmodld::modprobe::may_be_name;
use kmodld::modprobe::providers::Home;
use kmodld::outputs::keep_apart;
use kmodld::setup::parameters;
use kmodld::simulate::{Simulation, Step};
use kmodld::trace::event::Asked as AskedEvent;
use kmodld::trace::lifecycle::{Life, asked};
use kmodld::trace::page::page;
use kmodld::trace::steps::{STEPS, StepOf};
use kmodld::trace::{Asking, Event, insmod};
use kmodld::{Error, Place, Stage, raw_output};
use symres::LoadFlags;

use super::link::{BeforeIt, is_second_module};
use super::modules::Meaning;
use super::options::Trace;
use super::report;
use super::simulate::{Asked, parse, printed_by};
use super::story::Teller;
use super::terminal::{amount, stdout_width};
use super::{Outcome, prepared};

/// What is told so far.
struct Stories {
    simulation: Simulation,
    events: Vec<Event>,
    /// The modules that were loaded, with their memory.
    lives: Vec<Life>,
    outcome: Outcome,
}

pub fn run(args: &Trace) -> Result<Outcome, Error> {
    if let Some(word) = args.words.iter().find(|word| is_second_module(word)) {
        let what = "is a module, where a parameter is expected: load others before it with --with FILE, and after it with --then \"insmod FILE\"";
        return Err(Error::Usage(format!("{word} {what}")));
    }
    let step = args.step.as_deref().map(step_named).transpose()?;
    let then = args.then.iter().map(|step| parse(step)).collect::<Result<Vec<_>, _>>()?;
    let (source, facts) = (args.kernel.source()?, args.live.facts(args.kernel.facts.secure_boot));
    let more = args.before.with.files.iter().chain(&args.live.memory).map(PathBuf::as_path);
    keep_apart(args.html.as_slice(), source.paths().chain(more))?;
    let version = || vermagic_version(&read_decompressed(Path::new(&args.file)).ok()?);
    let is_name = may_be_name(&args.file).is_some();
    let Some(mut loader) =
        prepared(&source, &facts, &args.before.with.files, || version().filter(|_| !is_name))?
    else {
        return Ok(Outcome::Refused);
    };
    let mut home = Home::new(&source, &loader.kernel)?;
    let mut meaning = Meaning::of(std::slice::from_ref(&args.file), Some(&home), &loader.kernel.release)?;
    let path = meaning.only_file(&args.file)?;
    keep_apart(args.html.as_slice(), [path.as_path()])?;
    let before = BeforeIt { place: &args.place, before: &args.before, params: &args.params };
    let Some(given) = before.load(&meaning, &path, &mut home, &mut loader)? else {
        return Ok(Outcome::Refused);
    };
    let params = parameters(&given, &args.words);
    let mut stories = Stories {
        simulation: Simulation::new(loader),
        events: Vec::new(),
        lives: Vec::new(),
        outcome: Outcome::Done,
    };
    let place = args.place.place();
    let name = stories.insmod(&path, &params, args.live.flags(), &place, args.place.percpu, args.init)?;
    for (asked, text) in then.iter().zip(&args.then) {
        stories.take(asked, text)?;
    }
    if args.unload
        && let Some(name) = name
    {
        let text = format!("rmmod {name}");
        let asked = parse(&text)?;
        stories.take(&asked, &text)?;
    }
    let Stories { events, outcome, .. } = stories;
    let lang = args.lang.unwrap_or_default();
    if let Some(html) = &args.html {
        let text = page(&events, lang, step.map(StepOf::name));
        let text = text.map_err(|e| Error::write(html, e))?;
        raw_output::replace(html, |file| std::io::Write::write_all(file, text.as_bytes()))?;
        return Ok(outcome);
    }
    if args.json {
        let events = match step {
            Some(step) => only(events, step),
            None => events,
        };
        let lines = events.iter().map(|event| Ok(report::json_text(event)? + "\n"));
        report::print_bytes(lines.collect::<Result<String, Error>>()?.as_bytes())?;
    } else {
        let words = lang.table();
        report::story(&Teller::new(&words, amount().verbose, stdout_width(), step).tell(&events))?;
    }
    Ok(outcome)
}

fn step_named(name: &str) -> Result<StepOf, Error> {
    StepOf::of_name(name).ok_or_else(|| {
        let names: Vec<&str> = STEPS.iter().map(|step| step.name()).collect();
        Error::Usage(format!("--step {name}: there are {}", names.join(", ")))
    })
}

/// The events of one step, and those that say what they are of.
fn only(events: Vec<Event>, step: StepOf) -> Vec<Event> {
    let mut kept = Vec::new();
    let mut inside = false;
    for event in events {
        match &event {
            Event::Begin(_) => {
                inside = false;
                kept.push(event);
                continue;
            }
            Event::Step(begins) => inside = begins.name == step.name(),
            Event::Asked(_) => inside = step == StepOf::Unload,
            _ => {}
        }
        if inside {
            kept.push(event);
        }
    }
    kept
}

impl Stories {
    /// Loads a module and tells of it; its name, if it has one.
    fn insmod(
        &mut self,
        path: &Path,
        params: &str,
        flags: LoadFlags,
        place: &Place,
        percpu: Option<u64>,
        init: Init,
    ) -> Result<Option<String>, Error> {
        let bytes = read_decompressed(path)?;
        let args = Args {
            flags,
            stage: Stage::Final,
            params: Some(params.as_bytes()),
            choices: false,
            verdict_only: false,
        };
        let mut has_module = false;
        let mut name = None;
        let file = path.display().to_string();
        let ((events, life), said) = self.simulation.watched(|loader| {
            let kernel = &loader.kernel;
            let opened = open(&bytes, kernel, flags).out_of(bytes.packed(), &kernel.config);
            has_module = opened.module.is_some();
            name = opened.module.as_ref().map(|module| printed(module.name()).into_owned());
            let asking = Asking { file: &file, args, place, percpu, init };
            insmod(loader, &opened, &asking)
        });
        self.events.extend(events);
        self.lives.extend(life);
        self.ends(&said);
        if !has_module {
            self.outcome = Outcome::Input;
        }
        Ok(name)
    }

    fn ends(&mut self, said: &Findings) {
        self.outcome = self.outcome.and(Ending::of(said));
    }

    /// One step of a sequence.
    fn take(&mut self, step: &Asked, text: &str) -> Result<(), Error> {
        match step {
            Asked::Step(Step::Insmod { file, params, flags, init }) => {
                self.insmod(file, params, *flags, &Place::Kernel, None, *init)?;
            }
            Asked::Step(of_kernel) => {
                let from = self.simulation.kernel().state.history.events.len();
                let taken = self.simulation.take(of_kernel)?;
                let is_removal = matches!(of_kernel, Step::Rmmod { .. });
                let event = AskedEvent {
                    step: text.to_owned(),
                    result: taken.ending.word("done"),
                    output: errno_text(taken.errno),
                };
                let kernel: &Kernel = self.simulation.kernel();
                self.events.extend(asked(kernel, event, is_removal, from, &taken.said, &self.lives));
                self.ends(&taken.said);
            }
            other => {
                let output = printed_by(other, &self.simulation);
                let event = AskedEvent { step: text.to_owned(), result: "done", output };
                let nothing = Findings::new();
                let kernel = self.simulation.kernel();
                let from = kernel.state.history.events.len();
                self.events.extend(asked(kernel, event, false, from, &nothing, &self.lives));
            }
        }
        Ok(())
    }
}
