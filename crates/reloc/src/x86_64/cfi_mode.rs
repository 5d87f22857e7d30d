//! Which form CFI has on a system, and how its hashes are changed (FIN-90, FIN-91).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;

use elf_layout::{Change, Changes};
use kernel::RunningKernel;

use super::cpu::option_values;
use super::text::is_endbr;
use crate::finalizer::Finalizer;

/// X86_FEATURE_IBT
const IBT: u32 = 18 * 32 + 20;
/// X86_FEATURE_FRED
const FRED: u32 = 12 * 32 + 17;

/// `enum cfi_mode`, once it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CFI_OFF
    Off,
    /// CFI_KCFI
    Kcfi,
    /// CFI_FINEIBT
    FineIbt,
}

/// What the kernel makes of hashes (`cfi_rand`, `cfi_seed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// Nothing.
    None,
    /// They are hashed anew with this seed.
    Known(u32),
    /// They are hashed anew with a seed that is not known.
    Unknown,
}

/// What of CFI the steps behind this one ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cfi {
    /// Is the kernel built with CONFIG_FINEIBT?
    pub built: bool,
    /// The mode; `None` if it is not known.
    pub mode: Option<Mode>,
    /// Offset of the hash in a preamble of FineIBT.
    pub fineibt_hash: u64,
    /// Bytes that are not known by now, by address.
    pub unknown: BTreeMap<u64, u64>,
    /// Branches that are finished: `apply_retpolines` passes over them.
    pub finished: BTreeSet<u64>,
}

impl Cfi {
    /// Notes the bytes that are still not known: for when no step of CFI follows.
    pub fn tell(&self, module: &mut Finalizer<'_, '_>) {
        let what = match self.mode {
            Some(_) => "hash of CFI, with the seed of this boot",
            None => "code of CFI, in the form that the kernel chose at boot",
        };
        for (address, len) in &self.unknown {
            module.runtime(*address, *len, what);
        }
    }
}

/// A variable of the kernel that is static: link time optimisation renames it.
pub fn variable<const N: usize>(kernel: &dyn RunningKernel, name: &str) -> Option<[u8; N]> {
    let renamed = || match kernel.symbols_with(&format!("{name}.llvm.")).as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let mut bytes = [0; N];
    kernel.read(kernel.symbol(name).or_else(renamed)?, &mut bytes).then_some(bytes)
}

/// What decides on the form of the code. FIN-90.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// `cfi_mode`; `None` if it is not known.
    pub mode: Option<Mode>,
    /// What becomes of hashes.
    pub seed: Seed,
    /// `cfi_paranoid`: with FineIBT callers check the hash as well.
    pub paranoid: bool,
    /// What is missing, where the mode is not known.
    pub wants: &'static str,
}

impl Decided {
    /// As memory, command line and CPU of a kernel tell.
    pub fn of(kernel: &dyn RunningKernel, changes: Changes) -> Self {
        let cmdline = kernel.cmdline();
        // cfi_parse_cmdline: each word counts in its turn.
        let words = || option_values(cmdline, "cfi").flat_map(|value| value.split(','));
        let memory = variable(kernel, "cfi_mode").map(u32::from_le_bytes);
        let chosen = words().filter_map(number).last();
        // CFI_AUTO, which no kernel has that runs: an image says so. An empty command line counts as not known.
        let auto = chosen.map_or(memory == Some(0), |chosen| chosen == 0);
        let ibt = match option_values(cmdline, "ibt").any(|value| value == "off") {
            true => Some(false),
            false => kernel.capability(IBT),
        };
        let (mode, wants) = match chosen.or(memory) {
            _ if auto && cmdline.trim().is_empty() => (None, "cfi_mode"),
            _ if auto => (ibt.map(|ibt| if ibt { Mode::FineIbt } else { Mode::Kcfi }), "X86_FEATURE_IBT"),
            Some(1) => (Some(Mode::Off), ""),
            Some(2) => (Some(Mode::Kcfi), ""),
            Some(3) => (Some(Mode::FineIbt), ""),
            _ => (None, "cfi_mode"),
        };
        // Clang may keep `cfi_rand` as its opposite, so that memory does not tell it.
        let random = !words().any(|word| word == "off" || word == "norand");
        let seed = match variable(kernel, "cfi_seed").map(u32::from_le_bytes) {
            _ if !random => Seed::None,
            // Zero in every image, and where hashes stay: only a running kernel's memory tells it.
            None | Some(0) => Seed::Unknown,
            Some(seed) => Seed::Known(seed),
        };
        let mut decided = Decided { mode, seed, paranoid: false, wants };
        // Since v6.15 FineIBT has more forms.
        if changes.has(Change::FineIbtChecked) && mode == Some(Mode::FineIbt) {
            match more_forms(kernel, chosen.map_or(memory != Some(3), |chosen| chosen == 0)) {
                Ok(paranoid) => decided.paranoid = paranoid,
                Err(wants) => decided = Decided { mode: None, wants, ..decided },
            }
        }
        decided
    }
}

