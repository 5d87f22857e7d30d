//! `kmodld link`

use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use elf_layout::{Findings, Segment};
use kmodld::check::set::module_name;
use kmodld::document::{CauseEntry, Document};
use kmodld::input::{STDIN, read_decompressed};
use kmodld::load::vermagic_version;
use kmodld::load::{Args, moved_bytes, open};
use kmodld::load_map::load_map;
use kmodld::modprobe::providers::Home;
use kmodld::modprobe::{Modprobe, may_be_name};
use kmodld::outputs::keep_apart;
use kmodld::setup::{load_step, parameters};
use kmodld::{Error, Load, Loader, Stage, Workspace, elf_output, raw_output};
use reloc::Step;
use symres::hints::cause;

use super::modules::{Meaning, Ways};
use super::options::{Before, DebugArg, Format, Link, Params, PlaceArgs};
use super::report::{self, Told, one_line};
use super::{Beside, Outcome, prepared, tell_unread};

pub fn run(args: &Link) -> Result<Outcome, Error> {
    if let Some(word) = args.words.iter().find(|word| is_second_module(word)) {
        let what = "is a module, where a parameter is expected: one module at a time is linked (--with FILE loads others before it)";
        return Err(Error::Usage(format!("{word} {what}")));
    }
    if args.format == Format::Raw && to_stdout(args.output.as_deref()) {
        return Err(Error::Usage(String::from("-o -: the raw format is a folder, which stdout cannot hold")));
    }
    let (source, facts) = (args.kernel.source()?, args.live.facts(args.kernel.facts.secure_boot));
    let more = args.before.with.files.iter().chain(&args.live.memory).map(PathBuf::as_path);
    keep_apart(&outputs(args), source.paths().chain(more))?;
    // While the kernel is read, the module is, and gets its memory; a name means a file once the kernel is known.
    let named: OnceLock<PathBuf> = OnceLock::new();
    let is_name = may_be_name(&args.file).is_some();
    let file = Beside::new(|| read_decompressed(named.get().unwrap_or(&args.file)));
    let mut workspace = Workspace::fresh();
    let touching = workspace.touching();
    let memory = Beside::new(|| {
        if !is_name {
            touching.want(file.get().as_deref().map_or(0, moved_bytes));
            touching.touch();
        }
    });
    let version = || vermagic_version(file.get().as_ref().ok().filter(|_| !is_name)?);
    let loader = memory.run(|| {
        let loader = prepared(&source, &facts, &args.before.with.files, version);
        touching.touch();
        loader
    });
    let Some(mut loader) = loader? else { return Ok(Outcome::Refused) };
    let mut home = Home::new(&source, &loader.kernel)?;
    let mut meaning = Meaning::of(std::slice::from_ref(&args.file), Some(&home), &loader.kernel.release)?;
    let path = meaning.only_file(&args.file)?;
    let path = named.get_or_init(|| path).as_path();
    keep_apart(&outputs(args), [path])?;
    let before = BeforeIt { place: &args.place, before: &args.before, params: &args.params };
    let Some(given) = before.load(&meaning, path, &mut home, &mut loader)? else {
        return Ok(Outcome::Refused);
    };
    let bytes = file.into_result()?;
    // What ends with the process is given back sooner in one piece.
    let (bytes, loader) = (ManuallyDrop::new(bytes), ManuallyDrop::new(loader));
    let params = parameters(&given, &args.words);
    let how = Args {
        flags: args.live.flags(),
        stage: stage(args),
        params: (stage(args) == Stage::Final).then_some(params.as_bytes()),
        choices: false,
        verdict_only: false,
    };
    let opened = open(&bytes, &loader.kernel, how.flags).out_of(bytes.packed(), &loader.kernel.config);
    let cause = |said: &Findings| {
        let file = opened.module.as_ref()?;
        cause(&loader.kernel, file, said).map(CauseEntry::from)
    };
    if opened.module.is_none() {
        report::refusal(path, None, &opened.said, args.json)?;
        return Ok(Outcome::Input);
    }
    let place = args.place.place();
    // What is undecided is linked, and said; refusals and unknown addresses are looked at here.
    let attempt = loader.load_in(&mut workspace, &opened, &how, &place, args.place.percpu);
    let (load, said) = attempt.whatever_it_says();
    // What is asked for comes before what the kernel says of it.
    load.as_ref().map_or(Ok(()), |load| check_place(args, load))?;
    let Some(load) = load.filter(|_| !said.refused()) else {
        report::refusal(path, cause(&said).as_ref(), &said, args.json)?;
        return Ok(Outcome::Refused);
    };
    addresses_known(path, &load)?;
    report::unjudged(&kmodld::document::unjudged(&said));
    finish(args, &loader, &load, &said)?;
    Ok(Outcome::Done)
}

