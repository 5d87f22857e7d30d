//! own_kernel MODULE: an architecture and a kernel that kmodld does not know, described by the program alone.

use std::error::Error;
use std::io::Write;

use kmodld::reloc::{Architecture, Formula, Howto, ImageArch, KernelConfig, Machine, Windows};

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
        Windows::new(0x7000_0000_0000, 0x7000_4000_0000)
    }

    /// Its only type: the address of a symbol.
    fn howto(&self, r_type: u32) -> Option<Howto> {
        (r_type == 7).then_some(Howto::new(8, Formula::Absolute))
    }
}

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [path] = args else { return Err("own_kernel MODULE".into()) };
    let kernel = kmodld::Kernel::builder()
        .architectures(&[&Toy])
        .release("9.1.0")
        .config_text("# Linux/toy 9.1.0 Kernel Configuration\nCONFIG_MODULES=y\n")
        .symtab_text("0000600000000000 T _text\n0000600000000100 T toy_print\n")?
        .symvers_text("0x00000000\ttoy_print\tvmlinux\tEXPORT_SYMBOL\t\n")?
        .build()?;
    let module = kernel.load(std::fs::read(path)?).accept_undecided().run()?;
    writeln!(out, "{} on {} {}: {:?}", module.name(), module.arch(), kernel.release(), kernel.coverage())?;
    for section in module.sections().filter(|section| section.address.is_some()) {
        writeln!(out, "{:#x} {} {:x?}", section.address.unwrap_or(0), section.name, section.bytes())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
