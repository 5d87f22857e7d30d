//! `/proc/kcore`: the memory of the running kernel as an ELF core file, whose segments have its addresses.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use object::elf::{FileHeader64, PT_LOAD, ProgramHeader64};
use object::endian::LittleEndian;
use object::pod;

/// So many bytes of memory at an address; `None` if no segment has them, or if this is no core file.
pub fn read(path: &Path, address: u64, len: usize) -> io::Result<Option<Vec<u8>>> {
    const E: LittleEndian = LittleEndian;
    let mut file = File::open(path)?;
    let mut head = [0u8; size_of::<FileHeader64<LittleEndian>>()];
    file.read_exact(&mut head)?;
    let Ok((header, _)) = pod::from_bytes::<FileHeader64<LittleEndian>>(&head) else { return Ok(None) };
    let each = size_of::<ProgramHeader64<LittleEndian>>();
    if header.e_ident.magic != object::elf::ELFMAG || usize::from(header.e_phentsize.get(E)) != each {
        return Ok(None);
    }
    let mut table = vec![0u8; each.saturating_mul(usize::from(header.e_phnum.get(E)))];
    file.seek(SeekFrom::Start(header.e_phoff.get(E)))?;
    file.read_exact(&mut table)?;
    let count = usize::from(header.e_phnum.get(E));
    let Ok((segments, _)) = pod::slice_from_bytes::<ProgramHeader64<LittleEndian>>(&table, count) else {
        return Ok(None);
    };
    let place = segments.iter().filter(|s| s.p_type.get(E) == PT_LOAD).find_map(|segment| {
        let from = address.checked_sub(segment.p_vaddr.get(E))?;
        let left = segment.p_filesz.get(E).checked_sub(from)?;
        (left >= len as u64).then(|| segment.p_offset.get(E).checked_add(from))?
    });
    let Some(place) = place else { return Ok(None) };
    let mut bytes = vec![0u8; len];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two segments of four bytes each.
    fn core() -> Vec<u8> {
        let mut core = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        core.resize(32, 0);
        core.extend(64u64.to_le_bytes());
        core.resize(54, 0);
        [56u16, 2].iter().for_each(|half| core.extend(half.to_le_bytes()));
        core.resize(64, 0);
        for (at, address) in [(176u64, 0xffff_8000_0000_0000u64), (180, 0xffff_ffff_8100_0000)] {
            core.extend([1u32, 7].iter().flat_map(|word| word.to_le_bytes()));
            core.extend([at, address, 0, 4, 4, 0].iter().flat_map(|word| word.to_le_bytes()));
        }
        core.extend(b"abcdefgh");
        core
    }

    #[test]
    fn memory_is_found_by_its_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kcore");
        let read = |bytes: &[u8], address, len| {
            std::fs::write(&path, bytes).unwrap();
            read(&path, address, len).ok().flatten()
        };
        let core = core();
        assert_eq!(read(&core, 0xffff_8000_0000_0000, 4), Some(b"abcd".to_vec()));
        assert_eq!(read(&core, 0xffff_ffff_8100_0001, 3), Some(b"fgh".to_vec()));
        for (address, len) in [(0xffff_ffff_8100_0001, 4), (0xffff_ffff_80ff_ffff, 1), (0, 1), (u64::MAX, 2)]
        {
            assert_eq!(read(&core, address, len), None, "{address:#x}");
        }
        for len in 0..core.len() {
            let cut = read(&core[..len], 0xffff_ffff_8100_0000, 4);
            assert_eq!(cut, None, "cut at {len}");
        }
        assert_eq!(read(&vec![0; 1000], 0, 4), None, "no ELF file");
    }
}
