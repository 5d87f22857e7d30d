//! The modules that are built in and that have a folder in /sys/module for their parameters or their version (LIFE-41):
//! the tables that `param_sysfs_init` and `version_sysfs_builtin` go through.

use alloc::vec::Vec;

use elf_layout::params::{KERNEL_PARAM_SIZE, field};

use crate::bytes::le16;
use crate::image::KernelImage;
use crate::memory::KERNEL_HALF;

/// A built-in module that one of the tables names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltIn<'d> {
    /// Its name.
    pub module: &'d [u8],
    /// Does this record give it a folder?
    pub folder: bool,
}

/// `sizeof(struct module_version_attribute)`, and where `module_name` is in it.
const VERSION_SIZE: u64 = 72;
const VERSION_MODULE: u64 = 56;
/// A parameter that every kernel has, without a module before it (kernel/panic.c).
const KNOWN: &[u8] = b"panic";
/// Fewer parameters than this are no kernel's; more are not looked at.
const LEAST: usize = 20;
const MOST: usize = 1 << 16;
/// No prefix of a parameter is longer (MAX_PARAM_PREFIX_LEN).
const PREFIX_MAX: usize = 56;

impl KernelImage<'_> {
    /// The built-in modules that its tables of parameters and versions name, by the records of both in their order (LIFE-41); `None` if it
    /// does not show these tables.
    pub fn built_in(&self) -> Option<Vec<BuiltIn<'_>>> {
        find(self)
    }
}

fn find<'i>(image: &'i KernelImage<'_>) -> Option<Vec<BuiltIn<'i>>> {
    let symbol = |name| image.kallsyms().ok()?.address(name);
    let table = |start, stop| symbol(start).zip(symbol(stop));
    let params = table("__start___param", "__stop___param").or_else(|| scan(image))?;
    let versions = table("__start___modver", "__stop___modver");
    let mut found = Vec::new();
    for at in records(params, KERNEL_PARAM_SIZE)? {
        found.push(of_parameter(image, at)?);
    }
    match versions {
        Some(table) => {
            for at in records(table, VERSION_SIZE)? {
                found.push(of_version(image, at)?);
            }
        }
        // The linker script has one table behind the other.
        None => {
            let behind = (0..).map_while(|n: u64| params.1.checked_add(n.checked_mul(VERSION_SIZE)?));
            found.extend(behind.map_while(|at| of_version(image, at)).take(MOST));
        }
    }
    Some(found)
}

/// The addresses of the records of a table.
fn records((start, stop): (u64, u64), size: u64) -> Option<impl Iterator<Item = u64>> {
    let len = stop.checked_sub(start).filter(|len| len.is_multiple_of(size))?;
    let count = usize::try_from(len.checked_div(size)?).ok().filter(|count| *count <= MOST)?;
    let at = move |n: usize| start.checked_add(size.checked_mul(n as u64)?);
    Some((0..count).filter_map(at))
}

/// The module of a `struct kernel_param`: what stands before the first dot of its name; without a dot it is of `kernel`
/// (`core_param`). One without a mode is no file.
fn of_parameter<'i>(image: &'i KernelImage<'_>, at: u64) -> Option<BuiltIn<'i>> {
    let name = image.read_cstr(image.read_u64(at.checked_add(field::NAME)?)?)?;
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let perm = le16(image.read(at.checked_add(field::PERM)?, 2)?, 0)?;
    let module = match name.iter().take(PREFIX_MAX).position(|b| *b == b'.') {
        Some(dot) => name.get(..dot)?,
        None => b"kernel",
    };
    Some(BuiltIn { module, folder: perm != 0 })
}

/// The module of a `struct module_version_attribute`.
fn of_version<'i>(image: &'i KernelImage<'_>, at: u64) -> Option<BuiltIn<'i>> {
    let text = |at: u64| image.read_cstr(image.read_u64(at)?);
    if text(at)? != b"version" {
        return None;
    }
    let module = text(at.checked_add(VERSION_MODULE)?)?;
    (!module.is_empty()).then_some(BuiltIn { module, folder: true })
}

/// Start and end of `__param` in an image without the labels of the linker: the records around that of a parameter which
/// every kernel has.
fn scan(image: &KernelImage<'_>) -> Option<(u64, u64)> {
    let is_record = |at: u64| {
        let word = |offset: u64| image.read_u64(at.checked_add(offset)?);
        let (mode, rest) = (field::PERM, field::FLAGS.wrapping_add(1));
        let padding = at.checked_add(rest).and_then(|at| image.read(at, 4));
        let perm = at.checked_add(mode).and_then(|at| le16(image.read(at, 2)?, 0));
        // What is built in has no struct module.
        word(MODULE) == Some(0)
            && word(field::OPS).is_some_and(|ops| ops >= KERNEL_HALF)
            && perm.is_some_and(|perm| perm <= 0o777)
            && padding == Some(&[0; 4])
            && of_parameter(image, at).is_some()
    };
    let tables = image.pointers_to(KNOWN).into_iter().filter(|at| is_record(*at)).map(|at| {
        let step = |n: usize| KERNEL_PARAM_SIZE.checked_mul(n as u64);
        let before =
            (1..MOST).take_while(|n| step(*n).and_then(|d| at.checked_sub(d)).is_some_and(is_record));
        let behind =
            (0..MOST).take_while(|n| step(*n).and_then(|d| at.checked_add(d)).is_some_and(is_record));
        let (before, behind) = (before.count(), behind.count());
        let ends =
            step(before).zip(step(behind)).and_then(|(b, a)| Some((at.checked_sub(b)?, at.checked_add(a)?)));
        (before.saturating_add(behind), ends)
    });
    tables.max().filter(|(count, _)| *count >= LEAST)?.1
}

/// `struct kernel_param`: where `mod` is.
const MODULE: u64 = 8;
