//! What of the CPU and of the kernel's mitigations decides how code is patched.

use elf_layout::{Change, Changes};

use kernel::RunningKernel;

/// Features that patching asks for by name. Those of alternatives come as numbers, out of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// X86_FEATURE_RETPOLINE
    Retpoline,
    /// X86_FEATURE_RETPOLINE_LFENCE, before v5.17 X86_FEATURE_RETPOLINE_AMD
    RetpolineLfence,
    /// X86_FEATURE_RETHUNK
    Rethunk,
    /// X86_FEATURE_CALL_DEPTH
    CallDepth,
    /// X86_FEATURE_INDIRECT_THUNK_ITS
    IndirectThunkIts,
}

/// X86_FEATURE_ALWAYS: word 3 bit 21 ever since v2.6.
pub const ALWAYS: u16 = 3 * 32 + 21;

impl Feature {
    /// Its name in what is said to be unknown.
    pub const fn name(self) -> &'static str {
        match self {
            Feature::Retpoline => "X86_FEATURE_RETPOLINE",
            Feature::RetpolineLfence => "X86_FEATURE_RETPOLINE_LFENCE",
            Feature::Rethunk => "X86_FEATURE_RETHUNK",
            Feature::CallDepth => "X86_FEATURE_CALL_DEPTH",
            Feature::IndirectThunkIts => "X86_FEATURE_INDIRECT_THUNK_ITS",
        }
    }

    /// Its number (word * 32 + bit) in arch/x86/include/asm/cpufeatures.h of a kernel with these changes;
    /// `None` where that kernel has no such feature.
    pub fn number(self, changes: Changes) -> Option<u32> {
        const fn at(word: u32, bit: u32) -> u32 {
            word.saturating_mul(32).saturating_add(bit)
        }
        // Since v5.19 (a883d624aed4) in word 11, and with the same change in 5.15.54 and 5.10.133; before
        // that in word 7.
        let word_11 = changes.has(Change::RetpolineInWord11);
        match self {
            Feature::Retpoline => Some(at(if word_11 { 11 } else { 7 }, 12)),
            Feature::RetpolineLfence => Some(at(if word_11 { 11 } else { 7 }, 13)),
            // a149180fbcf3 came together with that move.
            Feature::Rethunk => word_11.then_some(at(11, 14)),
            // Since v6.2 (80e4c1cd42ff).
            Feature::CallDepth => changes.has(Change::CallDepthTracking).then_some(at(11, 19)),
            // Since v6.15 (8754e67ad4ac), and backported; every tree gave it the next free bit of word 21.
            Feature::IndirectThunkIts if changes.has(Change::ItsInBit10) => Some(at(21, 10)),
            Feature::IndirectThunkIts if changes.has(Change::ItsInBit6) => Some(at(21, 6)),
            Feature::IndirectThunkIts => Some(at(21, 5)),
        }
    }

    /// A symbol that a kernel has if it is built with the option that this feature belongs to: without it
    /// `cpu_feature_enabled` is false at compile time.
    const fn witness(self) -> &'static str {
        match self {
            Feature::Retpoline | Feature::RetpolineLfence => "__x86_indirect_thunk_array",
            Feature::Rethunk => "x86_return_thunk",
            Feature::CallDepth => "call_depth_return_thunk",
            Feature::IndirectThunkIts => "its_return_thunk",
        }
    }
}

/// Is `name` no symbol of the kernel, of which others are known?
pub fn lacks(kernel: &dyn RunningKernel, name: &str) -> bool {
    kernel.symbol("_text").is_some() && kernel.symbol(name).is_none()
}

/// The changes, corrected by what the kernel's symbols show of the numbers of features: a release as `5.10.0-46-amd64` does
/// not tell its patch level.
fn corrected(kernel: &dyn RunningKernel, changes: Changes) -> Changes {
    // a149180fbcf3 came together with the move to word 11.
    let shown = !changes.has(Change::RetpolineInWord11) && kernel.symbol("__x86_return_thunk").is_some();
    if shown { changes.with(Change::RetpolineInWord11, true) } else { changes }
}

/// `cpu_feature_enabled`
pub fn enabled(kernel: &dyn RunningKernel, changes: Changes, feature: Feature) -> Option<bool> {
    let changes = corrected(kernel, changes);
    let Some(number) = feature.number(changes) else { return Some(false) };
    if lacks(kernel, feature.witness()) {
        return Some(false);
    }
    kernel.capability(number).or_else(|| by_cmdline(kernel.cmdline(), feature))
}

