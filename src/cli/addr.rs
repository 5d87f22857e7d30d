//! `kmodld addr`

use std::io::Read;
use std::path::{Path, PathBuf};

use kmodld::Error;
use kmodld::addr::{Asked, describe};
use kmodld::address::Explainer;
use kmodld::input::read_decompressed;
use kmodld::load::{Args, Load, open, vermagic_version};
use kmodld::modprobe::providers::Home;
use kmodld::modprobe::tables::module_name;
use kmodld::setup::RunningFacts;
use kmodld::verify::Target;

use super::Outcome;
use super::modules::Meaning;
use super::options::Addr;
use super::prepared;
use super::report::{self, one_line};

/// What stands for a log on stdin.
const STDIN: &str = "-";

pub fn run(args: &Addr) -> Result<Outcome, Error> {
    let source = args.kernel.source()?;
    if let Some(dump) = &args.memory_image {
        let words: Vec<&String> = args.module.iter().chain(&args.addresses).collect();
        let target = Target::open(dump, &source)?;
        return asked(&words, |asked| match asked {
            Asked::Address(address) => target.describe(&source, &args.with, *address),
            Asked::Named { module: Some(module), .. } => {
                target.describe_named(&source, &args.with, module, asked)
            }
            Asked::Named { .. } => Ok(Vec::new()),
        });
    }
    let Some(module) = args.module.as_ref().filter(|_| !args.addresses.is_empty()) else {
        return Err(Error::Usage(
            "a module and addresses are needed, or --memory-image and addresses".into(),
        ));
    };
    let given = PathBuf::from(module);
    let facts = RunningFacts::default();
    let version = || vermagic_version(&read_decompressed(&given).ok()?);
    let Some(loader) = prepared(&source, &facts, &args.with, version)? else { return Ok(Outcome::Refused) };
    let home = Home::new(&source, &loader.kernel)?;
    let mut meaning = Meaning::of(std::slice::from_ref(&given), Some(&home), &loader.kernel.release)?;
    let path = meaning.only_file(&given)?;
    let bytes = read_decompressed(&path)?;
    let opened = open(&bytes, &loader.kernel, symres::LoadFlags::default());
    let attempt = loader.load(&opened, &Args::default(), &args.place.place(), args.place.percpu);
    let (load, said) = attempt.whatever_it_says();
    let Some(load) = load else {
        report::refusal(&path, None, &said, false)?;
        return Ok(Outcome::Refused);
    };
    let own = module_name(Path::new(&path));
    let explainer = Explainer::new(&load);
    let words: Vec<&String> = args.addresses.iter().collect();
    asked(&words, |asked| Ok(in_module(&load, &explainer, &own, asked)))
}

/// What is known of a place in a module that is linked.
fn in_module(load: &Load<'_>, explainer: &Explainer<'_, '_>, own: &str, asked: &Asked) -> Vec<Vec<String>> {
    if let Asked::Named { module: Some(module), .. } = asked
        && module != own
    {
        return Vec::new();
    }
    let addresses = asked.addresses(&load.module);
    addresses.into_iter().filter_map(|address| describe(load, explainer, address)).collect()
}

/// Answers all that is asked, one after the other; `-` is a log on stdin, whose lines are printed with what is known of them.
fn asked(
    words: &[&String],
    mut answer: impl FnMut(&Asked) -> Result<Vec<Vec<String>>, Error>,
) -> Result<Outcome, Error> {
    let mut outcome = Outcome::Done;
    let mut out = String::new();
    let mut print = |answers: Vec<Vec<String>>, indent: &str| {
        for lines in answers {
            for (line, more) in lines.iter().zip([""].into_iter().chain(std::iter::repeat("    "))) {
                out.push_str(&format!("{indent}{more}{}\n", one_line(line)));
            }
        }
        std::mem::take(&mut out)
    };
    for word in words {
        if *word == STDIN {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut text)
                .map_err(|e| Error::read(Path::new(STDIN), e))?;
            for line in text.lines() {
                report::print(&format!("{}\n", one_line(line)))?;
                for asked in Asked::in_line(line) {
                    report::print(&print(answer(&asked)?, "    "))?;
                }
            }
            continue;
        }
        let asked = Asked::parse(word).ok_or_else(|| {
            Error::Usage(format!("{word}: no address, and not SYMBOL+0xOFFSET or SECTION+0xOFFSET"))
        })?;
        let answers = answer(&asked)?;
        if answers.is_empty() {
            report::warn(&format!("{word}: nothing of the module is there"));
            outcome = Outcome::Undecided;
        }
        report::print(&print(answers, ""))?;
    }
    Ok(outcome)
}
