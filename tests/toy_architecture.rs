//! An architecture from outside of the workspace: it is described, loaded for, relocated and finalised by nothing but the
//! trait; and a kernel of a version that kmodld knows no rules of says so.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, EXEC, GLOBAL, Rela, UNDEF, WRITE};
use elf_layout::place::Windows;
use elf_layout::{Coverage, Errno, Finding, Findings, KernelConfig, KernelVersion, Machine};
use kernel::{KernelDescriptionBuilder, KernelSymbols};
use kernel_image::ImageArch;
use kmodld::{Args, Loader, Place, Stage};
use reloc::{Architecture, Finalizer, Formula, Howto, ModArch, Records, RelaSection, Step};
use symres::LoadFlags;

const EM_TOY: u16 = 0x7079;
const R_TOY_WORD: u32 = 7;
const AREA: u64 = 0x7000_0000_0000;

static MACHINE: Machine = Machine {
    name: "toy",
    e_machine: EM_TOY,
    source_arch: "toys",
    debian_arch: "toy",
    vermagic_word: "",
    text_addresses: 0x6000..=0x6fff,
    page_sizes: &[("CONFIG_TOY_64K_PAGES", 0x1_0000)],
    inline_static_calls: false,
    asks_for_retpoline: false,
    cpu_capabilities: &[],
    toolchain_symbols: &[],
};

/// Relocations are words of 8 bytes with all bits turned over; what is patched afterwards is the first byte of `.toys`.
#[derive(Debug)]
struct Toy;

static TOY: &[&dyn Architecture] = &[&Toy];

impl ImageArch for Toy {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }
}

impl Architecture for Toy {
    fn module_area(&self, _: &KernelConfig, _: &dyn Fn(&str) -> Option<u64>) -> Windows {
        Windows { direct: (AREA, AREA + (1 << 30)), fallback: None, code_block: None }
    }

    fn apply_relocate_add(
        &self,
        section: &mut RelaSection<'_>,
        records: Records<'_>,
        _: &mut ModArch,
        said: &mut Findings,
    ) {
        let Records::File(records) = records else { panic!("nobody reordered them") };
        for (entry, rela) in records.iter().map(elf_layout::elf::Rela::from).enumerate() {
            if rela.r_type() != R_TOY_WORD {
                let why = format!("type {} is none of this machine's", rela.r_type());
                let finding = Finding::error("TOY-1", Errno::ENOEXEC, why);
                said.push(finding.about(section.subject(entry, &rela)));
                continue;
            }
            let value = section.values[rela.r_sym() as usize].wrapping_add_signed(rela.r_addend);
            let at = rela.r_offset as usize;
            section.memory.section()[at..at + 8].copy_from_slice(&(!value).to_le_bytes());
        }
    }

    fn howto(&self, r_type: u32) -> Option<Howto> {
        (r_type == R_TOY_WORD).then_some(Howto::new(8, Formula::Absolute))
    }

    fn module_finalize(&self, module: &mut Finalizer<'_, '_>) {
        let toys = module.section(".toys").unwrap();
        assert!(module.write(toys.address, &[0x42], Step::Alternative, 0));
    }
}

/// A kernel of that release for the toy.
fn loader(release: &str) -> Loader {
    let config =
        format!("# Linux/toys {release} Kernel Configuration\nCONFIG_MODULES=y\nCONFIG_TOY_64K_PAGES=y\n");
    let symbols = KernelSymbols::parse(b"0000600000000000 T _text\n0000600000000100 T toy_print\n").unwrap();
    let builder = KernelDescriptionBuilder::new()
        .release("test", release)
        .config_text("test", config.into_bytes())
        .symbols("test", symbols);
    Loader::booted(builder.build(&[&MACHINE]).unwrap()).with_architectures(TOY)
}