/// The mode that a word of `cfi=` asks for.
fn number(word: &str) -> Option<u32> {
    match word {
        "auto" => Some(0),
        "off" => Some(1),
        "kcfi" => Some(2),
        "fineibt" => Some(3),
        _ => None,
    }
}

/// `cfi_paranoid`, where FineIBT is in force; what is missing, if that is not known or FineIBT counts arguments (`cfi_bhi`), whose
/// form is not modelled. Both are zero in every image.
fn more_forms(kernel: &dyn RunningKernel, auto: bool) -> Result<bool, &'static str> {
    let set = |name| variable::<1>(kernel, name).is_some_and(|byte| byte != [0]);
    let cmdline = kernel.cmdline();
    // The words paranoid and bhi count behind fineibt alone.
    let mut mode = None;
    let (mut paranoid, mut bhi) = (set("cfi_paranoid"), set("cfi_bhi"));
    for word in option_values(cmdline, "cfi").flat_map(|value| value.split(',')) {
        mode = number(word).or(mode);
        paranoid |= mode == Some(3) && word == "paranoid";
        bhi |= mode == Some(3) && word == "bhi";
    }
    if bhi || kernel.symbol("cfi_bhi").is_some() && cmdline.trim().is_empty() {
        return Err("cfi_bhi");
    }
    if paranoid {
        return Ok(true);
    }
    if cmdline.trim().is_empty() {
        return Err("cfi_paranoid");
    }
    // Paranoid without being asked, unless the CPU has FRED.
    if mode.map_or(auto || mode.is_none(), |mode| mode == 0) {
        return kernel.capability(FRED).map(|fred| !fred).ok_or("X86_FEATURE_FRED");
    }
    Ok(false)
}

