//! Which architectures are known is the caller's: a made-up one is read, and one that nobody named is an error.

use elf_layout::Machine;
use kernel_image::{Error, FlatFormat, FlatHeader, Format, ImageArch, KallsymsLayout, KernelImage};

use super::{ARM64_BASE, Built, Plan, RELEASE, build};

const LIMIT: usize = 1 << 24;
const E_MACHINE: u16 = 0x1234;
/// Its relative relocation, and the magic of its flat image.
const RELATIVE: u32 = 0x77;
const MAGIC: &[u8; 4] = b"TOYm";

/// An architecture with all that an image can have.
#[derive(Debug)]
struct Toy;

/// An architecture of which only the machine is known.
#[derive(Debug)]
struct Plain;

static TOY: Machine = machine("toy", "toyish", &[("CONFIG_TOY_LARGE_PAGES", 0x2000)]);
static PLAIN: Machine = machine("plain", "", &[]);

const fn machine(
    name: &'static str,
    vermagic_word: &'static str,
    page_sizes: &'static [(&'static str, u64)],
) -> Machine {
    Machine {
        name,
        e_machine: E_MACHINE,
        source_arch: "toy",
        debian_arch: "toy",
        vermagic_word,
        text_addresses: 0xffff_8000..=0xffff_8fff,
        page_sizes,
        inline_static_calls: false,
        asks_for_retpoline: false,
        cpu_capabilities: &[],
        toolchain_symbols: &[],
    }
}

static TOY_IMAGE: FlatFormat = FlatFormat {
    name: "ToyImage",
    title: "toy Image",
    header: |image| {
        (image.get(0x38..0x3c)? == MAGIC).then_some(FlatHeader {
            text_offset: 0,
            big_endian: false,
            page_size: Some(0x2000),
        })
    },
    region_align: 128 << 20,
    block: 2 << 20,
    usual_base: ARM64_BASE,
};

impl ImageArch for Toy {
    fn machine(&self) -> &'static Machine {
        &TOY
    }

    fn flat_format(&self) -> Option<&'static FlatFormat> {
        Some(&TOY_IMAGE)
    }

    fn relative_relocation(&self) -> Option<u32> {
        Some(RELATIVE)
    }
}

impl ImageArch for Plain {
    fn machine(&self) -> &'static Machine {
        &PLAIN
    }
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    while let Some(at) = memchr::memmem::find(bytes, from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
}

/// A kernel with pointers that relocation fills in, made one of the toy machine.
fn toy_kernel(elf: bool) -> Built {
    let mut built = build(&Plan { elf, ..Plan::new(true, KallsymsLayout::NamesFirst) });
    replace(&mut built.bytes, b"ARMd", MAGIC);
    replace(&mut built.bytes, b"aarch64\0", b"toyish\0\0");
    replace(&mut built.bytes, &0x403u64.to_le_bytes(), &u64::from(RELATIVE).to_le_bytes());
    if elf {
        built.bytes[0x12..0x14].copy_from_slice(&E_MACHINE.to_le_bytes());
    }
    built
}

#[test]
fn a_machine_from_outside() {
    for (elf, format, name) in [(false, Format::Flat, "ToyImage"), (true, Format::Elf, "ELF")] {
        let built = toy_kernel(elf);
        let known: [&dyn ImageArch; 2] = [reloc::ARCHITECTURES[0], &Toy];
        let image = KernelImage::open(&built.bytes, LIMIT, &known).unwrap();
        assert_eq!((image.machine(), image.format(), image.format_name()), (&TOY, format, name));
        assert_eq!((image.base(), image.page_size()), (Some(ARM64_BASE), Some(0x2000)), "{name}");
        assert_eq!(image.relocated_pointers(), 1, "KSYM-12: {name}: its own type");
        let symbols = image.kallsyms().unwrap();
        assert!(symbols.iter().map(|s| s.address).eq(built.symbols.iter().map(|s| s.0)), "{name}");
        let vermagic = format!("{RELEASE} SMP preempt mod_unload modversions toyish");
        assert_eq!(image.vermagic(), Some(vermagic.as_bytes()), "{name}: its own word");
        assert_eq!(image.exports().unwrap().len(), built.exports.len(), "{name}");
    }
}

#[test]
fn a_machine_without_a_flat_image() {
    let mut built = toy_kernel(true);
    let image = KernelImage::open(&built.bytes, LIMIT, &[&Plain]).unwrap();
    assert_eq!((image.machine(), image.page_size()), (&PLAIN, Some(4096)), "no option changes it");
    assert_eq!(image.relocated_pointers(), 0, "no relative relocation, no search for one");
    assert_eq!(image.vermagic(), None, "a word that is not its own");
    replace(&mut built.bytes, b" toyish", b" \0");
    let image = KernelImage::open(&built.bytes, LIMIT, &[&Plain]).unwrap();
    assert!(image.vermagic().is_some());
}

#[test]
fn a_machine_that_nobody_named_is_an_error() {
    let text = |file: &[u8], known: &[&'static dyn ImageArch]| {
        KernelImage::open(file, LIMIT, known).unwrap_err().to_string()
    };
    let (flat, elf) = (toy_kernel(false).bytes, toy_kernel(true).bytes);
    let [x86, arm64] = [0, 1].map(|n| reloc::ARCHITECTURES[n]);
    let what = "a kernel for machine 0x1234 (no name is known for it): ";
    assert_eq!(text(&elf, &[]), format!("{what}no machine is known"));
    assert_eq!(text(&elf, &[x86]), format!("{what}only x86_64 is read"));
    assert_eq!(text(&elf, &[x86, arm64]), format!("{what}only x86_64 and aarch64 are read"));
    let other = build(&Plan::new(false, KallsymsLayout::Old)).bytes;
    let error = KernelImage::open(&other, LIMIT, &[arm64, &Toy]).unwrap_err();
    assert_eq!(error, Error::Machine { number: 62, known: vec![arm64.machine(), &TOY] });

    let what =
        "not a kernel image: it starts with [00, 00, 00, 00, 00, 00, 00, 00], which is no bzImage, ELF, ";
    let end = "EFI zboot or known compression";
    assert_eq!(text(&flat, &[x86]), format!("{what}{end}"));
    assert_eq!(text(&flat, &[x86, arm64]), format!("{what}arm64 Image, {end}"));
    let other = build(&Plan::new(true, KallsymsLayout::Old)).bytes;
    assert_eq!(text(&other, &[x86, &Toy]), format!("{what}toy Image, {end}"));
}
