//! `kmodld link`

use std::path::Path;

use elf_layout::Findings;
use kmodld::document::Document;
use kmodld::input::read_decompressed;
use kmodld::kernel_source::KernelSource;
use kmodld::load::{Opened, open};
use kmodld::load_map::load_map;
use kmodld::{Error, Load, Loader, Place, Stage, elf_output, raw_output};

use super::Outcome;
use crate::cli::{Format, Link};
use crate::report;

pub fn run(args: &Link) -> Result<Outcome, Error> {
    let bytes = read_decompressed(&args.file)?;
    let source = KernelSource {
        symtab: args.kernel.symtab.clone(),
        symvers: args.kernel.symvers.clone(),
        config: args.kernel.config.clone(),
    };
    let kernel = source.kernel_for(&bytes)?;
    if !kernel.is_described() {
        let what = "nothing describes the kernel: give its /proc/kallsyms or System.map (--symtab) and its Module.symvers (--symvers)";
        return Err(Error::Usage(what.into()));
    }
    let mut loader = Loader::new(kernel);
    for path in &args.with {
        if !load_before(&mut loader, path)? {
            return Ok(Outcome::Refused);
        }
    }
    let Opened { module, mut said, .. } = open(&bytes, &loader.kernel.config, None);
    let Some(module) = module else {
        report::refusal(&args.file, &said, args.json)?;
        return Ok(Outcome::Input);
    };
    let place = match args.place.base {
        Some(base) => Place::Base(base),
        None if args.place.region.is_empty() => Place::Kernel,
        None => Place::Regions(args.place.region.clone()),
    };
    let load = loader.load(&module, &place, args.place.percpu, stage(args), &mut said);
    let Some(load) = load.filter(|_| !said.refused()) else {
        report::refusal(&args.file, &said, args.json)?;
        return Ok(Outcome::Refused);
    };
    addresses_known(&args.file, &load)?;
    check_place(args, &load)?;
    finish(args, &loader, &load, &said)?;
    Ok(Outcome::Done)
}

/// The stage asked for, else the furthest there is.
fn stage(args: &Link) -> Stage {
    args.stage.map_or(Stage::LAST, Stage::from)
}

/// A module of `--with`: it stays in the kernel. False if the kernel would refuse it.
fn load_before(loader: &mut Loader, path: &Path) -> Result<bool, Error> {
    let bytes = read_decompressed(path)?;
    let Opened { module, mut said, .. } = open(&bytes, &loader.kernel.config, None);
    let load =
        module.as_ref().and_then(|m| loader.load(m, &Place::Kernel, None, Stage::Relocated, &mut said));
    let Some(load) = load.filter(|_| !said.refused()) else {
        report::refusal(path, &said, false)?;
        return Ok(false);
    };
    let kept = loader.keep(&load);
    drop(load);
    loader.insert(kept);
    Ok(true)
}

/// Memory with holes where addresses are not known would be no image of anything.
fn addresses_known(path: &Path, load: &Load<'_>) -> Result<(), Error> {
    let unknown = load.unknown_addresses();
    if unknown == 0 {
        return Ok(());
    }
    let name = load
        .resolution
        .imports
        .iter()
        .find(|i| i.address.is_none())
        .map(|i| i.name.escape_ascii().to_string());
    let what = format!(
        "{unknown} imported symbols ({}...) have no known address: give the kernel's /proc/kallsyms or System.map with --symtab",
        name.unwrap_or_default()
    );
    Err(Error::unusable(path, what))
}

/// A region that belongs to the other generation, or an address that no region can have.
fn check_place(args: &Link, load: &Load<'_>) -> Result<(), Error> {
    let ours = load.layout.generation.regions();
    if let Some((region, _)) = args.place.region.iter().find(|(region, _)| !ours.contains(region)) {
        let names = ours.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ");
        return Err(Error::Usage(format!("--region {}: modules of this kernel have {names}", region.name())));
    }
    let page = load.layout.page_size;
    let mut addresses = args.place.base.iter().chain(args.place.region.iter().map(|(_, at)| at));
    match addresses.find(|at| !at.is_multiple_of(page)) {
        Some(at) => Err(Error::Usage(format!("{at:#x} is not a multiple of the page size {page:#x}"))),
        None => Ok(()),
    }
}

/// Writes and prints.
fn finish(args: &Link, loader: &Loader, load: &Load<'_>, said: &Findings) -> Result<(), Error> {
    let release = &loader.kernel.release;
    let document = Document::new(load, release, said);
    if let Some(output) = &args.output {
        match args.format {
            Format::Elf => elf_output::write(output, load)?,
            Format::Raw => raw_output::write(output, load, &document)?,
        }
    }
    if let Some(path) = &args.map {
        let map = load_map(load, release);
        raw_output::replace(path, |file| std::io::Write::write_all(file, map.as_bytes()))?;
    }
    if !args.params.is_empty() {
        report::warn("parameters are set after relocation: this stage does not show them");
    }
    report::findings(&args.file.display().to_string(), &document.findings);
    if args.json {
        return report::json(&document);
    }
    report::print(&summary(args, load, &document))
}

fn summary(args: &Link, load: &Load<'_>, document: &Document) -> String {
    let furthest = if stage(args) == Stage::LAST { " (the furthest there is)" } else { "" };
    let mut out = format!(
        "module {} for {} ({}), stage {}{furthest}\n\nregions\n",
        document.module, document.release, document.arch, document.stage
    );
    // Writing to a String does not fail.
    let _ = report::write_regions(&mut out, &document.regions);
    out.push_str("\nsections\n");
    let moved = document.sections.iter().filter(|s| s.addr.is_some());
    let _ = report::write_sections(&mut out, moved);
    let depends =
        if document.depends.is_empty() { String::from("no module") } else { document.depends.join(", ") };
    out.push_str(&format!(
        "\n{} relocations applied, {} symbols imported, depends on {depends}\n",
        load.relocations(),
        document.imports.len()
    ));
    if let Some(output) = &args.output {
        out.push_str(&format!("written to {}\n", output.display()));
    }
    out
}
