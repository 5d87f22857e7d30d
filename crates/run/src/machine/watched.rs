//! How modules are watched: their code is executed instruction by instruction, all other code as ever.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Failed, Machine, Platform};
use crate::cpu::Stop;
use crate::memory::Who;
use crate::watch::{Entry, Frame, Loaded, Region, Seen, Symbol, Watch};

/// Bytes of a string that are shown.
const TEXT_MAX: usize = 80;
/// Arguments that are kept.
const ARGUMENTS: usize = 8;
/// How far behind a call it may return to.
const CALL_MAX: u64 = 16;
/// Instructions in a row of thunks at most.
const THUNKS_MAX: usize = 64;
/// Regions of a module since v6.4 (mod_mem_type), and which of them are code and which are freed after init.
const REGIONS: [(bool, bool); 7] = [
    (true, false),
    (false, false),
    (false, false),
    (false, false),
    (true, true),
    (false, true),
    (false, true),
];
/// Calls within one another at most: who goes back in another way than by returning leaves some behind.
const FRAMES_MAX: usize = 1 << 12;
/// Symbols of a module at most.
const SYMBOLS_MAX: u64 = 1 << 20;
/// Bytes of `Elf64_Sym`.
const SYMBOL: u64 = 24;

impl<C: Platform> Machine<C> {
    /// Watches the code of modules that are loaded from now on. False if the processor cannot.
    pub fn set_watch(&mut self, watch: Option<Watch>) -> bool {
        if !self.cpu.fence(&[]) {
            return watch.is_none();
        }
        let sanitizes = watch.as_ref().is_some_and(|watch| watch.wanted.sanitize);
        self.watch = watch.map(Box::new);
        self.sanitize(sanitizes);
        true
    }

    /// `do_init_module` is entered with this `struct module`.
    pub fn module_comes(&mut self, module: u64) {
        let Some(mut watch) = self.watch.take() else { return };
        if watch.next {
            self.debugs_init(module);
        }
        if let Ok(loaded) = self.module_of(&watch, module) {
            if core::mem::take(&mut watch.next) && !watch.names.contains(&loaded.name) {
                watch.names.push(loaded.name.clone());
            }
            watch.comes(loaded);
            self.cpu.fence(&watch.code());
        }
        self.watch = Some(watch);
    }

    fn module_of(&self, watch: &Watch, module: u64) -> Result<Loaded, Failed> {
        let at = |member: &str| Ok::<_, Failed>(module.wrapping_add(self.offset(member)?));
        let name = self.memory.cstr(at("module.name")?, 64)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let mut regions = Vec::new();
        if let Ok(first) = at("module.mem") {
            let (base, len) = (self.offset("module_memory.base")?, self.offset("module_memory.size")?);
            let each = self.offset("sizeof module_memory")?;
            for (number, (code, init)) in REGIONS.into_iter().enumerate() {
                let this = first.wrapping_add((number as u64).wrapping_mul(each));
                let start = self.memory.u64(this.wrapping_add(base))?;
                let size = self.memory.u32(this.wrapping_add(len))?.into();
                regions.push(Region { start, size, code, init, number });
            }
        } else {
            // Up to v6.3 one piece for all, and one for init: code comes first.
            for (layout, init, number) in [("module.core_layout", false, 7), ("module.init_layout", true, 8)]
            {
                let member = |name: &str| at(&alloc::format!("{layout}.{name}"));
                let start = self.memory.u64(member("base")?)?;
                let size = u64::from(self.memory.u32(member("size")?)?);
                let text = u64::from(self.memory.u32(member("text_size")?)?).min(size);
                regions.push(Region { start, size: text, code: true, init, number });
                let rest = size.saturating_sub(text);
                regions.push(Region {
                    start: start.wrapping_add(text),
                    size: rest,
                    code: false,
                    init,
                    number,
                });
            }
        }
        regions.retain(|region| region.size != 0 && region.start != 0);
        let symbols = self.symbols_of(module).unwrap_or_default();
        let (at_first, watched) = (regions.clone(), watch.next || watch.names.contains(&name));
        let module_size = self.offset("sizeof module")?;
        let taints = at("module.taints")?;
        let percpu = at("module.percpu").and_then(|at| Ok(self.memory.u64(at)?)).unwrap_or(0);
        let alias =
            |region: &Region| self.memory.physical(region.start).unwrap_or(0).wrapping_add(self.space.direct);
        let aliases = at_first.iter().map(alias).collect();
        Ok(Loaded {
            name,
            module,
            module_size,
            percpu,
            taints,
            regions,
            at_first,
            aliases,
            symbols,
            watched,
            ..Loaded::default()
        })
    }

