//! Why a symbol or a version did not fit, and what to do about it: the words of findings, for this
//! very kernel and module. Nothing here decides anything.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use kernel::{Kernel, Owner};

use elf_layout::bytes::printed;
use elf_layout::config::Flavour;
use elf_layout::{Change, Finding, Findings, KernelVersion, Machine, ModuleFile};

use crate::license::license_is_gpl_compatible;

/// What the kernel is called: its release, else the version of its configuration. A release that is
/// only taken over from the module does not fit that version, unless the two are of one series.
pub fn kernel_name(kernel: &Kernel) -> String {
    match own_release(kernel) {
        Some(release) => release.to_string(),
        None => {
            format!("Linux {}", kernel.config.version())
        }
    }
}

fn own_release(kernel: &Kernel) -> Option<&str> {
    let version = KernelVersion::parse(&kernel.release)?;
    version.same_series(kernel.config.version()).then_some(&*kernel.release)
}

/// What to do with a module that was built for another kernel.
pub fn rebuild(kernel: &Kernel) -> String {
    let Some(release) = own_release(kernel) else {
        return format!(
            "rebuild it against the headers of {} (`make -C /lib/modules/RELEASE/build M=$PWD`), or install the build that is meant for it",
            kernel_name(kernel)
        );
    };
    let package = headers_package(release, kernel.config.flavour)
        .map_or(String::new(), |package| format!("package {package}; "));
    format!(
        "rebuild it against the headers of {release}: `make -C /lib/modules/{release}/build M=$PWD` \
         ({package}with DKMS `dkms autoinstall -k {release}`), or install the build that is meant for it"
    )
}

/// The package with the headers of a kernel, where its release shows whose it is.
fn headers_package(release: &str, flavour: Flavour) -> Option<String> {
    let (ends, has) = (|end: &str| release.ends_with(end), |part: &str| release.contains(part));
    if [".fc", ".el", ".amzn"].into_iter().any(has) {
        return Some(format!("kernel-devel-{release}"));
    }
    if ends("-default") {
        return Some(String::from("kernel-default-devel"));
    }
    if has("-arch") {
        return Some(String::from("linux-headers"));
    }
    let is_ubuntu = ["-generic", "-lowlatency"].into_iter().any(ends);
    (flavour == Flavour::Debian || is_ubuntu).then(|| format!("linux-headers-{release}"))
}

/// Why all that does not fit does not: the module was built against the headers of another kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The release that the module was built for, if it is another than the kernel's.
    pub built_for: Option<String>,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}

/// Rules that refuse what was built against other headers, and what follows where they do.
const OF_OTHER_HEADERS: &[&str] =
    &["VER-6", "VER-11", "VER-21", "VER-23", "VER-40", "VAL-48", "BTF-3", "RELOC-GEN-15"];

/// Is it a finding of this code, on a symbol of `exporter`, that other headers explain?
pub fn is_of_other_headers(code: &str, exporter: Option<&str>) -> bool {
    OF_OTHER_HEADERS.contains(&code) && exporter.is_none_or(|exporter| exporter == "vmlinux")
}

/// The one cause behind many findings: the module was built for another kernel. Told only if a rule refuses that shows
/// it, and only by what is known of the kernel.
pub fn cause(kernel: &Kernel, file: &ModuleFile<'_>, said: &Findings) -> Option<Cause> {
    let shows = |f: &&Finding| f.severity.refuses() && is_of_other_headers(f.code, f.exporter.as_deref());
    let first = said.iter().find(shows)?;
    let vermagic = file.modinfo().get("vermagic").unwrap_or(&[]);
    let built = vermagic.split(|b| *b == b' ').next().map(printed).filter(|release| !release.is_empty());
    let me = file.name_text();
    let other = built.filter(|built| match own_release(kernel) {
        Some(release) => built != release,
        None => KernelVersion::parse(built).is_some_and(|v| !v.same_series(kernel.config.version())),
    });
    let text = match &other {
        Some(built) => format!("{me} was built for {built}, this kernel is {}", kernel_name(kernel)),
        // One release, and yet another kernel: what shows that is what the kernel itself compares.
        None if matches!(first.code, "VAL-48" | "VER-6") => {
            format!("{me} was built against headers that are not those of this kernel")
        }
        None => return None,
    };
    let built_for = other.map(Cow::into_owned);
    Some(Cause { built_for, text, hint: rebuild(kernel) })
}

/// What a module says it was built for, as the words before a hint.
fn built_for(file: &ModuleFile<'_>) -> String {
    let vermagic = file.modinfo().get("vermagic").unwrap_or(&[]);
    match vermagic.split(|b| *b == b' ').next() {
        Some(release) if !release.is_empty() => {
            format!("{} was built for {}: ", file.name_text(), printed(release))
        }
        _ => String::new(),
    }
}

