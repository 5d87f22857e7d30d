//! own_kernel MODULE: an architecture and a kernel that kmodld does not know, described by the program alone.

use std::error::Error;
use std::io::Write;

use elf_layout::{Findings, KernelConfig, Machine, elf::Rela, place::Windows};
use kernel_image::ImageArch;
use reloc::{Architecture, ModArch, Records, RelaSection};

#[derive(Debug)]
struct Toy;
static MACHINE: Machine = Machine::new("toy", 0x7079);

impl ImageArch for Toy {
    fn machine(&self) -> &'static Machine {
        &MACHINE
    }
}

impl Architecture for Toy {
    fn module_area(&self, _: &KernelConfig, _: &dyn Fn(&str) -> Option<u64>) -> Windows {
        Windows { direct: (0x7000_0000_0000, 0x7000_4000_0000), fallback: None, code_block: None }
    }

    /// Its only type: the address of a symbol, with all bits turned over.
    fn apply_relocate_add(
        &self,
        to: &mut RelaSection<'_>,
        all: Records<'_>,
        _: &mut ModArch,
        _: &mut Findings,
    ) {
        let Records::File(all) = all else { return };
        for rela in all.iter().map(Rela::from) {
            let Some(value) =
                to.values.get(rela.r_sym() as usize).map(|s| !s.wrapping_add_signed(rela.r_addend))
            else {
                continue;
            };
            let word = to
                .memory
                .section()
                .get_mut(rela.r_offset as usize..)
                .and_then(|bytes| bytes.first_chunk_mut());
            word.into_iter().for_each(|word: &mut [u8; 8]| *word = value.to_le_bytes());
        }
    }

    fn relocation_width(&self, _: u32) -> u64 {
        8
    }
}

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [path] = args else { return Err("own_kernel MODULE".into()) };
    let kernel = kmodld::Kernel::builder()
        .architectures(&[&Toy])
        .release("9.1.0")
        .config_text(
            "# Linux/toy 9.1.0 Kernel Configuration\nCONFIG_MODULES=y\n# CONFIG_MODVERSIONS is not set\n",
        )
        .symtab_text("0000600000000000 T _text\n0000600000000100 T toy_print\n")?
        .symvers_text("0x00000000\ttoy_print\tvmlinux\tEXPORT_SYMBOL\t\n")?
        .build()?;
    let module = kernel.load(std::fs::read(path)?).accept_undecided().run()?;
    writeln!(out, "{} on {} {}: {:?}", module.name(), module.arch(), kernel.release(), kernel.coverage())?;
    for section in module.sections().filter(|section| section.address.is_some()) {
        writeln!(out, "{:#x} {}", section.address.unwrap_or(0), section.name)?;
    }
    Ok(())
}

#[allow(dead_code, reason = "tests call `run`")]
fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
