//! The modules that are built into a kernel, and their folders in /sys/module (LIFE-41).

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

use kernel_image::module_of_initcall;

use crate::kallsyms::KernelSymbols;

/// The folder of a built-in module in /sys/module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// It is there.
    Exists,
    /// The module is built in; whether it has one is not known.
    Perhaps,
}

/// Names of modules.
pub(crate) type Names = BTreeSet<Box<[u8]>>;

/// What sources tell of built-in modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Modules that are built in.
    pub(crate) names: Names,
    /// Those that have a folder for a parameter or for their version; `None` if that is not known.
    pub(crate) folders: Option<Names>,
    /// Those that may register a driver under their name; `None` if that is not known.
    pub(crate) drivers: Option<Names>,
}

/// The modules that are known to be built in.
#[derive(Clone, Debug, Default)]
pub struct BuiltIn {
    /// All of which a folder may be made.
    names: Names,
    /// Those that have a folder for a parameter or for their version; `None` if that is not known.
    folders: Option<Names>,
    /// May a driver have given them one?
    drivers: bool,
}

/// With this function a built-in driver that is registered makes the folder of its module (v6.15 and stable kernels,
/// f95bbfe18512); before, it only used one that is there.
const OF_DRIVERS: &str = "lookup_or_create_module_kobject";

impl BuiltIn {
    /// The modules of `told`, and those that may register a driver: as the image shows them, else all whose initcalls `symbols` list.
    /// `is_whole` tells whether the symbols hold all functions.
    pub(crate) fn new(told: Told, symbols: &KernelSymbols, is_whole: bool) -> Self {
        let Told { mut names, folders, drivers } = told;
        // A kernel without CONFIG_SYSFS has no module_kset.
        let labels = symbols.address("__start___param").is_some();
        if labels && symbols.address("module_kset").is_none() {
            return BuiltIn::default();
        }
        match drivers {
            Some(drivers) => names.extend(drivers),
            None => {
                let own = symbols.iter().filter(|s| s.module.is_none());
                names.extend(own.filter_map(|s| module_of_initcall(s.name)).map(Box::from));
            }
        }
        let drivers = !is_whole || symbols.address(OF_DRIVERS).is_some();
        BuiltIn { names, folders, drivers }
    }

    /// The folder of a module; `None` if the kernel has none.
    pub fn folder(&self, module: &[u8]) -> Option<Folder> {
        if self.folders.as_ref().is_some_and(|folders| folders.contains(module)) {
            return Some(Folder::Exists);
        }
        let may_have = self.drivers || self.folders.is_none();
        (may_have && self.names.contains(module)).then_some(Folder::Perhaps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Names {
        list.iter().map(|name| Box::from(name.as_bytes())).collect()
    }

    fn symbols(list: &[&str]) -> KernelSymbols {
        let lines = list.iter().map(|name| alloc::format!("ffffffff81000000 d {name}\n"));
        KernelSymbols::parse(lines.collect::<alloc::string::String>().as_bytes()).unwrap()
    }

    #[test]
    fn life_41_who_has_a_folder() {
        let initcall = "__initcall__kmod_driver__1_2_f6";
        let all = symbols(&[initcall, OF_DRIVERS]);
        let folder = |built_in: &BuiltIn| {
            ["params", "listed", "driver", "other"].map(|name| built_in.folder(name.as_bytes()))
        };
        let (exists, perhaps) = (Some(Folder::Exists), Some(Folder::Perhaps));
        let made = |folders, symbols: &KernelSymbols, is_whole| {
            let told = Told { names: names(&["listed"]), folders, drivers: None };
            folder(&BuiltIn::new(told, symbols, is_whole))
        };
        let known = || Some(names(&["params"]));
        assert_eq!(made(known(), &all, true), [exists, perhaps, perhaps, None], "LIFE-41");
        let old = symbols(&[initcall]);
        assert_eq!(made(known(), &old, true), [exists, None, None, None], "LIFE-41: drivers make none");
        assert_eq!(
            made(known(), &old, false),
            [exists, perhaps, perhaps, None],
            "LIFE-41: not all functions"
        );
        assert_eq!(made(None, &old, true), [None, perhaps, perhaps, None], "LIFE-41: without the tables");
        let told = Told { drivers: Some(names(&["other"])), folders: known(), ..Told::default() };
        let shown = folder(&BuiltIn::new(told, &all, true));
        assert_eq!(shown, [exists, None, None, perhaps], "LIFE-41: the image shows who registers drivers");
        let without = symbols(&[initcall, "__start___param"]);
        assert_eq!(made(known(), &without, true), [None; 4], "LIFE-41: no sysfs");
    }
}
