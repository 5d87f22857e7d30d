//! `resolve_symbol`: the rules for one undefined symbol (spec 03 §3.2 to §3.5).

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use elf_layout::bytes::printed;
use elf_layout::config::Flavour;
use elf_layout::versions::Modversion;
use elf_layout::{
    Change, Errno, Finding, Findings, KernelConfig, ModuleFile, Setting, Severity, Subject, needs,
};

use kernel::names::NameIndex;
use kernel::{Export, Kernel, ModuleState, Owner, Taint, Taints, Told};

use crate::hints;

/// How a lookup ended that found nothing usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// NULL: there is no such export for this module.
    NotFound,
    /// There is, and a rule forbids it.
    Refused(Errno),
    /// Whether there is one is not known.
    Unjudged,
}

/// The module being loaded, as the resolving of its symbols sees and changes it.
#[derive(Debug)]
pub struct Resolver<'a> {
    kernel: &'a Kernel,
    file: &'a ModuleFile<'a>,
    versions: Versions<'a>,
    imported_namespaces: Vec<&'a [u8]>,
    taints: Taints,
    using_gplonly_symbols: bool,
}

/// The CRCs that the module brings along.
#[derive(Debug)]
struct Versions<'a> {
    file: &'a ModuleFile<'a>,
    asked: bool,
    /// Its records by name, once more than one was asked for.
    indexed: Option<(Vec<Modversion<'a>>, NameIndex)>,
}

impl<'a> Versions<'a> {
    fn of(file: &'a ModuleFile<'a>) -> Self {
        Versions { file, asked: false, indexed: None }
    }

    /// VER-31: extended tables replace `__versions` altogether.
    fn are_extended(&self) -> bool {
        self.file.index().vers_ext_crc != 0
    }

    /// Has it any table?
    fn are_present(&self) -> bool {
        self.are_extended() || self.file.index().vers != 0
    }

    fn records(&self) -> impl Iterator<Item = Modversion<'a>> + use<'a> {
        self.file.versions()
    }

    /// VER-4: the first record of that name.
    fn expected(&mut self, name: &[u8]) -> Option<u64> {
        // The first lookup is that of module_layout: for one lookup an index does not pay.
        if !core::mem::replace(&mut self.asked, true) {
            return self.records().find(|r| r.name == name).map(|r| r.crc);
        }
        if self.indexed.is_none() {
            let records: Vec<Modversion<'a>> = self.records().collect();
            let index = NameIndex::new(records.len(), |p| name_at(&records, p));
            self.indexed = Some((records, index));
        }
        let (records, index) = self.indexed.as_ref()?;
        let first = index.find(name, |p| name_at(records, p)).next()?;
        records.get(first as usize).map(|r| r.crc)
    }
}

fn name_at<'r>(records: &[Modversion<'r>], position: u32) -> &'r [u8] {
    records.get(position as usize).map_or(&[], |r| r.name)
}

impl<'a> Resolver<'a> {
    /// For one module on one kernel; `taints` are those before its symbols are resolved.
    pub fn new(kernel: &'a Kernel, file: &'a ModuleFile<'a>, taints: Taints) -> Self {
        let modinfo = file.modinfo();
        Resolver {
            kernel,
            file,
            versions: Versions::of(file),
            imported_namespaces: modinfo.all("import_ns").collect(),
            taints,
            using_gplonly_symbols: false,
        }
    }

    /// The taints after what was resolved so far.
    pub fn taints(&self) -> Taints {
        self.taints
    }

    fn is_proprietary(&self) -> bool {
        self.taints.module_has(Taint::ProprietaryModule)
    }

    /// `mod->using_gplonly_symbols` (SYM-22).
    pub fn using_gplonly_symbols(&self) -> bool {
        self.using_gplonly_symbols
    }

