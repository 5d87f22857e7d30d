//! The modules that are built in and may register a driver under their name (LIFE-41): those whose initcalls come to a function with
//! a parameter for it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::bytes::le32;
use crate::image::KernelImage;

/// What the kernel calls the parameter for KBUILD_MODNAME.
const PARAMETERS: [&str; 2] = ["mod_name", "modname"];
/// What stands in the names of functions that register.
const REGISTERS: &[u8] = b"regist";
/// From an initcall to what registers: itself, and what it calls.
const DEPTH: u32 = 2;
/// No function is longer, as far as this looks.
const FUNCTION_MAX: u64 = 1 << 14;
/// More functions are not looked at.
const FUNCTIONS_MAX: usize = 1 << 17;

/// The module of an initcall: its symbol is `__initcall__kmod_MODULE__COUNTER_LINE_FUNCTIONLEVEL` since v5.10
/// (include/linux/init.h).
pub fn module_of_initcall(symbol: &[u8]) -> Option<&[u8]> {
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

/// Functions by address, and what they call.
struct Calls<'i, 'd> {
    image: &'i KernelImage<'d>,
    /// Addresses of functions, in order.
    functions: Vec<u64>,
    /// Those that register drivers under a name that they are given.
    registering: BTreeSet<u64>,
    /// Does a function come to one of them, by what remains of [`DEPTH`]?
    known: BTreeMap<(u64, u32), bool>,
}

impl KernelImage<'_> {
    /// The built-in modules that may register a driver under their name (LIFE-41); `None` if it does not show initcalls, what functions
    /// take, or what they call.
    pub fn registering(&self) -> Option<BTreeSet<&[u8]>> {
        find(self)
    }
}

fn find<'i>(image: &'i KernelImage<'_>) -> Option<BTreeSet<&'i [u8]>> {
    let (kallsyms, btf) = (image.kallsyms().ok()?, image.btf().ok()?);
    let names: BTreeSet<&[u8]> = btf.functions_with_parameter(&PARAMETERS).into_iter().collect();
    let registers = |name: &[u8]| {
        let whole = name.split(|b| *b == b'.').next().unwrap_or(name);
        names.contains(whole) && whole.windows(REGISTERS.len()).any(|part| part == REGISTERS)
    };
    let mut calls =
        Calls { image, functions: Vec::new(), registering: BTreeSet::new(), known: BTreeMap::new() };
    let mut initcalls = Vec::new();
    for symbol in kallsyms.iter() {
        if matches!(symbol.kind, b't' | b'T' | b'w' | b'W') {
            calls.functions.push(symbol.address);
            if registers(symbol.name) {
                calls.registering.insert(symbol.address);
            }
        } else if let Some(module) = module_of_initcall(symbol.name) {
            initcalls.push((module, symbol.address));
        }
    }
    calls.functions.sort_unstable();
    if calls.registering.is_empty() || initcalls.is_empty() {
        return None;
    }
    let mut found = BTreeSet::new();
    for (module, entry) in initcalls {
        // An entry is the distance to the function (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS).
        let distance = le32(image.read(entry, 4)?, 0)?.cast_signed();
        if calls.registers(entry.wrapping_add_signed(i64::from(distance)), DEPTH)? {
            found.insert(module);
        }
    }
    Some(found)
}

impl Calls<'_, '_> {
    /// Does a function come to one that registers? `None` if that cannot be told.
    fn registers(&mut self, function: u64, depth: u32) -> Option<bool> {
        if self.registering.contains(&function) {
            return Some(true);
        }
        let Some(below) = depth.checked_sub(1) else { return Some(false) };
        if let Some(known) = self.known.get(&(function, depth)) {
            return Some(*known);
        }
        if self.known.len() >= FUNCTIONS_MAX {
            return None;
        }
        self.known.insert((function, depth), false);
        let position = self.functions.partition_point(|at| *at <= function);
        let end = self.functions.get(position).copied().unwrap_or(u64::MAX);
        let len = end.saturating_sub(function).min(FUNCTION_MAX);
        let Some(code) = usize::try_from(len).ok().and_then(|len| self.image.read(function, len)) else {
            return Some(false);
        };
        let mut callees = self.image.arch().calls(code, function)?;
        callees.retain(|to| self.functions.binary_search(to).is_ok());
        callees.sort_unstable();
        callees.dedup();
        let mut comes = callees.iter().any(|to| self.registering.contains(to));
        for callee in callees {
            comes = comes || self.registers(callee, below)?;
        }
        self.known.insert((function, depth), comes);
        Some(comes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(module_of_initcall(symbol.as_bytes()), module.map(str::as_bytes), "LIFE-41: {symbol}");
        }
    }
}
