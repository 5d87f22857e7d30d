//! The memory that a kernel's own `load_module` has given a module, against what kmodld makes of the same file.

use std::collections::BTreeMap;
use std::slice;

use elf_layout::Region;
use kernel::{LiveMemory, Piece};
use run::system::Running;
use serde::Serialize;

use crate::attempt::Failure;
use crate::linked::{Cause, LinkedModule};
use crate::load::Stage;
use crate::loader::Place;
use crate::{Error, Kernel};

/// Why a signed module counts as unsigned.
const NO_KEYS: &str = "sig_ok and the taint of unsigned modules: no certificate is in the machine's keyrings";

/// How the memory that the kernel's own code has made differs from what kmodld makes.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ComparedEntry {
    /// Regions of the module.
    pub regions: Vec<RegionEntry>,
    /// What differs, by cause.
    pub differences: Vec<DifferenceEntry>,
}

/// A region.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct RegionEntry {
    /// Its name.
    pub region: &'static str,
    /// Its address, in hex.
    pub address: String,
    /// Its bytes.
    pub size: u64,
    /// How many of them differ.
    pub differ: u64,
}

/// Bytes that differ for the same cause.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct DifferenceEntry {
    /// `runtime` (only the running kernel has their values), `choice` (the site depends on the running system, and what it holds is one of
    /// the values that it may hold), `machine` (this machine does not have what a real one has), `patch`, `relocation` (something else was written), `unexplained`.
    pub kind: &'static str,
    /// What they are, or what has written them.
    pub cause: String,
    /// How many bytes.
    pub bytes: u64,
    /// In how many ranges.
    pub ranges: usize,
    /// The address of the first one, in hex.
    pub address: String,
    /// Where that is.
    pub symbol: Option<String>,
    /// What kmodld has there.
    pub expected: String,
    /// What the kernel has there.
    pub found: String,
}

impl ComparedEntry {
    /// Bytes that differ, and that no state of a running kernel explains.
    pub fn unsound(&self) -> u64 {
        let unsound =
            self.differences.iter().filter(|one| !matches!(one.kind, "runtime" | "choice" | "machine"));
        unsound.fold(0, |all, one| all.saturating_add(one.bytes))
    }
}

/// The memory of the kernel's image as the machine has it: code as it was patched, and variables that decide how modules are.
#[derive(Debug)]
pub struct RunningImage(Piece);

impl RunningImage {
    /// As it is now.
    ///
    /// # Errors
    ///
    /// [`Error`], if it cannot be read.
    pub fn of(kernel: &mut dyn Running) -> Result<Self, Error> {
        let (address, end, _) = kernel.space().image;
        let len = usize::try_from(end.saturating_sub(address)).unwrap_or(0);
        let bytes = kernel
            .read_memory(address, len)
            .map_err(|stopped| Error::Usage(format!("the kernel's image cannot be read: {stopped}")))?;
        Ok(RunningImage(Piece { address, bytes }))
    }
}

impl LiveMemory for RunningImage {
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        Piece::read_any(slice::from_ref(&self.0), address, out)
    }
}

/// What kmodld itself makes of a module: by the same description of a kernel, and where the kernel's code has put it.
#[derive(Clone, Debug)]
pub struct Own<'k> {
    /// The kernel, with the modules that are loaded before.
    pub kernel: &'k Kernel,
    /// The module's name, for messages.
    pub name: String,
    /// The bytes of the module's file.
    pub file: Vec<u8>,
    /// Its parameters.
    pub parameters: String,
}

/// Compares the memory of the module that has come last to the call of its init function with what kmodld makes.
///
/// # Errors
///
/// [`Failure`], if kmodld cannot make it; [`Error`] in it, if the module is not there.
pub fn compare(kernel: &mut dyn Running, own: Own<'_>) -> Result<ComparedEntry, Failure> {
    let (module, taints) = linked(kernel, own)?;
    Ok(differences(kernel, &module, taints)?)
}

/// What kmodld makes of the module that has come last to the call of its init function, at the places where that lies; and the address of its
/// taints.
pub(super) fn linked(kernel: &mut dyn Running, own: Own<'_>) -> Result<(LinkedModule, u64), Failure> {
    let missing = || Error::Usage("the module did not come to the call of its init function".into());
    let watch = kernel.watched().ok_or_else(missing)?;
    let loaded = watch.loaded.iter().rev().find(|loaded| loaded.watched).ok_or_else(missing)?;
    let mut places: Vec<(Region, u64)> = Vec::new();
    for region in &loaded.at_first {
        let which = Region::ALL.get(region.number).copied().ok_or_else(missing)?;
        if places.iter().all(|(other, _)| *other != which) {
            places.push((which, region.start));
        }
    }
    let (percpu, taints) = (loaded.percpu, loaded.taints);
    let mut loading = own.kernel.load(own.file).at(Place::Regions(places)).params(own.parameters);
    if percpu != 0 {
        loading = loading.percpu(percpu);
    }
    let module = loading.stage(Stage::Final).choices().accept_undecided().run()?;
    Ok((module, taints))
}

fn differences(kernel: &mut dyn Running, module: &LinkedModule, taints: u64) -> Result<ComparedEntry, Error> {
    let mut out = ComparedEntry::default();
    let mut by_cause: BTreeMap<(&'static str, String), DifferenceEntry> = BTreeMap::new();
    for region in module.regions() {
        if region.bytes.is_empty() {
            continue;
        }
        let found = kernel.read_memory(region.base, region.bytes.len()).map_err(|stopped| {
            Error::Usage(format!("the kernel has nothing at {:#x}: {stopped}", region.base))
        })?;
        let mut differ = 0u64;
        for one in module.compare_at(region.base, &found)? {
            let bytes = one.found.len() as u64;
            differ = differ.saturating_add(bytes);
            let (kind, cause) = match &one.cause {
                Cause::Runtime(what) => ("runtime", what.clone()),
                Cause::Choice(step) => ("choice", step.name().into()),
                Cause::Patch { detail: Some(detail), .. } if detail == "sig_ok" => {
                    ("machine", NO_KEYS.into())
                }
                Cause::Unexplained if one.address.wrapping_sub(taints) < 8 => ("machine", NO_KEYS.into()),
                Cause::Patch { step, detail } => (
                    "patch",
                    detail
                        .as_ref()
                        .map_or_else(|| step.name().into(), |detail| format!("{} {detail}", step.name())),
                ),
                Cause::Relocation(what) => ("relocation", what.clone()),
                Cause::Unexplained => ("unexplained", String::from("nothing writes there")),
            };
            let hex = |bytes: &[u8]| {
                bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
            };
            let entry = by_cause.entry((kind, cause.clone())).or_insert_with(|| DifferenceEntry {
                kind,
                cause,
                bytes: 0,
                ranges: 0,
                address: format!("{:#x}", one.address),
                symbol: one.symbol.clone(),
                expected: hex(&one.expected),
                found: hex(&one.found),
            });
            entry.bytes = entry.bytes.saturating_add(bytes);
            entry.ranges = entry.ranges.saturating_add(1);
        }
        let size = region.bytes.len() as u64;
        out.regions.push(RegionEntry {
            region: region.region.name(),
            address: format!("{:#x}", region.base),
            size,
            differ,
        });
    }
    out.differences = by_cause.into_values().collect();
    Ok(out)
}
