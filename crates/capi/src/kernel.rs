//! Kernels, and modules loaded into them.

use std::ffi::{c_char, c_int};

use kmodld::{Failure, Placement, Stage};

use crate::crossing::{boxed, bytes, c_text, free, give, number, object, text, EINVAL};
use crate::error::{failed, Failed};
use crate::module::Module;

/// A kernel with the modules loaded so far.
pub struct Kernel(pub(crate) kmodld::Kernel);

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

/// Reads what describes a kernel: an image (vmlinuz, vmlinux, Image), a SPEC or a tree. `cmdline` is its command line, NULL if
/// none is known.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
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
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_kernel_free(kernel: *mut Kernel) {
    // SAFETY: the contract of the header.
    unsafe { free(kernel) }
}

/// Loads a module and keeps it in the kernel; its init function returns 0.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
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
/// The pointers are as the top of `kmodld.h` says.
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
/// The pointers are as the top of `kmodld.h` says.
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
