//! A module in memory.

use std::ffi::{c_char, c_int, c_void, CString};
use std::fs::File;
use std::path::Path;
use std::ptr;

use kmodld::linked::{Cause, SymbolKind};
use kmodld::{Error, Failure, LinkedModule};

use crate::crossing::{bytes, c_text, each, free, give, number, object, text, EINVAL};
use crate::error::{failed, Failed};
use crate::Outcome;

/// A module in memory.
pub struct Module {
    pub(crate) module: LinkedModule,
    pub(crate) name: CString,
}

/// A region of a module's memory.
#[repr(C)]
pub struct Region {
    /// `text`, `data`...
    pub name: *const c_char,
    /// Address of its first byte.
    pub base: u64,
    /// Its bytes.
    pub bytes: *const u8,
    /// How many.
    pub size: usize,
    /// Not 0: it may be written to while init runs.
    pub writable: c_int,
    /// Not 0: it may be executed.
    pub executable: c_int,
}

/// A symbol of a module.
#[repr(C)]
pub struct Symbol {
    /// Its name.
    pub name: *const c_char,
    /// Its address, 0 if that is not known.
    pub address: u64,
    /// Bytes, 0 if not told.
    pub size: u64,
    /// Its type as in ELF: STT_FUNC is 2.
    pub kind: u8,
    /// Not 0: other files see it.
    pub global: c_int,
    /// Not 0: it is taken from elsewhere.
    pub undefined: c_int,
}

/// What a module takes from the kernel or from another module.
#[repr(C)]
pub struct Import {
    /// Its name.
    pub name: *const c_char,
    /// Its address.
    pub address: u64,
    /// `vmlinux`, or a module.
    pub owner: *const c_char,
}

/// Bytes that differ from what should be there.
#[repr(C)]
pub struct Difference {
    /// Address of the first one.
    pub address: u64,
    /// What should be there.
    pub expected: *const u8,
    /// What is there.
    pub found: *const u8,
    /// How many.
    pub size: usize,
    /// Not 0: a sound kernel does that.
    pub sound: c_int,
    /// Why, in words.
    pub cause: *const c_char,
}

/// Frees a module.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_free(module: *mut Module) {
    // SAFETY: the contract of the header.
    unsafe { free(module) }
}

/// Its name, NULL of NULL.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_name(module: *const Module) -> *const c_char {
    // SAFETY: the contract of the header.
    unsafe { object(module) }.map_or(ptr::null(), |module| module.name.as_ptr())
}

/// Address of its init function; 0 if it has none.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_init(module: *const Module) -> u64 {
    // SAFETY: the contract of the header.
    unsafe { object(module) }.ok().and_then(|module| module.module.init()).unwrap_or(0)
}

/// Copies `size` bytes at an address of the module; KMODLD_NONE if not all of them are in one region.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says; `to` has room for `size` bytes.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_read(
    module: *const Module,
    address: u64,
    to: *mut u8,
    size: usize,
) -> c_int {
    // SAFETY: the contract of the header.
    let module = match unsafe { object(module) } {
        Ok(module) if !to.is_null() => module,
        _ => return EINVAL,
    };
    let Some(bytes) = module.module.read(address, size as u64) else { return Outcome::KmodldNone as c_int };
    // SAFETY: the contract of the header; memory of the module is not that of the caller.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    0
}

/// Address of a symbol by its name; KMODLD_NONE if there is none.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_symbol(
    module: *const Module,
    name: *const c_char,
    address: *mut u64,
) -> c_int {
    // SAFETY: the contract of the header.
    let (module, name) = match unsafe { (object(module), text(name)) } {
        (Ok(module), Ok(Some(name))) => (module, name),
        _ => return EINVAL,
    };
    match module.module.symbol(name).and_then(|symbol| symbol.address) {
        // SAFETY: the contract of the header.
        Some(at) => number(unsafe { give(address, at) }),
        None => Outcome::KmodldNone as c_int,
    }
}

/// All regions, in the order of allocation.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_each_region(
    module: *const Module,
    callback: Option<unsafe extern "C" fn(region: *const Region, context: *mut c_void) -> c_int>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the contract of the header.
    let (module, callback) = match (unsafe { object(module) }, callback) {
        (Ok(module), Some(callback)) => (module, callback),
        _ => return EINVAL,
    };
    each(module.module.regions(), |region| {
        let name = c_text(region.region.name());
        let given = Region {
            name: name.as_ptr(),
            base: region.base,
            bytes: region.bytes.as_ptr(),
            size: region.bytes.len(),
            writable: region.permissions.write.into(),
            executable: region.permissions.execute.into(),
        };
        // SAFETY: it is the caller's own function, with the context that it asked for.
        unsafe { callback(&given, context) }
    })
}

