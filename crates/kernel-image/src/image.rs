//! A kernel image, unpacked and with its tables found.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::btf::Btf;
use crate::bytes::{le64, slice};
use crate::certificates::{self, Certificates};
use crate::container::{self, Arm64Header, Container, Decompressor, Unwrapped};
use crate::elf::Elf;
use crate::exports::Exports;
use crate::kallsyms::{Kallsyms, KallsymsLayout};
use crate::memory::{Extent, KERNEL_HALF, Memory, Rela};
use crate::{Error, facts};

/// KIMAGE_VADDR is aligned to the size of the modules' region, 128 MiB at least.
const ARM64_BASE_ALIGN: u64 = 128 << 20;
/// The kernel is mapped in blocks of 2 MiB.
const ARM64_BLOCK: u64 = 2 << 20;
/// KIMAGE_VADDR with 48-bit addresses since 6.5.
const ARM64_BASE: u64 = 0xffff_8000_8000_0000;

/// The machine that a kernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// x86_64.
    X86_64,
    /// arm64.
    Aarch64,
}

impl Arch {
    /// Its `e_machine` in ELF files.
    pub const fn e_machine(self) -> u16 {
        match self {
            Arch::X86_64 => 62,
            Arch::Aarch64 => 183,
        }
    }
}

/// What is left when all containers are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A vmlinux (IMG-3, IMG-7).
    Elf,
    /// arm64's flat Image (IMG-4).
    Arm64Image,
}

/// A kernel image, unpacked, and what can be read from it.
///
/// All addresses are link addresses: those of a kernel that KASLR has not moved.
#[derive(Clone, Debug)]
pub struct KernelImage<'d> {
    data: Cow<'d, [u8]>,
    containers: Vec<Container>,
    arch: Arch,
    elf: Option<Elf>,
    header: Option<Arm64Header>,
    memory: Memory,
    base_is_a_guess: bool,
    kallsyms: Result<Kallsyms, Error>,
}

impl<'d> KernelImage<'d> {
    /// What a kernel unpacks to at most, unless the caller says otherwise.
    pub const DEFAULT_LIMIT: usize = 1 << 30;

    /// Opens an image in any container; nothing may unpack to more than `limit` bytes.
    #[cfg(feature = "decompress")]
    pub fn open(file: &'d [u8], limit: usize) -> Result<Self, Error> {
        Self::open_with(file, limit, &mut crate::decompress)
    }

    /// As [`KernelImage::open`], with the caller's own decompressor.
    pub fn open_with(file: &'d [u8], limit: usize, decompress: &mut Decompressor<'_>) -> Result<Self, Error> {
        let Unwrapped { data, containers } = container::unwrap(file, limit, decompress)?;
        let mut image = KernelImage {
            containers,
            arch: Arch::Aarch64,
            elf: None,
            header: None,
            memory: Memory::default(),
            base_is_a_guess: false,
            kallsyms: Err(Error::NoKallsyms("not looked for")),
            data,
        };
        if container::is_elf(&image.data) {
            image.open_elf()?;
        } else {
            image.open_flat()?;
        }
        Ok(image)
    }

    fn open_elf(&mut self) -> Result<(), Error> {
        let mut elf = Elf::parse(&self.data)?;
        self.arch = elf.arch.unwrap_or(Arch::X86_64);
        self.memory.extents = core::mem::take(&mut elf.extents);
        if self.arch == Arch::Aarch64 {
            self.memory.rela = Rela::find(&self.data);
            let first = self.memory.extents.iter().find(|extent| extent.address >= KERNEL_HALF);
            self.header = first.and_then(|e| Arm64Header::parse(slice(&self.data, e.offset, e.len)?));
        }
        self.kallsyms = Kallsyms::read(&self.data, &self.memory)
            .or_else(|e| Kallsyms::from_symtab(&self.data, &elf).ok_or(e));
        self.elf = Some(elf);
        Ok(())
    }

