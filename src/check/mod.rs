//! The verdict on modules: would a kernel load them?
//!
//! [`check`] judges one module. [`run`] does so for a whole set, whose modules load after those of the set that they
//! need ([`catalog`]).

pub mod by_kernel;
pub mod catalog;
pub mod read;
pub mod run;
pub mod set;
mod state;
pub mod summary;

use elf_layout::{Errno, Findings, Severity};
use kernel::{Kernel, Taint};
use serde::{Serialize, Serializer};
use symres::hints::cause;

use by_kernel::ByKernel;

use crate::document::{CauseEntry, FindingEntry, SCHEMA, UnjudgedEntry, errno_name, findings, unjudged};
use crate::error::Error;
use crate::image::Workspace;
use crate::load::{Args, Opened, open};
use crate::loader::{Loader, Place};

/// What a kernel makes of one module, as `check --jsonl` prints it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Verdict {
    /// The version of this document: 2.
    pub schema: u32,
    /// The file as it was named.
    pub file: String,
    /// Module name, null if the file tells none.
    pub module: Option<String>,
    /// Release of the kernel, null if it is not known; its path, where kernels of one release are told apart.
    pub kernel: Option<String>,
    /// How far what is said of this kernel is known to be right: `exact`, `rules` or `unknown`.
    pub coverage: &'static str,
    /// `loads`, `refused`, `oops` or `undecided`.
    #[serde(serialize_with = "verdict_word")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub verdict: Ending,
    /// What the system call returns: where rules are unjudged, unless one of them refuses the module before. Null if the
    /// module loads, the kernel crashes, or the verdict is undecided.
    #[serde(serialize_with = "errno_name")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub errno: Option<Errno>,
    /// What the kernel logs, in order; it stops where it stops. Nothing if the verdict is undecided.
    pub dmesg: Vec<String>,
    /// Taint letters of the module, as far as the load comes.
    pub taints: String,
    /// The one cause behind many findings: the module was built for another kernel. Null if there is none.
    pub cause: Option<CauseEntry>,
    /// The rules that were not judged before the kernel stops, and what settles each.
    pub unjudged: Vec<UnjudgedEntry>,
    /// The modules that are loaded before it, in this order; left out if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub with: Vec<String>,
    /// Everything found, also behind the point where the kernel stops.
    pub findings: Vec<FindingEntry>,
    /// Findings that were counted but not kept.
    pub suppressed: u64,
    /// What the kernel's own code makes of it; left out if it was not asked (`--judge`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub by_kernel: Option<ByKernel>,
}

impl Verdict {
    /// Does the kernel take the module?
    pub fn loads(&self) -> bool {
        self.verdict == Ending::Good
    }

    /// Does the kernel refuse it, or crash?
    pub fn is_refused(&self) -> bool {
        matches!(self.verdict, Ending::Refused | Ending::Oops)
    }

    /// `loads`, `refused`, `oops` or `undecided`.
    pub fn word(&self) -> &'static str {
        self.verdict.word("loads")
    }

    /// Does it take the module without a complaint?
    pub fn is_clean(&self) -> bool {
        self.loads() && self.findings.iter().all(|f| f.severity == Severity::Note)
    }

    /// A module that it needs is loaded before it, under this name, and the kernel does not take that one for certain: nor does
    /// it come to this one (SET-9).
    pub fn is_loaded_after(&mut self, name: &str, other: &Verdict) {
        if other.loads() || self.is_refused() {
            return;
        }
        let (Ending::Refused | Ending::Oops, errno) = (other.verdict, other.errno) else {
            self.verdict = Ending::Undecided;
            let open = |rule: &&UnjudgedEntry| !self.unjudged.iter().any(|own| own.needs == rule.needs);
            let needs = other.unjudged.iter().filter(open).map(|rule| UnjudgedEntry {
                code: "SET-9",
                needs: format!("to know whether {name} loads, which it needs: {}", rule.needs),
            });
            let needs: Vec<UnjudgedEntry> = needs.collect();
            self.unjudged.extend(needs);
            return;
        };
        let how =
            errno.map_or(String::from("crashes the kernel"), |e| format!("is refused with {}", e.name()));
        let why = format!("{name}, which it needs, {how}: modprobe comes no further");
        self.findings.push(FindingEntry {
            errno,
            dmesg: other.dmesg.first().cloned(),
            stops_here: true,
            ..FindingEntry::from(&elf_layout::Finding::note("SET-9", Severity::Error, why).hint(format!(
                "mend {name} first, which is judged too; --no-deps judges this module as if it were loaded"
            )))
        });
        (self.verdict, self.errno) = (other.verdict, errno);
        self.dmesg.clone_from(&other.dmesg);
    }

    /// About how many bytes it takes in memory.
    fn weight(&self) -> usize {
        let text = |f: &FindingEntry| {
            let optional = [&f.dmesg, &f.hint].into_iter().flatten().map(String::len).sum::<usize>();
            optional.saturating_add(f.subject.len()).saturating_add(f.explanation.len())
        };
        let one = |f: &FindingEntry| text(f).saturating_add(size_of::<FindingEntry>());
        let log = self.dmesg.iter().map(|line| line.len().saturating_add(size_of::<String>()));
        let all = self.findings.iter().map(one).chain(log).fold(0, usize::saturating_add);
        all.saturating_add(size_of::<Verdict>()).saturating_add(self.file.len())
    }
}

