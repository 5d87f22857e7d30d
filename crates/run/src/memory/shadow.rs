//! Of some pages it is known byte by byte what may be done there. An access to them that should not be is a fault, once it has been looked at
//! it may be done all the same.

use alloc::boxed::Box;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{Access, Fault, Memory, PAGE_LEN, Pages};

/// What a byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// One that may be read and written.
    Fine,
    /// It belongs to nothing: it lies before or behind an object.
    Outside,
    /// It belonged to an object that was freed.
    Freed,
    /// Nobody has written it since it was given out.
    Unwritten,
}

/// An access that should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misuse {
    /// Where it begins.
    pub address: u64,
    /// Its bytes.
    pub len: u64,
    /// A read or a write.
    pub access: Access,
    /// The first byte that it should not touch.
    pub first: u64,
    /// What that is.
    pub byte: Byte,
}

/// Who accesses memory, and what is said of it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Code that reads whole words behind the end of strings, and copies what nobody has written: nothing is said of that.
    Kernel,
    /// Code that is looked at. Copies have holes: of what nobody has written it may read some bytes with others.
    Module,
    /// Who shows bytes to others: none of them may be unwritten.
    Teller,
}

/// What is known of pages.
#[derive(Debug)]
pub(super) struct Shadow {
    /// Pages of which it is known, by number in physical memory.
    pages: Pages,
    bytes: HashMap<u64, Box<[Byte; PAGE_LEN]>, FixedState>,
    who: Who,
    /// Is the next access done, whatever it is?
    passes: bool,
    misuse: Option<Misuse>,
}

impl Memory {
    /// From now on [`Memory::mark`] says what bytes are; nothing is known of any yet. Or no longer.
    pub fn shadow(&mut self, wanted: bool) {
        let pages = self.size() >> 12;
        let shadow = || Shadow {
            pages: Pages::new(pages),
            bytes: HashMap::default(),
            who: Who::Kernel,
            passes: false,
            misuse: None,
        };
        self.shadow = wanted.then(|| Box::new(shadow()));
        self.forget_addresses();
    }

    /// Says what bytes are from now on, as far as there is memory.
    pub fn mark(&mut self, address: u64, len: u64, byte: Byte) {
        let Some(mut shadow) = self.shadow.take() else { return };
        for (at, start, end) in Self::parts(address, usize::try_from(len).unwrap_or(0)) {
            let Some(physical) = self.physical(at) else { break };
            shadow.pages.insert(physical >> 12);
            let page = shadow.bytes.entry(physical >> 12).or_insert_with(|| Box::new([Byte::Fine; PAGE_LEN]));
            let from = (physical as usize) & (PAGE_LEN - 1);
            let to = from.saturating_add(end.saturating_sub(start));
            if let Some(bytes) = page.get_mut(from..to) {
                bytes.fill(byte);
            }
        }
        self.shadow = Some(shadow);
        // Each access to these pages has to be seen.
        self.forget_addresses();
    }

    /// Says who executes code from now on.
    pub fn accessed_by(&mut self, who: Who) {
        if let Some(shadow) = &mut self.shadow {
            shadow.who = who;
        }
    }

    /// The misuse that the last fault was, if it was one.
    pub fn take_misuse(&mut self) -> Option<Misuse> {
        self.shadow.as_mut()?.misuse.take()
    }

    /// From now on misuses are done, or are faults again.
    pub fn pass(&mut self, passes: bool) {
        if let Some(shadow) = &mut self.shadow {
            shadow.passes = passes;
        }
    }

    /// Are they done?
    #[inline(always)]
    pub fn passes(&self) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.passes)
    }

    /// Is it known of a page of physical memory what its bytes are?
    pub(super) fn is_shadowed(&self, page: u64) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.pages.has(page))
    }

    /// What is wrong with an access.
    pub fn misuse(&self, address: u64, len: u64, access: Access, who: Who) -> Option<Misuse> {
        let shadow = self.shadow.as_ref()?;
        let (mut unwritten, mut first_unwritten) = (0u64, None);
        for (at, start, end) in Self::parts(address, usize::try_from(len).unwrap_or(0)) {
            let physical = self.physical(at)?;
            let Some(page) = shadow.bytes.get(&(physical >> 12)) else { continue };
            let from = (physical as usize) & (PAGE_LEN - 1);
            let to = from.saturating_add(end.saturating_sub(start));
            for (number, byte) in (0u64..).zip(page.get(from..to).unwrap_or_default()) {
                let first = at.wrapping_add(number);
                let is_bad = match byte {
                    Byte::Fine => false,
                    Byte::Outside => access == Access::Write || who != Who::Kernel,
                    Byte::Freed => true,
                    Byte::Unwritten => {
                        unwritten = unwritten.wrapping_add(1);
                        first_unwritten = first_unwritten.or(Some(first));
                        false
                    }
                };
                if is_bad {
                    return Some(Misuse { address, len, access, first, byte: *byte });
                }
            }
        }
        let counts = match who {
            _ if access == Access::Write => false,
            Who::Kernel => false,
            Who::Module => unwritten == len,
            Who::Teller => true,
        };
        let first = first_unwritten.filter(|_| counts)?;
        Some(Misuse { address, len, access, first, byte: Byte::Unwritten })
    }

    /// An access by code.
    pub(super) fn checks(&mut self, address: u64, len: usize, access: Access) -> Result<(), Fault> {
        let Some(who) = self.shadow.as_ref().filter(|shadow| !shadow.passes).map(|shadow| shadow.who) else {
            return Ok(());
        };
        let Some(misuse) = self.misuse(address, len as u64, access, who) else { return Ok(()) };
        if let Some(shadow) = &mut self.shadow {
            shadow.misuse = Some(misuse);
        }
        Err(Fault { address: misuse.first, access, mapped: true })
    }

    /// Bytes on one page of physical memory are written.
    #[inline(always)]
    pub(super) fn is_written(&mut self, physical: u64, len: usize) {
        let Some(shadow) = &mut self.shadow else { return };
        let Some(page) = shadow.bytes.get_mut(&(physical >> 12)) else { return };
        let from = (physical as usize) & (PAGE_LEN - 1);
        let written = page.get_mut(from..from.saturating_add(len)).unwrap_or_default();
        for byte in written.iter_mut().filter(|byte| **byte == Byte::Unwritten) {
            *byte = Byte::Fine;
        }
    }
}
