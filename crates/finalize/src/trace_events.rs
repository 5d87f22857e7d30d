//! `trace_module_notify`, when a module is coming: trace events and the texts of their formats (spec 06, 6.7).
//!
//! Two notifiers of that name: the one of trace_events.c registers the events (priority 1), the one of
//! trace.c puts numbers in place of the names of enumerators and `sizeof(...)` in their formats.

mod print_fmt;
mod test_printk;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use kernel::Member;

use elf_layout::bytes::{cstr, printed};
use elf_layout::config::Flavour;
use elf_layout::{Change, Changes, Finding, Severity};

use print_fmt::Format;
use reloc::Step;
use reloc::{Architecture, Finalizer};
use test_printk::{Fields, test_event_printk};

/// TAINT_CRAP, TAINT_OOT_MODULE, TAINT_UNSIGNED_MODULE, TAINT_TEST: what tracepoints tolerate.
const GOOD_TAINTS: u64 = 1 << 10 | 1 << 12 | 1 << 13 | 1 << 18;
/// TAINT_LIVEPATCH
const LIVEPATCH: u64 = 1 << 15;
/// TRACE_EVENT_FL_TRACEPOINT: bit 4, and bit 3 since an earlier flag has gone. Modules have events of no other kind.
const TRACEPOINT: u32 = 1 << 3 | 1 << 4;
/// TRACE_EVENT_FL_TEST_STR, where there is `needs_test`.
const TEST_STR: u32 = 1 << 10;
/// `needs_test`, a bit-field behind `is_signed`.
const NEEDS_TEST: u8 = 1 << 1;
/// Bytes that are looked at for all events of a module together: far more than any module has use of.
const WORK_MAX: u64 = 1 << 31;

/// `trace_module_has_bad_taint` (FIN-80)
pub fn trace_module_has_bad_taint(taints: u64, changes: Changes) -> bool {
    // Livepatches may have trace events in 6.12's stable series and later.
    let livepatch = if changes.has(Change::LivepatchTraceEvents) { LIVEPATCH } else { 0 };
    taints & !(GOOD_TAINTS | livepatch) != 0
}

/// `trace_module_add_events` (FIN-81) and `trace_module_add_evals` (FIN-82). Without events nothing happens, whatever maps there
/// are (booted 6.1, 6.12 and 7.3).
pub fn trace_module_notify(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) {
    let Some(table) = module.section("_ftrace_events").filter(|table| table.size >= 8) else { return };
    let kernel = module.kernel;
    // CONFIG_EVENT_TRACING=n
    if kernel.struct_size("module").is_some() && kernel.member("module", "trace_events").is_none() {
        return;
    }
    if trace_module_has_bad_taint(module.load.taints, module.changes()) {
        let why = "the module has a taint for which the kernel creates no trace events";
        let name = module.info.file.name_text();
        let line = alloc::format!("{name}: module has bad taint, not creating trace events");
        module.said.push(Finding::note("FIN-80", Severity::Warning, why).says(line));
        return;
    }
    let types = Types::of(module);
    if let Some(types) = &types
        && !events_in_reach(module, arch, types, &table)
    {
        return;
    }
    if !eval_maps_in_reach(module, arch) || module.verdict_only {
        return;
    }
    let Some(types) = types else {
        module
            .record
            .not_known("the layout of struct trace_event_call, which the BTF of a kernel image tells");
        return;
    };
    // At a NULL the kernel crashes.
    let calls: Vec<u64> =
        table.records(8).filter_map(|at| module.u64(at)).take_while(|call| *call != 0).collect();
    let mut events = Events { module, types, work: WORK_MAX };
    let mut registered: Vec<u64> = calls.into_iter().filter(|call| events.register_event(*call)).collect();
    // list_add has put each event before those already there.
    registered.reverse();
    events.trace_event_update_all(&registered);
    if events.work == 0 {
        module.record.not_known("formats of trace events: there is too much to replace in them");
    }
}