    /// `kernel/module/main.c: resolve_symbol` (SYM-20 to SYM-26), with the findings of the rules that say something.
    pub fn resolve_symbol(
        &mut self,
        name: &[u8],
        subject: impl Fn() -> Subject,
        said: &mut Findings,
    ) -> Result<(Owner<'a>, Export<'a>), Unresolved> {
        let gplok = !self.is_proprietary();
        let found = self.kernel.find_symbol(name, gplok, self.file.name());
        let Some((owner, export)) = found else {
            // SYM-5: what is not known to be exported may be all the same.
            if self.kernel.may_export_more(self.file.name()) {
                said.unjudged("SYM-5", needs::EXPORTS);
                return Err(Unresolved::Unjudged);
            }
            return Err(Unresolved::NotFound);
        };
        let told = self.kernel.told(owner);
        if told == Told::Globals {
            said.unjudged("SYM-5", needs::EXPORTS);
        }
        if told != Told::Records && !gplok {
            said.unjudged("SYM-31", needs::EXPORTS);
        }
        if export.gpl_only {
            self.using_gplonly_symbols = true;
        }
        self.inherit_taint(owner, name, &subject, said)?;
        self.check_version(name, owner, export.crc, &subject, said).map_err(Unresolved::Refused)?;
        if told == Told::Records {
            self.verify_namespace_is_imported(name, export, &subject, said).map_err(Unresolved::Refused)?;
        } else if self.kernel.config.known(Setting::AllowMissingNamespaceImports) != Some(true) {
            said.unjudged("NS-2", needs::EXPORTS);
        }
        self.strong_try_module_get(owner, &subject, said).map_err(Unresolved::Refused)?;
        Ok((owner, export))
    }

    /// Whether `ref_module` would get its reference on the owner (SYM-26, DEP-1). A load that has not ended
    /// yet never will, so waiting for it comes to nothing (SYM-27).
    fn strong_try_module_get(
        &self,
        owner: Owner<'_>,
        subject: &impl Fn() -> Subject,
        said: &mut Findings,
    ) -> Result<(), Errno> {
        let Owner::Module(owner) = owner else { return Ok(()) };
        match self.kernel.module(owner).map(|m| m.state) {
            None | Some(ModuleState::Live) => Ok(()),
            Some(ModuleState::Going) => {
                let why = format!("{} is being removed: nothing can use it any more", printed(owner));
                said.push(Finding::note("SYM-26", Severity::Note, why).about(subject()));
                Err(Errno::ENOENT)
            }
            Some(ModuleState::Coming) => {
                let (me, owner) = (self.file.name_text(), printed(owner));
                let line = format!("{me}: gave up waiting for init of module {owner}.");
                let why = format!("the init function of {owner} has not ended after 30 seconds");
                said.push(Finding::note("SYM-27", Severity::Warning, why).says(line).about(subject()));
                Err(Errno::EBUSY)
            }
        }
    }

    /// LIC-5: using a proprietary module's symbol makes a module proprietary.
    fn inherit_taint(
        &mut self,
        owner: Owner<'_>,
        name: &[u8],
        subject: &impl Fn() -> Subject,
        said: &mut Findings,
    ) -> Result<(), Unresolved> {
        let Owner::Module(owner) = owner else {
            return Ok(());
        };
        if self.is_proprietary() || !self.kernel.module(owner).is_some_and(|m| m.proprietary) {
            return Ok(());
        }
        let (me, symbol, owner) = (self.file.name_text(), printed(name), printed(owner));
        if self.using_gplonly_symbols {
            let line = format!(
                "{me}: module using GPL-only symbols uses symbols {symbol} from proprietary module {owner}."
            );
            let why = format!(
                "{owner} is proprietary, and {me} already uses GPL-only symbols: {symbol} counts as missing"
            );
            // The refusal is what follows from the missing symbol.
            said.push(Finding::note("LIC-5", Severity::Warning, why).says(line).about(subject()));
            return Err(Unresolved::NotFound);
        }
        let line =
            format!("{me}: module uses symbols {symbol} from proprietary module {owner}, inheriting taint.");
        let why = format!("{owner} is proprietary: from here on GPL-only symbols are invisible to {me}");
        let finding = Finding::note("LIC-5", Severity::Warning, why).says(line).about(subject());
        said.push(finding);
        self.taints.inherit();
        Ok(())
    }

