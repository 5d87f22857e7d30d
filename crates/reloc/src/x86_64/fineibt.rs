//! `apply_fineibt`: kCFI's hashes get the seed of this boot, and its preambles and callers become those of FineIBT (FIN-90 to
//! FIN-92). Only kernels that Clang built have it (CONFIG_FINEIBT).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::{Change, Finding, Severity, Table};
use kernel::RunningKernel;

use super::X86_64;
use super::cpu::option_values;
use super::ibt::{is_endbr, poison};
use super::text::ENTRY;
use crate::finalizer::Finalizer;
use crate::reach::{Reach, reach};
use crate::record::Step;

/// Bytes of a preamble, which lies right before its function.
pub const PREAMBLE: u64 = 16;
/// Bytes of a caller's sequence, which lies right before its branch: `fineibt_caller_size`.
const CALLER: u64 = 14;
/// What stands for the hash in the kernel's templates.
const PLACEHOLDER: [u8; 4] = 0x1234_5678_u32.to_le_bytes();
/// MOV imm32 to EAX, and to the seven registers after it.
const MOV_EAX: u8 = 0xb8;
/// MOV imm32 to R10D.
const MOV_R10D: [u8; 2] = [0x41, 0xba];
/// JMP over the rest of the caller's sequence.
const SKIP: [u8; 2] = [0xeb, CALLER as u8 - 2];
/// X86_FEATURE_IBT
const IBT: u32 = 18 * 32 + 20;

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
enum Seed {
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
    /// Bytes that are not known by now, by address.
    pub unknown: BTreeMap<u64, u64>,
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
fn variable<const N: usize>(kernel: &dyn RunningKernel, name: &str) -> Option<[u8; N]> {
    let renamed = || match kernel.symbols_with(&format!("{name}.llvm.")).as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let mut bytes = [0; N];
    kernel.read(kernel.symbol(name).or_else(renamed)?, &mut bytes).then_some(bytes)
}

/// What decides on the form of the code. FIN-90.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decided {
    mode: Option<Mode>,
    seed: Seed,
    /// What is missing, where the mode is not known.
    wants: &'static str,
}

impl Decided {
    fn of(kernel: &dyn RunningKernel) -> Self {
        let cmdline = kernel.cmdline();
        // cfi_parse_cmdline: each word counts, the last one of a kind wins.
        let words = || option_values(cmdline, "cfi").flat_map(|value| value.split(','));
        let chosen = words().filter_map(|word| match word {
            "auto" => Some(0),
            "off" => Some(1),
            "kcfi" => Some(2),
            "fineibt" => Some(3),
            _ => None,
        });
        let memory = variable(kernel, "cfi_mode").map(u32::from_le_bytes);
        let (mode, wants) = match chosen.last().or(memory) {
            Some(1) => (Some(Mode::Off), ""),
            Some(2) => (Some(Mode::Kcfi), ""),
            Some(3) => (Some(Mode::FineIbt), ""),
            // CFI_AUTO, which no kernel has that runs: an image says so. An empty command line counts as not known.
            Some(0) if cmdline.trim().is_empty() => (None, "cfi_mode"),
            Some(0) if words().any(|word| word == "auto") || memory == Some(0) => {
                let ibt = if option_values(cmdline, "ibt").any(|value| value == "off") {
                    Some(false)
                } else {
                    kernel.capability(IBT)
                };
                (ibt.map(|ibt| if ibt { Mode::FineIbt } else { Mode::Kcfi }), "X86_FEATURE_IBT")
            }
            _ => (None, "cfi_mode"),
        };
        let random = !words().any(|word| word == "off" || word == "norand")
            && variable::<1>(kernel, "cfi_rand") != Some([0]);
        let seed = match variable(kernel, "cfi_seed").map(u32::from_le_bytes) {
            _ if !random => Seed::None,
            // Zero in every image, so only a running kernel's memory tells it.
            None | Some(0) => Seed::Unknown,
            Some(seed) => Seed::Known(seed),
        };
        Decided { mode, seed, wants }
    }
}

/// `cfi_rehash`: FIN-91.
fn rehash(hash: u32, seed: u32, poison: [u8; 4]) -> u32 {
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

/// The kernel's own code for a preamble or a caller, with the offset of the hash in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    bytes: Vec<u8>,
    hash: usize,
}

