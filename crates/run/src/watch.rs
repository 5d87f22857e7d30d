//! What is noted of modules' code while it runs. The machine notes it ([`crate::machine`]); here is what it keeps.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::memory::{Misuse, Spare};
use crate::world::{Kind, Object};

/// Members of structs whose offsets are needed. Not every kernel has all of them.
pub const OFFSETS: &[(&str, &str)] = &[
    ("cred", "cap_ambient"),
    ("cred", "uid"),
    ("kprobe", "addr"),
    ("kprobe", "symbol_name"),
    ("kretprobe", "kp"),
    ("mod_kallsyms", "num_symtab"),
    ("mod_kallsyms", "strtab"),
    ("mod_kallsyms", "symtab"),
    ("module", "core_layout.base"),
    ("module", "core_layout.size"),
    ("module", "core_layout.text_size"),
    ("module", "init"),
    ("module", "init_layout.base"),
    ("module", "init_layout.size"),
    ("module", "init_layout.text_size"),
    ("module", "kallsyms"),
    ("module", "list"),
    ("module", "mem"),
    ("module", "mkobj"),
    ("module", "percpu"),
    ("module_memory", "base"),
    ("module_memory", "size"),
    ("nf_hook_ops", "hook"),
    ("task_struct", "cred"),
    ("task_struct", "real_cred"),
];

/// What of a module's code is kept, beside what it does to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Calls between the module and the rest, in both directions, and what they return.
    pub calls: bool,
    /// Instructions that are executed in a row.
    pub blocks: bool,
    /// Each instruction.
    pub instructions: bool,
    /// Which code is executed, and how often.
    pub coverage: bool,
    /// Memory that is misused: that the module has asked for, by whoever.
    pub sanitize: bool,
}

/// A function or variable of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its address.
    pub address: u64,
    /// Its bytes, if that is known.
    pub size: u64,
    /// Its name.
    pub name: String,
}

/// Memory of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its address.
    pub start: u64,
    /// Its bytes.
    pub size: u64,
    /// Is there code in it?
    pub code: bool,
    /// Is it freed after init?
    pub init: bool,
    /// Its number: `enum mod_mem_type`; 7 and 8 for the parts of `core_layout` and `init_layout`.
    pub number: usize,
}

impl Region {
    /// Is an address in it?
    pub fn has(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) < self.size
    }
}

/// A module that was loaded while modules are watched.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// Its `struct module`.
    pub module: u64,
    /// Bytes of that.
    pub module_size: u64,
    /// Where its taints are.
    pub taints: u64,
    /// Its per-cpu memory, or 0.
    pub percpu: u64,
    /// Where it lies: what another module lies over now is left out.
    pub regions: Vec<Region>,
    /// Where it lay when it came.
    pub at_first: Vec<Region>,
    /// Other addresses of the same memory, which stay when it is freed, in the order of `at_first`.
    pub aliases: Vec<u64>,
    /// By address.
    pub symbols: Vec<Symbol>,
    /// Is its code watched?
    pub watched: bool,
    /// Has it left the list of modules?
    pub hidden: bool,
    /// Blocks that were executed, while coverage is wanted: address to bytes and how often.
    pub covered: BTreeMap<u64, (u64, u64)>,
}

impl Loaded {
    /// Is an address in it?
    pub fn has(&self, address: u64) -> bool {
        self.regions.iter().any(|region| region.has(address))
    }

    /// The symbol around an address, or before it.
    pub fn symbol(&self, address: u64) -> Option<&Symbol> {
        let at = self.symbols.partition_point(|symbol| symbol.address <= address);
        let before = self.symbols.get(..at)?.iter().rev().take(8);
        let inside = |symbol: &&Symbol| address.wrapping_sub(symbol.address) < symbol.size;
        before.clone().find(inside).or_else(|| before.clone().next())
    }