    /// `kernel/module/version.c: check_version` (VER-1 to VER-9, VER-31).
    pub fn check_version(
        &mut self,
        name: &[u8],
        owner: Owner<'_>,
        crc: Option<u32>,
        subject: &impl Fn() -> Subject,
        said: &mut Findings,
    ) -> Result<(), Errno> {
        let config: &KernelConfig = &self.kernel.config;
        let modversions = config.known(Setting::Modversions);
        let crc = match crc {
            _ if modversions == Some(false) => return Ok(()),
            Some(crc) => crc,
            None if self.kernel.told(owner) == Told::Records => return Ok(()),
            // VER-3: without CRCs of its own a module is forced in, if the kernel does that.
            None if !self.versions.are_present() && config.known(Setting::ModuleForceLoad) == Some(true) => {
                return Ok(());
            }
            None => {
                said.unjudged("VER-6", needs::EXPORTS);
                return Ok(());
            }
        };
        if modversions.is_none() {
            // Whether the kernel compares CRCs is not known: only a CRC that is the same settles it.
            if self.versions.expected(name) != Some(u64::from(crc)) {
                said.unjudged("VER-1", needs::CONFIG);
            }
            return Ok(());
        }
        if !self.versions.are_present() {
            return self.try_to_force_load(&printed(name), subject, said);
        }
        // VER-5: all 64 bits count.
        let expected = self.versions.expected(name);
        if expected == Some(u64::from(crc)) {
            return Ok(());
        }
        let (me, symbol) = (self.file.info_name_text(), printed(name));
        match expected {
            Some(expected) => {
                let line = format!("{me}: disagrees about version of symbol {symbol}");
                let exporter = match owner {
                    Owner::Vmlinux => Cow::Borrowed("this kernel"),
                    Owner::Module(module) => Cow::Owned(format!("module {}", printed(module))),
                };
                let why = format!(
                    "{me} was built against {symbol} with CRC {expected:#010x}; {exporter} exports it with {crc:#010x}"
                );
                let finding = Finding::error("VER-6", Errno::EINVAL, why).says(line).about(subject());
                let finding = finding.exported_by(printed(owner.name()));
                said.push(finding.hint(hints::wrong_crc(self.kernel, self.file, owner)));
                Err(Errno::EINVAL)
            }
            None => {
                let kind =
                    if self.versions.are_extended() { "extended symbol version" } else { "symbol version" };
                let line = format!("{me}: no {kind} for {symbol}");
                let why = format!("{me} has CRCs, but none for {symbol}");
                let hint = "modpost found none when the module was built: give it the exporter's Module.symvers (KBUILD_EXTRA_SYMBOLS) and build again";
                // OV-DEB: Debian refuses, upstream accepts.
                if config.flavour == Flavour::Debian && !self.versions.are_extended() {
                    let finding = Finding::error("VER-7", Errno::EINVAL, why).says(line).about(subject());
                    said.push(finding.hint(hint));
                    return Err(Errno::EINVAL);
                }
                let mut finding = Finding::note("VER-7", Severity::Warning, why).about(subject()).hint(hint);
                if self.taints.first_without_version(self.versions.are_extended()) {
                    finding = finding.says(line);
                }
                said.push(finding);
                Ok(())
            }
        }
    }

    /// `try_to_force_load` (VER-3, VER-40 to VER-42).
    fn try_to_force_load(
        &mut self,
        reason: &str,
        subject: &impl Fn() -> Subject,
        said: &mut Findings,
    ) -> Result<(), Errno> {
        let me = self.file.name_text();
        if self.kernel.config.assumes(Setting::ModuleForceLoad) {
            said.unjudged("VER-40", needs::CONFIG);
            return Ok(());
        }
        if !self.kernel.config.module_force_load {
            let why = format!("{me} has no CRCs, and this kernel does not force modules in");
            let finding = Finding::error("VER-40", Errno::EINVAL, why).about(subject());
            said.push(finding.hint(hints::rebuild(self.kernel)));
            return Err(Errno::EINVAL);
        }
        // Said once is enough: it is the same for every symbol.
        if !self.taints.module_has(Taint::ForcedModule) {
            let why = format!("{me} has no CRCs: it is forced in, taint F");
            let finding = self.taints.force_load(&me, reason, why).about(subject());
            said.push(finding.hint(hints::rebuild(self.kernel)));
        }
        Ok(())
    }