    fn open_flat(&mut self) -> Result<(), Error> {
        let header = Arm64Header::parse(&self.data);
        let cut = Error::Truncated { what: "arm64 Image header", need: 64, have: self.data.len() as u64 };
        let header = header.ok_or(cut)?;
        if header.big_endian() {
            return Err(Error::BigEndian);
        }
        self.memory.rela = Rela::find(&self.data);
        let base = self.flat_base(&header);
        self.base_is_a_guess = base.is_none();
        self.place_flat(base.unwrap_or(ARM64_BASE));
        self.kallsyms = Kallsyms::read(&self.data, &self.memory);
        self.header = Some(header);
        self.take_base_from_kallsyms(&header);
        Ok(())
    }

    fn place_flat(&mut self, address: u64) {
        self.memory.extents = alloc::vec![Extent { address, offset: 0, len: self.data.len() }];
    }

    /// `_text`, from where relocations apply, or from where words of the file point to.
    fn flat_base(&self, header: &Arm64Header) -> Option<u64> {
        let somewhere = match self.memory.rela.lowest(&self.data) {
            Some(lowest) => lowest,
            None => self.most_pointed_to()?,
        };
        // Before 5.8 `_text` lies text_offset behind an aligned address.
        Some((somewhere & !ARM64_BASE_ALIGN.wrapping_sub(1)).wrapping_add(header.text_offset % ARM64_BLOCK))
    }

    /// The 128 MiB of the upper half that most words of the file point into, if clearly most do.
    fn most_pointed_to(&self) -> Option<u64> {
        const ENOUGH: usize = 64;
        let block = |word: &[u8]| Some(le64(word, 0)? & !ARM64_BASE_ALIGN.wrapping_sub(1));
        let blocks = || {
            self.data
                .chunks_exact(8)
                .filter_map(block)
                .filter(|b| (KERNEL_HALF..0_u64.wrapping_sub(ARM64_BASE_ALIGN)).contains(b))
        };
        let (mut candidate, mut votes) = (0, 0usize);
        for block in blocks() {
            match (votes, block == candidate) {
                (0, _) => (candidate, votes) = (block, 1),
                (_, true) => votes = votes.saturating_add(1),
                (_, false) => votes = votes.saturating_sub(1),
            }
        }
        (blocks().filter(|b| *b == candidate).count() >= ENOUGH).then_some(candidate)
    }

    /// The kallsyms know better: `_text` itself, or the relative base (KSYM-11).
    fn take_base_from_kallsyms(&mut self, header: &Arm64Header) {
        let Ok(kallsyms) = &self.kallsyms else { return };
        if kallsyms.layout() == KallsymsLayout::PlaceRelative {
            return; // its addresses follow from ours
        }
        let from_relative =
            |base: u64| (base & !ARM64_BLOCK.wrapping_sub(1)).wrapping_add(header.text_offset % ARM64_BLOCK);
        let base = kallsyms.address("_text").or_else(|| kallsyms.relative_base().map(from_relative));
        if let Some(base) = base {
            self.base_is_a_guess = false;
            self.place_flat(base);
        }
    }

