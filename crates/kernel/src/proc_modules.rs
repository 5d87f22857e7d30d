//! `/proc/modules`: the modules of a running kernel (LIFE-60).

use alloc::vec::Vec;

use crate::error::Error;
use crate::exports::{ExportTable, Told};
use crate::module::{LoadedModule, ModuleState, REF_BASE};
use crate::taint::mask_of;

/// Reads the text of `/proc/modules`: newest first, as it lists them. What they export it does not tell.
pub fn parse_proc_modules(text: &[u8]) -> Result<Vec<LoadedModule>, Error> {
    let lines = text.split(|b| *b == b'\n').zip(1usize..).filter(|(line, _)| !line.is_empty());
    lines.map(|(line, number)| module(line).ok_or(Error::ModulesLine(number))).collect()
}

/// `ext4 1130496 2 - Live 0xffffffffc0401000 (OE)`
fn module(line: &[u8]) -> Option<LoadedModule> {
    let line = core::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let (name, size, count, users, state, address) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    // Without CONFIG_MODULE_UNLOAD there is no count.
    let count: i32 = if count == "-" { 0 } else { count.parse().ok()? };
    let users = users.split(',').filter(|user| !user.is_empty() && *user != "-");
    let (permanent, users): (Vec<&str>, Vec<&str>) = users.partition(|user| *user == "[permanent]");
    let states = [ModuleState::Live, ModuleState::Coming, ModuleState::Going];
    let taints = words.next().unwrap_or_default().trim_matches(['(', ')']);
    Some(LoadedModule {
        exports: ExportTable::default().told_by(Told::Nothing),
        size: size.parse().ok()?,
        refcnt: count.saturating_add(REF_BASE),
        source_list: users.iter().map(|user| user.as_bytes().into()).collect(),
        has_init: !permanent.is_empty(),
        state: states.into_iter().find(|known| known.proc_word() == state)?,
        base: u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?,
        taints: mask_of(taints),
        proprietary: taints.contains('P'),
        ..LoadedModule::named(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn life_60_lines_are_read() {
        let text = b"b 16384 0 - Live 0xffffffffc0401000 (POE)\na 4096 1 b, Live 0xffffffffc0301000\n\
            c 4096 2 [permanent],d, Loading 0x0000000000000000\n";
        let all = parse_proc_modules(text).unwrap();
        let names: Vec<&[u8]> = all.iter().map(|m| &*m.name).collect();
        assert_eq!(names, [b"b", b"a", b"c"], "LIFE-60: newest first");
        assert_eq!((all[0].size, all[0].base, all[0].refcount()), (16384, 0xffff_ffff_c040_1000, 0));
        assert!(all[0].proprietary && all[0].taints == 1 | 1 << 12 | 1 << 13 && !all[1].proprietary);
        assert_eq!((all[1].refcount(), &*all[1].source_list[0]), (1, &b"b"[..]));
        assert_eq!(
            (all[2].state, all[2].source_list.len(), all[2].is_permanent()),
            (ModuleState::Coming, 1, true)
        );
        assert!(all.iter().all(|m| m.exports.told() == Told::Nothing));
        assert!(parse_proc_modules(b"").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_such_line_is_named() {
        for bad in [
            "a",
            "a 1 0 - Live",
            "a x 0 - Live 0x0",
            "a 1 x - Live 0x0",
            "a 1 0 - Dead 0x0",
            "a 1 0 - Live 10",
            "a 1 0 - Live 0xg",
            "\u{0}",
        ] {
            let text = alloc::format!("b 1 0 - Live 0x0\n{bad}\n");
            assert_eq!(parse_proc_modules(text.as_bytes()).unwrap_err(), Error::ModulesLine(2), "{bad}");
        }
        assert_eq!(parse_proc_modules(b"\xff 1 0 - Live 0x0\n").unwrap_err(), Error::ModulesLine(1));
    }
}