    /// An address as the kernel prints it, but for the size: `symbol+0x10 [module]`.
    pub fn text(&self, address: u64) -> String {
        let same = |symbol: &&Symbol| {
            let region = |at| self.regions.iter().find(|region| region.has(at)).map(|region| region.start);
            region(symbol.address) == region(address)
        };
        match self.symbol(address).filter(same) {
            Some(symbol) if symbol.address == address => format!("{} [{}]", symbol.name, self.name),
            Some(symbol) => {
                format!("{}+{:#x} [{}]", symbol.name, address.wrapping_sub(symbol.address), self.name)
            }
            None => format!("{address:#x} [{}]", self.name),
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A call.
    Call {
        /// Of a function of the module, by others?
        into: bool,
        /// Where the function begins.
        function: u64,
        /// Its name.
        name: String,
        /// Where it is called: the address of the instruction, or where it returns to.
        site: String,
        /// The registers of arguments, and what lies where more of them would lie. How many there are is not known here.
        arguments: Vec<u64>,
        /// What is a printable string there.
        texts: Vec<Option<String>>,
        /// Does it not return here: a jump at a function's end?
        tail: bool,
    },
    /// A call that is over.
    Return {
        /// Did a function of the module return?
        into: bool,
        /// The function.
        function: u64,
        /// Its name.
        name: String,
        /// The register of results.
        value: u64,
        /// What is a printable string there.
        text: Option<String>,
    },
    /// Instructions that are executed one after the other: address and bytes.
    Block(u64, u64),
    /// An instruction that is about to be executed: its address and bytes.
    Instruction(u64, Vec<u8>),
}

/// What was seen, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// How many calls it is in.
    pub depth: usize,
    /// How many messages were printed before.
    pub told: usize,
    /// Where it was, as the kernel prints it; empty for calls.
    pub place: String,
    /// What was seen.
    pub seen: Seen,
}

/// A call that is not over.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub into: bool,
    pub function: u64,
    pub name: String,
    pub returns: u64,
    pub sp: u64,
    /// The address of the call.
    pub at: u64,
    pub arguments: [u64; 3],
}

/// Memory or something like it that the module's code has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allocation {
    /// What was returned.
    pub address: u64,
    /// Bytes that were asked for, where the function is told them.
    pub size: Option<u64>,
    /// The function that was called.
    pub function: String,
    /// Where, as the kernel prints it.
    pub site: String,
}

/// Bytes that nobody has written, and that were read.
#[derive(Clone, Debug)]
pub(crate) struct Unwritten {
    pub misuse: Misuse,
    /// The instruction.
    pub at: u64,
    pub stack: Vec<String>,
}

/// What is noted of modules.
#[derive(Debug, Default)]
pub struct Watch {
    pub(crate) wanted: Wanted,
    pub(crate) names: Vec<String>,
    /// Is the next one to come watched, whatever its name?
    pub(crate) next: bool,
    pub(crate) max: usize,
    /// Modules that came since.
    pub loaded: Vec<Loaded>,
    /// What was seen and nobody has taken yet.
    pub entries: Vec<Entry>,
    /// How many were kept so far.
    pub(crate) kept: usize,
    /// How many more there would be.
    pub cut: u64,
    /// What the modules' code has asked for and not given back, by address; each with how many came before.
    pub allocations: HashMap<u64, (usize, Allocation), FixedState>,
    pub(crate) asked: usize,
    /// Objects that the modules' code has asked for, by address, also those that were freed; while misuses are looked for.
    pub(crate) objects: BTreeMap<u64, Object>,
    /// Registers with values that nobody has written, and where they come from.
    pub(crate) unwritten: Vec<(u64, Unwritten)>,
    pub(crate) threads: HashMap<u64, Vec<Frame>, FixedState>,
    /// At which depth of calls the module's code was interrupted by a fault.
    pub(crate) resumes: Option<u64>,
    pub(crate) spare: Spare,
    pub(crate) noted: Vec<(u64, u64)>,
    /// Bytes of instructions, and whether they may go on elsewhere.
    pub(crate) extents: HashMap<u64, (u64, bool), FixedState>,
    /// The block that is being executed.
    pub(crate) block: Option<(u64, u64)>,
    /// Events that are known, by kind, instruction and what they were done to.
    pub(crate) known: HashSet<(u8, u64, u64), FixedState>,
    pub(crate) unprotected: bool,
}

impl Watch {
    /// For modules of these names. At most `max` entries are kept, from first to last.
    pub fn new(names: Vec<String>, wanted: Wanted, max: usize) -> Self {
        Watch { names, wanted, max, ..Watch::default() }
    }

    /// Watches the next module to come, whatever its name, or no longer waits for it.
    pub fn watch_next(&mut self, watches: bool) {
        self.next = watches;
    }

    /// The names of the modules that are watched.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Is there code that is watched at an address?
    pub fn has_code(&self, address: u64) -> bool {
        let code = |loaded: &Loaded| loaded.regions.iter().any(|region| region.code && region.has(address));
        self.loaded.iter().any(|loaded| loaded.watched && code(loaded))
    }

    /// The module at an address.
    pub fn module_at(&self, address: u64) -> Option<&Loaded> {
        self.loaded.iter().rev().find(|loaded| loaded.has(address))
    }

    /// An address in a module as the kernel prints it.
    pub fn text(&self, address: u64) -> Option<String> {
        Some(self.module_at(address)?.text(address))
    }

