//! Instructions that do nothing (spec 06, 6.2: `x86_nops`), and how runs of them are made few (FIN-24).

use elf_layout::{Change, Changes};
use kernel::RunningKernel;

use super::insn::{Insn, decode};
use crate::finalizer::Finalizer;

/// ASM_NOP_MAX since v6.5.
const MAX: usize = 11;
/// ASM_NOP_MAX before.
const MAX_OLD: usize = 8;
const INT3: u8 = 0xcc;

/// The nop of one instruction with as many bytes as `nop` has, which are at most [`MAX`]; longer ones get the
/// longest there is.
const fn nop_of(len: usize) -> &'static [u8] {
    match len {
        0 => &[],
        1 => &[0x90],
        2 => &[0x66, 0x90],
        3 => &[0x0f, 0x1f, 0x00],
        4 => &[0x0f, 0x1f, 0x40, 0x00],
        5 => &[0x0f, 0x1f, 0x44, 0x00, 0x00],
        6 => &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
        7 => &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
        8 => &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        9 => &[0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        10 => &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        _ => &[0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    }
}

/// `x86_nops[5]`
pub const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// `x86_nops[2]`
pub const NOP2: [u8; 2] = [0x66, 0x90];

/// `k8_nops[len]`, of at most [`MAX_OLD`] bytes.
const fn k8_nop_of(len: usize) -> &'static [u8] {
    match len {
        0 => &[],
        1 => &[0x90],
        2 => &[0x66, 0x90],
        3 => &[0x66, 0x66, 0x90],
        4 => &[0x66, 0x66, 0x66, 0x90],
        5 => &[0x66, 0x66, 0x90, 0x66, 0x90],
        6 => &[0x66, 0x66, 0x90, 0x66, 0x66, 0x90],
        7 => &[0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x90],
        _ => &[0x66, 0x66, 0x66, 0x90, 0x66, 0x66, 0x66, 0x90],
    }
}

/// `k8_nops[NOP_ATOMIC5]`: one instruction.
const K8_NOP5_ATOMIC: [u8; 5] = [0x66, 0x66, 0x66, 0x66, 0x90];

/// X86_VENDOR_INTEL, X86_VENDOR_AMD, X86_VENDOR_HYGON
const INTEL: u8 = 0;
const AMD: u8 = 2;
const HYGON: u8 = 9;

/// What is missing where the boot CPU is not known.
pub const NOT_KNOWN: &str = "the boot CPU, by which kernels before 5.13 choose their nops (boot_cpu_data)";

/// Which nops a kernel takes, and how it makes runs of them few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nops {
    /// `ideal_nops` is `k8_nops`; else `p6_nops`, which are all there is since v5.13.
    k8: bool,
    /// Since v6.5 (6c480f222128) runs of nops of any length become one; before that runs of single bytes.
    any_length: bool,
}

impl Nops {
    /// Those of a kernel that takes the same on every CPU: since v5.13 (a89dfde3dc3c).
    pub const fn fixed(changes: Changes) -> Self {
        Nops { k8: false, any_length: changes.has(Change::NopsOfAnyLength) }
    }

    /// Those of the kernel that the module is loaded into; `None`, and noted, if that depends on a CPU that is not known.
    pub fn of(module: &mut Finalizer<'_, '_>) -> Option<Self> {
        let nops = Nops::known(module.kernel, module.changes());
        if nops.is_none() {
            module.record.not_known(NOT_KNOWN);
        }
        nops
    }

    /// The same without a note.
    pub fn known(kernel: &dyn RunningKernel, changes: Changes) -> Option<Self> {
        if changes.has(Change::SameNopsForAll) {
            return Some(Nops::fixed(changes));
        }
        Some(Nops { k8: boot_cpu_takes_k8(kernel)?, any_length: false })
    }

    /// `ideal_nops[NOP_ATOMIC5]`
    pub const fn five(self) -> [u8; 5] {
        if self.k8 { K8_NOP5_ATOMIC } else { NOP5 }
    }

    /// `add_nops` up to 6.4: as many nops as it takes, the longest first.
    pub fn add_nops(self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(MAX_OLD) {
            chunk.copy_from_slice(if self.k8 { k8_nop_of(chunk.len()) } else { nop_of(chunk.len()) });
        }
    }

