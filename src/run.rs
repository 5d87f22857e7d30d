//! Modules that run: a kernel image's own code is executed until modules can be loaded into it, and then on what is asked of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use elf_layout::Errno;
use run::PROCESSORS;
use run::boot::{Error as BootError, Report};
use run::machine::Stopped;
use run::system::{Device, Running};
use run::world::Message;
use serde::Serialize;

use crate::document::{SCHEMA, errno_name};
use crate::error::Error;
use crate::input::{read, read_decompressed};
use crate::kernel_source::image;
use crate::modprobe::Modprobe;

/// Bytes of a file that `cat` reads at most.
const CAT_MAX: usize = 1 << 20;
/// O_RDONLY, O_WRONLY, O_RDWR
const MODES: [(&str, u64); 3] = [("r", 0), ("w", 1), ("rw", 2)];
/// What poll asks and answers.
const POLLED: [(u16, &str); 8] = [
    (1, "POLLIN"),
    (2, "POLLPRI"),
    (4, "POLLOUT"),
    (8, "POLLERR"),
    (16, "POLLHUP"),
    (32, "POLLNVAL"),
    (64, "POLLRDNORM"),
    (256, "POLLWRNORM"),
];
/// O_NONBLOCK
const NONBLOCK: u64 = 0o4000;
/// Permissions of a device file that mknod makes.
const DEVICE_MODE: u64 = 0o666;

/// Boots the image in a file. Each system call on it may take `budget` instructions.
///
/// # Errors
///
/// [`Error`], if the file is no image, or none that can be run.
pub fn boot(path: &Path, budget: u64) -> Result<(Box<dyn Running>, Report), Error> {
    let bytes = read(path)?;
    let image = image::open(path, &bytes)?;
    let machine = image.machine();
    let processor = PROCESSORS.iter().find(|processor| processor.machine() == machine.e_machine);
    let processor = processor
        .ok_or_else(|| Error::unusable(path, format!("code of {} is not interpreted yet", machine.name)))?;
    processor.boot(&image, budget).map_err(|error| {
        let more = match &error {
            BootError::Stopped { stopped, .. } => format!(" (called from {})", stopped.stack.join(", ")),
            BootError::Image(_) => String::new(),
        };
        Error::unusable(path, format!("the kernel cannot be booted: {error}{more}"))
    })
}

/// What is asked of the kernel once the module is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `open PATH [r|w|rw] [nonblock]`
    Open(String, u64),
    /// `close FD`
    Close(i64),
    /// `read FD|PATH [COUNT]`
    Read(Target, u64),
    /// `write FD|PATH TEXT`
    Write(Target, Vec<u8>),
    /// `ioctl FD|PATH REQUEST [NUMBER|int:NUMBER|bytes:TEXT]`
    Ioctl(Target, u64, Argument),
    /// `mknod PATH c MAJOR MINOR`; the major number of a device may be its name in /proc/devices.
    Mknod(String, Major, u32),
    /// `poll FD [MILLISECONDS]`: for what the file is ready, after waiting so long at most.
    Poll(i64, u64),
    /// `call NAME [NUMBER]...`: a system call
    Call(String, Vec<u64>),
    /// `cat PATH`
    Cat(String),
    /// `echo TEXT > PATH`
    Echo(Vec<u8>, String),
    /// `sleep SECONDS`, in milliseconds
    Sleep(u64),
    /// `insmod FILE [PARAM=VALUE]...`
    Insmod(PathBuf, String),
    /// `rmmod NAME`
    Rmmod(String),
}

/// What an action is done to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file that is open.
    Fd(i64),
    /// A file that is opened for it, and closed.
    Path(String),
}

/// The third argument of ioctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A number.
    Number(u64),
    /// The address of bytes.
    Bytes(Vec<u8>),
}

/// A major number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Major {
    /// Itself.
    Number(u32),
    /// That of the device that is registered under this name.
    Name(String),
}

