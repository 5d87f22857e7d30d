//! What the kernel would say about a module. A finding is data, not an error:
//! loading goes on where it can, so that one run tells every reason.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

macro_rules! errnos {
    ($($name:ident = $value:literal,)*) => {
        /// The error a system call returns (as `-errno`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::upper_case_acronyms, reason = "the field's own names")]
        #[repr(u8)]
        pub enum Errno { $(#[doc = concat!("errno ", $value)] $name = $value,)* }

        impl Errno {
            /// Its name, as in `errno.h`.
            pub const fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* }
            }
        }
    };
}

errnos! {
    EPERM = 1,
    ENOENT = 2,
    ENOEXEC = 8,
    ENOMEM = 12,
    EBUSY = 16,
    EEXIST = 17,
    EINVAL = 22,
    ENOSPC = 28,
    EROFS = 30,
    ERANGE = 34,
    ENOPKG = 65,
    EBADMSG = 74,
    EKEYREJECTED = 129,
}

impl Errno {
    /// Its number.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The kernel refuses the module.
    Error,
    /// The kernel would not notice and corrupt its own memory or crash.
    Oops,
    /// The kernel loads the module and complains, or should have.
    Warning,
    /// Worth knowing; the kernel says nothing.
    Note,
}

impl Severity {
    /// The word used in JSON and on the terminal.
    pub const fn word(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Oops => "oops",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }

    /// Does it keep the module from being loaded properly?
    pub const fn refuses(self) -> bool {
        matches!(self, Severity::Error | Severity::Oops)
    }
}

/// The part of the module that a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The module or file as a whole.
    Module,
    /// One section.
    Section {
        /// Its index in the section header table.
        index: u32,
        /// Its name.
        name: String,
    },
    /// One symbol.
    Symbol {
        /// Its index in the symbol table.
        index: u32,
        /// Its name.
        name: String,
    },
    /// One relocation.
    Relocation {
        /// Index of the RELA section.
        section: u32,
        /// Index of the record in it.
        entry: u32,
        /// Name of the section that it patches.
        target: String,
        /// Byte offset in that section.
        offset: u64,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Module => f.write_str("module"),
            Subject::Section { index, name } => write!(f, "section {index} {name}"),
            Subject::Symbol { index, name } => write!(f, "symbol {index} {name}"),
            Subject::Relocation { section, entry, target, offset } => {
                write!(f, "relocation {entry} of section {section}, at {target}+{offset:#x}")
            }
        }
    }
}

/// One thing to say about a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule of `docs/spec/` that it follows from.
    pub code: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// What the system call returns because of it.
    pub errno: Option<Errno>,
    /// The kernel's log lines for it, without time stamps; empty if it is silent.
    pub dmesg: Vec<String>,
    /// What it is about.
    pub subject: Subject,
    /// What is wrong in this very case.
    pub explanation: Cow<'static, str>,
    /// What to do about it.
    pub hint: Option<String>,
    /// This is where the kernel gives up; it would not see what follows.
    pub stops_here: bool,
}

impl Finding {
    /// A refusal with an errno.
    pub fn error(code: &'static str, errno: Errno, explanation: impl Into<Cow<'static, str>>) -> Self {
        Finding {
            code,
            severity: Severity::Error,
            errno: Some(errno),
            dmesg: Vec::new(),
            subject: Subject::Module,
            explanation: explanation.into(),
            hint: None,
            stops_here: false,
        }
    }

    /// A finding that carries no errno.
    pub fn note(code: &'static str, severity: Severity, explanation: impl Into<Cow<'static, str>>) -> Self {
        Finding { severity, errno: None, ..Finding::error(code, Errno::ENOEXEC, explanation) }
    }

    /// With a line of the kernel's log.
    pub fn says(mut self, line: impl Into<String>) -> Self {
        self.dmesg.push(line.into());
        self
    }

    /// With what it is about.
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Everything said about one load, in the order in which the kernel would say it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    stopped: Option<(usize, Option<Errno>)>,
    suppressed: u64,
}

/// More findings than this are counted, not kept: a hostile file can hold millions of defects.
pub const FINDINGS_MAX: usize = 10_000;

impl Findings {
    /// Nothing said yet.
    pub fn new() -> Self {
        Findings::default()
    }

    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
        }
    }

    /// How many findings there are: a mark for [`Findings::refused_since`].
    pub fn mark(&self) -> usize {
        self.list.len()
    }

    /// Has a finding since `mark` refused the module?
    pub fn refused_since(&self, mark: usize) -> bool {
        self.list.iter().skip(mark).any(|f| f.severity.refuses())
    }

    /// Ends a stage: if it refused the module and no earlier stage did, its last
    /// refusal is where the kernel stops, with that errno (SYM-8: the last
    /// failing symbol decides; stages that stop at once have only one).
    pub fn end_stage(&mut self, mark: usize) {
        self.stop_at(mark, false);
    }

    /// Ends a stage that the kernel leaves at its first refusal.
    pub fn end_stage_at_first(&mut self, mark: usize) {
        self.stop_at(mark, true);
    }

    fn stop_at(&mut self, mark: usize, first: bool) {
        if self.stopped.is_some() {
            return;
        }
        let mut refusals = self.list.iter_mut().enumerate().skip(mark).filter(|(_, f)| f.severity.refuses());
        let at = if first { refusals.next() } else { refusals.last() };
        if let Some((index, finding)) = at {
            finding.stops_here = true;
            self.stopped = Some((index, finding.errno));
        }
    }

    /// Would the kernel refuse the module, or crash?
    pub fn refused(&self) -> bool {
        self.stopped.is_some()
    }

    /// What the system call returns; `None` if the module loads.
    pub fn errno(&self) -> Option<Errno> {
        self.stopped.and_then(|(_, errno)| errno)
    }

    /// The log lines that the kernel prints, which end where it stops.
    pub fn dmesg(&self) -> impl Iterator<Item = &str> {
        let kept = self.stopped.map_or(self.list.len(), |(at, _)| at.saturating_add(1));
        self.list.iter().take(kept).flat_map(|f| f.dmesg.iter().map(String::as_str))
    }

    /// All findings, to be said by somebody else.
    pub fn into_list(self) -> Vec<Finding> {
        self.list
    }

    /// All findings.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// How many were counted but not kept.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sym_8_the_last_refusal_of_a_stage_decides() {
        let mut said = Findings::new();
        let mark = said.mark();
        said.push(Finding::error("SYM-5", Errno::ENOENT, "a").says("one"));
        said.push(Finding::error("SYM-5b", Errno::EINVAL, "b").says("two"));
        said.end_stage(mark);
        let mark = said.mark();
        said.push(Finding::error("X86REL-1", Errno::ENOEXEC, "c").says("three"));
        said.end_stage_at_first(mark);
        assert_eq!(said.errno(), Some(Errno::EINVAL), "SYM-8: the last failing symbol's errno");
        assert_eq!(said.dmesg().collect::<Vec<_>>(), ["one", "two"], "the kernel never reaches the third");
        assert_eq!(said.iter().filter(|f| f.stops_here).count(), 1);
    }

    #[test]
    fn findings_are_bounded() {
        let mut said = Findings::new();
        for _ in 0..FINDINGS_MAX + 5 {
            said.push(Finding::note("SYM-1", Severity::Warning, "x"));
        }
        assert_eq!((said.iter().count(), said.suppressed()), (FINDINGS_MAX, 5));
    }
}