    /// `optimize_nops`: `buf` is what is patched.
    pub fn optimize(self, buf: &mut [u8]) {
        if self.any_length { optimize_any(buf) } else { self.optimize_single_bytes(buf) }
    }

    fn optimize_single_bytes(self, buf: &mut [u8]) {
        let mut at = 0usize;
        while let Some(insn) = insn_at(buf, at) {
            let mut next = at.saturating_add(insn.length);
            if insn.length == 1 && insn.opcode[0] == 0x90 {
                let run = buf.get(at..).map_or(0, |b| b.iter().take_while(|b| **b == 0x90).count());
                next = at.saturating_add(run);
                if let Some(run) = buf.get_mut(at..next).filter(|run| run.len() > 1) {
                    self.add_nops(run);
                }
            }
            at = next;
        }
    }
}

/// `arch_init_ideal_nops`, before v5.13. A running kernel alone has filled `boot_cpu_data`: in an image the family is 0.
fn boot_cpu_takes_k8(kernel: &dyn RunningKernel) -> Option<bool> {
    let cpu = kernel.symbol("boot_cpu_data")?;
    let byte = |path| {
        let mut byte = [0];
        let at = cpu.wrapping_add(kernel.member("cpuinfo_x86", path)?.offset);
        kernel.read(at, &mut byte).then_some(byte[0])
    };
    let (family, vendor, model) = (byte("x86")?, byte("x86_vendor")?, byte("x86_model")?);
    if family == 0 {
        return None;
    }
    Some(match vendor {
        // Some of Intel's decoders are quicker with the older nops. NOPL is there on all 64-bit CPUs.
        INTEL => family == 6 && (0x0f..0x30).contains(&model) && !matches!(model, 0x1c | 0x26 | 0x27),
        HYGON => false,
        AMD => family <= 0xf,
        _ => true,
    })
}

/// `add_nop` since 6.5: one nop, or a jump over what one cannot fill.
fn add_nop(buf: &mut [u8]) {
    if buf.len() <= MAX {
        buf.copy_from_slice(nop_of(buf.len()));
        return;
    }
    let mut jump = [INT3; 5];
    let used = if buf.len() < 128 {
        jump = [0xeb, buf.len().saturating_sub(2) as u8, INT3, INT3, INT3];
        2
    } else {
        let distance = buf.len().saturating_sub(5) as u32;
        jump[0] = 0xe9;
        jump[1..].copy_from_slice(&distance.to_le_bytes());
        5
    };
    buf.fill(INT3);
    for (to, from) in buf.iter_mut().zip(jump).take(used) {
        *to = from;
    }
}

fn insn_at(buf: &[u8], at: usize) -> Option<Insn> {
    decode(buf.get(at..)?)
}