/// All symbols in the order of the file, imported ones too.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_each_symbol(
    module: *const Module,
    callback: Option<unsafe extern "C" fn(symbol: *const Symbol, context: *mut c_void) -> c_int>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the contract of the header.
    let (module, callback) = match (unsafe { object(module) }, callback) {
        (Ok(module), Some(callback)) => (module, callback),
        _ => return EINVAL,
    };
    each(module.module.symbols(), |symbol| {
        let name = c_text(symbol.name.into_owned());
        let given = Symbol {
            name: name.as_ptr(),
            address: symbol.address.unwrap_or(0),
            size: symbol.size,
            kind: match symbol.kind {
                SymbolKind::Object => 1,
                SymbolKind::Function => 2,
                SymbolKind::Section => 3,
                SymbolKind::Other(kind) => kind,
                _ => 0,
            },
            global: symbol.is_global.into(),
            undefined: symbol.is_undefined.into(),
        };
        // SAFETY: it is the caller's own function, with the context that it asked for.
        unsafe { callback(&given, context) }
    })
}

/// All that it takes from the kernel and from other modules.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_each_import(
    module: *const Module,
    callback: Option<unsafe extern "C" fn(import: *const Import, context: *mut c_void) -> c_int>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the contract of the header.
    let (module, callback) = match (unsafe { object(module) }, callback) {
        (Ok(module), Some(callback)) => (module, callback),
        _ => return EINVAL,
    };
    each(module.module.imports(), |import| {
        let (name, owner) = (c_text(import.name.into_owned()), c_text(import.owner.into_owned()));
        let address = import.address.unwrap_or(0);
        let given = Import { name: name.as_ptr(), address, owner: owner.as_ptr() };
        // SAFETY: it is the caller's own function, with the context that it asked for.
        unsafe { callback(&given, context) }
    })
}

/// Compares `size` bytes of memory at an address of the module with what should be there: each differing range, with its
/// cause. KMODLD_NONE if not all of them are in one region.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_compare(
    module: *const Module,
    address: u64,
    found: *const u8,
    size: usize,
    callback: Option<unsafe extern "C" fn(difference: *const Difference, context: *mut c_void) -> c_int>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the contract of the header.
    let (module, found, callback) = match (unsafe { (object(module), bytes(found, size)) }, callback) {
        ((Ok(module), Ok(found)), Some(callback)) => (module, found, callback),
        _ => return EINVAL,
    };
    let Ok(differences) = module.module.compare_at(address, found) else {
        return Outcome::KmodldNone as c_int;
    };
    each(differences.into_iter(), |difference| {
        let cause = c_text(match &difference.cause {
            Cause::Runtime(what) => format!("run-time state: {what}"),
            Cause::Choice(step) => format!("another choice of: {}", step.name()),
            Cause::Patch { step, detail: Some(detail) } => {
                format!("not what was patched: {}: {detail}", step.name())
            }
            Cause::Patch { step, detail: None } => format!("not what was patched: {}", step.name()),
            Cause::Relocation(what) => format!("not what was relocated: {what}"),
            _ => String::from("nothing writes there"),
        });
        let given = Difference {
            address: difference.address,
            expected: difference.expected.as_ptr(),
            found: difference.found.as_ptr(),
            size: difference.found.len(),
            sound: difference.cause.is_sound().into(),
            cause: cause.as_ptr(),
        };
        // SAFETY: it is the caller's own function, with the context that it asked for.
        unsafe { callback(&given, context) }
    })
}

/// Writes one ELF file of the module, as debuggers and decompilers open it.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_write_elf(
    module: *const Module,
    path: *const c_char,
    error: *mut *mut Failed,
) -> c_int {
    // SAFETY: the contract of the header.
    let (module, path) = match unsafe { (object(module), text(path)) } {
        (Ok(module), Ok(Some(path))) => (module, Path::new(path)),
        _ => return EINVAL,
    };
    let written = File::create(path).and_then(|file| module.module.write_elf(file));
    match written {
        Ok(()) => 0,
        // SAFETY: the contract of the header.
        Err(why) => unsafe { failed(Failure::Error(Error::write(path, why)), error) },
    }
}