    /// The same image with its bytes copied where it only borrowed them.
    pub fn into_owned(self) -> KernelImage<'static> {
        KernelImage { data: Cow::Owned(self.data.into_owned()), ..self }
    }

    /// The machine it is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// What it is inside its containers.
    pub fn format(&self) -> Format {
        if self.elf.is_some() { Format::Elf } else { Format::Arm64Image }
    }

    /// The containers it was in, outermost first.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// The unpacked file.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Link address of the first byte of the kernel proper (`_text`).
    pub fn base(&self) -> Option<u64> {
        self.memory.extents.iter().map(|extent| extent.address).filter(|a| *a >= KERNEL_HALF).min()
    }

    /// Nothing in a flat Image told where it is linked, so that its addresses
    /// are right only relative to each other.
    pub fn base_is_a_guess(&self) -> bool {
        self.base_is_a_guess
    }

    /// `len` bytes at a link address, as the file has them: pointers in an
    /// arm64 kernel may be zero there ([`KernelImage::read_relocated`]).
    /// `None` beyond what the file holds, as in `.bss`.
    pub fn read(&self, address: u64, len: usize) -> Option<&[u8]> {
        self.memory.read(&self.data, address, len)
    }

    /// The u64 at a link address, relocated.
    pub fn read_u64(&self, address: u64) -> Option<u64> {
        self.memory.pointer(&self.data, address)
    }

    /// `len` bytes at a link address, with the pointers in them relocated.
    pub fn read_relocated(&self, address: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        let raw = self.read(address, len)?;
        let end = address.checked_add(len as u64)?;
        let mut bytes = Cow::Borrowed(raw);
        for (at, addend) in self.memory.rela.between(&self.data, address.saturating_sub(7), end) {
            for (i, byte) in (0u64..).zip(addend.to_le_bytes()) {
                let index = at.wrapping_add(i).checked_sub(address).and_then(|i| usize::try_from(i).ok());
                if let Some(slot) = index.filter(|i| *i < len).and_then(|i| bytes.to_mut().get_mut(i)) {
                    *slot = byte;
                }
            }
        }
        Some(bytes)
    }

    /// The NUL-terminated string at a link address, without its NUL.
    pub fn read_cstr(&self, address: u64) -> Option<&[u8]> {
        let (offset, left) = self.memory.locate(address)?;
        crate::bytes::cstr(slice(&self.data, offset, left)?, left)
    }

    /// Number of pointers that only relocation fills in (arm64, KSYM-12).
    pub fn relocated_pointers(&self) -> usize {
        self.memory.rela.len()
    }

    /// Its symbols.
    pub fn kallsyms(&self) -> Result<&Kallsyms, &Error> {
        self.kallsyms.as_ref()
    }

    /// What it exports to modules.
    pub fn exports(&self) -> Result<Exports<'_>, Error> {
        Exports::find(&self.data, &self.memory, self.elf.as_ref(), self.kallsyms.as_ref().ok())
    }

    /// `linux_banner`, without its newline.
    pub fn banner(&self) -> Option<&[u8]> {
        facts::banner(&self.data)
    }

    /// The release, as `uname -r` gives it.
    pub fn release(&self) -> Option<&[u8]> {
        facts::release_of(self.banner()?)
    }

    /// The vermagic that modules must have.
    pub fn vermagic(&self) -> Option<&[u8]> {
        facts::vermagic(&self.data, self.release()?)
    }

    /// Size of a page, if the image tells it.
    pub fn page_size(&self) -> Option<u32> {
        match self.arch {
            Arch::X86_64 => Some(0x1000),
            Arch::Aarch64 => self.header.and_then(|header| header.page_size()),
        }
    }

    /// Its BTF.
    pub fn btf(&self) -> Result<Btf<'_>, Error> {
        let section = self.elf.as_ref().and_then(|elf| elf.section(&self.data, b".BTF"));
        let blob = match section.and_then(|s| slice(&self.data, s.offset, s.size)) {
            Some(blob) => blob,
            None => Btf::find(&self.data).ok_or(Error::NoBtf)?,
        };
        Btf::parse(blob)
    }

    /// The gzip stream of its configuration, if it was built with CONFIG_IKCONFIG.
    pub fn config_gz(&self) -> Option<&[u8]> {
        facts::ikconfig(&self.data)
    }

    /// The text of its configuration, if it was built with CONFIG_IKCONFIG.
    #[cfg(feature = "decompress")]
    pub fn config(&self) -> Option<Result<Vec<u8>, Error>> {
        const LIMIT: usize = 16 << 20;
        let compression = crate::Compression::Gzip;
        let text = crate::decompress(compression, self.config_gz()?, LIMIT);
        Some(text.map_err(|reason| Error::Decompress { compression, reason }))
    }

    /// The certificates built into it.
    pub fn certificates(&self) -> Certificates<'_> {
        certificates::find(&self.data, &self.memory, self.kallsyms.as_ref().ok())
    }
}
