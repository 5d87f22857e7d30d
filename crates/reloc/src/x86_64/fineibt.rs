//! `apply_fineibt`: kCFI's hashes get the seed of this boot, and its preambles and callers become those of FineIBT (FIN-90 to
//! FIN-92). Only kernels that Clang built have it (CONFIG_FINEIBT).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::{Change, Finding, Severity, Table};
use kernel::RunningKernel;

use super::X86_64;
use super::cfi_mode::{Cfi, Decided, Mode, Seed, rehash};
use super::cpu::Feature;
use super::insn::Insn;
use super::retpolines::emit_indirect;
use super::text::{CALL, ENTRY, JMP32, is_endbr, poison};
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
/// What ends kCFI's check since v6.18: JNE over UDB, which is the end of a TEST.
const UDB_CHECK: [u8; 4] = [0x75, 0x01, 0xa8, 0xd6];
/// The register of all branches with a check.
const R11: u8 = 11;

/// The kernel's own code for a preamble or a caller, with the offset of the hash in it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    bytes: Vec<u8>,
    hash: usize,
}

impl Template {
    /// What lies between two symbols of the kernel, of one of the `sizes`.
    fn of(kernel: &dyn RunningKernel, name: &str, sizes: &[u64]) -> Option<Self> {
        let [start, end] = ["start", "end"].map(|which| kernel.symbol(&format!("fineibt_{name}_{which}")));
        let size = end?.checked_sub(start?).filter(|size| sizes.contains(size))?;
        let mut bytes = alloc::vec![0; usize::try_from(size).ok()?];
        if !kernel.read(start?, &mut bytes) {
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

/// The kernel's templates.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Templates {
    /// 16 bytes; since v6.18 20, of which the last four are the function's first.
    preamble: Template,
    caller: Template,
    /// A caller that checks the hash as well, branch included. Since v6.15.
    paranoid: Option<Template>,
}

impl Templates {
    fn of(kernel: &dyn RunningKernel) -> Option<Self> {
        Some(Templates {
            preamble: Template::of(kernel, "preamble", &[PREAMBLE, 20])?,
            caller: Template::of(kernel, "caller", &[CALLER])?,
            paranoid: Template::of(kernel, "paranoid", &[20]),
        })
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
    finished: BTreeSet<u64>,
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
        (mode, paranoid): (Mode, bool),
        branches: Option<&Table>,
        preambles: Option<&Table>,
        templates: Option<&Templates>,
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
            (Mode::Kcfi, _) => {
                // Since v6.18 (85a2d4a890dc).
                let ends_with_udb = self.module.has(Change::EndbrPoisonNopl);
                self.callers(branches, |this, at, _| {
                    if ends_with_udb {
                        this.poke(at.wrapping_add(10), &UDB_CHECK);
                    }
                    this.poke(at, &MOV_R10D);
                })
            }
            (Mode::FineIbt, Some(templates)) => {
                // Since v6.15 a function without a landing pad keeps its preamble, as nothing calls it indirectly.
                let checked = self.module.has(Change::FineIbtChecked);
                let skip = |this: &Self, at: u64| checked && !this.is_pad(at.wrapping_add(PREAMBLE));
                self.preambles(preambles, skip, |this, at, hash| {
                    this.fill(at, &templates.preamble, hash, 1)
                })?;
                match &templates.paranoid {
                    Some(form) if paranoid => {
                        self.callers(branches, |this, at, hash| this.paranoid(at, form, hash))?;
                    }
                    _ => {
                        self.callers(branches, |this, at, hash| this.fill(at, &templates.caller, hash, 2))?
                    }
                }
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

    /// A caller that checks the hash as well, and its branch.
    fn paranoid(&mut self, address: u64, template: &Template, hash: u32) {
        let branch = address.wrapping_add(CALLER);
        let insn = self.module.insn(branch);
        let Some(Insn { opcode, length, .. }) = insn.filter(|i| matches!(i.opcode[0], CALL | JMP32)) else {
            return;
        };
        let mut form = template.clone();
        // The check is of 16 bytes; the branch that follows may need a thunk of the module.
        let Some(its) = self.module.cpu_feature(Feature::IndirectThunkIts) else { return };
        let at_branch = address.wrapping_add(16).wrapping_add(1).wrapping_add(u64::from(R11 / 8));
        if its && at_branch & 0x20 == 0 {
            let prefix: &[u8] = if length == 6 { &[0x2e] } else { &[] };
            let emitted = [prefix, &[opcode[0], 0, 0, 0, 0]].concat();
            form.bytes.truncate(CALLER as usize);
            form.bytes.extend(&emitted);
            self.unknown.insert(branch.wrapping_add(prefix.len() as u64).wrapping_add(1), 4);
        } else {
            let prefixes = self.module.has(Change::RetpolinePrefixes);
            let mut emitted = Vec::new();
            let room = if prefixes { 4 } else { 3 };
            emit_indirect(&mut emitted, opcode[0] == JMP32, R11, room, prefixes);
            form.bytes.splice(16..16_usize.saturating_add(emitted.len()), emitted);
        }
        self.fill(address, &form, hash, 2);
        self.finished.insert(branch);
    }

    /// All that one of the modes would write to: preambles with the landing pad behind them, and callers.
    fn places(&self, branches: Option<&Table>, preambles: Option<&Table>) -> BTreeMap<u64, u64> {
        // Since v6.15 the branch may be part of a caller.
        let caller = if self.module.has(Change::FineIbtChecked) { 20 } else { CALLER };
        let callers = self.sites(branches).into_iter().map(|at| (at.wrapping_sub(CALLER), caller));
        let callers = callers.filter(|(at, _)| self.caller_hash(*at) != 0);
        let preambles = self.sites(preambles).into_iter().map(|at| (at, PREAMBLE.wrapping_add(4)));
        preambles.filter(|(at, _)| self.preamble_hash(*at) != 0).chain(callers).collect()
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
    let built = built(module);
    if built == Some(false) {
        return Cfi::default();
    }
    let kernel = module.kernel;
    // What there is to say of the first list apply_retpolines says.
    let branches = module.last_section(".retpoline_sites");
    let preambles = module.list_of_sites(".cfi_sites", false);
    let mut decided = Decided::of(kernel, module.changes());
    if built.is_none() {
        decided = Decided { mode: None, wants: "cfi_mode", seed: Seed::Unknown, ..decided };
    }
    let listed = branches.is_some() || preambles.is_some();
    let templates = Templates::of(kernel);
    if decided.mode == Some(Mode::FineIbt)
        && templates.as_ref().is_none_or(|t| decided.paranoid && t.paranoid.is_none())
    {
        decided = Decided { mode: None, wants: "fineibt_preamble_start", ..decided };
    }
    if listed && decided.mode.is_none() {
        module.record.not_known(decided.wants);
    }
    if listed && decided.seed == Seed::Unknown {
        module.record.not_known("cfi_seed");
    }
    let poison = poison(module.changes());
    let run = |module: &mut Finalizer<'_, '_>, form: (Mode, bool)| {
        let (before, unknown, finished) = Default::default();
        let mut patcher = Patcher { module, before, unknown, finished, seed: decided.seed, poison };
        let ended = patcher.apply(form, branches.as_ref(), preambles.as_ref(), templates.as_ref());
        (ended, patcher.undo(), patcher.unknown, patcher.finished)
    };
    let fineibt_hash = templates.as_ref().map_or(0, |templates| templates.preamble.hash as u64);
    let mut cfi = Cfi { built: true, mode: decided.mode, fineibt_hash, ..Cfi::default() };
    if let Some(mode) = decided.mode {
        let (ended, after, unknown, finished) = run(module, (mode, decided.paranoid));
        for (address, bytes) in after {
            module.write(address, &bytes, Step::Cfi, 0);
        }
        (cfi.unknown, cfi.finished) = (unknown, finished);
        if let Err(Trouble::NoHash(address)) = ended {
            no_hash(module, address);
        }
        return cfi;
    }
    let (before, unknown, finished) = Default::default();
    let patcher = Patcher { module, before, unknown, finished, seed: decided.seed, poison };
    cfi.unknown = patcher.places(branches.as_ref(), preambles.as_ref());
    // Since v6.15 there are more forms than these.
    if decided.seed == Seed::Unknown || templates.is_none() || module.has(Change::FineIbtChecked) {
        return cfi;
    }
    for form in [(Mode::Kcfi, false), (Mode::FineIbt, false)] {
        let (ended, after, ..) = run(module, form);
        if ended == Err(Trouble::Crash) {
            break;
        }
        for (address, bytes) in after {
            let changed = module.read(address, bytes.len() as u64).is_some_and(|now| now != bytes);
            if changed {
                module.may_be(address, bytes.len(), Step::Cfi, 0, |_| alloc::vec![bytes]);
            }
        }
    }
    cfi
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
