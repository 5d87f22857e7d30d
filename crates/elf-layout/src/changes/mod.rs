//! The changes in Linux that fork what kmodld does. Each has one variant of [`Change`] and one row of
//! [`TABLE`], which says with which commit it came, in which releases it is, and how a file or an image shows
//! it. Code never asks for a version: it asks [`Changes::has`].

mod table;

pub use table::TABLE;

use crate::version::KernelVersion;

/// A change in Linux. A kernel has it or does not. Variants stand in the order of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Export records have a third field, the symbol's namespace (SYM-35).
    SymbolNamespaces,
    /// arm64 has CONFIG_DYNAMIC_FTRACE_WITH_REGS: sites in `__patchable_function_entries`, and a slot of its own
    /// for `ftrace_regs_caller` in `.text.ftrace_trampoline` (PLT-13, FIN-33, FIN-43). It ended when
    /// [`Change::FtraceWithArgs`] replaced it.
    FtraceWithRegs,
    /// arm64 writes the ways to the tracer when it loads a module; before that when a function is traced (FIN-33).
    FtracePltAtLoad,
    /// arm64 refuses modules without `.text.ftrace_trampoline` (FIN-30).
    FtracePltRequired,
    /// Kernels with CONFIG_LIVEPATCH have no module that is named vmlinux (LIFE-58).
    VmlinuxNameRefused,
    /// arm64 sorts only the branches that may need a slot, brought to the front of their RELA table; before that
    /// the whole table (PLT-4 to PLT-7).
    BranchRelasPartitioned,
    /// x86 has static calls (FIN-60, FIN-61).
    StaticCalls,
    /// x86's `struct alt_instr` has no `padlen`: 12 bytes, and bit 15 of the feature inverts (FIN-27).
    AltInstrWithoutPadlen,
    /// x86 patches paravirt operations with calls alone; before that some had code of their own in a table of the
    /// kernel (FIN-73).
    ParavirtCallsOnly,
    /// x86 takes the same nops on every CPU; before that those of `ideal_nops`, which the boot CPU decided (FIN-24).
    SameNopsForAll,
    /// arm64 kernels with CONFIG_ARM64_MTE let the processor ignore the top byte of addresses (RELOC-GEN-11).
    MteIgnoresTopByte,
    /// x86 jump labels may have two bytes; before that all had five (FIN-54).
    ShortJumpLabels,
    /// An entry of the exception table has a type and data. Before that x86 had a third address there, and arm64 nothing
    /// (FIN-1).
    ExtableTypes,
    /// Eval maps of trace events count in the types of their fields too (FIN-82).
    EvalsReplacedInFields,
    /// Compiled BPF programs share packs of 2 MiB; before that each has pages of its own (LAYOUT-51).
    BpfProgPack,
    /// x86's retpoline features moved to word 11, and `X86_FEATURE_RETHUNK` came with them (FIN-21).
    RetpolineInWord11,
    /// x86 looks up the names of the function tracer's sites when a module comes (FIN-48).
    FtraceWeakChecked,
    /// `kstrtobool` takes words that begin as `true` and `false` (PARAM-44).
    BoolTakesTrue,
    /// A duplicate of a module that is being removed gets EBUSY; before that its load waited (LIFE-2).
    DuplicateOfGoingIsBusy,
    /// `print_modules` shows the taints of the module that was unloaded last (LIFE-61).
    LastUnloadedTaints,
    /// The notifier of kprobe events has priority 2, before that 1 (LIFE-46).
    KprobeEventsNotifiedFirst,
    /// Callbacks among arm64's alternatives have a capability, and a bit that tells them (FIN-31).
    AltCallbackBit,
    /// arm64 has CONFIG_DYNAMIC_FTRACE_WITH_ARGS instead of [`Change::FtraceWithRegs`].
    FtraceWithArgs,
    /// x86 can track the depth of calls: `X86_FEATURE_CALL_DEPTH` (FIN-71).
    CallDepthTracking,
    /// Every mitigation of x86 has a return thunk of its own, and `x86_return_thunk` points to it (FIN-72).
    ReturnThunkPerMitigation,
    /// arm64 has CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS (FIN-44).
    FtraceCallOps,
    /// A record of the log has 1024 bytes for a message, before that 992 (PARAM-20).
    LongerLogRecords,
    /// x86's `struct alt_instr` has flags in a field of their own: 14 bytes (FIN-27).
    AltInstrFlags,
    /// x86's `struct orc_entry` has the signal bit before the end bit (FIN-76).
    OrcSignalBeforeEnd,
    /// x86 looks whether a relocation overflows before it looks whether the target is zero and before it writes
    /// (X86REL-5).
    OverflowCheckedFirst,
    /// A BTF mismatch that is permitted is told once per boot (BTF-3).
    BtfMismatchToldOnce,
    /// A module's memory is divided by `enum mod_mem_type`; before that into core and init (LAYOUT-18, LAYOUT-40).
    ModMemType,
    /// The ELF checks are `elf_validity_cache_copy`: sections before names, and single sections must be single;
    /// before that `elf_validity_check` and `setup_load_info` (VAL-40 to VAL-53).
    ElfValidityCacheCopy,
    /// The module list is searched for the name before anything is allocated (LIFE-3).
    DuplicateCheckedEarly,
    /// All that taints is looked at once the module is in the list (`module_augment_kernel_taints`); before that
    /// `check_modinfo` did most of it (LIC-2, LIC-4).
    TaintsAfterInsertion,
    /// Dynamic debug is a notifier; before that `load_module` called it (LIFE-46).
    DynamicDebugNotifier,
    /// An ORC entry that ends a gap has a type of its own (FIN-76).
    OrcUndefinedType,
    /// Sealing clears the hash of kCFI too, and FineIBT removes the landing pad behind its own (FIN-92, FIN-93).
    CfiSealed,
    /// All branches and RIP-relative operands of an alternative move with it, not a first call or jump alone
    /// (FIN-23).
    AlternativesRelocated,
    /// Runs of nops of any length become one, before that runs of single bytes (FIN-24).
    NopsOfAnyLength,
    /// arm64 counts slots for branches whatever the configuration (PLT-4).
    PltsMandatory,
    /// Lines of arm64's module.c begin with `Modules: `.
    ModulesLogPrefix,
    /// arm64's module area has 2 GiB and reaches the whole image; before that 128 MiB, and the text (LAYOUT-52).
    WideModuleArea,
    /// arm64 fills `.init.text.ftrace_trampoline` where a module has it (PLT-1, FIN-33).
    InitFtracePlt,
    /// arm64 refuses modules without `.init.text.ftrace_trampoline` (FIN-30).
    InitFtracePltRequired,
    /// PKCS#7 knows SHA-3, and MD4 and MD5 no longer (SIG-18).
    Sha3Signatures,
    /// Paravirt calls of x86 are alternatives; `.parainstructions` is gone (FIN-73).
    ParavirtIsAlternatives,
    /// Memory of modules comes from `execmem`, which tells in the log that it has none (LAYOUT-40).
    Execmem,
    /// `sort()` takes two elements out of its heap per step, and equal children go right (FIN-9).
    SortTakesTwo,
    /// Alternatives of one place get the length of the longest (FIN-20).
    AltLengthsEqualised,
    /// A module may bring the part of the kernel's BTF that it needs: `.BTF.base` (BTF-4).
    OwnBtfBase,
    /// A DATASEC may have any name that can be printed, before that an identifier (BTF-2).
    BtfSectionNames,
    /// Errors of `mod_sysfs_setup` about sections end the load; before that they were not looked at (LIFE-40).
    SysfsErrorsCount,
    /// Livepatches may have trace events (FIN-80).
    LivepatchTraceEvents,
    /// A key on the revocation list is refused wherever else it is; before that only with the platform keyring (SIG-9).
    RevokedKeysRefused,
    /// x86's `X86_FEATURE_INDIRECT_THUNK_ITS` is bit 6 of word 21, the next that was free; in older series bit 5
    /// (FIN-21).
    ItsInBit6,
    /// x86's `X86_FEATURE_INDIRECT_THUNK_ITS` is bit 10 of word 21 (FIN-21).
    ItsInBit10,
    /// x86 takes memory for code from a cache, without guard pages (LAYOUT-55).
    CodeFromCache,
    /// FineIBT and sealing look whether a preamble is one before they change it (FIN-92, FIN-93).
    FineIbtChecked,
    /// x86 has more words of features than the 24 beyond which an alternative is a BUG in earlier kernels (FIN-21).
    MoreFeatureWords,
    /// Names of symbols must lie inside their string table (VAL-52).
    SymbolStringsChecked,
    /// MODULE_IMPORT_NS takes a string (NS-6).
    ImportNsTakesString,
    /// Modules may have versions with names of any length: `__version_ext_crcs`, `__version_ext_names` (VER-30).
    ExtendedModversions,
    /// x86 patches calls for call depth tracking before alternatives, and not at sites of alternatives.
    CallsPatchedBeforeAlternatives,
    /// Every section of the names that are read-only after init is made so, `.static_call_sites` of x86 too;
    /// before that the first of each name (LAYOUT-8).
    RoAfterInitByName,
    /// Relocations of the per-cpu template are applied (RELOC-GEN-4).
    PercpuRelocated,
    /// A namespace `module:NAMES` opens a symbol for the modules of these names (NS-5).
    ModuleNamespaces,
    /// `kstrtobool` takes words that begin as `enabled` and `disabled` (PARAM-44).
    BoolTakesEnabled,
    /// Prefixes and INT3 fill an indirect branch, where a retpoline is one no longer (FIN-70).
    RetpolinePrefixes,
    /// A landing pad is sealed with NOPL -42(%rax) (FIN-74), and kCFI's check ends with UDB (FIN-92).
    EndbrPoisonNopl,
    /// PKCS#7 knows ML-DSA (SIG-14).
    MlDsaSignatures,
    /// x86 tells section and number of a record that it refuses (X86REL-3, X86REL-4).
    RelocationNamesRecord,
    /// arm64 refuses modules with an alternative callback that is not the kernel's own code (FIN-36).
    AltCallbackChecked,
    /// x86 evaluates all alternatives of a place before it writes there, and leaves their records alone (FIN-26).
    AltPlaceWrittenOnce,
    /// All exports are in one table, with a byte of flags each in `__kflagstab`; before that in two (SYM-39).
    OneExportTable,
    /// EEXIST of an init function becomes EBUSY (LIFE-12).
    InitExistIsBusy,
    /// A positive value of an init function is told in one line, without a stack dump (LIFE-13).
    SuspiciousInitInOneLine,
    /// The kind of a BTF type has 7 bits, before that 5, and the number of its records 24, before that 16 (BTF-3).
    WideBtfInfo,
    /// Debian no longer looks up the hash of a module in the blacklist (SIG-9).
    ModuleHashesNotLookedUp,
    /// The section name table must be of type STRTAB (VAL-42).
    StringTableTypeChecked,
    /// arm64's ARM64_WORKAROUND_843419 is capability 54. Every capability that a release adds moves the numbers
    /// behind it, so each is known for some releases only.
    Erratum843419IsCap54,
    /// arm64's ARM64_WORKAROUND_843419 is capability 70.
    Erratum843419IsCap70,
}

