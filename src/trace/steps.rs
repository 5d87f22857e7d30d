//! The steps of a load and of a removal: their names, and the kernel's functions.

use elf_layout::{Change, KernelConfig};

use crate::watch::Point;

/// A step of a story, in the kernel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepOf {
    /// A step of `load_module`.
    Load(Point),
    /// `do_init_module`
    Init,
    /// `do_free_init`
    FreeInit,
    /// `delete_module`
    Unload,
}

use StepOf::Load;

/// All steps, in the kernel's order.
pub const STEPS: [StepOf; 22] = [
    Load(Point::Signature),
    Load(Point::Elf),
    Load(Point::Blacklist),
    Load(Point::Rewrite),
    Load(Point::Versions),
    Load(Point::Frob),
    Load(Point::Flags),
    Load(Point::Layout),
    Load(Point::Move),
    Load(Point::Unformed),
    Load(Point::Tables),
    Load(Point::Symbols),
    Load(Point::Relocations),
    Load(Point::PostRelocation),
    Load(Point::Finalize),
    Load(Point::Formation),
    Load(Point::Coming),
    Load(Point::Parameters),
    Load(Point::Sysfs),
    StepOf::Init,
    StepOf::FreeInit,
    StepOf::Unload,
];

impl StepOf {
    /// Its name in events, and as `--step` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Load(Point::Signature) => "signature",
            Load(Point::Elf) => "elf",
            Load(Point::Blacklist) => "blacklist",
            Load(Point::Rewrite) => "rewrite",
            Load(Point::Versions) => "versions",
            Load(Point::Frob) => "frob",
            Load(Point::Flags) => "flags",
            Load(Point::Layout) => "layout",
            Load(Point::Move) => "move",
            Load(Point::Unformed) => "unformed",
            Load(Point::Tables) => "tables",
            Load(Point::Symbols) => "symbols",
            Load(Point::Relocations) => "relocations",
            Load(Point::PostRelocation) => "post_relocation",
            Load(Point::Finalize) => "finalize",
            Load(Point::Formation) => "formation",
            Load(Point::Coming) => "coming",
            Load(Point::Parameters) => "parameters",
            Load(Point::Sysfs) => "sysfs",
            StepOf::Init => "init",
            StepOf::FreeInit => "free_init",
            StepOf::Unload => "unload",
        }
    }

    /// The step of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        STEPS.into_iter().find(|step| step.name() == name)
    }

    /// The functions of this kernel that do it, in their order (spec 00 §0.2).
    pub fn functions(self, config: &KernelConfig) -> Vec<&'static str> {
        // Since v6.4 early_mod_check does what load_module did itself.
        let early = config.has(Change::DuplicateCheckedEarly);
        match self {
            Load(Point::Signature) => vec!["module_sig_check"],
            Load(Point::Elf) if config.has(Change::ElfValidityCacheCopy) => vec!["elf_validity_cache_copy"],
            Load(Point::Elf) => vec!["elf_validity_check", "setup_load_info"],
            Load(Point::Blacklist) if early => vec!["early_mod_check", "blacklisted"],
            Load(Point::Blacklist) => vec!["blacklisted"],
            Load(Point::Rewrite) => vec!["rewrite_section_headers"],
            Load(Point::Versions) if early => {
                vec!["check_modstruct_version", "check_modinfo", "module_patient_check_exists"]
            }
            Load(Point::Versions) => vec!["check_modstruct_version", "check_modinfo"],
            Load(Point::Frob) => vec!["layout_and_allocate", "module_frob_arch_sections"],
            Load(Point::Flags) => vec!["layout_and_allocate", "module_enforce_rwx_sections"],
            Load(Point::Layout) => vec!["layout_sections", "layout_symtab"],
            Load(Point::Move) => vec!["move_module"],
            Load(Point::Unformed) if config.has(Change::TaintsAfterInsertion) => vec![
                "add_unformed_module",
                "module_augment_kernel_taints",
                "percpu_modalloc",
                "module_unload_init",
            ],
            Load(Point::Unformed) => vec!["add_unformed_module", "percpu_modalloc", "module_unload_init"],
            Load(Point::Tables) => vec!["find_module_sections", "setup_modinfo"],
            Load(Point::Symbols) => vec!["simplify_symbols", "resolve_symbol"],
            Load(Point::Relocations) => vec!["apply_relocations", "apply_relocate_add"],
            Load(Point::PostRelocation) => {
                vec!["post_relocation", "sort_extable", "percpu_modcopy", "add_kallsyms"]
            }
            Load(Point::Finalize) => vec!["module_finalize", "ftrace_module_init"],
            Load(Point::Formation) => vec!["complete_formation", "verify_exported_symbols"],
            Load(Point::Coming) => vec!["prepare_coming_module", "blocking_notifier_call_chain_robust"],
            Load(Point::Parameters) => vec!["parse_args"],
            Load(Point::Sysfs) => vec!["mod_sysfs_setup"],
            StepOf::Init => vec!["do_init_module", "do_one_initcall"],
            StepOf::FreeInit => vec!["do_init_module", "do_free_init"],
            StepOf::Unload => vec!["delete_module", "free_module"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_step_each_and_in_order() {
        assert!(STEPS.is_sorted(), "the kernel's order");
        for step in STEPS {
            assert_eq!(StepOf::of_name(step.name()), Some(step));
        }
    }
}