impl Template {
    /// What lies between two symbols of the kernel, `size` bytes.
    fn of(kernel: &dyn RunningKernel, start: &str, end: &str, size: u64) -> Option<Self> {
        let (start, end) = kernel.symbol(start).zip(kernel.symbol(end))?;
        let mut bytes = alloc::vec![0; usize::try_from(size).ok()?];
        if end.checked_sub(start) != Some(size) || !kernel.read(start, &mut bytes) {
            return None;
        }
        let hash = bytes.windows(4).position(|window| window == PLACEHOLDER)?;
        Some(Template { bytes, hash })
    }

    fn with(&self, hash: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (to, from) in bytes.iter_mut().skip(self.hash).zip(hash.to_le_bytes()) {
            *to = from;
        }
        bytes
    }
}

/// Why the kernel gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// There is no memory at a site: it crashes.
    Crash,
    /// No hash at this address.
    NoHash(u64),
}

/// The step while it goes on. It writes to the module's memory, and remembers what stood there.
struct Patcher<'m, 'a, 'd> {
    module: &'m mut Finalizer<'a, 'd>,
    /// Address and bytes of all that was written to, as it was before.
    before: Vec<(u64, Vec<u8>)>,
    /// Where hashes are that the unknown seed has changed.
    unknown: BTreeMap<u64, u64>,
    seed: Seed,
    poison: [u8; 4],
}

