//! What can be recovered of hidden modules: an ELF file of their memory.

use std::fs;
use std::path::{Path, PathBuf};

use elf_layout::bytes::printed;

use super::Target;
use super::modules::{InMemory, Witness};
use crate::error::Error;

/// Bytes of an ELF header, a program header and a section header.
const EHDR: usize = 64;
const PHDR: usize = 56;
/// PF_X, PF_W, PF_R
const X: u32 = 1;
const W: u32 = 2;
const R: u32 = 4;

/// Writes every module that the list does not have into a folder, as an ELF core with a segment for each region. Gives names and
/// files.
pub fn extract(target: &mut Target, folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    fs::create_dir_all(folder).map_err(|e| Error::write(folder, e))?;
    let mut written = Vec::new();
    for (module, witnesses) in target.modules.all.values() {
        if witnesses.contains(&Witness::List) {
            continue;
        }
        let name = printed(&module.name).into_owned();
        // The name is the attacker's.
        let safe: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
        let file = folder.join(format!("{safe}-{:x}.elf", module.address));
        let bytes = elf(target, module);
        fs::write(&file, bytes).map_err(|e| Error::write(&file, e))?;
        written.push((name, file));
    }
    Ok(written)
}

/// An ELF core of the regions that memory has.
fn elf(target: &Target, module: &InMemory) -> Vec<u8> {
    let mut segments = Vec::new();
    for (region, base, size) in &module.regions {
        let page = target.loader.kernel.config.page_size.max(1);
        let whole = size.checked_next_multiple_of(page).unwrap_or(*size);
        let Some(bytes) = target.image.bytes(*base, whole).or_else(|| target.image.bytes(*base, *size))
        else {
            continue;
        };
        let permissions = region.permissions();
        let flags = R | if permissions.write { W } else { 0 } | if permissions.execute { X } else { 0 };
        segments.push((*base, flags, bytes));
    }
    let machine = target.loader.kernel.machine.map_or(0, |machine| machine.e_machine);
    let mut out = Vec::with_capacity(EHDR);
    // ELFCLASS64, ELFDATA2LSB, EV_CURRENT; ET_CORE.
    out.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0");
    out.extend(machine.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((EHDR as u64).to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    for half in [EHDR as u16, PHDR as u16, segments.len() as u16, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let mut at = EHDR.saturating_add(PHDR.saturating_mul(segments.len())) as u64;
    for (base, flags, bytes) in &segments {
        let size = bytes.len() as u64;
        // PT_LOAD
        out.extend(1u32.to_le_bytes());
        out.extend(flags.to_le_bytes());
        for field in [at, *base, 0, size, size, 0x1000] {
            out.extend(field.to_le_bytes());
        }
        at = at.saturating_add(size);
    }
    segments.into_iter().for_each(|(.., bytes)| out.extend(bytes));
    out
}
