//! Modules that run: a kernel image's own code is executed until modules can be loaded into it, and then on what is asked of it.

mod action;
pub mod compared;
pub mod coverage;
mod events;
pub mod lcov;
mod left;
mod prototypes;
mod traced;

pub use action::{Action, Argument, Major, Target};
pub use coverage::CoverageEntry;
pub use events::{EventEntry, MisusedEntry, ObjectEntry};
pub use left::{AllocationEntry, LeftBehind, StrayEntry};
pub use prototypes::Types;
pub use traced::{TraceEntry, ValueEntry, lines};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use elf_layout::Errno;
use kernel_image::KernelImage;
use reloc::Architecture;
use run::PROCESSORS;
use run::boot::{Error as BootError, Report};
use run::machine::Stopped;
use run::parameters::Told;
use run::processor::take_up;
use run::system::{Device, Running};
use run::watch::{Wanted, Watch};
use run::world::{Inits, Message};
use serde::Serialize;

use crate::document::{SCHEMA, errno_name};
use crate::error::Error;
use crate::input::{read, read_decompressed};
use crate::kernel_source::cache::{Cache, Key, Kind};
use crate::kernel_source::image;
use crate::modprobe::Modprobe;
use action::{Made, act, cat};
use left::Before;

/// What is known of a kernel beside its code, for what is shown.
#[derive(Debug, Default)]
pub struct View {
    types: Types,
    arch: Option<&'static dyn Architecture>,
}

/// Boots the image in a file. Each system call on it may take `budget` instructions. A cache has the machine as it was behind an earlier boot
/// of the same image, or is given it: what happens on it is the same.
///
/// # Errors
///
/// [`Error`], if the file is no image, or none that can be run.
pub fn boot(
    path: &Path,
    told: &Told,
    budget: u64,
    cache: Option<&Cache>,
) -> Result<(Box<dyn Running>, Report), Error> {
    // A file that is none, such as a pipe, can be read once only.
    let told_bytes = as_bytes(told);
    let known =
        cache.and_then(|cache| Some((cache, cache.key_of_file(Kind::Machine, path)?.with(&told_bytes))));
    if let Some((cache, key)) = &known
        && let Some(booted) = cache.get_bytes(key, |bytes| take_up(bytes, budget))
    {
        return Ok(booted);
    }
    let bytes = read(path)?;
    let (kernel, report) = booted(path, &image::open(path, &bytes)?, told, budget)?;
    if let Some((cache, _)) = &known {
        // By the bytes that were read: the file may be another by now.
        cache.put_bytes(&Key::of(Kind::Machine, &bytes).with(&told_bytes), &kernel.keep(&report));
    }
    Ok((kernel, report))
}

/// All that a machine is told, told apart from anything else that it may be told.
fn as_bytes(told: &Told) -> Vec<u8> {
    let Told { words, capabilities } = told;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.bytes().chain([0])).collect();
    // No word is empty, so what follows an empty one is something else.
    if let Some(capabilities) = capabilities {
        bytes.push(0);
        bytes.extend(capabilities);
    }
    bytes
}

impl View {
    /// What the image in a file tells of its types.
    ///
    /// # Errors
    ///
    /// [`Error`], if the file is no image.
    pub fn of(path: &Path) -> Result<View, Error> {
        let bytes = read(path)?;
        let image = image::open(path, &bytes)?;
        let machine = image.machine().e_machine;
        let types = Types::new(image.btf().ok().as_ref());
        let arch = reloc::ARCHITECTURES.iter().copied().find(|arch| arch.machine().e_machine == machine);
        Ok(View { types, arch })
    }
}

fn booted(
    path: &Path,
    image: &KernelImage<'_>,
    told: &Told,
    budget: u64,
) -> Result<(Box<dyn Running>, Report), Error> {
    let machine = image.machine();
    let processor = PROCESSORS.iter().find(|processor| processor.machine() == machine.e_machine);
    let processor = processor
        .ok_or_else(|| Error::unusable(path, format!("code of {} is not interpreted yet", machine.name)))?;
    processor.boot(image, told, budget).map_err(|error| {
        let more = match &error {
            BootError::Stopped { stopped, .. } => format!(" (called from {})", stopped.stack.join(", ")),
            BootError::Image(_) => String::new(),
        };
        Error::unusable(path, format!("the kernel cannot be booted: {error}{more}"))
    })
}

