//! A booted kernel and the program that runs on it: system calls, and what they leave behind.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::heap::Mark;
use crate::machine::{Failed, Machine, Platform, Snapshot, Stopped};
use crate::memory::PAGE;

/// Members of `struct file_operations` that are functions.
pub const FILE_OPERATIONS: &[&str] = &[
    "llseek", "read", "write", "read_iter", "write_iter", "iopoll", "iterate_shared", "poll", "unlocked_ioctl",
    "compat_ioctl", "mmap", "mmap_prepare", "open", "flush", "release", "fsync", "fasync", "lock", "get_unmapped_area",
    "check_flags", "flock", "splice_write", "splice_read", "splice_eof", "setlease", "fallocate", "show_fdinfo",
    "copy_file_range", "remap_file_range", "fadvise", "uring_cmd", "uring_cmd_iopoll",
];

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
/// Entries of `chrdevs` and of `kobj_map.probes`.
const HASH: u64 = 255;
/// Character devices at most; so that a loop in memory ends.
const DEVICES_MAX: usize = 4096;

/// What comes of a system call: what it returns, or why the machine stopped in it.
pub type Result<T> = core::result::Result<T, Stopped>;

/// A range of character devices that are registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its major number.
    pub major: u32,
    /// The first of its minor numbers.
    pub minor: u32,
    /// How many there are.
    pub count: u32,
    /// The name it is registered under.
    pub name: String,
    /// Its file operations, as far as a `cdev` serves the first of the numbers: member and function.
    pub operations: Vec<(&'static str, String)>,
}

/// A booted kernel.
#[derive(Debug)]
pub struct System<C: Platform> {
    /// The kernel.
    pub machine: Machine<C>,
    /// Instructions that one system call may take.
    pub budget: u64,
    /// Memory of the kernel for `struct pt_regs`.
    frame: u64,
}

impl<C: Platform> System<C> {
    /// The program on a kernel that has been booted. System calls may take `budget` instructions each.
    ///
    /// # Errors
    ///
    /// [`Stopped`], if the machine has no memory left.
    pub fn new(mut machine: Machine<C>, budget: u64) -> Result<Self> {
        let frame = machine.allocate(C::FRAME as u64, 64).map_err(|failed| why(&machine, failed))?;
        Ok(System { machine, budget, frame })
    }