fn optimize_any(buf: &mut [u8]) {
    let mut at = 0usize;
    while let Some(insn) = insn_at(buf, at) {
        let mut next = at.saturating_add(insn.length);
        if insn.is_nop() {
            // One that ends the site is as good as it can be.
            if next == buf.len() {
                return;
            }
            while let Some(nop) = insn_at(buf, next).filter(Insn::is_nop) {
                next = next.saturating_add(nop.length);
            }
            if let Some(run) = buf.get_mut(at..next) {
                add_nop(run);
            }
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use elf_layout::KernelVersion;
    use kernel::Member;

    use crate::testing::TestKernel;

    const OLD: KernelVersion = KernelVersion::new(6, 1, 0);
    const NEW: KernelVersion = KernelVersion::new(6, 12, 0);

    fn optimized(bytes: &[u8], version: KernelVersion) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        Nops::fixed(Changes::of(version)).optimize(&mut bytes);
        bytes
    }

    #[test]
    fn fin_24_every_nop_is_one_instruction() {
        for len in 1..=MAX {
            let nop = nop_of(len);
            let insn = decode(nop).unwrap();
            assert!(nop.len() == len && insn.length == len && insn.is_nop(), "FIN-24: {len}");
        }
        assert_eq!(nop_of(5), NOP5);
        assert_eq!(nop_of(2), NOP2);
    }

    #[test]
    fn fin_24_old_runs_of_single_bytes() {
        let long: Vec<u8> = [nop_of(8), nop_of(8), nop_of(3)].concat();
        let cases: &[(&[u8], &[u8])] = &[
            (&[0x90], &[0x90]),
            (&[0xc3, 0x90, 0x90], &[0xc3, 0x66, 0x90]),
            (&[0x90; 19], &long),
            // Longer nops and a single one are left alone.
            (&[0x66, 0x90, 0x90, 0xc3], &[0x66, 0x90, 0x90, 0xc3]),
            // 90 inside of an instruction is none.
            (&[0xb0, 0x90, 0x90, 0x90], &[0xb0, 0x90, 0x66, 0x90]),
            (&[], &[]),
        ];
        for (from, to) in cases {
            assert_eq!(optimized(from, OLD), *to, "FIN-24: {from:02x?}");
        }
    }

    #[test]
    fn fin_24_new_one_nop_or_a_jump() {
        let mut short = [INT3; 12].to_vec();
        short[..2].copy_from_slice(&[0xeb, 10]);
        let mut long = [INT3; 130].to_vec();
        long[..5].copy_from_slice(&[0xe9, 125, 0, 0, 0]);
        let mut longest_short = [INT3; 127].to_vec();
        longest_short[..2].copy_from_slice(&[0xeb, 125]);
        let cases: &[(&[u8], &[u8])] = &[
            (&[0x90; 11], nop_of(11)),
            (&[0x90; 12], &short),
            (&[0x90; 127], &longest_short),
            (&[0x90; 130], &long),
            (&[0x66, 0x90, 0x90, 0xc3], &[0x0f, 0x1f, 0x00, 0xc3]),
            // A pause is no nop, and a nop that ends the site stays as it is.
            (&[0xf3, 0x90, 0x90, 0x90], &[0xf3, 0x90, 0x66, 0x90]),
            (&[0xc3, 0x3e, 0x3e, 0x90], &[0xc3, 0x3e, 0x3e, 0x90]),
        ];
        for (from, to) in cases {
            assert_eq!(optimized(from, NEW), *to, "FIN-24: {from:02x?}");
        }
    }

    #[test]
    fn fin_24_nops_of_older_cpus() {
        let k8 = Nops { k8: true, any_length: false };
        for len in 1..=MAX_OLD {
            let mut bytes = [0x90; MAX_OLD];
            k8.add_nops(&mut bytes[..len]);
            assert_eq!(bytes[..len], *k8_nop_of(len), "FIN-24: {len}");
            assert!(k8_nop_of(len).iter().all(|b| [0x66, 0x90].contains(b)), "FIN-24: {len}");
        }
        assert!(decode(&k8.five()).is_some_and(|insn| insn.length == 5), "FIN-24: one instruction");
    }

    #[test]
    fn fin_24_the_boot_cpu_decides_before_5_13() {
        let old = Changes::of(KernelVersion::new(5, 12, 0));
        let of = |vendor: u8, family: u8, model: u8| {
            let mut kernel =
                TestKernel { symbols: [("boot_cpu_data", 0x1000)].into(), ..TestKernel::default() };
            for (offset, path) in ["x86", "x86_vendor", "x86_model"].into_iter().enumerate() {
                let member = Member { offset: offset as u64, size: 1 };
                kernel.types.insert(alloc::format!("cpuinfo_x86.{path}"), member);
            }
            kernel.memory.push((0x1000, alloc::vec![family, vendor, model]));
            Nops::known(&kernel, old).map(|nops| nops.k8)
        };
        for (vendor, family, model, want) in [
            (INTEL, 6, 0x9e, Some(false)),
            (INTEL, 6, 0x0f, Some(true)),
            (INTEL, 6, 0x2f, Some(true)),
            (INTEL, 6, 0x30, Some(false)),
            (INTEL, 6, 0x1c, Some(false)),
            (INTEL, 15, 0x20, Some(false)),
            (AMD, 0x0f, 0x6b, Some(true)),
            (AMD, 0x17, 0x01, Some(false)),
            (HYGON, 0x18, 0, Some(false)),
            (5, 6, 0, Some(true)),
            // As an image has it.
            (0, 0, 0, None),
        ] {
            assert_eq!(of(vendor, family, model), want, "FIN-24: {vendor} {family:#x} {model:#x}");
        }
        assert_eq!(Nops::known(&TestKernel::default(), old), None, "FIN-24: nothing known of the CPU");
        let new = Changes::of(KernelVersion::new(5, 13, 0));
        assert_eq!(Nops::known(&TestKernel::default(), new), Some(Nops::fixed(new)), "FIN-24: since 5.13");
    }
}
