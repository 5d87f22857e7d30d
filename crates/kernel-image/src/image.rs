//! A kernel image, unpacked and with its tables found.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use elf_layout::Machine;
use memchr::memmem;

use crate::arch::{FlatFormat, FlatHeader, ImageArch, of_flat_image};
use crate::btf::Btf;
use crate::bytes::{le64, slice};
use crate::certificates::{self, Certificates};
use crate::container::{self, Container, Decompressor, Unwrapped};
use crate::elf::Elf;
use crate::exports::Exports;
use crate::kallsyms::{Kallsyms, KallsymsLayout};
use crate::memory::{Extent, KERNEL_HALF, Memory, Rela};
use crate::{Error, facts};

/// More texts or pointers of one kind are not looked at.
const POINTERS_MAX: usize = 64;

/// What is left when all containers are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A vmlinux (IMG-3, IMG-7).
    Elf,
    /// The flat image of its architecture ([`ImageArch::flat_format`]).
    Flat,
}

/// A kernel image, unpacked, and what can be read from it.
///
/// All addresses are link addresses: those of a kernel that KASLR has not moved.
#[derive(Clone, Debug)]
pub struct KernelImage<'d> {
    data: Cow<'d, [u8]>,
    containers: Vec<Container>,
    arch: &'static dyn ImageArch,
    /// `None` for a flat image.
    elf: Option<Elf>,
    /// That of a flat image, or that which a vmlinux has at its start as well.
    header: Option<FlatHeader>,
    memory: Memory,
    base_is_a_guess: bool,
    kallsyms: Result<Kallsyms, Error>,
}

impl<'d> KernelImage<'d> {
    /// What a kernel unpacks to at most, unless the caller says otherwise.
    pub const DEFAULT_LIMIT: usize = 1 << 30;

