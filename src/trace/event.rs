//! What happens to a module on its way into the kernel: the stream that `trace --json` prints, an event a line. The text and the
//! page are made from these events and from nothing else.
//!
//! What follows an [`Event::Step`] belongs to that step, up to the next one. Addresses and CRCs are hex strings, sizes and
//! offsets are numbers of bytes, bytes are hex digits in the order of their addresses.

use std::borrow::Cow;

use serde::Serialize;

pub use super::values::{Address, Bytes};
use crate::document::{FindingEntry, UnjudgedEntry};

/// One thing that happens, or one thing that is seen.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A module is to be loaded.
    Begin(Begin),
    /// A step of a load or of a removal begins.
    Step(Step),
    /// What the step looks at.
    Facts(Facts),
    /// The section headers as the step leaves them.
    Sections(Sections),
    /// The memory of the module.
    Memory(Memory),
    /// What may be done with memory from here on.
    Protected(Protected),
    /// A table of the module that a step has found.
    Table(Table),
    /// The symbols that the module brings along.
    Symbols(Symbols),
    /// A symbol that is taken from elsewhere, or that is not found.
    Import(Import),
    /// The relocations of one section.
    Relocations(Relocations),
    /// A slot of a linkage table that branches go through.
    Slot(Slot),
    /// Bytes of a section, or between sections, that the step has changed.
    Changed(Changed),
    /// One place that the step has patched.
    Patch(Patch),
    /// Bytes that only the running kernel knows.
    Runtime(Runtime),
    /// What would have been needed of the running kernel and was not known.
    Unknown(Unknown),
    /// One parameter, as it is parsed.
    Parameter(Parameter),
    /// The module is in another state.
    State(State),
    /// The notifiers are told of a state.
    Notified(Notified),
    /// A function of the module is called.
    Call(Call),
    /// Memory that is free again.
    Freed(Freed),
    /// Something that the kernel would say, or that is against the module.
    Finding(FindingEntry),
    /// A rule that was not judged.
    Unjudged(UnjudgedEntry),
    /// The kernel goes no further.
    Stop(Stop),
    /// One thing was asked of the kernel between two loads, or after one.
    Asked(Asked),
}

/// A module is to be loaded.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Begin {
    /// The version of this stream: 2.
    pub schema: u32,
    /// The file as it was named.
    pub file: String,
    /// Its bytes, without those of a signature behind it.
    pub size: u64,
    /// Name of the module; null if it has none that could be read.
    pub module: Option<String>,
    /// Its architecture, as `uname -m` calls it; null if that is unknown.
    pub arch: Option<&'static str>,
    /// Release of the kernel.
    pub kernel: String,
    /// How far what is said of this kernel is known to be right: `exact`, `rules` or `unknown`.
    pub coverage: &'static str,
    /// Bytes of a page.
    pub page_size: u64,
    /// Parameters, as `mod->args`.
    pub params: String,
    /// The modules that are loaded already, newest first.
    pub loaded: Vec<String>,
}

/// A step begins.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Step {
    /// Its name, as `--step` takes it.
    pub name: &'static str,
    /// The functions of the kernel that do it.
    pub functions: Vec<&'static str>,
    /// Does the kernel come to it? After a stop it does not: what follows would have come.
    pub reached: bool,
}

/// What a step looks at.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Facts {
    /// In order.
    pub facts: Vec<Fact>,
}

/// One fact.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Fact {
    /// What it is of: a word of a fixed list.
    pub name: &'static str,
    /// What it is.
    pub value: String,
}

/// The section headers as a step leaves them.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Sections {
    /// All but the first, which is empty.
    pub sections: Vec<Section>,
}

/// One section header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Section {
    /// Its index.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its type, such as `PROGBITS`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Its flags as `readelf` shows them: W, A, X, M, S, I, L, G, T; and R for read-only after init, which only the loader sets.
    pub flags: String,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// `sh_addr`: a number in the file; after the first rewrite `hdr+0x...`, an address in the temporary copy, which nobody knows
    /// afterwards; after the second the final address.
    pub addr: String,
    /// The region that it goes to; null while that is not known, and if it is not moved.
    pub region: Option<&'static str>,
    /// Where it goes in that region.
    pub region_offset: Option<u64>,
}

