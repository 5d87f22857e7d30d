//! kmodld for C. `include/kmodld.h` is made of this file by cbindgen, and says what callers must know.
//!
//! It has `unsafe` code, as no other crate but kmodld has in one file: a C caller hands over addresses, and nothing but its word says that they are good. What
//! each address must be is the contract in the header. All of it is read in three places, `text`, `bytes` and `object`, and written in
//! `give`; objects are boxes that `boxed` makes and the functions ending in `_free` take back. Panics do not cross
//! into C: the library does not panic, and an `extern "C"` function that did would abort.
#![allow(unsafe_code, reason = "C hands over addresses; see above")]

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::fs::File;
use std::path::Path;
use std::ptr;

use kmodld::elf_layout::Findings;
use kmodld::linked::{Cause, SymbolKind};
use kmodld::{Error, Failure, LinkedModule, Placement, Stage};

const EINVAL: c_int = -22;

/// What is no errno of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Outcome {
    /// It is done.
    KmodldOk = 0,
    /// It hangs on facts of the kernel that are not known.
    KmodldUndecided = 1,
    /// The kernel takes the module, but addresses of symbols are not known.
    KmodldIncomplete = 2,
    /// The kernel crashes.
    KmodldOops = 3,
    /// A file cannot be used, or what was asked for does not fit together.
    KmodldError = 4,
    /// There is none of that name, or at that address.
    KmodldNone = 5,
}

/// A kernel with the modules loaded so far.
pub struct Kernel(kmodld::Kernel);

/// A module in memory.
pub struct Module {
    module: LinkedModule,
    name: CString,
}

/// Why something was not done.
pub struct Failed {
    message: CString,
    findings: Findings,
}

/// How a module is loaded. All zero: where the kernel would put it, with all steps and no parameters.
#[repr(C)]
pub struct Options {
    /// Address of its first region; 0: where the kernel would put it.
    pub base: u64,
    /// `A=1 B=2`; NULL: none.
    pub params: *const c_char,
    /// 0: up to the call of its init function; 1: relocated; 2: with the kernel's symbol table.
    pub stage: c_int,
    /// Not 0: also if rules were not judged for want of facts of the kernel.
    pub accept_undecided: c_int,
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

/// What the kernel says of a module.
#[repr(C)]
pub struct Finding {
    /// The rule of the specification, as `kmodld explain` takes it.
    pub code: *const c_char,
    /// error, oops, warning or note.
    pub severity: *const c_char,
    /// What the system call returns because of it, 0 if nothing.
    pub number: c_int,
    /// What is wrong.
    pub explanation: *const c_char,
    /// Not 0: the kernel stops here.
    pub stops_here: c_int,
}

/// Text for C; what comes from a file has no NUL.
fn c_text(text: impl Into<Vec<u8>>) -> CString {
    let mut text = text.into();
    text.retain(|byte| *byte != 0);
    CString::new(text).unwrap_or_default()
}

/// A text that C hands over.
///
/// # Safety
///
/// `text` is NULL or ends with NUL, and lives until the caller of this function returns.
unsafe fn text<'c>(text: *const c_char) -> Result<Option<&'c str>, c_int> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the rest is what this function asks for.
    unsafe { CStr::from_ptr(text) }.to_str().map(Some).map_err(|_| EINVAL)
}

/// Bytes that C hands over.
///
/// # Safety
///
/// `bytes` is NULL or the address of `len` bytes, which live until the caller of this function returns.
unsafe fn bytes<'c>(bytes: *const u8, len: usize) -> Result<&'c [u8], c_int> {
    match (bytes.is_null(), len) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(EINVAL),
        // SAFETY: not NULL, and the rest is what this function asks for.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(bytes, len) }),
    }
}

/// An object that C got from here.
///
/// # Safety
///
/// `object` is NULL or what [`give`] gave and nobody has freed; nobody changes it until the caller of this function returns.
unsafe fn object<'c, T>(object: *const T) -> Result<&'c T, c_int> {
    // SAFETY: what this function asks for.
    unsafe { object.as_ref() }.ok_or(EINVAL)
}

/// Puts an object, or a number, where C asks for it.
///
/// # Safety
///
/// `to` is NULL or the address of a variable of that type.
unsafe fn give<T>(to: *mut T, value: T) -> Result<(), c_int> {
    if to.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: not NULL, and the rest is what this function asks for. What was there is no value of Rust's, so it is not dropped.
    unsafe { to.write(value) };
    Ok(())
}

