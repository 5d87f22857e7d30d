//! What an address of a module is: region, section, symbol, relocation, patch, run-time state; out of the forms that logs have.

use elf_layout::Module;
use elf_layout::elf::{SHN_UNDEF, SymFields};

use crate::address::Explainer;
use crate::load::Load;

/// A place as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An address.
    Address(u64),
    /// A symbol or a section and a distance, with the size of the symbol and the module if they are given: `foo+0x12/0x30 [mod]`.
    Named {
        /// The symbol or section.
        name: String,
        /// Bytes behind it.
        offset: u64,
        /// Bytes of the symbol.
        size: Option<u64>,
        /// The module.
        module: Option<String>,
    },
}

impl Asked {
    /// Reads one form; `None` if it is none.
    pub fn parse(text: &str) -> Option<Asked> {
        let text = text.trim();
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
        if let Some(digits) = text.strip_prefix("0x") {
            return hex(digits).map(Asked::Address);
        }
        if text.len() == 16
            && let Some(address) = hex(text)
        {
            return Some(Asked::Address(address));
        }
        let (place, module) = match text.split_once('[') {
            Some((place, rest)) => (place.trim_end(), Some(rest.strip_suffix(']')?.trim())),
            None => (text, None),
        };
        let (name, distance) = place.split_once('+').unwrap_or((place, "0x0"));
        let (offset, size) = match distance.split_once('/') {
            Some((offset, size)) => (offset, Some(hex(size.strip_prefix("0x")?)?)),
            None => (distance, None),
        };
        let offset = match offset.strip_prefix("0x") {
            Some(digits) => hex(digits)?,
            None => offset.parse().ok()?,
        };
        let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
        // An oops adds the build id behind the name of the module.
        let module = module.and_then(|module| module.split(' ').next()).map(str::to_owned);
        is_name.then(|| Asked::Named { name: name.to_owned(), offset, size, module })
    }

    /// The forms `foo+0x12/0x30 [mod]` in a line of a log.
    pub fn in_line(line: &str) -> Vec<Asked> {
        let mut found = Vec::new();
        let mut words = line.split_ascii_whitespace().peekable();
        while let Some(word) = words.next() {
            let word = word.trim_start_matches(['(', '?']).trim_end_matches(')');
            let word = word.strip_prefix("RIP:0010:").or(word.strip_prefix("0010:")).unwrap_or(word);
            if !(word.contains("+0x") && word.contains("/0x")) {
                continue;
            }
            let module =
                words.peek().and_then(|next| next.strip_prefix('[')).map(|next| next.trim_end_matches(']'));
            let text = match module {
                Some(module) => format!("{word} [{module}]"),
                None => word.to_owned(),
            };
            found.extend(Asked::parse(&text));
        }
        found
    }

    /// The addresses that it can mean in a module: several if a name is there more than once.
    pub fn addresses(&self, module: &Module<'_>) -> Vec<u64> {
        let (name, offset, wanted) = match self {
            Asked::Address(address) => return vec![*address],
            Asked::Named { name, offset, size, .. } => (name, *offset, *size),
        };
        let file = module.info.file;
        let symbols = file.symbols().iter().zip(&module.values).skip(1);
        let of_name = symbols
            .filter(|(symbol, _)| symbol.shndx() != SHN_UNDEF && file.symbol_name(symbol) == name.as_bytes());
        let all: Vec<(u64, u64)> = of_name.map(|(symbol, value)| (*value, symbol.size())).collect();
        // The kernel counts up to the next symbol, so that padding may be in its size.
        let fits = |size: u64| wanted.is_none_or(|wanted| size <= wanted);
        let mut found: Vec<u64> =
            all.iter().filter(|(_, size)| fits(*size)).map(|(value, _)| *value).collect();
        if found.is_empty() {
            found = all.iter().map(|(value, _)| *value).collect();
        }
        if found.is_empty() {
            let sections =
                (1..module.info.sechdrs.len()).filter(|index| file.section_name(*index) == name.as_bytes());
            found.extend(sections.filter_map(|index| module.table(index)).map(|table| table.address));
        }
        found.into_iter().map(|at| at.wrapping_add(offset)).collect()
    }
}

/// What is known of an address, in lines; the first one says where it is. `None` if it is not in the module.
pub fn describe(load: &Load<'_>, explainer: &Explainer<'_, '_>, address: u64) -> Option<Vec<String>> {
    let module = &load.module;
    let place = module.place_of(address)?;
    let file = module.info.file;
    let mut lines = Vec::new();
    let section = explainer.section(address);
    let in_section = section.and_then(|index| {
        let start = module.info.sechdrs.get(index)?.sh_addr;
        let name = String::from_utf8_lossy(file.section_name(index)).into_owned();
        Some(format!("{name}+{:#x}", address.wrapping_sub(start)))
    });
    let symbol = explainer.symbol(address).unwrap_or_else(|| "no symbol".into());
    let in_section = in_section.unwrap_or_else(|| "between sections".into());
    lines.push(format!("{address:#x}: {symbol} in {in_section}, region {}", place.region.name()));
    let explanation = load.explain(address);
    for relocation in &explanation.relocations {
        lines.push(format!("relocation: {}", explainer.relocation_text(relocation)));
    }
    for patch in &explanation.patches {
        let detail = explainer.detail(patch).map_or(String::new(), |detail| format!(": {detail}"));
        lines.push(format!("patched: {}{detail} ({} bytes)", patch.step.name(), patch.len));
    }
    for runtime in &explanation.runtime {
        lines.push(format!("run-time state: {}", runtime.what));
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, offset: u64, size: Option<u64>, module: Option<&str>) -> Asked {
        Asked::Named { name: name.into(), offset, size, module: module.map(str::to_owned) }
    }

    #[test]
    fn forms_are_read() {
        assert_eq!(Asked::parse("0xffffffffc0001000"), Some(Asked::Address(0xffff_ffff_c000_1000)));
        assert_eq!(Asked::parse("ffffffffc0001000"), Some(Asked::Address(0xffff_ffff_c000_1000)));
        assert_eq!(Asked::parse("foo"), Some(named("foo", 0, None, None)));
        assert_eq!(Asked::parse(".text+0x12"), Some(named(".text", 0x12, None, None)));
        assert_eq!(Asked::parse("foo+0x12/0x30 [mod]"), Some(named("foo", 0x12, Some(0x30), Some("mod"))));
        assert_eq!(
            Asked::parse("foo+0x12/0x30 [mod 0123abcd]"),
            Some(named("foo", 0x12, Some(0x30), Some("mod")))
        );
        for bad in ["", "0xzz", "foo+0xg", "foo+0x1/3", "a b+0x1", "foo+0x1 [mod"] {
            assert_eq!(Asked::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn lines_of_an_oops() {
        let line = "[   12.3] RIP: 0010:foo+0x12/0x30 [mod]";
        assert_eq!(Asked::in_line(line), [named("foo", 0x12, Some(0x30), Some("mod"))]);
        let line = " ? do_one_initcall+0x58/0x310";
        assert_eq!(Asked::in_line(line), [named("do_one_initcall", 0x58, Some(0x310), None)]);
        assert!(Asked::in_line("Code: 48 89 e5").is_empty());
    }
}
