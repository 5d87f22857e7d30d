//! What comes of verifying: results as data, and their JSON.

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::Serialize;

use crate::document::address;

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Code that is no site of anything.
    Code,
    /// Read-only data.
    Rodata,
    /// Memory between sections, or behind the last.
    Padding,
    /// A site of a static key, against its key.
    JumpLabel,
    /// A site of a static call, against its key; or a key that leads to nobody's code.
    StaticCall,
    /// A site of the function tracer, against the tracer's records.
    Ftrace,
    /// A breakpoint whose kprobe has saved another byte.
    Kprobe,
    /// A lock prefix.
    SmpLock,
    /// A pointer to a function in a variable.
    FunctionPointer,
    /// A member of `struct module`.
    StructModule,
    /// A module that not all lists have.
    HiddenModule,
    /// Executable memory in the module area that is nobody's.
    UnexplainedCode,
}

impl Kind {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Code => "code",
            Kind::Rodata => "rodata",
            Kind::Padding => "padding",
            Kind::JumpLabel => "jump-label",
            Kind::StaticCall => "static-call",
            Kind::Ftrace => "ftrace",
            Kind::Kprobe => "kprobe",
            Kind::SmpLock => "smp-lock",
            Kind::FunctionPointer => "function-pointer",
            Kind::StructModule => "struct-module",
            Kind::HiddenModule => "hidden-module",
            Kind::UnexplainedCode => "unexplained-code",
        }
    }

    /// What it means, in a line.
    pub const fn message(self) -> &'static str {
        match self {
            Kind::Code => "code that is not what the file and this kernel make of it",
            Kind::Rodata => "read-only data that is not what the file and this kernel make of it",
            Kind::Padding => "bytes where the module has nothing",
            Kind::JumpLabel => "a jump label that is not as its key says",
            Kind::StaticCall => "a static call that is not as its key says",
            Kind::Ftrace => "a site of the function tracer that no record of it explains",
            Kind::Kprobe => "a breakpoint whose kprobe has saved another byte than that of the file",
            Kind::SmpLock => "a lock prefix that is neither there nor legally replaced",
            Kind::FunctionPointer => "a pointer to a function that leads elsewhere",
            Kind::StructModule => "a member of struct module that is not what the file makes it",
            Kind::HiddenModule => "a module that is not on every list",
            Kind::UnexplainedCode => "executable memory in the module area that is nobody's",
        }
    }

    /// Is it about instructions?
    pub const fn is_code(self) -> bool {
        matches!(
            self,
            Kind::Code | Kind::JumpLabel | Kind::StaticCall | Kind::Ftrace | Kind::Kprobe | Kind::SmpLock
        )
    }
}

/// A change that nothing explains.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Alarm {
    /// What it is about.
    pub kind: Kind,
    /// The module, if it is one's.
    pub module: Option<String>,
    /// Where it begins.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// `symbol+offset`
    pub symbol: Option<String>,
    /// The section.
    pub section: Option<String>,
    /// The bytes that should be there.
    pub expected: Vec<u8>,
    /// Those that are.
    pub found: Vec<u8>,
    /// Both as instructions.
    pub expected_code: Option<String>,
    /// Both as instructions.
    pub found_code: Option<String>,
    /// Where what is there leads, and what that is.
    pub leads_to: Option<(u64, String)>,
    /// What could legally be there, in words or bytes.
    pub legal: Vec<String>,
    /// What it is, in a line.
    pub message: String,
}

/// A legal change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// Where it begins.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// What changed.
    pub what: &'static str,
    /// Why that is legal.
    pub why: String,
}

/// How a module was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every byte is what it should be, or legally changed.
    Clean,
    /// There are alarms.
    Changed,
    /// There is no file for it.
    NoFile,
    /// It could not be judged, or not all of it.
    Undecided,
}

impl Verdict {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Clean => "clean",
            Verdict::Changed => "changed",
            Verdict::NoFile => "no-file",
            Verdict::Undecided => "undecided",
        }
    }
}

/// A module, judged.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModuleReport {
    /// Its name.
    pub name: String,
    /// Address of its `struct module`.
    pub address: u64,
    /// The address of its first region.
    pub base: u64,
    /// Its regions: name, address, bytes.
    pub regions: Vec<(&'static str, u64, u64)>,
    /// The file that it was compared with.
    pub file: Option<std::path::PathBuf>,
    /// By what the file was proven to be it.
    pub proof: Option<&'static str>,
    /// How it was judged.
    pub verdict: Verdict,
    /// Bytes that were compared.
    pub bytes: u64,
    /// Sites that were judged.
    pub sites: u64,
    /// Pointers to functions that were followed.
    pub pointers: u64,
    /// Legal changes.
    pub changes: Vec<Change>,
    /// Alarms, as many as are in the report's list.
    pub alarms: usize,
    /// Bytes of these.
    pub alarm_bytes: u64,
    /// What could not be judged.
    pub open: Vec<String>,
}

/// All that was found out.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Release of the kernel.
    pub release: String,
    /// Its banner in memory.
    pub banner: String,
    /// How far it runs from its link addresses.
    pub slide: u64,
    /// How it was found.
    pub how: String,
    /// What of the dump is cut off or broken.
    pub damage: Vec<String>,
    /// What could not be read of the kernel.
    pub unread: Vec<String>,
    /// The modules, oldest first.
    pub modules: Vec<ModuleReport>,
    /// The alarms, by address.
    pub alarms: Vec<Alarm>,
}

