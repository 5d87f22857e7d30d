//! `kmodld check`

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kmodld::check::Verdict;
use kmodld::check::run::{Event, Target, run as run_set, tell_apart};
use kmodld::check::set::{Search, Set, module_name};
use kmodld::input::read;
use kmodld::load::Args;
use kmodld::modprobe::may_be_name;
use kmodld::modprobe::providers::Home;
use kmodld::setup::parameters;
use kmodld::{Error, Loader};

use super::modules::{Meaning, Ways, judge_loaded_ones};
use super::options::{Check, JudgeArg};
use super::part::Part;
use super::report::{self, Progress, Told};
use super::{Beside, Outcome, prepared};

mod judges;
mod printer;

use judges::Judges;
use printer::Printer;
pub use printer::in_sum;

pub fn run(args: &Check) -> Result<Outcome, Error> {
    let (paths, params) = words(args)?;
    let shard = args.part().map_err(Error::Usage)?;
    let is_named = paths.iter().any(|path| may_be_name(path).is_some());
    let mut errors = Vec::new();
    let complain = |error| errors.push(error);
    // Files are looked for while the kernel is read, and after that by two threads; names need the kernel first.
    let (kernels, set) = if is_named {
        (kernels(args, &params)?, None)
    } else {
        let search = Search::new(&paths);
        let kernels = Beside::new(|| search.work()).run(|| {
            let kernels = kernels(args, &params);
            search.work();
            kernels
        });
        let set = search.into_set(complain);
        (if set.is_empty() { Some(Vec::new()) } else { kernels? }, Some(set))
    };
    let Some(mut kernels) = kernels else { return Ok(Outcome::Refused) };
    let mut runs = Vec::new();
    for kernel in &mut kernels {
        let run = prepare_run(args, &paths, kernel, set.as_ref(), &mut errors)?;
        runs.push(Run { params: params.clone(), ..run });
    }
    errors.iter().for_each(report::error);
    let named = runs.first().map_or(0, |run| run.named);
    if runs.iter().any(|run| run.named != named) {
        let what =
            "these kernels do not have the same modules of these names: ask for one kernel after the other";
        return Err(Error::Usage(what.into()));
    }
    let part = Part::of(shard, named, kernels.len());
    let names = kernels.iter().map(|kernel| name(&kernel.target)).collect();
    let has_directory = runs.iter().any(|run| run.set.has_directory);
    let mut printer = Printer::new(args, has_directory, named, names, shard);
    // Of several parts, the first one tells what is in none.
    if part.is_first {
        errors.iter().try_for_each(|error| printer.unreadable(error))?;
    }
    printer.begin()?;
    if let Some(run) = runs.first().filter(|_| part.is_first) {
        run.lines.iter().try_for_each(|line| printer.line(line))?;
    }
    // What ends with the process is given back sooner in one piece.
    let (targets, homes): (Vec<Target<'_>>, Vec<_>) =
        kernels.into_iter().map(|kernel| (kernel.target, kernel.home)).unzip();
    let (targets, _homes) = (ManuallyDrop::new(targets), ManuallyDrop::new(homes));
    let threads = match args.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let machines = judges::boot(args, threads.min(part.files.len()))?;
    for (run, target) in runs.iter_mut().zip(targets.iter()) {
        judge_before(args, run, target, threads)?;
    }
    match machines {
        None => judge_all(&part, &targets, &runs, threads, None, &mut printer)?,
        Some(machines) => {
            let judges = Judges::new(args, &targets, &runs, &part);
            let rules = || judge_all(&part, &targets, &runs, threads, Some(&judges), &mut printer);
            judges.beside(machines, rules)?;
        }
    }
    printer.end()
}

/// Paths and parameters among the words of the command line, and the paths of `--files-from`.
fn words(args: &Check) -> Result<(Vec<PathBuf>, String), Error> {
    let is_param = |path: &&PathBuf| {
        let text = path.as_os_str().as_encoded_bytes();
        text.contains(&b'=') && !module_name(text) && std::fs::symlink_metadata(path).is_err()
    };
    let (given, mut paths): (Vec<&PathBuf>, Vec<&PathBuf>) = args.paths.iter().partition(is_param);
    let mut listed = Vec::new();
    if let Some(list) = &args.files_from {
        listed = names_in(&read(list)?);
    }
    paths.extend(&listed);
    if paths.is_empty() && args.files_from.is_none() {
        return Err(Error::Usage(String::from("no module: all words are parameters")));
    }
    let given: Vec<String> = given.iter().map(|param| param.display().to_string()).collect();
    Ok((paths.into_iter().cloned().collect(), parameters(&args.params.params, &given)))
}

/// The names that a list of files holds: ended by NUL, as `find -print0` writes them, or one a line.
fn names_in(list: &[u8]) -> Vec<PathBuf> {
    let end = if list.contains(&0) { 0 } else { b'\n' };
    let names = list.split(|byte| *byte == end).filter(|name| !name.is_empty());
    names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect()
}

/// What is checked on one kernel.
#[derive(Debug, Default)]
struct Run {
    /// The modules that are asked for, and behind them those that are loaded before.
    set: Set,
    /// How many are asked for.
    named: usize,
    ways: Ways,
    /// Of what is loaded before: the files that do not load.
    before: BTreeMap<PathBuf, Verdict>,
    /// About names that mean no file.
    lines: Vec<String>,
    /// Parameters of all modules, beside those of modprobe.d.
    params: String,
}

/// The kernels on which a file belongs to a part, of so many.
fn kernels_of(part: &Part, file: usize, of: usize) -> Range<usize> {
    let kernels = part.kernels(file);
    kernels.start.min(of)..kernels.end.min(of)
}

/// Names become files, and what they need comes along.
fn prepare_run(
    args: &Check,
    paths: &[PathBuf],
    kernel: &mut OneKernel<'_>,
    found: Option<&Set>,
    errors: &mut Vec<Error>,
) -> Result<Run, Error> {
    let OneKernel { target, home } = kernel;
    let (mut meaning, mut set) = (Meaning::default(), found.cloned());
    if found.is_none() {
        let release = name(target);
        meaning = Meaning::of(paths, home.as_ref(), &release)?;
        errors.append(&mut meaning.errors);
        let search = Search::new(&meaning.paths);
        set = Some(search.into_set(|error| errors.push(error)));
    }
    let mut set = set.unwrap_or_default();
    let named = set.len();
    if args.each {
        set.set_apart();
    }
    let mut ways = Ways::default();
    if let Some(home) = home.as_mut().filter(|_| !args.before.no_deps) {
        judge_loaded_ones(&mut target.loader, &args.before.with.files);
        // The whole tree has all that it needs.
        let has_all = args.judge == JudgeArg::Rules
            && home.modprobe.as_ref().is_some_and(|m| covers(paths, &m.tables.folder));
        for index in (0..named).filter(|_| !has_all) {
            let file = set.file(index).to_owned();
            // What cannot be read is told when it is judged.
            if let Ok(way) = meaning.way(&file, home, &mut target.loader) {
                ways.add(&file, way);
            }
        }
        set.add(ways.before.iter().cloned());
        target.options =
            ways.options.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes())).collect();
    }
    Ok(Run { set, named, ways, before: BTreeMap::new(), lines: meaning.lines, params: String::new() })
}