/// What `__register_event` and `trace_event_raw_init` read of each event (FIN-78). False if the kernel crashes.
fn events_in_reach(
    module: &mut Finalizer<'_, '_>,
    arch: &dyn Architecture,
    types: &Types,
    table: &elf_layout::Table,
) -> bool {
    // A pointer that is not known was left out, and is zero.
    let left_out = module.unknown.contains(&true);
    let known = |pointer: &u64| *pointer != 0 || !left_out;
    table.records(8).all(|record| {
        let word = |module: &Finalizer<'_, '_>, of: u64, offset| module.u64(of.wrapping_add(offset));
        let Some(call) = module.u64(record) else { return true };
        if !module.writes_data(arch, call, 8, "an entry of _ftrace_events") {
            return false;
        }
        if module.place_of(call).is_none() {
            let needs = "what the running kernel has in its memory where an entry of _ftrace_events leads";
            module.said.may_crash("FIN-78", needs);
            return true;
        }
        let class = word(module, call, types.class);
        // A union of the event's name and its tracepoint, which begins with a name, follows the class.
        let named = word(module, call, types.class.wrapping_add(8)).filter(|named| *named != 0);
        if named.is_some_and(|named| !module.touches(arch, named, 8, "the name of a trace event")) {
            return false;
        }
        let of_tracepoint = module.u32(call.wrapping_add(types.flags)).unwrap_or(0) & TRACEPOINT != 0;
        let name = named
            .filter(|_| of_tracepoint)
            .and_then(|tracepoint| module.u64(tracepoint))
            .filter(|name| *name != 0);
        if name.is_some_and(|name| !module.touches(arch, name, 1, "the name of a tracepoint")) {
            return false;
        }
        // Without a name it is not registered, and without being registered nothing more is looked at.
        let nameless = if of_tracepoint { name.is_none() && !left_out } else { named.is_none() && !left_out };
        let Some(class) = class.filter(|class| known(class) && !nameless) else { return true };
        if !module.touches(arch, class, 8, "the class of a trace event") {
            return false;
        }
        let raw_init = word(module, class, types.raw_init).filter(|function| *function != 0);
        if let Some(function) = raw_init {
            if !is_called(
                module,
                function,
                Some("trace_event_raw_init"),
                "the class of a trace event has raw_init",
            ) {
                return false;
            }
            if is_refused(module, types, (call, named, name)) {
                return true;
            }
            if !is_read(module, arch, types, call) {
                return false;
            }
        }
        // event_create_dir: the folder of its system, and the fields.
        let system = word(module, class, types.system).filter(known);
        system.is_none_or(|system| module.touches(arch, system, 1, "the system of a trace event"))
            && define_fields(module, arch, types, class)
            && is_updated(module, arch, types, call, class)
    })
}

/// What `trace_event_update_all` reads of an event whose system the module has eval maps for: its format, and since v5.18
/// (b3bc8547d3be) the list of its fields, and the name in each of these maps (FIN-82). False if the kernel crashes.
fn is_updated(
    module: &mut Finalizer<'_, '_>,
    arch: &dyn Architecture,
    types: &Types,
    call: u64,
    class: u64,
) -> bool {
    let word = |module: &Finalizer<'_, '_>, of: u64, offset| module.u64(of.wrapping_add(offset));
    let left_out = module.unknown.contains(&true);
    let system = word(module, class, types.system);
    let maps = module.section("_ftrace_eval_map").map(|table| table.records(8)).into_iter().flatten();
    let maps: Vec<u64> = maps
        .filter_map(|record| module.u64(record))
        .filter(|map| word(module, *map, types.map_system) == system)
        .collect();
    if left_out || maps.is_empty() {
        return true;
    }
    // update_event_printk measures it first.
    let names: Vec<u64> = maps.into_iter().filter_map(|map| word(module, map, types.eval_string)).collect();
    if !names
        .into_iter()
        .all(|name| module.touches(arch, name, 1, "the name in an entry of _ftrace_eval_map"))
    {
        return false;
    }
    let head = class.wrapping_add(types.fields.offset);
    let next = word(module, class, types.get_fields)
        .filter(|function| *function == 0)
        .and_then(|_| word(module, head, 0))
        .filter(|next| *next != head && module.has(Change::EvalsReplacedInFields));
    let nothing = match (word(module, call, types.print_fmt), next) {
        (Some(0), _) => "no format",
        (_, Some(0)) => "no list of fields",
        (_, Some(_)) => {
            let needs = "what the kernel makes of the list of a trace event's fields, whose links in the file lead elsewhere";
            module.said.may_crash("FIN-89", needs);
            return true;
        }
        _ => return true,
    };
    let why =
        format!("a trace event has {nothing}, in which the kernel replaces names of enumerators: it crashes");
    module.said.refuse(Finding::note("FIN-82", Severity::Oops, why));
    false
}

/// A pointer to a function that all modules have from the kernel, `known`, or that none has. False if the kernel crashes there.
fn is_called(module: &mut Finalizer<'_, '_>, function: u64, known: Option<&str>, what: &str) -> bool {
    let symbol = |name| module.kernel.symbol(name);
    let Some((start, end)) = symbol("_stext").zip(symbol("_etext")) else { return true };
    if known.is_some_and(|known| symbol(known).is_none_or(|address| address == function)) {
        return true;
    }
    let own = module
        .segments()
        .any(|segment| segment.permissions.execute && function.wrapping_sub(segment.base) < segment.size);
    if own || (start..end).contains(&function) {
        module.said.may_crash("FIN-81", format!("what the code at {function:#x} does: {what} there"));
        return true;
    }
    let why = format!("{what} at {function:#x}, where there is no code: the kernel crashes");
    module.said.refuse(Finding::note("FIN-81", Severity::Oops, why));
    false
}