/// VER-6: the module has to be rebuilt against the kernel or against the module that exports the symbol.
pub fn wrong_crc(kernel: &Kernel, file: &ModuleFile<'_>, owner: Owner<'_>) -> String {
    match owner {
        Owner::Vmlinux => rebuild(kernel),
        Owner::Module(owner) => {
            let owner = printed(owner);
            format!(
                "rebuild {} against the Module.symvers of this {owner} (KBUILD_EXTRA_SYMBOLS), or load the {owner} that it was built with",
                file.name_text()
            )
        }
    }
}

/// VER-22, VER-23: the parts in which two vermagic strings differ, in words. The release is left out where
/// it does not count.
pub fn vermagic_difference(theirs: &[u8], ours: &[u8], release_counts: bool) -> String {
    let words = |magic: &[u8]| -> Vec<String> {
        magic.split(|b| *b == b' ').map(|w| printed(w).into_owned()).collect()
    };
    let (theirs, ours) = (words(theirs), words(ours));
    let mut parts = Vec::new();
    if let (Some(built), Some(runs)) = (theirs.first(), ours.first())
        && built != runs
        && release_counts
    {
        parts.push(format!("release {built} instead of {runs}"));
    }
    let others = |of: &[String], than: &[String]| -> Vec<String> {
        let new = of.iter().skip(1).filter(|w| !w.is_empty() && !than.iter().skip(1).any(|t| t == *w));
        new.take(WORDS_MAX).map(|w| meaning(w)).collect()
    };
    let (more, fewer) = (others(&theirs, &ours), others(&ours, &theirs));
    if !more.is_empty() {
        parts.push(format!("it has {}, which this kernel has not", more.join(", ")));
    }
    if !fewer.is_empty() {
        parts.push(format!("it lacks {}", fewer.join(", ")));
    }
    if parts.is_empty() {
        parts.push(String::from("the same words in another order or with other blanks"));
    }
    parts.join("; ")
}

/// A hostile vermagic has many words.
const WORDS_MAX: usize = 8;

/// A word of a vermagic, and what it stands for (VER-20).
fn meaning(word: &str) -> String {
    let what = match word {
        "SMP" => "CONFIG_SMP",
        "preempt" => "CONFIG_PREEMPT_BUILD",
        "preempt_rt" => "CONFIG_PREEMPT_RT",
        "mod_unload" => "CONFIG_MODULE_UNLOAD",
        "modversions" => "CONFIG_MODVERSIONS",
        _ if word.starts_with("RANDSTRUCT") => "structures laid out with another seed",
        _ => "the architecture's part",
    };
    format!("{word} ({what})")
}

/// SYM-5: why no export of that name is there for the module, and what to do.
pub fn unknown(
    kernel: &Kernel,
    file: &ModuleFile<'_>,
    name: &[u8],
    proprietary: bool,
) -> (String, Option<String>) {
    let (me, symbol) = (file.name_text(), printed(name));
    if let Some((owner, export)) = kernel.find_symbol(name, true, file.name()) {
        let owner = printed(owner.name());
        // LIC-5: a module that may see the export, and even so does not get it.
        if !export.gpl_only || !proprietary {
            let why = format!(
                "{symbol} is exported by the proprietary module {owner}, and {me} already uses GPL-only symbols"
            );
            let hint = "a module can use GPL-only symbols or those of a proprietary module, not both";
            return (why, Some(hint.into()));
        }
        let why = format!(
            "{symbol} is exported by {owner} to GPL-compatible modules only, and this module counts as proprietary"
        );
        return (why, Some(gpl_only(file)));
    }
    if let Some(exporter) = kernel.exporter_not_loaded(name) {
        let module = printed(exporter.module);
        let mut hint = format!("load {module} first (--with), or {}", with_tree(kernel, file));
        if exporter.gpl_only && proprietary {
            hint.push_str("; but it exports the symbol to GPL-compatible modules only");
        }
        if !exporter.namespace.is_empty()
            && !file.modinfo().all("import_ns").any(|ns| *ns == *exporter.namespace)
        {
            let ns = printed(exporter.namespace);
            hint.push_str(&format!("; and add {} to {me}", import_ns(kernel, &ns)));
        }
        return (format!("{symbol} is exported by module {module}, which is not loaded"), Some(hint));
    }
    if kernel.symbols.named(name).any(|s| s.module.is_none()) {
        let hint = format!(
            "use an interface that is exported; a kernel offers this one only if it is built with EXPORT_SYMBOL({symbol})"
        );
        return (format!("{symbol} exists in this kernel but is not exported"), Some(hint));
    }
    let of_module = kernel.symbols.named(name).filter_map(|s| s.module).find(|m| *m != file.name());
    if let Some(module) = of_module.filter(|_| kernel.config.keeps_data_symbols()) {
        let module = printed(module);
        let hint = format!("give the module itself if it is another build of {module} (--with)");
        return (format!("{symbol} is a symbol of module {module}, which does not export it"), Some(hint));
    }
    if let Some((option, what)) = toolchain(file.machine(), name) {
        let why = format!(
            "this kernel does not export {symbol}, which compilers call for {what}: it was built without {option}, and {me} with it"
        );
        return (why, Some(format!("{}{}", built_for(file), rebuild(kernel))));
    }
    let hint = missing_dependency(kernel, file).or_else(|| similar(kernel, file, name));
    if !kernel.config.keeps_data_symbols() && kernel.modules().any(|m| m.listed) {
        let why = format!(
            "nothing that is known of this kernel exports {symbol}; its symbol table has no variables \
             (CONFIG_KALLSYMS_ALL=n), so if a loaded module exports one of that name, give that module with --with"
        );
        return (why, hint);
    }
    (format!("nothing in this kernel exports {symbol}"), hint)
}