    /// The same system, independent of this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        System { machine: self.machine.fork(), budget: self.budget, frame: self.frame }
    }

    /// Remembers everything as it is.
    pub fn snapshot(&mut self) -> Snapshot<C::Registers> {
        self.machine.snapshot()
    }

    /// Goes back to the last snapshot.
    pub fn restore(&mut self, snapshot: &Snapshot<C::Registers>) {
        self.machine.restore(snapshot);
    }

    fn attempt<T>(&mut self, make: impl FnOnce(&mut Self) -> core::result::Result<T, Failed>) -> Result<T> {
        self.machine.budget = self.budget;
        self.machine.world.idle = 0;
        make(self).map_err(|failed| why(&self.machine, failed))
    }

    /// A system call by its name. Negative numbers are errors.
    pub fn syscall(&mut self, name: &str, arguments: &[u64]) -> Result<i64> {
        self.attempt(|system| system.enter(name, arguments))
    }

    fn enter(&mut self, name: &str, arguments: &[u64]) -> core::result::Result<i64, Failed> {
        let m = &mut self.machine;
        let frame = C::syscall_frame(arguments);
        m.memory.write(self.frame, &frame)?;
        let function = m.symbol(&format!("{}{name}", C::SYSCALL))?;
        let result = m.call_at(function, &[self.frame])? as i64;
        // exit_to_user_mode_loop
        m.call("task_work_run", &[])?;
        if C::needs_resched(m)? {
            m.call("schedule", &[])?;
        }
        Ok(result)
    }

    /// A string in the program's memory.
    fn path(&mut self, text: &str) -> Result<u64> {
        let at = self.machine.space.user.0.wrapping_add(PATH_AT);
        let mut bytes = Vec::from(text.as_bytes());
        bytes.push(0);
        bytes.truncate(PAGE as usize);
        self.put(at, &bytes)?;
        Ok(at)
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.attempt(|system| Ok(system.machine.memory.write(at, bytes)?))
    }

    fn buffer(&self) -> u64 {
        self.machine.space.user.0.wrapping_add(BUFFER_AT)
    }

    /// How much the program's buffer holds.
    pub fn buffer_size(&self) -> u64 {
        self.machine.space.user.1.saturating_sub(self.buffer())
    }

    /// openat
    pub fn open(&mut self, path: &str, flags: u64, mode: u64) -> Result<i64> {
        let path = self.path(path)?;
        self.syscall("openat", &[AT_FDCWD, path, flags, mode])
    }

    /// close
    pub fn close(&mut self, fd: i64) -> Result<i64> {
        self.syscall("close", &[fd as u64])
    }

    /// read of at most `count` bytes: what it returns, and what it has read.
    pub fn read(&mut self, fd: i64, count: u64) -> Result<(i64, Vec<u8>)> {
        let (at, count) = (self.buffer(), count.min(self.buffer_size()));
        let result = self.syscall("read", &[fd as u64, at, count])?;
        let len = usize::try_from(result).unwrap_or(0);
        let bytes = self.attempt(|system| Ok(system.machine.memory.bytes(at, len)?))?;
        Ok((result, bytes))
    }

    /// Reads to the end: the last result, and everything before it.
    pub fn read_all(&mut self, fd: i64, max: usize) -> Result<(i64, Vec<u8>)> {
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
    pub fn write(&mut self, fd: i64, bytes: &[u8]) -> Result<i64> {
        let at = self.buffer();
        let len = (bytes.len() as u64).min(self.buffer_size());
        self.put(at, bytes.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default())?;
        self.syscall("write", &[fd as u64, at, len])
    }

    /// ioctl with a number.
    pub fn ioctl(&mut self, fd: i64, request: u64, argument: u64) -> Result<i64> {
        self.syscall("ioctl", &[fd as u64, request, argument])
    }

    /// ioctl with the address of bytes: what it returns, and what they are then.
    pub fn ioctl_bytes(&mut self, fd: i64, request: u64, bytes: &[u8]) -> Result<(i64, Vec<u8>)> {
        let at = self.buffer();
        self.put(at, bytes)?;
        let result = self.syscall("ioctl", &[fd as u64, request, at])?;
        let bytes = self.attempt(|system| Ok(system.machine.memory.bytes(at, bytes.len())?))?;
        Ok((result, bytes))
    }

    /// mknod of a character device.
    pub fn mknod(&mut self, path: &str, mode: u64, major: u32, minor: u32) -> Result<i64> {
        let path = self.path(path)?;
        // new_encode_dev
        let device = u64::from(minor & 0xff) | u64::from(major) << 8 | u64::from(minor & !0xff) << 12;
        /// S_IFCHR
        const CHARACTER: u64 = 0o20000;
        self.syscall("mknodat", &[AT_FDCWD, path, CHARACTER | mode, device])
    }

    /// init_module: the kernel's own load_module on the bytes of a file, then the init function.
    pub fn insmod(&mut self, file: &[u8], parameters: &str) -> Result<i64> {
        let at = self.buffer();
        if file.len() as u64 > self.buffer_size() {
            return Err(self.machine.stopped("the module is larger than the program's memory".into(), false));
        }
        self.put(at, file)?;
        let parameters = self.path(parameters)?;
        self.syscall("init_module", &[at, file.len() as u64, parameters])
    }

    /// As [`System::insmod`], up to the call of `do_init_module`, which is left out.
    pub fn load_module(&mut self, file: &[u8], parameters: &str) -> Result<i64> {
        self.machine.world.stops_before_init = true;
        let result = self.insmod(file, parameters);
        self.machine.world.stops_before_init = false;
        result
    }

    /// delete_module
    pub fn rmmod(&mut self, name: &str, force: bool) -> Result<i64> {
        let name = self.path(name)?;
        let flags = O_NONBLOCK | if force { O_TRUNC } else { 0 };
        self.syscall("delete_module", &[name, flags])
    }

    /// Time passes, and the kernel does what it has to do.
    pub fn sleep(&mut self, milliseconds: u64) -> Result<()> {
        self.attempt(|system| {
            system.machine.call("msleep", &[milliseconds & 0xffff_ffff])?;
            Ok(())
        })
    }

    /// Where the heap is now, for [`System::taken_since`].
    pub fn mark(&self) -> Mark {
        self.machine.world.heap.mark()
    }

    /// Memory that was taken since a mark and is not freed: bytes and pieces.
    pub fn taken_since(&self, mark: Mark) -> (u64, usize) {
        let taken = self.machine.world.heap.taken_since(mark);
        taken.fold((0, 0), |(bytes, count), (_, size)| (size.saturating_add(bytes), 1usize.saturating_add(count)))
    }

    /// The character devices that are registered, by major and minor.
    ///
    /// # Errors
    ///
    /// [`Stopped`], if the kernel's tables cannot be read.
    pub fn devices(&mut self) -> Result<Vec<Device>> {
        self.attempt(|system| system.registered())
    }

    fn registered(&self) -> core::result::Result<Vec<Device>, Failed> {
        let m = &self.machine;
        let table = m.symbol("chrdevs")?;
        let at = |base: u64, member: &str| Ok::<_, Failed>(base.wrapping_add(m.offset(member)?));
        let mut devices = Vec::new();
        for slot in 0..HASH {
            let mut entry = m.memory.u64(table.wrapping_add(slot.wrapping_mul(8)))?;
            while entry != 0 && devices.len() < DEVICES_MAX {
                let number = |member| Ok::<_, Failed>(m.memory.u32(at(entry, member)?)?);
                let name = m.memory.cstr(at(entry, "char_device_struct.name")?, 64)?;
                let (major, minor) =
                    (number("char_device_struct.major")?, number("char_device_struct.baseminor")?);
                devices.push(Device {
                    major,
                    minor,
                    count: number("char_device_struct.minorct")?,
                    name: String::from_utf8_lossy(&name).into_owned(),
                    operations: self.operations(major, minor)?,
                });
                entry = m.memory.u64(at(entry, "char_device_struct.next")?)?;
            }
        }
        devices.sort_by_key(|device| (device.major, device.minor));
        Ok(devices)
    }

    /// `kobj_lookup` in `cdev_map`: the functions that serve a device number.
    fn operations(&self, major: u32, minor: u32) -> core::result::Result<Vec<(&'static str, String)>, Failed> {
        /// MINORBITS
        const MINOR_BITS: u32 = 20;
        let m = &self.machine;
        let at = |base: u64, member: &str| Ok::<_, Failed>(base.wrapping_add(m.offset(member)?));
        let map = m.memory.u64(m.symbol("cdev_map")?)?;
        let slot = u64::from(major).checked_rem(HASH).unwrap_or(0).wrapping_mul(8);
        let mut probe = m.memory.u64(at(map, "kobj_map.probes")?.wrapping_add(slot))?;
        let wanted = u64::from(major) << MINOR_BITS | u64::from(minor);
        // base_probe asks for a module; what cdev_add has put there answers itself.
        let exact = m.symbols.address("exact_match");
        for _ in 0..DEVICES_MAX {
            if probe == 0 {
                break;
            }
            let first = u64::from(m.memory.u32(at(probe, "probe.dev")?)?);
            let range = m.memory.u64(at(probe, "probe.range")?)?;
            let get = m.memory.u64(at(probe, "probe.get")?)?;
            if Some(get) == exact && wanted >= first && wanted.wrapping_sub(first) < range {
                let cdev = m.memory.u64(at(probe, "probe.data")?)?;
                let operations = m.memory.u64(at(cdev, "cdev.ops")?)?;
                return self.functions(operations);
            }
            probe = m.memory.u64(at(probe, "probe.next")?)?;
        }
        Ok(Vec::new())
    }

    fn functions(&self, operations: u64) -> core::result::Result<Vec<(&'static str, String)>, Failed> {
        let m = &self.machine;
        let mut all = Vec::new();
        for member in FILE_OPERATIONS {
            let Ok(offset) = m.offset(&format!("file_operations.{member}")) else { continue };
            let function = m.memory.u64(operations.wrapping_add(offset))?;
            if function != 0 {
                all.push((*member, m.text(function)));
            }
        }
        Ok(all)
    }
}

fn why<C: Platform>(machine: &Machine<C>, failed: Failed) -> Stopped {
    match failed {
        Failed::Stopped(stopped) => stopped,
        Failed::Because(reason) => machine.stopped(reason, false),
        Failed::Fault(fault) => machine.stopped(format!("{}", crate::cpu::Stop::Fault(fault)), false),
    }
}
