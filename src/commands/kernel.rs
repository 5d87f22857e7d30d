//! `kmodld kernel`

use std::fmt::Write;

use elf_layout::Machine;
use kernel::spec::{exports_as_symvers, kallsyms_text};
use kernel::{Exports, KernelDescriptionBuilder, KernelSymbols};
use kmodld::kernel_source::{self, NEEDS, spec_file};
use kmodld::{Error, raw_output};
use reloc::MACHINES;
use serde_json::json;

use super::Outcome;
use super::outputs::keep_apart;
use crate::cli::KernelCommand;
use crate::report::{self, one_line};

pub fn run(args: &KernelCommand) -> Result<Outcome, Error> {
    keep_apart(args.output.as_slice(), [args.path.as_path()])?;
    let kernel = kernel_source::read(&args.path)?;
    let machine = kernel.machine_told(MACHINES);
    let machine = machine.map_err(|source| Error::Kernel { path: args.path.clone(), source })?;
    if let Some(output) = &args.output {
        let records = kernel.to_records(&NEEDS);
        raw_output::replace(output, |file| spec_file::write(&records, &mut std::io::BufWriter::new(file)))?;
    }
    let missing = |what: &str| Error::unusable(&args.path, format!("no {what} in it"));
    if args.kallsyms {
        let symbols = kernel.link_symbols().ok_or_else(|| missing("symbols"))?;
        report::print_bytes(&kallsyms_text(symbols))?;
    } else if args.exports {
        let exports = kernel.own_exports().ok_or_else(|| missing("export tables"))?;
        report::print_bytes(&exports_as_symvers(exports))?;
    } else if args.json {
        report::json(&document(&kernel, machine))?;
    } else {
        report::print(&table(&kernel, machine))?;
    }
    Ok(Outcome::Done)
}

fn document(kernel: &KernelDescriptionBuilder, machine: Option<&'static Machine>) -> serde_json::Value {
    let hex = |value: u64| format!("{value:#x}");
    let (size, init_exit) = kernel.struct_module();
    let (init, exit) = init_exit.unzip();
    json!({
        "release": kernel.own_release(),
        "arch": machine.map(|m| m.name),
        "banner": kernel.banner(),
        "vermagic": kernel.own_vermagic(),
        "page_size": kernel.page_size(),
        "struct_module": {
            "size": size.map(hex),
            "init": init.map(hex),
            "exit": exit.map(hex),
        },
        "symbols": kernel.link_symbols().map(KernelSymbols::len),
        "exports": kernel.own_exports().map(Exports::len),
        "config": kernel.has_config_text(),
        "certificates": kernel.certificates().len(),
        "found": kernel.found().iter().map(|f| json!({ "what": f.what, "how": f.how })).collect::<Vec<_>>(),
    })
}

fn table(kernel: &KernelDescriptionBuilder, machine: Option<&'static Machine>) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_table(&mut out, kernel, machine);
    out
}

fn write_table(
    out: &mut String,
    kernel: &KernelDescriptionBuilder,
    machine: Option<&'static Machine>,
) -> std::fmt::Result {
    let or_unknown = |text: Option<&str>| one_line(text.unwrap_or("not known")).into_owned();
    writeln!(out, "release           {}", or_unknown(kernel.own_release()))?;
    writeln!(out, "architecture      {}", machine.map_or("not known", |m| m.name))?;
    writeln!(out, "vermagic          {}", or_unknown(kernel.own_vermagic()))?;
    writeln!(out, "banner            {}", or_unknown(kernel.banner()))?;
    let number = |value: Option<u64>| value.map_or(String::from("not known"), |v| v.to_string());
    let hex = |value: Option<u64>| value.map_or(String::from("not known"), |v| format!("{v:#x}"));
    writeln!(out, "page size         {}", number(kernel.page_size()))?;
    let (size, init_exit) = kernel.struct_module();
    let (init, exit) = init_exit.unzip();
    match size {
        Some(size) => {
            writeln!(out, "struct module     {size:#x} bytes, init at {}, exit at {}", hex(init), hex(exit))?;
        }
        None => writeln!(out, "struct module     not known")?,
    }
    writeln!(out, "\nfound")?;
    kernel.found().iter().try_for_each(|f| writeln!(out, "  {:<16}{}", f.what, one_line(&f.how)))
}