/// Symbols that no source names: compilers put calls to them into a module for an option that its kernel headers had on.
/// By beginnings, with the option and what it is for.
const TOOLCHAIN: &[(&str, &str, &str)] = &[
    ("__fentry__", "CONFIG_FUNCTION_TRACER", "tracing"),
    ("_mcount", "CONFIG_FUNCTION_TRACER", "tracing"),
    ("__stack_chk_", "CONFIG_STACKPROTECTOR", "the stack protector"),
    ("__cfi_", "CONFIG_CFI_CLANG", "control flow integrity"),
    ("__sanitizer_cov_", "CONFIG_KCOV", "coverage"),
    ("__gcov_", "CONFIG_GCOV_KERNEL", "coverage"),
    ("__asan_", "CONFIG_KASAN", "the address sanitizer"),
    ("__hwasan_", "CONFIG_KASAN", "the address sanitizer"),
    ("__tsan_", "CONFIG_KCSAN", "the thread sanitizer"),
    ("__msan_", "CONFIG_KMSAN", "the memory sanitizer"),
    ("__ubsan_", "CONFIG_UBSAN", "the sanitizer of undefined behaviour"),
];

/// The option that a symbol of the toolchain stands for, and what that is for (SYM-5).
fn toolchain(machine: Option<&Machine>, name: &[u8]) -> Option<(&'static str, &'static str)> {
    let of_machine = machine.map_or(&[][..], |machine| machine.toolchain_symbols);
    let mut known = of_machine.iter().chain(TOOLCHAIN);
    let found = known.find(|(prefix, ..)| name.starts_with(prefix.as_bytes()));
    found.map(|(_, option, what)| (*option, *what))
}

/// What to do about a GPL-only symbol.
fn gpl_only(file: &ModuleFile<'_>) -> String {
    let license = file.modinfo().get("license").unwrap_or(b"unspecified");
    if license_is_gpl_compatible(license) {
        return String::from(
            "its licence is GPL compatible, but it uses symbols of a proprietary module: do without those",
        );
    }
    format!(
        "use an interface that is exported to all modules; MODULE_LICENSE(\"{}\") is none of the GPL-compatible ones: \
         if the module may be used under the GPL, say so there",
        printed(license)
    )
}

/// NS-6: the way a source imports a namespace.
pub fn import_ns(kernel: &Kernel, namespace: &str) -> String {
    // Since v6.13 (cdd30ebb1b9f) it is a string.
    let quote = if kernel.config.has(Change::ImportNsTakesString) { "\"" } else { "" };
    format!("MODULE_IMPORT_NS({quote}{namespace}{quote})")
}

/// The command that judges a module as modprobe loads it: after the modules of its kernel that it needs.
fn with_tree(kernel: &Kernel, file: &ModuleFile<'_>) -> String {
    let (name, release) = (file.name_text(), own_release(kernel).unwrap_or("RELEASE"));
    format!(
        "judge it with all that modprobe loads first: `kmodld check {name}.ko --kernel {release}` (or a tree; without --no-deps)"
    )
}