impl Change {
    const fn bit(self) -> u128 {
        1u128.wrapping_shl(self as u32)
    }
}

/// What is known of one [`Change`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The change.
    pub change: Change,
    /// What it is, in a few words.
    pub name: &'static str,
    /// The upstream commits, 12 hex digits each. Empty: this project does not know them.
    pub commits: &'static [&'static str],
    /// `(major, minor)` of the first mainline release with it. `None`: mainline never had it in this form, or
    /// it is not known.
    pub mainline: Option<(u16, u16)>,
    /// Releases before that one that have it too, from the first to the last of each range.
    pub backports: &'static [(KernelVersion, KernelVersion)],
    /// How a module or an image shows it where a version is not enough. Empty: it does not.
    pub recognised: &'static str,
}

impl Row {
    /// Does a kernel of this version have it, as far as a version tells?
    pub const fn is_in(&self, version: KernelVersion) -> bool {
        if let Some(mainline) = self.mainline
            && since(version, mainline)
        {
            return true;
        }
        let mut backports = self.backports;
        while let [(first, last), more @ ..] = backports {
            if not_after(*first, version) && not_after(version, *last) {
                return true;
            }
            backports = more;
        }
        false
    }
}

/// Is this `major.minor` or later?
const fn since(version: KernelVersion, (major, minor): (u16, u16)) -> bool {
    not_after(KernelVersion::new(major, minor, 0), version)
}