    /// `mod->kallsyms`: the symbols of the module, with those of init.
    fn symbols_of(&self, module: u64) -> Result<Vec<Symbol>, Failed> {
        let table = self.memory.u64(module.wrapping_add(self.offset("module.kallsyms")?))?;
        let at = |member: &str| Ok::<_, Failed>(table.wrapping_add(self.offset(member)?));
        let (first, names) = (self.memory.u64(at("mod_kallsyms.symtab")?)?, at("mod_kallsyms.strtab")?);
        let names = self.memory.u64(names)?;
        let count = u64::from(self.memory.u32(at("mod_kallsyms.num_symtab")?)?).min(SYMBOLS_MAX);
        let mut all = Vec::new();
        for number in 1..count {
            let this = first.wrapping_add(number.wrapping_mul(SYMBOL));
            let (name, info) = (self.memory.u32(this)?, self.memory.u32(this.wrapping_add(4))?);
            // SHN_UNDEF has no place in the module.
            if name == 0 || info >> 16 == 0 {
                continue;
            }
            let address = self.memory.u64(this.wrapping_add(8))?;
            let size = self.memory.u64(this.wrapping_add(16))?;
            let name = self.memory.cstr(names.wrapping_add(name.into()), 512)?;
            if !name.is_empty() {
                all.push(Symbol { address, size, name: String::from_utf8_lossy(&name).into_owned() });
            }
        }
        all.sort_by_key(|symbol| symbol.address);
        Ok(all)
    }

    /// Executes until something stops it.
    pub(super) fn go(&mut self) -> Stop {
        let Some(mut watch) = self.watch.take() else { return self.runs() };
        let stop = if watch.has_code(self.cpu.pc()) {
            self.arrives(&mut watch);
            self.memory.note_writes(&mut watch.spare);
            self.memory.accessed_by(Who::Module);
            let stop = self.steps(&mut watch);
            self.memory.accessed_by(Who::Kernel);
            self.memory.noted(&mut watch.spare, &mut watch.noted);
            stop
        } else {
            self.runs()
        };
        self.watch = Some(watch);
        stop
    }

    fn steps(&mut self, watch: &mut Watch) -> Stop {
        loop {
            if self.budget == 0 {
                watch.resumes = Some(self.depth);
                return Stop::Budget;
            }
            let at = self.cpu.pc();
            self.before(watch, at);
            let stop = self.step();
            self.memory.take_noted(&mut watch.noted);
            for number in 0..watch.noted.len() {
                if let Some((address, len)) = watch.noted.get(number).copied() {
                    self.wrote(watch, at, address, len);
                }
            }
            self.protects(watch, at);
            if stop != Stop::Budget {
                watch.resumes = Some(self.depth);
                return stop;
            }
            if watch.has_code(self.cpu.pc()) {
                if self.is_debugged_here() || self.is_tick_due() {
                    watch.resumes = Some(self.depth);
                    return Stop::Breakpoint;
                }
                continue;
            }
            // What jumps to another function is none itself.
            for _ in 0..THUNKS_MAX {
                let thunk = self.symbols.lookup(self.cpu.pc()).is_some_and(|(name, _)| C::is_thunk(name));
                if watch.has_code(self.cpu.pc()) || !thunk || self.budget == 0 {
                    break;
                }
                match self.step() {
                    Stop::Budget => {}
                    stop => return stop,
                }
            }
            if !watch.has_code(self.cpu.pc()) {
                self.leaves(watch, at);
                return Stop::Breakpoint;
            }
        }
    }

    /// One instruction; [`Stop::Budget`] if that is all there is to say.
    pub(super) fn step(&mut self) -> Stop {
        let mut one = 1;
        let stop = self.cpu.run(&mut self.memory, &mut one);
        self.memory.pass(false);
        let done = 1u64.saturating_sub(one);
        self.budget = self.budget.saturating_sub(done);
        self.world.computed = self.world.computed.saturating_add(done);
        stop
    }

    /// An instruction is about to be executed.
    fn before(&mut self, watch: &mut Watch, at: u64) {
        let wanted = watch.wanted;
        if !watch.unwritten.is_empty() {
            self.follows(watch, at);
        }
        if !(wanted.blocks || wanted.instructions || wanted.coverage) {
            return;
        }
        let (len, ends) = match watch.extents.get(&at) {
            Some(extent) => *extent,
            None => {
                let extent = C::extent(&mut self.memory, at);
                watch.extents.insert(at, extent);
                extent
            }
        };
        // The next round of an instruction that repeats.
        let again = watch.block.is_some_and(|(start, end)| at >= start && at < end);
        let (depth, told) = (self.depth_of(watch), self.world.log.len());
        if wanted.instructions && !again {
            let bytes = self.memory.bytes(at, usize::try_from(len).unwrap_or(0)).unwrap_or_default();
            let place = watch.text(at).unwrap_or_default();
            watch.keep(|| Entry { depth, told, place, seen: Seen::Instruction(at, bytes) });
        }
        if watch.block.is_some_and(|(_, end)| end != at) && !again {
            watch.end_block(depth, told);
        }
        let start = watch.block.map_or(at, |(start, _)| start);
        watch.block = Some((start, at.wrapping_add(len)));
        if ends {
            watch.end_block(depth, told);
        }
    }

    fn depth_of(&self, watch: &Watch) -> usize {
        let task = C::current(self).unwrap_or(0);
        watch.threads.get(&task).map_or(0, Vec::len)
    }

