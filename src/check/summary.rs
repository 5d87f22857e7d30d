//! What a run over a set comes down to.

use std::collections::BTreeMap;

use elf_layout::{Errno, Severity};

use super::{Ending, Verdict};

/// Counts over modules, on one kernel.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many modules there are.
    pub modules: usize,
    /// How many load.
    pub loads: usize,
    /// How many crash the kernel.
    pub oops: usize,
    /// How many are undecided.
    pub undecided: usize,
    /// By the name of the errno: how many are refused with it.
    pub refused: BTreeMap<&'static str, (Errno, usize)>,
    /// By rule and by what would settle it: in how many modules it was not judged.
    pub unjudged: BTreeMap<(&'static str, String), usize>,
    /// How often there is a finding, the worst first, then by code.
    pub findings: BTreeMap<(u8, &'static str), Count>,
}

/// How often there is a finding.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Count {
    /// How much it weighs.
    pub severity: Severity,
    /// In how many modules.
    pub modules: usize,
    /// In all.
    pub times: u64,
}

impl Summary {
    /// Counts a module.
    pub fn add(&mut self, verdict: &Verdict) {
        let one = |count: &mut usize| *count = count.saturating_add(1);
        one(&mut self.modules);
        match (verdict.verdict, verdict.errno) {
            (Ending::Good, _) => one(&mut self.loads),
            (Ending::Undecided, _) => one(&mut self.undecided),
            (_, None) => one(&mut self.oops),
            (_, Some(errno)) => one(&mut self.refused.entry(errno.name()).or_insert((errno, 0)).1),
        }
        for rule in &verdict.unjudged {
            one(self.unjudged.entry((rule.code, rule.needs.clone())).or_default());
        }
        let mut counts: BTreeMap<(u8, &'static str), (Severity, u64)> = BTreeMap::new();
        for finding in &verdict.findings {
            let key = (rank(finding.severity), finding.code);
            let (_, count) = counts.entry(key).or_insert((finding.severity, 0));
            *count = count.saturating_add(1);
        }
        for (key, (severity, times)) in counts {
            let count = self.findings.entry(key).or_insert(Count { severity, modules: 0, times: 0 });
            one(&mut count.modules);
            count.times = count.times.saturating_add(times);
        }
    }

    /// How many modules are refused.
    pub fn all_refused(&self) -> usize {
        self.refused.values().fold(0, |sum: usize, (_, modules)| sum.saturating_add(*modules))
    }
}

/// The worst comes first.
fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Oops => 0,
        Severity::Error => 1,
        Severity::Warning => 2,
        Severity::Note => 3,
    }
}
