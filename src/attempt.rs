//! What comes of a load: a module in memory that can be relied on, or why there is none.

use elf_layout::bytes::printed;
use elf_layout::{Errno, Findings};

use crate::error::Error;
use crate::load::Load;

/// A load as far as it went, with all that the kernel would say of it. The module is to be had by [`Attempt::into_result`], which
/// asks whether the kernel takes it and whether all of its memory is known.
#[derive(Debug)]
#[must_use = "the kernel may refuse the module"]
pub struct Attempt<'d> {
    load: Option<Load<'d>>,
    said: Findings,
    accepts_undecided: bool,
}

impl<'d> Attempt<'d> {
    pub(crate) fn new(load: Option<Load<'d>>, said: Findings) -> Self {
        Attempt { load, said, accepts_undecided: false }
    }

    /// The same, where rules that were not judged keep nobody from the module. They are in its findings.
    pub fn accept_undecided(self) -> Self {
        Attempt { accepts_undecided: true, ..self }
    }

    /// What the kernel would say.
    pub fn said(&self) -> &Findings {
        &self.said
    }

    /// The module, and what the kernel would say of it nevertheless (warnings, notes).
    ///
    /// # Errors
    ///
    /// [`Failure`], if the kernel refuses the module, if that is undecided, or if the addresses of some symbols are not known.
    pub fn into_result(self) -> Result<(Load<'d>, Findings), Failure> {
        let Attempt { load, said, accepts_undecided } = self;
        let findings = Failure::of(said, accepts_undecided)?;
        let symbols = load.as_ref().map(Load::unknown_symbols).unwrap_or_default();
        match load.filter(|_| symbols.is_empty()) {
            Some(load) => Ok((load, findings)),
            None => Err(Failure::Incomplete { findings, symbols }),
        }
    }

    /// The module as far as its load went, whatever the kernel says of it, for who looks into that: its memory may be one that no kernel
    /// ever has. `None` if it has no memory at all.
    pub fn whatever_it_says(self) -> (Option<Load<'d>>, Findings) {
        (self.load, self.said)
    }
}

/// Why a load gives no module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The kernel refuses the module, or crashes.
    #[error("the kernel {}{}", ending(*.errno), first(.findings))]
    Refused {
        /// What the system call returns; `None` if the kernel crashes.
        errno: Option<Errno>,
        /// What the kernel would say.
        findings: Findings,
    },
    /// That hangs on rules that were not judged ([`Findings::open_rules`]).
    #[error("it is undecided whether the kernel takes the module{}", open(.findings))]
    Undecided {
        /// What the kernel would say.
        findings: Findings,
    },
    /// The kernel takes it, but not all of its memory is known: these symbols have no known address.
    #[error("the addresses of {} symbols are not known{}", .symbols.len(), example(.symbols))]
    Incomplete {
        /// What the kernel would say.
        findings: Findings,
        /// Their names; numbers of those that have none.
        symbols: Vec<String>,
    },
    /// A file cannot be used.
    #[error(transparent)]
    Error(#[from] Error),
}

impl Failure {
    /// What the kernel would say; `None` if it was not asked.
    pub fn findings(&self) -> Option<&Findings> {
        match self {
            Failure::Refused { findings, .. }
            | Failure::Undecided { findings }
            | Failure::Incomplete { findings, .. } => Some(findings),
            Failure::Error(_) => None,
        }
    }

    /// What the kernel says, if it neither refuses nor leaves open what was asked of it.
    pub(crate) fn of(findings: Findings, accepts_undecided: bool) -> Result<Findings, Failure> {
        if findings.is_undecided() && !accepts_undecided {
            return Err(Failure::Undecided { findings });
        }
        if findings.refused() {
            return Err(Failure::Refused { errno: findings.errno(), findings });
        }
        Ok(findings)
    }
}

fn ending(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "crashes".into(), |errno| format!("refuses the module with {}", errno.name()))
}

/// Where it stops.
fn first(said: &Findings) -> String {
    let at = said.iter().find(|finding| finding.stops_here);
    at.map_or_else(String::new, |finding| format!(" ({}): {}", finding.code, finding.explanation))
}

fn open(said: &Findings) -> String {
    let rule = said.open_rules().first();
    rule.map_or_else(String::new, |rule| format!(" ({}): that needs {}", rule.code, rule.needs))
}

fn example(symbols: &[String]) -> String {
    symbols.first().map_or_else(String::new, |name| format!(", {name} among them"))
}

impl Load<'_> {
    /// The symbols of the module whose values are not known, for want of an import's address or that of the per-cpu area: their names, or
    /// numbers if they have none. What they are used for stays as it was.
    pub fn unknown_symbols(&self) -> Vec<String> {
        let file = self.module.info.file;
        let unknown =
            self.module.unknown.iter().zip(file.symbols()).enumerate().filter(|(_, (unknown, _))| **unknown);
        let name = |(number, symbol)| match file.symbol_name(symbol) {
            [] => format!("symbol {number}"),
            name => printed(name).into_owned(),
        };
        unknown.map(|(number, (_, symbol))| name((number, symbol))).collect()
    }
}