/// How something ended.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ResultEntry {
    /// What was done.
    pub action: String,
    /// What the system call returned; null if the machine stopped in it.
    pub result: Option<i64>,
    /// The error in it.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// What is known of the reason of an error: of a module that cannot be removed, what holds it.
    pub why: Option<String>,
    /// What was read; bytes that are no text as `\xHH`.
    pub output: Option<String>,
    /// What the kernel printed meanwhile.
    pub dmesg: Vec<MessageEntry>,
    /// Why the machine stopped; nothing is known of what would follow.
    pub stopped: Option<StopEntry>,
    /// What the module's code did, if that is traced.
    pub trace: Vec<TraceEntry>,
}

impl ResultEntry {
    /// Did it end well?
    pub fn is_good(&self) -> bool {
        self.result.is_some_and(|result| result >= 0)
    }
}

/// Why the machine stopped.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StopEntry {
    /// In a sentence.
    pub reason: String,
    /// The address of the instruction, in hex.
    pub address: String,
    /// The same as the kernel prints it.
    pub symbol: String,
    /// Return addresses on the stack, nearest first; some may be left from earlier calls.
    pub stack: Vec<String>,
}

impl From<&Stopped> for StopEntry {
    fn from(stopped: &Stopped) -> Self {
        StopEntry {
            reason: stopped.reason.clone(),
            address: format!("{:#x}", stopped.address),
            symbol: stopped.symbol.clone(),
            stack: stopped.stack.clone(),
        }
    }
}

/// A message of the kernel.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct MessageEntry {
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Its text.
    pub text: String,
}

impl From<&Message> for MessageEntry {
    fn from(message: &Message) -> Self {
        MessageEntry { level: message.level, text: text(&message.text) }
    }
}

/// Character devices that are registered.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct DeviceEntry {
    /// Its major number.
    #[serde(rename = "major")]
    pub major_number: u32,
    /// The first minor number.
    #[serde(rename = "minor")]
    pub minor_number: u32,
    /// How many there are.
    pub count: u32,
    /// The name it is registered under.
    pub name: String,
    /// Members of its `struct file_operations`, and the functions behind them.
    pub fops: BTreeMap<&'static str, String>,
}

impl From<&Device> for DeviceEntry {
    fn from(device: &Device) -> Self {
        DeviceEntry {
            major_number: device.major_number,
            minor_number: device.minor_number,
            count: device.count,
            name: device.name.clone(),
            fops: device.operations.iter().cloned().collect(),
        }
    }
}

/// The document that `run --json` prints.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Document {
    /// The version of this document: 2.
    pub schema: u32,
    /// The text of /proc/version.
    pub kernel: String,
    /// Functions of the boot that stopped, and are as if they had not been called.
    pub boot: BTreeMap<String, String>,
    /// The modules that were loaded before.
    pub before: Vec<ResultEntry>,
    /// init_module; null if one of those before was not loaded.
    pub init: Option<ResultEntry>,
    /// Character devices that the module has registered.
    pub devices: Vec<DeviceEntry>,
    /// What was done then.
    pub actions: Vec<ResultEntry>,
    /// delete_module, unless an action has done that, or init has failed.
    pub exit: Option<ResultEntry>,
    /// Everything that the kernel printed, from the first module on.
    pub dmesg: Vec<MessageEntry>,
    /// What is left behind; null if the machine has stopped, or the module is still there.
    pub left_behind: Option<LeftBehind>,
    /// What the module does to others, warnings, and other things that no log tells; each once for an instruction and what it is done to.
    pub events: Vec<EventEntry>,
    /// Is the module's code looked at? If not, as the processor cannot, there is no trace, no coverage, and no event of what the module does.
    pub watched: bool,
    /// How many entries of the trace were cut off at its end.
    pub trace_cut: u64,
    /// How the module's memory differs from what kmodld makes of it, if that is asked for.
    pub compared: Option<compared::ComparedEntry>,
    /// How much of the module's code was executed, if that is asked for.
    pub coverage: Option<CoverageEntry>,
    /// Instructions executed, without the boot.
    pub instructions: u64,
}

impl Document {
    /// Has the machine stopped before it was done?
    pub fn has_stopped(&self) -> bool {
        let all = self.before.iter().chain(&self.init).chain(&self.actions).chain(&self.exit);
        all.into_iter().any(|entry| entry.stopped.is_some())
    }

    /// Was each module loaded?
    pub fn is_loaded(&self) -> bool {
        self.before.iter().all(ResultEntry::is_good) && self.init.as_ref().is_some_and(ResultEntry::is_good)
    }
}

