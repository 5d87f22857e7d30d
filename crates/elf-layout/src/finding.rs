//! What the kernel would say about a module. A finding is data, not an error:
//! loading goes on where it can, so that one run shows every reason.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::changes::Change;
use crate::config::KernelConfig;

macro_rules! errnos {
    ($($name:ident = $value:literal,)*) => {
        /// The error a system call returns (as `-errno`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::upper_case_acronyms, non_camel_case_types, reason = "the kernel's own names")]
        #[repr(u16)]
        pub enum Errno { $(#[doc = concat!("errno ", $value)] $name = $value,)* }

        impl Errno {
            /// Its name, as in `errno.h`.
            pub const fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* }
            }

            /// The error of that name; `EAGAIN` is the other name of `EWOULDBLOCK`.
            pub fn from_name(name: &str) -> Option<Errno> {
                match name {
                    $(stringify!($name) => Some(Errno::$name),)*
                    "EAGAIN" => Some(Errno::EWOULDBLOCK),
                    _ => None,
                }
            }

            /// The error of that number.
            pub const fn from_number(number: u16) -> Option<Errno> {
                match number { $($value => Some(Errno::$name),)* _ => None }
            }
        }
    };
}

errnos! {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    ENOEXEC = 8,
    EBADF = 9,
    ECHILD = 10,
    EWOULDBLOCK = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    ENOTBLK = 15,
    EBUSY = 16,
    EEXIST = 17,
    EXDEV = 18,
    ENODEV = 19,
    ENOTDIR = 20,
    EISDIR = 21,
    EINVAL = 22,
    ENFILE = 23,
    EMFILE = 24,
    ENOTTY = 25,
    ETXTBSY = 26,
    EFBIG = 27,
    ENOSPC = 28,
    ESPIPE = 29,
    EROFS = 30,
    EMLINK = 31,
    EPIPE = 32,
    EDOM = 33,
    ERANGE = 34,
    EDEADLK = 35,
    ENAMETOOLONG = 36,
    ENOLCK = 37,
    ENOSYS = 38,
    ENOTEMPTY = 39,
    ELOOP = 40,
    ENOMSG = 42,
    EIDRM = 43,
    ECHRNG = 44,
    EL2NSYNC = 45,
    EL3HLT = 46,
    EL3RST = 47,
    ELNRNG = 48,
    EUNATCH = 49,
    ENOCSI = 50,
    EL2HLT = 51,
    EBADE = 52,
    EBADR = 53,
    EXFULL = 54,
    ENOANO = 55,
    EBADRQC = 56,
    EBADSLT = 57,
    EBFONT = 59,
    ENOSTR = 60,
    ENODATA = 61,
    ETIME = 62,
    ENOSR = 63,
    ENONET = 64,
    ENOPKG = 65,
    EREMOTE = 66,
    ENOLINK = 67,
    EADV = 68,
    ESRMNT = 69,
    ECOMM = 70,
    EPROTO = 71,
    EMULTIHOP = 72,
    EDOTDOT = 73,
    EBADMSG = 74,
    EOVERFLOW = 75,
    ENOTUNIQ = 76,
    EBADFD = 77,
    EREMCHG = 78,
    ELIBACC = 79,
    ELIBBAD = 80,
    ELIBSCN = 81,
    ELIBMAX = 82,
    ELIBEXEC = 83,
    EILSEQ = 84,
    ERESTART = 85,
    ESTRPIPE = 86,
    EUSERS = 87,
    ENOTSOCK = 88,
    EDESTADDRREQ = 89,
    EMSGSIZE = 90,
    EPROTOTYPE = 91,
    ENOPROTOOPT = 92,
    EPROTONOSUPPORT = 93,
    ESOCKTNOSUPPORT = 94,
    EOPNOTSUPP = 95,
    EPFNOSUPPORT = 96,
    EAFNOSUPPORT = 97,
    EADDRINUSE = 98,
    EADDRNOTAVAIL = 99,
    ENETDOWN = 100,
    ENETUNREACH = 101,
    ENETRESET = 102,
    ECONNABORTED = 103,
    ECONNRESET = 104,
    ENOBUFS = 105,
    EISCONN = 106,
    ENOTCONN = 107,
    ESHUTDOWN = 108,
    ETOOMANYREFS = 109,
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    EHOSTDOWN = 112,
    EHOSTUNREACH = 113,
    EALREADY = 114,
    EINPROGRESS = 115,
    ESTALE = 116,
    EUCLEAN = 117,
    ENOTNAM = 118,
    ENAVAIL = 119,
    EISNAM = 120,
    EREMOTEIO = 121,
    EDQUOT = 122,
    ENOMEDIUM = 123,
    EMEDIUMTYPE = 124,
    ECANCELED = 125,
    ENOKEY = 126,
    EKEYEXPIRED = 127,
    EKEYREVOKED = 128,
    EKEYREJECTED = 129,
    EOWNERDEAD = 130,
    ENOTRECOVERABLE = 131,
    ERFKILL = 132,
    ERESTARTSYS = 512,
    ERESTARTNOINTR = 513,
    ERESTARTNOHAND = 514,
    ENOIOCTLCMD = 515,
    ERESTART_RESTARTBLOCK = 516,
    EPROBE_DEFER = 517,
    EOPENSTALE = 518,
    ENOPARAM = 519,
    EBADHANDLE = 521,
    ENOTSYNC = 522,
    EBADCOOKIE = 523,
    ENOTSUPP = 524,
    ETOOSMALL = 525,
    ESERVERFAULT = 526,
    EBADTYPE = 527,
    EJUKEBOX = 528,
    EIOCBQUEUED = 529,
    ERECALLCONFLICT = 530,
    ENOGRACE = 531,
}

