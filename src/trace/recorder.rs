//! What an observer of a load keeps: what later steps overwrite.

use std::collections::BTreeMap;

use elf_layout::elf::Shdr;
use elf_layout::{Findings, Layout, Module, Region};
use kernel::Taints;
use reloc::record::differing;

use crate::watch::{Observer, Point, Scene};

/// Memory of a module at some time.
pub type Copied = BTreeMap<Region, Vec<u8>>;

/// A run of bytes that a step has changed.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its region.
    pub region: Region,
    /// Where it begins there.
    pub offset: u64,
    /// What was there.
    pub before: Vec<u8>,
    /// What is there.
    pub after: Vec<u8>,
}

/// What was seen of a load.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The points reached, in the order in which they were; each with the number of findings by then.
    pub points: Vec<(Point, usize)>,
    /// The section headers at points that change them.
    pub headers: BTreeMap<Point, Vec<Shdr>>,
    /// The memory plan.
    pub layout: Option<Layout>,
    /// Slots of linkage tables that were counted, with the sections of the tables.
    pub slots: Vec<(usize, u64)>,
    /// The memory on return of `apply_relocations`.
    pub relocated: Copied,
    /// What `post_relocation` changes.
    pub post_relocation: Vec<Run>,
    /// How many patches there were by then.
    pub patches: BTreeMap<Point, usize>,
    /// How much was not known by then.
    pub unknown: BTreeMap<Point, usize>,
    /// Taints by then.
    pub taints: BTreeMap<Point, Taints>,
}

fn copy(module: &Module<'_>) -> Copied {
    module.layout.regions().map(|region| (region, module.memory.region(region).to_vec())).collect()
}

/// What differs between a copy and the memory.
fn runs(copied: &Copied, module: &Module<'_>) -> Vec<Run> {
    let mut out = Vec::new();
    for (region, before) in copied {
        let after = module.memory.region(*region);
        for (at, len) in differing(before, after) {
            let part = |bytes: &[u8]| bytes.get(at..at.saturating_add(len)).unwrap_or_default().to_vec();
            out.push(Run { region: *region, offset: at as u64, before: part(before), after: part(after) });
        }
    }
    out
}

impl Observer for Recorder {
    fn reached(&mut self, point: Point, scene: &Scene<'_, '_>, said: &Findings) {
        self.points.push((point, said.kept()));
        if let Some(info) = scene.info {
            self.headers.insert(point, info.sechdrs.clone());
        }
        if let Some(layout) = scene.layout.filter(|_| point == Point::Layout) {
            self.layout = Some(layout.clone());
        }
        if let Some(mod_arch) = scene.mod_arch.filter(|_| point == Point::Frob) {
            let tables = mod_arch.tables.iter().filter(|table| table.plt_shndx != 0);
            self.slots = tables.map(|table| (table.plt_shndx, table.plt_max_entries)).collect();
        }
        match (point, scene.module) {
            (Point::Relocations, Some(module)) => self.relocated = copy(module),
            (Point::PostRelocation, Some(module)) => self.post_relocation = runs(&self.relocated, module),
            _ => {}
        }
        if let Some(record) = scene.record {
            self.patches.insert(point, record.patches.len());
            self.unknown.insert(point, record.unknown.len());
        }
        if let Some(taints) = scene.taints {
            self.taints.insert(point, taints);
        }
    }
}
