//! The document that `link --json` prints and `layout.json` holds. Addresses
//! and CRCs are hex strings, sizes and offsets are numbers of bytes.

use std::borrow::Cow;

use elf_layout::bytes::printed;
use elf_layout::elf::{SHT_NULL, Shdr, Sym, SymFields};
use elf_layout::{Errno, Finding, Findings, Layout, LoadInfo, Placement, Region, Severity, Unjudged};
use kernel::Export;
use serde::{Serialize, Serializer};
use symres::hints::Cause;

use crate::address::{Explainer, Relocation};
use crate::explain::fix;
use crate::load::Load;

/// The version of the documents that commands print.
pub const SCHEMA: u32 = 2;

/// An address as `0x` and 16 digits.
pub fn address(value: u64) -> String {
    format!("{value:#018x}")
}

/// A CRC as `0x` and 8 digits.
pub fn crc(value: u32) -> String {
    format!("{value:#010x}")
}

/// A name of the file as text.
pub fn text(name: &[u8]) -> String {
    printed(name).into_owned()
}

/// Name of a region's file beside `layout.json` (`link --format raw`).
pub fn file_name(region: Region) -> String {
    format!("{}.bin", region.name())
}

/// The whole document.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Document {
    /// The version of this document: 2.
    pub schema: u32,
    /// Module name.
    pub module: String,
    /// Its architecture, as `uname -m` calls it.
    pub arch: &'static str,
    /// Release of the kernel, or of the module's vermagic if no kernel told one.
    pub release: String,
    /// How far what is said of this kernel is known to be right: `exact`, `rules` or `unknown`.
    pub coverage: &'static str,
    /// The stage that the memory shows.
    pub stage: &'static str,
    /// Regions in order of allocation.
    pub regions: Vec<RegionEntry>,
    /// All sections; those that were not moved have no region and no address.
    pub sections: Vec<SectionEntry>,
    /// What the module takes from the kernel and from other modules.
    pub imports: Vec<ImportEntry>,
    /// What it exports.
    pub exports: Vec<ExportEntry>,
    /// Modules that it depends on.
    pub depends: Vec<String>,
    /// Its per-cpu area.
    pub percpu: PercpuEntry,
    /// Linkage tables with slots in use, which branches that do not reach far enough go through.
    pub plts: Vec<PltEntry>,
    /// All symbols, if they were asked for, in table order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Vec<SymbolEntry>>,
    /// All relocations that were applied, if they were asked for, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relocations: Option<Vec<RelocationEntry>>,
    /// What was changed after relocation, in order.
    pub patches: Vec<PatchEntry>,
    /// Bytes that only the running kernel knows.
    pub runtime: Vec<RuntimeEntry>,
    /// What would have been needed of the running kernel and was not known.
    pub unknown: Vec<String>,
    /// The rules that were not judged, and what settles each.
    pub unjudged: Vec<UnjudgedEntry>,
    /// Everything the kernel would say, and more.
    pub findings: Vec<FindingEntry>,
}

/// One region.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RegionEntry {
    /// Its name.
    pub name: &'static str,
    /// Address of its first byte.
    pub base: String,
    /// Bytes, page aligned.
    pub size: u64,
    /// File with its bytes, in the raw format.
    pub file: String,
}

/// One section.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SectionEntry {
    /// Index in the section header table.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: Option<&'static str>,
    /// Its final address.
    pub addr: Option<String>,
    /// Its offset in the region.
    pub offset: Option<u64>,
    /// Bytes.
    pub size: u64,
}

/// One import.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ImportEntry {
    /// Symbol.
    pub name: String,
    /// Address, null if not known.
    pub addr: Option<String>,
    /// `vmlinux` or a module.
    pub owner: String,
    /// CRC of the export, null if not known.
    pub crc: Option<String>,
    /// Exported to GPL-compatible modules only.
    pub gpl_only: bool,
    /// Namespace, null if none.
    pub namespace: Option<String>,
}

/// One export.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ExportEntry {
    /// Symbol.
    pub name: String,
    /// Address.
    pub addr: Option<String>,
    /// CRC, null if the module has none.
    pub crc: Option<String>,
    /// For GPL-compatible modules only.
    pub gpl_only: bool,
    /// Namespace, null if none.
    pub namespace: Option<String>,
}

/// The per-cpu area.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct PercpuEntry {
    /// `mod->percpu`, null if the module has none.
    pub addr: Option<String>,
    /// Bytes.
    pub size: u64,
}

/// One linkage table.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct PltEntry {
    /// Its section.
    pub section: String,
    /// Slots that were counted before.
    pub max_entries: u64,
    /// Slots taken, skipped ones included.
    pub num_entries: u64,
    /// The slots in use.
    pub slots: Vec<SlotEntry>,
}

/// One slot.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SlotEntry {
    /// Its address.
    pub addr: String,
    /// Where it leads.
    pub target: String,
}

