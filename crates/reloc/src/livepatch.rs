//! Relocation sections of livepatch modules (RELOC-GEN-5).

use alloc::format;
use alloc::string::String;

use elf_layout::bytes::printed;
use elf_layout::elf::{SHN_LIVEPATCH, SymFields};
use elf_layout::{Errno, Finding, Findings, LoadInfo, needs};

/// Address of the kernel's symbol of that name at that position (from 1; 0: it must be the only
/// one). The error is the kernel's line for it; `None` if the kernel's symbols are not known.
pub type KallsymsLookup<'k> = &'k dyn Fn(&[u8], u64) -> Option<Result<u64, String>>;

/// Longest object name and symbol name that the kernel's format takes.
const OBJECT_MAX: usize = 55;
const SYMBOL_MAX: usize = 511;

/// `klp_apply_section_relocs` at load time, with no object: is the section to be applied now?
/// Sections for other modules wait for them. Symbols of the kernel get their values here.
pub fn klp_apply_section_relocs(
    info: &LoadInfo<'_>,
    index: usize,
    values: &mut [u64],
    kallsyms: KallsymsLookup<'_>,
    said: &mut Findings,
) -> bool {
    let refuse = |line: String, why: String| {
        let finding = Finding::error("RELOC-GEN-5", Errno::EINVAL, why).says(format!("livepatch: {line}"));
        finding.about(info.file.section_subject(index))
    };
    let section = info.file.section_name(index);
    let Some(object) = section.strip_prefix(b".klp.rela.").and_then(|rest| dotted(rest, OBJECT_MAX)) else {
        let line = format!("section {} has an incorrectly formatted name", printed(section));
        said.push(refuse(line, String::from("livepatch sections are named .klp.rela.OBJECT.SECTION")));
        return false;
    };
    if object != b"vmlinux" {
        return false;
    }
    for rela in info.file.relocations(index) {
        let at = elf_layout::elf::Rela::from(rela).r_sym() as usize;
        let (Some(symbol), Some(value)) = (info.file.symbols().get(at), values.get_mut(at)) else { continue };
        let name = info.file.symbol_name(symbol);
        let text = printed(name);
        if symbol.shndx() != SHN_LIVEPATCH {
            let line = format!("symbol {text} is not marked as a livepatch symbol");
            said.push(refuse(
                line,
                format!("{text} is used by a livepatch section but is not SHN_LIVEPATCH"),
            ));
            return false;
        }
        let Some((_, name, position)) = klp_symbol(name) else {
            let line = format!("symbol {text} has an incorrectly formatted name");
            said.push(refuse(
                line,
                String::from("livepatch symbols are named .klp.sym.OBJECT.NAME,POSITION"),
            ));
            return false;
        };
        match kallsyms(name, position) {
            Some(Ok(address)) => *value = address,
            None => {
                said.unjudged("RELOC-GEN-5", needs::SYMBOLS);
                return false;
            }
            Some(Err(line)) => {
                said.push(refuse(line, format!("{text} names no symbol of the kernel")));
                return false;
            }
        }
    }
    true
}

/// What stands before the first dot, if that is 1 to `max` bytes.
fn dotted(text: &[u8], max: usize) -> Option<&[u8]> {
    let end = memchr::memchr(b'.', text)?;
    text.get(..end).filter(|part| !part.is_empty() && part.len() <= max)
}

/// `.klp.sym.OBJECT.NAME,POSITION`
fn klp_symbol(name: &[u8]) -> Option<(&[u8], &[u8], u64)> {
    let rest = name.strip_prefix(b".klp.sym.")?;
    let object = dotted(rest, OBJECT_MAX)?;
    let rest = rest.get(object.len().checked_add(1)?..)?;
    let comma = memchr::memchr(b',', rest)?;
    let symbol = rest.get(..comma).filter(|s| !s.is_empty() && s.len() <= SYMBOL_MAX)?;
    let digits = rest.get(comma.checked_add(1)?..)?;
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let position = core::str::from_utf8(digits.get(..count)?).ok()?.parse().ok()?;
    Some((object, symbol, position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reloc_gen_5_names() {
        assert_eq!(klp_symbol(b".klp.sym.vmlinux.printk,0"), Some((&b"vmlinux"[..], &b"printk"[..], 0)));
        assert_eq!(klp_symbol(b".klp.sym.ext4.a.b,12"), Some((&b"ext4"[..], &b"a.b"[..], 12)));
        for bad in [&b".klp.sym.vmlinux.printk"[..], b".klp.sym..printk,1", b"printk", b".klp.sym.v.p,x"] {
            assert_eq!(klp_symbol(bad), None, "RELOC-GEN-5: {}", bad.escape_ascii());
        }
        assert_eq!(dotted(&[b'x'; 60], OBJECT_MAX), None);
    }
}