/// What stands in place of a verdict where a file cannot be read. It has the fields of [`Verdict`], so that who looks for
/// those finds them.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Unreadable {
    /// The version of this document: 2.
    pub schema: u32,
    /// The file as it was named or found.
    pub file: Option<String>,
    /// Null.
    pub module: Option<String>,
    /// Null.
    pub kernel: Option<String>,
    /// `unreadable`.
    pub verdict: &'static str,
    /// Why it cannot be read.
    pub error: String,
    /// Null: no kernel was asked.
    pub errno: Option<String>,
    /// Empty.
    pub dmesg: Vec<String>,
    /// Empty.
    pub findings: Vec<FindingEntry>,
}

impl Unreadable {
    /// Of what keeps a file from being read.
    pub fn of(error: &Error) -> Self {
        Unreadable {
            schema: SCHEMA,
            file: error.path().map(|path| path.display().to_string()),
            module: None,
            kernel: None,
            verdict: "unreadable",
            error: error.to_string(),
            errno: None,
            dmesg: Vec::new(),
            findings: Vec::new(),
        }
    }
}

/// Checks one module, already decompressed, against a kernel with the modules loaded so far.
pub fn check(loader: &Loader, file: &str, bytes: &[u8], args: &Args<'_>) -> Verdict {
    judge(loader, file, &open(bytes, &loader.kernel, args.flags), args, &mut Workspace::default()).0
}

/// The verdict on a module, and whether it is marked as proprietary (LIC-5).
fn judge(
    loader: &Loader,
    file: &str,
    opened: &Opened<'_>,
    args: &Args<'_>,
    workspace: &mut Workspace,
) -> (Verdict, bool) {
    let (load, said) = loader.load_in(workspace, opened, args, &Place::Kernel, None).whatever_it_says();
    let proprietary = load.as_ref().is_some_and(|l| l.resolution.taints.module_has(Taint::ProprietaryModule));
    let taints = load.as_ref().map(|l| l.taints.module_letters()).unwrap_or_default();
    load.into_iter().for_each(|load| workspace.recycle(load.module));
    (verdict(file, &loader.kernel, opened, &said, taints), proprietary)
}

/// How a load, or what else is asked of a kernel, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is done.
    Good,
    /// The kernel refuses it with an errno.
    Refused,
    /// The kernel crashes.
    Oops,
    /// That hangs on rules that were not judged.
    Undecided,
}

impl Ending {
    /// All of them.
    pub const ALL: [Ending; 4] = [Ending::Good, Ending::Refused, Ending::Oops, Ending::Undecided];

    /// How it ends by what the kernel says.
    pub fn of(said: &Findings) -> Self {
        match (said.refused(), said.errno()) {
            _ if said.is_undecided() => Ending::Undecided,
            (false, _) => Ending::Good,
            (true, Some(_)) => Ending::Refused,
            (true, None) => Ending::Oops,
        }
    }

    /// The word for it: `good`, which depends on what was asked, `refused`, `oops`, or `undecided`.
    pub fn word(self, good: &'static str) -> &'static str {
        match self {
            Ending::Good => good,
            Ending::Refused => "refused",
            Ending::Oops => "oops",
            Ending::Undecided => "undecided",
        }
    }
}

fn verdict_word<S: Serializer>(verdict: &Ending, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(verdict.word("loads"))
}

fn verdict(file: &str, kernel: &Kernel, opened: &Opened<'_>, said: &Findings, taints: String) -> Verdict {
    let name = opened.module.as_ref().map(|m| m.name_text().into_owned()).filter(|name| !name.is_empty());
    let ending = Ending::of(said);
    let is_decided = ending != Ending::Undecided;
    let mut findings = findings(said);
    if !kernel.release.is_empty() {
        // General advice speaks of any kernel.
        let hints = findings.iter_mut().filter_map(|f| f.hint.as_mut());
        let hints = hints.filter(|hint| hint.contains("RELEASE"));
        hints.for_each(|hint| *hint = hint.replace("RELEASE", &kernel.release));
    }
    Verdict {
        schema: SCHEMA,
        file: file.to_owned(),
        module: name,
        kernel: Some(&kernel.release).filter(|release| !release.is_empty()).cloned(),
        coverage: kernel.coverage().word(),
        verdict: ending,
        errno: said.errno().filter(|_| is_decided),
        dmesg: said.dmesg().filter(|_| is_decided).map(str::to_owned).collect(),
        taints,
        cause: opened.module.as_ref().and_then(|file| cause(kernel, file, said)).map(CauseEntry::from),
        unjudged: unjudged(said),
        with: Vec::new(),
        findings,
        suppressed: said.suppressed(),
        by_kernel: None,
    }
}
