//! Why something was not done.

use std::ffi::{c_char, c_int, c_void, CString};
use std::ptr;

use kmodld::elf_layout::Findings;
use kmodld::Failure;

use crate::crossing::{boxed, c_text, each, free, give, object, EINVAL};
use crate::Outcome;

/// Why something was not done.
pub struct Failed {
    message: CString,
    findings: Findings,
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

/// The number of a failure, which goes to `error` if that is not NULL.
///
/// # Safety
///
/// `error` is NULL or the address of a pointer.
pub(crate) unsafe fn failed(failure: Failure, error: *mut *mut Failed) -> c_int {
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

/// What went wrong, in words; NULL of NULL.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_error_message(error: *const Failed) -> *const c_char {
    // SAFETY: the contract of the header.
    unsafe { object(error) }.map_or(ptr::null(), |error| error.message.as_ptr())
}

/// All that the kernel says of the module.
///
/// # Safety
///
/// The pointers are as the top of `kmodld.h` says.
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
/// The pointers are as the top of `kmodld.h` says.
#[no_mangle]
pub unsafe extern "C" fn kmodld_error_free(error: *mut Failed) {
    // SAFETY: the contract of the header.
    unsafe { free(error) }
}