/// Is a folder below one of these directories, or one of them?
fn covers(paths: &[PathBuf], folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    paths
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| path.canonicalize().ok())
        .any(|path| folder.starts_with(path))
}

/// Judges on all kernels: at once where the files are the same.
fn judge_all(
    part: &Part,
    targets: &[Target<'_>],
    runs: &[Run],
    threads: usize,
    judges: Option<&Judges<'_>>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let complete = |file: usize, mut verdicts: Vec<Verdict>, runs: &[Run]| {
        verdicts = with_names(verdicts, runs);
        if let Some(judges) = judges {
            judges.add_to(file, &mut verdicts);
        }
        verdicts
    };
    let [first, others @ ..] = runs else { return Ok(()) };
    let mut file = part.files.start;
    let mut progress = Progress::new();
    if others.iter().all(|run| run.set.has_same_files(&first.set)) {
        run_set(&first.set, targets, part.files.clone(), threads, &mut |event| match event {
            Event::Progress(done, of) => {
                printer.flush()?;
                progress.show(done, of);
                Ok(())
            }
            Event::Checked(result) => {
                progress.hide();
                let (at, kernels) = (file, part.kernels(file));
                file = file.saturating_add(1);
                printer.print(result.map(|verdicts| complete(at, verdicts, runs)), kernels)
            }
        })?;
    } else {
        let mut rows: Vec<Result<Vec<Verdict>, Error>> = part.files.clone().map(|_| Ok(Vec::new())).collect();
        for (run, target) in runs.iter().zip(targets) {
            let mut at = rows.iter_mut();
            run_set(&run.set, std::slice::from_ref(target), part.files.clone(), threads, &mut |event| {
                let Event::Checked(result) = event else { return Ok(()) };
                match (at.next(), result) {
                    (Some(Ok(row)), Ok(verdicts)) => {
                        row.extend(with_names(verdicts, std::slice::from_ref(run)))
                    }
                    (Some(row), Err(error)) => *row = Err(error),
                    _ => {}
                }
                Ok(())
            })?;
        }
        for row in rows {
            let (at, kernels) = (file, part.kernels(file));
            file = file.saturating_add(1);
            printer.print(row.map(|verdicts| complete(at, verdicts, &[])), kernels)?;
        }
    }
    progress.hide();
    Ok(())
}

