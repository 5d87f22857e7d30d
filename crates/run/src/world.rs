//! What the stubs keep: memory, the log, time.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::heap::Heap;
use crate::kept::{kept, kept_variants};
use crate::memory::PAGE;

/// A message of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Nanoseconds since the boot.
    pub time: u64,
    /// Its text, with line feeds within and without that at the end.
    pub text: Vec<u8>,
    /// Does a line feed end it? If not, the next may go on with it.
    pub ended: bool,
}

/// Of which kind an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// WARN(), whose report is in the log.
    Warning,
    /// Memory is freed that is not allocated.
    Free,
    /// A function was called that somebody watches.
    Call,
    /// A write to code.
    Text,
    /// A write to read-only data.
    Table,
    /// A write to memory that belongs to the kernel or to another module, and that nobody has exported.
    Write,
    /// Read-only memory can be written from here on, or again not.
    Protection,
    /// A probe is set.
    Probe,
    /// Functions are traced, or replaced by that way.
    Tracing,
    /// A program is started.
    Program,
    /// Packets are looked at.
    Packets,
    /// The rights of a task are changed.
    Credentials,
    /// A module leaves a list by which others find it.
    Hiding,
    /// Bytes before or behind an object are read or written.
    OutOfBounds,
    /// An object that was freed is read or written.
    UseAfterFree,
    /// Bytes of an object are read that nobody has written.
    Uninitialised,
}

/// What happened and no log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of which kind it is.
    pub kind: Kind,
    /// The address of the instruction, or of the one behind a call.
    pub instruction: u64,
    /// The same as the kernel prints it.
    pub by: String,
    /// What it was done to, if that is an address.
    pub address: Option<u64>,
    /// The same as the kernel prints it.
    pub symbol: Option<String>,
    /// In a sentence.
    pub what: String,
    /// Of memory that is misused: how, and whose it is.
    pub memory: Option<Box<Misused>>,
}

/// Memory that is misused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misused {
    /// Bytes that are read or written; 0 if it is freed.
    pub len: u64,
    /// Are they written?
    pub write: bool,
    /// The calls that have led there, nearest first. Some may be left from earlier calls.
    pub stack: Vec<String>,
    /// The object that is meant, or the next one.
    pub object: Option<Object>,
}

/// An object that a module's code has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// Where it begins.
    pub address: u64,
    /// Bytes that were asked for.
    pub size: u64,
    /// The function that gave it.
    pub function: String,
    /// The calls that have led there.
    pub allocated: Vec<String>,
    /// The calls that have led to where it was freed, if it was.
    pub freed: Option<Vec<String>>,
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} {}", self.by, self.what)
    }
}

/// A cache of objects.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// Bytes of an object.
    pub size: u64,
    /// What its address is a multiple of.
    pub align: u64,
    /// What makes a new object, or 0.
    pub constructor: u64,
}