impl Patcher<'_, '_, '_> {
    /// FIN-78: may the kernel write to `len` bytes there? `None` if it crashes, false if they are not the module's.
    fn writes(&mut self, address: u64, len: u64, what: &str) -> Result<bool, Trouble> {
        writes(self.module, address, len, what).ok_or(Trouble::Crash)
    }

    /// `text_poke_early`
    fn poke(&mut self, address: u64, bytes: &[u8]) {
        let Some(before) = self.module.read(address, bytes.len() as u64).map(<[u8]>::to_vec) else { return };
        let place = self.module.place_of(address);
        let target = place.and_then(|place| self.module.module.memory.at_mut(place, bytes.len() as u64));
        if let Some(target) = target {
            target.copy_from_slice(bytes);
            self.before.push((address, before));
        }
    }

    /// `decode_preamble_hash`
    fn preamble_hash(&self, address: u64) -> u32 {
        // Since v6.15 the register tells how many arguments the function has.
        let registers = if self.module.has(Change::FineIbtChecked) { 8 } else { 1 };
        match self.module.bytes::<5>(address) {
            Some([op, hash @ ..]) if op.wrapping_sub(MOV_EAX) < registers => u32::from_le_bytes(hash),
            _ => 0,
        }
    }

    /// `decode_caller_hash`
    fn caller_hash(&self, address: u64) -> u32 {
        match self.module.bytes::<6>(address) {
            Some([a, b, hash @ ..]) if [MOV_R10D, SKIP].contains(&[a, b]) => {
                u32::from_le_bytes(hash).wrapping_neg()
            }
            _ => 0,
        }
    }

    /// The hash that a site gets. Which one is not known without the seed: it stays, and is noted.
    fn hashed(&mut self, hash: u32, at: u64) -> u32 {
        match self.seed {
            Seed::None => hash,
            Seed::Known(seed) => rehash(hash, seed, self.poison),
            Seed::Unknown => {
                self.unknown.insert(at, 4);
                hash
            }
        }
    }

    /// Does something with the sequence before each branch that has a hash.
    fn callers(
        &mut self,
        sites: Option<&Table>,
        mut change: impl FnMut(&mut Self, u64, u32),
    ) -> Result<(), Trouble> {
        for address in self.sites(sites) {
            let address = address.wrapping_sub(CALLER);
            if !self.writes(address, 1, "an entry of .retpoline_sites")? {
                continue;
            }
            let hash = self.caller_hash(address);
            if hash != 0 {
                change(self, address, hash);
            }
        }
        Ok(())
    }

    /// Does something with each preamble, which must have a hash.
    fn preambles(
        &mut self,
        sites: Option<&Table>,
        skip: impl Fn(&Self, u64) -> bool,
        mut change: impl FnMut(&mut Self, u64, u32),
    ) -> Result<(), Trouble> {
        for address in self.sites(sites) {
            if !self.writes(address, 1, "an entry of .cfi_sites")? || skip(self, address) {
                continue;
            }
            match self.preamble_hash(address) {
                0 => return Err(Trouble::NoHash(address)),
                hash => change(self, address, hash),
            }
        }
        Ok(())
    }

    fn sites(&self, table: Option<&Table>) -> Vec<u64> {
        let entries = table.into_iter().flat_map(|table| table.records_begun(ENTRY));
        entries.filter_map(|entry| self.module.relative(entry)).collect()
    }

    /// `__apply_fineibt`: FIN-92.
    fn apply(
        &mut self,
        mode: Mode,
        branches: Option<&Table>,
        preambles: Option<&Table>,
        templates: Option<&(Template, Template)>,
    ) -> Result<(), Trouble> {
        self.callers(branches, |this, at, _| this.poke(at, &SKIP))?;
        if self.seed != Seed::None {
            self.preambles(
                preambles,
                |_, _| false,
                |this, at, hash| {
                    let hash = this.hashed(hash, at.wrapping_add(1));
                    this.poke(at.wrapping_add(1), &hash.to_le_bytes());
                },
            )?;
            self.callers(branches, |this, at, hash| {
                let hash = this.hashed(hash, at.wrapping_add(2)).wrapping_neg();
                this.poke(at.wrapping_add(2), &hash.to_le_bytes());
            })?;
        }
        match (mode, templates) {
            (Mode::Kcfi, _) => self.callers(branches, |this, at, _| this.poke(at, &MOV_R10D)),
            (Mode::FineIbt, Some((preamble, caller))) => {
                // Since v6.15 a function without a landing pad keeps its preamble, as nothing calls it indirectly.
                let checked = self.module.has(Change::FineIbtChecked);
                let skip = |this: &Self, at: u64| checked && !this.is_pad(at.wrapping_add(PREAMBLE));
                self.preambles(preambles, skip, |this, at, hash| this.fill(at, preamble, hash, 1))?;
                self.callers(branches, |this, at, hash| this.fill(at, caller, hash, 2))?;
                // Since v6.5 (04505bbbbb15).
                if self.module.has(Change::CfiSealed) {
                    for at in self.sites(preambles).into_iter().map(|at| at.wrapping_add(PREAMBLE)) {
                        if self.is_pad(at) {
                            let poison = self.poison;
                            self.poke(at, &poison);
                        }
                    }
                }
                Ok(())
            }
            (Mode::Off | Mode::FineIbt, _) => Ok(()),
        }
    }

    fn is_pad(&self, address: u64) -> bool {
        self.module.bytes(address).is_some_and(|bytes| is_endbr(bytes, self.poison))
    }

    /// Puts a template with a hash; where the hash was not known at `old`, it is not known in its new place.
    fn fill(&mut self, address: u64, template: &Template, hash: u32, old: u64) {
        self.poke(address, &template.with(hash));
        if self.unknown.remove(&address.wrapping_add(old)).is_some() {
            self.unknown.insert(address.wrapping_add(template.hash as u64), 4);
        }
    }

    /// Takes all back; gives address and bytes of what was written, each place once.
    fn undo(&mut self) -> BTreeMap<u64, Vec<u8>> {
        let mut after: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (address, before) in &self.before {
            let longest = after.get(address).map_or(0, Vec::len).max(before.len());
            if let Some(bytes) = self.module.read(*address, longest as u64) {
                after.insert(*address, bytes.to_vec());
            }
        }
        for (address, before) in core::mem::take(&mut self.before).into_iter().rev() {
            let place = self.module.place_of(address);
            let target = place.and_then(|place| self.module.module.memory.at_mut(place, before.len() as u64));
            if let Some(target) = target {
                target.copy_from_slice(&before);
            }
        }
        after
    }
}

/// FIN-78: the kernel writes to `len` bytes at an address. `None` if it crashes there, false if they are not the module's.
pub fn writes(module: &mut Finalizer<'_, '_>, address: u64, len: u64, what: &str) -> Option<bool> {
    if !module.touches(&X86_64, address, len, what) {
        return None;
    }
    if module.read(address, len).is_some() {
        return Some(true);
    }
    if reach(module, module.kernel, &X86_64, address) == Reach::Image {
        let why = format!(
            "{what} leads to {address:#x} in the kernel, which cannot be written: the kernel crashes"
        );
        module.said.refuse(Finding::note("FIN-78", Severity::Oops, why));
        return None;
    }
    Some(false)
}