/// What is to be done with a module.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The modules that are loaded before, and their parameters.
    pub before: Vec<(PathBuf, String)>,
    /// The file.
    pub file: PathBuf,
    /// The module's name.
    pub name: String,
    /// Its parameters.
    pub parameters: String,
    /// What is done then, as it was written.
    pub actions: Vec<(String, Action)>,
    /// Is it loaded only, up to the call of its init function? That is the kernel's own verdict.
    pub load_only: bool,
    /// What is kept of what the module's code does.
    pub wanted: Wanted,
    /// How many entries of a trace are kept.
    pub trace_max: usize,
}

/// Bytes as text: what is none is `\xHH`.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// Runs a module on a kernel. Each result is told to `show` when it is there.
///
/// # Errors
///
/// [`Error`], if a file cannot be read. What the kernel or the machine makes of it is in the document.
pub fn run(
    kernel: &mut dyn Running,
    report: &Report,
    plan: &Plan,
    show: &mut dyn FnMut(&ResultEntry) -> Result<(), Error>,
) -> Result<Document, Error> {
    run_in_view(kernel, report, &mut View::default(), plan, show)
}

/// As [`run()`], with calls shown as the types of the image say.
///
/// # Errors
///
/// [`Error`], if a file cannot be read.
pub fn run_in_view(
    kernel: &mut dyn Running,
    report: &Report,
    view: &mut View,
    plan: &Plan,
    show: &mut dyn FnMut(&ResultEntry) -> Result<(), Error>,
) -> Result<Document, Error> {
    let watched = kernel.watch(Some(Watch::new(Vec::new(), plan.wanted, plan.trace_max)));
    let mut session = Session { kernel, told: 0, files: BTreeMap::new(), view, show };
    session.told = session.kernel.log().len();
    let (first, begun) = (session.told, session.kernel.executed());
    let events = session.kernel.events().len();
    let version = session.quietly("/proc/version").unwrap_or_default();
    let mut document = Document {
        schema: SCHEMA,
        kernel: version.trim_end().to_owned(),
        boot: report.failed().map(|(name, stopped)| (name.to_owned(), stopped.to_string())).collect(),
        before: Vec::new(),
        init: None,
        devices: Vec::new(),
        actions: Vec::new(),
        exit: None,
        dmesg: Vec::new(),
        left_behind: None,
        events: Vec::new(),
        watched,
        trace_cut: 0,
        compared: None,
        coverage: None,
        instructions: 0,
    };
    let before = session.all(plan, &mut document)?;
    if let Some(before) = before.filter(|_| !document.has_stopped()) {
        document.left_behind = before.left(&mut *session.kernel);
    }
    document.instructions = session.kernel.executed().wrapping_sub(begun);
    document.dmesg = session.kernel.log().iter().skip(first).map(MessageEntry::from).collect();
    document.events = EventEntry::all(session.kernel.events().iter().skip(events));
    if let Some(watch) = session.kernel.watched() {
        document.trace_cut = watch.cut;
        if plan.wanted.coverage {
            document.coverage = Some(CoverageEntry::of(watch));
        }
    }
    Ok(document)
}

struct Session<'s> {
    kernel: &'s mut dyn Running,
    /// How many messages were told.
    told: usize,
    /// Files that actions have opened and not closed, with their paths.
    files: BTreeMap<i64, String>,
    view: &'s mut View,
    show: &'s mut dyn FnMut(&ResultEntry) -> Result<(), Error>,
}