impl Report {
    /// Was everything judged?
    pub fn is_decided(&self) -> bool {
        self.unread.is_empty()
            && self
                .modules
                .iter()
                .all(|m| matches!(m.verdict, Verdict::Clean | Verdict::Changed) && m.open.is_empty())
    }
}

/// The document of `verify --json`.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[non_exhaustive]
pub struct VerifyDocument {
    /// Version of this document.
    pub schema: u32,
    /// The kernel's release.
    pub release: String,
    /// Its banner, as it stands in memory.
    pub banner: String,
    /// How far it runs from its link addresses.
    pub slide: String,
    /// How it was found in the dump.
    pub found_by: String,
    /// What of the dump is cut off or broken.
    pub damage: Vec<String>,
    /// What could not be judged of the kernel as a whole.
    pub unjudged: Vec<String>,
    /// The modules, oldest first.
    pub modules: Vec<ModuleEntry>,
    /// Changes that nothing explains, by address.
    pub alarms: Vec<AlarmEntry>,
}

/// A module.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[non_exhaustive]
pub struct ModuleEntry {
    /// Its name.
    pub name: String,
    /// Address of its first region.
    pub base: String,
    /// Address of its `struct module`.
    pub struct_module: String,
    /// Its regions.
    pub regions: Vec<PlaceEntry>,
    /// The file that it was compared with.
    pub file: Option<String>,
    /// By what the file was proven to be it: build-id, srcversion or fit.
    pub proof: Option<&'static str>,
    /// How it was judged.
    pub verdict: Verdict,
    /// Bytes that were compared.
    pub bytes: u64,
    /// Sites that were judged.
    pub sites: u64,
    /// Pointers to functions that were followed.
    pub pointers: u64,
    /// Legal changes.
    pub changes: Vec<ChangeEntry>,
    /// Alarms about it.
    pub alarms: usize,
    /// What could not be judged.
    pub unjudged: Vec<String>,
}

/// A region of a module.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[non_exhaustive]
pub struct PlaceEntry {
    /// Its name, as in `link --json`.
    pub name: &'static str,
    /// Address of its first byte.
    pub addr: String,
    /// Bytes.
    pub size: u64,
}

/// A legal change.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[non_exhaustive]
pub struct ChangeEntry {
    /// Where it begins.
    pub addr: String,
    /// Bytes.
    pub size: u64,
    /// What changed.
    pub what: String,
    /// Why it is legal.
    pub why: String,
}

/// A change that nothing explains.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[non_exhaustive]
pub struct AlarmEntry {
    /// Where it begins.
    pub addr: String,
    /// Bytes.
    pub size: u64,
    /// The module.
    pub module: Option<String>,
    /// What it is about.
    pub kind: Kind,
    /// `symbol+offset`
    pub symbol: Option<String>,
    /// The section.
    pub section: Option<String>,
    /// The bytes that should be there, in hex.
    pub expected: String,
    /// Those that are, in hex.
    pub found: String,
    /// The instructions that should be there.
    pub expected_code: Option<String>,
    /// Those that are.
    pub found_code: Option<String>,
    /// Where what is there leads.
    pub target: Option<String>,
    /// What that is.
    pub target_is: Option<String>,
    /// What could legally be there.
    pub legal: Vec<String>,
    /// What it is, in a line.
    pub message: String,
}

impl From<&Alarm> for AlarmEntry {
    fn from(alarm: &Alarm) -> Self {
        AlarmEntry {
            addr: address(alarm.address),
            size: alarm.size,
            module: alarm.module.clone(),
            kind: alarm.kind,
            symbol: alarm.symbol.clone(),
            section: alarm.section.clone(),
            expected: hex(&alarm.expected),
            found: hex(&alarm.found),
            expected_code: alarm.expected_code.clone(),
            found_code: alarm.found_code.clone(),
            target: alarm.leads_to.as_ref().map(|(target, _)| address(*target)),
            target_is: alarm.leads_to.as_ref().map(|(_, words)| words.clone()),
            legal: alarm.legal.clone(),
            message: alarm.message.clone(),
        }
    }
}

impl From<&Report> for VerifyDocument {
    fn from(report: &Report) -> Self {
        let change = |change: &Change| ChangeEntry {
            addr: address(change.address),
            size: change.size,
            what: change.what.into(),
            why: change.why.clone(),
        };
        let module = |module: &ModuleReport| ModuleEntry {
            name: module.name.clone(),
            base: address(module.base),
            struct_module: address(module.address),
            regions: module
                .regions
                .iter()
                .map(|(name, base, size)| PlaceEntry { name, addr: address(*base), size: *size })
                .collect(),
            file: module.file.as_ref().map(|file| file.display().to_string()),
            proof: module.proof,
            verdict: module.verdict,
            bytes: module.bytes,
            sites: module.sites,
            pointers: module.pointers,
            changes: module.changes.iter().map(change).collect(),
            alarms: module.alarms,
            unjudged: module.open.clone(),
        };
        VerifyDocument {
            schema: 1,
            release: report.release.clone(),
            banner: report.banner.clone(),
            slide: address(report.slide),
            found_by: report.how.clone(),
            damage: report.damage.clone(),
            unjudged: report.unread.clone(),
            modules: report.modules.iter().map(module).collect(),
            alarms: report.alarms.iter().map(AlarmEntry::from).collect(),
        }
    }
}

/// Bytes in hex, with blanks.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}
