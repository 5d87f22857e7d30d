//! A booted kernel and the program that runs on it: system calls, and what they leave behind.

mod devices;

pub use devices::{Device, FILE_OPERATIONS};

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::boot::Report;
use crate::debugger::Debugger;
use crate::heap::Mark;
use crate::kept::{Kept, Reader};
use crate::machine::{Cause, Failed, Machine, Platform, Snapshot, Space, Stopped};
use crate::memory::PAGE;
use crate::parameters;
use crate::standing::{self, Standing, Stray};
use crate::watch::{Allocation, Watch};
use crate::world::{Event, Inits, Message};

/// AT_FDCWD
const AT_FDCWD: u64 = -100i64 as u64;
/// O_TRUNC of delete_module: by force.
const O_TRUNC: u64 = 0o1000;
/// O_NONBLOCK of delete_module, without which it may wait.
const O_NONBLOCK: u64 = 0o4000;
/// Where a path lies in the program's memory.
const PATH_AT: u64 = 0x1000;
/// Where a program's buffer lies in its memory.
const BUFFER_AT: u64 = 0x10_0000;
/// Bytes of one read.
const READ_MAX: u64 = 1 << 16;
/// Instructions for printing one address.
const NAME_BUDGET: u64 = 2_000_000;
/// What comes of a system call: what it returns, or why the machine stopped in it.
pub type Result<T> = core::result::Result<T, Stopped>;

/// A booted kernel, of whatever architecture, and the program that runs on it.
pub trait Running: core::fmt::Debug + Send {
    /// A system call by its name. Negative numbers are errors.
    fn syscall(&mut self, name: &str, arguments: &[u64]) -> Result<i64>;
    /// Calls a function of the kernel by its name.
    fn call(&mut self, name: &str, arguments: &[u64]) -> Result<u64>;
    /// Reads memory.
    fn read_memory(&mut self, at: u64, len: usize) -> Result<Vec<u8>>;
    /// Writes memory, where the kernel may.
    fn write_memory(&mut self, at: u64, bytes: &[u8]) -> Result<()>;
    /// Where things are in the address space.
    fn space(&self) -> Space;
    /// What the kernel has printed.
    fn log(&self) -> &[Message];
    /// Warnings, and other things that no log tells.
    fn events(&self) -> &[Event];
    /// Watches the code of modules of these names that are loaded from now on; `None` ends it. False if the processor cannot.
    fn watch(&mut self, watch: Option<Watch>) -> bool;
    /// A debugger stops where the next module comes that is watched by [`Watch::watch_next`], and says how it goes on; `None` ends it.
    fn debug(&mut self, debugger: Option<Box<dyn Debugger>>);
    /// An address by the symbol before it, of the image or of a module that is watched.
    fn text(&self, address: u64) -> String;
    /// What was noted of it so far.
    fn watched(&mut self) -> Option<&mut Watch>;
    /// Instructions executed so far.
    fn executed(&self) -> u64;
    /// Instructions that one system call may take.
    fn set_budget(&mut self, budget: u64);
    /// What becomes of the init functions of modules from now on.
    fn set_inits(&mut self, inits: Inits);
    /// `taints` of the last module that came to `do_init_module`, if any has.
    fn taints(&self) -> Option<u64>;
    /// What the kernel finds of the signature of the next module: the result of `verify_pkcs7_signature`, if that is known.
    fn set_trust(&mut self, result: Option<i64>);
    /// Gives a word of a command line to the kernel ([`crate::parameters::GIVEN`]).
    fn give_parameter(&mut self, word: &str) -> Result<()>;
    /// What the kernel has asked for and the machine does not have.
    fn doubts(&self) -> &[String];
    /// All of it as bytes, but for what watches it and its snapshots, to be taken up again by [`crate::processor::take_up`]. `report` is that
    /// of its boot.
    fn keep(&self, report: &Report) -> Vec<u8>;
    /// The character devices that are registered, by major and minor.
    fn devices(&mut self) -> Result<Vec<Device>>;
    /// Entries of file systems, work queues and references to modules that there are.
    fn standing(&self) -> Standing;
    /// Timers, threads and the like that lead to code that is watched, or was, and the kinds of which nothing is known.
    fn strays(&mut self) -> (Vec<Stray>, Vec<&'static str>);
    /// What code that is watched has asked for, and nobody has given back.
    fn kept_allocations(&self) -> Vec<Allocation>;
    /// Where the heap is now, for [`Running::taken_since`].
    fn mark(&self) -> Mark;
    /// Memory that was taken since a mark and is not freed: bytes and pieces.
    fn taken_since(&self, mark: Mark) -> (u64, usize);
    /// Remembers everything as it is.
    fn snapshot(&mut self);
    /// Goes back to the last snapshot, which stays.
    fn restore(&mut self);
    /// Goes back to the last snapshot, which is given up.
    fn forget(&mut self);
    /// The same system, independent of this one, without its snapshots.
    fn fork(&self) -> Box<dyn Running>;
    /// A reason not to go on that is not the kernel's.
    fn refuse(&self, why: &str) -> Stopped;

    /// Time passes, and the kernel does what it has to do.
    fn sleep(&mut self, milliseconds: u64) -> Result<()> {
        self.call("msleep", &[milliseconds & 0xffff_ffff])?;
        Ok(())
    }

    /// A string in the program's memory.
    fn path(&mut self, text: &str) -> Result<u64> {
        let at = self.space().user.0.wrapping_add(PATH_AT);
        let mut bytes = Vec::from(text.as_bytes());
        bytes.push(0);
        bytes.truncate(PAGE as usize);
        self.write_memory(at, &bytes)?;
        Ok(at)
    }

    /// Where the program's buffer lies.
    fn buffer(&self) -> u64 {
        self.space().user.0.wrapping_add(BUFFER_AT)
    }

    /// How much the program's buffer holds.
    fn buffer_size(&self) -> u64 {
        self.space().user.1.saturating_sub(self.buffer())
    }

    /// openat
    fn open(&mut self, path: &str, flags: u64, mode: u64) -> Result<i64> {
        let path = self.path(path)?;
        self.syscall("openat", &[AT_FDCWD, path, flags, mode])
    }

    /// close
    fn close(&mut self, fd: i64) -> Result<i64> {
        self.syscall("close", &[fd as u64])
    }

    /// read of at most `count` bytes: what it returns, and what it has read.
    fn read(&mut self, fd: i64, count: u64) -> Result<(i64, Vec<u8>)> {
        let (at, count) = (self.buffer(), count.min(self.buffer_size()));
        let result = self.syscall("read", &[fd as u64, at, count])?;
        let len = usize::try_from(result).unwrap_or(0);
        let bytes = self.read_memory(at, len)?;
        Ok((result, bytes))
    }

    /// Reads to the end: the last result, and everything before it.
    fn read_all(&mut self, fd: i64, max: usize) -> Result<(i64, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let (result, bytes) = self.read(fd, READ_MAX)?;
            all.extend_from_slice(&bytes);
            if result <= 0 || all.len() >= max {
                return Ok((result, all));
            }
        }
    }

