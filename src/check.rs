//! The verdict on a module: would a kernel load it?

use elf_layout::{Finding, Findings, Severity};
use serde::Serialize;

use crate::document::{FindingEntry, findings};
use crate::load::{Args, Opened, open};
use crate::loader::{Loader, Place};

/// What a kernel makes of one module, as `check --jsonl` prints it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The file as it was named.
    pub file: String,
    /// Module name, null if the file tells none.
    pub module: Option<String>,
    /// `loads`, `refused` or `oops`.
    pub verdict: &'static str,
    /// What the system call returns; null if the module loads, or the kernel crashes.
    pub errno: Option<&'static str>,
    /// What the kernel logs, in order; it stops where it stops.
    pub dmesg: Vec<String>,
    /// Taint letters of the module, as far as the load comes.
    pub taints: String,
    /// Everything found, also behind the point where the kernel stops.
    pub findings: Vec<FindingEntry>,
    /// Findings that were counted but not kept.
    pub suppressed: u64,
}

/// Checks one module, already decompressed, against a kernel with the modules loaded so far.
pub fn check(loader: &Loader, file: &str, bytes: &[u8], args: &Args<'_>) -> Verdict {
    let opened = open(bytes, &loader.kernel, args.flags);
    let mut said = opened.said.clone();
    if opened.signature.pkcs7.is_some() && loader.kernel.certificates.is_empty() {
        let why = "the keys that this kernel trusts are not known: the signature counts as good";
        let hint = "give the kernel's image or a SPEC made of it (--kernel)";
        said.push(Finding::note("SIG-8", Severity::Note, why).hint(hint));
    }
    let load = loader.load(&opened, args, &Place::Kernel, None, &mut said);
    let taints = load.map(|l| l.taints.module_letters()).unwrap_or_default();
    verdict(file, &opened, &said, taints)
}

fn verdict(file: &str, opened: &Opened<'_>, said: &Findings, taints: String) -> Verdict {
    let name = opened.module.as_ref().map(|m| m.name_text().into_owned()).filter(|name| !name.is_empty());
    Verdict {
        file: file.to_owned(),
        module: name,
        verdict: match (said.refused(), said.errno()) {
            (false, _) => "loads",
            (true, Some(_)) => "refused",
            (true, None) => "oops",
        },
        errno: said.errno().map(|e| e.name()),
        dmesg: said.dmesg().map(str::to_owned).collect(),
        taints,
        findings: findings(said),
        suppressed: said.suppressed(),
    }
}