/// The memory of the module.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Memory {
    /// Regions in order of allocation.
    pub regions: Vec<Region>,
}

/// One region.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Region {
    /// Its name.
    pub name: &'static str,
    /// Address of its first byte; null before it is allocated.
    pub base: Option<Address>,
    /// Bytes in use.
    pub size: u64,
    /// Bytes that are allocated: whole pages.
    pub allocated: u64,
    /// `rwx` as letters, once the module is formed.
    pub permissions: String,
    /// Is it freed after init?
    pub init: bool,
}

/// What may be done with memory from here on.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Protected {
    /// In order of allocation.
    pub parts: Vec<ProtectedPart>,
}

/// Whole pages with the same permissions.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ProtectedPart {
    /// The region.
    pub region: &'static str,
    /// Address of the first byte.
    pub addr: Address,
    /// Bytes.
    pub size: u64,
    /// `rwx` as letters.
    pub permissions: &'static str,
}

/// A table of the module that a step has found.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Table {
    /// Its section.
    pub name: String,
    /// Where it is.
    pub addr: Address,
    /// Bytes.
    pub size: u64,
}

/// The symbols that the module brings along.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Symbols {
    /// All but the first, which is empty, in table order.
    pub symbols: Vec<Symbol>,
}

/// One symbol.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Symbol {
    /// Its index.
    pub index: usize,
    /// Its name; that of its section if it stands for one.
    pub name: String,
    /// Index of its section; 0 if it is imported.
    pub section: u16,
    /// `st_value` in the file: the offset in its section.
    pub file_value: u64,
    /// `st_value` after the step; null if it is not known.
    pub value: Option<Address>,
    /// Bytes.
    pub size: u64,
}

/// A symbol that is taken from elsewhere.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Import {
    /// Its index in the symbol table.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Is it weak: may it be missing?
    pub weak: bool,
    /// Whose tables were asked, in order; the last one of the last answered, if one did.
    pub asked: Vec<AskedOwner>,
    /// Who answered: `vmlinux` or a module.
    pub owner: Option<String>,
    /// Does the module get it? A CRC or a namespace can forbid it.
    pub taken: bool,
    /// The table that has it.
    pub table: Option<&'static str>,
    /// Its address, null if it is not known.
    pub addr: Option<Address>,
    /// For GPL-compatible modules only.
    pub gpl_only: bool,
    /// CRC of the export.
    pub crc: Option<String>,
    /// CRC that the module expects.
    pub expected_crc: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Does the module import that namespace?
    pub namespace_imported: bool,
}

/// Who was asked for a symbol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct AskedOwner {
    /// `vmlinux` or a module.
    pub owner: String,
    /// Its tables that were searched, in order.
    pub tables: &'static [&'static str],
}

/// The relocations of one section.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Relocations {
    /// The RELA section.
    pub section: usize,
    /// Its name.
    pub name: String,
    /// The section that it patches.
    pub target: usize,
    /// The name of that one.
    pub target_name: String,
    /// Where that one is.
    pub target_addr: Address,
    /// Its records in the order in which they are applied.
    pub records: Vec<Relocation>,
}

/// One relocation.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Relocation {
    /// Its number in the section.
    pub entry: usize,
    /// Where it writes: the offset in the target section.
    pub offset: u64,
    /// Its type by name.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// Index of its symbol.
    pub symbol: u32,
    /// Name of the symbol, or of its section.
    pub symbol_name: String,
    /// S: the value of the symbol; null if it is not known.
    pub s: Option<Address>,
    /// A: the addend.
    pub a: i64,
    /// P: the address of the place.
    pub p: Address,
    /// What is computed, in these terms; null if nothing is.
    pub formula: Option<&'static str>,
    /// What comes of it.
    pub result: Option<Address>,
    /// The slot of a linkage table that it goes through, as its target is out of reach.
    pub slot: Option<Address>,
    /// What of it goes into the instruction; null if it is stored as a number.
    pub entered: Option<Entered>,
    /// Other relocations write some of these bytes too.
    pub shared: bool,
    /// The bytes of the place in the file.
    pub before: Bytes,
    /// The same bytes on return of `apply_relocations`.
    pub after: Bytes,
    /// The instruction that has these bytes, if they are code.
    pub code: Option<Code>,
}