impl Session<'_> {
    /// Everything. Returns what there was before the module came, if it came to that.
    fn all(&mut self, plan: &Plan, document: &mut Document) -> Result<Option<Before>, Error> {
        for (file, parameters) in &plan.before {
            let entry = self.insmod(file, parameters)?;
            let good = entry.is_good();
            document.before.push(entry);
            if !good {
                return Ok(None);
            }
        }
        let before = Before::of(&mut *self.kernel);
        self.kernel.set_inits(if plan.load_only { Inits::End } else { Inits::Run });
        // Its name is that of struct module, and not always that of the file.
        self.kernel.watched().into_iter().for_each(|watch| watch.watch_next(true));
        let init = self.insmod(&plan.file, &plan.parameters);
        let mut name = plan.name.clone();
        if let Some(watch) = self.kernel.watched() {
            watch.watch_next(false);
            name = watch.names().last().cloned().unwrap_or(name);
        }
        self.kernel.set_inits(Inits::Run);
        let init = init?;
        let good = init.is_good();
        document.init = Some(init);
        if !good || plan.load_only {
            return Ok(Some(before));
        }
        document.devices = before.new_devices(&mut *self.kernel);
        let mut is_gone = false;
        for (text, action) in &plan.actions {
            let entry = match action {
                Action::Insmod(file, parameters) => self.insmod(file, parameters)?,
                action => self.entry(text, |kernel| act(kernel, action))?,
            };
            match (action, entry.result) {
                (Action::Open(path, _), Some(fd @ 0..)) => drop(self.files.insert(fd, path.clone())),
                (Action::Close(fd), Some(0)) => drop(self.files.remove(fd)),
                _ => {}
            }
            match action {
                Action::Rmmod(gone) if *gone == name && entry.is_good() => is_gone = true,
                Action::Insmod(file, _)
                    if [&plan.name, &name].contains(&&Modprobe::name_of(file)) && entry.is_good() =>
                {
                    is_gone = false;
                }
                _ => {}
            }
            let stopped = entry.stopped.is_some();
            document.actions.push(entry);
            if stopped {
                return Ok(Some(before));
            }
        }
        if !is_gone {
            let exit =
                self.entry(&format!("rmmod {name}"), |kernel| Ok((kernel.rmmod(&name, false)?, None)))?;
            is_gone = exit.is_good();
            document.exit = Some(exit);
        }
        Ok(is_gone.then_some(before))
    }

    fn insmod(&mut self, file: &Path, parameters: &str) -> Result<ResultEntry, Error> {
        let bytes = read_decompressed(file)?;
        let gap = if parameters.is_empty() { "" } else { " " };
        let what = format!("insmod {}{gap}{parameters}", file.display());
        self.entry(&what, |kernel| Ok((kernel.insmod(&bytes, parameters)?, None)))
    }

    fn entry(
        &mut self,
        action: &str,
        make: impl FnOnce(&mut dyn Running) -> Made,
    ) -> Result<ResultEntry, Error> {
        let made = make(&mut *self.kernel);
        let told = self.told;
        let seen = self.kernel.watched().map(|watch| std::mem::take(&mut watch.entries)).unwrap_or_default();
        self.view.types.learn(&mut *self.kernel, &seen);
        let trace = traced::entries(&*self.kernel, &self.view.types, self.view.arch, &seen, told);
        let log = self.kernel.log();
        let dmesg = log.iter().skip(self.told).map(MessageEntry::from).collect();
        self.told = log.len();
        let (result, output, stopped) = match made {
            Ok((result, output)) => (Some(result), output, None),
            Err(stopped) => (None, None, Some(StopEntry::from(&stopped))),
        };
        let errno = result.and_then(|result| Errno::from_number(u16::try_from(result.checked_neg()?).ok()?));
        let output = output.map(|bytes| text(&bytes));
        let why = self.why(action, errno);
        let entry =
            ResultEntry { action: action.to_owned(), result, errno, why, output, dmesg, stopped, trace };
        (self.show)(&entry)?;
        Ok(entry)
    }

    /// What holds a module that cannot be removed.
    fn why(&self, action: &str, errno: Option<Errno>) -> Option<String> {
        let module = action.strip_prefix("rmmod ")?.trim();
        if errno? != Errno::EWOULDBLOCK {
            return None;
        }
        let count = self.kernel.standing().references.get(module).copied()?;
        let references = if count == 1 { "reference" } else { "references" };
        let open = self.files.iter().map(|(fd, path)| format!("{fd} ({path})")).collect::<Vec<_>>();
        let open = if open.is_empty() { String::new() } else { format!("; open files: {}", open.join(", ")) };
        Some(format!("it is in use: {count} {references}{open}"))
    }

    /// What a file holds, if it can be read.
    fn quietly(&mut self, path: &str) -> Option<String> {
        let (_, bytes) = cat(&mut *self.kernel, path).ok()?;
        Some(text(&bytes?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_is_told_is_told_apart() {
        let told = |words: &[&str], capabilities: Option<&[u8]>| {
            let words = words.iter().map(|word| String::from(*word)).collect();
            as_bytes(&Told { words, capabilities: capabilities.map(<[u8]>::to_vec) })
        };
        let all = [
            told(&[], None),
            told(&["ibt=off"], None),
            told(&["ibt=of", "f"], None),
            told(&["ibt=off"], Some(&[])),
            told(&[], Some(b"ibt=off\0")),
            told(&[], Some(&[0])),
            told(&[], Some(&[])),
        ];
        for (at, one) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|other| other == one), Some(at), "{at}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(text(b"a\xffb\n"), "a\\xffb\n");
    }
}