    /// The module's code begins, or goes on behind a call.
    fn arrives(&mut self, watch: &mut Watch) {
        if watch.resumes.take() == Some(self.depth) {
            return;
        }
        let (pc, sp) = (self.cpu.pc(), self.cpu.sp());
        let task = C::current(self).unwrap_or(0);
        let frames = watch.threads.entry(task).or_default();
        let found = frames.iter().rposition(|frame| !frame.into && frame.is_over(pc, sp));
        if let Some(depth) = found {
            let frame = frames.drain(depth..).next();
            if let Some(frame) = frame {
                self.returned(watch, &frame, depth);
            }
            return;
        }
        let returns = self.cpu.return_address(&self.memory).unwrap_or(0);
        self.called(watch, task, Frame::of(true, pc, returns, sp, returns), false);
    }

    /// The module's code has called a function, or has come to its end, with the instruction at an address.
    fn leaves(&mut self, watch: &mut Watch, at: u64) {
        let (pc, sp) = (self.cpu.pc(), self.cpu.sp());
        let task = C::current(self).unwrap_or(0);
        let frames = watch.threads.entry(task).or_default();
        if let Some(depth) = frames.iter().rposition(|frame| frame.into && frame.is_over(pc, sp)) {
            let frame = frames.drain(depth..).next();
            watch.unwritten.clear();
            if let Some(frame) = frame {
                self.returned(watch, &frame, depth);
            }
            return;
        }
        let returns = self.cpu.return_address(&self.memory).unwrap_or(0);
        let near = returns.wrapping_sub(at) <= CALL_MAX;
        let tail = !near && !watch.has_code(returns);
        let site = if near { returns } else { at };
        self.called(watch, task, Frame::of(false, pc, returns, sp, site), tail);
    }

    fn called(&mut self, watch: &mut Watch, task: u64, mut frame: Frame, tail: bool) {
        let told = self.world.log.len();
        frame.name = self.name_in(watch, frame.function);
        for (number, argument) in frame.arguments.iter_mut().enumerate() {
            *argument = self.cpu.argument(&self.memory, number).unwrap_or(0);
        }
        if !frame.into {
            self.asks(watch, &frame);
            self.hands_over(watch, &frame);
        }
        let depth = watch.threads.get(&task).map_or(0, Vec::len);
        if watch.wanted.calls {
            let arguments: Vec<u64> =
                (0..ARGUMENTS).map_while(|number| self.cpu.argument(&self.memory, number).ok()).collect();
            let texts = arguments.iter().map(|at| self.string_at(*at)).collect();
            let (into, function, name) = (frame.into, frame.function, frame.name.clone());
            let site = self.name_in(watch, frame.at);
            let seen = Seen::Call { into, function, name, site, arguments, texts, tail };
            watch.keep(|| Entry { depth, told, place: String::new(), seen });
        }
        let frames = watch.threads.entry(task).or_default();
        if tail {
            // It returns where the function would that has called it.
            frames.pop();
        } else {
            if frames.len() >= FRAMES_MAX {
                frames.clear();
            }
            frames.push(frame);
        }
    }

    fn returned(&mut self, watch: &mut Watch, frame: &Frame, depth: usize) {
        let value = self.cpu.returned();
        if !frame.into {
            self.answered(watch, frame, value);
        }
        if watch.wanted.calls {
            let told = self.world.log.len();
            let text = self.string_at(value);
            let (into, function, name) = (frame.into, frame.function, frame.name.clone());
            let seen = Seen::Return { into, function, name, value, text };
            watch.keep(|| Entry { depth, told, place: String::new(), seen });
        }
    }

    /// An address as the kernel prints it.
    pub(super) fn name_in(&self, watch: &Watch, address: u64) -> String {
        watch.text(address).unwrap_or_else(|| self.symbols.text(address))
    }

    /// The printable string at an address.
    pub(super) fn string_at(&self, address: u64) -> Option<String> {
        let (start, end) = self.space.user;
        if address < end && address < start {
            return None;
        }
        let bytes = self.memory.cstr(address, TEXT_MAX).ok().filter(|bytes| !bytes.is_empty())?;
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | 0x80..);
        // KERN_SOH and a level.
        let shown = match bytes.as_slice() {
            [1, _, rest @ ..] => rest,
            all => all,
        };
        let text = core::str::from_utf8(shown).ok()?;
        shown.iter().all(is_text).then(|| {
            let mut text = String::from(text);
            if bytes.len() == TEXT_MAX {
                text.push_str("...");
            }
            text
        })
    }
}

impl Frame {
    fn of(into: bool, function: u64, returns: u64, sp: u64, at: u64) -> Self {
        Frame { into, function, name: String::new(), returns, sp, at, arguments: [0; 3] }
    }

    /// Is that where it returns to? Some processors take the address from the stack then.
    fn is_over(&self, pc: u64, sp: u64) -> bool {
        pc == self.returns && sp.wrapping_sub(self.sp) <= 8
    }
}
