//! A bare kernel image tells as much as Module.symvers and kallsyms do: every module of a tree has the same bytes either
//! way; where kallsyms has no data symbols, the image alone tells enough to link it. KMODLD_KERNELS names the folder of the trees, KMODLD_TRUTH the kallsyms of booted kernels.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use common::captures::kallsyms;
use common::trees::{Tree, module_name, sampled, trees};
use common::{library, skipped, tell};
use kmodld::input::read_decompressed;
use kmodld::kernel_source::KernelSource;
use kmodld::{Loader, Place};

/// Two kernels that should be the same, and the modules loaded into both.
struct Pair<'t> {
    image: Loader,
    texts: Option<Loader>,
    files: HashMap<String, &'t Path>,
    begun: HashSet<String>,
    same: usize,
    differ: Vec<String>,
}

impl Pair<'_> {
    fn load(&mut self, name: &str) {
        let Some(path) = self.files.get(name).copied().filter(|_| self.begun.insert(name.to_owned())) else {
            return;
        };
        let bytes = read_decompressed(path).unwrap();
        let opened = library::open_on(&self.image, &bytes);
        let modinfo = opened.module.as_ref().expect("a module").modinfo();
        let depends = String::from_utf8_lossy(modinfo.get("depends").unwrap_or_default()).into_owned();
        drop(opened);
        depends.split(',').filter(|d| !d.is_empty()).for_each(|d| self.load(&d.replace('-', "_")));
        let by_image = memory(&self.image, &bytes);
        let by_texts = self.texts.as_ref().map_or_else(|| by_image.clone(), |texts| memory(texts, &bytes));
        match (by_image, by_texts) {
            (Ok(a), Ok(b)) if a == b => self.same += 1,
            (Ok(_), Ok(_)) => self.differ.push(format!("{name}: different bytes")),
            (a, b) => self.differ.push(format!("{name}: image {:?}, texts {:?}", a.err(), b.err())),
        }
        for loader in [Some(&mut self.image), self.texts.as_mut()].into_iter().flatten() {
            let opened = library::open_on(loader, &bytes);
            let (load, mut said) = library::load(loader, &opened);
            let load = load.unwrap_or_else(|| panic!("{name}: {said:?}"));
            let kept = loader.keep(&load);
            drop(load);
            loader.insert(kept, kernel::Init::Returns(0), &mut said);
        }
    }
}

/// Every region of a module, with its base, before it is patched: of what patching reads, texts tell less than an image.
fn memory(loader: &Loader, bytes: &[u8]) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let opened = library::open_on(loader, bytes);
    let args = kmodld::Args { stage: kmodld::Stage::Kallsyms, ..kmodld::Args::default() };
    let (load, said) = loader.load(&opened, &args, &Place::Kernel, None).whatever_it_says();
    let load = load.filter(|_| !said.refused()).ok_or_else(|| said.dmesg().collect::<Vec<_>>().join("; "))?;
    let region = |r| (load.bases().get(r), load.module.memory.region(r).to_vec());
    Ok(load.module.layout.regions().map(region).collect())
}

fn kernels(tree: &Tree, image: &Path, dir: &Path) -> (Loader, Loader, String) {
    let symvers = tree.symvers.clone().expect("a Module.symvers in usr/src");
    let (source, text) = kallsyms(&read_decompressed(&symvers).unwrap(), tree.machine(), &tree.release);
    let symtab = dir.join(&tree.release);
    std::fs::write(&symtab, text).unwrap();
    let loader = |source: KernelSource| Loader::booted(source.describe(|| None, "").unwrap());
    let image = KernelSource {
        kernel: Some(image.to_owned()),
        config: tree.config.clone(),
        ..KernelSource::default()
    };
    let texts = KernelSource {
        symtab: Some(symtab),
        symvers: Some(symvers),
        config: tree.config.clone(),
        release: Some(tree.release.clone()),
        ..KernelSource::default()
    };
    (loader(image), loader(texts), source)
}

#[test]
fn an_image_alone_gives_the_same_bytes() {
    let test = "an_image_alone_gives_the_same_bytes";
    let dir = tempfile::tempdir().unwrap();
    let mut failed = Vec::new();
    for tree in trees(test) {
        let Some(image) = &tree.image else {
            skipped(&format!("{test} ({})", tree.release), "no boot/vmlinuz");
            continue;
        };
        let (image, texts, source) = kernels(&tree, image, dir.path());
        let texts = (!source.contains("made up")).then_some(texts);
        let what = if texts.is_some() { "have the same bytes" } else { "link by the image alone" };
        let wanted: Vec<PathBuf> = sampled(&tree);
        let mut pair =
            Pair { image, texts, files: tree.by_name(), begun: HashSet::new(), same: 0, differ: Vec::new() };
        wanted.iter().for_each(|path| pair.load(&module_name(path)));
        tell(&format!(
            "{}: {} modules {what}, {} do not ({source})",
            tree.release,
            pair.same,
            pair.differ.len()
        ));
        failed.extend(pair.differ.into_iter().map(|d| format!("{}: {d}", tree.release)));
    }
    assert!(failed.is_empty(), "{}", common::first_of(&failed));
}