    /// All memory that modules had which are watched, also of those that are gone.
    pub fn memory(&self) -> Vec<Region> {
        let watched = self.loaded.iter().filter(|loaded| loaded.watched);
        watched.flat_map(|loaded| loaded.at_first.iter().copied()).collect()
    }

    /// Another address of memory that modules had, at which it can be read when they are gone.
    pub fn alias(&self, address: u64) -> Option<u64> {
        let of = |loaded: &Loaded| {
            let at = loaded.at_first.iter().position(|region| region.has(address))?;
            let start = loaded.at_first.get(at)?.start;
            Some(loaded.aliases.get(at)?.wrapping_add(address.wrapping_sub(start)))
        };
        self.loaded.iter().rev().find_map(of)
    }

    /// Ranges of the code that is watched, from and up to.
    pub(crate) fn code(&self) -> Vec<(u64, u64)> {
        let watched = self.loaded.iter().filter(|loaded| loaded.watched);
        let code = watched.flat_map(|loaded| loaded.regions.iter().filter(|region| region.code));
        code.map(|region| (region.start, region.start.saturating_add(region.size))).collect()
    }

    /// A module is there, over what was in its place before.
    pub(crate) fn comes(&mut self, new: Loaded) {
        for old in &mut self.loaded {
            old.regions.retain(|region| {
                let end = |region: &Region| region.start.saturating_add(region.size);
                !new.regions.iter().any(|other| other.start < end(region) && region.start < end(other))
            });
        }
        self.extents.clear();
        self.loaded.push(new);
    }

    /// Keeps an entry, if there is still room.
    pub(crate) fn keep(&mut self, entry: impl FnOnce() -> Entry) {
        if self.kept < self.max {
            self.kept = self.kept.saturating_add(1);
            self.entries.push(entry());
        } else {
            self.cut = self.cut.saturating_add(1);
        }
    }

    /// Is this event a new one?
    pub(crate) fn is_new(&mut self, kind: Kind, instruction: u64, of: u64) -> bool {
        self.known.insert((kind as u8, instruction, of))
    }

    /// A block was executed.
    pub(crate) fn end_block(&mut self, depth: usize, told: usize) {
        let Some((start, end)) = self.block.take() else { return };
        let size = end.wrapping_sub(start);
        let Some(at) = self.loaded.iter().rposition(|loaded| loaded.has(start)) else { return };
        if self.wanted.blocks {
            let place = self.loaded.get(at).map(|loaded| loaded.text(start)).unwrap_or_default();
            self.keep(|| Entry { depth, told, place, seen: Seen::Block(start, size) });
        }
        if self.wanted.coverage
            && let Some(loaded) = self.loaded.get_mut(at)
        {
            let (bytes, count) = loaded.covered.entry(start).or_default();
            *bytes = size.max(*bytes);
            *count = count.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, size: u64) -> Region {
        Region { start, size, code: true, init: false, number: 0 }
    }

    #[test]
    fn what_lies_over_a_module_takes_its_place() {
        let mut watch = Watch::new(alloc::vec!["a".into()], Wanted::default(), 2);
        let regions = alloc::vec![region(0x1000, 0x1000), region(0x3000, 0x1000)];
        let symbols = alloc::vec![
            Symbol { address: 0x1000, size: 0x10, name: "f".into() },
            Symbol { address: 0x1010, size: 0, name: "g".into() },
        ];
        watch.comes(Loaded { name: "a".into(), regions, symbols, watched: true, ..Loaded::default() });
        assert_eq!(watch.text(0x100f).as_deref(), Some("f+0xf [a]"));
        assert_eq!(watch.text(0x1010).as_deref(), Some("g [a]"));
        assert_eq!(watch.text(0x3000).as_deref(), Some("0x3000 [a]"), "of another region");
        assert_eq!(watch.text(0x2000), None);
        assert_eq!(watch.code(), [(0x1000, 0x2000), (0x3000, 0x4000)]);
        watch.comes(Loaded { regions: alloc::vec![region(0x3800, 0x1000)], ..Loaded::default() });
        assert_eq!(watch.code(), [(0x1000, 0x2000)], "and is not watched itself");
        assert!(watch.has_code(0x1fff) && !watch.has_code(0x3000));
    }

    #[test]
    fn entries_have_an_end() {
        let mut watch = Watch::new(Vec::new(), Wanted::default(), 2);
        for at in 0..5 {
            watch.keep(|| Entry { depth: 0, told: 0, place: String::new(), seen: Seen::Block(at, 1) });
        }
        watch.entries.clear();
        watch.keep(|| Entry { depth: 0, told: 0, place: String::new(), seen: Seen::Block(9, 1) });
        assert_eq!((watch.entries.len(), watch.cut), (0, 4), "taking them makes no room");
    }
}