    /// write
    fn write(&mut self, fd: i64, bytes: &[u8]) -> Result<i64> {
        let at = self.buffer();
        let len = (bytes.len() as u64).min(self.buffer_size());
        self.write_memory(at, bytes.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default())?;
        self.syscall("write", &[fd as u64, at, len])
    }

    /// ioctl with a number.
    fn ioctl(&mut self, fd: i64, request: u64, argument: u64) -> Result<i64> {
        self.syscall("ioctl", &[fd as u64, request, argument])
    }

    /// ioctl with the address of bytes: what it returns, and what they are then.
    fn ioctl_bytes(&mut self, fd: i64, request: u64, bytes: &[u8]) -> Result<(i64, Vec<u8>)> {
        let at = self.buffer();
        self.write_memory(at, bytes)?;
        let result = self.syscall("ioctl", &[fd as u64, request, at])?;
        let bytes = self.read_memory(at, bytes.len())?;
        Ok((result, bytes))
    }

    /// ppoll of one file for these events, for so many milliseconds at most: what it returns, and which events there are.
    fn poll(&mut self, fd: i64, events: u16, milliseconds: u64) -> Result<(i64, u16)> {
        let at = self.buffer();
        let [low, high] = events.to_le_bytes();
        let mut asked = Vec::from((fd as i32).to_le_bytes());
        asked.extend([low, high, 0, 0]);
        let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
        asked.extend(seconds.to_le_bytes());
        asked.extend(rest.saturating_mul(1_000_000).to_le_bytes());
        self.write_memory(at, &asked)?;
        let result = self.syscall("ppoll", &[at, 1, at.wrapping_add(8), 0, 8])?;
        let events = self.read_memory(at.wrapping_add(6), 2)?;
        Ok((result, events.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes))))
    }

    /// mknod of a character device.
    fn mknod(&mut self, path: &str, mode: u64, major: u32, minor: u32) -> Result<i64> {
        let path = self.path(path)?;
        // new_encode_dev
        let device = u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12;
        /// S_IFCHR
        const CHARACTER: u64 = 0o20000;
        self.syscall("mknodat", &[AT_FDCWD, path, CHARACTER | mode, device])
    }

    /// init_module: the kernel's own load_module on the bytes of a file, then the init function.
    fn insmod(&mut self, file: &[u8], parameters: &str) -> Result<i64> {
        let at = self.buffer();
        if file.len() as u64 > self.buffer_size() {
            return Err(self.refuse("the module is larger than the program's memory"));
        }
        self.write_memory(at, file)?;
        let parameters = self.path(parameters)?;
        self.syscall("init_module", &[at, file.len() as u64, parameters])
    }

    /// finit_module of a file with these bytes, with flags (MODULE_INIT_IGNORE_MODVERSIONS...).
    fn finit_module(&mut self, file: &[u8], parameters: &str, flags: u64) -> Result<i64> {
        /// O_CREAT | O_TRUNC | O_WRONLY
        const NEW: u64 = 0o1101;
        const PATH: &str = "/tmp/module.ko";
        let new = self.open(PATH, NEW, 0o600)?;
        let mut rest = file;
        while new >= 0 && !rest.is_empty() {
            let written = self.write(new, rest)?;
            let Some(behind) = usize::try_from(written).ok().filter(|n| *n != 0).and_then(|n| rest.get(n..))
            else {
                return Err(self.refuse("the module's file cannot be written"));
            };
            rest = behind;
        }
        self.close(new)?;
        // The kernel refuses to load a file that somebody writes; the last reference to it is put late.
        let fd = self.open(PATH, 0, 0)?;
        let at = self.path(parameters)?;
        self.syscall("finit_module", &[fd as u64, at, flags])
    }

    /// As [`Running::insmod`], up to the call of the init function, where the system call ends with 0. With flags it is
    /// [`Running::finit_module`], since init_module has none.
    fn load_module(&mut self, file: &[u8], parameters: &str, flags: u64) -> Result<i64> {
        self.set_inits(Inits::End);
        let result = match flags {
            0 => self.insmod(file, parameters),
            _ => self.finit_module(file, parameters, flags),
        };
        self.set_inits(Inits::Run);
        result
    }

    /// delete_module
    fn rmmod(&mut self, name: &str, force: bool) -> Result<i64> {
        let name = self.path(name)?;
        let flags = O_NONBLOCK | if force { O_TRUNC } else { 0 };
        self.syscall("delete_module", &[name, flags])
    }
}