impl Action {
    /// Reads an action.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let usage = |what: &str| Err(format!("{command}: {what}"));
        Ok(match (command, words.as_slice()) {
            ("open", [path, how @ ..]) => {
                let mut flags = 2;
                for word in how {
                    match (MODES.iter().find(|(name, _)| name == word), *word) {
                        (Some((_, mode)), _) => flags = flags & !3 | mode,
                        (_, "nonblock") => flags |= NONBLOCK,
                        _ => return usage("open PATH [r|w|rw] [nonblock]"),
                    }
                }
                Action::Open((*path).into(), flags)
            }
            ("close", [fd]) => Action::Close(fd.parse().map_err(|_| format!("close: {fd} is no number"))?),
            ("read", [target]) => Action::Read(Target::of(target), 4096),
            ("read", [target, count]) => Action::Read(Target::of(target), number(count)?),
            ("write", [target, ..]) => {
                let text = rest.strip_prefix(target).unwrap_or_default().trim_start();
                Action::Write(Target::of(target), unescaped(text)?)
            }
            ("ioctl", [target, request]) => {
                Action::Ioctl(Target::of(target), number(request)?, Argument::Number(0))
            }
            ("ioctl", [target, request, argument]) => {
                Action::Ioctl(Target::of(target), number(request)?, Argument::of(argument)?)
            }
            ("mknod", [path, "c", major, minor]) => {
                let major =
                    number(major).map_or_else(|_| Major::Name((*major).into()), |n| Major::Number(n as u32));
                Action::Mknod((*path).into(), major, number(minor)? as u32)
            }
            ("poll", [fd, wait @ ..]) if wait.len() < 2 => {
                let fd = fd.parse().map_err(|_| format!("poll: {fd} is no number"))?;
                Action::Poll(fd, wait.first().map_or(Ok(0), |wait| number(wait))?)
            }
            ("call", [name, arguments @ ..]) if arguments.len() < 7 => {
                let arguments = arguments.iter().map(|word| number(word)).collect::<Result<_, _>>()?;
                Action::Call((*name).into(), arguments)
            }
            ("cat", [path]) => Action::Cat((*path).into()),
            ("echo", [.., ">", path]) => {
                let (text, _) = rest.rsplit_once('>').unwrap_or_default();
                let mut text = unescaped(text.trim_end())?;
                text.push(b'\n');
                Action::Echo(text, (*path).into())
            }
            ("sleep", [seconds]) => {
                let seconds: f64 = seconds.parse().map_err(|_| format!("sleep: {seconds} is no number"))?;
                if !(0.0..=86_400.0).contains(&seconds) {
                    return usage("0 to 86400 seconds");
                }
                Action::Sleep((seconds * 1000.0) as u64)
            }
            ("insmod", [file, parameters @ ..]) => Action::Insmod(file.into(), parameters.join(" ")),
            ("rmmod", [name]) => Action::Rmmod((*name).into()),
            (
                "open" | "close" | "read" | "write" | "ioctl" | "mknod" | "poll" | "call" | "cat" | "echo"
                | "sleep" | "insmod" | "rmmod",
                _,
            ) => {
                return usage("too few or too many words; see --help");
            }
            _ => {
                return Err(format!(
                    "{command}: unknown; there are open, close, read, write, ioctl, mknod, poll, call, cat, echo, sleep, insmod and rmmod"
                ));
            }
        })
    }
}

impl Target {
    fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Target::Path(text.into()), Target::Fd)
    }
}