/// FIN-81: does `register_trace_event` refuse an event with these names? Then the kernel says so, and the load goes on.
fn is_refused(
    module: &mut Finalizer<'_, '_>,
    types: &Types,
    (call, named, name): (u64, Option<u64>, Option<u64>),
) -> bool {
    let left_out = module.unknown.contains(&true);
    let funcs = module.u64(call.wrapping_add(types.funcs)).filter(|funcs| *funcs != 0 || !left_out);
    let numbered = module.u32(call.wrapping_add(types.type_.offset)).is_some_and(|number| number != 0);
    if funcs != Some(0) && !numbered {
        return false;
    }
    let text = |at: u64| {
        let place = module.place_of(at)?;
        cstr(module.memory.region(place.region), place.offset).map(|text| printed(text).into_owned())
    };
    let why = "a trace event is not registered: it has no functions, or comes with a number";
    let finding = Finding::note("FIN-81", Severity::Warning, why);
    module.said.push(match name.or(named).and_then(text) {
        Some(name) => finding.says(format!("Could not initialize trace events/{name}")),
        None => finding,
    });
    true
}

/// What `trace_event_raw_init` reads of an event (FIN-78). False if the kernel crashes.
fn is_read(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture, types: &Types, call: u64) -> bool {
    let left_out = module.unknown.contains(&true);
    let word = |offset: u64| module.u64(call.wrapping_add(offset)).filter(|at| *at != 0 || !left_out);
    // No format is none to be tested.
    let (funcs, format) = (word(types.funcs), word(types.print_fmt).filter(|format| *format != 0));
    [(funcs, "the functions of a trace event"), (format, "the format of a trace event")]
        .into_iter()
        .all(|(at, what)| at.is_none_or(|at| module.touches(arch, at, 1, what)))
}

/// FIN-89: `event_define_fields` adds to the list of a class's fields, if that is empty: a kernel that checks lists stops at a
/// wrong link back. The fields are an array that ends with one without a type. False if the kernel crashes.
fn define_fields(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture, types: &Types, class: u64) -> bool {
    /// TRACE_FUNCTION_TYPE
    const FUNCTION: u64 = u64::MAX;
    /// More than any event has.
    const MAX: u64 = 4096;
    let left_out = module.unknown.contains(&true);
    let word = |offset| module.u64(class.wrapping_add(offset));
    if let Some(function) = word(types.get_fields).filter(|function| *function != 0) {
        return is_called(module, function, None, "the class of a trace event has get_fields");
    }
    let Some(next) = word(types.fields.offset).filter(|next| *next != 0 || !left_out) else { return true };
    let head = class.wrapping_add(types.fields.offset);
    // Nothing is added to what is not empty.
    if next != head {
        return true;
    }
    let Some(array) = word(types.fields_array).filter(|array| *array != 0 || !left_out) else { return true };
    let back = word(types.fields.offset.wrapping_add(8));
    for number in 0..MAX {
        let record = array.wrapping_add(number.wrapping_mul(types.record.1));
        let at = record.wrapping_add(types.record.0);
        if !module.touches(arch, at, 8, "the fields of a trace event") {
            return false;
        }
        match module.u64(at) {
            None | Some(0) => break,
            Some(FUNCTION) => {
                module.said.may_crash("FIN-89", "what a function makes of the fields of a trace event");
                break;
            }
            Some(_) if back != Some(head) => return is_added(module, head, back.unwrap_or(0)),
            Some(type_) if !module.touches(arch, type_, 1, "the type of a field of a trace event") => {
                return false;
            }
            Some(_) => {}
        }
    }
    true
}

/// FIN-89: `list_add` to an empty list whose link back leads elsewhere. False if the kernel stops there: it then has
/// CONFIG_DEBUG_LIST or LIST_HARDENED, which its symbols show, and CONFIG_BUG_ON_DATA_CORRUPTION, which Debian has.
fn is_added(module: &mut Finalizer<'_, '_>, head: u64, back: u64) -> bool {
    let checks = ["__list_add_valid_or_report", "__list_add_valid"];
    let knows = module.kernel.symbol("_stext").is_some();
    let checked = checks.iter().any(|name| module.kernel.symbol(name).is_some());
    if knows && !checked {
        return true;
    }
    if !(checked && module.info.config.flavour == Flavour::Debian) {
        let needs = "whether the kernel stops at a wrong link back in the list of a trace event's fields (CONFIG_BUG_ON_DATA_CORRUPTION)";
        module.said.may_crash("FIN-89", needs);
        return true;
    }
    let line = format!(
        "list_add corruption. next->prev should be prev ({head:016x}), but was {back:016x}. (next={head:016x})."
    );
    let why = "the list of a trace event's fields has a wrong link back: the kernel stops with a BUG when it adds to it";
    module.said.refuse(Finding::note("FIN-89", Severity::Oops, why).says(line));
    false
}

/// What `trace_event_eval_update` reads of each map, for every event of the kernel (FIN-82). False if the kernel crashes.
fn eval_maps_in_reach(module: &mut Finalizer<'_, '_>, arch: &dyn Architecture) -> bool {
    let Some(table) = module.section("_ftrace_eval_map") else { return true };
    if trace_module_has_bad_taint(module.load.taints, module.changes()) {
        return true;
    }
    let left_out = module.left_out(table.index);
    let records = table.records(8).filter(|record| left_out.binary_search(record).is_err());
    records.into_iter().all(|record| {
        module.u64(record).is_none_or(|map| module.touches(arch, map, 8, "an entry of _ftrace_eval_map"))
    })
}