/// `boot_cpu_has` of a number that a module names.
pub fn boot_cpu_has(kernel: &dyn RunningKernel, changes: Changes, number: u16) -> Option<bool> {
    if number == ALWAYS {
        return Some(true);
    }
    let changes = corrected(kernel, changes);
    let named = [
        Feature::Retpoline,
        Feature::RetpolineLfence,
        Feature::Rethunk,
        Feature::CallDepth,
        Feature::IndirectThunkIts,
    ];
    let feature = named.into_iter().find(|f| f.number(changes) == Some(u32::from(number)));
    let by_name = || by_cmdline(kernel.cmdline(), feature?);
    kernel.capability(u32::from(number)).or_else(by_name)
}

/// The value of the last `NAME=VALUE` on a command line.
fn option<'c>(cmdline: &'c str, name: &str) -> Option<&'c str> {
    option_values(cmdline, name).last()
}

/// The values of all `NAME=VALUE` on a command line, in order.
pub fn option_values<'c>(cmdline: &'c str, name: &str) -> impl Iterator<Item = &'c str> {
    words(cmdline).filter_map(move |word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Stands that word on the command line?
fn flag(cmdline: &str, name: &str) -> bool {
    words(cmdline).any(|word| word == name)
}

/// What follows `--` is for init.
fn words(cmdline: &str) -> impl Iterator<Item = &str> {
    cmdline.split_ascii_whitespace().take_while(|word| *word != "--")
}

/// What the command line alone makes certain, whatever the CPU (arch/x86/kernel/cpu/bugs.c). An empty one
/// counts as not known.
fn by_cmdline(cmdline: &str, feature: Feature) -> Option<bool> {
    let is = |name: &str, value: &str| option(cmdline, name) == Some(value);
    // cpu_mitigations_off: no mitigation of those that are looked at here forces one of the features.
    if is("mitigations", "off") && !has_forced_spectre_v2(cmdline) {
        return Some(false);
    }
    let stuffs = ["retbleed", "indirect_target_selection"]
        .into_iter()
        .any(|name| option(cmdline, name).is_some_and(|v| v.split(',').any(|v| v == "stuff")));
    match feature {
        // spectre_v2_select_mitigation
        Feature::Retpoline | Feature::RetpolineLfence => {
            if flag(cmdline, "nospectre_v2") || is("spectre_v2", "off") {
                return Some(false);
            }
            let generic = is("spectre_v2", "retpoline,generic") || is("spectre_v2", "retpoline");
            generic.then_some(feature == Feature::Retpoline)
        }
        // Set by retbleed, SRSO and ITS only.
        Feature::Rethunk => (is("retbleed", "off")
            && is("spec_rstack_overflow", "off")
            && is("indirect_target_selection", "off"))
        .then_some(false),
        // Only on demand.
        Feature::CallDepth => (!cmdline.trim().is_empty() && !stuffs).then_some(false),
        Feature::IndirectThunkIts => is("indirect_target_selection", "off").then_some(false),
    }
}

/// With `mitigations=off`, `spectre_v2_parse_cmdline` does not look at `spectre_v2=`. Since v6.17
/// (attack vectors) it may win.
fn has_forced_spectre_v2(cmdline: &str) -> bool {
    option(cmdline, "spectre_v2").is_some_and(|value| value != "off")
}

/// `uniproc_patched` when the module is loaded: is code patched for one CPU? It is where only one was present
/// at boot or allowed by the command line, unless `noreplace-smp` forbids it (`alternative_instructions`).
pub fn uniproc_patched(kernel: &dyn RunningKernel) -> Option<bool> {
    let mut byte = [0];
    // Zero in every image, so only a running kernel's memory tells it.
    if kernel.symbol("uniproc_patched").is_some_and(|at| kernel.read(at, &mut byte)) && byte != [0] {
        return Some(true);
    }
    let cmdline = kernel.cmdline();
    if flag(cmdline, "noreplace-smp") {
        return Some(false);
    }
    let max = option(cmdline, "maxcpus").and_then(|n| n.parse::<u32>().ok());
    if flag(cmdline, "nosmp") || max.is_some_and(|n| n <= 1) {
        return Some(true);
    }
    kernel.cpus().map(|cpus| cpus == 1)
}

#[cfg(test)]
mod tests {
    use elf_layout::KernelVersion;

    use super::*;
    use crate::testing::TestKernel;

    #[test]
    fn fin_21_feature_numbers() {
        let v = KernelVersion::new;
        let cases = [
            (Feature::Retpoline, v(5, 4, 0), Some(7 * 32 + 12)),
            (Feature::Retpoline, v(5, 10, 132), Some(7 * 32 + 12)),
            (Feature::Retpoline, v(5, 10, 133), Some(11 * 32 + 12)),
            (Feature::RetpolineLfence, v(5, 15, 53), Some(7 * 32 + 13)),
            (Feature::RetpolineLfence, v(6, 1, 0), Some(11 * 32 + 13)),
            (Feature::Rethunk, v(5, 18, 0), None),
            (Feature::Rethunk, v(6, 12, 0), Some(11 * 32 + 14)),
            (Feature::CallDepth, v(6, 1, 0), None),
            (Feature::CallDepth, v(6, 12, 0), Some(11 * 32 + 19)),
            (Feature::IndirectThunkIts, v(6, 1, 0), Some(21 * 32 + 5)),
            (Feature::IndirectThunkIts, v(6, 12, 0), Some(21 * 32 + 6)),
            (Feature::IndirectThunkIts, v(6, 16, 0), Some(21 * 32 + 10)),
        ];
        for (feature, version, number) in cases {
            assert_eq!(feature.number(Changes::of(version)), number, "FIN-21: {feature:?} of {version:?}");
        }
    }

    #[test]
    fn fin_21_what_the_command_line_makes_certain() {
        use Feature::{CallDepth, IndirectThunkIts, Rethunk, Retpoline, RetpolineLfence};
        let cases: &[(&str, Feature, Option<bool>)] = &[
            ("", Retpoline, None),
            ("quiet", Retpoline, None),
            ("mitigations=off", Retpoline, Some(false)),
            ("mitigations=off", Rethunk, Some(false)),
            ("mitigations=off mitigations=auto", Rethunk, None),
            ("mitigations=auto,nosmt", Rethunk, None),
            ("quiet -- mitigations=off", Rethunk, None),
            ("nospectre_v2", RetpolineLfence, Some(false)),
            ("nospectre_v2", Rethunk, None),
            ("spectre_v2=off", Retpoline, Some(false)),
            ("spectre_v2=on", Retpoline, None),
            ("spectre_v2=retpoline", Retpoline, Some(true)),
            ("spectre_v2=retpoline,generic", RetpolineLfence, Some(false)),
            ("spectre_v2=retpoline,lfence", RetpolineLfence, None),
            ("retbleed=stuff", CallDepth, None),
            ("quiet", CallDepth, Some(false)),
            ("", CallDepth, None),
            ("retbleed=off", Rethunk, None),
            ("retbleed=off spec_rstack_overflow=off indirect_target_selection=off", Rethunk, Some(false)),
            ("indirect_target_selection=off", IndirectThunkIts, Some(false)),
        ];
        for (cmdline, feature, want) in cases {
            assert_eq!(by_cmdline(cmdline, *feature), *want, "FIN-21: {cmdline:?} {feature:?}");
        }
    }

    #[test]
    fn fin_21_what_the_kernel_is_built_without_is_off() {
        let changes = Changes::of(KernelVersion::new(6, 12, 0));
        let mut kernel = TestKernel::default();
        assert_eq!(enabled(&kernel, changes, Feature::Rethunk), None);
        kernel.symbols.insert("_text", 0xffff_ffff_8100_0000);
        assert_eq!(enabled(&kernel, changes, Feature::Rethunk), Some(false), "FIN-21: no such option");
        kernel.symbols.insert("x86_return_thunk", 0xffff_ffff_8200_0000);
        assert_eq!(enabled(&kernel, changes, Feature::Rethunk), None);
        kernel.capabilities.insert(11 * 32 + 14, true);
        assert_eq!(enabled(&kernel, changes, Feature::Rethunk), Some(true));
        assert_eq!(boot_cpu_has(&kernel, changes, 11 * 32 + 14), Some(true));
        assert_eq!(boot_cpu_has(&kernel, changes, ALWAYS), Some(true));
        assert_eq!(boot_cpu_has(&kernel, changes, 1), None);
    }

    #[test]
    fn uniproc_of_cpus_and_command_line() {
        let cases = [
            (Some(1), "", Some(true)),
            (Some(2), "", Some(false)),
            (None, "", None),
            (Some(4), "nosmp", Some(true)),
            (Some(4), "maxcpus=1", Some(true)),
            (Some(4), "maxcpus=2", Some(false)),
            (Some(1), "noreplace-smp", Some(false)),
        ];
        for (cpus, cmdline, want) in cases {
            let kernel = TestKernel { cpus, cmdline, ..TestKernel::default() };
            assert_eq!(uniproc_patched(&kernel), want, "spec 06, 6.2: {cpus:?} {cmdline:?}");
        }
    }
}