    /// `kernel/module/main.c: verify_namespace_is_imported` (NS-1 to NS-3).
    fn verify_namespace_is_imported(
        &self,
        name: &[u8],
        export: Export<'_>,
        subject: &impl Fn() -> Subject,
        said: &mut Findings,
    ) -> Result<(), Errno> {
        let namespace = export.namespace;
        // verify_module_namespace (NS-5) measures the module's name whatever the namespace is.
        if !namespace.is_empty()
            && self.kernel.config.has(Change::ModuleNamespaces)
            && name_has_no_end(self.kernel, self.file)
        {
            measured_without_end(said);
            return Ok(());
        }
        if namespace.is_empty() || self.imported_namespaces.contains(&namespace) {
            return Ok(());
        }
        // Since v6.16 (707f853d7fa3; before that such a namespace is one like any other, NS-5): a namespace can name the modules that may use it.
        if self.kernel.config.has(Change::ModuleNamespaces)
            && let Some(list) = namespace.strip_prefix(b"module:")
            && list.split(|b| *b == b',').any(|pattern| module_matches(self.file.name(), pattern))
        {
            return Ok(());
        }
        let (me, symbol, ns) = (self.file.name_text(), printed(name), printed(namespace));
        let line =
            format!("{me}: module uses symbol ({symbol}) from namespace {ns}, but does not import it.");
        let why = format!("{symbol} is exported in namespace {ns}, which {me} does not import");
        let hint = match namespace.strip_prefix(b"module:") {
            Some(list) if self.kernel.config.has(Change::ModuleNamespaces) => {
                format!("only these modules may use it, and no import helps: {}", printed(list))
            }
            _ => {
                format!("add {} to the source of {me} and build it again", hints::import_ns(self.kernel, &ns))
            }
        };
        if self.kernel.config.assumes(Setting::AllowMissingNamespaceImports) {
            said.unjudged("NS-2", needs::CONFIG);
            return Ok(());
        }
        if self.kernel.config.allow_missing_namespace_imports {
            said.push(Finding::note("NS-2", Severity::Warning, why).says(line).about(subject()).hint(hint));
            return Ok(());
        }
        said.push(Finding::error("NS-2", Errno::EINVAL, why).says(line).about(subject()).hint(hint));
        Err(Errno::EINVAL)
    }

    /// SYM-5, SYM-5b: the line for a symbol that stays unresolved, and why it does.
    pub fn unknown_symbol(&self, name: &[u8], why: Unresolved, subject: Subject) -> Finding {
        let (me, symbol) = (self.file.name_text(), printed(name));
        let (code, errno) = match why {
            Unresolved::NotFound | Unresolved::Unjudged => ("SYM-5", Errno::ENOENT),
            Unresolved::Refused(errno) => ("SYM-5b", errno),
        };
        let line = format!("{me}: Unknown symbol {symbol} (err -{})", errno.number());
        let (reason, hint) = match why {
            Unresolved::NotFound | Unresolved::Unjudged => {
                hints::unknown(self.kernel, self.file, name, self.is_proprietary())
            }
            Unresolved::Refused(_) => {
                (format!("{symbol} exists, but a rule named before forbids its use"), None)
            }
        };
        let mut finding = Finding::error(code, errno, reason).says(line).about(subject);
        finding.hint = hint;
        finding
    }
}

/// NS-3: `-` equals `_`; a trailing `*` makes a pattern a prefix.
fn module_matches(name: &[u8], pattern: &[u8]) -> bool {
    let fold = |b: &u8| if *b == b'-' { b'_' } else { *b };
    let same = |a: &[u8], b: &[u8]| a.len() == b.len() && a.iter().map(fold).eq(b.iter().map(fold));
    match pattern.strip_suffix(b"*") {
        Some(prefix) => name.get(..prefix.len()).is_some_and(|start| same(start, prefix)),
        None => same(name, pattern),
    }
}

/// VAL-55: has the name no end within its array, and does CONFIG_FORTIFY_SOURCE stop what measures it?
pub fn name_has_no_end(kernel: &Kernel, file: &ModuleFile<'_>) -> bool {
    /// MODULE_NAME_LEN
    const ARRAY: usize = 56;
    let fortified = ["fortify_panic", "__fortify_panic"];
    file.name().len() >= ARRAY && fortified.iter().any(|name| kernel.symbols.address(name).is_some())
}

/// VAL-55: the kernel has come to where it measures the name.
pub fn measured_without_end(said: &mut Findings) {
    let why = "the name in its struct module has no end: the kernel measures it, and stops with a BUG";
    let finding = Finding::note("VAL-55", Severity::Oops, why);
    said.refuse(finding.says("detected buffer overflow in __fortify_strlen"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ns_3_module_patterns() {
        for (name, pattern, want) in [
            ("kvm_intel", "kvm-intel", true),
            ("kvm_intel", "kvm*", true),
            ("kvm_intel", "*", true),
            ("kvm_intel", "kvm", false),
            ("kvm", "kvm_intel", false),
            ("kvm", " kvm", false),
            ("kvm", "k*m", false),
        ] {
            assert_eq!(
                module_matches(name.as_bytes(), pattern.as_bytes()),
                want,
                "NS-3: {name} against {pattern}"
            );
        }
    }
}