impl Argument {
    fn of(text: &str) -> Result<Self, String> {
        if let Some(value) = text.strip_prefix("int:") {
            let value: i32 = value.parse().map_err(|_| format!("ioctl: {value} is no int"))?;
            return Ok(Argument::Bytes(value.to_le_bytes().into()));
        }
        match text.strip_prefix("bytes:") {
            Some(text) => Ok(Argument::Bytes(unescaped(text)?)),
            None => Ok(Argument::Number(number(text)?)),
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is no number"))
}

/// `\n`, `\t`, `\0`, `\\` and `\xHH` are bytes; quotes around all of it are taken off.
fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut rest = quoted.unwrap_or(text).bytes();
    let mut out = Vec::new();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no byte"))?
            }
            _ => return Err(format!("{text}: \\ begins \\n, \\t, \\0, \\\\ or \\xHH")),
        });
    }
    Ok(out)
}

/// How something ended.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResultEntry {
    /// What was done.
    pub action: String,
    /// What the system call returned; null if the machine stopped in it.
    pub result: Option<i64>,
    /// The error in it.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// What was read; bytes that are no text as `\xHH`.
    pub output: Option<String>,
    /// What the kernel printed meanwhile.
    pub dmesg: Vec<MessageEntry>,
    /// Why the machine stopped; nothing is known of what would follow.
    pub stopped: Option<StopEntry>,
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

/// What is there after the module is gone, and was not before.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeftBehind {
    /// Bytes of memory that were allocated and not freed, by whomever: caches of the kernel are among them.
    pub memory: u64,
    /// How many pieces of it.
    pub pieces: usize,
    /// Character devices that are still registered.
    pub devices: Vec<DeviceEntry>,
    /// Modules that are still loaded.
    pub modules: Vec<String>,
}

/// The document that `run --json` prints.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Warnings, and other things that no log tells.
    pub events: Vec<String>,
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
    /// Is it loaded only, up to the call of `do_init_module`? That is the kernel's own verdict.
    pub load_only: bool,
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
    let mut session = Session { kernel, told: 0, show };
    session.told = session.kernel.log().len();
    let (first, begun, mark) = (session.told, session.kernel.executed(), session.kernel.mark());
    let events = session.kernel.events().len();
    let version = session.quietly("/proc/version").unwrap_or_default();
    let (devices, modules) = (session.devices(), session.modules());
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
        instructions: 0,
    };
    session.all(plan, &devices, &mut document)?;
    if !document.has_stopped() {
        let left = session.modules().into_iter().filter(|name| !modules.contains(name)).collect::<Vec<_>>();
        let (memory, pieces) = session.kernel.taken_since(mark);
        let registered = session.new_devices(&devices);
        document.left_behind =
            left.is_empty().then_some(LeftBehind { memory, pieces, devices: registered, modules: left });
    }
    document.instructions = session.kernel.executed().wrapping_sub(begun);
    document.dmesg = session.kernel.log().iter().skip(first).map(MessageEntry::from).collect();
    document.events = session.kernel.events().iter().skip(events).cloned().collect();
    Ok(document)
}

struct Session<'s> {
    kernel: &'s mut dyn Running,
    /// How many messages were told.
    told: usize,
    show: &'s mut dyn FnMut(&ResultEntry) -> Result<(), Error>,
}

/// What a system call returned, and what was read.
type Made = Result<(i64, Option<Vec<u8>>), Stopped>;