impl Errno {
    /// Its number.
    pub const fn number(self) -> u16 {
        self as u16
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
    /// All of them, the worst first.
    pub const ALL: [Severity; 4] = [Severity::Oops, Severity::Error, Severity::Warning, Severity::Note];

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
#[non_exhaustive]
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
    /// Who exports the symbol that it is about, if that is known: `vmlinux` or a module.
    pub exporter: Option<String>,
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
            exporter: None,
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

    /// With several lines of the kernel's log.
    pub fn says_all(mut self, lines: Vec<String>) -> Self {
        self.dmesg.extend(lines);
        self
    }

    /// With what it is about.
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// With who exports the symbol.
    pub fn exported_by(mut self, exporter: impl Into<String>) -> Self {
        self.exporter = Some(exporter.into());
        self
    }

    /// With advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A rule that was not judged: something that it hangs on is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unjudged {
    /// The rule of `docs/spec/`.
    pub code: &'static str,
    /// What would settle it.
    pub needs: Cow<'static, str>,
    /// May the kernel crash there? Else it may refuse the module.
    pub may_crash: bool,
}

/// What settles rules that were not judged, in words.
pub mod needs {
    /// What only the image shows.
    pub const IMAGE: &str = "the kernel's image, a tree with one, or a SPEC (--kernel)";
    /// How its `struct module` is laid out.
    pub const STRUCT_MODULE: &str =
        "the kernel's image with its BTF, a tree with its own modules, or a SPEC of one of them (--kernel)";
    /// An option of the configuration.
    pub const CONFIG: &str =
        "the kernel's configuration (--config, or a tree that has it), or its image (--kernel)";
    /// What its copy of the section headers holds once sections are moved.
    pub const SECTION_HEADERS: &str =
        "what the kernel has written into section headers, which it then reads as symbols or as relocations";
    /// The release.
    pub const RELEASE: &str = "the kernel's release (--release), or its image (--kernel)";
    /// What it exports, with licences, CRCs and namespaces.
    pub const EXPORTS: &str = "the kernel's Module.symvers (--symvers), or its image (--kernel)";
    /// What its modules hold of the per-cpu reserve.
    pub const PERCPU: &str = "the files of the modules that are loaded, for their per-cpu data (--kernel with the tree of that kernel)";
    /// Where its symbols are.
    pub const SYMBOLS: &str = "the kernel's symbols (--symtab), or its image (--kernel)";
}

/// Everything said about one load, in the order in which the kernel would say it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    unjudged: Vec<Unjudged>,
    stopped: Option<(usize, Option<Errno>)>,
    suppressed: u64,
    /// Characters that a record of the kernel's log holds, where it is not [`LINE_MAX`].
    line_max: Option<usize>,
}

/// Characters of a record of the kernel's log: 1024 bytes with the level before them and the NUL behind them (PARAM-20).
const LINE_MAX: usize = 1021;
/// Those before v6.3.
const SHORT_LINE_MAX: usize = 989;

/// More rules than this are not told: the verdict hangs on none of them alone.
const UNJUDGED_MAX: usize = 64;

/// More findings than this are counted, not kept: a hostile file can hold millions of defects.
pub const FINDINGS_MAX: usize = 10_000;

impl Findings {
    /// Nothing said yet.
    pub fn new() -> Self {
        Findings::default()
    }

    /// Lines of the log are cut as that kernel cuts them.
    pub fn cut_lines(&mut self, config: &KernelConfig) {
        self.line_max = (!config.has(Change::LongerLogRecords)).then_some(SHORT_LINE_MAX);
    }