/// Judges what is loaded before the modules that are asked for.
fn judge_before(args: &Check, run: &mut Run, target: &Target<'_>, threads: usize) -> Result<(), Error> {
    let part = run.named..run.set.len();
    let (mut before, mut told) = (BTreeMap::new(), Told::default());
    run_set(&run.set, std::slice::from_ref(target), part, threads, &mut |event| {
        match event {
            Event::Checked(Ok(verdicts)) => {
                for verdict in verdicts.into_iter().filter(|verdict| !verdict.loads()) {
                    if !(args.json || args.jsonl || args.sarif) {
                        let name = report::short_name(verdict.module.as_deref(), &verdict.file);
                        told.findings(name, verdict.cause.as_ref(), &verdict.findings, usize::MAX);
                    }
                    before.insert(PathBuf::from(&verdict.file), verdict);
                }
            }
            // What it exports is missing then, which is a finding of who needs it.
            Event::Checked(Err(error)) => report::error(&error),
            Event::Progress(..) => {}
        }
        Ok(())
    })?;
    run.before = before;
    // SET-9: what lies beside a module and is refused is not there for it.
    let refused = |file: &Path| run.before.get(file).is_some_and(Verdict::is_refused);
    let left_out = run.ways.leave_out(refused);
    if !left_out.is_empty() {
        run.set.truncate(run.named);
        run.set.add(run.ways.before.iter().cloned());
        run.before.retain(|file, _| !left_out.contains(file));
    }
    Ok(())
}

/// With what is loaded before each, on the kernel of each run.
fn with_names(mut verdicts: Vec<Verdict>, runs: &[Run]) -> Vec<Verdict> {
    for (verdict, run) in verdicts.iter_mut().zip(runs) {
        verdict.with = run.ways.with(&verdict.file);
        let needed = run.ways.steps(Path::new(&verdict.file)).iter().filter(|step| step.required);
        for step in needed {
            if let Some(other) = step.file.as_ref().and_then(|file| run.before.get(file)) {
                verdict.is_loaded_after(&step.name, other);
            }
        }
    }
    verdicts
}

/// A kernel to check against, and where its modules are.
#[derive(Debug)]
struct OneKernel<'a> {
    target: Target<'a>,
    home: Option<Home>,
}

/// The kernels that the options describe. `None`, all said, if one refuses a module of `--with`.
fn kernels<'a>(args: &'a Check, params: &'a str) -> Result<Option<Vec<OneKernel<'a>>>, Error> {
    let mut all = Vec::new();
    let (sources, facts) = (args.kernels.sources()?, args.live.facts(args.kernels.facts.secure_boot));
    for source in &sources {
        let Some(loader) = prepared(source, &facts, &args.before.with.files, || None)? else {
            return Ok(None);
        };
        tell_without_versions(&loader);
        let home = Home::new(source, &loader.kernel)?;
        let how = Args::verdict(args.live.flags(), params.as_bytes());
        let target = Target { label: None, loader, args: how, options: BTreeMap::new() };
        all.push(OneKernel { target, home: Some(home) });
    }
    tell_apart(all.iter_mut().map(|kernel| &mut kernel.target), &sources);
    Ok(Some(all))
}

/// Without CRCs a verdict is worth less: that is said once.
fn tell_without_versions(loader: &Loader) {
    let kernel = &loader.kernel;
    if !kernel.config.modversions {
        let release = if kernel.release.is_empty() { "this kernel" } else { &kernel.release };
        report::note(&format!(
            "{release} is built without CONFIG_MODVERSIONS: it compares no CRCs, and takes only modules whose vermagic \
             names its very release"
        ));
    }
}

/// How output names a kernel.
fn name(target: &Target<'_>) -> String {
    let release = &target.loader.kernel.release;
    let release = if release.is_empty() { "kernel of unknown release" } else { release };
    target.label.clone().unwrap_or_else(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_list() {
        let names = |list: &[u8]| names_in(list).iter().map(|p| p.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(b"a.ko\n\nb c.ko\n"), ["a.ko", "b c.ko"]);
        assert_eq!(names(b"a\nb.ko\0c.ko\0"), ["a\nb.ko", "c.ko"]);
        assert_eq!(names(b""), [""; 0]);
    }
}
