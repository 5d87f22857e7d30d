//! From an image to a process 1 that can make system calls.
//!
//! What firmware, `setup_arch` and the memory allocators would do is preset or left out; from the scheduler on everything is the
//! image's own code, in the order of `start_kernel`, `kernel_init_freeable` and `do_initcalls`.

mod tables;

pub use tables::SKIPPED;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use kernel_image::{Btf, KernelImage};

use crate::heap::Heap;
use crate::machine::{Cause, Failed, Machine, Offsets, Platform, Preset, Space, Stopped};
use crate::memory::{Memory, PAGE, Protection};
use crate::parameters::Told;
use crate::standing;
use crate::stubs;
use crate::symbols::Symbols;
use crate::world::World;
use tables::{INIT_FUNCTIONS, LAST_LEVEL, LATER, MOUNTS, OFFSETS};

/// Physical memory, in bytes.
pub(crate) const MEMORY: u64 = 1 << 30;
/// Per-cpu memory, in bytes.
const PERCPU: u64 = 16 << 20;
/// COMMAND_LINE_SIZE of every architecture is at least that.
const COMMAND_LINE: usize = 2048;
/// Instructions that one step of the boot may take.
const STEP_BUDGET: u64 = 1_000_000_000;

/// What keeps a kernel from being booted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The image does not say what is needed.
    #[error("{0}")]
    Image(String),
    /// Its code stopped before process 1 was there.
    #[error("{step}: {stopped}")]
    Stopped {
        /// The function that was called.
        step: String,
        /// Where and why.
        stopped: Box<Stopped>,
    },
}

/// A function that was called on the way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What it returned, or why it stopped.
    pub result: Result<u64, Stopped>,
    /// How many instructions it took.
    pub instructions: u64,
}

/// What happened on the way.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The functions that were called, in order.
    pub steps: Vec<Step>,
    /// Symbols that this kernel does not have.
    pub missing: Vec<String>,
}

impl Report {
    /// The steps that stopped.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &Stopped)> {
        self.steps.iter().filter_map(|step| Some((step.name.as_str(), step.result.as_ref().err()?)))
    }
}

