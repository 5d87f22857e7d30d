//! A module in memory that owns all it needs: what [`crate::Kernel::load`] gives.

mod compare;
mod views;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use elf_layout::bytes::printed;
use elf_layout::elf::{STB_LOCAL, SymFields};
use elf_layout::{Findings, Region};
use kernel_image::Packed;
use reloc::Step;
use self_cell::self_cell;
use symres::LoadFlags;

use crate::address::Explainer;
use crate::attempt::Failure;
use crate::document::Document;
use crate::elf_output::{self, Options};
use crate::error::Error;
use crate::load::{Args, Load, Opened, Stage};
use crate::loader::{Loader, Place};

pub use compare::{Cause, Difference};
pub use views::{Export, Import, MemoryRegion, Patch, Relocation, Section, Symbol, SymbolKind};

/// What a load begins with.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) loader: Arc<Loader>,
    /// Decompressed.
    pub(crate) file: Arc<[u8]>,
    pub(crate) packed: Option<Packed>,
    pub(crate) flags: LoadFlags,
}

self_cell!(
    /// A file that has gone through the ELF checks, with its bytes.
    struct OpenedFile {
        owner: Input,
        #[covariant]
        dependent: Opened,
    }

    impl { Debug }
);

self_cell!(
    /// A load, with the file and the kernel that it borrows from.
    struct OwnedLoad {
        owner: OpenedFile,
        #[covariant]
        dependent: Load,
    }

    impl { Debug }
);

/// A module in memory at its final addresses, which the kernel takes. It borrows nothing, and may be sent to other threads.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = kmodld::Kernel::builder().image("/boot/vmlinuz-6.12.0")?.build()?;
/// let module = kernel.load(&*std::fs::read("fat.ko")?).run()?;
/// let init = module.symbol("init_module").and_then(|symbol| symbol.address);
/// println!("{}: {} imports, init at {init:#x?}", module.name(), module.imports().count());
///
/// // Its bytes: of a section, at an address, and where they differ from those of a dump.
/// let text = module.section(".text").ok_or("no code")?;
/// let start = text.address.ok_or("it is not in memory")?;
/// assert_eq!(module.read(start, 4), text.bytes().get(..4));
/// for difference in module.compare_at(start, &std::fs::read("text.bin")?)? {
///     println!("{:#x} {:?}: {:?}", difference.address, difference.symbol, difference.cause);
/// }
///
/// // What wrote them.
/// for relocation in module.relocations() {
///     println!("{:#x} {} {}{:+#x}", relocation.address, relocation.kind, relocation.symbol, relocation.addend);
/// }
/// for patch in module.patches() {
///     println!("{:#x} {} {:?}", patch.address, patch.step.name(), patch.detail);
/// }
/// for finding in module.findings().iter() {
///     println!("{}: {}", finding.code, finding.explanation);
/// }
/// module.write_elf(std::fs::File::create("fat.elf")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LinkedModule {
    load: OwnedLoad,
    findings: Findings,
}

/// Loads a file as these say.
pub(crate) fn load(
    input: Input,
    args: &Args<'_>,
    place: &Place,
    percpu: Option<u64>,
    accepts_undecided: bool,
) -> Result<LinkedModule, Failure> {
    let opened = OpenedFile::new(input, |input| {
        let opened = input.loader.open(&input.file, input.flags);
        opened.out_of(input.packed.as_ref(), &input.loader.kernel.config)
    });
    let mut findings = Findings::new();
    let load = OwnedLoad::try_new(opened, |opened| {
        let (loader, opened) = (&opened.borrow_owner().loader, opened.borrow_dependent());
        let mut attempt = loader.load(opened, args, place, percpu);
        if accepts_undecided {
            attempt = attempt.accept_undecided();
        }
        let (load, said) = attempt.into_result()?;
        findings = said;
        if let Some([a, b]) = load.module.overlap() {
            let what = format!("regions {} and {} would overlap", a.region.name(), b.region.name());
            return Err(Failure::Error(Error::Usage(what)));
        }
        Ok(load)
    })?;
    Ok(LinkedModule { load, findings })
}

