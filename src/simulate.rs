//! Loading and unloading modules one after the other, and what comes of each step (spec 08).

use std::path::PathBuf;

use elf_layout::{Errno, Findings};
use kernel::{Event, Exit, Happening, Init, Kernel, Notifier};
use serde::{Serialize, Serializer};
use symres::LoadFlags;

use crate::check::Ending;
use crate::document::{FindingEntry, SCHEMA, errno_name, findings, text};
use crate::error::Error;
use crate::input::read_decompressed;
use crate::load::{Args, open};
use crate::loader::Loader;

/// What is asked of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// finit_module of a file.
    Insmod {
        /// The module, also compressed.
        file: PathBuf,
        /// Its parameters, as `mod->args`.
        params: String,
        /// finit_module flags.
        flags: LoadFlags,
        /// How its init function ends.
        init: Init,
    },
    /// delete_module.
    Rmmod {
        /// The module.
        name: String,
        /// O_TRUNC: by force.
        force: bool,
        /// How its exit function ends.
        exit: Exit,
    },
    /// try_module_get, as on opening a file of the module.
    Get(String),
    /// module_put.
    Put(String),
}

/// What comes of a step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Taken {
    /// How it ends.
    pub ending: Ending,
    /// What the system call returns; none if it succeeds, or never returns.
    pub errno: Option<Errno>,
    /// What the kernel logs.
    pub dmesg: Vec<String>,
    /// What happens to modules.
    pub events: Vec<Event>,
    /// Why.
    pub said: Findings,
}

/// A kernel that steps are taken on.
#[derive(Debug)]
pub struct Simulation {
    loader: Loader,
    dmesg: Vec<String>,
}

impl Simulation {
    /// Nothing has happened yet but what `loader` remembers.
    pub fn new(loader: Loader) -> Self {
        Simulation { loader, dmesg: Vec::new() }
    }

    /// The kernel as it is now.
    pub fn kernel(&self) -> &Kernel {
        &self.loader.kernel
    }

    /// What the kernel has said in all steps.
    pub fn dmesg(&self) -> &[String] {
        &self.dmesg
    }

    /// Has a module loaded by `load`, which gives what it tells and what the kernel says.
    pub fn watched<T>(&mut self, load: impl FnOnce(&mut Loader) -> (T, Findings)) -> (T, Findings) {
        let (told, said) = load(&mut self.loader);
        self.dmesg.extend(said.dmesg().map(str::to_owned));
        (told, said)
    }

    /// Takes one step. Fails if a file cannot be read, or if only the symbol table lists the module.
    pub fn take(&mut self, step: &Step) -> Result<Taken, Error> {
        let mark = self.loader.kernel.state.history.events.len();
        let said = self.ask(step)?;
        let events = self.loader.kernel.state.history.events.get(mark..).unwrap_or_default().to_vec();
        let dmesg: Vec<String> = said.dmesg().map(str::to_owned).collect();
        self.dmesg.extend_from_slice(&dmesg);
        Ok(Taken { ending: Ending::of(&said), errno: said.errno(), dmesg, events, said })
    }

    fn ask(&mut self, step: &Step) -> Result<Findings, Error> {
        let loader = &mut self.loader;
        match step {
            Step::Insmod { file, params, flags, init } => {
                let bytes = read_decompressed(file)?;
                let how = Args::verdict(*flags, params.as_bytes());
                let kernel = &loader.kernel;
                let opened = open(&bytes, kernel, how.flags).out_of(bytes.packed(), &kernel.config);
                Ok(loader.insmod(&opened, &how, *init))
            }
            Step::Rmmod { name, force, exit } => {
                known(&loader.kernel, name)?;
                Ok(loader.rmmod(name.as_bytes(), *force, *exit))
            }
            Step::Get(name) => {
                known(&loader.kernel, name)?;
                Ok(loader.kernel.get(name.as_bytes()))
            }
            Step::Put(name) => {
                known(&loader.kernel, name)?;
                Ok(loader.kernel.put(name.as_bytes()))
            }
        }
    }
}

/// For a module that only the symbol table lists, its users are not known.
fn known(kernel: &Kernel, name: &str) -> Result<(), Error> {
    match kernel.module(name.as_bytes()).filter(|m| m.listed) {
        Some(_) => Err(Error::Usage(format!(
            "only the symbol table tells of module {name}: load it with --with or insmod, so that its users are known"
        ))),
        None => Ok(()),
    }
}

/// The document that `simulate --json` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Document<'r> {
    /// The version of this document: 2.
    pub schema: u32,
    /// Release of the kernel.
    pub release: &'r str,
    /// How far what is said of this kernel is known to be right: `exact`, `rules` or `unknown`.
    pub coverage: &'static str,
    /// The module notifier chain in the order of its calls.
    pub notifiers: Vec<NotifierEntry>,
    /// What came of each step.
    pub steps: &'r [StepEntry],
}

impl<'r> Document<'r> {
    /// Describes steps on a kernel.
    pub fn new(kernel: &'r Kernel, steps: &'r [StepEntry]) -> Self {
        let notifiers = kernel.notifiers().into_iter().map(NotifierEntry::from).collect();
        Document {
            schema: SCHEMA,
            release: &kernel.release,
            coverage: kernel.coverage().word(),
            notifiers,
            steps,
        }
    }
}

/// One function of the notifier chain.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct NotifierEntry {
    /// Its name.
    pub function: &'static str,
    /// Its priority.
    pub priority: i32,
}

impl From<Notifier> for NotifierEntry {
    fn from(n: Notifier) -> Self {
        NotifierEntry { function: n.function, priority: n.priority }
    }
}

/// One step.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StepEntry {
    /// The step as it was given.
    pub step: String,
    /// `done`, `refused`, or `oops`.
    #[serde(rename = "result", serialize_with = "result_word")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub ending: Ending,
    /// What the system call returns; null if it succeeds, or never returns.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// What the kernel logs.
    pub dmesg: Vec<String>,
    /// What happened to modules.
    pub events: Vec<EventEntry>,
    /// What the step prints; null if it prints nothing.
    pub output: Option<String>,
    /// Why.
    pub findings: Vec<FindingEntry>,
}

fn result_word<S: Serializer>(ending: &Ending, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(ending.word("done"))
}

impl StepEntry {
    /// A step that the kernel was asked for.
    pub fn of(step: &str, taken: Taken) -> Self {
        StepEntry {
            step: step.to_owned(),
            ending: taken.ending,
            errno: taken.errno,
            dmesg: taken.dmesg,
            events: taken.events.iter().map(EventEntry::from).collect(),
            output: None,
            findings: findings(&taken.said),
        }
    }

    /// A step that asks nothing of the kernel, with what it prints.
    pub fn printing(step: &str, output: Option<String>) -> Self {
        StepEntry {
            step: step.to_owned(),
            ending: Ending::Good,
            errno: None,
            dmesg: Vec::new(),
            events: Vec::new(),
            output,
            findings: Vec::new(),
        }
    }
}

/// One event.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct EventEntry {
    /// The module.
    pub module: String,
    /// `notified`, `init`, `exit`, `init_freed` or `freed`.
    pub event: &'static str,
    /// Notifiers: COMING, LIVE or GOING. init and exit: what they return.
    pub value: Option<String>,
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