/// A booted kernel of one architecture.
#[derive(Debug)]
pub struct System<C: Platform> {
    /// The kernel.
    pub machine: Machine<C>,
    /// Instructions that one system call may take.
    pub budget: u64,
    /// Memory of the kernel for `struct pt_regs`.
    frame: u64,
    snapshots: Vec<Snapshot<C::Registers>>,
}

impl<C: Platform> System<C> {
    /// The program on a kernel that has been booted. System calls may take `budget` instructions each.
    ///
    /// # Errors
    ///
    /// [`Stopped`], if the machine has no memory left.
    pub fn new(mut machine: Machine<C>, budget: u64) -> Result<Self> {
        let frame = machine.allocate(C::FRAME as u64, 64).map_err(|failed| why(&machine, failed))?;
        machine.world.is_up = true;
        Ok(System { machine, budget, frame, snapshots: Vec::new() })
    }

    /// Takes up what [`Running::keep`] has given, behind the report.
    pub(crate) fn take_up(from: &mut Reader, budget: u64) -> Option<Self> {
        let frame = u64::take_up(from)?;
        Some(System { machine: Machine::take_up(from)?, budget, frame, snapshots: Vec::new() })
    }

    fn attempt<T>(&mut self, make: impl FnOnce(&mut Self) -> core::result::Result<T, Failed>) -> Result<T> {
        self.machine.budget = self.budget;
        self.machine.world.idle = 0;
        make(self).map_err(|failed| {
            let mut stopped = why(&self.machine, failed);
            stopped.symbol = self.name("sprint_symbol", stopped.address);
            stopped
        })
    }

    fn enter(&mut self, name: &str, arguments: &[u64]) -> core::result::Result<i64, Failed> {
        let m = &mut self.machine;
        let frame = C::syscall_frame(arguments);
        m.memory.write(self.frame, &frame)?;
        let function = m.symbol(&format!("{}{name}", C::SYSCALL))?;
        m.world.has_left = false;
        let result = m.call_at(function, &[self.frame])? as i64;
        if m.world.has_left {
            // In the middle of the kernel.
            return Ok(result);
        }
        // exit_to_user_mode_loop
        m.call("task_work_run", &[])?;
        if C::needs_resched(m)? {
            m.call("schedule", &[])?;
        }
        Ok(result)
    }

    /// An address as the kernel itself prints it, which knows its modules.
    fn name(&mut self, printer: &str, address: u64) -> String {
        let buffer = self.machine.world.buffer;
        self.machine.budget = NAME_BUDGET;
        let named = self.machine.call(printer, &[buffer, address]);
        match named.and_then(|_| Ok(self.machine.memory.cstr(buffer, 200)?)) {
            Ok(text) if !text.is_empty() => String::from_utf8_lossy(&text).into_owned(),
            _ => self.machine.text(address),
        }
    }
}

