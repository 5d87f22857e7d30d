//! `kmodld kernel`

use std::fmt::Write;

use kmodld::kernel_facts::KernelFacts;
use kmodld::kernel_source::{Description, exports_as_symvers, kallsyms_text};
use kmodld::outputs::keep_apart;
use kmodld::{Error, raw_output};

use super::Outcome;
use super::options::KernelCommand;
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
        report::json(&KernelFacts::of(&kernel))?;
    } else {
        report::print(&table(&KernelFacts::of(&kernel)))?;
    }
    Ok(Outcome::Done)
}

fn table(facts: &KernelFacts<'_>) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_table(&mut out, facts);
    out
}

fn write_table(out: &mut String, facts: &KernelFacts<'_>) -> std::fmt::Result {
    const UNKNOWN: &str = "not known";
    let or_unknown = |text: Option<&str>| one_line(text.unwrap_or(UNKNOWN)).into_owned();
    writeln!(out, "release           {}", or_unknown(facts.release))?;
    writeln!(out, "architecture      {}", facts.arch.unwrap_or(UNKNOWN))?;
    writeln!(out, "vermagic          {}", or_unknown(facts.vermagic))?;
    writeln!(out, "banner            {}", or_unknown(facts.banner))?;
    let page_size = facts.page_size.map_or(String::from(UNKNOWN), |size| size.to_string());
    writeln!(out, "page size         {page_size}")?;
    let [init, exit] = [&facts.struct_module.init, &facts.struct_module.exit]
        .map(|offset| offset.as_deref().unwrap_or(UNKNOWN));
    match &facts.struct_module.size {
        Some(size) => writeln!(out, "struct module     {size} bytes, init at {init}, exit at {exit}")?,
        None => writeln!(out, "struct module     {UNKNOWN}")?,
    }
    writeln!(out, "\nfound")?;
    facts.found.iter().try_for_each(|f| writeln!(out, "  {:<16}{}", f.what, one_line(f.how)))
}
