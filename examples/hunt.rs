//! hunt KERNEL MODULE ADDRESS BLOB: memory at an address of a module, compared with what should be there. ADDRESS is that of
//! the module's first region, as /sys/module shows it.

use std::error::Error;
use std::io::Write;

use kmodld::{Kernel, Placement};

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [kernel, file, address, blob] = args else { return Err("hunt KERNEL MODULE ADDRESS BLOB".into()) };
    let base = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
    let kernel = Kernel::builder().image(kernel)?.build()?;
    let module = kernel.load(std::fs::read(file)?).at(Placement::Base(base)).choices().run()?;
    for difference in module.compare_at(base, &std::fs::read(blob)?)? {
        let mark = if difference.cause.is_sound() { "may be" } else { "ALARM" };
        let place = difference.symbol.as_deref().unwrap_or("-");
        let (address, len, cause) = (difference.address, difference.found.len(), &difference.cause);
        writeln!(out, "{mark}: {address:#x} {place}: {len} bytes: {cause:?}")?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