impl Session<'_> {
    fn all(&mut self, plan: &Plan, devices: &[Device], document: &mut Document) -> Result<(), Error> {
        for (file, parameters) in &plan.before {
            let entry = self.insmod(file, parameters)?;
            let good = entry.is_good();
            document.before.push(entry);
            if !good {
                return Ok(());
            }
        }
        self.kernel.stop_before_init(plan.load_only);
        let init = self.insmod(&plan.file, &plan.parameters);
        self.kernel.stop_before_init(false);
        let init = init?;
        let good = init.is_good();
        document.init = Some(init);
        if !good || plan.load_only {
            return Ok(());
        }
        document.devices = self.new_devices(devices);
        let mut is_gone = false;
        for (text, action) in &plan.actions {
            let entry = match action {
                Action::Insmod(file, parameters) => self.insmod(file, parameters)?,
                action => self.entry(text, |kernel| act(kernel, action))?,
            };
            match action {
                Action::Rmmod(name) if *name == plan.name && entry.is_good() => is_gone = true,
                Action::Insmod(file, _) if Modprobe::name_of(file) == plan.name && entry.is_good() => {
                    is_gone = false;
                }
                _ => {}
            }
            let stopped = entry.stopped.is_some();
            document.actions.push(entry);
            if stopped {
                return Ok(());
            }
        }
        if !is_gone {
            let exit = self.entry(&format!("rmmod {}", plan.name), |kernel| {
                Ok((kernel.rmmod(&plan.name, false)?, None))
            })?;
            document.exit = Some(exit);
        }
        Ok(())
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
        let log = self.kernel.log();
        let dmesg = log.iter().skip(self.told).map(MessageEntry::from).collect();
        self.told = log.len();
        let (result, output, stopped) = match made {
            Ok((result, output)) => (Some(result), output, None),
            Err(stopped) => (None, None, Some(StopEntry::from(&stopped))),
        };
        let errno = result.and_then(|result| Errno::from_number(u16::try_from(result.checked_neg()?).ok()?));
        let output = output.map(|bytes| text(&bytes));
        let entry = ResultEntry { action: action.to_owned(), result, errno, output, dmesg, stopped };
        (self.show)(&entry)?;
        Ok(entry)
    }

    /// What a file holds, if it can be read.
    fn quietly(&mut self, path: &str) -> Option<String> {
        let (_, bytes) = cat(&mut *self.kernel, path).ok()?;
        Some(text(&bytes?))
    }

    fn devices(&mut self) -> Vec<Device> {
        self.kernel.devices().unwrap_or_default()
    }

    fn new_devices(&mut self, before: &[Device]) -> Vec<DeviceEntry> {
        let is_new = |device: &&Device| !before.contains(device);
        self.devices().iter().filter(is_new).map(DeviceEntry::from).collect()
    }

    fn modules(&mut self) -> Vec<String> {
        let listed = self.quietly("/proc/modules").unwrap_or_default();
        listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    }
}

/// Reads a file to its end.
fn cat(kernel: &mut dyn Running, path: &str) -> Made {
    let fd = kernel.open(path, 0, 0)?;
    if fd < 0 {
        return Ok((fd, None));
    }
    let (result, bytes) = kernel.read_all(fd, CAT_MAX)?;
    kernel.close(fd)?;
    Ok((if result < 0 { result } else { bytes.len() as i64 }, Some(bytes)))
}

/// Opens a file if it is not, does something with it, and closes it.
fn with(
    kernel: &mut dyn Running,
    target: &Target,
    flags: u64,
    make: impl FnOnce(&mut dyn Running, i64) -> Made,
) -> Made {
    match target {
        Target::Fd(fd) => make(kernel, *fd),
        Target::Path(path) => {
            let fd = kernel.open(path, flags, 0)?;
            if fd < 0 {
                return Ok((fd, None));
            }
            let made = make(kernel, fd)?;
            kernel.close(fd)?;
            Ok(made)
        }
    }
}

