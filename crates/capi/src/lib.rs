//! kmodld for C. `include/kmodld.h` is made of this crate by cbindgen, and says what callers must know.
//!
//! It has `unsafe` code, as no other crate but kmodld has in one file: a C caller hands over addresses, and nothing but its word says that they are good. What
//! each address must be is the contract in the header. All of it is read in three places, `text`, `bytes` and `object` of `crossing`, and
//! written in `give`; objects are boxes that `boxed` makes and the functions ending in `_free` take back. Panics do not cross
//! into C: the library does not panic, and an `extern "C"` function that did would abort.
#![allow(unsafe_code, reason = "C hands over addresses; see above")]

mod crossing;
// In the order of the header.
pub mod kernel;

pub mod module;

pub mod error;

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
