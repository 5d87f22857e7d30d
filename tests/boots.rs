//! Whole boots of real kernels, replayed: every module goes where it went there. KMODLD_TRUTH names the folder of
//! `truth/SET.tar.xz`, KMODLD_KERNELS that of the trees with what was loaded in between.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::HashMap;
use std::path::PathBuf;

use common::captures::{Set, packs};
use common::library;
use common::trees::trees;
use kernel::Init;
use kmodld::kernel_source::KernelSource;
use kmodld::{Args, Loader, Place, Stage};

/// The addresses that real kernels gave their modules, one after the other from boot, init memory freed in between.
#[test]
fn layout_50_and_54_whole_boots() {
    let test = "layout_50_and_54_whole_boots";
    let Some(top) = common::from_environment(test, "KMODLD_TRUTH") else { return };
    let trees = trees(test);
    let mut wrong = Vec::new();
    for pack in packs(&top.join("truth")) {
        let is_wanted = |file: &str| file.ends_with("/meta.json") || file.ends_with("/module.ko");
        let set = Set::open_with(&pack, is_wanted);
        let (name, release) = (&set.name, set.kernel());
        if !set.cmdline().contains("nokaslr") {
            continue;
        }
        let Some(tree) = trees.iter().find(|t| t.release == release && t.image.is_some()) else {
            common::skipped(&format!("{test} ({name})"), &format!("no tree of {release} with its image"));
            continue;
        };
        let mut captured = set.modules();
        captured.sort_by_key(|module| module.loaded_before().len());
        let mut files: HashMap<String, PathBuf> =
            tree.by_name().into_iter().map(|(name, path)| (name, path.to_owned())).collect();
        files.extend(captured.iter().map(|m| (m.meta["module"].as_str().unwrap().to_owned(), m.file())));
        let source = KernelSource {
            kernel: tree.image.clone(),
            config: tree.config.clone(),
            ..KernelSource::default()
        };
        let mut loader = Loader::booted(source.describe(|| None, "").unwrap());
        loader.kernel.state.errata.extend(name.contains("843419").then(|| "843419".to_owned()));
        let args = Args { stage: Stage::Relocated, ..Args::default() };
        let (mut loaded, mut exact) = (0, 0);
        'modules: for module in &captured {
            for name in &module.loaded_before()[loaded..] {
                let Some(path) = files.get(*name) else {
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
            let bytes = common::read(&module.file());
            let opened = library::open_on(&loader, &bytes);
            let load = loader.load(&opened, &args, &Place::Kernel, None).whatever_it_says().0.unwrap();
            let regions = module.regions();
            let mut same = regions.len() == load.module.layout.regions().count();
            for (name, base) in regions {
                let ours = elf_layout::Region::from_name(name).unwrap();
                same &= load.bases().get(ours) == base;
            }
            let percpu = module.percpu();
            // The image of Debian's 6.1 for arm64 does not tell where the reserve is (KSYM-10).
            same &= percpu == 0 || load.module.placement.percpu.is_none_or(|ours| ours == percpu);
            match same {
                true => exact += 1,
                false => wrong.push(format!(
                    "LAYOUT-50, LAYOUT-54: {name}: {}: {:x?}",
                    module.name, load.module.placement
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