/// An object for C.
fn boxed<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes an object back.
///
/// # Safety
///
/// `object` is NULL or what [`boxed`] made and nobody has freed.
unsafe fn free<T>(object: *mut T) {
    if !object.is_null() {
        // SAFETY: what this function asks for.
        drop(unsafe { Box::from_raw(object) });
    }
}

/// The number of a result.
fn number(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(Outcome::KmodldOk as c_int)
}

/// The number of a failure, which goes to `error` if that is not NULL.
///
/// # Safety
///
/// `error` is NULL or the address of a pointer.
unsafe fn failed(failure: Failure, error: *mut *mut Failed) -> c_int {
    let number = match &failure {
        Failure::Refused { errno: Some(errno), .. } => c_int::from(errno.number()).wrapping_neg(),
        Failure::Refused { errno: None, .. } => Outcome::KmodldOops as c_int,
        Failure::Undecided { .. } => Outcome::KmodldUndecided as c_int,
        Failure::Incomplete { .. } => Outcome::KmodldIncomplete as c_int,
        _ => Outcome::KmodldError as c_int,
    };
    if !error.is_null() {
        let findings = failure.findings().cloned().unwrap_or_default();
        let made = boxed(Failed { message: c_text(failure.to_string()), findings });
        // SAFETY: what this function asks for.
        let _ = unsafe { give(error, made) };
    }
    number
}

/// Reads what describes a kernel: an image (vmlinuz, vmlinux, Image), a SPEC or a tree. `cmdline` is its command line, NULL if
/// none is known.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_kernel_open(
    image: *const c_char,
    cmdline: *const c_char,
    kernel: *mut *mut Kernel,
    error: *mut *mut Failed,
) -> c_int {
    let open = |image: &str, cmdline: &str| -> Result<kmodld::Kernel, Failure> {
        kmodld::Kernel::builder().image(image)?.cmdline(cmdline).build()
    };
    // SAFETY: the contract of the header.
    let (image, cmdline) = match unsafe { (text(image), text(cmdline)) } {
        (Ok(Some(image)), Ok(cmdline)) if !kernel.is_null() => (image, cmdline.unwrap_or_default()),
        _ => return EINVAL,
    };
    match open(image, cmdline) {
        // SAFETY: the contract of the header.
        Ok(opened) => number(unsafe { give(kernel, boxed(Kernel(opened))) }),
        // SAFETY: the contract of the header.
        Err(failure) => unsafe { failed(failure, error) },
    }
}

/// Frees a kernel. Modules that were loaded into it live on.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_kernel_free(kernel: *mut Kernel) {
    // SAFETY: the contract of the header.
    unsafe { free(kernel) }
}

/// Loads a module and keeps it in the kernel; its init function returns 0.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_kernel_insmod(
    kernel: *mut Kernel,
    file: *const u8,
    size: usize,
    params: *const c_char,
    error: *mut *mut Failed,
) -> c_int {
    // SAFETY: the contract of the header; the caller is alone with this kernel.
    let (kernel, file, params) = match unsafe { (kernel.as_mut(), bytes(file, size), text(params)) } {
        (Some(kernel), Ok(file), Ok(params)) => (kernel, file, params.unwrap_or_default()),
        _ => return EINVAL,
    };
    match kernel.0.insmod(file, params) {
        Ok(_) => 0,
        // SAFETY: the contract of the header.
        Err(failure) => unsafe { failed(failure, error) },
    }
}

/// Removes a module from the kernel.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_kernel_rmmod(
    kernel: *mut Kernel,
    name: *const c_char,
    error: *mut *mut Failed,
) -> c_int {
    // SAFETY: the contract of the header; the caller is alone with this kernel.
    let (kernel, name) = match unsafe { (kernel.as_mut(), text(name)) } {
        (Some(kernel), Ok(Some(name))) => (kernel, name),
        _ => return EINVAL,
    };
    match kernel.0.rmmod(name) {
        Ok(_) => 0,
        // SAFETY: the contract of the header.
        Err(failure) => unsafe { failed(failure, error) },
    }
}

