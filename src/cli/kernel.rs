//! `kmodld kernel`

use std::fmt::Write;

use kmodld::kernel_source::{Description, exports_as_symvers, kallsyms_text};
use kmodld::{Error, raw_output};
use serde_json::json;
use symres::Exports;

use super::Outcome;
use super::options::KernelCommand;
use super::outputs::keep_apart;
use super::report::{self, one_line};

pub fn run(args: &KernelCommand) -> Result<Outcome, Error> {
    keep_apart(args.output.as_slice(), [args.path.as_path()])?;
    let kernel = Description::read(&args.path)?;
    if let Some(output) = &args.output {
        let records = kernel.to_records();
        raw_output::replace(output, |file| records.write(&mut std::io::BufWriter::new(file)))?;
    }
    let missing = |what: &str| Error::unusable(&args.path, format!("no {what} in it"));
    if args.kallsyms {
        let symbols = kernel.symbols.as_ref().ok_or_else(|| missing("symbols"))?;
        report::print_bytes(&kallsyms_text(symbols))?;
    } else if args.exports {
        let exports = kernel.exports.as_ref().ok_or_else(|| missing("export tables"))?;
        report::print_bytes(&exports_as_symvers(exports))?;
    } else if args.json {
        report::json(&document(&kernel))?;
    } else {
        report::print(&table(&kernel))?;
    }
    Ok(Outcome::Done)
}

fn arch(kernel: &Description) -> Option<&'static str> {
    reloc::architecture(kernel.machine?).map(|arch| arch.name())
}

fn document(kernel: &Description) -> serde_json::Value {
    let hex = |value: u64| format!("{value:#x}");
    let (init, exit) = kernel.init_exit.unzip();
    json!({
        "release": kernel.release,
        "arch": arch(kernel),
        "banner": kernel.banner,
        "vermagic": kernel.vermagic,
        "page_size": kernel.page_size,
        "struct_module": {
            "size": kernel.struct_module_size.map(hex),
            "init": init.map(hex),
            "exit": exit.map(hex),
        },
        "symbols": kernel.symbols.as_ref().map(|s| s.len()),
        "exports": kernel.exports.as_ref().map(Exports::len),
        "config": kernel.config.is_some(),
        "certificates": kernel.certificates.len(),
        "found": kernel.found.iter().map(|f| json!({ "what": f.what, "how": f.how })).collect::<Vec<_>>(),
    })
}

fn table(kernel: &Description) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_table(&mut out, kernel);
    out
}

fn write_table(out: &mut String, kernel: &Description) -> std::fmt::Result {
    let or_unknown = |text: &Option<String>| one_line(text.as_deref().unwrap_or("not known")).into_owned();
    writeln!(out, "release           {}", or_unknown(&kernel.release))?;
    writeln!(out, "architecture      {}", arch(kernel).unwrap_or("not known"))?;
    writeln!(out, "vermagic          {}", or_unknown(&kernel.vermagic))?;
    writeln!(out, "banner            {}", or_unknown(&kernel.banner))?;
    let number = |value: Option<u64>| value.map_or(String::from("not known"), |v| v.to_string());
    let hex = |value: Option<u64>| value.map_or(String::from("not known"), |v| format!("{v:#x}"));
    writeln!(out, "page size         {}", number(kernel.page_size))?;
    let (init, exit) = kernel.init_exit.unzip();
    match kernel.struct_module_size {
        Some(size) => {
            writeln!(out, "struct module     {size:#x} bytes, init at {}, exit at {}", hex(init), hex(exit))?;
        }
        None => writeln!(out, "struct module     not known")?,
    }
    writeln!(out, "\nfound")?;
    kernel.found.iter().try_for_each(|f| writeln!(out, "  {:<16}{}", f.what, one_line(&f.how)))
}