/// What the stubs keep.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct World {
    /// Memory that was asked for.
    pub heap: Heap,
    /// What the kernel has printed.
    pub log: Vec<Message>,
    /// What happened beside.
    pub events: Vec<Event>,
    /// Nanoseconds since the boot.
    pub time: u64,
    /// How many of them no tick has told the kernel yet.
    pub since_tick: u64,
    /// Instructions until the timer interrupts.
    pub until_tick: u64,
    /// Is the boot over, so that ticks interrupt code?
    pub is_up: bool,
    /// Callbacks that wait for a grace period: `rcu_head` and function.
    pub callbacks: VecDeque<(u64, u64)>,
    /// `kmem_cache`s.
    pub caches: HashMap<u64, Cache, FixedState>,
    /// Chains of notifiers, and what was put into them.
    pub notifiers: Vec<(u64, u64)>,
    /// The generator of random numbers.
    pub random: u64,
    /// The next free per-cpu address, and the end.
    pub percpu: (u64, u64),
    /// Pieces of the module area by address, with their sizes.
    pub module_pieces: Vec<(u64, u64)>,
    /// Blocks of the module area that code of modules comes out of, and the pieces of them that are in use.
    pub code_blocks: Vec<(u64, u64)>,
    /// By address, with their sizes.
    pub code_pieces: Vec<(u64, u64)>,
    /// Where messages are formatted.
    pub buffer: u64,
    /// Does the kernel wait in its idle loop, and how often in a row?
    pub idle: u64,
    /// Is process 1 there?
    pub is_booted: bool,
    /// SYSTEM_RUNNING
    pub running: u32,
    /// How often a stub was called.
    pub stub_calls: u64,
    /// Has the last system call ended in the middle of the kernel?
    pub has_left: bool,
    /// Where the kernel keeps the capabilities of its processor, and those that the machine was told.
    pub capabilities: Option<(u64, Arc<[u8]>)>,
    /// What becomes of init functions.
    pub inits: Inits,
    /// `struct module` of the last module that came to `do_init_module`.
    pub coming: Option<u64>,
    /// The next free address of vmalloc memory.
    pub vmalloc_area: u64,
    /// Pieces of vmalloc memory: address, size, and the memory on the heap that shows there.
    pub vmalloc_pieces: Vec<(u64, u64, u64)>,
    /// What `verify_pkcs7_signature` returns, if that is known.
    pub trust: Option<i64>,
    /// Where the kernel has asked for something that decides, and that this machine does not have.
    pub doubts: Vec<String>,
}

/// What becomes of the init functions of modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inits {
    /// They run.
    #[default]
    Run,
    /// They are left out, and seem to have succeeded.
    Succeed,
    /// The system call ends where they would be called.
    End,
}

kept!(Message { level, time, text, ended });
kept_variants!(Kind {
    Warning,
    Free,
    Call,
    Text,
    Table,
    Write,
    Protection,
    Probe,
    Tracing,
    Program,
    Packets,
    Credentials,
    Hiding,
    OutOfBounds,
    UseAfterFree,
    Uninitialised,
});
kept!(Event { kind, instruction, by, address, symbol, what, memory });
kept!(Misused { len, write, stack, object });
kept!(Object { address, size, function, allocated, freed });
kept!(Cache { size, align, constructor });
kept_variants!(Inits { Run, Succeed, End });
kept!(World {
    heap,
    log,
    events,
    time,
    since_tick,
    until_tick,
    capabilities,
    is_up,
    callbacks,
    caches,
    notifiers,
    random,
    percpu,
    module_pieces,
    code_blocks,
    code_pieces,
    buffer,
    idle,
    is_booted,
    running,
    stub_calls,
    has_left,
    inits,
    coming,
    vmalloc_area,
    vmalloc_pieces,
    trust,
    doubts,
});

/// Events that are kept at most.
const EVENTS_MAX: usize = 10_000;

impl World {
    /// Notes what no log tells; of very many the first ones.
    pub fn event(&mut self, event: impl FnOnce() -> Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push(event());
        }
    }

    /// Notes that the machine does not have what the kernel has asked for.
    pub fn doubt(&mut self, what: &'static str) {
        if self.doubts.iter().all(|doubt| doubt != what) {
            self.doubts.push(what.into());
        }
    }

    /// Is an address in the page before or behind a piece of vmalloc memory, which nothing ever has?
    pub fn is_guard(&self, address: u64) -> bool {
        let page = address & !PAGE.wrapping_sub(1);
        self.vmalloc_pieces
            .iter()
            .any(|(start, size, _)| page == start.wrapping_add(*size) || page == start.wrapping_sub(PAGE))
    }

    /// The piece of vmalloc memory that begins at an address.
    pub fn vmalloc_piece(&self, address: u64) -> Option<(u64, u64)> {
        let found = self.vmalloc_pieces.iter().find(|(start, ..)| *start == address);
        found.map(|(_, size, memory)| (*size, *memory))
    }

    /// The next random number.
    pub fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }
}