/// Loads a module without adding it to the kernel; `file` may be compressed. `options` may be NULL.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_kernel_load(
    kernel: *const Kernel,
    file: *const u8,
    size: usize,
    options: *const Options,
    module: *mut *mut Module,
    error: *mut *mut Failed,
) -> c_int {
    // SAFETY: the contract of the header.
    let (kernel, file) = match unsafe { (object(kernel), bytes(file, size)) } {
        (Ok(kernel), Ok(file)) if !module.is_null() => (kernel, file),
        _ => return EINVAL,
    };
    let mut loading = kernel.0.load(file);
    // SAFETY: the contract of the header.
    if let Some(options) = unsafe { options.as_ref() } {
        // SAFETY: the contract of the header.
        let params = match unsafe { text(options.params) } {
            Ok(params) => params.unwrap_or_default(),
            Err(number) => return number,
        };
        let stage = match options.stage {
            0 => Stage::Final,
            1 => Stage::Relocated,
            2 => Stage::Kallsyms,
            _ => return EINVAL,
        };
        loading = loading.params(params).stage(stage);
        if options.base != 0 {
            loading = loading.at(Placement::Base(options.base));
        }
        if options.accept_undecided != 0 {
            loading = loading.accept_undecided();
        }
    }
    match loading.choices().run() {
        Ok(loaded) => {
            let name = c_text(loaded.name().into_owned());
            // SAFETY: the contract of the header.
            number(unsafe { give(module, boxed(Module { module: loaded, name })) })
        }
        // SAFETY: the contract of the header.
        Err(failure) => unsafe { failed(failure, error) },
    }
}

/// Frees a module.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_free(module: *mut Module) {
    // SAFETY: the contract of the header.
    unsafe { free(module) }
}

/// Its name, NULL of NULL.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_name(module: *const Module) -> *const c_char {
    // SAFETY: the contract of the header.
    unsafe { object(module) }.map_or(ptr::null(), |module| module.name.as_ptr())
}

/// Address of its init function; 0 if it has none.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_module_init(module: *const Module) -> u64 {
    // SAFETY: the contract of the header.
    unsafe { object(module) }.ok().and_then(|module| module.module.init()).unwrap_or(0)
}

/// Copies `size` bytes at an address of the module; KMODLD_NONE if not all of them are in one region.
///
/// # Safety
///
/// The pointers are as the header says; `to` has room for `size` bytes.
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
/// The pointers are as the header says.
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

/// Calls a function for each thing until it returns something other than 0.
fn each<T>(mut all: impl Iterator<Item = T>, mut call: impl FnMut(T) -> c_int) -> c_int {
    all.find_map(|thing| Some(call(thing)).filter(|number| *number != 0)).unwrap_or(0)
}

/// All regions, in the order of allocation.
///
/// # Safety
///
/// The pointers are as the header says.
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
/// The pointers are as the header says.
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
/// The pointers are as the header says.
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
/// The pointers are as the header says.
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
/// The pointers are as the header says.
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

/// What went wrong, in words; NULL of NULL.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_error_message(error: *const Failed) -> *const c_char {
    // SAFETY: the contract of the header.
    unsafe { object(error) }.map_or(ptr::null(), |error| error.message.as_ptr())
}

/// All that the kernel says of the module.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_error_each_finding(
    error: *const Failed,
    callback: Option<unsafe extern "C" fn(finding: *const Finding, context: *mut c_void) -> c_int>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the contract of the header.
    let (error, callback) = match (unsafe { object(error) }, callback) {
        (Ok(error), Some(callback)) => (error, callback),
        _ => return EINVAL,
    };
    each(error.findings.iter(), |finding| {
        let (code, severity) = (c_text(finding.code), c_text(finding.severity.word()));
        let explanation = c_text(finding.explanation.clone().into_owned());
        let given = Finding {
            code: code.as_ptr(),
            severity: severity.as_ptr(),
            number: finding.errno.map_or(0, |errno| errno.number().into()),
            explanation: explanation.as_ptr(),
            stops_here: finding.stops_here.into(),
        };
        // SAFETY: it is the caller's own function, with the context that it asked for.
        unsafe { callback(&given, context) }
    })
}

/// Frees what tells of a failure.
///
/// # Safety
///
/// The pointers are as the header says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_error_free(error: *mut Failed) {
    // SAFETY: the contract of the header.
    unsafe { free(error) }
}
