//! Whole distribution trees, and what real kernels had in memory: both only if the environment names them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{from_environment, skipped};

/// The modules of one kernel release and what describes it.
#[derive(Clone, Debug)]
pub struct Tree {
    pub release: String,
    /// All modules, in order.
    pub modules: Vec<PathBuf>,
    pub symvers: Option<PathBuf>,
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
            let headers = folder(&root.join("usr/src")).into_iter().map(|d| d.join("Module.symvers"));
            let boot = |file: &str| Some(root.join(format!("boot/{file}-{name}"))).filter(|p| p.exists());
            trees.push(Tree {
                symvers: headers.into_iter().find(|p| p.exists()),
                config: boot("config"),
                image: boot("vmlinuz"),
                release: name,
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

/// The packs of captured memory in the folder that KMODLD_TRUTH names: `truth/SET.tar.xz`.
pub fn packs(top: &Path) -> Vec<PathBuf> {
    let packs = folder(&top.join("truth")).into_iter();
    packs.filter(|p| p.to_string_lossy().ends_with(".tar.xz")).collect()
}

/// `SET` of `.../SET.tar.xz`.
pub fn set_name(pack: &Path) -> String {
    pack.file_name().unwrap().to_string_lossy().trim_end_matches(".tar.xz").to_owned()
}

/// Unpacks a pack, or only some of its files.
pub fn unpack(pack: &Path, into: &Path, members: &[String]) {
    let status = Command::new("tar").arg("-xJf").arg(pack).arg("-C").arg(into).args(members).status();
    let ok = status.unwrap_or_else(|e| panic!("cannot run tar: {e}")).success();
    assert!(ok, "{}: tar failed", pack.display());
}

/// The kernel's own lines of a captured kallsyms of that release, if KMODLD_TRUTH has one.
fn captured_kallsyms(release: &str) -> Option<(String, Vec<u8>)> {
    let top = std::env::var_os("KMODLD_TRUTH").filter(|p| !p.is_empty())?;
    for pack in packs(Path::new(&top)) {
        let set = set_name(&pack);
        let arch = if release.ends_with("arm64") { "arm64" } else { "amd64" };
        // Without KASLR all addresses are those of the link.
        if !set.contains(arch) || set.contains("-kaslr") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        unpack(&pack, dir.path(), &[format!("{set}/set.json"), format!("{set}/kallsyms.txt")]);
        let folder = dir.path().join(&set);
        let facts: serde_json::Value =
            serde_json::from_slice(&super::read(&folder.join("set.json"))).unwrap();
        if facts["kernel"].as_str() != Some(release) {
            continue;
        }
        let text = super::read(&folder.join("kallsyms.txt"));
        let core = text.split(|b| *b == b'\n').filter(|l| !l.is_empty() && !l.contains(&b'\t'));
        return Some((set, core.flat_map(|l| l.iter().copied().chain([b'\n'])).collect()));
    }
    None
}

/// A kallsyms of that release with an address for every export of the kernel, and where the addresses
/// come from: a captured one if there is, and whatever it lacks (CONFIG_KALLSYMS_ALL=n) made up.
pub fn kallsyms(symvers: &[u8], machine: u16, release: &str) -> (String, Vec<u8>) {
    let Some((set, mut text)) = captured_kallsyms(release) else {
        return (String::from("synthesized addresses"), synthetic_kallsyms(symvers, machine, release));
    };
    let known: std::collections::HashSet<Vec<u8>> = text
        .split(|b| *b == b'\n')
        .filter_map(|l| l.splitn(3, |b| *b == b' ').nth(2).map(<[u8]>::to_vec))
        .collect();
    let end = address_of(&text, "_end").or_else(|| address_of(&text, "_etext")).unwrap_or(0);
    let missing: Vec<String> =
        kernel_exports(symvers).into_iter().filter(|name| !known.contains(name.as_bytes())).collect();
    for (n, name) in missing.iter().enumerate() {
        text.extend(format!("{:016x} D {name}\n", end.wrapping_add(64 * n as u64)).bytes());
    }
    if !known.contains(&b"__per_cpu_end"[..]) {
        let at = end.wrapping_add(0x20_0000);
        text.extend(format!("{at:016x} D __per_cpu_start\n{:016x} D __per_cpu_end\n", at + 0x3000).bytes());
    }
    let made_up =
        if missing.is_empty() { String::new() } else { format!(", {} addresses made up", missing.len()) };
    (format!("kallsyms of {set}{made_up}"), text)
}

fn address_of(kallsyms: &[u8], name: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(kallsyms);
    let line = text.lines().find(|l| l.split(' ').nth(2) == Some(name))?;
    u64::from_str_radix(line.split(' ').next()?, 16).ok()
}

/// Names that the kernel itself exports.
fn kernel_exports(symvers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(symvers);
    let fields = text.lines().map(|l| l.split('\t').collect::<Vec<_>>());
    fields.filter(|f| f.get(2) == Some(&"vmlinux")).map(|f| f[1].to_owned()).collect()
}

/// A kallsyms with an address for every export of the kernel, spaced over its text.
fn synthetic_kallsyms(symvers: &[u8], machine: u16, release: &str) -> Vec<u8> {
    use std::fmt::Write;
    let (text, area_end) = match (machine, release.starts_with("6.1.")) {
        (62, _) => (0xffff_ffff_8100_0000u64, 0x200_0000),
        (_, true) => (0xffff_8000_0800_0000, 0x200_0000),
        (_, false) => (0xffff_8000_8000_0000, 0x200_0000),
    };
    let mut out = String::from("0000000000000000 A __per_cpu_start\n0000000000030000 A __per_cpu_end\n");
    let _ = writeln!(out, "{text:016x} T _text\n{text:016x} T _stext");
    for (n, name) in kernel_exports(symvers).into_iter().enumerate() {
        let _ = writeln!(out, "{:016x} T {name}", text + 0x1000 + 64 * n as u64);
    }
    let _ = writeln!(out, "{:016x} T _etext\n{:016x} B _end", text + area_end, text + 2 * area_end);
    out.into_bytes()
}
