//! What a run of `check` comes down to.

use std::collections::BTreeMap;
use std::fmt::Write;

use kmodld::check::Verdict;

/// Counts over modules, on one kernel.
#[derive(Debug, Default)]
pub struct Summary {
    modules: usize,
    loads: usize,
    oops: usize,
    /// By errno: how many modules are refused with it.
    refused: BTreeMap<&'static str, usize>,
    /// By severity and code: in how many modules, and how often.
    findings: BTreeMap<(u8, &'static str, &'static str), (usize, u64)>,
}

impl Summary {
    /// Counts a module.
    pub fn add(&mut self, verdict: &Verdict) {
        let one = |count: &mut usize| *count = count.saturating_add(1);
        one(&mut self.modules);
        match verdict.errno {
            _ if verdict.loads() => one(&mut self.loads),
            None => one(&mut self.oops),
            Some(errno) => one(self.refused.entry(errno).or_default()),
        }
        let mut counts: BTreeMap<_, u64> = BTreeMap::new();
        for finding in &verdict.findings {
            let rank = match finding.severity {
                "oops" => 0,
                "error" => 1,
                "warning" => 2,
                _ => 3,
            };
            let count = counts.entry((rank, finding.code, finding.severity)).or_default();
            *count = count.saturating_add(1);
        }
        for (what, count) in counts {
            let (modules, all) = self.findings.entry(what).or_default();
            one(modules);
            *all = all.saturating_add(count);
        }
    }

    /// A line with the verdicts, then one for each errno and each code.
    pub fn text(&self, kernel: &str, unreadable: usize) -> String {
        let refused = self.refused.values().fold(0, |sum: usize, n| sum.saturating_add(*n));
        let plural = if self.modules == 1 { "module" } else { "modules" };
        let mut out = format!(
            "{} {plural} on {kernel}: {} loads, {refused} refused, {} would crash, {unreadable} unreadable\n",
            self.modules, self.loads, self.oops
        );
        for (errno, modules) in &self.refused {
            // Writing to a String does not fail.
            let _ = writeln!(out, "  refused with {errno:<14}{modules:>6} modules");
        }
        for ((_, code, severity), (modules, all)) in &self.findings {
            let what = format!("{severity}[{code}]");
            let _ = writeln!(out, "  {what:<27}{modules:>6} modules, {all} times");
        }
        out
    }
}
