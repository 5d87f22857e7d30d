//! `btf_parse_module`: does the type information of a module fit that of the kernel (spec 06 §6.8)?
//!
//! A module's `.BTF` is split: its names and types go on where those of the kernel end. Made for another
//! kernel, its numbers mean other names and types. What is checked here is what the kernel checks when
//! a module is loaded: header, strings, each type by itself, chains of modifiers (BTF-2).

mod log;
mod metas;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use kernel::{BaseBtf, Kernel, Taints};

use elf_layout::bytes::{printed, slice};
use elf_layout::{
    Change, Errno, Finding, Findings, KernelConfig, Module, ModuleFile, Setting, Severity, needs,
};

use metas::Check;

use crate::hints;

/// Why a kernel takes no BTF: the errno, what is wrong, and what it logs on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// What `btf_parse_module` returns.
    pub errno: Errno,
    /// What is wrong.
    pub why: String,
    /// Lines of the BTF verifier.
    pub log: Vec<String>,
}

/// `kernel/bpf/btf.c: btf_module_notify` for a module that is COMING (BTF-1 to BTF-4). Without the kernel's BTF
/// a mismatch that refuses the module is not judged.
pub fn btf_module_notify(kernel: &Kernel, module: &Module<'_>, taints: &mut Taints, said: &mut Findings) {
    let (config, file) = (&kernel.config, module.info.file);
    let data = bytes_of(module, file.find_any_sec(".BTF"));
    if data.is_empty() || config.known(Setting::BtfModules) == Some(false) {
        return;
    }
    let lenient = config.known(Setting::AllowBtfMismatch);
    if config.assumes(Setting::BtfModules) && lenient != Some(true) {
        said.unjudged("BTF-3", needs::CONFIG);
        return;
    }
    let Some(base) = kernel.btf.as_deref() else {
        if lenient != Some(true) {
            said.unjudged("BTF-3", needs::IMAGE);
        }
        return;
    };
    // BTF-4: since v6.11 (d4e48e3dd450) a module may bring the part of the kernel's BTF that it needs.
    let own_base = Some(file.find_any_sec(".BTF.base")).filter(|i| *i != 0 && config.has(Change::OwnBtfBase));
    // A pointer to it without a section is a relocation's, and its size is 0.
    let own_base = own_base.map(|index| bytes_of(module, index));
    let own_base = own_base.or_else(|| has_pointer_to_base(kernel, module).then_some(&[][..]));
    let parsed = match own_base {
        Some(bytes) => parse(bytes, None, config).and_then(|own| parse(data, Some(&own), config)).map(|_| ()),
        None => parse(data, Some(base), config).map(|_| ()),
    };
    if parsed.is_ok() {
        already_shown(file.name(), said);
    }
    said.stage_at_first(|said| match parsed {
        Ok(()) if own_base.is_some() => {
            let why = "the module brings the types of the kernel that it needs (.BTF.base); whether this kernel has them is not looked at";
            said.push(Finding::note("BTF-4", Severity::Note, why));
        }
        Ok(()) => {}
        Err(_) if lenient.is_none() => said.unjudged("BTF-3", needs::CONFIG),
        Err(refusal) => said.push(mismatch(kernel, file, refusal, taints)),
    });
}

/// A section as the kernel reads it: where it has been moved to, or in the temporary copy.
fn bytes_of<'m>(module: &'m Module<'_>, index: usize) -> &'m [u8] {
    let moved = module.table(index).and_then(|table| module.read(table.address, table.size));
    moved.unwrap_or_else(|| module.info.file.copied_bytes(index))
}

/// Bytes of a pointer.
const POINTER: u64 = 8;

/// BTF-4: has a relocation put a pointer where struct module has that to `.BTF.base`?
fn has_pointer_to_base(kernel: &Kernel, module: &Module<'_>) -> bool {
    let index = module.info.file.index().module;
    let this = module.table(index);
    let pointer = kernel.types.member("module", "btf_base_data").zip(this).and_then(|(member, this)| {
        let now = module.read(this.address.wrapping_add(member.offset), POINTER)?;
        // What the file has there, find_module_sections has overwritten.
        let of_file = slice(module.info.file.section_bytes(index), member.offset, POINTER)?;
        Some((now, of_file))
    });
    pointer.is_some_and(|(now, of_file)| now != of_file && now != [0; POINTER as usize])
}

/// BTF-5: sysfs shows it under the module's name, beside that of the kernel. The load goes on without.
fn already_shown(name: &[u8], said: &mut Findings) {
    /// What `/sys/kernel/btf` has of the kernel itself.
    const KERNEL: &str = "vmlinux";
    if name == KERNEL.as_bytes() {
        let why = format!(
            "/sys/kernel/btf shows the BTF of the kernel as {KERNEL}, and none of a module of that name"
        );
        let finding = Finding::note("BTF-5", Severity::Warning, why)
            .says(format!("sysfs: cannot create duplicate filename '/kernel/btf/{KERNEL}'"));
        said.push(finding.says(format!("failed to register module [{KERNEL}] BTF in sysfs: -17")));
    }
}

/// BTF-3: what the kernel makes of it.
fn mismatch(kernel: &Kernel, file: &ModuleFile<'_>, refusal: Refusal, taints: &mut Taints) -> Finding {
    let (me, config) = (file.name_text(), &kernel.config);
    let line = format!("failed to validate module [{me}] BTF: -{}", refusal.errno.number());
    let fit = format!("the BTF of {me} does not fit that of this kernel: {}", refusal.why);
    let (mut finding, last) = if !config.allow_btf_mismatch {
        let hint =
            format!("{}; or do without its BTF: objcopy --remove-section .BTF", hints::rebuild(kernel));
        (Finding::error("BTF-3", refusal.errno, fit).hint(hint), Some(line))
    } else {
        let why = format!("{fit}; it is loaded without (CONFIG_MODULE_ALLOW_BTF_MISMATCH)");
        let hint = format!("nothing but BPF programs and bpftool misses it; {}", hints::rebuild(kernel));
        // Since v6.3 (9cb61e50bf6b) this is said once per boot.
        let last = if !config.has(Change::BtfMismatchToldOnce) {
            Some(line)
        } else {
            taints.first_btf_mismatch().then(|| MISMATCH.to_string())
        };
        (Finding::note("BTF-3", Severity::Warning, why).hint(hint), last)
    };
    finding.dmesg.extend(refusal.log);
    finding.dmesg.extend(last);
    finding
}

const MISMATCH: &str =
    "Kernel module BTF mismatch detected, BTF debug info may be unavailable for some modules";

/// `kernel/bpf/btf.c: btf_parse_module` after its allocations, or `btf_parse_base` if there is no `base`. What
/// comes back can be the base of another.
fn parse(data: &[u8], base: Option<&BaseBtf>, config: &KernelConfig) -> Result<BaseBtf, Refusal> {
    let mut check = Check::new(data, base, config);
    match check.run() {
        Ok(own) => Ok(own),
        Err(stop) => Err(Refusal { errno: stop.errno, why: stop.why, log: check.log }),
    }
}

/// `btf_parse_module` of this data on this base.
pub fn btf_parse_module(data: &[u8], base: &BaseBtf, config: &KernelConfig) -> Result<(), Refusal> {
    parse(data, Some(base), config).map(|_| ())
}

/// A name for the log.
fn shown(name: &[u8]) -> String {
    printed(name).into_owned()
}
