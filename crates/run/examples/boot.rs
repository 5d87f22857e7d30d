//! Boots kernel images: which functions were called, which stopped, how long it took.
#![allow(clippy::restriction, reason = "an example")]

use std::time::Instant;

use kernel_image::{ImageArch, KernelImage};
use run::aarch64::A64;
use run::boot::{Step, boot};
use run::machine::{Machine, Platform};
use run::parameters::Told;
use run::x86_64::X86;

fn main() {
    for path in std::env::args().skip(1) {
        let file = std::fs::read(&path).unwrap();
        let begin = Instant::now();
        let image = KernelImage::open(&file, KernelImage::DEFAULT_LIMIT, &known()).unwrap();
        println!("opened in {:.2?}", begin.elapsed());
        match image.machine().e_machine {
            62 => show::<X86>(&path, &image),
            _ => show::<A64>(&path, &image),
        }
    }
}

fn known() -> Vec<&'static dyn ImageArch> {
    reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect()
}

fn show<C: Platform>(path: &str, image: &KernelImage<'_>) {
    let verbose = std::env::var_os("VERBOSE").is_some();
    // Functions of which each call is printed, WATCH="one two".
    let watched = std::env::var("WATCH").unwrap_or_default();
    let watched: Vec<&'static str> =
        watched.split_whitespace().map(|name| &*name.to_owned().leak()).collect();
    let mut told = 0;
    let mut observe = |step: &Step, machine: &Machine<C>| {
        for event in machine.world.events.iter().skip(told) {
            println!("  {event}");
        }
        told = machine.world.events.len();
        if let Err(stopped) = &step.result {
            println!("{}: {stopped}\n    {}", step.name, stopped.stack.join("\n    "));
        } else if verbose {
            println!("{:>10} {} = {:x?}", step.instructions, step.name, step.result);
        }
    };
    if let Some(path) = std::env::var_os("UNPACKED") {
        std::fs::write(path, image.bytes()).unwrap();
    }
    // Of another processor, CAPABILITIES="hex"; and words of a command line, WORDS="one two".
    let words = std::env::var("WORDS").unwrap_or_default();
    let hex = std::env::var("CAPABILITIES").unwrap_or_default();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let told = Told {
        words: words.split_whitespace().map(str::to_owned).collect(),
        capabilities: (!hex.is_empty()).then(|| (0..hex.len()).step_by(2).map(byte).collect()),
    };
    let begin = Instant::now();
    let (machine, report) = match boot::<C>(image, &told, &watched, &mut observe) {
        Ok(booted) => booted,
        Err(error) => return println!("{path}: {error}"),
    };
    let took = begin.elapsed();
    if verbose {
        for message in &machine.world.log {
            println!("<{}> {}", message.level, String::from_utf8_lossy(&message.text));
        }
        for event in &machine.world.events {
            println!("{event}");
        }
    }
    println!(
        "{path}: {} steps, {} stopped, {} instructions, {} stubs called, {took:.2?}; not there: {}",
        report.steps.len(),
        report.failed().count(),
        machine.cpu.executed(),
        machine.world.stub_calls,
        report.missing.join(" ")
    );
}
