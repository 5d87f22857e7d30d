//! `verify`: modules in a dump made of what real kernels had in memory, before init, and the same with single bytes changed.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::captures::{Capture, Set, packs, set_name};
use common::{hex, ko};
use elf_layout::Region;
use kmodld::dump_file::DumpSource;
use kmodld::kernel_source::KernelSource;
use kmodld::setup::{Prepared, RunningFacts, prepare};
use kmodld::verify::compare::{Compared, Surroundings, compare};
use kmodld::verify::image::MemoryImage;
use kmodld::verify::modules::InMemory;
use kmodld::verify::sites::Changers;
use kmodld::{Loader, Place};
use memory_image::Dump;
use symres::LoadFlags;
use testkit::dump::Physical;

/// A module of a capture, in a dump with the virtual addresses of its regions.
struct Case {
    loader: Loader,
    file: Vec<u8>,
    memory: InMemory,
    /// The regions one after the other, and where each begins in that.
    bytes: Vec<u8>,
    places: Vec<(Region, u64, usize, usize)>,
    folder: PathBuf,
}

impl Case {
    fn new(set: &Set, kernel: &str, module: &Capture) -> Self {
        let folder = set.scratch().to_owned();
        let memory = folder.join(format!("{}.json", module.name));
        std::fs::write(&memory, set.memory(module).to_string()).unwrap();
        let source = KernelSource {
            kernel: Some(set.dir.join("kernel.spec")),
            config: Some(common::fixtures(kernel).join("config")),
            symtab: Some(set.kallsyms()),
            ..KernelSource::default()
        };
        let facts = RunningFacts {
            cmdline: set.cmdline().to_owned(),
            cpus: set.facts["smp"].as_u64().map(|n| n as u32),
            cpu_caps: module.meta["cpucaps"].as_str().map(|caps| kernel::spec::hex_bytes(caps).unwrap()),
            memory: Some(memory),
            ..RunningFacts::default()
        };
        let with: Vec<PathBuf> =
            common::dependencies(&module.name).iter().map(|name| ko(kernel, name)).collect();
        let Prepared::Ready { loader, .. } = prepare(&source, &facts, &with, || None).unwrap() else {
            panic!("{}: a dependency is refused", module.name)
        };
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (name, base) in module.regions() {
            let region = Region::from_name(name).unwrap();
            let own = common::read(&module.dir.join("final").join(format!("{name}.bin")));
            places.push((region, base, bytes.len(), own.len()));
            bytes.extend(own);
        }
        let memory = InMemory {
            name: module.name.as_bytes().to_vec(),
            address: 0,
            // Not live yet: members of struct module that init changes are not looked at.
            state: 1,
            regions: places.iter().map(|(region, base, _, len)| (*region, *base, *len as u64)).collect(),
            init: 0,
            percpu: Some(module.percpu()),
            build_id: None,
            srcversion: None,
            pages: Vec::new(),
        };
        Case { loader: *loader, file: common::read(&ko(kernel, &module.name)), memory, bytes, places, folder }
    }

    fn compare(&self, bytes: &[u8]) -> Compared {
        let mut physical = Physical::new(0);
        physical.bytes = bytes.to_vec();
        let segments: Vec<(u64, u64, u64)> =
            self.places.iter().map(|(_, base, at, len)| (*base, *at as u64, *len as u64)).collect();
        let dump = self.folder.join("dump");
        std::fs::write(&dump, physical.elf(0, &segments, "")).unwrap();
        let dump = Dump::open(DumpSource::open(&dump).unwrap()).unwrap();
        let image = MemoryImage::of_segments(Arc::new(dump), 0, "");
        let kernel = &self.loader.kernel;
        let text = kernel.symbols.address("_stext").zip(kernel.symbols.address("_etext")).unwrap();
        let around = Surroundings {
            image: &image,
            changers: &Changers::default(),
            modules: &[&self.memory],
            text,
            symbols: &[],
        };
        let opened = self.loader.open(&self.file, LoadFlags::default());
        compare(&self.loader, &opened, &self.memory, &around).0
    }
}

