//! Boots kernel images: which functions were called, which stopped, how long it took.
#![allow(clippy::restriction, reason = "an example")]

use std::time::Instant;

use kernel_image::{ImageArch, KernelImage};
use run::boot::boot;
use run::machine::Platform;
use run::x86_64::X86;

fn main() {
    let known: Vec<&'static dyn ImageArch> = reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let verbose = std::env::var_os("VERBOSE").is_some();
    for path in std::env::args().skip(1) {
        let file = std::fs::read(&path).unwrap();
        let begin = Instant::now();
        let image = KernelImage::open(&file, KernelImage::DEFAULT_LIMIT, &known).unwrap();
        let opened = begin.elapsed();
        let begin = Instant::now();
        let (machine, report) = match boot::<X86>(&image) {
            Ok(booted) => booted,
            Err(error) => {
                println!("{path}: {error}");
                if let run::boot::Error::Stopped { stopped, .. } = &error {
                    println!("    {}", stopped.stack.join("\n    "));
                }
                continue;
            }
        };
        let took = begin.elapsed();
        for (name, stopped) in report.failed() {
            println!("{name}: {stopped}\n    {}", stopped.stack.join("\n    "));
        }
        if verbose {
            for step in &report.steps {
                println!("{:>10} {} = {:x?}", step.instructions, step.name, step.result.as_ref().ok());
            }
            for message in &machine.world.log {
                println!("<{}> {}", message.level, String::from_utf8_lossy(&message.text));
            }
            for event in &machine.world.events {
                println!("{event}");
            }
        }
        println!(
            "{path}: opened in {opened:.2?}, {} steps, {} stopped, {} instructions, {} stubs called, {took:.2?}; not there: {}",
            report.steps.len(),
            report.failed().count(),
            machine.cpu.executed(),
            machine.world.stub_calls,
            report.missing.join(" ")
        );
    }
}