/// Is the kernel built with CONFIG_FINEIBT? `None` if nothing tells.
fn built(module: &Finalizer<'_, '_>) -> Option<bool> {
    let kernel = module.kernel;
    let data = ["fineibt_preamble_start", "cfi_seed"].into_iter().any(|name| kernel.symbol(name).is_some());
    if data {
        return Some(true);
    }
    // Lists of preambles are made for such kernels alone. A kernel whose variables are known has one of the two.
    let (listed, data_known) =
        (module.last_section(".cfi_sites").is_some(), kernel.symbol("cfi_mode").is_some());
    if !listed || data_known || kernel.symbol("_text").is_none() { Some(false) } else { None }
}

/// `apply_fineibt` for the module's lists.
pub fn apply_fineibt(module: &mut Finalizer<'_, '_>) -> Cfi {
    match built(module) {
        Some(true) => {}
        Some(false) => return Cfi::default(),
        None => {
            module.record.not_known("cfi_mode");
            return Cfi { built: true, ..Cfi::default() };
        }
    }
    let kernel = module.kernel;
    let branches = module.list_of_sites(".retpoline_sites", false);
    let preambles = module.list_of_sites(".cfi_sites", false);
    let mut decided = Decided::of(kernel);
    let listed = branches.is_some() || preambles.is_some();
    let preamble = Template::of(kernel, "fineibt_preamble_start", "fineibt_preamble_end", PREAMBLE);
    let caller = Template::of(kernel, "fineibt_caller_start", "fineibt_caller_end", CALLER);
    let templates = preamble.zip(caller);
    if decided.mode == Some(Mode::FineIbt) && (templates.is_none() || has_other_forms(module)) {
        decided =
            Decided { mode: None, wants: "fineibt_preamble_start (FineIBT of v6.15 and later)", ..decided };
    }
    if listed && decided.mode.is_none() {
        module.record.not_known(decided.wants);
    }
    if listed && decided.seed == Seed::Unknown {
        module.record.not_known("cfi_seed");
    }
    let poison = poison(module.changes());
    let run = |module: &mut Finalizer<'_, '_>, mode: Mode| {
        let (before, unknown) = (Vec::new(), BTreeMap::new());
        let mut patcher = Patcher { module, before, unknown, seed: decided.seed, poison };
        let ended = patcher.apply(mode, branches.as_ref(), preambles.as_ref(), templates.as_ref());
        (ended, patcher.undo(), patcher.unknown)
    };
    let mut cfi = Cfi { built: true, mode: decided.mode, unknown: BTreeMap::new() };
    if let Some(mode) = decided.mode {
        let (ended, after, unknown) = run(module, mode);
        for (address, bytes) in after {
            module.write(address, &bytes, Step::Cfi, 0);
        }
        cfi.unknown = unknown;
        if let Err(Trouble::NoHash(address)) = ended {
            no_hash(module, address);
        }
        return cfi;
    }
    // All places that one of the modes would write to.
    for mode in [Mode::Kcfi, Mode::FineIbt] {
        let (ended, after, unknown) = run(module, mode);
        if ended == Err(Trouble::Crash) {
            return cfi;
        }
        let len = |bytes: &Vec<u8>| bytes.len() as u64;
        for (address, len) in after.iter().map(|(at, bytes)| (*at, len(bytes))).chain(unknown) {
            let longest = cfi.unknown.entry(address).or_default();
            *longest = len.max(*longest);
        }
        if decided.seed != Seed::Unknown {
            for (address, bytes) in after {
                let changed = module.read(address, len(&bytes)).is_some_and(|now| now != bytes);
                if changed {
                    module.may_be(address, bytes.len(), Step::Cfi, 0, |_| alloc::vec![bytes]);
                }
            }
        }
    }
    cfi
}

/// Since v6.15 callers may check the hash themselves (`cfi_paranoid`), and callees the number of arguments (`cfi_bhi`): forms
/// that are not modelled. Is one of them in force, or may it be?
fn has_other_forms(module: &Finalizer<'_, '_>) -> bool {
    let kernel = module.kernel;
    let off = |name| variable::<1>(kernel, name) == Some([0]);
    // Zero in every image: only what the command line chose is known without the kernel's memory.
    let chosen =
        option_values(kernel.cmdline(), "cfi").any(|value| value.split(',').any(|word| word == "fineibt"));
    let asked = option_values(kernel.cmdline(), "cfi")
        .any(|value| value.split(',').any(|word| matches!(word, "paranoid" | "bhi")));
    module.has(Change::FineIbtChecked) && !(chosen && !asked && off("cfi_paranoid") && off("cfi_bhi"))
}

