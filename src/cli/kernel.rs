//! `kmodld kernel`

use std::fmt::Write;
use std::path::PathBuf;

use kernel::spec::{exports_as_symvers, kallsyms_text};
use kmodld::kernel_facts::KernelFacts;
use kmodld::kernel_source::{KernelSource, needs, spec_file};
use kmodld::outputs::keep_apart;
use kmodld::{Error, raw_output};
use reloc::MACHINES;

use super::options::{KernelCommand, cache};
use super::report::{self, one_line};
use super::{Outcome, tell_unread};

pub fn run(args: &KernelCommand) -> Result<Outcome, Error> {
    if args.cache_clear {
        let cache = cache()
            .ok_or_else(|| Error::Usage("no cache folder: neither XDG_CACHE_HOME nor HOME is set".into()))?;
        let (count, folder) = (cache.clear()?, cache.folder().display());
        report::print(&format!("{count} kept files of kernels removed from {folder}\n"))?;
        return Ok(Outcome::Done);
    }
    let source = KernelSource::default().named(args.kernel.as_deref(), args.root.as_deref())?;
    keep_apart(args.output.as_slice(), source.paths())?;
    let mut unread = Vec::new();
    let kernel = source.read_noting(&mut unread)?;
    unread.iter().for_each(tell_unread);
    let path = PathBuf::from(source.label().unwrap_or_default());
    let machine = kernel.machine_told(MACHINES);
    let machine = machine.map_err(|source| Error::Kernel { path: path.clone(), source })?;
    if let Some(output) = &args.output {
        let records = kernel.to_records(&needs());
        raw_output::replace(output, |file| spec_file::write(&records, &mut std::io::BufWriter::new(file)))?;
    }
    let missing = |what: &str| Error::unusable(&path, format!("no {what} in it"));
    if args.kallsyms {
        let symbols = kernel.link_symbols().ok_or_else(|| missing("symbols"))?;
        report::print_bytes(&kallsyms_text(symbols))?;
    } else if args.exports {
        let exports = kernel.own_exports().ok_or_else(|| missing("export tables"))?;
        report::print_bytes(&exports_as_symvers(exports))?;
    } else if args.json {
        report::json(&KernelFacts::of(&kernel, machine))?;
    } else {
        report::print(&table(&KernelFacts::of(&kernel, machine)))?;
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
    writeln!(out, "release             {}", or_unknown(facts.release))?;
    writeln!(out, "architecture        {}", facts.arch.unwrap_or(UNKNOWN))?;
    writeln!(out, "vermagic            {}", or_unknown(facts.vermagic))?;
    writeln!(out, "banner              {}", or_unknown(facts.banner))?;
    writeln!(out, "coverage            {}", facts.coverage)?;
    let page_size = facts.page_size.map_or(String::from(UNKNOWN), |size| size.to_string());
    writeln!(out, "page size           {page_size}")?;
    let [init, exit] = [&facts.struct_module.init, &facts.struct_module.exit]
        .map(|offset| offset.as_deref().unwrap_or(UNKNOWN));
    match &facts.struct_module.size {
        Some(size) => writeln!(out, "struct module       {size} bytes, init at {init}, exit at {exit}")?,
        None => writeln!(out, "struct module       {UNKNOWN}")?,
    }
    writeln!(out, "\nfound")?;
    facts.found.iter().try_for_each(|f| writeln!(out, "  {:<17} {}", f.what, one_line(f.how)))
}

#[cfg(test)]
mod tests {
    use kmodld::kernel_facts::{FoundEntry, StructModuleEntry};

    use super::*;

    #[test]
    fn what_was_found_stands_in_a_column_of_its_own() {
        let what = ["image", "built-in modules", "Module.symvers"];
        let facts = KernelFacts {
            arch: None,
            banner: None,
            certificates: 0,
            config: false,
            coverage: "unknown",
            exports: None,
            found: what.map(|what| FoundEntry { how: "21 have a folder", what }).into(),
            page_size: None,
            release: Some("6.12.1"),
            schema: 1,
            struct_module: StructModuleEntry { exit: None, init: None, size: None },
            symbols: None,
            vermagic: None,
        };
        let text = table(&facts);
        for what in what {
            let line = text.lines().find(|line| line.trim().starts_with(what)).unwrap_or_default();
            assert_eq!(line.find("21 have"), Some(20), "{text}");
            assert!(line.contains(&format!("{what} ")), "{text}");
        }
        assert!(text.starts_with("release             6.12.1\n"), "{text}");
    }
}
