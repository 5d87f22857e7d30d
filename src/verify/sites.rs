//! What in a running kernel changes code in legal ways: the function tracer, kprobes, and the code that both and BPF make.

use std::collections::{BTreeMap, BTreeSet};

use kernel::KernelDescription;

use super::image::Structs;

/// FTRACE_FL_ENABLED
const ENABLED: u64 = 1 << 31;
/// KPROBE_FLAG_GONE, _DISABLED, _OPTIMIZED, _FTRACE
const GONE: u64 = 1;
const OPTIMIZED: u64 = 4;
const ON_FTRACE: u64 = 8;

/// A kprobe.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Kprobe {
    /// What stood at its place before.
    pub opcode: Vec<u8>,
    /// Where the jump leads that stands there if it is optimised.
    pub jumps_to: Option<u64>,
}

/// An operation of the function tracer (`struct ftrace_ops`).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TracerOps {
    /// The struct.
    pub address: u64,
    /// Its function.
    pub func: u64,
    /// Its trampoline, 0 if it has none.
    pub trampoline: u64,
    /// Bytes of that.
    pub trampoline_size: u64,
}

/// What in the kernel explains changes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Changers {
    /// Flags of the tracer's records (`struct dyn_ftrace`) by address of the site.
    pub ftrace: BTreeMap<u64, u64>,
    /// The tracer's operations.
    pub ops: Vec<TracerOps>,
    /// Where direct calls lead: trampolines of BPF.
    pub direct: BTreeSet<u64>,
    /// The tracer's own entries into the kernel.
    pub callers: Vec<u64>,
    /// kprobes by address.
    pub kprobes: BTreeMap<u64, Kprobe>,
    /// Code that is no module's: start, end, and whose it is.
    pub code: Vec<(u64, u64, &'static str)>,
    /// What could not be read.
    pub unread: Vec<&'static str>,
}

impl Changers {
    /// Reads them all.
    pub fn read(structs: &Structs<'_>, kernel: &KernelDescription) -> Self {
        let mut out = Changers::default();
        if kernel.config.dynamic_ftrace {
            if out.tracer(structs, kernel).is_none() {
                out.unread.push("the records of the function tracer");
            }
            out.operations(structs, kernel);
            let names = ["ftrace_caller", "ftrace_regs_caller"];
            out.callers = names.iter().filter_map(|name| kernel.symbols.address(name)).collect();
        }
        if out.probes(structs, kernel).is_none() {
            out.unread.push("the table of kprobes");
        }
        for cache in ["kprobe_insn_slots", "kprobe_optinsn_slots"] {
            out.slots(structs, kernel, cache);
        }
        out.bpf(structs, kernel);
        out
    }

    /// `ftrace_pages_start`
    fn tracer(&mut self, structs: &Structs<'_>, kernel: &KernelDescription) -> Option<()> {
        let first = structs.image.pointer(kernel.symbols.address("ftrace_pages_start")?)?;
        let size = structs.types.struct_size("dyn_ftrace")?;
        let (ip, flags) =
            (structs.types.member("dyn_ftrace", "ip")?, structs.types.member("dyn_ftrace", "flags")?);
        for page in structs.chain(first, "ftrace_page", "next", 0) {
            let records = structs.get(page, "ftrace_page", "records")?;
            let count = structs.get(page, "ftrace_page", "index")?.min(1 << 20);
            let bytes = structs.image.bytes(records, count.checked_mul(size)?)?;
            for n in 0..count {
                let at = n.wrapping_mul(size);
                let get =
                    |member: kernel::Member| elf_layout::bytes::le64(&bytes, at.checked_add(member.offset)?);
                let (Some(ip), Some(flags)) = (get(ip), get(flags)) else { continue };
                self.ftrace.insert(ip, flags);
            }
        }
        Some(())
    }

    /// `ftrace_ops_list`, and `direct_functions`.
    fn operations(&mut self, structs: &Structs<'_>, kernel: &KernelDescription) {
        let list = kernel.symbols.address("ftrace_ops_list").and_then(|at| structs.image.pointer(at));
        let Some(first) = list else {
            self.unread.push("the operations of the function tracer");
            return;
        };
        let end = kernel.symbols.address("ftrace_list_end").unwrap_or(0);
        for address in structs.chain(first, "ftrace_ops", "next", end) {
            let get = |path| structs.get(address, "ftrace_ops", path).unwrap_or(0);
            let ops = TracerOps {
                address,
                func: get("func"),
                trampoline: get("trampoline"),
                trampoline_size: get("trampoline_size"),
            };
            self.direct.extend(Some(get("direct_call")).filter(|at| *at != 0));
            if ops.trampoline != 0 {
                let end = ops.trampoline.saturating_add(ops.trampoline_size.max(1));
                self.code.push((ops.trampoline, end, "a trampoline of the function tracer"));
            }
            self.ops.push(ops);
        }
        let direct = kernel.symbols.address("direct_functions").and_then(|at| structs.image.pointer(at));
        if let Some(hash) = direct.filter(|hash| *hash != 0) {
            self.direct_functions(structs, hash);
        }
    }