/// Offsets in the kernel's structs.
struct Types {
    list: Member,
    class: u64,
    node: Member,
    /// Up to 6.1; an IDA replaced the list in v6.2 (caf1a0a3e7ab).
    event_list: Option<Member>,
    type_: Member,
    funcs: u64,
    print_fmt: u64,
    module: u64,
    flags: u64,
    system: u64,
    get_fields: u64,
    fields: Member,
    raw_init: u64,
    fields_array: u64,
    /// Where a field has its type, and its size.
    record: (u64, u64),
    /// Name, type and `needs_test` of a field, and its size.
    field: Option<[u64; 4]>,
    functions: [u64; 4],
    map_system: u64,
    eval_string: u64,
    eval_value: u64,
}

impl Types {
    fn of(module: &Finalizer<'_, '_>) -> Option<Self> {
        let call = |path| module.kernel.member("trace_event_call", path);
        let class = |path| module.kernel.member("trace_event_class", path);
        let function = |path| Some(module.kernel.member("trace_event_functions", path)?.offset);
        let map = |path| Some(module.kernel.member("trace_eval_map", path)?.offset);
        Some(Types {
            list: call("list")?,
            class: call("class")?.offset,
            node: call("event.node")?,
            event_list: call("event.list"),
            type_: call("event.type")?,
            funcs: call("event.funcs")?.offset,
            print_fmt: call("print_fmt")?.offset,
            // `mod` up to v5.15.
            module: call("module").or_else(|| call("mod"))?.offset,
            flags: call("flags")?.offset,
            system: class("system")?.offset,
            get_fields: class("get_fields")?.offset,
            fields: class("fields")?,
            raw_init: class("raw_init")?.offset,
            fields_array: class("fields_array")?.offset,
            record: (
                module.kernel.member("trace_event_fields", "type")?.offset,
                module.kernel.struct_size("trace_event_fields")?,
            ),
            field: Types::field(module),
            functions: [function("trace")?, function("raw")?, function("hex")?, function("binary")?],
            map_system: map("system")?,
            eval_string: map("eval_string")?,
            eval_value: map("eval_value")?,
        })
    }

    /// Since v6.13 (needs_test, afd2627f727b), and in 6.12's stable series.
    fn field(module: &Finalizer<'_, '_>) -> Option<[u64; 4]> {
        let field = |path| Some(module.kernel.member("trace_event_fields", path)?.offset);
        let size = module.kernel.struct_size("trace_event_fields")?;
        Some([field("name")?, field("type")?, field("needs_test")?, size])
    }
}

/// The events of a module, and how much of them may still be looked at.
struct Events<'m, 'a, 'd> {
    module: &'m mut Finalizer<'a, 'd>,
    types: Types,
    work: u64,
}