/// What is asked for of what comes before a module is loaded.
pub struct BeforeIt<'a> {
    pub place: &'a PlaceArgs,
    pub before: &'a Before,
    pub params: &'a Params,
}

impl BeforeIt<'_> {
    /// Keeps the places that modules of the running system have, and loads what modprobe loads before the module of a file; the
    /// parameters that it is given. `None`, all said, if the kernel refuses what it needs.
    pub fn load(
        &self,
        meaning: &Meaning,
        path: &Path,
        home: &mut Home,
        loader: &mut Loader,
    ) -> Result<Option<String>, Error> {
        if self.place.base.is_none() {
            let mut unread = Vec::new();
            home.hold_places(loader, &mut unread)?;
            unread.iter().for_each(tell_unread);
        }
        let given = &self.params.params;
        if self.before.no_deps {
            return Ok(Some(given.clone()));
        }
        // What modprobe.d has for it comes first, so that the words have the last say.
        let with_options = |options: String| {
            let gap = if options.is_empty() || given.is_empty() { "" } else { " " };
            format!("{options}{gap}{given}")
        };
        Ok(load_before(meaning, path, home, loader)?.map(with_options))
    }
}

/// Loads what modprobe loads before the module of a file; its own parameters. `None`, all said, if the kernel refuses what it needs.
fn load_before(
    meaning: &Meaning,
    path: &Path,
    home: &mut Home,
    loader: &mut Loader,
) -> Result<Option<String>, Error> {
    let way = meaning.way(path, home, loader)?;
    let (options, is_loaded) = (way.options.clone(), way.is_loaded);
    let mut ways = Ways::default();
    ways.add(path, way);
    for step in ways.steps(path) {
        let Some(file) = &step.file else { continue };
        let said = load_step(loader, file, &step.options)?;
        // SET-9: what only lies beside it and is refused is not there for it.
        if said.refused() && step.is_neighbour {
            let file = file.display().to_string();
            report::warn(&format!("{file} lies beside it and is refused: it is not taken as loaded"));
        } else if said.refused() && step.required {
            report::refusal(file, None, &said, false)?;
            return Ok(None);
        }
    }
    if is_loaded && let Some(module) = loader.kernel.state.module_mut(Modprobe::name_of(path).as_bytes()) {
        // It lies where it lies.
        module.listed = true;
    }
    let with = ways.with(&path.display().to_string());
    if !with.is_empty() {
        report::note(&format!("loaded before: {}", with.join(", ")));
    }
    Ok(Some(options))
}

/// A module where a parameter is expected: parameters with values have `=`, and those without are no files.
pub fn is_second_module(word: &str) -> bool {
    !word.contains('=') && (module_name(word.as_bytes()) || Path::new(word).exists())
}

fn to_stdout(output: Option<&Path>) -> bool {
    output == Some(Path::new(STDIN))
}

/// The files that are to be written.
fn outputs(args: &Link) -> Vec<PathBuf> {
    let output = args.output.iter().flat_map(|output| match args.format {
        Format::Elf => vec![output.clone()],
        Format::Raw => raw_output::files(output).collect(),
    });
    output.chain(args.map.clone()).collect()
}

/// The stage asked for, else the furthest there is.
fn stage(args: &Link) -> Stage {
    args.stage.map_or(Stage::LAST, Stage::from)
}

/// Memory with holes where addresses are not known would be no image of anything.
fn addresses_known(path: &Path, load: &Load<'_>) -> Result<(), Error> {
    let Some(first) = load.module.unknown.iter().position(|unknown| *unknown) else { return Ok(()) };
    let import = load.resolution.imports.iter().find(|i| i.address.is_none());
    let what = match import {
        Some(import) => format!(
            "{} imported symbols ({}...) have no known address: give the kernel's image (--kernel) or /proc/kallsyms (--symtab)",
            load.resolution.imports.iter().filter(|i| i.address.is_none()).count(),
            import.name.escape_ascii()
        ),
        None => format!(
            "the address of its per-cpu area is not known (symbol {first} and others need it): it goes where the loaded modules leave room, \
             and their files or symbols are not there (run as root with the tree of that kernel), or __per_cpu_end is not; or give it with --percpu"
        ),
    };
    Err(Error::unusable(path, what))
}

/// A region that belongs to the other generation, or an address that no region can have.
fn check_place(args: &Link, load: &Load<'_>) -> Result<(), Error> {
    let ours = load.module.layout.generation.regions();
    if let Some((region, _)) = args.place.region.iter().find(|(region, _)| !ours.contains(region)) {
        let names = ours.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ");
        return Err(Error::Usage(format!("--region {}: modules of this kernel have {names}", region.name())));
    }
    let page = load.module.layout.page_size;
    let mut addresses = args.place.base.iter().chain(args.place.region.iter().map(|(_, at)| at));
    if let Some(at) = addresses.find(|at| !at.is_multiple_of(page)) {
        return Err(Error::Usage(format!("{at:#x} is not a multiple of the page size {page:#x}")));
    }
    regions_lie_apart(args, load)
}