/// Modules with sites of every kind, each on each kernel that it was captured on.
fn cases(mut look: impl FnMut(&str, &Case)) {
    let mut seen = 0;
    for pack in packs(&common::fixtures("captures")) {
        let name = set_name(&pack);
        if name.contains("lfence") || name.contains("stuff") || name.contains("max") {
            continue;
        }
        let set = Set::open(&pack);
        let kernel = name.splitn(3, '-').take(2).collect::<Vec<_>>().join("-");
        for module in set.modules() {
            if module.has_stage("final")
                && ["patching", "tracepoint", "sections", "importer"].contains(&&*module.name)
            {
                seen += 1;
                look(&format!("{name} {}", module.name), &Case::new(&set, &kernel, &module));
            }
        }
    }
    assert!(seen >= 8, "captures are missing: {seen}");
}

#[test]
fn what_the_kernel_loaded_raises_no_alarm() {
    cases(|name, case| {
        let all = case.compare(&case.bytes);
        let alarms: Vec<_> =
            all.alarms.iter().map(|a| (a.kind, a.address, a.symbol.clone(), a.message.clone())).collect();
        assert!(alarms.is_empty(), "{name}: {alarms:x?}");
        assert!(all.bytes > 0 && all.led_away.is_empty() && all.holes == 0, "{name}: {all:?}");
    });
}

#[test]
fn a_changed_byte_of_code_or_rodata_is_an_alarm_at_its_place() {
    let mut seed = 7u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    let mut changed = 0;
    cases(|name, case| {
        // Up to 6.3 one region holds code and variables: its first page is code.
        let exact = |region: &Region| matches!(region, Region::Text | Region::Rodata | Region::Core);
        let (mut bytes, mut wanted) = (case.bytes.clone(), Vec::new());
        for (region, base, at, len) in case.places.iter().filter(|(region, ..)| exact(region)) {
            let len = if *region == Region::Core { 0x100.min(*len) } else { *len };
            for n in 0..8 {
                // One in each eighth, so that they are not one change.
                let offset = n * (len / 8) + random() % (len / 8).saturating_sub(16).max(1);
                bytes[at + offset] ^= (random() % 255 + 1) as u8;
                wanted.push(base + offset as u64);
            }
        }
        let found = case.compare(&bytes).alarms;
        for address in wanted {
            changed += 1;
            let is_there = found.iter().any(|a| address.wrapping_sub(a.address) < a.size);
            assert!(
                is_there,
                "{name}: {address:#x} in {:x?}",
                found.iter().map(|a| (a.kind, a.address, a.size)).collect::<Vec<_>>()
            );
        }
    });
    assert!(changed > 100, "{changed}");
}

#[test]
fn a_pointer_to_a_function_that_leads_into_the_unknown_is_an_alarm() {
    let mut found = 0;
    cases(|name, case| {
        let opened = case.loader.open(&case.file, LoadFlags::default());
        let given =
            Place::Regions(case.memory.regions.iter().map(|(region, base, _)| (*region, *base)).collect());
        let (load, _) = case
            .loader
            .load(&opened, &kmodld::Args::default(), &given, case.memory.percpu)
            .whatever_it_says();
        let load = load.unwrap();
        let explainer = kmodld::address::Explainer::new(&load);
        // struct module: the pointer to the exit function, which lies in memory that stays.
        let Some(exit) = load.module.exit().filter(|exit| !load.module.within_module_init(*exit)) else {
            return;
        };
        let at = explainer.relocations().iter().find(|r| {
            r.len == 8
                && load.module.u64(r.address) == Some(exit)
                && load.module.place_of(r.address).is_some_and(|p| !p.region.is_init())
        });
        let Some(at) = at.map(|r| r.address) else { return };
        let (_, base, start, _) =
            *case.places.iter().find(|(_, base, _, len)| at.wrapping_sub(*base) < *len as u64).unwrap();
        let mut bytes = case.bytes.clone();
        let offset = start + (at - base) as usize;
        bytes[offset..offset + 8].copy_from_slice(&0x4141_4141_4141_4141_u64.to_le_bytes());
        let all = case.compare(&bytes);
        // Where permissions are not known, memory may be code: only a change that is told is certain.
        let told = all.alarms.iter().any(|a| a.address == at) || all.changes.iter().any(|c| c.address == at);
        assert!(told, "{name}: {at:#x}");
        found += 1;
    });
    assert!(found > 4, "{found}");
    let _ = hex;
}
