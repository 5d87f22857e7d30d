//! Loads and unloads modules, each on a kernel that has just been booted: `sample IMAGE`. Each line of its input names files of modules, of
//! which the last one is asked for, and the others come first. For each line it says what came of it. The log goes to its standard error
//! if there are warnings, or with SAMPLE_LOG in the environment.
#![allow(clippy::restriction, reason = "an example")]

use std::io::{BufRead, Write};

use kernel_image::{ImageArch, KernelImage};
use run::machine::Stopped;
use run::parameters::Told;
use run::system::Running;

/// Instructions of one system call at most.
const BUDGET: u64 = 2_000_000_000;

fn main() {
    let known: Vec<&'static dyn ImageArch> =
        reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let file = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let image = KernelImage::open(&file, KernelImage::DEFAULT_LIMIT, &known).unwrap();
    let machine = image.machine().e_machine;
    let processor = run::PROCESSORS.iter().find(|processor| processor.machine() == machine).unwrap();
    let (mut system, _) = processor.boot(&image, &Told::default(), BUDGET).unwrap();
    system.snapshot();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        system.restore();
        let (before, told) = (system.executed(), system.events().len());
        let logged = system.log().len();
        let said = match all(&mut *system, &line) {
            Ok(said) => said,
            Err(stopped) => format!("stopped {stopped}; called from {}", stopped.stack.join(", ")),
        };
        let warnings = system.events().len() - told;
        if warnings != 0 || std::env::var_os("SAMPLE_LOG").is_some() {
            for message in system.log().iter().skip(logged) {
                eprintln!("{}", String::from_utf8_lossy(&message.text));
            }
        }
        println!("{said}\t{}\t{warnings}", system.executed() - before);
        std::io::stdout().flush().unwrap();
    }
}

fn all(system: &mut dyn Running, line: &str) -> Result<String, Stopped> {
    let files: Vec<&str> = line.split_whitespace().collect();
    for path in &files {
        let bytes = std::fs::read(path).unwrap();
        let result = system.insmod(&bytes, "")?;
        if result < 0 {
            return Ok(format!("init {result} {path}"));
        }
    }
    let path = files.last().unwrap();
    let name = path.rsplit('/').next().unwrap().split(".ko").next().unwrap().replace('-', "_");
    // What it has left to do is done. Tests of algorithms take time: a processor of 250 million instructions a second is a slow one.
    system.sleep(1000)?;
    let result = system.rmmod(&name, false)?;
    Ok(format!("exit {result} {path}"))
}
