//! What describes a kernel: texts, images, SPECs.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use elf_layout::{KernelConfig, KernelVersion};
use kernel::spec::kallsyms_text;
use kernel::{BootParams, Kernel, KernelDescriptionBuilder, KernelSymbols, Symvers, Types, newest};
use kernel_image::{Btf, ImageArch, KernelImage, Packed, decompress_file};
use kmodld::kernel_source::{needs, of_file, spec_file};
use kmodld::load::{lay_out, open};
use kmodld::memory_file::parse_pieces;
use kmodld::{Args, Loader, Place};
use reloc::{Cpu, MACHINES};
use symres::LoadFlags;

use super::same_twice;
use crate::{invariants, seeds};

/// Images and what decoders give are no larger here, in bytes.
const LIMIT: usize = 1 << 22;

thread_local! {
    static HELLO: Vec<u8> = seeds::fixture("6.12-amd64", "hello.ko");
    static IMPORTER: Vec<u8> = seeds::fixture("6.12-amd64", "gpl_importer.ko");
    static PATCHING: Vec<u8> = seeds::fixture("6.12-amd64", "patching.ko");
    static SYMBOLS: KernelSymbols = KernelSymbols::parse(&seeds::fixture("6.12-amd64", "kallsyms")).expect("good");
    static ON_MEMORY: RefCell<Loader> = RefCell::new(seeds::loader("6.12-amd64"));
}

/// Links a good module on a kernel that hostile input describes.
fn link_on(loader: &Loader, file: &[u8]) -> String {
    let opened = open(file, &loader.kernel, LoadFlags::default());
    let attempt = loader.load(&opened, &Args::default(), &Place::Kernel, None);
    let (load, said) = attempt.whatever_it_says();
    invariants::findings(&said);
    load.iter().for_each(|load| invariants::load(load, &said));
    format!("{:?} {:?}", said.errno(), load.map(|load| load.record.patches.len()))
}

/// A packed module.
pub fn compressed(data: &[u8]) {
    let mut out = Vec::new();
    let _ = Packed::of(data);
    if decompress_file(data, &mut out, LIMIT as u64).is_ok() {
        assert!(out.len() <= LIMIT, "{} bytes come out", out.len());
    }
}

/// A `/proc/kallsyms`: what was read is written and read again.
pub fn kallsyms(data: &[u8]) {
    let Ok(symbols) = KernelSymbols::parse(data) else { return };
    assert!(symbols.len() <= data.len() / 4 + 1, "{} symbols in {} bytes", symbols.len(), data.len());
    assert_eq!(symbols.iter().count(), symbols.len());
    for symbol in symbols.iter().take(100) {
        assert!(symbols.named(symbol.name).any(|found| found == symbol), "a symbol is not found by its name");
        let _ = (symbols.unique(symbol.name), symbols.exported_address(symbol.name, symbol.module));
    }
    let _ = (symbols.modules().count(), symbols.has_local_data());
    let text = kallsyms_text(&symbols);
    // Addresses that are all zero are hidden ones.
    let has_own = symbols.iter().any(|s| s.module.is_none() && s.address != 0);
    match KernelSymbols::parse(&text) {
        Ok(again) => assert_eq!(kallsyms_text(&again), text, "read, written and read again"),
        Err(e) => assert!(!has_own, "what was written cannot be read: {e}"),
    }
}

/// A System.map beside the symbols of a running kernel.
pub fn system_map(data: &[u8]) {
    let Ok(symbols) = KernelSymbols::parse(data) else { return };
    let live = SYMBOLS.with(Clone::clone);
    let kernel = KernelDescriptionBuilder::new().symbols("fuzz", symbols).live_symbols("fuzz", live);
    let Ok(kernel) = kernel.release("fuzz", "6.12.0").build(MACHINES) else { return };
    let loader = Loader::booted(kernel);
    HELLO.with(|file| link_on(&loader, file));
}

/// A Module.symvers.
pub fn symvers(data: &[u8]) {
    let Ok(symvers) = Symvers::parse(data) else { return };
    let count = symvers.exports().len();
    assert!(count <= data.len() / 4 + 1, "{count} entries in {} bytes", data.len());
    let bytes: usize = symvers.exports().iter().map(|e| e.name.len() + e.namespace.len()).sum();
    assert!(bytes <= data.len(), "{bytes} bytes of names in {}", data.len());
    let owned: usize = symvers.exporters().map(|exporter| exporter.positions.len()).sum();
    assert_eq!(owned, count, "each export has one owner");
    symvers.exporters().take(100).for_each(|exporter| drop(exporter.module()));
    let alone = KernelDescriptionBuilder::new().config("fuzz", newest()).symvers("fuzz", symvers);
    let with_symbols = alone.clone().symbols("fuzz", SYMBOLS.with(Clone::clone));
    // Most are not of the kernel that the symbols are of.
    let kernel = with_symbols.build(MACHINES).or_else(|_| alone.build(MACHINES));
    let loader = Loader::booted(kernel.expect("a Module.symvers alone is no contradiction"));
    IMPORTER.with(|file| same_twice(data, || link_on(&loader, file)));
}

