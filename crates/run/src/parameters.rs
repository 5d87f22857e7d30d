//! Words of a kernel's command line, given to the code that the kernel has for them, after its boot.

use alloc::string::String;
use alloc::vec::Vec;

use crate::machine::{Failed, Machine, Platform};

/// What a machine is told of the system that it is to be, before it boots.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Words of its command line, of [`EARLY`].
    pub words: Vec<String>,
    /// The capabilities of its processor, as the kernel holds them. Modules are patched for these. The kernel itself has those of the
    /// machine's processor, so that it executes nothing that the interpreter does not know.
    pub capabilities: Option<Vec<u8>>,
}

/// The words that are given to the kernel's early code (`parse_early_param`): they decide which mitigations it chooses, and so how code is
/// patched.
pub const EARLY: [&str; 19] = [
    "cfi",
    "clearcpuid",
    "gather_data_sampling",
    "ibt",
    "indirect_target_selection",
    "l1tf",
    "mds",
    "mitigations",
    "mmio_stale_data",
    "nospectre_v1",
    "nospectre_v2",
    "reg_file_data_sampling",
    "retbleed",
    "spec_rstack_overflow",
    "spec_store_bypass_disable",
    "spectre_bhi",
    "spectre_v2",
    "spectre_v2_user",
    "tsx_async_abort",
];

/// The words that can be given: they decide on modules, and neither code nor memory of the boot depends on them.
pub const GIVEN: [&str; 4] = ["initcall_blacklist", "module.sig_enforce", "module_blacklist", "nomodule"];

/// Bytes of a name at most.
const NAME_MAX: usize = 64;

/// `parameq`: is that the name? A dash is as good as an underscore.
pub fn is_name(word: &str, name: &str) -> bool {
    word.bytes().map(|byte| if byte == b'-' { b'_' } else { byte }).eq(name.bytes())
}

/// Gives a word to its parameter (`parse_one`) or its function (`obsolete_checksetup`). What the kernel says of the value is in its log.
///
/// # Errors
///
/// [`Failed`], if the kernel knows no such word, or stops in the code for it.
pub fn give<C: Platform>(m: &mut Machine<C>, word: &str) -> Result<(), Failed> {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    let value = match value {
        Some(value) => m.string(value.trim_matches('"').as_bytes())?,
        None => 0,
    };
    if let Some(parameter) = parameter(m, name)? {
        let operations = m.memory.u64(parameter.wrapping_add(m.offset("kernel_param.ops")?))?;
        let set = m.memory.u64(operations.wrapping_add(m.offset("kernel_param_ops.set")?))?;
        m.call_at(set, &[value, parameter])?;
        return Ok(());
    }
    let Some(function) = setup(m, name)? else {
        return Err(Failed::Because(alloc::format!("the kernel has no parameter {name}")));
    };
    m.call_at(function, &[value])?;
    Ok(())
}

/// `struct kernel_param` of that name, in the kernel's own table.
fn parameter<C: Platform>(m: &Machine<C>, name: &str) -> Result<Option<u64>, Failed> {
    let (mut at, end) = (m.symbol("__start___param")?, m.symbol("__stop___param")?);
    let (offset, size) = (m.offset("kernel_param.name")?, m.offset("sizeof kernel_param")?.max(1));
    while at < end {
        if has_name(m, at.wrapping_add(offset), name, b"")? {
            return Ok(Some(at));
        }
        at = at.saturating_add(size);
    }
    Ok(None)
}

/// The function of `__setup("NAME=", function)`.
fn setup<C: Platform>(m: &Machine<C>, name: &str) -> Result<Option<u64>, Failed> {
    let (mut at, end) = (m.symbol("__setup_start")?, m.symbol("__setup_end")?);
    let (offset, size) = (m.offset("obs_kernel_param.str")?, m.offset("sizeof obs_kernel_param")?.max(1));
    while at < end {
        if has_name(m, at.wrapping_add(offset), name, b"=")? {
            return Ok(Some(m.memory.u64(at.wrapping_add(m.offset("obs_kernel_param.setup_func")?))?));
        }
        at = at.saturating_add(size);
    }
    Ok(None)
}

/// Does a pointer lead to this name, with that behind it?
fn has_name<C: Platform>(m: &Machine<C>, pointer: u64, name: &str, behind: &[u8]) -> Result<bool, Failed> {
    let text = m.memory.cstr(m.memory.u64(pointer)?, NAME_MAX)?;
    let known = text.strip_suffix(behind).and_then(|text| core::str::from_utf8(text).ok());
    Ok(known.is_some_and(|known| is_name(name, known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_are_underscores() {
        assert!(is_name("module.sig-enforce", "module.sig_enforce"));
        assert!(!is_name("module.sig_enforce", "module_sig_enforce"));
    }
}