const fn not_after(a: KernelVersion, b: KernelVersion) -> bool {
    const fn key(v: KernelVersion) -> u64 {
        (v.major as u64) << 32 | (v.minor as u64) << 16 | v.patch as u64
    }
    key(a) <= key(b)
}

/// The changes that a kernel has: those of its version, corrected by what its image or a module shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    has: u128,
    /// Those that were measured and that no version corrects.
    measured: u128,
}

impl Changes {
    /// Those that a kernel of this version has.
    pub const fn of(version: KernelVersion) -> Self {
        Changes { has: 0, measured: 0 }.at(version)
    }

    /// Does the kernel have that one?
    pub const fn has(self, change: Change) -> bool {
        self.has & change.bit() != 0
    }

    /// These, but `change` was seen in an image or a file, or seen to be missing: that beats every version.
    #[must_use]
    pub const fn with(self, change: Change, has: bool) -> Self {
        let bit = change.bit();
        let others = self.has & !bit;
        Changes { has: if has { others | bit } else { others }, measured: self.measured | bit }
    }

    /// These for another version; what was measured stays.
    #[must_use]
    pub const fn at(self, version: KernelVersion) -> Self {
        let mut has = self.has & self.measured;
        let mut rows: &[Row] = &TABLE;
        while let [row, more @ ..] = rows {
            if row.is_in(version) {
                has |= row.change.bit() & !self.measured;
            }
            rows = more;
        }
        Changes { has, measured: self.measured }
    }
}

/// The releases whose rules kmodld implements: from the first to the last series, `(major, minor)` each.
/// Changes that are queued for a later release have rows already, but what else that release changes is not
/// known.
const SERIES: [(u16, u16); 2] = [(5, 4), (7, 3)];

/// Are the rules of this version implemented?
pub const fn is_known(version: KernelVersion) -> bool {
    let [first, (major, minor)] = SERIES;
    since(version, first) && not_after(version, KernelVersion::new(major, minor, u16::MAX))
}

#[cfg(test)]
mod tests;
