//! The table: one row per change, by the release that brought it.

use super::{Change, Row};
use crate::version::KernelVersion;

/// A range of releases.
type Releases = (KernelVersion, KernelVersion);

/// No commit is known to this project: the release was read from trees or measured.
const UNKNOWN: &[&str] = &[];

/// A change of mainline.
const fn row(
    change: Change,
    name: &'static str,
    commits: &'static [&'static str],
    (major, minor): (u16, u16),
) -> Row {
    Row { change, name, commits, mainline: Some((major, minor)), backports: &[], recognised: "" }
}

/// A fact of some stable series that mainline never had in this form.
const fn only_in(change: Change, name: &'static str, backports: &'static [Releases]) -> Row {
    Row { change, name, commits: UNKNOWN, mainline: None, backports, recognised: "" }
}

impl Row {
    const fn backported(self, backports: &'static [Releases]) -> Row {
        Row { backports, ..self }
    }

    const fn recognised(self, recognised: &'static str) -> Row {
        Row { recognised, ..self }
    }
}

/// All releases of one series.
const fn series(major: u16, minor: u16) -> Releases {
    from(major, minor, 0)
}

/// The releases of one series from that patch level on.
const fn from(major: u16, minor: u16, patch: u16) -> Releases {
    (KernelVersion::new(major, minor, patch), KernelVersion::new(major, minor, u16::MAX))
}

/// One release.
const fn release(major: u16, minor: u16, patch: u16) -> Releases {
    (KernelVersion::new(major, minor, patch), KernelVersion::new(major, minor, patch))
}

/// All releases of these series.
const fn all_series(first: (u16, u16), last: (u16, u16)) -> Releases {
    (KernelVersion::new(first.0, first.1, 0), KernelVersion::new(last.0, last.1, u16::MAX))
}

const BY_RECORD_SIZE: &str =
    "by the distance between the records' relocations in a module (FIN-27), which is looked at first";