/// A module of `depends=` in modinfo that is not loaded is likely to export the unresolved symbol. modprobe uses
/// `depends=`, the kernel never reads it (DEP-4).
fn missing_dependency(kernel: &Kernel, file: &ModuleFile<'_>) -> Option<String> {
    let depends = file.modinfo().get("depends")?;
    let missing: Vec<Cow<'_, str>> = depends
        .split(|b| *b == b',')
        .filter(|name| !name.is_empty() && kernel.module(name).is_none())
        .take(WORDS_MAX)
        .map(printed)
        .collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "its modinfo says that it depends on {}: load that first (--with), or {}",
        missing.join(", "),
        with_tree(kernel, file)
    ))
}

/// An export with more or fewer underscores in front: functions that became wrappers keep such names.
fn similar(kernel: &Kernel, file: &ModuleFile<'_>, name: &[u8]) -> Option<String> {
    let bare: &[u8] = name.get(name.iter().take_while(|b| **b == b'_').count()..)?;
    let candidates = [&b""[..], b"_", b"__"].map(|prefix| [prefix, bare].concat());
    let found = candidates
        .into_iter()
        .filter(|c| c.as_slice() != name && !bare.is_empty())
        .find(|c| kernel.find_symbol(c, true, file.name()).is_some())?;
    Some(format!("this kernel exports {}: {}{}", printed(&found), built_for(file), rebuild(kernel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sym_5_symbols_of_the_toolchain() {
        let machine = Some(&reloc::x86_64::MACHINE);
        for (name, option) in [
            ("__x86_indirect_thunk_rax", "RETPOLINE"),
            ("__fentry__", "CONFIG_FUNCTION_TRACER"),
            ("__stack_chk_fail", "CONFIG_STACKPROTECTOR"),
            ("__cfi_slowpath_diag", "CONFIG_CFI_CLANG"),
            ("__sanitizer_cov_trace_pc", "CONFIG_KCOV"),
            ("__asan_load8_noabort", "CONFIG_KASAN"),
            ("__ubsan_handle_out_of_bounds", "CONFIG_UBSAN"),
        ] {
            assert!(
                toolchain(machine, name.as_bytes()).is_some_and(|t| t.0.contains(option)),
                "SYM-5: {name}"
            );
        }
        for name in ["printk", "x86_indirect_thunk_rax", "_printk", ""] {
            assert_eq!(toolchain(machine, name.as_bytes()), None, "SYM-5: {name}");
        }
    }

    #[test]
    fn packages_of_headers_by_release() {
        let (debian, upstream) = (Flavour::Debian, Flavour::Upstream);
        for (release, flavour, package) in [
            ("6.12.117+deb12-cloud", debian, Some("linux-headers-6.12.117+deb12-cloud")),
            ("6.8.0-45-generic", upstream, Some("linux-headers-6.8.0-45-generic")),
            ("6.11.3-200.fc40.machine", upstream, Some("kernel-devel-6.11.3-200.fc40.machine")),
            ("5.14.0-427.el9.machine", upstream, Some("kernel-devel-5.14.0-427.el9.machine")),
            ("6.4.0-150600.23-default", upstream, Some("kernel-default-devel")),
            ("6.11.5-arch1-1", upstream, Some("linux-headers")),
            ("6.6.0", upstream, None),
            ("6.6.0-mine", upstream, None),
        ] {
            assert_eq!(headers_package(release, flavour).as_deref(), package, "{release}");
        }
    }

    #[test]
    fn ver_23_names_the_part_that_differs() {
        let ours = b"6.12.117+deb12-amd64 SMP preempt mod_unload modversions ";
        for (theirs, release_counts, want) in [
            (
                &b"6.1.0-56-amd64 SMP preempt mod_unload modversions "[..],
                true,
                "release 6.1.0-56-amd64 instead of 6.12.117+deb12-amd64",
            ),
            (b"6.1.0 SMP mod_unload modversions ", false, "it lacks preempt (CONFIG_PREEMPT_BUILD)"),
            (
                b"6.1.0 SMP preempt_rt mod_unload modversions ",
                false,
                "it has preempt_rt (CONFIG_PREEMPT_RT), which this kernel has not; it lacks preempt (CONFIG_PREEMPT_BUILD)",
            ),
            (
                b"6.1.0 SMP preempt mod_unload modversions aarch64",
                false,
                "it has aarch64 (the architecture's part), which this kernel has not",
            ),
            (
                b"6.12.117+deb12-amd64  SMP preempt mod_unload modversions",
                true,
                "the same words in another order or with other blanks",
            ),
        ] {
            assert_eq!(vermagic_difference(theirs, ours, release_counts), want, "VER-23");
        }
        let many = b"x a".repeat(100_000);
        assert!(vermagic_difference(&many, ours, true).len() < 1000, "bounded");
    }
}