impl<C: Platform + core::fmt::Debug + Send + 'static> Running for System<C>
where
    C::Registers: Send,
{
    fn syscall(&mut self, name: &str, arguments: &[u64]) -> Result<i64> {
        self.attempt(|system| system.enter(name, arguments))
    }

    fn call(&mut self, name: &str, arguments: &[u64]) -> Result<u64> {
        self.attempt(|system| system.machine.call(name, arguments))
    }

    fn read_memory(&mut self, at: u64, len: usize) -> Result<Vec<u8>> {
        self.attempt(|system| Ok(system.machine.memory.bytes(at, len)?))
    }

    fn write_memory(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.attempt(|system| Ok(system.machine.memory.write(at, bytes)?))
    }

    fn space(&self) -> Space {
        self.machine.space
    }

    fn log(&self) -> &[Message] {
        &self.machine.world.log
    }

    fn watch(&mut self, watch: Option<Watch>) -> bool {
        self.machine.set_watch(watch)
    }

    fn debug(&mut self, debugger: Option<Box<dyn Debugger>>) {
        self.machine.set_debugger(debugger);
    }

    fn text(&self, address: u64) -> String {
        self.machine.text(address)
    }

    fn watched(&mut self) -> Option<&mut Watch> {
        self.machine.watch.as_deref_mut()
    }

    fn events(&self) -> &[Event] {
        &self.machine.world.events
    }

    fn executed(&self) -> u64 {
        self.machine.cpu.executed()
    }

    fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    fn set_inits(&mut self, inits: Inits) {
        self.machine.world.inits = inits;
    }

    fn taints(&self) -> Option<u64> {
        let (module, offset) = (self.machine.world.coming?, self.machine.offset("module.taints").ok()?);
        self.machine.memory.u64(module.wrapping_add(offset)).ok()
    }

    fn set_trust(&mut self, result: Option<i64>) {
        self.machine.world.trust = result;
    }

    fn give_parameter(&mut self, word: &str) -> Result<()> {
        self.attempt(|system| parameters::give(&mut system.machine, word))
    }

    fn doubts(&self) -> &[String] {
        &self.machine.world.doubts
    }

    fn keep(&self, report: &Report) -> Vec<u8> {
        let mut out = Vec::from(C::MACHINE.to_le_bytes());
        report.keep(&mut out);
        self.frame.keep(&mut out);
        self.machine.keep(&mut out);
        out
    }

    fn devices(&mut self) -> Result<Vec<Device>> {
        self.attempt(|system| system.registered())
    }

    fn standing(&self) -> Standing {
        standing::standing(&self.machine)
    }

    fn strays(&mut self) -> (Vec<Stray>, Vec<&'static str>) {
        let Some(watch) = &self.machine.watch else { return (Vec::new(), standing::KINDS.into()) };
        let watched = watch.memory();
        let is_owned = |address: u64| watched.iter().any(|region| region.has(address));
        self.machine.budget = self.budget;
        standing::strays(&mut self.machine, &is_owned)
    }

    fn kept_allocations(&self) -> Vec<Allocation> {
        self.machine.kept_allocations()
    }

    fn mark(&self) -> Mark {
        self.machine.world.heap.mark()
    }

    fn taken_since(&self, mark: Mark) -> (u64, usize) {
        let taken = self.machine.world.heap.taken_since(mark);
        taken.fold((0, 0), |(bytes, count), (_, size)| {
            (size.saturating_add(bytes), 1usize.saturating_add(count))
        })
    }

    fn snapshot(&mut self) {
        let snapshot = self.machine.snapshot();
        self.snapshots.push(snapshot);
    }

    fn restore(&mut self) {
        if let Some(snapshot) = self.snapshots.last() {
            self.machine.restore(snapshot);
        }
    }

    fn forget(&mut self) {
        if let Some(snapshot) = self.snapshots.pop() {
            self.machine.restore(&snapshot);
            self.machine.commit();
        }
    }

    fn fork(&self) -> Box<dyn Running> {
        let machine = self.machine.fork();
        Box::new(System { machine, budget: self.budget, frame: self.frame, snapshots: Vec::new() })
    }

    fn refuse(&self, why: &str) -> Stopped {
        self.machine.stopped(why.into(), Cause::Machine)
    }
}

fn why<C: Platform>(machine: &Machine<C>, failed: Failed) -> Stopped {
    match failed {
        Failed::Stopped(stopped) => stopped,
        Failed::Because(reason) => machine.stopped(reason, Cause::Machine),
        Failed::Crash(reason) => machine.stopped(reason, Cause::Kernel),
        Failed::Fault(fault) => {
            machine.stopped(format!("{}", crate::cpu::Stop::Fault(fault)), Cause::Machine)
        }
    }
}