/// A `.config`; its lines are taken for a kernel's command line and vermagic too.
pub fn config(data: &[u8]) {
    let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0));
    config.apply(data, reloc::MACHINES);
    for line in data.split(|b| *b == b'\n').take(50) {
        let mut config = config.clone();
        config.apply_vermagic(line);
        let text = String::from_utf8_lossy(line);
        let _ = (KernelConfig::of_release(&text, reloc::MACHINES), BootParams::parse(&text));
    }
    let kernel = Kernel::unknown(config.clone());
    HELLO.with(|file| {
        let opened = open(file, &kernel, LoadFlags::default());
        let mut said = opened.said.clone();
        if let Some(module) = &opened.module
            && let Some(arch) = reloc::architecture(module.e_machine())
        {
            let _ = lay_out(&config, module, arch, Cpu::default(), &mut said);
        }
        invariants::findings(&said);
    });
}

/// `--memory`.
pub fn memory(data: &[u8]) {
    let Ok(pieces) = parse_pieces(data) else { return };
    let bytes: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
    assert!(bytes <= data.len(), "{bytes} bytes of memory in {} bytes of text", data.len());
    ON_MEMORY.with_borrow_mut(|loader| {
        loader.kernel.state.live = Arc::new(pieces);
        PATCHING.with(|file| same_twice(data, || link_on(loader, file)));
    });
}

/// A SPEC file. What does not begin as one is taken for the records of one, before they are packed: behind the
/// checksum.
pub fn spec(data: &[u8]) {
    let packed = if spec_file::is_spec(data) { data.to_vec() } else { seeds::pack_spec(data) };
    let Ok(description) = of_file(Path::new("fuzz"), &packed) else { return };
    let records = description.to_records(&needs());
    let mut file = Vec::new();
    spec_file::write(&records, &mut file).expect("a Vec takes all");
    assert_eq!(spec_file::parse(&file).ok(), Some(records), "written and read again");
    let Ok(kernel) = description.build(MACHINES) else { return };
    let loader = Loader::booted(kernel);
    PATCHING.with(|file| same_twice(data, || link_on(&loader, file)));
}

/// A kernel image: everything that can be asked.
pub fn image(data: &[u8]) {
    let known: Vec<&dyn ImageArch> =
        reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let Ok(image) = KernelImage::open(data, LIMIT, &known) else { return };
    assert!(image.bytes().len() <= LIMIT.max(data.len()), "{} bytes come out", image.bytes().len());
    if let Ok(kallsyms) = image.kallsyms() {
        assert_eq!(kallsyms.iter().count(), kallsyms.len());
        // A table of tokens makes names of codes: no name is longer than 512 bytes in a kernel.
        let names: usize = kallsyms.iter().map(|symbol| symbol.name.len()).sum();
        assert!(names <= 1024 * image.bytes().len(), "{names} bytes of names");
        let _ = KernelSymbols::of_kernel(kallsyms.iter().map(|s| (s.address, s.kind, s.name)));
    }
    if let Ok(exports) = image.exports() {
        assert!(exports.len() <= image.bytes().len() / 8, "{} exports", exports.len());
        assert_eq!(exports.iter().count(), exports.len());
    }
    if let Ok(found) = image.btf() {
        ask_btf(&found);
    }
    let _ = (image.vermagic(), image.release(), image.banner(), image.page_size());
    let _ = image.config().map(|config| config.map(|text| assert!(text.len() <= KernelImage::DEFAULT_LIMIT)));
    let _ = image.certificates().der.len();
    for at in [0, image.base().unwrap_or(0), u64::MAX - 3, u64::MAX] {
        let _ = (image.read(at, 8), image.read_u64(at), image.read_relocated(at, 100), image.read_cstr(at));
    }
}

/// A BTF.
pub fn btf(data: &[u8]) {
    if let Ok(btf) = Btf::parse(data) {
        assert!(btf.len() <= data.len() / 12, "{} types in {} bytes", btf.len(), data.len());
        ask_btf(&btf);
    }
}

fn ask_btf(btf: &Btf<'_>) {
    for name in ["outer", "inner", "module", "e"] {
        let _ = (
            btf.struct_size(name),
            btf.member(name, "in"),
            btf.member(name, "z.y"),
            btf.enum_value(name, "TWO"),
        );
    }
    let text = Types::of(btf, &needs().types).to_text();
    assert_eq!(Types::parse(&text).to_text(), text, "types written and read again");
}
