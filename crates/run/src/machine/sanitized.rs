//! Memory that is misused: objects that modules' code has asked for, accessed by whoever.
//!
//! Each access to a page with such an object is looked at ([`crate::memory::Byte`]). One that should not be is a fault: it is told, and then
//! the instruction is executed as it is.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::deeds::Content;
use super::{Machine, Platform, STACK_MAX};
use crate::cpu::Stop;
use crate::memory::{Access, Byte, Misuse, Who};
use crate::watch::{Frame, Unwritten, Watch};
use crate::world::{Event, Kind, Misused, Object};

/// Bytes before and behind each object that nobody may touch.
const ZONE: u64 = 128;
/// ___GFP_ZERO
const ZERO: u64 = 0x100;
/// Bytes of a string or buffer that are looked at.
const LEN_MAX: u64 = 1 << 24;

/// Functions that read memory: which argument is its address, which one its size, and whether it is shown to others, or decides.
const READERS: &[(&str, usize, usize, bool)] = &[
    ("memcpy", 1, 2, false),
    ("__memcpy", 1, 2, false),
    ("memmove", 1, 2, false),
    ("__memmove", 1, 2, false),
    ("memcmp", 0, 2, true),
    ("memcmp", 1, 2, true),
    ("kmemdup_noprof", 0, 1, false),
    ("kmemdup", 0, 1, false),
    ("_copy_to_user", 1, 2, true),
    ("__arch_copy_to_user", 1, 2, true),
    ("_copy_to_iter", 0, 1, true),
    ("seq_write", 1, 2, true),
];

impl<C: Platform> Machine<C> {
    /// From now on misuses are looked for, of what is asked for from now on; or no longer.
    pub(super) fn sanitize(&mut self, wanted: bool) {
        self.memory.shadow(wanted);
        self.world.heap.set_gap(if wanted { ZONE } else { 0 });
    }