/// FIN-92: the kernel's WARN of a preamble without a hash, with which it gives up. The module is still unformed, so that
/// `%pS` finds no symbol in it and prints an address.
fn no_hash(module: &mut Finalizer<'_, '_>, address: u64) {
    let why = format!(
        "an entry of .cfi_sites, at {address:#x}, is no preamble with a hash: the kernel warns and leaves the module without CFI"
    );
    let mut finding = Finding::note("FIN-92", Severity::Warning, why);
    if let Some(bytes) = module.bytes::<5>(address) {
        let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        finding =
            finding.says(format!("no CFI hash found at: {address:#x} {address:016x} {}", bytes.join(" ")));
    }
    let gives_up =
        "SMP alternatives: Something went horribly wrong trying to rewrite the CFI implementation.";
    module.said.push(finding.says(gives_up));
}

#[cfg(test)]
mod tests {
    use super::*;

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
        use crate::testing::TestKernel;
        let (mode_at, seed_at, rand_at) =
            (0xffff_ffff_8200_0000_u64, 0xffff_ffff_8200_0010, 0xffff_ffff_8200_0020);
        let of = |mode: Option<u32>, seed: u32, rand: u8, cmdline: &'static str, ibt: Option<bool>| {
            let mut kernel = TestKernel { cmdline, ..TestKernel::default() };
            kernel.symbols.extend([("cfi_mode", mode_at), ("cfi_seed", seed_at), ("cfi_rand", rand_at)]);
            kernel.memory.extend(mode.map(|mode| (mode_at, mode.to_le_bytes().to_vec())));
            kernel.memory.push((seed_at, seed.to_le_bytes().to_vec()));
            kernel.memory.push((rand_at, alloc::vec![rand]));
            kernel.capabilities.extend(ibt.map(|ibt| (IBT, ibt)));
            let Decided { mode, seed, wants } = Decided::of(&kernel);
            (mode, seed, wants)
        };
        let unknown = Seed::Unknown;
        for (mode, seed, rand, cmdline, ibt, want) in [
            (Some(3), 7, 1, "", None, (Some(Mode::FineIbt), Seed::Known(7), "")),
            (Some(2), 7, 1, "", None, (Some(Mode::Kcfi), Seed::Known(7), "")),
            (Some(1), 0, 0, "", None, (Some(Mode::Off), Seed::None, "")),
            // What an image has.
            (Some(0), 0, 1, "", Some(true), (None, unknown, "cfi_mode")),
            (Some(0), 0, 1, "quiet", None, (None, unknown, "X86_FEATURE_IBT")),
            (Some(0), 0, 1, "quiet", Some(true), (Some(Mode::FineIbt), unknown, "")),
            (Some(0), 0, 1, "quiet", Some(false), (Some(Mode::Kcfi), unknown, "")),
            (Some(0), 0, 1, "quiet ibt=off", Some(true), (Some(Mode::Kcfi), unknown, "")),
            (Some(0), 0, 1, "cfi=kcfi", Some(true), (Some(Mode::Kcfi), unknown, "")),
            (Some(0), 0, 1, "cfi=fineibt,norand", None, (Some(Mode::FineIbt), Seed::None, "")),
            (Some(0), 0, 1, "cfi=fineibt cfi=off", None, (Some(Mode::Off), Seed::None, "")),
            (Some(0), 0, 1, "quiet -- cfi=off", Some(false), (Some(Mode::Kcfi), unknown, "")),
            (Some(2), 0, 1, "cfi=auto", Some(true), (Some(Mode::FineIbt), unknown, "")),
            (None, 0, 1, "quiet", Some(true), (None, unknown, "cfi_mode")),
        ] {
            let wants = if want.0.is_some() { "" } else { want.2 };
            let got = of(mode, seed, rand, cmdline, ibt);
            assert_eq!((got.0, got.1), (want.0, want.1), "FIN-90: {mode:?} {cmdline:?} {ibt:?}");
            assert!(got.0.is_some() || got.2 == wants, "FIN-90: {mode:?} {cmdline:?} wants {}", got.2);
        }
    }
}