    /// Opens an image, for an architecture in `known`, in any container; nothing may unpack to more than `limit`
    /// bytes.
    #[cfg(feature = "decompress")]
    pub fn open(file: &'d [u8], limit: usize, known: &[&'static dyn ImageArch]) -> Result<Self, Error> {
        Self::open_with(file, limit, known, &mut crate::decompress)
    }

    /// As [`KernelImage::open`], with the caller's own decompressor.
    pub fn open_with(
        file: &'d [u8],
        limit: usize,
        known: &[&'static dyn ImageArch],
        decompress: &mut Decompressor<'_>,
    ) -> Result<Self, Error> {
        let Unwrapped { data, containers } = container::unwrap(file, limit, known, decompress)?;
        match of_flat_image(known, &data).filter(|_| !container::is_elf(&data)) {
            Some((arch, format, header)) => Self::flat(data, containers, arch, format, header),
            None => Self::vmlinux(data, containers, known),
        }
    }

    fn new(data: Cow<'d, [u8]>, containers: Vec<Container>, arch: &'static dyn ImageArch) -> Self {
        KernelImage {
            data,
            containers,
            arch,
            elf: None,
            header: None,
            memory: Memory::default(),
            base_is_a_guess: false,
            kallsyms: Err(Error::NoKallsyms("not looked for")),
        }
    }

    fn vmlinux(
        data: Cow<'d, [u8]>,
        containers: Vec<Container>,
        known: &[&'static dyn ImageArch],
    ) -> Result<Self, Error> {
        let (mut elf, arch) = Elf::parse(&data, known)?;
        let mut image = Self::new(data, containers, arch);
        image.memory.extents = core::mem::take(&mut elf.extents);
        image.find_relocations();
        let first = image.memory.extents.iter().find(|extent| extent.address >= KERNEL_HALF);
        image.header = first
            .zip(arch.flat_format())
            .and_then(|(e, format)| (format.header)(slice(&image.data, e.offset, e.len)?));
        image.kallsyms = Kallsyms::read(&image.data, &image.memory)
            .or_else(|e| Kallsyms::from_symtab(&image.data, &elf).ok_or(e));
        image.elf = Some(elf);
        Ok(image)
    }

    fn flat(
        data: Cow<'d, [u8]>,
        containers: Vec<Container>,
        arch: &'static dyn ImageArch,
        format: &FlatFormat,
        header: FlatHeader,
    ) -> Result<Self, Error> {
        if header.big_endian {
            return Err(Error::BigEndian);
        }
        let mut image = Self::new(data, containers, arch);
        image.find_relocations();
        let base = image.flat_base(format, &header);
        image.base_is_a_guess = base.is_none();
        image.place_flat(base.unwrap_or(format.usual_base));
        image.kallsyms = Kallsyms::read(&image.data, &image.memory);
        image.header = Some(header);
        image.take_base_from_kallsyms(format, &header);
        Ok(image)
    }

    fn find_relocations(&mut self) {
        if let Some(r_type) = self.arch.relative_relocation() {
            self.memory.rela = Rela::find(&self.data, r_type);
        }
    }

    fn place_flat(&mut self, address: u64) {
        self.memory.extents = alloc::vec![Extent { address, offset: 0, len: self.data.len() }];
    }

    /// `_text`, from where relocations apply, or from where words of the file point to.
    fn flat_base(&self, format: &FlatFormat, header: &FlatHeader) -> Option<u64> {
        let somewhere = match self.memory.rela.lowest(&self.data) {
            Some(lowest) => lowest,
            None => self.most_pointed_to(format.region_align)?,
        };
        Some(text_behind(somewhere, format.region_align, format, header))
    }

    /// The region of `size` bytes in the upper half that most words of the file point into, if clearly most do.
    fn most_pointed_to(&self, size: u64) -> Option<u64> {
        const ENOUGH: usize = 64;
        let block = |word: &[u8]| Some(le64(word, 0)? & !size.wrapping_sub(1));
        let blocks = || {
            self.data
                .chunks_exact(8)
                .filter_map(block)
                .filter(|b| (KERNEL_HALF..0_u64.wrapping_sub(size)).contains(b))
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
    fn take_base_from_kallsyms(&mut self, format: &FlatFormat, header: &FlatHeader) {
        let Ok(kallsyms) = &self.kallsyms else { return };
        if kallsyms.layout() == KallsymsLayout::PlaceRelative {
            return; // its addresses follow from ours
        }
        let from_relative = |base: u64| text_behind(base, format.block, format, header);
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
    pub fn machine(&self) -> &'static Machine {
        self.arch.machine()
    }

    /// What it is inside its containers.
    pub fn format(&self) -> Format {
        if self.elf.is_some() { Format::Elf } else { Format::Flat }
    }

    /// The name of [`KernelImage::format`]: `ELF`, or what the architecture calls its flat image.
    pub fn format_name(&self) -> &'static str {
        match (&self.elf, self.arch.flat_format()) {
            (None, Some(format)) => format.name,
            _ => "ELF",
        }
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

    /// Nothing in a flat image told where it is linked, so that its addresses
    /// are right only relative to each other.
    pub fn base_is_a_guess(&self) -> bool {
        self.base_is_a_guess
    }

    /// `len` bytes at a link address, as the file has them: pointers
    /// that relocation fills in may be zero there ([`KernelImage::read_relocated`]).
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

    /// Link addresses of the pointers to this text, which stands between two NULs.
    pub fn pointers_to(&self, text: &[u8]) -> Vec<u64> {
        let quoted = [b"\0", text, b"\0"].concat();
        let places = |needle: Vec<u8>| {
            let found: Vec<usize> = memmem::find_iter(&self.data, &needle).take(POINTERS_MAX).collect();
            found.into_iter()
        };
        let texts = places(quoted).filter_map(|at| self.memory.address_of(at.checked_add(1)?));
        texts
            .flat_map(|at| {
                // Where relocation fills pointers in, its table tells them, and holds each as well.
                if self.memory.rela.len() != 0 {
                    return self.memory.rela.to(&self.data, at).collect();
                }
                let as_written = places(at.to_le_bytes().to_vec()).filter_map(|p| self.memory.address_of(p));
                as_written.filter(|p| p.is_multiple_of(8)).collect::<Vec<u64>>()
            })
            .collect()
    }

    /// Number of pointers that only relocation fills in (KSYM-12).
    pub fn relocated_pointers(&self) -> usize {
        self.memory.rela.len()
    }

    /// Its symbols.
    pub fn kallsyms(&self) -> Result<&Kallsyms, &Error> {
        self.kallsyms.as_ref()
    }

    /// What it exports to modules.
    pub fn exports(&self) -> Result<Exports<'_>, Error> {
        let found = Exports::find(&self.data, &self.memory, self.elf.as_ref(), self.kallsyms.as_ref().ok());
        // IMG-34: a kernel with modules has the vermagic that it compares theirs with.
        found.map_err(|error| match error {
            Error::NoExports(_) if self.release().is_some() && self.vermagic().is_none() => Error::NoModules,
            other => other,
        })
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
        facts::vermagic(&self.data, self.release()?, self.machine().vermagic_word)
    }

    /// Size of a page, if the image tells it.
    pub fn page_size(&self) -> Option<u32> {
        self.arch.page_size(self.header.as_ref())
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

    /// Its architecture.
    pub(crate) fn arch(&self) -> &'static dyn ImageArch {
        self.arch
    }

    /// The certificates built into it.
    pub fn certificates(&self) -> Certificates<'_> {
        certificates::find(&self.data, &self.memory, self.kallsyms.as_ref().ok())
    }
}

/// `_text` of a kernel with the address `somewhere` in its region or block, which begins at a multiple of `align`:
/// it lies text_offset behind.
fn text_behind(somewhere: u64, align: u64, format: &FlatFormat, header: &FlatHeader) -> u64 {
    let offset = header.text_offset & format.block.wrapping_sub(1);
    (somewhere & !align.wrapping_sub(1)).wrapping_add(offset)
}
