//! The modules that are built into a kernel, and their folders in /sys/module (LIFE-41).

use alloc::boxed::Box;
use alloc::collections::BTreeSet;

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

/// The modules that are known to be built in.
#[derive(Clone, Debug, Default)]
pub struct BuiltIn {
    /// All of them.
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
    /// The modules of `names`, and those whose initcalls `symbols` list. `folders` as in the image; `is_whole` tells whether
    /// the symbols hold all functions.
    pub(crate) fn new(
        mut names: Names,
        folders: Option<Names>,
        symbols: &KernelSymbols,
        is_whole: bool,
    ) -> Self {
        // A kernel without CONFIG_SYSFS has no module_kset.
        let labels = symbols.address("__start___param").is_some();
        if labels && symbols.address("module_kset").is_none() {
            return BuiltIn::default();
        }
        let own = symbols.iter().filter(|s| s.module.is_none());
        names.extend(own.filter_map(|s| of_initcall(s.name)).map(Box::from));
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

/// The module of an initcall: its symbol is `__initcall__kmod_MODULE__COUNTER_LINE_FUNCTIONLEVEL` since v5.10
/// (include/linux/init.h).
fn of_initcall(symbol: &[u8]) -> Option<&[u8]> {
    let rest = symbol.strip_prefix(b"__initcall__kmod_")?;
    let ends = |at: &usize| {
        let numbers = rest.get(*at..).and_then(|rest| rest.strip_prefix(b"__"));
        let mut numbers = numbers.into_iter().flat_map(|text| text.splitn(3, |b| *b == b'_'));
        let (counter, line) = (numbers.next(), numbers.next());
        let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        numbers.next().is_some() && [counter, line].into_iter().flatten().all(is_number)
    };
    let end = (1..rest.len()).find(ends)?;
    rest.get(..end)
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
    fn life_41_the_module_of_an_initcall() {
        for (symbol, module) in [
            ("__initcall__kmod_wext_core__720_409_wireless_nlevent_init4", Some("wext_core")),
            ("__initcall__kmod_core__582_2438___init_it6", Some("core")),
            ("__initcall__kmod_a__b__1_2_f6", Some("a__b")),
            ("__initcall__kmod_core__x_2438_f6", None),
            ("__initcall__kmod___1_2_f6", None),
            ("__initcall__kmod_core__1_2", None),
            ("__initcall_f6", None),
        ] {
            assert_eq!(of_initcall(symbol.as_bytes()), module.map(str::as_bytes), "LIFE-41: {symbol}");
        }
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
            folder(&BuiltIn::new(names(&["listed"]), folders, symbols, is_whole))
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
        let without = symbols(&[initcall, "__start___param"]);
        assert_eq!(made(known(), &without, true), [None; 4], "LIFE-41: no sysfs");
    }
}