impl Events<'_, '_, '_> {
    fn u64(&self, of: u64, offset: u64) -> Option<u64> {
        self.module.u64(of.wrapping_add(offset))
    }

    fn runtime(&mut self, of: u64, member: Member, what: &'static str) {
        self.module.runtime(of.wrapping_add(member.offset), member.size, what);
    }

    /// A string of the module.
    fn string(&mut self, at: u64) -> Option<Vec<u8>> {
        let place = self.module.place_of(at)?;
        let text = cstr(self.module.memory.region(place.region), place.offset)?;
        self.work = self.work.saturating_sub(text.len().saturating_add(1) as u64);
        (self.work != 0).then(|| text.to_vec())
    }

    /// `__register_event` and what `__add_event_to_tracers` leaves in the event (FIN-81). Is it registered?
    fn register_event(&mut self, call: u64) -> bool {
        let class = self.u64(call, self.types.class);
        // A class outside of the module would be one of the kernel, which all have trace_event_raw_init.
        let raw_init = class.and_then(|class| self.u64(class, self.types.raw_init));
        if raw_init != Some(0) && !self.trace_event_raw_init(call) {
            return false;
        }
        self.runtime(call, self.types.list, "trace_event_call: list, its place in the list of all events");
        if let Some(this) = self.module.table(self.module.info.file.index().module) {
            let at = call.wrapping_add(self.types.module);
            self.module.write(at, &this.address.to_le_bytes(), Step::TraceEvent, call);
        }
        // event_define_fields: unless the class has a list elsewhere.
        if let Some(class) = class
            && self.u64(class, self.types.get_fields) == Some(0)
        {
            self.runtime(class, self.types.fields, "trace_event_class: fields, a list of what was allocated");
        }
        true
    }

    /// `register_trace_event`, then `test_event_printk`. False if it is refused, as is an event that comes
    /// with a number of its own.
    fn trace_event_raw_init(&mut self, call: u64) -> bool {
        let Some(funcs) = self.u64(call, self.types.funcs).filter(|funcs| *funcs != 0) else { return false };
        if self.module.u32(call.wrapping_add(self.types.type_.offset)) != Some(0) {
            return false;
        }
        self.runtime(call, self.types.type_, "trace_event: type, its number");
        self.runtime(call, self.types.node, "trace_event: node, its place among events of that hash");
        if let Some(list) = self.types.event_list {
            self.runtime(call, list, "trace_event: list, its place in the list of events");
        }
        for offset in self.types.functions {
            self.fill_function(funcs.wrapping_add(offset), call);
        }
        if let Some(field) = self.types.field {
            self.test_event_printk(call, field);
        }
        true
    }

    /// A function that an event lacks prints nothing.
    fn fill_function(&mut self, at: u64, call: u64) {
        if self.module.u64(at) != Some(0) {
            return;
        }
        match self.module.kernel.symbol("trace_nop_print") {
            Some(nop) => {
                self.module.write(at, &nop.to_le_bytes(), Step::TraceEvent, call);
            }
            None => {
                self.module.record.not_known("the address of trace_nop_print (--symtab)");
                let what = "trace_event_functions: trace_nop_print, whose address is not known";
                self.module.runtime(at, 8, what);
            }
        }
    }

    fn test_event_printk(&mut self, call: u64, field: [u64; 4]) {
        let class = self.u64(call, self.types.class);
        let array = class.and_then(|class| self.u64(class, self.types.fields_array));
        let (Some(array), Some(format)) = (array, self.u64(call, self.types.print_fmt)) else { return };
        let Some(text) = self.string(format) else { return };
        let mut fields = OfEvent { events: self, array, field, tested: false, call };
        test_event_printk(&text, &mut fields);
        if fields.tested {
            let at = call.wrapping_add(self.types.flags);
            let flags = self.module.u32(at).unwrap_or(0) | TEST_STR;
            self.module.write(at, &flags.to_le_bytes(), Step::TraceEvent, call);
        }
    }

    /// `trace_event_update_all` over the module's own events: each map in order changes the formats of its
    /// system (FIN-82). Types of fields are edited too, in memory that is allocated for them.
    fn trace_event_update_all(&mut self, calls: &[u64]) {
        let maps = self.eval_maps();
        // Events share formats. What a round over all maps has left as it was, another one does too.
        let mut settled: BTreeSet<(u64, u64)> = BTreeSet::new();
        for call in calls {
            let class = self.u64(*call, self.types.class);
            let system = class.and_then(|class| self.u64(class, self.types.system));
            let format = self.u64(*call, self.types.print_fmt);
            let (Some(system), Some(at)) = (system, format) else { continue };
            let Some(maps) = maps.get(&system).filter(|_| !settled.contains(&(at, system))) else { continue };
            let Some(text) = self.string(at) else { continue };
            let before = [text.as_slice(), b"\0"].concat();
            let mut format = Format(before.clone());
            for map in maps {
                let Some(name) = self.module.read(map.name, map.len) else { continue };
                let moved = format.update_event_printk(name, map.value.to_string().as_bytes());
                let looked_at = moved.saturating_add(before.len() as u64);
                self.work = self.work.saturating_sub(looked_at);
                if self.work == 0 {
                    return;
                }
            }
            if format.0 == before {
                settled.insert((at, system));
            } else {
                self.module.write(at, &format.0, Step::TraceEvent, *call);
            }
        }
    }

    /// What the module defines with TRACE_DEFINE_ENUM and TRACE_DEFINE_SIZEOF, by the address of the name of
    /// its system: events that have the same string have use of it.
    fn eval_maps(&mut self) -> BTreeMap<u64, Vec<EvalMap>> {
        let mut maps: BTreeMap<u64, Vec<EvalMap>> = BTreeMap::new();
        let Some(table) = self.module.section("_ftrace_eval_map") else { return maps };
        let pointers: Vec<u64> =
            table.records(8).filter_map(|at| self.module.u64(at)).take_while(|map| *map != 0).collect();
        for map in pointers {
            let system = self.u64(map, self.types.map_system);
            let name = self.u64(map, self.types.eval_string);
            let value = self.u64(map, self.types.eval_value);
            let (Some(system), Some(name), Some(value)) = (system, name, value) else { continue };
            let Some(text) = self.string(name) else { continue };
            let map = EvalMap { name, len: text.len() as u64, value: value.cast_signed() };
            maps.entry(system).or_default().push(map);
        }
        maps
    }
}

/// A name and what it stands for.
struct EvalMap {
    /// Address of the name.
    name: u64,
    /// Its length.
    len: u64,
    /// Its value.
    value: i64,
}

/// The fields of one event.
struct OfEvent<'e, 'm, 'a, 'd> {
    events: &'e mut Events<'m, 'a, 'd>,
    /// `class->fields_array`
    array: u64,
    /// As in [`Types`].
    field: [u64; 4],
    tested: bool,
    call: u64,
}