/// Boots an image as far as it goes. Each function that was called is told to `observe`. One that stops is as if it had not been called.
///
/// # Errors
///
/// [`Error`], where process 1 does not come to be. Steps that stop are in the report.
pub fn boot<C: Platform>(
    image: &KernelImage<'_>,
    told: &Told,
    watched: &[&'static str],
    observe: &mut dyn FnMut(&Step, &Machine<C>),
) -> Result<(Machine<C>, Report), Error> {
    let kallsyms = image.kallsyms().map_err(|error| Error::Image(format!("{error}")))?;
    let symbols = Symbols::new(kallsyms.iter().map(|symbol| (symbol.address, symbol.name)));
    let btf = image.btf().map_err(|error| Error::Image(format!("{error}")))?;
    let page_struct = need(btf.struct_size("page"), "no struct page in its BTF")?;
    // Without CONFIG_KALLSYMS_ALL there are only symbols of code.
    need(
        symbols.address("init_task"),
        "its kallsyms has no symbols of data (CONFIG_KALLSYMS_ALL is not set), which the boot needs",
    )?;
    let space = need(C::space(image, &symbols, page_struct), "it does not say where its memory lies")?;
    let mut machine = placed::<C>(image, symbols, space, &btf)?;
    let mut boot = Boot { machine: &mut machine, report: Report::default(), observe };
    boot.prepare(image, &btf, watched).map_err(|failed| boot.error("presets", failed))?;
    boot.tell(image, &btf, told)?;
    boot.start_kernel()?;
    boot.kernel_init().map_err(|failed| boot.error("process 1", failed))?;
    boot.take_capabilities().map_err(|failed| boot.error("capabilities", failed))?;
    let report = boot.report;
    Ok((machine, report))
}

fn need<T>(found: Option<T>, what: &str) -> Result<T, Error> {
    found.ok_or_else(|| Error::Image(what.into()))
}

fn offsets<C: Platform>(btf: &Btf<'_>) -> Offsets {
    let mut all = Offsets::default();
    let mut known = HashMap::<_, _, FixedState>::default();
    for (of, member) in OFFSETS.iter().chain(C::OFFSETS).chain(crate::watch::OFFSETS).chain(standing::OFFSETS)
    {
        let id = *known.entry(*of).or_insert_with(|| btf.find_struct(of));
        if let Some(found) = id.and_then(|id| btf.member_of(id, member)) {
            all.insert(name_of(of, member), found.offset);
        }
    }
    for member in crate::system::FILE_OPERATIONS {
        if let Some(found) = btf.member("file_operations", member) {
            all.insert(name_of("file_operations", member), found.offset);
        }
    }
    const SIZED: [&str; 4] = ["kernel_param", "obs_kernel_param", "module", "module_memory"];
    for of in SIZED.iter().chain(standing::SIZES) {
        if let Some(size) = btf.struct_size(of) {
            all.insert(format!("sizeof {of}"), size);
        }
    }
    all
}

/// `struct.member`
fn name_of(of: &'static str, member: &'static str) -> String {
    format!("{of}.{member}")
}

/// The image in memory, with all of physical memory in the kernel's direct mapping.
fn placed<C: Platform>(
    image: &KernelImage<'_>,
    symbols: Symbols,
    space: Space,
    btf: &Btf<'_>,
) -> Result<Machine<C>, Error> {
    let (start, end, physical) = space.image;
    let len = end.checked_sub(start).map(|len| len.div_ceil(PAGE).saturating_mul(PAGE));
    let len = need(len.filter(|len| *len < MEMORY >> 1), "it is too large")?;
    let mut memory = Memory::new(MEMORY);
    let behind = physical.saturating_add(len).div_ceil(PAGE).saturating_mul(PAGE);
    let pages = (MEMORY / PAGE).saturating_mul(space.page_struct).div_ceil(PAGE).saturating_mul(PAGE);
    let user = space.user.1.saturating_sub(space.user.0);
    let heap = behind.saturating_add(pages).saturating_add(user);
    let mapped = memory.map(space.direct, MEMORY, 0, Protection::DATA)
        && memory.map(start, len, physical, Protection::DATA)
        && memory.map(space.pages, pages, behind, Protection::DATA)
        && memory.map(space.user.0, user, behind.saturating_add(pages), Protection::DATA);
    if !mapped {
        return Err(Error::Image("its address space is not as expected".into()));
    }
    let end_of_heap = MEMORY.saturating_sub(PAGE);
    let world = World {
        heap: Heap::new(space.direct.wrapping_add(heap), space.direct.wrapping_add(end_of_heap)),
        time: 1_000_000_000,
        random: 1,
        vmalloc_area: space.vmalloc.0.wrapping_add(PAGE),
        ..World::default()
    };
    // What the file does not have is .bss.
    let mut at = start;
    while at < end {
        let here = usize::try_from(PAGE.min(end.wrapping_sub(at))).unwrap_or(0);
        let bytes = image.read_relocated(at, here);
        let copied = match &bytes {
            Some(bytes) => memory.poke(at, bytes),
            None => part_of_page(image, &mut memory, at, here),
        };
        copied.map_err(|_| Error::Image("it has no room".into()))?;
        at = at.wrapping_add(PAGE);
    }
    // Writable until mark_rodata_ro: alternatives and constants are patched in during the boot.
    for (from, to) in [("_text", "_etext"), ("__init_begin", "__init_end")] {
        protect(&mut memory, &symbols, from, to, Protection::ALL);
    }
    let machine = Machine::new(memory, symbols, space, offsets::<C>(btf), world);
    need(machine, "its address space is not as expected")
}

/// The pages of what lies between two symbols, if the kernel has them.
fn protect(memory: &mut Memory, symbols: &Symbols, from: &str, to: &str, protection: Protection) {
    if let (Some(from), Some(to)) = (symbols.address(from), symbols.address(to)) {
        let down = |address: u64| address & !PAGE.wrapping_sub(1);
        memory.protect(down(from), down(to.wrapping_add(PAGE.wrapping_sub(1))), protection);
    }
}

/// The beginning of a page, where the file ends in it.
fn part_of_page(
    image: &KernelImage<'_>,
    memory: &mut Memory,
    at: u64,
    len: usize,
) -> Result<(), crate::memory::Fault> {
    let (mut has, mut has_not) = (0, len);
    while has_not.saturating_sub(has) > 1 {
        let middle = has.saturating_add(has_not) / 2;
        if image.read(at, middle).is_some() {
            has = middle;
        } else {
            has_not = middle;
        }
    }
    match image.read_relocated(at, has).filter(|_| has != 0) {
        Some(bytes) => memory.poke(at, &bytes),
        None => Ok(()),
    }
}

struct Boot<'m, C: Platform> {
    machine: &'m mut Machine<C>,
    report: Report,
    observe: &'m mut dyn FnMut(&Step, &Machine<C>),
}

