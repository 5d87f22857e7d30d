//! The character devices that are registered, read from the kernel's own tables.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::System;
use crate::machine::{Failed, Platform};

/// Members of `struct file_operations` that are functions.
pub const FILE_OPERATIONS: &[&str] = &[
    "llseek",
    "read",
    "write",
    "read_iter",
    "write_iter",
    "iopoll",
    "iterate_shared",
    "poll",
    "unlocked_ioctl",
    "compat_ioctl",
    "mmap",
    "mmap_prepare",
    "open",
    "flush",
    "release",
    "fsync",
    "fasync",
    "lock",
    "get_unmapped_area",
    "check_flags",
    "flock",
    "splice_write",
    "splice_read",
    "splice_eof",
    "setlease",
    "fallocate",
    "show_fdinfo",
    "copy_file_range",
    "remap_file_range",
    "fadvise",
    "uring_cmd",
    "uring_cmd_iopoll",
];

/// Entries of `chrdevs` and of `kobj_map.probes`.
const HASH: u64 = 255;
/// Character devices at most; so that a loop in memory ends.
const DEVICES_MAX: usize = 4096;

/// A range of character devices that are registered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its major number.
    pub major_number: u32,
    /// The first of its minor numbers.
    pub minor_number: u32,
    /// How many there are.
    pub count: u32,
    /// The name it is registered under.
    pub name: String,
    /// Its file operations, as far as a `cdev` serves the first of the numbers: member and function.
    pub operations: Vec<(&'static str, String)>,
}

impl<C: Platform> System<C> {
    pub(super) fn registered(&mut self) -> core::result::Result<Vec<Device>, Failed> {
        let mut devices = self.chrdevs()?;
        for device in &mut devices {
            // They may lie in a module that is gone.
            let operations = self.operations(device.major_number, device.minor_number);
            device.operations = operations.unwrap_or_default();
        }
        devices.sort_by_key(|device| (device.major_number, device.minor_number));
        Ok(devices)
    }

    /// The entries of `chrdevs`, without their operations.
    fn chrdevs(&self) -> core::result::Result<Vec<Device>, Failed> {
        let m = &self.machine;
        let table = m.symbol("chrdevs")?;
        let at = |base: u64, member: &str| Ok::<_, Failed>(base.wrapping_add(m.offset(member)?));
        let mut devices = Vec::new();
        for slot in 0..HASH {
            let mut entry = m.memory.u64(table.wrapping_add(slot.wrapping_mul(8)))?;
            while entry != 0 && devices.len() < DEVICES_MAX {
                let number = |member| Ok::<_, Failed>(m.memory.u32(at(entry, member)?)?);
                let name = m.memory.cstr(at(entry, "char_device_struct.name")?, 64)?;
                devices.push(Device {
                    major_number: number("char_device_struct.major")?,
                    minor_number: number("char_device_struct.baseminor")?,
                    count: number("char_device_struct.minorct")?,
                    name: String::from_utf8_lossy(&name).into_owned(),
                    operations: Vec::new(),
                });
                entry = m.memory.u64(at(entry, "char_device_struct.next")?)?;
            }
        }
        Ok(devices)
    }

    /// `kobj_lookup` in `cdev_map`: the functions that serve a device number.
    fn operations(
        &mut self,
        major: u32,
        minor: u32,
    ) -> core::result::Result<Vec<(&'static str, String)>, Failed> {
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

    fn functions(&mut self, operations: u64) -> core::result::Result<Vec<(&'static str, String)>, Failed> {
        let mut all = Vec::new();
        for member in FILE_OPERATIONS {
            let Ok(offset) = self.machine.offset(&format!("file_operations.{member}")) else { continue };
            let function = self.machine.memory.u64(operations.wrapping_add(offset))?;
            if function != 0 {
                all.push((*member, self.name("sprint_symbol_no_offset", function)));
            }
        }
        Ok(all)
    }
}
