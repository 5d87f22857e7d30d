//! `kmodld inspect`

use std::fmt::Write;

use kmodld::Error;
use kmodld::input::read_decompressed;
use kmodld::inspect::{Inspection, inspect};

use super::Outcome;
use crate::cli::Inspect;
use crate::report;

pub fn run(args: &Inspect) -> Result<Outcome, Error> {
    let mut outcome = Outcome::Done;
    for (n, path) in args.files.iter().enumerate() {
        let name = path.display().to_string();
        let read = read_decompressed(path);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                report::error(&error);
                outcome = Outcome::Input;
                continue;
            }
        };
        match inspect(&name, &bytes) {
            Ok(inspection) if args.json => report::json(&inspection)?,
            Ok(inspection) => {
                let gap = if n == 0 { "" } else { "\n" };
                report::print(&format!("{gap}{}", tables(&inspection)))?;
                report::findings(&name, &inspection.findings);
            }
            Err(findings) => {
                report::findings(&name, &findings);
                outcome = Outcome::Input;
            }
        }
    }
    Ok(outcome)
}

fn tables(i: &Inspection) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_tables(&mut out, i);
    out
}

fn write_tables(out: &mut String, i: &Inspection) -> std::fmt::Result {
    let release = i.release.as_deref().unwrap_or("unknown release");
    writeln!(
        out,
        "{}: module {} for {release} ({}), {} bytes",
        i.file,
        i.module,
        i.arch.unwrap_or("unknown architecture"),
        i.size
    )?;
    match &i.signature {
        None => writeln!(out, "not signed")?,
        Some(s) => {
            let text = |field: &Option<String>| field.clone().unwrap_or_else(|| String::from("?"));
            let (signer, hash) = (text(&s.signer), text(&s.sig_hashalgo));
            writeln!(out, "signed by \"{signer}\", {hash}, key {}", text(&s.sig_key))?;
        }
    }
    writeln!(out, "\nmodinfo")?;
    for (tag, value) in &i.modinfo {
        writeln!(out, "  {:<14} {value}", format!("{tag}:"))?;
    }
    if !i.parameters.is_empty() {
        writeln!(out, "\nparameters\n  {:<24} {:<16} {:<5} default", "name", "type", "perm")?;
        for p in &i.parameters {
            let default = p.default.as_deref().unwrap_or("(set by the module's own code)");
            writeln!(
                out,
                "  {:<24} {:<16} {:<5} {default}",
                p.name,
                p.kind,
                p.perm.as_deref().unwrap_or("-")
            )?;
        }
    }
    if !i.imports.is_empty() {
        writeln!(out, "\nimports\n  {:<10}  name", "CRC")?;
        for import in &i.imports {
            let weak = if import.weak { "  (weak)" } else { "" };
            writeln!(out, "  {:<10}  {}{weak}", import.crc.as_deref().unwrap_or("-"), import.name)?;
        }
    }
    if !i.exports.is_empty() {
        writeln!(out, "\nexports\n  {:<10}  licence  name", "CRC")?;
        for export in &i.exports {
            let licence = if export.gpl_only { "GPL" } else { "any" };
            let namespace =
                export.namespace.as_ref().map_or(String::new(), |ns| format!("  (namespace {ns})"));
            writeln!(
                out,
                "  {:<10}  {licence:<7}  {}{namespace}",
                export.crc.as_deref().unwrap_or("-"),
                export.name
            )?;
        }
    }
    writeln!(out, "\nregions")?;
    report::write_regions(out, &i.regions)?;
    writeln!(out, "\nsections")?;
    report::write_sections(out, &i.sections)
}
