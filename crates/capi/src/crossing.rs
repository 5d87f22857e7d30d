//! What goes between C and Rust: texts, bytes, objects, numbers.

use std::ffi::{c_char, c_int, CStr, CString};

use crate::Outcome;

/// A NULL pointer where there must be something, or text that is not UTF-8.
pub(crate) const EINVAL: c_int = -22;

/// Text for C; what comes from a file has no NUL.
pub(crate) fn c_text(text: impl Into<Vec<u8>>) -> CString {
    let mut text = text.into();
    text.retain(|byte| *byte != 0);
    CString::new(text).unwrap_or_default()
}

/// A text that C hands over.
///
/// # Safety
///
/// `text` is NULL or ends with NUL, and lives until the caller of this function returns.
pub(crate) unsafe fn text<'c>(text: *const c_char) -> Result<Option<&'c str>, c_int> {
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
pub(crate) unsafe fn bytes<'c>(bytes: *const u8, len: usize) -> Result<&'c [u8], c_int> {
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
pub(crate) unsafe fn object<'c, T>(object: *const T) -> Result<&'c T, c_int> {
    // SAFETY: what this function asks for.
    unsafe { object.as_ref() }.ok_or(EINVAL)
}

/// Puts an object, or a number, where C asks for it.
///
/// # Safety
///
/// `to` is NULL or the address of a variable of that type.
pub(crate) unsafe fn give<T>(to: *mut T, value: T) -> Result<(), c_int> {
    if to.is_null() {
        return Err(EINVAL);
    }
    // SAFETY: not NULL, and the rest is what this function asks for. What was there is no value of Rust's, so it is not dropped.
    unsafe { to.write(value) };
    Ok(())
}

/// An object for C.
pub(crate) fn boxed<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes an object back.
///
/// # Safety
///
/// `object` is NULL or what [`boxed`] made and nobody has freed.
pub(crate) unsafe fn free<T>(object: *mut T) {
    if !object.is_null() {
        // SAFETY: what this function asks for.
        drop(unsafe { Box::from_raw(object) });
    }
}

/// The number of a result.
pub(crate) fn number(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(Outcome::KmodldOk as c_int)
}

/// Calls a function for each thing until it returns something other than 0.
pub(crate) fn each<T>(mut all: impl Iterator<Item = T>, mut call: impl FnMut(T) -> c_int) -> c_int {
    all.find_map(|thing| Some(call(thing)).filter(|number| *number != 0)).unwrap_or(0)
}