    fn direct_functions(&mut self, structs: &Structs<'_>, hash: u64) -> Option<()> {
        let bits = structs.get(hash, "ftrace_hash", "size_bits")?.min(20);
        let buckets = structs.get(hash, "ftrace_hash", "buckets")?;
        for n in 0..1u64.checked_shl(u32::try_from(bits).ok()?)? {
            let first = structs.image.pointer(buckets.wrapping_add(n.wrapping_mul(8)))?;
            let link = structs.types.member("ftrace_func_entry", "hlist")?.offset;
            for node in structs.chain(first, "hlist_node", "next", 0) {
                let entry = node.wrapping_sub(link);
                self.direct.extend(structs.get(entry, "ftrace_func_entry", "direct"));
            }
        }
        Some(())
    }

    /// `kprobe_table`
    fn probes(&mut self, structs: &Structs<'_>, kernel: &KernelDescription) -> Option<()> {
        /// KPROBE_TABLE_SIZE
        const BUCKETS: u64 = 64;
        let Some(table) = kernel.symbols.address("kprobe_table") else {
            // Without CONFIG_KPROBES there is none.
            return kernel.symbols.address("register_kprobe").is_none().then_some(());
        };
        let link = structs.types.member("kprobe", "hlist")?.offset;
        let opcode = structs.types.member("kprobe", "opcode")?;
        for n in 0..BUCKETS {
            let first = structs.image.pointer(table.wrapping_add(n.wrapping_mul(8)))?;
            for node in structs.chain(first, "hlist_node", "next", 0) {
                let probe = node.wrapping_sub(link);
                let (Some(address), Some(flags)) =
                    (structs.get(probe, "kprobe", "addr"), structs.get(probe, "kprobe", "flags"))
                else {
                    continue;
                };
                if flags & (GONE | ON_FTRACE) != 0 {
                    continue;
                }
                let optimized = structs.types.member("optimized_kprobe", "optinsn.insn");
                let jumps_to = optimized
                    .filter(|_| flags & OPTIMIZED != 0)
                    .and_then(|member| structs.image.pointer(probe.wrapping_add(member.offset)));
                let opcode = structs.image.bytes(probe.wrapping_add(opcode.offset), opcode.size);
                self.kprobes.insert(address, Kprobe { opcode: opcode.unwrap_or_default(), jumps_to });
            }
        }
        Some(())
    }

    /// Pages that kprobes single-step out of line in.
    fn slots(&mut self, structs: &Structs<'_>, kernel: &KernelDescription, cache: &str) -> Option<()> {
        let cache = kernel.symbols.address(cache)?;
        let head = structs.at(cache, "kprobe_insn_cache", "pages")?;
        for page in structs.list(head, "kprobe_insn_page", "list").0 {
            let start = structs.get(page, "kprobe_insn_page", "insns")?;
            self.code.push((start, start.saturating_add(kernel.config.page_size), "slots of kprobes"));
        }
        Some(())
    }

    /// `bpf_kallsyms`: programs, trampolines, dispatchers; `pack_list`: the blocks that they lie in.
    fn bpf(&mut self, structs: &Structs<'_>, kernel: &KernelDescription) -> Option<()> {
        if let Some(head) = kernel.symbols.address("bpf_kallsyms") {
            for symbol in structs.list(head, "bpf_ksym", "lnode").0 {
                let get = |path| structs.get(symbol, "bpf_ksym", path);
                if let Some((start, end)) = get("start").zip(get("end")) {
                    self.code.push((start, end, "a program of BPF"));
                }
            }
        }
        // BPF_PROG_PACK_SIZE for one node; a block has its own pages.
        const PACK: u64 = 2 << 20;
        let head = kernel.symbols.address("pack_list")?;
        for pack in structs.list(head, "bpf_prog_pack", "list").0 {
            let start = structs.get(pack, "bpf_prog_pack", "ptr")?;
            self.code.push((start, start.saturating_add(PACK), "a block of BPF programs"));
        }
        Some(())
    }

    /// Whose code that is no module's is at an address?
    pub fn owner(&self, address: u64) -> Option<&'static str> {
        let inside = |(start, end, _): &&(u64, u64, &str)| (*start..*end).contains(&address);
        self.code.iter().find(inside).map(|(.., whose)| *whose)
    }

    /// May the tracer call that, from a site that has this address?
    pub fn explains_call(&self, site: u64, target: u64) -> bool {
        let enabled = self.ftrace.get(&site).is_some_and(|flags| flags & ENABLED != 0);
        enabled
            && (self.callers.contains(&target)
                || self.direct.contains(&target)
                || self.ops.iter().any(|ops| ops.trampoline == target && target != 0))
    }

    /// Does the tracer's record of a site say that it is on?
    pub fn is_traced(&self, site: u64) -> bool {
        self.ftrace.get(&site).is_some_and(|flags| flags & ENABLED != 0)
    }
}