/// Every [`Change`] with what is known of it, in the order of the variants.
#[rustfmt::skip]
pub static TABLE: [Row; 82] = [
    row(Change::SymbolNamespaces, "namespace field of export records", UNKNOWN, (5, 4)),
    row(Change::FtraceWithRegs, "ftrace with regs", &["3b23e4991fb6"], (5, 5))
        .recognised("by CONFIG_DYNAMIC_FTRACE_WITH_REGS of a .config"),
    row(Change::FtracePltAtLoad, "ftrace PLT filled at load", &["f1a54ae9af0d"], (5, 5)),
    row(Change::FtracePltRequired, ".text.ftrace_trampoline required", &["bd8b21d3dd66"], (5, 5)),
    row(Change::VmlinuxNameRefused, "no module is named vmlinux", &["dcf550e52f56"], (5, 8)),
    row(Change::BranchRelasPartitioned, "partition_branch_plt_relas", &["d4e0340919fb"], (5, 9)),
    row(Change::StaticCalls, "static calls", UNKNOWN, (5, 10)),
    // Late 5.10.y is said to have it as well; that is not verified (FIN-27).
    row(Change::AltInstrWithoutPadlen, "alt_instr of 12 bytes", UNKNOWN, (5, 13))
        .recognised(BY_RECORD_SIZE),
    row(Change::ParavirtCallsOnly, "paravirt patched with calls alone", UNKNOWN, (5, 13)),
    row(Change::SameNopsForAll, "the same nops on every CPU", &["a89dfde3dc3c"], (5, 13)),
    // Read from trees: not in 5.10, in 6.1; booted 6.12 and 7.3 do it.
    row(Change::MteIgnoresTopByte, "MTE: top byte of addresses ignored", UNKNOWN, (5, 14)),
    row(Change::ShortJumpLabels, "jump labels of 2 bytes", &["ab3257042c26"], (5, 14)),
    row(Change::ExtableTypes, "exception table entries with a type", &["46d28947d987", "d6e2cc564775"], (5, 16))
        .recognised("by struct exception_table_entry in the kernel's BTF (FIN-1)"),
    row(Change::EvalsReplacedInFields, "eval maps in types of fields", &["b3bc8547d3be"], (5, 18)),
    row(Change::BpfProgPack, "packs of BPF programs", &["57631054fae6"], (5, 18))
        .recognised("by a symbol bpf_prog_pack_alloc (LAYOUT-51)"),
    row(Change::RetpolineInWord11, "retpoline features in word 11", &["a883d624aed4", "a149180fbcf3"], (5, 19))
        .backported(&[from(5, 10, 133), from(5, 15, 54)])
        .recognised("by the symbol of the return thunk, which came with it (FIN-21)"),
    row(Change::FtraceWeakChecked, "sites of weak functions looked up", &["b39181f7c690"], (6, 0)),
    row(Change::BoolTakesTrue, "kstrtobool: true and false", &["0d6ea3ac94ca"], (5, 19)),
    row(Change::DuplicateOfGoingIsBusy, "EBUSY for a duplicate of a module that goes", UNKNOWN, (6, 1)),
    row(Change::LastUnloadedTaints, "taints of the last unloaded module", &["6f1dae1d84b6"], (6, 1)),
    row(Change::KprobeEventsNotifiedFirst, "kprobe events: notifier priority 2", UNKNOWN, (6, 1)),
    row(Change::AltCallbackBit, "capability and bit of alternative callbacks", &["4c0bd995d73e"], (6, 1)),
    row(Change::FtraceWithArgs, "ftrace with args", &["26299b3f6ba2"], (6, 2))
        .recognised("by CONFIG_DYNAMIC_FTRACE_WITH_ARGS of a .config"),
    row(Change::CallDepthTracking, "call depth tracking", &["80e4c1cd42ff"], (6, 2)),
    row(Change::ReturnThunkPerMitigation, "a return thunk per mitigation", &["770ae1b70952"], (6, 2)),
    row(Change::FtraceCallOps, "ftrace with call ops", &["baaf553d3bc3"], (6, 3))
        .recognised("by CONFIG_DYNAMIC_FTRACE_WITH_CALL_OPS of a .config"),
    row(Change::LongerLogRecords, "log records of 1024 bytes", UNKNOWN, (6, 3)),
    row(Change::AltInstrFlags, "alt_instr of 14 bytes", &["5d1dd961e743"], (6, 3)).recognised(BY_RECORD_SIZE),
    row(Change::OrcSignalBeforeEnd, "ORC signal bit before the end bit", &["ffb1b4a41016"], (6, 3)),
    row(Change::OverflowCheckedFirst, "relocation overflow checked first", &["0c05e7bd2d01"], (6, 3)),
    row(Change::BtfMismatchToldOnce, "BTF mismatch told once", &["9cb61e50bf6b"], (6, 3)),
    row(Change::ModMemType, "memory by mod_mem_type", &["ac3b43283923"], (6, 4)),
    row(Change::ElfValidityCacheCopy, "elf_validity_cache_copy", UNKNOWN, (6, 4)),
    row(Change::DuplicateCheckedEarly, "name looked for before allocation", UNKNOWN, (6, 4)),
    row(Change::TaintsAfterInsertion, "module_augment_kernel_taints", UNKNOWN, (6, 4)),
    row(Change::DynamicDebugNotifier, "dynamic debug is a notifier", &["7deabd674988"], (6, 4)),
    row(Change::OrcUndefinedType, "ORC type of its own for gaps", &["fb799447ae29"], (6, 4)),
    row(Change::CfiSealed, "CFI: hashes sealed, one landing pad", &["9831c6253ace", "04505bbbbb15"], (6, 5))
        .backported(&[from(6, 4, 5)]),
    row(Change::AlternativesRelocated, "whole alternatives are relocated", &["270a69c4485d"], (6, 5)),
    row(Change::NopsOfAnyLength, "nops of any length", &["6c480f222128"], (6, 5)),
    row(Change::PltsMandatory, "PLTs are mandatory", &["ea3752ba96c0"], (6, 5)),
    row(Change::ModulesLogPrefix, "log prefix Modules:", &["e46b7103aef3"], (6, 5)),
    row(Change::WideModuleArea, "module area of 2 GiB", &["3e35d303ab7d"], (6, 5)),
    // Backported to 6.6.y, 6.12.y and 6.16.y in September 2025; the patch levels are not known.
    row(Change::InitFtracePlt, ".init.text.ftrace_trampoline filled", &["a7ed7b9d0ebb"], (6, 17))
        .backported(&[all_series((6, 6), (6, 16))])
        .recognised("modules for kernels without it have no such section (PLT-13)"),
    // The same commit, in the stable releases of the week after it; Debian's 6.12.117 refuses modules without the section.
    row(Change::InitFtracePltRequired, ".init.text.ftrace_trampoline required", &["a7ed7b9d0ebb"], (6, 17))
        .backported(&[from(6, 6, 107), from(6, 12, 48), from(6, 16, 8)]),
    row(Change::Sha3Signatures, "SHA-3 in PKCS#7, no MD4 and MD5", UNKNOWN, (6, 7)),
    row(Change::ParavirtIsAlternatives, "paravirt calls are alternatives", &["f7af6977621a"], (6, 8)),
    row(Change::Execmem, "execmem: failed allocations told", &["12af2b83d0b1"], (6, 10)),
    row(Change::SortTakesTwo, "sort() takes two elements per step", UNKNOWN, (6, 10)),
    row(Change::AltLengthsEqualised, "alternatives of one place have one length", &["d2a793dae4fe"], (6, 11)),
    row(Change::OwnBtfBase, "modules bring .BTF.base", &["d4e48e3dd450"], (6, 11)),
    row(Change::BtfSectionNames, "BTF: printable names of sections", &["bb6705c3f93b"], (6, 12)),
    row(Change::SysfsErrorsCount, "errors of the sysfs setup end the load", UNKNOWN, (6, 12)),
    row(Change::LivepatchTraceEvents, "trace events of livepatches", UNKNOWN, (6, 12)),
    // Read from trees: not in 6.1, in 6.12.
    row(Change::RevokedKeysRefused, "revoked keys refused", UNKNOWN, (6, 12)),
    only_in(Change::ItsInBit6, "ITS thunk feature in bit 6", &[series(6, 12)]),
    row(Change::ItsInBit10, "ITS thunk feature in bit 10", &["8754e67ad4ac"], (6, 15))
        .backported(&[series(6, 13), series(6, 14)]),
    row(Change::CodeFromCache, "code from a cache of free areas", &["64f6a4e10c05"], (6, 15)),
    row(Change::FineIbtChecked, "CFI: preambles checked", UNKNOWN, (6, 15)),
    row(Change::MoreFeatureWords, "more than 24 words of features", UNKNOWN, (6, 13)),
    row(Change::SymbolStringsChecked, "names of symbols checked", &["d979e3dffa93"], (6, 13)),
    row(Change::ImportNsTakesString, "MODULE_IMPORT_NS takes a string", &["cdd30ebb1b9f"], (6, 13)),
    row(Change::ExtendedModversions, "extended modversions", UNKNOWN, (6, 14))
        .recognised("a module that has them has __version_ext_crcs and __version_ext_names"),
    row(Change::CallsPatchedBeforeAlternatives, "calls patched before alternatives", UNKNOWN, (6, 14)),
    row(Change::RoAfterInitByName, "read-only after init by name", &["60b57b9cb002"], (6, 16)),
    row(Change::PercpuRelocated, "per-cpu relocations applied", &["570db4b39f53"], (6, 16)),
    row(Change::ModuleNamespaces, "module: namespaces", &["707f853d7fa3"], (6, 16)),
    row(Change::BoolTakesEnabled, "kstrtobool: enabled and disabled", &["ae5b3500856f"], (6, 16)),
    row(Change::RetpolinePrefixes, "indirect branches with prefixes", &["4a1e02b15ac1"], (6, 18)),
    row(Change::EndbrPoisonNopl, "NOPL seals a landing pad", &["85a2d4a890dc"], (6, 18)),
    row(Change::MlDsaSignatures, "ML-DSA in PKCS#7", UNKNOWN, (7, 0)),
    row(Change::RelocationNamesRecord, "section and record of a refused relocation named", UNKNOWN, (6, 19)),
    // In the stable releases of December 2025 as well; that 6.18.1 is the first of its series is not verified.
    row(Change::AltCallbackChecked, "callbacks of alternatives checked", &["8e8ae788964a"], (6, 19))
        .backported(&[from(6, 17, 12), from(6, 18, 1)]),
    row(Change::AltPlaceWrittenOnce, "alternatives of one place written once", &["a4233c21e773"], (7, 0)),
    row(Change::OneExportTable, "one export table", &["55fcb926b6d8", "b4760ff2a5e4", "f18540256b70"], (7, 1))
        .recognised("by a section or a symbol __kflagstab (IMG-31)"),
    row(Change::InitExistIsBusy, "EEXIST of init becomes EBUSY", &["743f8cae549a"], (7, 1)),
    row(Change::SuspiciousInitInOneLine, "suspicious init told in one line", &["663385f9155f"], (7, 1)),
    // In the branch for the release after 7.1; 7.3.4 has it.
    row(Change::WideBtfInfo, "BTF: 7 bits of kind, 24 bits of records", &["f7a6b9eaff3e"], (7, 2)),
    // A patch of Debian's that it dropped: 6.12.117 has it, 7.2.13 has not.
    row(Change::ModuleHashesNotLookedUp, "Debian: hashes of modules not looked up", UNKNOWN, (7, 2)),
    // Queued for 7.3. In 6.12.117, and taken to be in all of 6.12.y.
    row(Change::StringTableTypeChecked, "string table types checked", &["9a5ff4568932"], (7, 3))
        .backported(&[series(6, 12)]),
    // Debian's releases of 6.1 do not tell the patch level: 0.
    only_in(Change::Erratum843419IsCap54, "capability 54 is erratum 843419", &[release(6, 1, 0), from(6, 1, 170)]),
    only_in(Change::Erratum843419IsCap70, "capability 70 is erratum 843419", &[from(6, 12, 107)]),
];
