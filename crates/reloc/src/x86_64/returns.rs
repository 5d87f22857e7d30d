//! `apply_returns`: returns through a thunk become plain ones, or go to the thunk of the mitigation that is in
//! force (FIN-72).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::{Change, Finding, Severity};

use super::X86_64;
use super::cpu::Feature;
use super::insn::text_gen_insn;
use super::text::{ENTRY, INT3, JMP32, RET};
use crate::finalizer::Finalizer;
use crate::record::Step;

/// Thunks that mitigations put into `x86_return_thunk`.
const THUNKS: [&str; 6] = [
    "retbleed_return_thunk",
    "srso_return_thunk",
    "srso_alias_return_thunk",
    "call_depth_return_thunk",
    "its_return_thunk",
    "zen_untrain_ret",
];

/// RET and INT3 up to the length of a jump.
const PLAIN: [u8; 5] = [RET, INT3, INT3, INT3, INT3];

/// How this system returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// Without a thunk.
    Plain,
    /// Through `x86_return_thunk`.
    Thunk {
        /// What it points to.
        thunk: u64,
        /// It is the thunk that only addresses in the lower half of a cache line need.
        its: bool,
    },
}

impl Returns {
    /// What is in force; `None` if that is not known.
    pub fn of(module: &mut Finalizer<'_, '_>) -> Option<Returns> {
        if !module.cpu_feature(Feature::Rethunk)? {
            return Some(Returns::Plain);
        }
        let name = "x86_return_thunk";
        let thunk = module.kernel_symbol(name).and_then(|at| module.kernel.pointer(at));
        let Some(thunk) = thunk else {
            module.record.not_known(name);
            return None;
        };
        // Since v6.2 (770ae1b70952) every mitigation sets one of its own; the first value is that of an image.
        if module.has(Change::ReturnThunkPerMitigation)
            && module.kernel.symbol("__x86_return_thunk") == Some(thunk)
        {
            module.record.not_known(name);
            return None;
        }
        Some(Returns::Thunk { thunk, its: module.kernel.symbol("its_return_thunk") == Some(thunk) })
    }

    /// `cpu_wants_rethunk_at`: the thunk that a return at `address` goes to.
    pub fn thunk_at(self, address: u64) -> Option<u64> {
        match self {
            Returns::Thunk { thunk, its } if !its || address & 0x20 == 0 => Some(thunk),
            _ => None,
        }
    }

    /// A return at `address`, five bytes.
    pub fn bytes_at(self, address: u64) -> [u8; 5] {
        self.thunk_at(address).map_or(PLAIN, |thunk| text_gen_insn(JMP32, address, thunk))
    }
}

/// All forms that a return at `address` may have.
pub fn forms(module: &Finalizer<'_, '_>, address: u64) -> Vec<Vec<u8>> {
    let thunks = ["__x86_return_thunk"].into_iter().chain(THUNKS);
    let thunks = thunks.filter_map(|name| module.kernel.symbol(name));
    let jumps = thunks.map(|thunk| text_gen_insn(JMP32, address, thunk));
    core::iter::once(PLAIN).chain(jumps).map(|bytes| bytes.to_vec()).collect()
}

/// `apply_returns` for the module's list.
pub fn apply_returns(module: &mut Finalizer<'_, '_>) {
    let Some(table) = module.list_of_instructions(".return_sites") else { return };
    let Some(compiled) = module.kernel_symbol("__x86_return_thunk") else { return };
    let returns = Returns::of(module);
    let mut warned = false;
    for entry in table.records_begun(ENTRY) {
        let Some(address) = module.relative(entry) else { continue };
        if !module.touches(&X86_64, address, 1, "an entry of .return_sites") {
            return;
        }
        let Some(insn) = module.insn(address) else { continue };
        let target = (insn.opcode[0] == JMP32).then(|| insn.target(address));
        let returns_there = target == Some(compiled);
        // __static_call_fixup: UD1 behind it marks the trampoline of a static call, which may be patched already.
        let trampoline = module.read(address.wrapping_add(5), 3) == Some(&[0x0f, 0xb9, 0xcc]);
        if trampoline && insn.opcode[0] != RET && !returns_there {
            continue;
        }
        if !trampoline && !returns_there {
            if !core::mem::replace(&mut warned, true) {
                missing_return_thunk(module, address, target.unwrap_or(0));
            }
            continue;
        }
        let length = if trampoline { 5 } else { insn.length };
        module.may_be(address, length, Step::Return, 0, |module| forms(module, address));
        let Some(returns) = returns else { continue };
        // A jump with a prefix is longer; the rest is filled.
        let mut bytes = [INT3; super::insn::MAX];
        for (to, from) in bytes.iter_mut().zip(returns.bytes_at(address)) {
            *to = from;
        }
        let thunk = returns.thunk_at(address).unwrap_or(0);
        if let Some(bytes) = bytes.get(..length) {
            module.write(address, bytes, Step::Return, thunk);
        }
    }
}

/// The kernel's WARN_ONCE of a site that jumps elsewhere. The module is still unformed, so that `%pS` finds no
/// symbol in it and prints addresses.
fn missing_return_thunk(module: &mut Finalizer<'_, '_>, address: u64, target: u64) {
    let why = format!(
        "an entry of .return_sites, at {address:#x}, is no jump to __x86_return_thunk: the kernel warns once and leaves the code"
    );
    let mut finding = Finding::note("FIN-72", Severity::Warning, why);
    if (target == 0 || module.within_module(target))
        && let Some(bytes) = module.bytes::<5>(address)
    {
        let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        finding =
            finding.says(format!("missing return thunk: {address:#x}-{target:#x}: {}", bytes.join(" ")));
    }
    module.said.push(finding);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fin_72_forms() {
        let (at, thunk) = (0xffff_ffff_c020_1000, 0xffff_ffff_8200_0000);
        let jump = |at: u64| text_gen_insn(JMP32, at, thunk);
        assert_eq!(Returns::Plain.bytes_at(at), [0xc3, 0xcc, 0xcc, 0xcc, 0xcc]);
        assert_eq!(Returns::Thunk { thunk, its: false }.bytes_at(at + 0x20), jump(at + 0x20));
        let its = Returns::Thunk { thunk, its: true };
        assert_eq!(its.bytes_at(at + 0x1f), jump(at + 0x1f), "FIN-72: lower half of a cache line");
        assert_eq!(its.bytes_at(at + 0x20), PLAIN, "FIN-72: upper half");
        assert_eq!(its.bytes_at(at + 0x40), jump(at + 0x40));
    }
}