    /// Adds a finding. What a record of the kernel's log does not hold is cut, and a record with line feeds is several lines.
    pub fn push(&mut self, mut finding: Finding) {
        let max = self.line_max.unwrap_or(LINE_MAX);
        for line in finding.dmesg.iter_mut().filter(|line| line.len() > max) {
            let cut = line.char_indices().nth(max).map(|(at, _)| at);
            cut.iter().for_each(|at| line.truncate(*at));
        }
        if finding.dmesg.iter().any(|line| line.contains('\n')) {
            finding.dmesg =
                finding.dmesg.iter().flat_map(|record| record.split('\n')).map(String::from).collect();
        }
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.suppressed = self.suppressed.saturating_add(1);
        }
    }

    /// Says that a rule which may refuse the module is not judged. Where the kernel has stopped it asks nothing any more.
    pub fn unjudged(&mut self, code: &'static str, needs: impl Into<Cow<'static, str>>) {
        self.leave_open(Unjudged { code, needs: needs.into(), may_crash: false });
    }

    /// The same of a rule by which the kernel may crash.
    pub fn may_crash(&mut self, code: &'static str, needs: impl Into<Cow<'static, str>>) {
        self.leave_open(Unjudged { code, needs: needs.into(), may_crash: true });
    }

    /// The same of what the kernel does after it has refused the module: it may crash before the system call returns.
    pub fn may_crash_on_the_way_back(&mut self, code: &'static str, needs: impl Into<Cow<'static, str>>) {
        if self.errno().is_some() {
            self.keep_open(Unjudged { code, needs: needs.into(), may_crash: true });
        }
    }

    fn leave_open(&mut self, rule: Unjudged) {
        if !self.refused() {
            self.keep_open(rule);
        }
    }

    fn keep_open(&mut self, rule: Unjudged) {
        if self.unjudged.len() < UNJUDGED_MAX && !self.unjudged.contains(&rule) {
            self.unjudged.push(rule);
        }
    }

    /// Leaves those rules open that another list leaves open.
    pub fn take_open_rules(&mut self, from: &Findings) {
        from.unjudged.iter().for_each(|rule| self.leave_open(rule.clone()));
    }

    /// The rules that were not judged before the kernel stops, each once.
    pub fn open_rules(&self) -> &[Unjudged] {
        &self.unjudged
    }

    /// Does the verdict hang on rules that were not judged? A refusal stands whatever else may refuse the module first: but
    /// not where the kernel may crash before; and a crash stands if nothing may refuse the module before.
    pub fn is_undecided(&self) -> bool {
        match self.stopped {
            None => !self.unjudged.is_empty(),
            Some((_, Some(_))) => self.unjudged.iter().any(|rule| rule.may_crash),
            Some((_, None)) => self.unjudged.iter().any(|rule| !rule.may_crash),
        }
    }

    /// Puts another finding in the place of the last one.
    pub fn replace_last(&mut self, by: impl FnOnce(Finding) -> Finding) {
        if let Some(last) = self.list.pop() {
            self.list.push(by(last));
        }
    }

    /// A stage of the load: if `stage` refuses the module and no earlier stage did, its last refusal is where the
    /// kernel stops, with that errno (SYM-8: the last failing symbol decides). Stages may be nested: the inner one
    /// ends first.
    pub fn stage<T>(&mut self, stage: impl FnOnce(&mut Findings) -> T) -> T {
        let start = self.list.len();
        let result = stage(self);
        self.stop_since(start, false);
        result
    }

    /// As [`Findings::stage`], for a stage that the kernel leaves at its first refusal.
    pub fn stage_at_first<T>(&mut self, stage: impl FnOnce(&mut Findings) -> T) -> T {
        let start = self.list.len();
        let result = stage(self);
        self.stop_since(start, true);
        result
    }

    /// A refusal that is a stage of its own: the kernel stops at it, unless it has stopped before.
    pub fn refuse(&mut self, refusal: Finding) {
        self.stage(|said| said.push(refusal));
    }

    /// The kernel stops at the first or the last refusal among the findings from `start` on.
    fn stop_since(&mut self, start: usize, first: bool) {
        if self.stopped.is_some() {
            return;
        }
        let mut refusals = self.list.iter_mut().enumerate().skip(start).filter(|(_, f)| f.severity.refuses());
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

    /// All findings, by value.
    pub fn into_list(self) -> Vec<Finding> {
        self.list
    }

    /// All findings.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter()
    }

    /// How many are kept, at most [`FINDINGS_MAX`].
    pub fn kept(&self) -> usize {
        self.list.len()
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
        said.stage(|said| {
            said.push(Finding::error("SYM-5", Errno::ENOENT, "a").says("one"));
            said.push(Finding::error("SYM-5b", Errno::EINVAL, "b").says("two"));
        });
        said.stage_at_first(|said| {
            said.push(Finding::error("X86REL-1", Errno::ENOEXEC, "c").says("three"));
        });
        assert_eq!(said.errno(), Some(Errno::EINVAL), "SYM-8: the last failing symbol's errno");
        assert_eq!(said.dmesg().collect::<Vec<_>>(), ["one", "two"], "the kernel never reaches the third");
        assert_eq!(said.iter().filter(|f| f.stops_here).count(), 1);
    }

    #[test]
    fn some_stages_end_at_their_first_refusal_and_an_inner_stage_ends_first() {
        let refusal = |errno| Finding::error("VAL-1", errno, "x");
        let mut said = Findings::new();
        said.stage_at_first(|said| {
            said.push(Finding::note("VAL-1", Severity::Warning, "no refusal"));
            said.push(refusal(Errno::EINVAL));
            said.push(refusal(Errno::ENOENT));
        });
        assert_eq!(said.errno(), Some(Errno::EINVAL));

        let mut said = Findings::new();
        let early = said.stage(|said| -> Option<()> {
            said.push(refusal(Errno::EINVAL));
            said.refuse(refusal(Errno::EBUSY));
            None
        });
        assert_eq!((early, said.errno()), (None, Some(Errno::EBUSY)));
    }

    #[test]
    fn what_is_not_judged_leaves_the_verdict_open() {
        let refusal = || Finding::error("VAL-1", Errno::EINVAL, "x");
        let oops = || Finding::note("FIN-1", Severity::Oops, "x");
        let said = |edit: &dyn Fn(&mut Findings)| {
            let mut said = Findings::new();
            edit(&mut said);
            (said.is_undecided(), said.open_rules().len())
        };
        assert_eq!(said(&|_| {}), (false, 0));
        assert_eq!(said(&|s| s.unjudged("VER-23", needs::RELEASE)), (true, 1));
        assert_eq!(said(&|s| (0..3).for_each(|_| s.unjudged("VER-23", needs::RELEASE))), (true, 1), "once");
        let first = |s: &mut Findings| s.unjudged("VER-23", needs::RELEASE);
        assert_eq!(said(&|s| (first(s), s.refuse(refusal())).1), (false, 1), "refused in any case");
        assert_eq!(said(&|s| (first(s), s.refuse(oops())).1), (true, 1), "or refused before the crash");
        assert_eq!(said(&|s| (s.refuse(refusal()), first(s)).1), (false, 0), "the kernel has stopped");
        let crash = |s: &mut Findings| s.may_crash("FIN-1", "x");
        assert_eq!(said(&|s| (crash(s), s.refuse(refusal())).1), (true, 1));
        assert_eq!(said(&|s| (crash(s), s.refuse(oops())).1), (false, 1));
        let back = |s: &mut Findings| s.may_crash_on_the_way_back("LAYOUT-63", "x");
        assert_eq!(said(&|s| (s.refuse(refusal()), back(s)).1), (true, 1), "the errno is not sure");
        assert_eq!(said(&|s| (s.refuse(oops()), back(s)).1), (false, 0), "there is no way back");
        assert_eq!(said(&|s| back(s)), (false, 0));
        let mut other = Findings::new();
        first(&mut other);
        crash(&mut other);
        assert_eq!(said(&|s| s.take_open_rules(&other)), (true, 2));
        assert_eq!(said(&|s| (s.refuse(refusal()), s.take_open_rules(&other)).1), (false, 0));
    }

    #[test]
    fn param_20_lines_are_cut_as_the_log_cuts_them() {
        for ((major, minor), max) in [((6, 1), 989), ((6, 2), 989), ((6, 3), 1021), ((7, 3), 1021)] {
            let mut said = Findings::new();
            said.cut_lines(&KernelConfig::new(crate::KernelVersion::new(major, minor, 0)));
            let line = "\u{e9}".repeat(1100);
            said.push(Finding::note("PARAM-20", Severity::Warning, "").says(line).says("two\nlines"));
            let lengths: Vec<_> = said.dmesg().map(|line| line.chars().count()).collect();
            assert_eq!(lengths, [max, 3, 5], "PARAM-20: {major}.{minor}");
        }
    }

    #[test]
    fn findings_are_bounded() {
        let mut said = Findings::new();
        for _ in 0..FINDINGS_MAX + 5 {
            said.push(Finding::note("SYM-1", Severity::Warning, "x"));
        }
        assert_eq!((said.kept(), said.suppressed()), (FINDINGS_MAX, 5));
    }
}
