//! What happened and no log tells, as documents have it.

use run::world::{Event, Kind, Misused};
use serde::Serialize;

/// Something that happened and that no log tells.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct EventEntry {
    /// `warning` (WARN(), whose report is in the log), `free` (of memory that is not allocated), `text` (a write to code), `table` (to read-only
    /// data), `write` (to memory of the kernel or of another module that is not exported), `protection` (of read-only memory), `probe` (a
    /// kprobe), `tracing` (ftrace, fprobe), `program` (a user-mode helper), `packets` (a netfilter hook), `credentials`, `hiding` (from a list
    /// of modules), `call` (of a function that somebody watches). With `--sanitize` also `out-of-bounds`, `use-after-free` and `uninitialised`.
    pub kind: &'static str,
    /// The address of the instruction, or of the one behind a call, in hex.
    pub instruction: String,
    /// The same as the kernel prints it, without sizes.
    pub by: String,
    /// The address of what it was done to, in hex, if it is one.
    pub address: Option<String>,
    /// The same as the kernel prints it, without sizes.
    pub symbol: Option<String>,
    /// In words.
    pub what: String,
    /// Is it the first write past the kernel's functions? The memory is the machine's alone; but what follows may mean nothing.
    pub first: bool,
    /// Of memory that is misused (`--sanitize`): how, and whose it is. Null for everything else.
    pub memory: Option<MisusedEntry>,
}

/// Memory that is misused.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct MisusedEntry {
    /// Bytes that are read or written; 0 if it is freed.
    pub bytes: u64,
    /// Are they written?
    pub write: bool,
    /// The calls that have led there, nearest first. Some may be left from earlier calls.
    pub stack: Vec<String>,
    /// The object that is meant, or the next one; null if none is near.
    pub object: Option<ObjectEntry>,
}

/// An object that the module's code has asked for.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ObjectEntry {
    /// Where it begins, in hex.
    pub address: String,
    /// Bytes that were asked for.
    pub size: u64,
    /// The function that gave it.
    pub function: String,
    /// The calls that have led there.
    pub allocated: Vec<String>,
    /// The calls that have led to where it was freed; null if it was not.
    pub freed: Option<Vec<String>>,
}

impl From<&Misused> for MisusedEntry {
    fn from(misused: &Misused) -> Self {
        let object = misused.object.as_ref().map(|object| ObjectEntry {
            address: format!("{:#x}", object.address),
            size: object.size,
            function: object.function.clone(),
            allocated: object.allocated.clone(),
            freed: object.freed.clone(),
        });
        MisusedEntry { bytes: misused.len, write: misused.write, stack: misused.stack.clone(), object }
    }
}

impl EventEntry {
    fn of(event: &Event) -> Self {
        EventEntry {
            kind: match event.kind {
                Kind::Warning => "warning",
                Kind::Free => "free",
                Kind::Call => "call",
                Kind::Text => "text",
                Kind::Table => "table",
                Kind::Write => "write",
                Kind::Protection => "protection",
                Kind::Probe => "probe",
                Kind::Tracing => "tracing",
                Kind::Program => "program",
                Kind::Packets => "packets",
                Kind::Credentials => "credentials",
                Kind::Hiding => "hiding",
                Kind::OutOfBounds => "out-of-bounds",
                Kind::UseAfterFree => "use-after-free",
                Kind::Uninitialised => "uninitialised",
            },
            instruction: format!("{:#x}", event.instruction),
            by: event.by.clone(),
            address: event.address.map(|address| format!("{address:#x}")),
            symbol: event.symbol.clone(),
            what: event.what.clone(),
            first: false,
            memory: event.memory.as_deref().map(MisusedEntry::from),
        }
    }

    /// Events in their order, of which the first write is marked.
    pub(super) fn all<'e>(events: impl Iterator<Item = &'e Event>) -> Vec<Self> {
        let mut all: Vec<Self> = events.map(EventEntry::of).collect();
        let is_write = |entry: &&mut EventEntry| matches!(entry.kind, "text" | "table" | "write");
        if let Some(first) = all.iter_mut().find(is_write) {
            first.first = true;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_write_is_marked() {
        let event = |kind| Event {
            kind,
            instruction: 0x10,
            by: "f".into(),
            address: Some(0x20),
            symbol: None,
            what: "w".into(),
            memory: None,
        };
        let all = [Kind::Probe, Kind::Table, Kind::Text].map(event);
        let all = EventEntry::all(all.iter());
        assert_eq!(all.iter().map(|entry| entry.first).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!((all[0].kind, all[0].address.as_deref()), ("probe", Some("0x20")));
    }
}
