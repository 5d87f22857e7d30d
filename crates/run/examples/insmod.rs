//! Boots a kernel image and loads modules into it, one after the other: `insmod IMAGE MODULE...`
#![allow(clippy::restriction, reason = "an example")]

use std::time::Instant;

use kernel_image::{ImageArch, KernelImage};
use run::aarch64::A64;
use run::boot::boot;
use run::machine::Platform;
use run::parameters::Told;
use run::system::{Running, System};
use run::x86_64::X86;

fn main() {
    let known: Vec<&'static dyn ImageArch> =
        reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let mut arguments = std::env::args().skip(1);
    let file = std::fs::read(arguments.next().unwrap()).unwrap();
    let image = KernelImage::open(&file, KernelImage::DEFAULT_LIMIT, &known).unwrap();
    match image.machine().e_machine {
        62 => load::<X86>(&image, arguments),
        _ => load::<A64>(&image, arguments),
    }
}

fn load<C: Platform + std::fmt::Debug + Send + 'static>(
    image: &KernelImage<'_>,
    modules: impl Iterator<Item = String>,
) where
    C::Registers: Send,
{
    let begin = Instant::now();
    let (machine, report) = boot::<C>(image, &Told::default(), &[], &mut |_, _| {}).unwrap();
    println!(
        "booted in {:.2?}, {} of {} steps stopped",
        begin.elapsed(),
        report.failed().count(),
        report.steps.len()
    );
    for (name, stopped) in report.failed() {
        println!("    {name}: {stopped}");
    }
    let mut system = System::new(machine, 500_000_000).unwrap();
    for path in ["/proc/version", "/proc/devices", "/proc/modules"] {
        let fd = system.open(path, 0, 0).unwrap();
        println!("{path}: {fd}");
        if fd >= 0 {
            let (_, text) = system.read_all(fd, 1 << 16).unwrap();
            println!("{}", String::from_utf8_lossy(&text));
            system.close(fd).unwrap();
        }
    }
    system.snapshot();
    for path in modules {
        let begin = Instant::now();
        let log = system.machine.world.log.len();
        let before = system.machine.cpu.executed();
        let bytes = std::fs::read(&path).unwrap();
        match system.insmod(&bytes, "") {
            Ok(result) => println!("{path}: {result}"),
            Err(stopped) => println!("{path}: {stopped}\n    {}", stopped.stack.join("\n    ")),
        }
        for device in system.devices().unwrap() {
            if device.operations.iter().any(|(_, function)| function.contains('[')) {
                println!("    {device:?}");
            }
        }
        let name = path.rsplit('/').next().unwrap().split(".ko").next().unwrap().replace('-', "_");
        match system.rmmod(&name, false) {
            Ok(result) => println!("rmmod {name}: {result}"),
            Err(stopped) => println!("rmmod {name}: {stopped}\n    {}", stopped.stack.join("\n    ")),
        }
        for message in system.machine.world.log.iter().skip(log) {
            println!("    <{}> {}", message.level, String::from_utf8_lossy(&message.text));
        }
        println!("    {} instructions, {:.2?}", system.machine.cpu.executed() - before, begin.elapsed());
        let begin = Instant::now();
        let pages = system.machine.memory.pages_since_snapshot();
        system.restore();
        println!("    back in {:.2?} ({pages} pages)", begin.elapsed());
    }
}
