//! `kmodld inspect`

use std::fmt::Write;

use kmodld::Error;
use kmodld::input::read_decompressed;
use kmodld::inspect::{Inspection, inspect};
use kmodld::kernel_source::KernelSource;
use kmodld::modinfo;
use kmodld::modprobe::may_be_name;
use kmodld::modprobe::providers::Home;

use super::Outcome;
use super::modules::Meaning;
use super::options::Inspect;
use super::report::{self, Told, one_line};

pub fn run(args: &Inspect) -> Result<Outcome, Error> {
    let mut outcome = Outcome::Done;
    let meaning = meaning(args)?;
    for line in &meaning.lines {
        report::print(&format!("{}\n", one_line(line)))?;
    }
    for error in &meaning.errors {
        report::error(error);
        outcome = Outcome::Input;
    }
    for (n, path) in meaning.paths.iter().enumerate() {
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
            Ok(inspection) if args.field.is_some() || args.null => {
                let filename = std::path::absolute(path).map_or(name, |path| path.display().to_string());
                report::print_bytes(fields(&inspection, &filename, args).as_bytes())?;
            }
            Ok(inspection) => {
                let gap = if n == 0 { "" } else { "\n" };
                report::print(&format!("{gap}{}", tables(&inspection)))?;
                let module = report::short_name(Some(&inspection.module), &name);
                Told::default().findings(module, None, &inspection.findings, usize::MAX);
            }
            Err(findings) => {
                report::error(&Error::unusable(path, "no kernel module"));
                Told::default().findings(report::short_name(None, &name), None, &findings, usize::MAX);
                outcome = Outcome::Input;
            }
        }
    }
    Ok(outcome)
}

/// The files that the arguments mean.
fn meaning(args: &Inspect) -> Result<Meaning, Error> {
    if args.files.iter().all(|file| may_be_name(file).is_none()) {
        return Meaning::of(&args.files, None, "");
    }
    let source = KernelSource::default().named(args.kernel.as_deref(), args.root.as_deref())?;
    let release = source.own_release()?;
    let home = Home::of_tree(source.modules_of(&release))?;
    Meaning::of(&args.files, Some(&home), &release)
}

/// What modinfo prints with -F and -0.
fn fields(inspection: &Inspection, filename: &str, args: &Inspect) -> String {
    let Some(field) = &args.field else { return modinfo::ended_by_nul(inspection, filename) };
    let end = if args.null { '\0' } else { '\n' };
    let values = modinfo::field(inspection, filename, field).into_iter();
    // For a terminal, what would drive it is escaped; a program gets every byte.
    let shown = |value: String| if args.null { value } else { report::harmless(&value).into_owned() };
    values.map(|value| format!("{}{end}", shown(value))).collect()
}

fn tables(i: &Inspection) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_tables(&mut out, i);
    out
}

fn write_tables(out: &mut String, i: &Inspection) -> std::fmt::Result {
    let release = one_line(i.release.as_deref().unwrap_or("unknown release"));
    writeln!(
        out,
        "{}: module {} for {release} ({}), {} bytes",
        one_line(&i.file),
        one_line(&i.module),
        i.arch.unwrap_or("unknown architecture"),
        i.size
    )?;
    match &i.signature {
        None => writeln!(out, "not signed")?,
        Some(s) => {
            let [signer, hash, key] = [&s.signer, &s.sig_hashalgo, &s.sig_key]
                .map(|field| one_line(field.as_deref().unwrap_or("?")));
            writeln!(out, "signed by \"{signer}\", {hash}, key {key}")?;
        }
    }
    writeln!(out, "\nmodinfo")?;
    for (tag, value) in &i.modinfo {
        writeln!(out, "  {:<14} {}", format!("{}:", one_line(tag)), one_line(value))?;
    }
    if !i.parameters.is_empty() {
        writeln!(out, "\nparameters\n  {:<24} {:<16} {:<5} default", "name", "type", "perm")?;
        for p in &i.parameters {
            let default = one_line(p.default.as_deref().unwrap_or("(set by the module's own code)"));
            writeln!(
                out,
                "  {:<24} {:<16} {:<5} {default}",
                one_line(&p.name),
                one_line(&p.kind),
                p.perm.as_deref().unwrap_or("-")
            )?;
        }
    }
    if !i.imports.is_empty() {
        writeln!(out, "\nimports\n  {:<10}  name", "CRC")?;
        for import in &i.imports {
            let weak = if import.weak { "  (weak)" } else { "" };
            writeln!(
                out,
                "  {:<10}  {}{weak}",
                import.crc.as_deref().unwrap_or("-"),
                one_line(&import.name)
            )?;
        }
    }
    if !i.exports.is_empty() {
        writeln!(out, "\nexports\n  {:<10}  licence  name", "CRC")?;
        for export in &i.exports {
            let licence = if export.gpl_only { "GPL" } else { "any" };
            let namespace = export
                .namespace
                .as_ref()
                .map_or(String::new(), |ns| format!("  (namespace {})", one_line(ns)));
            writeln!(
                out,
                "  {:<10}  {licence:<7}  {}{namespace}",
                export.crc.as_deref().unwrap_or("-"),
                one_line(&export.name)
            )?;
        }
    }
    writeln!(out, "\nregions")?;
    report::write_regions(out, &i.regions)?;
    writeln!(out, "\nsections")?;
    report::write_sections(out, &i.sections)
}
