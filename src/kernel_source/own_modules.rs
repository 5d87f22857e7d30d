//! What a kernel's own modules show of it where its image does not: the layout of `struct module` (VAL-48, RELOC-GEN-15).

use std::path::{Path, PathBuf};

use elf_layout::ModuleFile;
use elf_layout::elf::{Rela, SHT_RELA};
use elf_layout::versions::{modversions, modversions_ext};
use kernel::{Kernel, KernelDescriptionBuilder, newest};
use symres::LoadFlags;

use crate::input::read_decompressed;
use crate::load::open;

/// So many modules have to show the same, if there are so many.
const AGREEING: usize = 3;
/// No more files than this are looked at.
const FILES_MAX: usize = 64;
/// Nor deeper folders.
const DEPTH_MAX: usize = 16;

/// What a module shows of the kernel that it was built for.
#[derive(Debug)]
struct Shown {
    vermagic: Vec<u8>,
    /// The CRC of `module_layout`, which stands for `struct module` (VER-10).
    crc: Option<u64>,
    size: u64,
    init_exit: (u64, u64),
}

/// Adds the size of `struct module` and where `init` and `exit` are in it, if nothing has told them, as the modules in `folder` show
/// them that the build of the kernel has put there. Only those count whose vermagic is the kernel's, and whose CRC of `module_layout` is.
pub fn add(out: KernelDescriptionBuilder, folder: &Path) -> KernelDescriptionBuilder {
    if let (Some(_), Some(_)) = out.struct_module() {
        return out;
    }
    let mut found: Option<(Shown, PathBuf)> = None;
    let mut agree = 0usize;
    for path in files(folder) {
        let Some(shown) = read_decompressed(&path).ok().and_then(|bytes| shown_by(&bytes)) else { continue };
        if !is_of(&out, &shown) {
            continue;
        }
        match &found {
            None => found = Some((shown, path)),
            Some((first, _)) if (first.size, first.init_exit) == (shown.size, shown.init_exit) => {}
            // One of them is of another kernel.
            Some(_) => return out,
        }
        agree = agree.saturating_add(1);
        if agree == AGREEING {
            break;
        }
    }
    match found {
        Some((shown, path)) => {
            out.struct_module_shown(&path.display().to_string(), agree, shown.size, shown.init_exit)
        }
        None => out,
    }
}

/// Was this module built for this kernel?
fn is_of(kernel: &KernelDescriptionBuilder, shown: &Shown) -> bool {
    let release = shown.vermagic.split(|b| *b == b' ').next();
    let same = match (kernel.own_vermagic(), kernel.own_release()) {
        (Some(vermagic), _) => shown.vermagic == vermagic.as_bytes(),
        (None, Some(own)) => release == Some(own.as_bytes()),
        (None, None) => false,
    };
    let crc = kernel.own_crc(b"module_layout").filter(|crc| *crc != 0);
    same && crc.is_none_or(|crc| shown.crc == Some(u64::from(crc)))
}

/// What the bytes of a module show; `None` for one without init or exit.
fn shown_by(bytes: &[u8]) -> Option<Shown> {
    // Only to read it: what it says of itself is compared with the kernel.
    let opened = open(bytes, &Kernel::unknown(newest()), LoadFlags::default());
    let file = opened.module.as_ref()?;
    let this = file.index().module;
    let size = file.sections().get(this)?.sh_size;
    let place = |name: &[u8]| {
        let tables = file.sections().iter().enumerate();
        let of_this = tables.filter(|(_, s)| s.sh_type == SHT_RELA && s.sh_info as usize == this);
        let records = of_this.flat_map(|(index, _)| file.relocations(index)).map(Rela::from);
        let mut named = records.filter(|rela| {
            file.symbols().get(rela.r_sym() as usize).is_some_and(|symbol| file.symbol_name(symbol) == name)
        });
        named.next().map(|rela| rela.r_offset)
    };
    Some(Shown {
        vermagic: file.modinfo().get("vermagic")?.to_vec(),
        crc: crc_of(file, b"module_layout"),
        size,
        init_exit: (place(b"init_module")?, place(b"cleanup_module")?),
    })
}

/// The CRC that a module expects of a symbol.
fn crc_of(file: &ModuleFile<'_>, name: &[u8]) -> Option<u64> {
    let section = |name| file.section_bytes(file.find_sec(name));
    let plain = modversions(section("__versions")).find(|version| version.name == name);
    let of_both = || modversions_ext(section("__version_ext_crcs"), section("__version_ext_names"));
    plain.or_else(|| of_both().find(|version| version.name == name)).map(|version| version.crc)
}

/// The module files below a folder: its own in the order of their names, then those of each folder in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![(folder.to_owned(), 0usize)]);
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut below = Vec::new();
        for path in paths {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let is_module = [".ko", ".ko.xz", ".ko.gz", ".ko.zst"].iter().any(|end| name.ends_with(end));
            if is_module && path.is_file() {
                files.push(path);
            } else if depth < DEPTH_MAX && path.is_dir() && !path.is_symlink() {
                below.push((path, depth.saturating_add(1)));
            }
        }
        folders.extend(below.into_iter().rev());
        if files.len() >= FILES_MAX {
            break;
        }
    }
    files.truncate(FILES_MAX);
    files
}