/// The bits of a result that go into an instruction.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Entered {
    /// The lowest one; 0 is the lowest of the result.
    pub from: u32,
    /// The highest one.
    pub to: u32,
    /// Are they inverted, as the result is negative?
    pub inverted: bool,
    /// The number that they are. It is of the distance to the slot if there is one.
    pub value: u64,
}

/// Machine code before and after.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Code {
    /// Address of the first byte.
    pub addr: Address,
    /// Bytes.
    pub size: u64,
    /// Its instructions before.
    pub before: String,
    /// Its instructions after.
    pub after: String,
}

/// A slot of a linkage table.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Slot {
    /// The section of the table.
    pub section: String,
    /// Where it is.
    pub addr: Address,
    /// Where it leads.
    pub target: Address,
}

/// Bytes that a step has changed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Changed {
    /// The function that does it.
    pub function: &'static str,
    /// Their section; null for what lies behind the sections.
    pub section: Option<String>,
    /// Address of the first one that differs.
    pub addr: Address,
    /// How many bytes differ.
    pub count: u64,
    /// The first ones before.
    pub before: Bytes,
    /// The first ones after.
    pub after: Bytes,
}

/// One place that a step has patched.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Patch {
    /// What is done.
    pub what: &'static str,
    /// Why just there: the capability of an alternative, the target of a call, the member of a struct; null if there is no
    /// such thing.
    pub reason: Option<String>,
    /// Address of the first byte.
    pub addr: Address,
    /// How many bytes.
    pub size: u64,
    /// Their section.
    pub section: Option<String>,
    /// The symbol before it, with the distance.
    pub symbol: Option<String>,
    /// Address of the first byte that is shown: of a long table, the first one that differs. Null if none differs.
    pub shown: Option<Address>,
    /// The bytes before; the first ones of a long table.
    pub before: Bytes,
    /// The bytes after; as many.
    pub after: Bytes,
    /// The same as instructions, if they are code.
    pub code: Option<Code>,
}

/// Bytes that only the running kernel knows.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Runtime {
    /// Address of the first one.
    pub addr: Address,
    /// How many.
    pub size: u64,
    /// What they are.
    pub what: String,
}

/// What would have been needed of the running kernel.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Unknown {
    /// What it is.
    pub what: String,
}

/// One parameter.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Parameter {
    /// Its name as it was given.
    pub name: String,
    /// Its value; null if it was given none.
    pub value: Option<String>,
    /// Its type, such as `int`; null if the module has no such parameter.
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// The module is in another state.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct State {
    /// The module.
    pub module: String,
    /// `UNFORMED`, `COMING`, `LIVE` or `GOING`.
    pub state: &'static str,
}

/// The notifiers are told of a state.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Notified {
    /// The module.
    pub module: String,
    /// `COMING`, `LIVE` or `GOING`.
    pub state: &'static str,
    /// Those that are called, in order.
    pub notifiers: Vec<Notifier>,
}

/// A notifier that is called.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Notifier {
    /// Its name.
    pub function: &'static str,
    /// Its priority.
    pub priority: i32,
}

/// A function of the module is called.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Call {
    /// The module.
    pub module: String,
    /// `init` or `exit`.
    pub function: &'static str,
    /// Its address, if it is known.
    pub addr: Option<Address>,
    /// What it was told to return: no code runs here. `crash` if it never does.
    pub returns: Option<String>,
}

/// Memory that is free again.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Freed {
    /// The module.
    pub module: String,
    /// `init`: what was for init only; `all`: everything.
    pub what: &'static str,
    /// The regions.
    pub regions: Vec<Region>,
}

/// The kernel goes no further.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Stop {
    /// The step that ends here.
    pub step: &'static str,
    /// What the system call returns; null if the kernel crashes.
    pub errno: Option<&'static str>,
    /// All that the kernel has logged by then.
    pub dmesg: Vec<String>,
}

/// One thing was asked of the kernel.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Asked {
    /// The step as it was given, such as `rmmod hello`.
    pub step: String,
    /// `done`, `refused`, `oops` or `undecided`.
    pub result: &'static str,
    /// What it prints; null if it prints nothing.
    pub output: Option<String>,
}