/// `cfi_rehash`: FIN-91.
pub fn rehash(hash: u32, seed: u32, poison: [u8; 4]) -> u32 {
    let is_pad = |word: u32| is_endbr(word.to_le_bytes(), poison);
    let mut hash = hash ^ seed;
    while is_pad(hash) || is_pad(hash.wrapping_neg()) {
        let low = hash & 1 != 0;
        hash >>= 1;
        if low {
            hash ^= 0x8020_0003;
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use elf_layout::KernelVersion;

    use super::*;
    use crate::testing::TestKernel;

    const POISON: [u8; 4] = [0x66, 0x0f, 0x1f, 0x00];

    #[test]
    fn fin_91_a_hash_is_never_a_landing_pad() {
        assert_eq!(rehash(0x1234_5678, 0, POISON), 0x1234_5678, "FIN-91");
        assert_eq!(rehash(0x1234_5678, 0xffff_0000, POISON), 0xedcb_5678, "FIN-91: XOR");
        let endbr = u32::from_le_bytes([0xf3, 0x0f, 0x1e, 0xfa]);
        // Its lowest bit is set: shifted, and XORed with the polynomial.
        assert_eq!(rehash(endbr, 0, POISON), (endbr >> 1) ^ 0x8020_0003, "FIN-91: ENDBR64");
        let negative = endbr.wrapping_neg();
        assert_eq!(rehash(negative, 0, POISON), (negative >> 1) ^ 0x8020_0003, "FIN-91: its negative");
        let sealed = u32::from_le_bytes(POISON);
        assert_eq!(rehash(sealed ^ 5, 5, POISON), sealed >> 1, "FIN-91: a sealed one, which is even");
        let endbr32 = endbr | 1 << 24;
        assert_ne!(rehash(endbr32, 0, POISON), endbr32, "FIN-91: ENDBR32");
    }

    #[test]
    fn fin_90_what_decides() {
        let (mode_at, seed_at) = (0xffff_ffff_8200_0000_u64, 0xffff_ffff_8200_0010);
        let of = |mode: Option<u32>, seed: u32, cmdline: &'static str, ibt: Option<bool>| {
            let mut kernel = TestKernel { cmdline, ..TestKernel::default() };
            kernel.symbols.extend([("cfi_mode", mode_at), ("cfi_seed", seed_at)]);
            kernel.memory.extend(mode.map(|mode| (mode_at, mode.to_le_bytes().to_vec())));
            kernel.memory.push((seed_at, seed.to_le_bytes().to_vec()));
            kernel.capabilities.extend(ibt.map(|ibt| (IBT, ibt)));
            let changes = Changes::of(KernelVersion::new(6, 12, 0));
            let Decided { mode, seed, wants, .. } = Decided::of(&kernel, changes);
            (mode, seed, wants)
        };
        let unknown = Seed::Unknown;
        for (mode, seed, cmdline, ibt, want) in [
            (Some(3), 7, "", None, (Some(Mode::FineIbt), Seed::Known(7), "")),
            (Some(2), 7, "", None, (Some(Mode::Kcfi), Seed::Known(7), "")),
            (Some(1), 0, "", None, (Some(Mode::Off), unknown, "")),
            (Some(1), 0, "cfi=off", None, (Some(Mode::Off), Seed::None, "")),
            // What an image has.
            (Some(0), 0, "", Some(true), (None, unknown, "cfi_mode")),
            (Some(0), 0, "quiet", None, (None, unknown, "X86_FEATURE_IBT")),
            (Some(0), 0, "quiet", Some(true), (Some(Mode::FineIbt), unknown, "")),
            (Some(0), 0, "quiet", Some(false), (Some(Mode::Kcfi), unknown, "")),
            (Some(0), 0, "quiet ibt=off", Some(true), (Some(Mode::Kcfi), unknown, "")),
            (Some(0), 0, "cfi=kcfi", Some(true), (Some(Mode::Kcfi), unknown, "")),
            (Some(0), 0, "cfi=fineibt,norand", None, (Some(Mode::FineIbt), Seed::None, "")),
            (Some(0), 0, "cfi=fineibt cfi=off", None, (Some(Mode::Off), Seed::None, "")),
            (Some(0), 0, "quiet -- cfi=off", Some(false), (Some(Mode::Kcfi), unknown, "")),
            (Some(2), 0, "cfi=auto", Some(true), (Some(Mode::FineIbt), unknown, "")),
            (None, 0, "quiet", Some(true), (None, unknown, "cfi_mode")),
        ] {
            let wants = if want.0.is_some() { "" } else { want.2 };
            let got = of(mode, seed, cmdline, ibt);
            assert_eq!((got.0, got.1), (want.0, want.1), "FIN-90: {mode:?} {cmdline:?} {ibt:?}");
            assert!(got.0.is_some() || got.2 == wants, "FIN-90: {mode:?} {cmdline:?} wants {}", got.2);
        }
    }

    #[test]
    fn fin_90_more_forms_since_6_15() {
        let of = |cmdline: &'static str, paranoid: u8, fred: Option<bool>, bhi: bool, release| {
            let mut kernel = TestKernel { cmdline, ..TestKernel::default() };
            kernel.symbols.extend([("cfi_mode", 0x1000), ("cfi_paranoid", 0x1004)]);
            kernel.symbols.extend(bhi.then_some(("cfi_bhi", 0x1005)));
            kernel.memory.push((0x1000, alloc::vec![3, 0, 0, 0, paranoid, 0]));
            kernel.capabilities.extend(fred.map(|fred| (FRED, fred)));
            kernel.capabilities.insert(IBT, true);
            let decided = Decided::of(&kernel, Changes::of(release));
            (decided.mode.map(|_| decided.paranoid), decided.wants)
        };
        let (new, old) = (KernelVersion::new(6, 15, 0), KernelVersion::new(6, 14, 0));
        assert_eq!(of("", 0, None, false, old), (Some(false), ""), "FIN-90: before 6.15");
        assert_eq!(of("", 1, None, false, new), (Some(true), ""), "FIN-90: memory tells");
        assert_eq!(of("", 0, None, false, new), (None, "cfi_paranoid"), "FIN-90: an image has zero");
        assert_eq!(of("", 1, None, true, new), (None, "cfi_bhi"), "FIN-90");
        for (cmdline, fred, want) in [
            ("cfi=fineibt", None, (Some(false), "")),
            ("cfi=fineibt,paranoid", None, (Some(true), "")),
            ("cfi=paranoid,fineibt", None, (Some(false), "")),
            ("quiet", Some(false), (Some(true), "X86_FEATURE_IBT")),
            ("quiet", Some(true), (Some(false), "X86_FEATURE_IBT")),
            ("quiet", None, (None, "X86_FEATURE_FRED")),
            ("cfi=auto", Some(false), (Some(true), "")),
            ("cfi=fineibt,bhi", None, (None, "cfi_bhi")),
        ] {
            let got = of(cmdline, 0, fred, true, new);
            assert_eq!(got.0, want.0, "FIN-90: {cmdline} {fred:?}");
            assert!(got.0.is_some() || got.1 == want.1, "FIN-90: {cmdline} wants {}", got.1);
        }
    }
}