    /// Are misuses looked for?
    pub fn sanitizes(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.wanted.sanitize)
    }

    /// The calls that have led here, from `first` on, as the kernel prints them.
    fn calls(&self, watch: &Watch, first: u64) -> Vec<String> {
        let mut all = self.return_addresses(STACK_MAX);
        if all.first() != Some(&first) {
            all.insert(0, first);
        }
        all.into_iter().map(|address| self.name_in(watch, address)).collect()
    }

    /// The module's code was given memory.
    pub(super) fn tracks(
        &mut self,
        watch: &mut Watch,
        frame: &Frame,
        address: u64,
        asked: Option<u64>,
        content: Content,
    ) {
        let heap = self.world.heap.place(address);
        let vmalloc = || self.world.vmalloc_piece(address).map(|(size, _)| (size, address));
        let Some((room, before)) = heap.or_else(vmalloc).filter(|_| watch.wanted.sanitize) else { return };
        let size = asked.unwrap_or(room).min(room);
        let [cache, ..] = frame.arguments;
        let is_made = self.world.caches.get(&cache).is_some_and(|cache| cache.constructor != 0);
        let written = match content {
            Content::Written => true,
            Content::Nothing => false,
            Content::By(flags) => frame.arguments.get(flags).is_none_or(|flags| flags & ZERO != 0) || is_made,
        };
        let start = before.max(address.saturating_sub(ZONE));
        self.memory.mark(start, address.saturating_sub(start), Byte::Outside);
        self.memory.mark(address, size, if written { Byte::Fine } else { Byte::Unwritten });
        let behind = if heap.is_some() { ZONE } else { 0 };
        let rest = room.saturating_sub(size).saturating_add(behind);
        self.memory.mark(address.saturating_add(size), rest, Byte::Outside);
        let allocated = self.calls(watch, frame.at);
        let function = frame.name.clone();
        watch.objects.insert(address, Object { address, size, function, allocated, freed: None });
    }

    /// Memory is freed, by the function that was just entered.
    pub fn frees(&mut self, address: u64) {
        let Some(mut watch) = self.watch.take() else { return };
        if watch.objects.contains_key(&address) {
            let by = self.cpu.return_address(&self.memory).unwrap_or(0);
            let stack = self.calls(&watch, by);
            if let Some(object) = watch.objects.get_mut(&address) {
                object.freed = Some(stack);
                self.memory.mark(address, object.size, Byte::Freed);
            }
        }
        self.watch = Some(watch);
    }

    /// What is known of memory that is freed, by the function that was just entered, and should not be.
    pub fn freed_wrongly(&self, address: u64) -> Option<Box<Misused>> {
        let watch = self.watch.as_ref().filter(|watch| watch.wanted.sanitize)?;
        let by = self.cpu.return_address(&self.memory).unwrap_or(0);
        let object = near(watch, address).cloned();
        Some(Box::new(Misused { len: 0, write: false, stack: self.calls(watch, by), object }))
    }

    /// Was it a misuse that the processor has stopped for? Then the instruction is executed next, as it is.
    pub(super) fn misuses(&mut self, stop: &Stop) -> bool {
        let Stop::Fault(fault) = stop else { return false };
        let Some(misuse) = self.memory.take_misuse().filter(|misuse| misuse.first == fault.address) else {
            return false;
        };
        if let Some(mut watch) = self.watch.take() {
            let at = self.cpu.pc();
            let stack = self.calls(&watch, at);
            let flow = C::flow(&self.memory, at);
            let unwritten = Unwritten { misuse, at, stack };
            if misuse.byte != Byte::Unwritten || flow.compares {
                self.tells_misuse(&mut watch, unwritten);
            } else if flow.writes != 0 {
                // Who copies it does not use it.
                watch.unwritten.push((flow.writes, unwritten));
            }
            self.watch = Some(watch);
        }
        self.memory.pass(true);
        true
    }

    /// The instruction at an address is about to be executed: where do values go that nobody has written?
    pub(super) fn follows(&mut self, watch: &mut Watch, at: u64) {
        let flow = C::flow(&self.memory, at);
        for (mut registers, unwritten) in core::mem::take(&mut watch.unwritten) {
            // It has read them just now.
            if unwritten.at == at && self.memory.passes() {
                watch.unwritten.push((registers, unwritten));
                continue;
            }
            if registers & flow.uses != 0 {
                self.tells_misuse(watch, unwritten);
                continue;
            }
            let is_read = registers & flow.reads != 0;
            registers &= if flow.stores && is_read { !flow.reads } else { !flow.writes };
            if is_read {
                registers |= flow.writes;
            }
            if registers != 0 {
                watch.unwritten.push((registers, unwritten));
            }
        }
    }

    /// The module's code calls a function of others: what does that read?
    pub(super) fn hands_over(&mut self, watch: &mut Watch, frame: &Frame) {
        if !watch.wanted.sanitize {
            return;
        }
        for (registers, unwritten) in core::mem::take(&mut watch.unwritten) {
            if registers & C::ARGUMENTS != 0 {
                self.tells_misuse(watch, unwritten);
            } else {
                watch.unwritten.push((registers, unwritten));
            }
        }
        let argument = |number: usize| frame.arguments.get(number).copied().unwrap_or(0);
        let mut read = Vec::new();
        for (_, at, len, tells) in READERS.iter().filter(|(name, ..)| *name == frame.name) {
            read.push((argument(*at), argument(*len), *tells));
        }
        if frame.name == "simple_read_from_buffer" {
            let rest = |number| self.cpu.argument(&self.memory, number).unwrap_or(0);
            let (count, from, available) = (argument(1), rest(3), rest(4));
            let position = self.memory.u64(argument(2)).unwrap_or(0);
            let len = available.saturating_sub(position).min(count);
            read.push((from.wrapping_add(position), len, true));
        }
        for (address, len, tells) in read {
            let who = if tells { Who::Teller } else { Who::Module };
            // Who copies it does not use it.
            let misuse = self.memory.misuse(address, len.min(LEN_MAX), Access::Read, who);
            let misuse = misuse.filter(|misuse| tells || misuse.byte != Byte::Unwritten);
            if let Some(misuse) = misuse {
                let stack = self.calls(watch, frame.at);
                self.tells_misuse(watch, Unwritten { misuse, at: frame.at, stack });
            }
        }
    }

    fn tells_misuse(&mut self, watch: &mut Watch, misused: Unwritten) {
        let Unwritten { misuse: Misuse { address, len, access, first, byte }, at, stack } = misused;
        let object = near(watch, first).cloned();
        let kind = match byte {
            Byte::Freed => Kind::UseAfterFree,
            Byte::Unwritten => Kind::Uninitialised,
            Byte::Outside | Byte::Fine => Kind::OutOfBounds,
        };
        let base = object.as_ref().map_or(first, |object| object.address);
        if !watch.is_new(kind, at, base) {
            return;
        }
        let write = access == Access::Write;
        let bytes = if len == 1 { "byte" } else { "bytes" };
        let verb = if write { "writes" } else { "reads" };
        let place = object.as_ref().map(|object| place(object, first));
        let place = place.map(|place| format!(", {place}")).unwrap_or_default();
        let what = match byte {
            Byte::Freed => format!("{verb} {len} {bytes} of freed memory{place}"),
            Byte::Unwritten if first != address => {
                format!("{verb} {len} {bytes}, not all of which were ever written{place}")
            }
            Byte::Unwritten => format!("{verb} {len} {bytes} never written{place}"),
            Byte::Outside | Byte::Fine => format!("{verb} {len} {bytes} out of bounds{place}"),
        };
        let by = self.name_in(watch, at);
        let memory = Some(Box::new(Misused { len, write, stack, object }));
        let (address, symbol) = (Some(address), None);
        self.world.event(|| Event { kind, instruction: at, by, address, symbol, what, memory });
    }
}

/// The object at an address, or next to it.
fn near(watch: &Watch, address: u64) -> Option<&Object> {
    let before = watch.objects.range(..=address).next_back().map(|(_, object)| object);
    let behind = watch.objects.range(address..).next().map(|(_, object)| object);
    let far = |object: &&Object| address.wrapping_sub(object.address) < object.size.saturating_add(ZONE);
    let close = |object: &&Object| object.address.wrapping_sub(address) <= ZONE;
    let inside = |object: &&Object| address.wrapping_sub(object.address) < object.size;
    let before = before.filter(far);
    let (before, behind) = (before, behind.filter(close));
    match (before, behind) {
        // The one that is nearer.
        (Some(before), Some(behind)) if !inside(&before) => {
            let gap = address.wrapping_sub(before.address.wrapping_add(before.size));
            Some(if gap <= behind.address.wrapping_sub(address) { before } else { behind })
        }
        (Some(before), _) => Some(before),
        (None, behind) => behind,
    }
}

/// Where an address lies, seen from an object.
fn place(object: &Object, address: u64) -> String {
    let of = format!("an object of {} bytes", object.size);
    match address.checked_sub(object.address) {
        None => format!("{} bytes before {of}", object.address.wrapping_sub(address)),
        Some(into) if into < object.size => format!("{into} bytes into {of}"),
        Some(into) => format!("{} bytes behind {of}", into.wrapping_sub(object.size)),
    }
}