impl Fields for OfEvent<'_, '_, '_, '_> {
    fn find(&mut self, name: &[u8]) -> Option<(u64, bool)> {
        let [name_at, type_at, _, size] = self.field;
        let mut field = self.array;
        loop {
            self.events.work = self.events.work.saturating_sub(size.max(1));
            let type_ = self.events.u64(field, type_at).filter(|t| *t != 0 && self.events.work != 0)?;
            let its_name = self.events.u64(field, name_at).and_then(|at| self.events.string(at));
            if its_name.is_some_and(|its_name| its_name == name) {
                let array = self.events.string(type_).is_some_and(|text| text.contains(&b'['));
                return Some((field, array));
            }
            field = field.wrapping_add(size);
        }
    }

    fn needs_test(&mut self, field: u64) {
        let [_, _, needs_test, _] = self.field;
        let at = field.wrapping_add(needs_test);
        self.tested = true;
        if let Some(byte) = self.events.module.read(at, 1).and_then(|b| b.first().copied()) {
            self.events.module.write(at, &[byte | NEEDS_TEST], Step::TraceEvent, self.call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use reloc::testing::{DATA, TestKernel, TestModule, address, put, put_word, runtime};

    const LISTS: &[(&str, u64)] = &[
        ("trace_event_call.list", 16),
        ("trace_event_call.event.node", 16),
        ("trace_event_call.event.list", 16),
        ("trace_event_call.event.type", 4),
        ("trace_event_call.flags", 4),
        ("trace_event_class.fields", 16),
    ];

    fn kernel(without: &[&str]) -> TestKernel {
        let kernel = TestKernel::with_types(crate::TYPES, without, LISTS);
        TestKernel { symbols: [("trace_nop_print", 0x77)].into(), ..kernel }
    }

    /// Puts an event `"%d %s", REC->n == ONE, REC->name` into memory, and an eval map that says what ONE is.
    /// Where its class, functions, format, map and fields are is told by offsets in `.data`.
    fn event(m: &mut Finalizer<'_, '_>, kernel: &TestKernel) -> u64 {
        let at = |path: &str| kernel.offset(path);
        let data = address(m, ".data");
        let (class, funcs, format, system) = (data + 256, data + 512, data + 768, data + 1024);
        let (map, name, fields) = (data + 1280, data + 1536, data + 1792);
        let (events, maps) = (address(m, "_ftrace_events"), address(m, "_ftrace_eval_map"));
        put_word(m, events, data);
        put_word(m, maps, map);
        put_word(m, data + at("trace_event_call.class"), class);
        put_word(m, data + at("trace_event_call.event.funcs"), funcs);
        put_word(m, data + at("trace_event_call.print_fmt"), format);
        put_word(m, class + at("trace_event_class.system"), system);
        put_word(m, class + at("trace_event_class.raw_init"), 0x55);
        put_word(m, class + at("trace_event_class.fields_array"), fields);
        put_word(m, data + at("trace_event_call.class") + 8, name);
        let list = class + at("trace_event_class.fields");
        put_word(m, list, list);
        put_word(m, list + 8, list);
        put_word(m, funcs + at("trace_event_functions.raw"), 0x66);
        put(m, format, b"\"%d %s\", REC->n == ONE, REC->name\0");
        put_word(m, map + at("trace_eval_map.system"), system);
        put_word(m, map + at("trace_eval_map.eval_string"), name);
        put_word(m, map + at("trace_eval_map.eval_value"), 1);
        put(m, name, b"ONE\0name\0char *\0");
        put_word(m, fields + at("trace_event_fields.name"), name + 4);
        put_word(m, fields + at("trace_event_fields.type"), name + 9);
        data
    }

    const SECTIONS: &[(&str, u64, usize)] =
        &[("_ftrace_events", DATA, 8), ("_ftrace_eval_map", DATA, 8), (".data", DATA, 4096)];

    #[test]
    fn fin_81_fin_82_an_event_is_registered_and_its_format_edited() {
        let kernel = kernel(&["trace_event_call.event.list"]);
        TestModule::x86("6.12.0", SECTIONS).run(&kernel, |m| {
            let call = event(m, &kernel);
            trace_module_notify(m, &reloc::x86_64::X86_64);
            let at = |path: &str| kernel.offset(path);
            let funcs = call + 512;
            for (function, want) in [("trace", 0x77), ("raw", 0x66), ("hex", 0x77), ("binary", 0x77)] {
                let offset = at(&alloc::format!("trace_event_functions.{function}"));
                assert_eq!(m.u64(funcs + offset), Some(want), "FIN-81: {function}");
            }
            let want = b"\"%d %s\", REC->n == 1, REC->name\0e\0";
            assert_eq!(m.read(call + 768, want.len() as u64), Some(&want[..]), "FIN-82");
            let lists = [
                (call + at("trace_event_call.event.type"), 4),
                (call + at("trace_event_call.event.node"), 16),
                (call + at("trace_event_call.list"), 16),
                (call + 256 + at("trace_event_class.fields"), 16),
            ];
            assert_eq!(runtime(m), lists, "FIN-81");
            let flags = m.u32(call + at("trace_event_call.flags"));
            let field = m.read(call + 1792 + at("trace_event_fields.needs_test"), 1);
            assert_eq!((flags, field), (Some(TEST_STR), Some(&[NEEDS_TEST][..])), "FIN-81: needs_test");
        });
    }

    #[test]
    fn fin_81_before_needs_test_no_flag_is_set() {
        let kernel = kernel(&["trace_event_fields.needs_test"]);
        TestModule::x86("6.1.0", SECTIONS).run(&kernel, |m| {
            let call = event(m, &kernel);
            trace_module_notify(m, &reloc::x86_64::X86_64);
            assert_eq!(m.u32(call + kernel.offset("trace_event_call.flags")), Some(0), "FIN-81");
            let list = (call + kernel.offset("trace_event_call.event.list"), 16);
            assert!(runtime(m).contains(&list), "FIN-81: up to 6.1 there is a list of events");
        });
    }

    #[test]
    fn fin_81_an_event_with_a_number_is_refused() {
        let kernel = kernel(&[]);
        TestModule::x86("6.12.0", SECTIONS).run(&kernel, |m| {
            let call = event(m, &kernel);
            put(m, call + kernel.offset("trace_event_call.event.type"), &[1, 0, 0, 0]);
            trace_module_notify(m, &reloc::x86_64::X86_64);
            assert!(m.record.patches.is_empty() && runtime(m).is_empty(), "FIN-81");
        });
    }

    /// What the kernel says of the event once `change` has been made to it.
    fn said_of(
        kernel: &TestKernel,
        release: &str,
        change: impl FnOnce(&mut Finalizer<'_, '_>, u64),
    ) -> (Vec<&'static str>, Vec<&'static str>, usize) {
        let mut module = TestModule::x86(release, SECTIONS);
        if release.contains("deb") {
            module.config.flavour = Flavour::Debian;
        }
        module.run(kernel, |m| {
            let call = event(m, kernel);
            change(m, call);
            trace_module_notify(m, &reloc::x86_64::X86_64);
            let crashes = m.said.iter().filter(|f| f.severity == Severity::Oops).map(|f| f.code);
            let open = m.said.open_rules().iter().map(|rule| rule.code);
            (crashes.collect(), open.collect(), m.said.dmesg().count())
        })
    }

    const CORRUPT: (&str, u64) = ("__list_add_valid", 0xffff_ffff_8100_0000);
    const STEXT: (&str, u64) = ("_stext", 0xffff_ffff_8100_0000);

    #[test]
    fn fin_89_a_list_of_fields_that_is_not_empty() {
        let none: Vec<&str> = vec![];
        let list = kernel(&[]).offset("trace_event_class.fields");
        let mapped = kernel(&[]).offset("trace_eval_map.system");
        // next and prev as offsets from the list, the kernel's symbols, its release, are there maps for the event's system; and
        // what comes of it: crashes and open rules.
        for (next, prev, symbols, release, maps, crash, open) in [
            (0, 0, &[STEXT, CORRUPT][..], "6.12.1+deb13-amd64", true, "", ""),
            (0, 8, &[STEXT, CORRUPT][..], "6.12.1+deb13-amd64", true, "FIN-89", ""),
            (0, 8, &[STEXT, CORRUPT][..], "6.12.0", true, "", "FIN-89"),
            (0, 8, &[STEXT][..], "6.12.0", true, "", ""),
            (0, 8, &[][..], "6.12.0", true, "", "FIN-89"),
            (8, 0, &[STEXT][..], "6.12.0", true, "", "FIN-89"),
            (8, 0, &[STEXT][..], "5.15.0", true, "", ""),
            (8, 0, &[STEXT][..], "6.12.0", false, "", ""),
            (u64::MAX, 0, &[STEXT][..], "6.12.0", true, "FIN-82", ""),
            (u64::MAX, 0, &[STEXT][..], "6.12.0", false, "", ""),
        ] {
            let mut kernel = kernel(&[]);
            kernel.symbols.extend(symbols.iter().copied());
            let found = said_of(&kernel, release, |m, call| {
                let head = call + 256 + list;
                put_word(m, head, if next == u64::MAX { 0 } else { head + next });
                put_word(m, head + 8, head + prev);
                if !maps {
                    put_word(m, call + 1280 + mapped, call + 1025);
                }
            });
            let want = |code: &'static str| if code.is_empty() { none.clone() } else { vec![code] };
            let lines = usize::from(crash == "FIN-89");
            let what = format!("FIN-89, FIN-82: next {next:#x}, prev {prev}, {symbols:?}, {release}, {maps}");
            assert_eq!(found, (want(crash), want(open), lines), "{what}");
        }
    }

    #[test]
    fn fin_81_and_82_what_an_event_lacks() {
        let kernel = |symbols: &[(&'static str, u64)]| {
            let mut kernel = kernel(&[]);
            kernel.symbols.extend(symbols.iter().copied());
            kernel
        };
        let raw_init = [STEXT, ("_etext", 0xffff_ffff_8200_0000), ("trace_event_raw_init", 0x55)];
        let at = |path: &str| kernel(&[]).offset(path);
        let call = |path: &str| at(&format!("trace_event_call.{path}"));
        let class = |path: &str| 256 + at(&format!("trace_event_class.{path}"));
        let word = |offset: u64, value: u64| {
            move |m: &mut Finalizer<'_, '_>, call: u64| put_word(m, call + offset, value)
        };
        let run = |symbols: &[(&'static str, u64)], change: &dyn Fn(&mut Finalizer<'_, '_>, u64)| {
            said_of(&kernel(symbols), "6.12.0", change)
        };
        let none: Vec<&str> = vec![];
        let fine = (none.clone(), none.clone(), 0);
        assert_eq!(run(&[], &|_, _| {}), fine, "FIN-81");
        assert_eq!(run(&raw_init, &|_, _| {}), fine, "FIN-81");
        let refused = (none.clone(), none.clone(), 1);
        for and in ["print_fmt", "class"] {
            let crashes = and == "class";
            let found = run(&[], &|m, c| {
                put_word(m, c + call("event.funcs"), 0);
                put_word(m, c + call(and), 0);
            });
            assert_eq!(found.0.is_empty(), !crashes, "FIN-81: no functions, nor {and}");
        }
        for missing in [class("system"), class("fields_array")] {
            let found = run(&[], &|m, c| {
                put_word(m, c + call("event.funcs"), 0);
                put_word(m, c + missing, 0);
            });
            assert_eq!(found, refused, "FIN-81: no functions, and something that is not looked at");
        }
        let nameless = run(&[], &|m, c| {
            put_word(m, c + call("class") + 8, 0);
            put_word(m, c + call("class"), 0);
        });
        assert_eq!(nameless, fine, "FIN-81: without a name nothing is looked at");
        for (what, change, code) in [
            ("no system", word(class("system"), 0), "FIN-78"),
            ("no fields", word(class("fields_array"), 0), "FIN-78"),
            ("a field whose type is nowhere", word(1792 + at("trace_event_fields.type"), 0x1000), "FIN-78"),
            ("a format nowhere", word(call("print_fmt"), 0x1000), "FIN-78"),
            ("no format, and maps", word(call("print_fmt"), 0), "FIN-82"),
            ("no name in a map", word(1280 + at("trace_eval_map.eval_string"), 0), "FIN-78"),
        ] {
            assert_eq!(run(&[], &change), (vec![code], none.clone(), 0), "FIN-81: {what}");
        }
        let no_maps = |m: &mut Finalizer<'_, '_>, c: u64| {
            put_word(m, c + call("print_fmt"), 0);
            put_word(m, c + 1280 + at("trace_eval_map.system"), c + 1025);
        };
        assert_eq!(run(&[], &no_maps), fine, "FIN-82: no format, and maps of another system");
        for (function, crash, open) in
            [(0x1000, vec!["FIN-81"], none.clone()), (0xffff_ffff_8100_0100, none.clone(), vec!["FIN-81"])]
        {
            let found = run(&raw_init, &word(class("raw_init"), function));
            assert_eq!(found, (crash, open, 0), "FIN-81: raw_init at {function:#x}");
        }
    }

    #[test]
    fn fin_82_maps_of_another_system_change_nothing() {
        let kernel = kernel(&[]);
        TestModule::x86("6.12.0", SECTIONS).run(&kernel, |m| {
            let call = event(m, &kernel);
            put_word(m, call + 1280 + kernel.offset("trace_eval_map.system"), call + 1025);
            trace_module_notify(m, &reloc::x86_64::X86_64);
            let want = b"\"%d %s\", REC->n == ONE";
            assert_eq!(m.read(call + 768, want.len() as u64), Some(&want[..]), "FIN-82");
        });
    }

    #[test]
    fn fin_80_bad_taints() {
        let of = |release| Changes::of(elf_layout::KernelVersion::parse(release).unwrap());
        let (old, new) = (of("6.1.0"), of("6.12.0"));
        // P, F, C, O, E, K, N
        for (bit, bad) in
            [(0, true), (1, true), (10, false), (12, false), (13, false), (15, true), (18, false)]
        {
            assert_eq!(trace_module_has_bad_taint(1 << bit, old), bad, "FIN-80: taint {bit}");
            assert_eq!(trace_module_has_bad_taint(1 << bit, new), bad && bit != 15, "FIN-80: taint {bit}");
        }
        let kernel = kernel(&[]);
        TestModule::x86("6.12.0", SECTIONS).run(&kernel, |m| {
            event(m, &kernel);
            m.load.taints = 1;
            trace_module_notify(m, &reloc::x86_64::X86_64);
            assert!(m.record.patches.is_empty() && runtime(m).is_empty(), "FIN-80");
            assert!(m.said.iter().any(|f| f.code == "FIN-80"), "FIN-80");
        });
    }
}
