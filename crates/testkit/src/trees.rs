//! Unpacked kernels of distributions, if `KMODLD_KERNELS` names their folder.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::report::{from_environment, skipped};

/// The modules of one kernel release and what describes it.
#[derive(Clone, Debug)]
pub struct Tree {
    /// `uname -r`.
    pub release: String,
    /// The folder that `boot` and `lib` are in.
    pub root: PathBuf,
    /// All modules, in order.
    pub modules: Vec<PathBuf>,
    /// Its Module.symvers: that of the headers of this release, or of others if there is no such.
    pub symvers: Option<PathBuf>,
    /// Its configuration.
    pub config: Option<PathBuf>,
    /// The kernel image.
    pub image: Option<PathBuf>,
}

impl Tree {
    /// EM_* of its architecture.
    pub fn machine(&self) -> u16 {
        if self.release.contains("arm64") || self.release.contains("aarch64") { 183 } else { 62 }
    }

    /// File of every module by the name that the kernel knows it under.
    pub fn by_name(&self) -> HashMap<String, &Path> {
        self.modules.iter().map(|p| (module_name(p), p.as_path())).collect()
    }
}

/// `snd_hda_intel` of `.../snd-hda-intel.ko.xz`.
pub fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap().to_string_lossy();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// The trees in the folder that KMODLD_KERNELS names: roots with `lib/modules/RELEASE`, or one such root.
pub fn trees(test: &str) -> Vec<Tree> {
    let Some(top) = from_environment(test, "KMODLD_KERNELS") else { return Vec::new() };
    let mut roots = vec![top.clone()];
    let entries =
        std::fs::read_dir(&top).unwrap_or_else(|e| panic!("KMODLD_KERNELS: {}: {e}", top.display()));
    roots.extend(entries.map(|e| e.unwrap().path()));
    roots.sort();
    let mut trees = Vec::new();
    for root in roots {
        for release in folder(&root.join("lib/modules")) {
            let mut modules = Vec::new();
            walk(&release, &mut modules);
            modules.sort();
            let name = release.file_name().unwrap().to_string_lossy().into_owned();
            let own = root.join(format!("usr/src/linux-headers-{name}"));
            let headers = std::iter::once(own).chain(folder(&root.join("usr/src")));
            let mut headers = headers.map(|d| d.join("Module.symvers"));
            let boot = |file: &str| {
                let places = [root.join(format!("boot/{file}-{name}")), release.join(file)];
                places.into_iter().find(|p| p.exists())
            };
            trees.push(Tree {
                symvers: headers.find(|p| p.exists()),
                config: boot("config"),
                image: boot("vmlinuz"),
                release: name,
                root: root.clone(),
                modules,
            });
        }
    }
    if trees.is_empty() {
        skipped(test, "KMODLD_KERNELS names no folder with lib/modules/RELEASE");
    }
    trees
}

/// A number from the environment: how many modules of a tree to take.
fn sample() -> Option<usize> {
    let text = std::env::var("KMODLD_TREE_SAMPLE").ok().filter(|t| !t.is_empty())?;
    Some(text.parse().unwrap_or_else(|e| panic!("KMODLD_TREE_SAMPLE={text}: {e}")))
}

/// All modules of a tree, or every k-th with KMODLD_TREE_SAMPLE=k.
pub fn sampled(tree: &Tree) -> Vec<PathBuf> {
    tree.modules.iter().step_by(sample().unwrap_or(1).max(1)).cloned().collect()
}

/// What a folder holds, in order; nothing if it is not there.
pub fn folder(path: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path).into_iter().flatten().map(|e| e.unwrap().path()).collect();
    entries.sort();
    entries
}

fn walk(path: &Path, modules: &mut Vec<PathBuf>) {
    for entry in folder(path) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_dir() && !entry.is_symlink() {
            walk(&entry, modules);
        } else if [".ko", ".ko.gz", ".ko.xz", ".ko.zst"].iter().any(|end| name.ends_with(end)) {
            modules.push(entry);
        }
    }
}
