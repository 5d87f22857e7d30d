//! disassemble KERNEL MODULE: the first function of an x86-64 module as it lies in memory, with the names of what it calls.

use std::error::Error;
use std::io::Write;

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use kmodld::linked::SymbolKind;

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [kernel, file] = args else { return Err("disassemble KERNEL MODULE".into()) };
    let module = kmodld::Kernel::builder().image(kernel)?.build()?.load(std::fs::read(file)?).run()?;
    let mut symbols = module.symbols();
    let function = symbols.find(|s| s.kind == SymbolKind::Function && !s.is_undefined && s.size != 0);
    let function = function.ok_or("no function")?;
    let start = function.address.ok_or("it lies nowhere")?;
    let code = module.read(start, function.size).ok_or("it is not in memory")?;
    writeln!(out, "{}:", function.name)?;
    for instruction in Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
        let mut text = String::new();
        NasmFormatter::new().format(&instruction, &mut text);
        let target = instruction.near_branch_target();
        let called = module.symbols().find(|s| target != 0 && s.address == Some(target));
        writeln!(out, "{:#x} {text} {}", instruction.ip(), called.map_or("".into(), |s| s.name))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