fn act(kernel: &mut dyn Running, action: &Action) -> Made {
    match action {
        Action::Open(path, flags) => Ok((kernel.open(path, *flags, 0)?, None)),
        Action::Close(fd) => Ok((kernel.close(*fd)?, None)),
        Action::Read(target, count) => with(kernel, target, 0, |kernel, fd| {
            let (result, bytes) = kernel.read(fd, *count)?;
            Ok((result, Some(bytes)))
        }),
        Action::Write(target, bytes) => {
            with(kernel, target, 1, |kernel, fd| Ok((kernel.write(fd, bytes)?, None)))
        }
        Action::Ioctl(target, request, argument) => with(kernel, target, 2, |kernel, fd| match argument {
            Argument::Number(number) => Ok((kernel.ioctl(fd, *request, *number)?, None)),
            Argument::Bytes(bytes) => {
                let (result, bytes) = kernel.ioctl_bytes(fd, *request, bytes)?;
                Ok((result, Some(bytes)))
            }
        }),
        Action::Mknod(path, major, minor) => {
            let major = match major {
                Major::Number(number) => Some(*number),
                Major::Name(name) => {
                    let devices = kernel.devices()?;
                    devices.iter().find(|device| device.name == *name).map(|device| device.major_number)
                }
            };
            let Some(major) = major else {
                return Err(kernel.refuse("no device is registered under this name"));
            };
            Ok((kernel.mknod(path, DEVICE_MODE, major, *minor)?, None))
        }
        Action::Poll(fd, wait) => {
            let (result, events) =
                kernel.poll(*fd, POLLED.iter().fold(0, |all, (bit, _)| all | bit), *wait)?;
            let names = POLLED.iter().filter(|(bit, _)| events & bit != 0).map(|(_, name)| *name);
            Ok((result, Some(names.collect::<Vec<_>>().join(" ").into_bytes())))
        }
        Action::Call(name, arguments) => Ok((kernel.syscall(name, arguments)?, None)),
        Action::Cat(path) => cat(kernel, path),
        Action::Echo(bytes, path) => {
            with(kernel, &Target::Path(path.clone()), 1, |kernel, fd| Ok((kernel.write(fd, bytes)?, None)))
        }
        Action::Sleep(milliseconds) => {
            kernel.sleep(*milliseconds)?;
            Ok((0, None))
        }
        Action::Rmmod(name) => Ok((kernel.rmmod(name, false)?, None)),
        // Files are read before.
        Action::Insmod(..) => Err(kernel.refuse("a file is to be read")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn actions_are_read() {
        let path = || Target::Path("/dev/x".into());
        for (text, action) in [
            ("open /dev/x", Action::Open("/dev/x".into(), 2)),
            ("open /dev/x r nonblock", Action::Open("/dev/x".into(), NONBLOCK)),
            ("close 3", Action::Close(3)),
            ("read 3 7", Action::Read(Target::Fd(3), 7)),
            (" read  /dev/x ", Action::Read(path(), 4096)),
            ("write /dev/x a  b\\n", Action::Write(path(), b"a  b\n".to_vec())),
            ("write /dev/x \"\\x41\\0 \"", Action::Write(path(), b"A\0 ".to_vec())),
            ("ioctl 3 0x10 5", Action::Ioctl(Target::Fd(3), 16, Argument::Number(5))),
            ("ioctl /dev/x 1 int:-1", Action::Ioctl(path(), 1, Argument::Bytes(vec![255; 4]))),
            ("mknod /dev/x c 240 1", Action::Mknod("/dev/x".into(), Major::Number(240), 1)),
            ("mknod /dev/x c name 0", Action::Mknod("/dev/x".into(), Major::Name("name".into()), 0)),
            ("poll 3", Action::Poll(3, 0)),
            ("poll 3 50", Action::Poll(3, 50)),
            ("call getpgid 0x1", Action::Call("getpgid".into(), vec![1])),
            ("cat /proc/x", Action::Cat("/proc/x".into())),
            ("echo a > b > /sys/x", Action::Echo(b"a > b\n".to_vec(), "/sys/x".into())),
            ("sleep 0.5", Action::Sleep(500)),
            ("insmod m.ko a=1 b=2", Action::Insmod("m.ko".into(), "a=1 b=2".into())),
            ("rmmod m", Action::Rmmod("m".into())),
        ] {
            assert_eq!(Action::parse(text), Ok(action), "{text}");
        }
        for text in [
            "",
            "open",
            "open x q",
            "close x",
            "sleep -1",
            "sleep nan",
            "ioctl 3",
            "echo x",
            "write 3 \\q",
            "reboot",
            "mknod x b 1 2",
        ] {
            assert!(Action::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(text(b"a\xffb\n"), "a\\xffb\n");
    }
}