impl<C: Platform> Boot<'_, C> {
    fn error(&self, step: &str, failed: Failed) -> Error {
        let stopped = match failed {
            Failed::Stopped(stopped) => stopped,
            Failed::Because(reason) => self.machine.stopped(reason, Cause::Machine),
            Failed::Crash(reason) => self.machine.stopped(reason, Cause::Kernel),
            Failed::Fault(fault) => {
                self.machine.stopped(format!("{}", crate::cpu::Stop::Fault(fault)), Cause::Machine)
            }
        };
        Error::Stopped { step: step.into(), stopped: Box::new(stopped) }
    }

    /// Per-cpu memory, presets and stubs.
    fn prepare(
        &mut self,
        image: &KernelImage<'_>,
        btf: &Btf<'_>,
        watched: &[&'static str],
    ) -> Result<(), Failed> {
        let m = &mut *self.machine;
        m.add_stubs(&stubs::rows());
        m.add_stubs(&C::rows());
        for name in watched {
            m.add_stub(name, stubs::watched);
        }
        m.world.buffer = m.allocate(2048, 64)?;
        let (start, end) = (m.symbol("__per_cpu_start")?, m.symbol("__per_cpu_end")?);
        let size = end.saturating_sub(start).min(PERCPU);
        let area = m.allocate(PERCPU, PAGE)?;
        // Up to v6.14 its addresses begin at 0, and the image holds it elsewhere.
        let len = usize::try_from(size).unwrap_or(0);
        let bytes = image.read_relocated(start, len).map(alloc::borrow::Cow::into_owned);
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => m.memory.bytes(m.symbol("__per_cpu_load")?, len)?,
        };
        m.memory.write(area, &bytes)?;
        let offset = area.wrapping_sub(start);
        m.cpu.set_percpu_offset(offset);
        m.world.percpu = (end.wrapping_add(63) & !63, start.wrapping_add(PERCPU));
        let this_cpu = m.symbol("this_cpu_off").map(|pointer| pointer.wrapping_add(offset));
        m.cpu.set_sp(
            m.symbol("init_stack").or_else(|_| m.symbol("init_thread_union"))?.wrapping_add(0x4000 - 0x100),
        );
        let mut presets = alloc::vec![
            Preset::of("__per_cpu_offset", 0, offset, 8, "setup_per_cpu_areas copies the area"),
            Preset::of("nr_cpu_ids", 0, 1, 4, "setup_nr_cpu_ids counts the processors"),
            Preset::of("nr_node_ids", 0, 1, 4, "setup_nr_node_ids counts the memory nodes"),
            Preset::of("nr_kernel_pages", 0, 60_000, 8, "free_area_init counts the pages"),
            Preset::of("nr_all_pages", 0, 60_000, 8, "free_area_init counts the pages"),
            Preset::of("_totalram_pages", 0, 60_000, 8, "memblock_free_all counts the pages"),
            Preset::of("max_pfn", 0, MEMORY / PAGE, 8, "setup_arch finds the end of memory"),
            Preset::of("max_low_pfn", 0, MEMORY / PAGE, 8, "setup_arch finds the end of memory"),
            Preset::of(
                "high_memory",
                0,
                m.space.direct.wrapping_add(MEMORY),
                8,
                "setup_arch finds the end of memory"
            ),
            Preset::of("__cpu_possible_mask", 0, 1, 8, "prefill_possible_map finds the processors"),
            Preset::of("__num_possible_cpus", 0, 1, 4, "prefill_possible_map counts the processors"),
            Preset::of(
                "filled_random_ptr_key",
                0,
                1,
                1,
                "fill_ptr_key sets the key that hashes addresses, once there are random numbers"
            ),
            Preset::of("__cpu_present_mask", 0, 1, 8, "prefill_possible_map finds the processors"),
        ];
        let empty = m.string(b"")?;
        for name in ["saved_command_line", "static_command_line", "initcall_command_line"] {
            presets.push(Preset::of(name, 0, empty, 8, "setup_command_line copies it"));
        }
        if let Ok(at) = this_cpu {
            presets.push(Preset::at(at, offset, 8, "setup_per_cpu_areas sets it"));
        }
        // node_states[]: node 0 is possible, online, and has all there is.
        if let Some(size) = btf.member("mempolicy", "nodes").map(|nodes| nodes.size) {
            // All nodes are possible at first.
            let states = m.symbol("node_states")?;
            m.memory.poke(states, &alloc::vec![0; usize::try_from(size.wrapping_mul(6)).unwrap_or(0)])?;
            for state in 0..6u64 {
                let at = state.wrapping_mul(size);
                presets.push(Preset::of("node_states", at, 1, 8, "free_area_init finds the memory nodes"));
            }
        }
        presets.extend(C::presets(m)?);
        for preset in &presets {
            if !m.set(preset)?
                && let crate::machine::Place::Symbol(name, _) = preset.place
            {
                self.report.missing.push(name.into());
            }
        }
        if let Some(running) = btf.enum_value("system_states", "SYSTEM_RUNNING") {
            m.world.running = running as u32;
        }
        Ok(())
    }

    /// What the machine is told of the system that it is to be: words for the kernel's early code, and capabilities.
    fn tell(&mut self, image: &KernelImage<'_>, btf: &Btf<'_>, told: &Told) -> Result<(), Error> {
        let m = &mut *self.machine;
        let line = told.words.join(" ");
        if !line.is_empty() {
            let at = need(m.symbols.address("boot_command_line"), "it has no boot_command_line")?;
            let room = line.len() < COMMAND_LINE;
            need(m.memory.poke(at, line.as_bytes()).ok().filter(|()| room), "its command line is too long")?;
        }
        let Some(bytes) = &told.capabilities else { return Ok(()) };
        let place = image.machine().cpu_capabilities.iter().find_map(|bitmap| {
            let at = m.symbols.address(bitmap.symbol)?;
            match bitmap.member {
                Some((of, member)) => Some(at.wrapping_add(btf.member(of, member)?.offset)),
                None => Some(at),
            }
        });
        let place = need(place, "it does not say where it keeps the capabilities of its processors")?;
        m.world.capabilities = Some((place, bytes.as_slice().into()));
        Ok(())
    }

    /// From here on the processor counts as one with the capabilities that were told: modules are patched for them. The kernel's own code
    /// stays as it was patched, for what the interpreter executes.
    fn take_capabilities(&mut self) -> Result<(), Failed> {
        if let Some((place, bytes)) = self.machine.world.capabilities.clone() {
            self.machine.memory.poke(place, &bytes)?;
        }
        Ok(())
    }

    /// One function.
    fn step(&mut self, name: &str, function: u64, arguments: &[u64]) -> Result<u64, Stopped> {
        self.machine.budget = STEP_BUDGET;
        let before = self.machine.cpu.executed();
        let snapshot = self.machine.snapshot();
        let result = self.machine.call_at(function, arguments);
        if result.is_err() {
            let step = Step { name: name.into(), result: result.clone(), instructions: 0 };
            (self.observe)(&step, self.machine);
        }
        // Half of a function would leave locks behind.
        if result.is_err() {
            self.machine.restore(&snapshot);
        }
        self.machine.commit();
        let instructions = self.machine.cpu.executed().wrapping_sub(before);
        let step = Step { name: name.into(), result: result.clone(), instructions };
        if result.is_ok() {
            (self.observe)(&step, self.machine);
        }
        self.report.steps.push(step);
        result
    }

    fn named(&mut self, name: &'static str, arguments: &[u64]) {
        match self.machine.symbols.address(name) {
            Some(function) => {
                let _ = self.step(name, function, arguments);
            }
            None => self.report.missing.push(name.into()),
        }
    }

    fn start_kernel(&mut self) -> Result<(), Error> {
        let task = self.machine.symbol("init_task").map_err(|failed| self.error("init_task", failed))?;
        self.named("set_task_stack_end_magic", &[task]);
        self.named("boot_cpu_init", &[]);
        for name in C::FIRST {
            self.named(name, &[]);
        }
        let initcalls =
            self.initcall_table("__initcall_end").map_err(|failed| self.error("initcalls", failed))?;
        for name in INIT_FUNCTIONS {
            // What start_kernel calls in one kernel is an initcall in another.
            let address = self.machine.symbols.address(name);
            if !initcalls.iter().any(|function| Some(*function) == address) {
                self.named(name, &[]);
            }
        }
        // The scheduler begins, and its first thread comes to kernel_init_freeable.
        let rest = self.machine.symbol("rest_init").map_err(|failed| self.error("rest_init", failed))?;
        let stopped = self.step("rest_init", rest, &[]).err();
        match stopped {
            Some(stopped) => Err(self.error("rest_init", Failed::Stopped(stopped))),
            None if !self.machine.world.is_booted => Err(Error::Image("rest_init returned".into())),
            None => Ok(()),
        }
    }

    /// What process 1 does, on its own stack.
    fn kernel_init(&mut self) -> Result<(), Failed> {
        let sp = self.machine.cpu.sp().wrapping_sub(0x400) & !15;
        self.machine.cpu.set_sp(sp);
        self.machine.set(&Preset::of(
            "max_threads",
            0,
            10_000,
            4,
            "fork_init computes it from the size of memory",
        ))?;
        self.named("workqueue_init", &[]);
        for name in C::PROCESSORS {
            self.named(name, &[]);
        }
        // An initcall in older kernels, called by do_basic_setup in newer ones.
        let table = self.initcall_table("__initcall_end")?;
        if self.machine.symbols.address("ksysfs_init").is_some_and(|address| !table.contains(&address)) {
            self.named("ksysfs_init", &[]);
        }
        self.named("driver_init", &[]);
        self.initcalls()?;
        let running = u64::from(self.machine.world.running);
        self.machine.set(&Preset::of("system_state", 0, running, 4, "kernel_init sets it"))?;
        // Its name is that of the program that it would execute.
        let task = C::current(self.machine)?;
        let name = task.wrapping_add(self.machine.offset("task_struct.comm")?);
        self.machine.memory.write(name, b"init\0\0\0\0\0\0\0\0\0\0\0\0")?;
        for directory in ["/dev", "/proc", "/sys", "/tmp"] {
            let path = self.machine.string(directory.as_bytes())?;
            self.named("init_mkdir", &[path, 0o755]);
        }
        for (directory, kind) in MOUNTS {
            let (directory, kind) =
                (self.machine.string(directory.as_bytes())?, self.machine.string(kind.as_bytes())?);
            self.named("init_mount", &[kind, directory, kind, 0, 0]);
        }
        // mark_readonly: keys that are read-only from here on are not written any more.
        if self.machine.symbols.address("jump_label_init_ro").is_some() {
            self.named("jump_label_init_ro", &[]);
        }
        let Machine { memory, symbols, .. } = &mut *self.machine;
        protect(memory, symbols, "_text", "_etext", Protection::CODE);
        protect(memory, symbols, "__start_rodata", "__end_rodata", Protection::READ);
        Ok(())
    }

    /// The initcalls in their order, up to a symbol.
    fn initcall_table(&self, last: &str) -> Result<Vec<u64>, Failed> {
        let m = &*self.machine;
        let (mut at, end) = (m.symbol("__initcall_start")?, m.symbol(last)?);
        let mut all = Vec::new();
        while at < end {
            // A 32-bit distance from itself.
            let distance = m.memory.u32(at)? as i32;
            all.push(at.wrapping_add(i64::from(distance) as u64));
            at = at.wrapping_add(4);
        }
        Ok(all)
    }

    /// `do_initcalls`
    fn initcalls(&mut self) -> Result<(), Failed> {
        const LEVELS: [&str; 9] = [
            "__initcall_start",
            "__initcall0_start",
            "__initcall1_start",
            "__initcall2_start",
            "__initcall3_start",
            "__initcall4_start",
            "__initcall5_start",
            "__initcall6_start",
            "__initcall_end",
        ];
        let last = LEVELS.get(LAST_LEVEL.saturating_add(2)).copied().unwrap_or("__initcall_end");
        for function in self.initcall_table(last)? {
            let name = self.machine.text(function);
            if SKIPPED.iter().chain(C::SKIPPED).all(|(skipped, _)| *skipped != name) {
                let _ = self.step(&name, function, &[]);
            }
        }
        for (name, _) in LATER {
            // It may have been called with its level.
            if self.report.steps.iter().all(|step| step.name != *name) {
                self.named(name, &[]);
            }
        }
        // What has been left to threads is done.
        self.named("msleep", &[1]);
        Ok(())
    }
}