/// A module with a pointer to the kernel and one to its own code.
fn module(r_type: u32) -> Vec<u8> {
    let mut b = Builder::module(&["name=toy", "license=GPL", "intree=Y", "vermagic=6.12.0 "]);
    b.machine = EM_TOY;
    b.section(".text", ALLOC | EXEC, 16).zeros(32);
    b.section(".toys", ALLOC | WRITE, 8).zeros(32);
    let (print, text) = (b.symbol("toy_print", GLOBAL, 0, UNDEF, 0), b.index(".text"));
    let here = b.symbol("here", GLOBAL, 2, text, 8);
    let record = |offset, symbol, addend| Rela { offset, kind: r_type, symbol, addend };
    b.relocations(".toys", &[record(8, print, 0), record(16, here, 4)]);
    b.build()
}

#[test]
fn an_architecture_from_outside_links_a_module() {
    let loader = loader("6.12.0");
    assert_eq!(loader.kernel.machine.map(|m| m.name), Some("toy"), "by the configuration");
    assert_eq!(loader.kernel.config.page_size, 0x1_0000, "by its own option");
    let file = module(R_TOY_WORD);
    let opened = loader.open(&file, LoadFlags::default());
    let attempt = loader.load(&opened, &Args::default(), &Place::Kernel, None);
    let (load, said) = attempt.whatever_it_says();
    assert!(!said.refused(), "{said:?}");
    let load = load.expect("a load");
    assert_eq!((load.arch.name(), load.stage), ("toy", Stage::Final));
    let (text, toys) = (load.module.section(".text").unwrap(), load.module.section(".toys").unwrap());
    assert_eq!(text.address, AREA, "LAYOUT-50: its own module area");
    assert_eq!(load.module.u64(toys.address + 8), Some(!0x6000_0000_0100), "the kernel's symbol");
    assert_eq!(load.module.u64(toys.address + 16), Some(!(AREA + 12)), "its own symbol");
    assert_eq!(load.module.read(toys.address, 1), Some(&[0x42][..]), "patched");
    let patch = load.record.patches.iter().find(|p| p.place == toys.place).expect("a patch on record");
    assert_eq!((patch.step, patch.len), (Step::Alternative, 1));
    let explained = load.explain(toys.address + 8);
    assert_eq!((explained.section, explained.relocations.len()), (Some(toys.index), 1), "by address");
}

#[test]
fn what_it_refuses_is_a_finding() {
    let loader = loader("6.12.0");
    let file = module(R_TOY_WORD + 1);
    let opened = loader.open(&file, LoadFlags::default());
    let attempt = loader.load(&opened, &Args::default(), &Place::Kernel, None);
    let said = attempt.said();
    assert_eq!(said.errno(), Some(Errno::ENOEXEC));
    assert_eq!(said.iter().filter(|f| f.code == "TOY-1").count(), 2, "all of them, not only the first");
}

#[test]
fn nobody_else_takes_its_modules() {
    let file = module(R_TOY_WORD);
    let known = kmodld::load::open(&file, &kernel::Kernel::unknown(kernel::newest()), LoadFlags::default());
    assert!(known.said.iter().any(|f| f.code == "VAL-13"), "VAL-13: it is none of the machines known here");
    let x86 = common::read(&common::ko("6.12-amd64", "hello"));
    let opened = loader("6.12.0").open(&x86, LoadFlags::default());
    assert!(opened.said.iter().any(|f| f.code == "VAL-13"), "VAL-13: nor does a toy kernel take others");
}

#[test]
fn a_version_that_is_not_known_says_so() {
    let coverage = |release: &str| loader(release).kernel.coverage();
    assert_eq!(coverage("6.12.0"), Coverage::Rules, "no kernel of it was compared");
    assert_eq!(coverage("9.9.9"), Coverage::Unknown);
    assert_eq!(coverage("3.2.0"), Coverage::Unknown);
    let unknown = kernel::Kernel::unknown(KernelConfig::assumed(KernelVersion::new(6, 12, 0)));
    assert_eq!(unknown.coverage(), Coverage::Unknown, "no version was given");
}
