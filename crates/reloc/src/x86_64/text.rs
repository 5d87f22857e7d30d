//! How patching steps read and write code.

use alloc::vec::Vec;

use elf_layout::{Change, Changes};

use super::cpu::{self, Feature};
use super::insn::{self, Insn};
use crate::finalizer::Finalizer;
use crate::record::Step;

/// Bytes of an entry in a list of sites, a self-relative s32.
pub const ENTRY: u64 = 4;
/// JMP rel32
pub const JMP32: u8 = 0xe9;
/// CALL rel32
pub const CALL: u8 = 0xe8;
/// RET
pub const RET: u8 = 0xc3;
/// INT3
pub const INT3: u8 = 0xcc;

/// ENDBR64
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
/// ENDBR32
const ENDBR32: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfb];

/// `gen_endbr_poison`: a nop of four bytes that nothing else is made of.
pub const fn poison(changes: Changes) -> [u8; 4] {
    // Since v6.18 (85a2d4a890dc) NOPL (-42(%rax)).
    if changes.has(Change::EndbrPoisonNopl) { [0x0f, 0x1f, 0x40, 0xd6] } else { [0x66, 0x0f, 0x1f, 0x00] }
}

/// `is_endbr`: one of both landing pads, or a sealed one.
pub fn is_endbr(bytes: [u8; 4], poison: [u8; 4]) -> bool {
    [ENDBR64, ENDBR32, poison].contains(&bytes)
}

impl Finalizer<'_, '_> {
    /// The instruction at an address of the module.
    pub(super) fn insn(&self, address: u64) -> Option<Insn> {
        let place = self.place_of(address)?;
        let left = self.layout.allocated(place.region).saturating_sub(place.offset);
        insn::decode(self.memory.at(place, left.min(insn::MAX as u64))?)
    }

    /// The first `N` bytes at an address of the module.
    pub(super) fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.read(address, N as u64)?.try_into().ok()
    }

    /// `cpu_feature_enabled`; what is not known is noted.
    pub(super) fn cpu_feature(&mut self, feature: Feature) -> Option<bool> {
        let known = cpu::enabled(self.kernel, self.changes(), feature);
        if known.is_none() {
            self.record.not_known(feature.name());
        }
        known
    }

    /// The kernel's symbol of that name; what is not known is noted.
    pub(super) fn kernel_symbol(&mut self, name: &str) -> Option<u64> {
        let known = self.kernel.symbol(name);
        if known.is_none() {
            self.record.not_known(name);
        }
        known
    }

    /// [`Finalizer::choice`] for a site of `len` bytes; `others` are made only if they are kept, and those of
    /// another length are none.
    pub(super) fn may_be(
        &mut self,
        address: u64,
        len: usize,
        step: Step,
        detail: u64,
        others: impl FnOnce(&Self) -> Vec<Vec<u8>>,
    ) {
        if !self.choices {
            return;
        }
        let mut may = others(self);
        may.retain(|bytes| bytes.len() == len);
        if !may.is_empty() {
            self.choice(address, may, step, detail);
        }
    }
}
