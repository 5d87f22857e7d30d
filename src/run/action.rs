//! What is asked of a kernel: system calls, as people write them.

use std::path::PathBuf;

use run::machine::Stopped;
use run::system::Running;

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

/// What a system call returned, and what was read.
pub(super) type Made = Result<(i64, Option<Vec<u8>>), Stopped>;

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

/// Reads a file to its end.
pub(super) fn cat(kernel: &mut dyn Running, path: &str) -> Made {
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

pub(super) fn act(kernel: &mut dyn Running, action: &Action) -> Made {
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
}
