//! The memory that a kernel's own `load_module` makes, against what kmodld makes of the same files.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::fixtures;
use kmodld::Kernel;
use kmodld::run::compared::{ComparedEntry, Own, RunningImage, compare};
use kmodld::run::{Plan, boot, run};
use run::parameters::Told;
use run::system::Running;

/// Instructions of one system call at most.
const BUDGET: u64 = 1_000_000_000;

/// The newest tree of 6.12 for the fixtures.
fn tree() -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("KMODLD_KERNELS") else {
        eprintln!("skipped: KMODLD_KERNELS names no folder of kernels");
        return None;
    };
    let trees = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut trees: Vec<PathBuf> = trees
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("6.12.") && name.ends_with("-amd64")
        })
        .collect();
    trees.sort();
    if trees.is_empty() {
        eprintln!("skipped: KMODLD_KERNELS has no kernel 6.12.*-amd64");
    }
    trees.pop()
}

fn image(tree: &Path) -> PathBuf {
    tree.join("boot").join(format!("vmlinuz-{}", tree.file_name().unwrap().to_string_lossy()))
}

/// The bytes of a module, decompressed.
fn unpacked(file: &Path) -> Vec<u8> {
    let (bytes, mut out) = (fs::read(file).unwrap(), Vec::new());
    if !bytes.starts_with(&[0xfd, b'7', b'z']) {
        return bytes;
    }
    std::io::Read::read_to_end(&mut liblzma::read::XzDecoder::new(&bytes[..]), &mut out).unwrap();
    out
}

/// All modules in a folder.
fn modules(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            modules(&path, files);
        } else if path.to_string_lossy().contains(".ko") {
            files.push(path);
        }
    }
}

/// `None`: the kernel refuses the module.
fn compared(kernel: &mut dyn Running, own: &Kernel, file: &Path) -> Option<Result<ComparedEntry, String>> {
    kernel.restore();
    let name = kmodld::modprobe::Modprobe::name_of(file);
    let plan = Plan { file: file.to_owned(), name, load_only: true, ..Plan::default() };
    let document = run(kernel, &run::boot::Report::default(), &plan, &mut |_| Ok(())).unwrap();
    if !document.is_loaded() {
        return None;
    }
    let own = Own { kernel: own, name: "it".into(), file: unpacked(file), parameters: String::new() };
    Some(compare(kernel, own).map_err(|failure| failure.to_string()))
}

#[test]
fn memory_is_what_the_kernels_own_code_makes() {
    let Some(tree) = tree() else { return };
    let (mut kernel, _) = boot(&image(&tree), &Told::default(), BUDGET, None).unwrap();
    kernel.snapshot();
    let own = Kernel::builder().image(&tree).unwrap();
    let own = own
        .live_memory(Arc::new(RunningImage::of(&mut *kernel).unwrap()))
        .accept_undecided()
        .build()
        .unwrap();
    let mut files = Vec::new();
    for folder in
        [fixtures("6.12-amd64"), fixtures("lkm").join("6.12-amd64"), fixtures("run").join("6.12-amd64")]
    {
        let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.extend(all.filter(|path| path.extension().is_some_and(|ext| ext == "ko")));
    }
    // Modules of the distribution that need no others, so many of them.
    let count: usize = std::env::var("KMODLD_COMPARE_SAMPLE").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut all = Vec::new();
    modules(&tree.join("lib/modules").join(tree.file_name().unwrap()).join("kernel"), &mut all);
    all.sort();
    let step = (all.len() / count.max(1) / 3).max(1);
    let needs_none = |path: &&PathBuf| {
        let bytes = unpacked(path);
        bytes.windows(10).any(|window| window == b"\0depends=\0")
    };
    files.extend(all.iter().step_by(step).filter(needs_none).take(count).cloned());
    files.sort();
    let (mut refused, mut wrong, mut bytes, mut causes) =
        (0, Vec::new(), [0u64; 2], BTreeMap::<String, u64>::new());
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        match compared(&mut *kernel, &own, file) {
            None => refused += 1,
            Some(Err(why)) => wrong.push(format!("{name}: {why}")),
            Some(Ok(compared)) => {
                for region in &compared.regions {
                    bytes[0] += region.size;
                    bytes[1] += region.differ;
                }
                for one in &compared.differences {
                    *causes.entry(format!("{}: {}", one.kind, one.cause)).or_default() += one.bytes;
                    // What the machine's kernel has chosen is known.
                    if !matches!(one.kind, "runtime" | "machine") {
                        wrong.push(format!("{name}: {one:?}"));
                    }
                }
            }
        }
    }
    println!(
        "{} modules, {refused} refused; {} bytes, {} differ: {causes:#?}",
        files.len(),
        bytes[0],
        bytes[1]
    );
    assert!(files.len() > 50 && refused < 10, "{refused} of {} are refused", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