/// One symbol of the module.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SymbolEntry {
    /// Its index in the symbol table.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its final value, null if that is not known.
    pub value: Option<String>,
    /// `st_size`
    pub size: u64,
    /// Its type: `STT_FUNC` is 2.
    #[serde(rename = "type")]
    pub kind: u8,
    /// `STB_LOCAL` is 0.
    pub bind: u8,
    /// `st_shndx`: index of its section, 0 if it is imported.
    pub section: usize,
}

/// One relocation that was applied.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RelocationEntry {
    /// Address of the first byte that it writes.
    pub addr: String,
    /// How many bytes.
    pub size: u64,
    /// Its type by name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Index of its symbol in the symbol table.
    pub symbol: u32,
    /// Its addend.
    pub addend: i64,
    /// Where it is.
    #[serde(rename = "in")]
    pub place: Option<String>,
}

/// What is printed of a module that cannot be linked.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Refusal {
    /// The version of this document: 2.
    pub schema: u32,
    /// The file as it was named.
    pub file: String,
    /// What the system call returns, null if the kernel crashes.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// Everything found.
    pub findings: Vec<FindingEntry>,
}

/// Bytes that a step after relocation changed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct PatchEntry {
    /// Address of the first one.
    pub addr: String,
    /// How many.
    pub size: u64,
    /// The step.
    pub step: &'static str,
    /// What distinguishes this patch from others of its step; null if there is no such value.
    pub detail: Option<String>,
    /// Where it is.
    pub symbol: Option<String>,
}

/// Bytes that are not predicted.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RuntimeEntry {
    /// Address of the first one.
    pub addr: String,
    /// How many.
    pub size: u64,
    /// What they are.
    pub what: String,
}

/// One finding.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct FindingEntry {
    /// Rule of the specification.
    pub code: &'static str,
    /// Name of the errno, null if there is none.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// The kernel's log lines joined by newlines, null if it says nothing.
    pub dmesg: Option<String>,
    /// error, oops, warning or note.
    #[serde(serialize_with = "severity_word")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub severity: Severity,
    /// What it is about.
    pub subject: String,
    /// What is wrong in this case.
    pub explanation: Cow<'static, str>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Who exports the symbol that it is about, if that is known: `vmlinux` or a module.
    pub exporter: Option<String>,
    /// The kernel stops here.
    pub stops_here: bool,
}

/// The one cause behind many findings.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct CauseEntry {
    /// The release that the module was built for, null if it is that of the kernel, or not known.
    pub built_for: Option<String>,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}

impl From<Cause> for CauseEntry {
    fn from(cause: Cause) -> Self {
        CauseEntry { built_for: cause.built_for, text: cause.text, hint: cause.hint }
    }
}

/// A rule that was not judged.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct UnjudgedEntry {
    /// Rule of the specification.
    pub code: &'static str,
    /// What would settle it.
    pub needs: String,
}

/// The rules that were not judged, in the kernel's order.
pub fn unjudged(said: &Findings) -> Vec<UnjudgedEntry> {
    let entry = |rule: &Unjudged| UnjudgedEntry { code: rule.code, needs: rule.needs.clone().into_owned() };
    said.open_rules().iter().map(entry).collect()
}

/// An errno by its name, or null.
pub(crate) fn errno_name<S: Serializer>(errno: &Option<Errno>, to: S) -> Result<S::Ok, S::Error> {
    errno.map(Errno::name).serialize(to)
}

/// An errno by its name.
pub fn errno_text(errno: Option<Errno>) -> Option<String> {
    errno.map(|errno| errno.name().to_owned())
}

fn severity_word<S: Serializer>(severity: &Severity, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(severity.word())
}

impl From<&Finding> for FindingEntry {
    fn from(f: &Finding) -> Self {
        let general = Some(f.code).filter(|_| f.severity.refuses()).and_then(fix);
        FindingEntry {
            code: f.code,
            errno: f.errno,
            dmesg: (!f.dmesg.is_empty()).then(|| f.dmesg.join("\n")),
            severity: f.severity,
            subject: f.subject.to_string(),
            explanation: f.explanation.clone(),
            hint: f.hint.clone().or_else(|| general.map(str::to_owned)),
            exporter: f.exporter.clone(),
            stops_here: f.stops_here,
        }
    }
}

impl From<Export<'_>> for ExportEntry {
    fn from(e: Export<'_>) -> Self {
        ExportEntry {
            name: text(e.name),
            addr: e.address.map(address),
            crc: e.crc.map(crc),
            gpl_only: e.gpl_only,
            namespace: some_text(e.namespace),
        }
    }
}

/// Text, or null if empty.
pub fn some_text(name: &[u8]) -> Option<String> {
    (!name.is_empty()).then(|| text(name))
}

/// All findings.
pub fn findings(said: &Findings) -> Vec<FindingEntry> {
    said.iter().map(FindingEntry::from).collect()
}

