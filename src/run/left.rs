//! What a module leaves behind.

use std::collections::BTreeMap;

use run::heap::Mark;
use run::standing::Standing;
use run::system::{Device, Running};
use serde::Serialize;

use super::DeviceEntry;

/// Files beside those that leave with the module itself.
const OWN: &str = "/sys/module/";

/// What is there after the module is gone, and was not before it came.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct LeftBehind {
    /// Bytes of memory that were allocated and not freed, by whomever: caches of the kernel are among them.
    pub memory: u64,
    /// How many pieces of it.
    pub pieces: usize,
    /// Those that the module's own code has asked for.
    pub allocations: Vec<AllocationEntry>,
    /// Character devices that are still registered.
    pub devices: Vec<DeviceEntry>,
    /// Entries of procfs, sysfs and debugfs; of what lies in a directory that is named only the directory.
    pub files: Vec<String>,
    /// Timers, work, threads, notifiers, interrupts and probes that lead to code that is gone.
    pub strays: Vec<StrayEntry>,
    /// Work queues, by name.
    pub queues: Vec<String>,
    /// References to other modules: how many more there are than before.
    pub references: BTreeMap<String, i64>,
    /// Modules that came with it, or that an action has loaded, and are still there.
    pub modules: Vec<String>,
    /// Of what of all that nothing is known, as this kernel is not understood.
    pub unknown: Vec<&'static str>,
}

/// Memory that the module's own code has asked for and nobody has freed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct AllocationEntry {
    /// Bytes of all of it; null where the function is not told them.
    pub bytes: Option<u64>,
    /// How many pieces.
    pub pieces: usize,
    /// The function that was called, or what it gives.
    pub function: String,
    /// Where it was called.
    pub site: String,
}

/// Something that leads to code that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct StrayEntry {
    /// `timer`, `work`, `thread`, `notifier`, `interrupt` or `probe`.
    pub kind: &'static str,
    /// Its name, or what it is.
    pub what: String,
    /// The function.
    pub function: String,
}

/// What there was before the module came.
#[derive(Debug)]
pub(super) struct Before {
    pub mark: Mark,
    pub devices: Vec<Device>,
    pub standing: Standing,
}

impl Before {
    pub(super) fn of(kernel: &mut dyn Running) -> Self {
        let devices = kernel.devices().unwrap_or_default();
        Before { mark: kernel.mark(), devices, standing: kernel.standing() }
    }

    /// Character devices that were not there.
    pub(super) fn new_devices(&self, kernel: &mut dyn Running) -> Vec<DeviceEntry> {
        let all = kernel.devices().unwrap_or_default();
        all.iter().filter(|device| !self.devices.contains(device)).map(DeviceEntry::from).collect()
    }

    /// What is there now and was not. `None`, if the module is still there.
    pub(super) fn left(&self, kernel: &mut dyn Running) -> Option<LeftBehind> {
        let watched = kernel.watched().map(|watch| watch.names().to_vec()).unwrap_or_default();
        let now = kernel.standing();
        if watched.iter().any(|module| now.references.contains_key(module)) {
            return None;
        }
        let (memory, pieces) = kernel.taken_since(self.mark);
        let (strays, mut unknown) = kernel.strays();
        unknown.extend(&now.unknown);
        let was = &self.standing;
        let mut references = BTreeMap::new();
        for (name, count) in &now.references {
            let more = count.saturating_sub(was.references.get(name).copied().unwrap_or(0));
            if more > 0 {
                references.insert(name.clone(), more);
            }
        }
        let modules: Vec<String> =
            now.references.keys().filter(|name| !was.references.contains_key(*name)).cloned().collect();
        let belongs = |path: &&String| {
            !modules.iter().any(|module| {
                path.strip_prefix(OWN).is_some_and(|rest| rest.split('/').next() == Some(module))
            })
        };
        let stray = |stray: &run::standing::Stray| StrayEntry {
            kind: stray.kind,
            what: stray.what.clone(),
            function: if stray.function == 0 { String::new() } else { kernel.text(stray.function) },
        };
        let strays = strays.iter().map(stray).collect();
        let files = topmost(now.files.difference(&was.files).filter(belongs));
        let queues = now.queues.difference(&was.queues).map(|(_, name)| name.clone()).collect();
        let allocations = allocations(kernel);
        let devices = self.new_devices(kernel);
        Some(LeftBehind {
            memory,
            pieces,
            allocations,
            devices,
            files,
            strays,
            queues,
            references,
            modules,
            unknown,
        })
    }
}

/// Paths in their order, without those below another.
fn topmost<'p>(paths: impl Iterator<Item = &'p String>) -> Vec<String> {
    let mut all: Vec<&String> = paths.collect();
    all.sort();
    let mut kept: Vec<String> = Vec::new();
    for path in all {
        let below =
            |folder: &String| path.strip_prefix(folder.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !kept.iter().any(below) {
            kept.push(path.clone());
        }
    }
    kept
}

/// Allocations, those of one place together.
fn allocations(kernel: &dyn Running) -> Vec<AllocationEntry> {
    let mut all: Vec<AllocationEntry> = Vec::new();
    for one in kernel.kept_allocations() {
        match all.iter_mut().find(|entry| entry.site == one.site && entry.function == one.function) {
            Some(entry) => {
                entry.pieces = entry.pieces.saturating_add(1);
                entry.bytes = entry.bytes.and_then(|bytes| bytes.checked_add(one.size?));
            }
            None => all.push(AllocationEntry {
                bytes: one.size,
                pieces: 1,
                function: one.function,
                site: one.site,
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_lies_in_a_directory_only_that_is_named() {
        let paths = ["/a", "/a/b", "/a-b", "/c/d"].map(String::from);
        assert_eq!(topmost(paths.iter().rev()), ["/a", "/a-b", "/c/d"]);
    }
}
