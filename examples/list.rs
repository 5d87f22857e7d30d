//! list KERNEL FOLDER: the modules of a folder, what they take and give, and where their init functions would lie.

use std::error::Error;
use std::io::Write;

/// The program, with its arguments and where it prints.
pub fn run(args: &[String], out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let [kernel, folder] = args else { return Err("list KERNEL FOLDER".into()) };
    let kernel = kmodld::Kernel::builder().image(kernel)?.build()?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match kernel.load(std::fs::read(&path)?).run() {
            Ok(module) => {
                let (imports, exports) = (module.imports().count(), module.exports().count());
                let init = module.init().unwrap_or(0);
                writeln!(out, "{}: {imports} imports, {exports} exports, init at {init:#x}", module.name())?;
            }
            Err(why) => writeln!(out, "{}: {why}", path.display())?,
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&std::env::args().skip(1).collect::<Vec<_>>(), &mut std::io::stdout())
}