/// All sections of a module that is laid out and placed.
pub fn sections(info: &LoadInfo<'_>, layout: &Layout, placement: &Placement) -> Vec<SectionEntry> {
    let sections = info.sechdrs.iter().enumerate().filter(|(_, s)| s.sh_type != SHT_NULL);
    let entry = |(index, s): (usize, &Shdr)| {
        let place = layout.place(index);
        SectionEntry {
            index,
            name: text(info.file.section_name(index)),
            region: place.map(|p| p.region.name()),
            addr: place.map(|p| address(placement.address(p))),
            offset: place.map(|p| p.offset),
            size: s.sh_size,
        }
    };
    sections.map(entry).collect()
}

/// All regions of a module that is laid out and placed.
pub fn regions(layout: &Layout, placement: &Placement) -> Vec<RegionEntry> {
    let entry = |region| RegionEntry {
        name: Region::name(region),
        base: address(placement.bases.get(region)),
        size: layout.allocated(region),
        file: file_name(region),
    };
    layout.regions().map(entry).collect()
}

/// The linkage tables with slots in use.
fn plts(load: &Load<'_>) -> Vec<PltEntry> {
    let used = load.plts().filter(|table| !table.slots.is_empty());
    let slot = |s: &reloc::Slot| SlotEntry { addr: address(s.address), target: address(s.target) };
    let entry = |table: &reloc::ModPltSec| PltEntry {
        section: text(load.module.info.file.section_name(table.plt_shndx)),
        max_entries: table.plt_max_entries,
        num_entries: table.plt_num_entries,
        slots: table.slots.iter().map(slot).collect(),
    };
    used.map(entry).collect()
}

/// What was changed after relocation.
fn patches(load: &Load<'_>) -> Vec<PatchEntry> {
    if load.record.patches.is_empty() {
        return Vec::new();
    }
    let explainer = Explainer::new(load);
    let entry = |patch: &reloc::Patch| {
        let at = load.module.placement.address(patch.place);
        PatchEntry {
            addr: address(at),
            size: patch.len,
            step: patch.step.name(),
            detail: explainer.detail(patch),
            symbol: explainer.symbol(at),
        }
    };
    load.record.patches.iter().map(entry).collect()
}

/// Bytes that only the running kernel knows.
fn runtime(load: &Load<'_>) -> Vec<RuntimeEntry> {
    let entry = |state: &reloc::RuntimeState| RuntimeEntry {
        addr: address(load.module.placement.address(state.place)),
        size: state.len,
        what: state.what.clone().into_owned(),
    };
    load.record.runtime.iter().map(entry).collect()
}

impl Document {
    /// With the module's symbols.
    pub fn with_symbols(mut self, load: &Load<'_>) -> Self {
        let module = &load.module;
        let all = module.info.file.symbols().iter().zip(&module.values).enumerate().skip(1);
        let entry = |(index, (symbol, value)): (usize, (&Sym, &u64))| SymbolEntry {
            index,
            name: text(module.info.file.symbol_name(symbol)),
            value: (!module.unknown.get(index).is_some_and(|unknown| *unknown)).then(|| address(*value)),
            size: symbol.size(),
            kind: symbol.kind(),
            bind: symbol.bind(),
            section: usize::from(symbol.shndx()),
        };
        self.symbols = Some(all.map(entry).collect());
        self
    }

    /// With the module's relocations.
    pub fn with_relocations(mut self, load: &Load<'_>) -> Self {
        let explainer = Explainer::new(load);
        let machine = load.module.info.file.e_machine();
        let entry = |relocation: &Relocation| RelocationEntry {
            addr: address(relocation.address),
            size: relocation.len,
            kind: reloc::type_text(machine, relocation.r_type).into_owned(),
            symbol: relocation.symbol,
            addend: relocation.addend,
            place: explainer.symbol(relocation.address),
        };
        self.relocations = Some(explainer.relocations().iter().map(entry).collect());
        self
    }

    /// Describes a load.
    pub fn new(load: &Load<'_>, release: &str, said: &Findings) -> Self {
        let pcpu = load.module.info.file.index().pcpu;
        let imports = load.resolution.imports.iter().map(|i| ImportEntry {
            name: text(i.name),
            addr: i.address.map(address),
            owner: text(i.owner),
            crc: i.crc.map(crc),
            gpl_only: i.gpl_only,
            namespace: some_text(i.namespace),
        });
        Document {
            schema: SCHEMA,
            module: load.module.info.file.name_text().into_owned(),
            arch: load.arch.name(),
            release: release.to_owned(),
            coverage: load.kernel.coverage().word(),
            stage: load.stage.name(),
            regions: regions(&load.module.layout, &load.module.placement),
            sections: sections(&load.module.info, &load.module.layout, &load.module.placement),
            imports: imports.collect(),
            exports: load.exports().map(ExportEntry::from).collect(),
            depends: load.resolution.depends.iter().map(|d| text(d)).collect(),
            percpu: PercpuEntry {
                addr: load.module.placement.percpu.map(address),
                size: load.module.info.sechdrs.get(pcpu).filter(|_| pcpu != 0).map_or(0, |s| s.sh_size),
            },
            plts: plts(load),
            symbols: None,
            relocations: None,
            patches: patches(load),
            runtime: runtime(load),
            unknown: load.record.unknown.clone(),
            unjudged: unjudged(said),
            findings: findings(said),
        }
    }
}
