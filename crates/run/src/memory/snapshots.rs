//! Snapshots of a memory: undo logs, one on top of the other.

use alloc::vec::Vec;

use super::{Memory, PAGE, PAGE_LEN, Pages, Region};

/// What pages held when a snapshot was taken.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub saved: Pages,
    pub pages: Vec<u64>,
    pub bytes: Vec<u8>,
    pub regions: Vec<Region>,
    pub ignores_protection: bool,
}

impl Memory {
    /// Remembers what is, on top of the snapshots before.
    pub fn snapshot(&mut self) {
        self.logs.push(Log {
            saved: Pages::new(self.size() / PAGE),
            pages: Vec::new(),
            bytes: Vec::new(),
            regions: self.regions.clone(),
            ignores_protection: self.ignores_protection,
        });
        self.forget_writes();
    }

    /// Goes back to the last snapshot, which stays. False if there is none.
    pub fn restore(&mut self) -> bool {
        let Some(mut log) = self.logs.pop() else { return false };
        for (page, bytes) in log.pages.iter().zip(log.bytes.chunks(PAGE_LEN)) {
            self.code_written |= self.code.has(*page);
            let start = usize::try_from(page.wrapping_mul(PAGE)).unwrap_or(usize::MAX);
            if let Some(to) = self.physical.get_mut(start..start.saturating_add(PAGE_LEN)) {
                to.copy_from_slice(bytes);
            }
        }
        let is_same = |(a, b): (&Region, &Region)| {
            (a.start, a.end, a.physical, a.protection) == (b.start, b.end, b.physical, b.protection)
        };
        let same =
            self.regions.len() == log.regions.len() && self.regions.iter().zip(&log.regions).all(is_same);
        if !same {
            let regions = core::mem::replace(&mut self.regions, log.regions.clone());
            // Code that was decoded where something else is now.
            let gone = regions.iter().filter(|region| {
                let at = log.regions.partition_point(|other| other.start < region.start);
                !log.regions.get(at).is_some_and(|other| is_same((region, other)))
            });
            self.code_written |= gone.into_iter().any(|region| region.has_code(&self.code));
        }
        self.ignores_protection = log.ignores_protection;
        self.forget_addresses();
        for page in log.pages.drain(..) {
            log.saved.remove(page);
        }
        log.bytes.clear();
        self.logs.push(log);
        true
    }

    /// Gives up the last snapshot: what was written since stays. False if there is none.
    pub fn commit(&mut self) -> bool {
        let Some(log) = self.logs.pop() else { return false };
        if let Some(below) = self.logs.last_mut() {
            for (page, bytes) in log.pages.iter().zip(log.bytes.chunks(PAGE_LEN)) {
                if below.saved.insert(*page) {
                    below.pages.push(*page);
                    below.bytes.extend_from_slice(bytes);
                }
            }
        }
        true
    }

    /// How many pages were written since the last snapshot.
    pub fn pages_since_snapshot(&self) -> usize {
        self.logs.last().map_or(0, |log| log.pages.len())
    }
}
