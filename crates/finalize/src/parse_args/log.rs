//! What the kernel's log keeps of a message that holds text from outside.

use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::{Change, Changes};

/// Bytes of a level in front of a message, which count for its length.
const LEVEL: usize = 2;

/// One `printk` as lines of the log: cut at the size of a record, and split at newlines.
pub fn printk(changes: Changes, parts: &[&[u8]]) -> Vec<String> {
    // Since v6.3 (PRINTKRB_RECORD_MAX) 1024 bytes, before that (LOG_LINE_MAX, without
    // CONFIG_PRINTK_CALLER) 32 fewer; the last one is a NUL.
    let record: usize = if changes.has(Change::LongerLogRecords) { 1024 } else { 992 };
    let room = record.saturating_sub(LEVEL).saturating_sub(1);
    let mut text = Vec::new();
    for part in parts {
        let left = room.saturating_sub(text.len());
        text.extend_from_slice(part.get(..left).unwrap_or(part));
    }
    text.split(|c| *c == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}
