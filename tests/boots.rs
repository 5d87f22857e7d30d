//! Whole boots of real kernels, replayed: every module goes where it went there. KMODLD_TRUTH names the folder of
//! `truth/SET.tar.xz`, KMODLD_KERNELS that of the trees with what was loaded in between.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use common::trees::{folder, packs, set_name, trees, unpack};
use common::{hex, library};
use elf_layout::Findings;
use kernel::Init;
use kmodld::kernel_source::KernelSource;
use kmodld::{Args, Loader, Place, Stage};
use serde_json::Value;

/// The addresses that real kernels gave their modules, one after the other from boot, init memory freed in between.
#[test]
fn layout_50_and_54_whole_boots() {
    let test = "layout_50_and_54_whole_boots";
    let Some(top) = common::from_environment(test, "KMODLD_TRUTH") else { return };
    let trees = trees(test);
    let mut wrong = Vec::new();
    for pack in packs(&top) {
        let scratch = tempfile::tempdir().unwrap();
        let name = set_name(&pack);
        let members = |end: &str| vec!["--wildcards".to_owned(), format!("{name}{end}")];
        unpack(&pack, scratch.path(), &members("/set.json"));
        let read = |path: PathBuf| -> Value { serde_json::from_slice(&common::read(&path)).unwrap() };
        let dir = scratch.path().join(&name);
        let facts = read(dir.join("set.json"));
        let release = facts["kernel"].as_str().unwrap();
        if !facts["cmdline"].as_str().unwrap().contains("nokaslr") {
            continue;
        }
        let Some(tree) = trees.iter().find(|t| t.release == release && t.image.is_some()) else {
            common::skipped(&format!("{test} ({name})"), &format!("no tree of {release} with its image"));
            continue;
        };
        unpack(&pack, scratch.path(), &members("/*/meta.json"));
        unpack(&pack, scratch.path(), &members("/*/module.ko"));
        let captured = folder(&dir).into_iter().filter(|p| p.join("meta.json").exists());
        let mut captured: Vec<(Value, PathBuf)> =
            captured.map(|p| (read(p.join("meta.json")), p.join("module.ko"))).collect();
        let before = |meta: &Value| meta["loaded_before"].as_array().unwrap().len();
        captured.sort_by_key(|(meta, _)| before(meta));
        let mut files: HashMap<String, PathBuf> =
            tree.by_name().into_iter().map(|(name, path)| (name, path.to_owned())).collect();
        files.extend(
            captured.iter().map(|(m, file)| (m["module"].as_str().unwrap().to_owned(), file.clone())),
        );
        let source = KernelSource {
            kernel: tree.image.clone(),
            config: tree.config.clone(),
            ..KernelSource::default()
        };
        let mut loader = Loader::booted(source.describe(|| Some(release.to_owned()), "").unwrap());
        loader.kernel.state.errata.extend(name.contains("843419").then(|| "843419".to_owned()));
        let args = Args { stage: Stage::Relocated, ..Args::default() };
        let (mut loaded, mut exact) = (0, 0);
        'modules: for (meta, file) in &captured {
            for name in &meta["loaded_before"].as_array().unwrap()[loaded..] {
                let Some(path) = files.get(name.as_str().unwrap()) else {
                    common::skipped(
                        &format!("{test} ({name})"),
                        &format!("no file of {name}, which was loaded"),
                    );
                    break 'modules;
                };
                let bytes = kmodld::input::read_decompressed(path).unwrap();
                let opened = library::open_on(&loader, &bytes);
                let said = loader.insmod(&opened, &args, Init::Returns(0));
                assert!(!said.refused(), "{}: {said:?}", path.display());
                loaded += 1;
            }
            let bytes = common::read(file);
            let opened = library::open_on(&loader, &bytes);
            let load = loader.load(&opened, &args, &Place::Kernel, None, &mut Findings::new()).unwrap();
            let regions = meta["regions"].as_array().unwrap();
            let mut same = regions.len() == load.module.layout.regions().count();
            for region in regions {
                let ours = elf_layout::Region::from_name(region["name"].as_str().unwrap()).unwrap();
                same &= load.bases().get(ours) == hex(&region["base"]);
            }
            let percpu = hex(&meta["percpu"]["addr"]);
            // The image of Debian's 6.1 for arm64 does not tell where the reserve is (KSYM-10).
            same &= percpu == 0 || load.module.placement.percpu.is_none_or(|ours| ours == percpu);
            match same {
                true => exact += 1,
                false => wrong.push(format!(
                    "LAYOUT-50, LAYOUT-54: {name}: {}: {:x?}",
                    meta["module"], load.module.placement
                )),
            }
        }
        common::tell(&format!(
            "{name}: {exact} of {} modules where the kernel put them, {loaded} loaded",
            captured.len()
        ));
    }
    assert!(wrong.is_empty(), "{}", common::first_of(&wrong));
}