impl LinkedModule {
    /// The load, with all that the crates below have to say of it.
    pub fn as_load(&self) -> &Load<'_> {
        self.load.borrow_dependent()
    }

    /// The module file, decompressed.
    pub fn file(&self) -> &[u8] {
        &self.load.borrow_owner().borrow_owner().file
    }

    /// Its name.
    pub fn name(&self) -> Cow<'_, str> {
        self.as_load().module.info.file.name_text()
    }

    /// The release of the kernel that it is loaded into; empty if that is not known.
    pub fn release(&self) -> &str {
        &self.as_load().kernel.release
    }

    /// Its architecture, as `uname -m` calls it.
    pub fn arch(&self) -> &'static str {
        self.as_load().arch.name()
    }

    /// The stage that its memory shows.
    pub fn stage(&self) -> Stage {
        self.as_load().stage
    }

    /// Address of its init function; `None` if it has none.
    pub fn init(&self) -> Option<u64> {
        self.as_load().module.init()
    }

    /// Address of its exit function; `None` if it has none.
    pub fn exit(&self) -> Option<u64> {
        self.as_load().module.exit()
    }

    /// What the kernel says of the module all the same: warnings, notes, and rules that were not judged where that was accepted.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Its memory, region by region in the order of allocation.
    pub fn regions(&self) -> impl Iterator<Item = MemoryRegion<'_>> {
        let module = &self.as_load().module;
        module.segments().map(|segment| MemoryRegion {
            region: segment.region,
            base: segment.base,
            permissions: segment.permissions,
            bytes: module.memory.region(segment.region),
        })
    }

    /// One region of it; `None` if kernels of this version have no such region.
    pub fn region(&self, region: Region) -> Option<MemoryRegion<'_>> {
        self.regions().find(|of| of.region == region)
    }

    /// Its sections in the order of the file, those too that the kernel does not move.
    pub fn sections(&self) -> impl Iterator<Item = Section<'_>> {
        let load = self.as_load();
        (1..load.module.info.sechdrs.len()).filter_map(|index| Section::of(load, index))
    }

    /// The first section of that name.
    pub fn section(&self, name: &str) -> Option<Section<'_>> {
        let file = self.as_load().module.info.file;
        let named = |index: &usize| file.section_name(*index) == name.as_bytes();
        let index = (1..self.as_load().module.info.sechdrs.len()).find(named)?;
        Section::of(self.as_load(), index)
    }

    /// `len` bytes at an address of the module; `None` if not all of them are in one region.
    pub fn read(&self, address: u64, len: u64) -> Option<&[u8]> {
        self.as_load().module.read(address, len)
    }

    /// All symbols in the order of the file, imported ones too.
    pub fn symbols(&self) -> impl Iterator<Item = Symbol<'_>> {
        let load = self.as_load();
        (1..load.module.values.len()).filter_map(|index| Symbol::of(load, index))
    }

    /// The symbol of that name; of several the global one, else the first.
    pub fn symbol(&self, name: &str) -> Option<Symbol<'_>> {
        let load = self.as_load();
        let file = load.module.info.file;
        let all = || file.symbols().iter().enumerate().skip(1);
        let named = || all().filter(|(_, symbol)| file.symbol_name(symbol) == name.as_bytes());
        let global = named().find(|(_, symbol)| symbol.bind() != STB_LOCAL);
        let (index, _) = global.or_else(|| named().next())?;
        Symbol::of(load, index)
    }

    /// What it takes from the kernel and from other modules, in symbol order.
    pub fn imports(&self) -> impl Iterator<Item = Import<'_>> {
        self.as_load().resolution.imports.iter().map(Import::from)
    }

    /// What it exports.
    pub fn exports(&self) -> impl Iterator<Item = Export<'_>> {
        self.as_load().exports().map(Export::from)
    }

    /// The modules that it depends on, by the symbols it takes.
    pub fn depends(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.as_load().resolution.depends.iter().map(|name| printed(name))
    }

    /// All relocations that were applied, by address.
    pub fn relocations(&self) -> Vec<Relocation<'_>> {
        let load = self.as_load();
        let explainer = Explainer::new(load);
        explainer.relocations().iter().map(|relocation| Relocation::of(load, relocation)).collect()
    }

    /// What was changed after relocation, in order.
    pub fn patches(&self) -> Vec<Patch> {
        let load = self.as_load();
        let explainer = Explainer::new(load);
        let patches = load.record.patches.iter();
        patches.map(|patch| Patch::of(load, &explainer, patch)).collect()
    }

    /// How often each step after relocation changed something.
    pub fn patch_counts(&self) -> std::collections::BTreeMap<Step, usize> {
        let mut counts = std::collections::BTreeMap::<Step, usize>::new();
        for patch in &self.as_load().record.patches {
            let count = counts.entry(patch.step).or_default();
            *count = count.saturating_add(1);
        }
        counts
    }

    /// Where an address of the module is: `fat_get_entry+0x4`.
    pub fn symbol_text(&self, address: u64) -> Option<String> {
        Explainer::new(self.as_load()).symbol(address)
    }

    /// Compares the bytes of memory at an address with those that should be there. All differing ranges in order, each with
    /// its cause.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], if not all of these bytes are in one region of the module.
    pub fn compare_at(&self, address: u64, bytes: &[u8]) -> Result<Vec<Difference>, Error> {
        compare::compare(self.as_load(), address, bytes).ok_or_else(|| {
            let what =
                format!("{:#x} bytes at {address:#x} are not all in one region of the module", bytes.len());
            Error::Usage(what)
        })
    }

    /// As [`LinkedModule::compare_at`], with the bytes of a region from its first one on.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], if the module has no such region, or a smaller one.
    pub fn compare(&self, region: Region, bytes: &[u8]) -> Result<Vec<Difference>, Error> {
        let of = self.region(region).ok_or_else(|| {
            Error::Usage(format!("modules of this kernel have no region {}", region.name()))
        })?;
        self.compare_at(of.base, bytes)
    }

    /// Writes one ELF file of it, as debuggers and decompilers open it ([`elf_output`]).
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_elf(&self, mut to: impl io::Write) -> io::Result<()> {
        elf_output::write_to(&mut to, self.as_load(), &Options::default())
    }

    /// As [`LinkedModule::write_elf`], with a choice of what is in it.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write_elf_with(&self, mut to: impl io::Write, options: &Options) -> io::Result<()> {
        elf_output::write_to(&mut to, self.as_load(), options)
    }

    /// The document of `layout.json`.
    pub fn document(&self) -> Document {
        Document::new(self.as_load(), self.release(), &self.findings)
    }
}