/// Two regions cannot have the same memory.
fn regions_lie_apart(args: &Link, load: &Load<'_>) -> Result<(), Error> {
    let Some([a, b]) = load.module.overlap() else { return Ok(()) };
    let is_given = |segment: &Segment| args.place.region.iter().any(|(region, _)| *region == segment.region);
    let (given, other) = if is_given(&a) { (a, b) } else { (b, a) };
    let span =
        |segment: Segment| format!("{:#x}..{:#x}", segment.base, segment.base.saturating_add(segment.size));
    Err(Error::Usage(format!(
        "--region {}: it overlaps with region {} ({} and {})",
        given.region.name(),
        other.region.name(),
        span(given),
        span(other)
    )))
}

fn elf_options(args: &Link) -> elf_output::Options {
    let all = elf_output::Options::default();
    if args.debug == DebugArg::No { all.without_debug() } else { all }
}

/// Writes and prints.
fn finish(args: &Link, loader: &Loader, load: &Load<'_>, said: &Findings) -> Result<(), Error> {
    let release = &loader.kernel.release;
    let mut document = Document::new(load, release, said);
    if args.symbols {
        document = document.with_symbols(load);
    }
    if args.relocations {
        document = document.with_relocations(load);
    }
    if let Some(output) = &args.output {
        match args.format {
            Format::Elf => elf_output::write(output, load, &elf_options(args))?,
            Format::Raw => raw_output::write(output, load, &document)?,
        }
    }
    if let Some(path) = &args.map {
        let map = load_map(load, release);
        raw_output::replace(path, |file| std::io::Write::write_all(file, map.as_bytes()))?;
    }
    if !(args.params.params.is_empty() && args.words.is_empty()) && load.stage != Stage::Final {
        report::warn("parameters are set last: this stage does not show them");
    }
    Told::default().findings(&document.module, None, &document.findings, usize::MAX);
    for what in &document.unknown {
        report::warn(&format!("not known: {what}"));
    }
    if !document.unknown.is_empty() {
        report::warn(
            "what depends on it stays as it was: an image or SPEC (--kernel), --memory, --cpu-caps and --cpus tell of the running kernel (docs/final-bytes.md)",
        );
    }
    if to_stdout(args.output.as_deref()) || to_stdout(args.map.as_deref()) {
        return Ok(());
    }
    if args.json {
        return report::json(&document);
    }
    report::print(&summary(args, load, &document))
}

fn summary(args: &Link, load: &Load<'_>, document: &Document) -> String {
    let mut out = format!(
        "{}: module {} for {} ({}), stage {}\n\nregions\n",
        one_line(&args.file.display().to_string()),
        one_line(&document.module),
        one_line(&document.release),
        document.arch,
        document.stage
    );
    // Writing to a String does not fail.
    let _ = report::write_regions(&mut out, &document.regions);
    out.push_str("\nsections\n");
    let moved = document.sections.iter().filter(|s| s.addr.is_some());
    let _ = report::write_sections(&mut out, moved);
    let depends =
        if document.depends.is_empty() { String::from("no module") } else { document.depends.join(", ") };
    out.push_str(&format!(
        "\n{} relocations applied, {} symbols imported, depends on {}\n",
        load.relocations(),
        document.imports.len(),
        one_line(&depends)
    ));
    if load.stage == Stage::Final {
        out.push_str(&changes(load));
    }
    if let Some(output) = &args.output {
        out.push_str(&format!("written to {}\n", one_line(&output.display().to_string())));
    }
    out
}

/// What was changed after relocation, counted by step in their order.
fn changes(load: &Load<'_>) -> String {
    let mut by_step: BTreeMap<Step, (u64, u64)> = BTreeMap::new();
    for patch in &load.record.patches {
        let (count, bytes) = by_step.entry(patch.step).or_default();
        (*count, *bytes) = (count.saturating_add(1), bytes.saturating_add(patch.len));
    }
    let lines = by_step
        .iter()
        .map(|(step, (count, bytes))| format!("  {count:>7} {:<28} {bytes:>9} bytes\n", step.name()));
    let runtime = load.record.runtime.iter().fold(0u64, |sum, state| sum.saturating_add(state.len));
    format!(
        "\nchanged after relocation\n{}  {runtime} bytes are known to the running kernel only (--map lists them)\n",
        lines.collect::<String>()
    )
}
