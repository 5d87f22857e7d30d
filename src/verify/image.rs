//! The kernel in a dump: where it lies, and its memory by virtual address.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kernel::{KernelDescription, KernelSymbols, LinkMemory, LiveMemory, Types};
use kernel_image::{Btf, PageTables};
use memory_image::{AddressSpace, Dump, Mapping};
use reloc::Architecture;

use crate::dump_file::DumpSource;
use crate::error::Error;
use crate::kernel_source::KernelSource;

/// What is read of the kernel's memory, with its types by BTF.
#[derive(Debug)]
pub struct MemoryImage {
    space: AddressSpace<DumpSource>,
    /// How far the kernel runs from its link addresses.
    pub slide: u64,
    /// How it was found, in words.
    pub how: String,
    /// The kernel's banner as it stands in memory.
    pub banner: String,
}

impl LiveMemory for MemoryImage {
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        self.space.read(address, out)
    }
}

/// The longest banner that is read.
const BANNER_MAX: usize = 512;
/// So many candidates for the place of a kernel are looked at closely.
const CANDIDATES: usize = 64;

/// The banner of a kernel: its text and its link address.
struct Banner {
    text: Vec<u8>,
    address: u64,
}

impl Banner {
    fn of(kernel: &KernelDescription) -> Option<Banner> {
        let text = kernel.banner.as_ref()?.trim_end().as_bytes().to_vec();
        if text.len() < 16 {
            return None;
        }
        let by_name = kernel.symbols.address("linux_banner");
        let in_image = || match &*kernel.memory {
            LinkMemory::Image(image) => {
                let at = memmem(image.bytes(), &text)?;
                image.base()?.checked_add(at as u64)
            }
            _ => None,
        };
        Some(Banner { address: by_name.or_else(in_image)?, text })
    }

    fn matches(&self, found: &[u8]) -> bool {
        found.get(..self.text.len()) == Some(&self.text)
    }
}

fn memmem(hay: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(hay, needle)
}

impl MemoryImage {
    /// Finds a kernel of this description in a dump; `Err` says what was tried.
    pub fn find(
        dump: Dump<DumpSource>,
        kernel: &KernelDescription,
        arch: &dyn Architecture,
    ) -> Result<Self, String> {
        let dump = Arc::new(dump);
        if let Some(other) = dump.e_machine().filter(|machine| *machine != arch.e_machine()) {
            return Err(format!(
                "it is of another architecture (e_machine {other}) than the kernel ({})",
                arch.name()
            ));
        }
        let told = dump.vmcoreinfo().and_then(|info| info.release());
        if let Some(other) = told.filter(|release| !kernel.release.is_empty() && *release != kernel.release) {
            return Err(format!("it is of kernel {other}, not of {}", kernel.release));
        }
        let Some(banner) = Banner::of(kernel) else {
            return Err("the kernel that was given shows no banner (linux_banner) to find it by".into());
        };
        let Some(text) = kernel.symbols.address("_text") else {
            return Err("the kernel that was given shows no address of _text".into());
        };
        let found = Finder { dump: &dump, kernel, arch, banner, text };
        found.by_tables().or_else(|| found.by_segments()).ok_or_else(|| found.what_is_there())
    }

    /// Memory that a dump holds by its virtual addresses, of a kernel that runs so far from its link addresses.
    pub fn of_segments(dump: Arc<Dump<DumpSource>>, slide: u64, banner: &str) -> Self {
        let how = format!("{}, by its virtual addresses", dump.format().name());
        MemoryImage { space: AddressSpace::of_segments(dump), slide, how, banner: banner.into() }
    }

    /// The dump.
    pub fn dump(&self) -> &Dump<DumpSource> {
        self.space.dump()
    }

    /// What is mapped from one address up to another.
    pub fn mappings(&self, from: u64, to: u64) -> Vec<Mapping> {
        self.space.mappings(from, to)
    }

    /// Are permissions of mappings known?
    pub fn knows_permissions(&self) -> bool {
        self.space.tables().is_some()
    }

    /// Is an address mapped as code? `None` if permissions are not known.
    pub fn is_executable(&self, address: u64) -> Option<bool> {
        self.space.tables()?;
        Some(self.space.mapping(address).is_some_and(|mapping| mapping.execute))
    }

    /// So many bytes at an address.
    pub fn bytes(&self, address: u64, len: u64) -> Option<Vec<u8>> {
        /// No piece that is read at once is larger.
        const LARGEST: u64 = 256 << 20;
        let len = usize::try_from(len).ok().filter(|len| *len as u64 <= LARGEST)?;
        let mut out = vec![0; len];
        self.space.read(address, &mut out).then_some(out)
    }

    /// The unsigned number at an address, of up to 8 bytes.
    pub fn number(&self, address: u64, size: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let out = bytes.get_mut(..usize::try_from(size).ok()?)?;
        self.space.read(address, out).then(|| u64::from_le_bytes(bytes))
    }

    /// The pointer at an address.
    pub fn pointer(&self, address: u64) -> Option<u64> {
        self.space.u64(address)
    }

    /// Text up to its NUL.
    pub fn text(&self, address: u64, max: u64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        // Page by page: what follows the text may not be there.
        let mut at = address;
        while (out.len() as u64) < max {
            let left = 0x1000_u64.wrapping_sub(at & 0xfff).min(max.saturating_sub(out.len() as u64));
            let piece = self.bytes(at, left)?;
            if let Some(end) = piece.iter().position(|b| *b == 0) {
                out.extend_from_slice(piece.get(..end)?);
                return Some(out);
            }
            out.extend_from_slice(&piece);
            at = at.checked_add(left)?;
        }
        None
    }

    /// The kernel's BTF, as it lies in memory.
    pub fn btf(&self, kernel: &KernelDescription) -> Option<Vec<u8>> {
        let bounds = kernel.symbols.address("__start_BTF").zip(kernel.symbols.address("__stop_BTF"));
        let (start, stop) = bounds?;
        self.bytes(start, stop.checked_sub(start)?)
    }
}

/// Looks for a kernel in a dump.
struct Finder<'f> {
    dump: &'f Arc<Dump<DumpSource>>,
    kernel: &'f KernelDescription,
    arch: &'f dyn Architecture,
    banner: Banner,
    text: u64,
}

impl Finder<'_> {
    /// Is the banner where it has to be if the kernel runs so far from its link addresses?
    fn fits(&self, space: &AddressSpace<DumpSource>, slide: u64) -> Option<String> {
        let mut found = vec![0; self.banner.text.len()];
        let read = space.read(self.banner.address.wrapping_add(slide), &mut found);
        (read && self.banner.matches(&found)).then(|| String::from_utf8_lossy(&found).into_owned())
    }

    /// By physical memory: the kernel lies at a multiple of its alignment, its topmost page table in it. These tables must lead
    /// to the same memory.
    fn by_tables(&self) -> Option<MemoryImage> {
        if !self.dump.has_physical() {
            return None;
        }
        let step = usize::try_from(self.arch.physical_align()).ok()?;
        let places = (0..self.dump.physical_end()).step_by(step);
        let in_kernel = self.banner.address.checked_sub(self.text)?;
        let mut found = vec![0; self.banner.text.len()];
        let mut looked_at = 0usize;
        for physical in places {
            let at = physical.saturating_add(in_kernel);
            if !self.dump.physical(at, &mut found) || !self.banner.matches(&found) {
                continue;
            }
            looked_at = looked_at.saturating_add(1);
            if looked_at > CANDIDATES {
                return None;
            }
            if let Some(image) = self.arch.page_tables().iter().find_map(|form| self.with(form, physical)) {
                return Some(image);
            }
        }
        None
    }

    /// A kernel whose first byte lies at a physical address, by page tables of this form.
    fn with(&self, form: &'static PageTables, physical: u64) -> Option<MemoryImage> {
        let root = self.kernel.symbols.address(form.root)?.checked_sub(self.text)?.checked_add(physical)?;
        let space = AddressSpace::of_tables(Arc::clone(self.dump), form, root);
        let slide =
            self.slides(&space, physical).into_iter().find(|slide| self.fits(&space, *slide).is_some())?;
        let banner = self.fits(&space, slide)?;
        // The first page of the kernel need not be mapped, and the tables have to be those that they lead to.
        let (code, root_at) = (self.code(), self.kernel.symbols.address(form.root)?);
        let leads = |at: u64, to: u64| space.physical(at.wrapping_add(slide)) == Some(to);
        if !leads(code, physical.wrapping_add(code.wrapping_sub(self.text))) || !leads(root_at, root) {
            return None;
        }
        let how = format!("{}, by {} at physical {root:#x}", self.dump.format().name(), form.title);
        Some(MemoryImage { space, slide, how, banner })
    }

    /// How far a kernel may run from its link addresses: from where its code is mapped as such, above its link address.
    fn slides(&self, space: &AddressSpace<DumpSource>, physical: u64) -> Vec<u64> {
        if let Some(told) = self.dump.vmcoreinfo().and_then(|info| info.kernel_offset()) {
            return vec![told];
        }
        let code = self.code();
        let physical = physical.wrapping_add(code.wrapping_sub(self.text));
        let holds = |mapping: &Mapping| {
            mapping.execute
                && physical >= mapping.physical
                && physical < mapping.physical.saturating_add(mapping.size)
        };
        let all = space.mappings(self.text, u64::MAX);
        let at = |m: &Mapping| m.start.wrapping_add(physical.wrapping_sub(m.physical));
        all.iter().filter(|m| holds(m)).map(|m| at(m).wrapping_sub(code)).collect()
    }

    /// Where the kernel's code begins: behind the header of an image that has one, which is not mapped as code.
    fn code(&self) -> u64 {
        self.kernel.symbols.address("_stext").filter(|code| *code > self.text).unwrap_or(self.text)
    }

    /// By segments with virtual addresses.
    fn by_segments(&self) -> Option<MemoryImage> {
        let space = AddressSpace::of_segments(Arc::clone(self.dump));
        let told = self.dump.vmcoreinfo().and_then(|info| info.kernel_offset());
        let step = usize::try_from(self.arch.physical_align()).ok()?;
        let in_segments = self.dump.segments().iter().flat_map(|segment| {
            let first = segment.start.saturating_sub(self.banner.address);
            let last = segment.start.saturating_add(segment.size).saturating_sub(self.banner.address);
            // The kernel moves up by at most 1 GiB in its own area; where it may lie farther, VMCOREINFO tells.
            let align = step as u64;
            let first = first.checked_next_multiple_of(align).unwrap_or(u64::MAX);
            (first..last.min(1 << 30)).step_by(step)
        });
        let slide = told.into_iter().chain(in_segments).find(|slide| self.fits(&space, *slide).is_some())?;
        let banner = self.fits(&space, slide)?;
        Some(MemoryImage::of_segments(Arc::clone(self.dump), slide, &banner))
    }

    /// Why nothing was found: another kernel, or none.
    fn what_is_there(&self) -> String {
        let wanted = String::from_utf8_lossy(&self.banner.text).into_owned();
        let other = self.other_banner();
        match other {
            Some(other) if other != wanted => {
                format!("another kernel is in it ({other}) than the one that was given ({wanted})")
            }
            Some(_) => {
                "the kernel is in it, but no page tables that lead to it: they are damaged or missing".into()
            }
            None => format!("no kernel is found in it: no text {wanted:?} where it would have to be"),
        }
    }

    /// The first banner in physical memory.
    fn other_banner(&self) -> Option<String> {
        const WINDOW: usize = 4 << 20;
        const BEGINS: &[u8] = b"Linux version ";
        // The first gigabytes tell; more would take minutes.
        let end = self.dump.physical_end().min(4 << 30);
        let mut window = vec![0; WINDOW];
        let mut at = 0u64;
        while at < end {
            if self.dump.physical(at, &mut window) {
                for found in memchr::memmem::find_iter(&window, BEGINS) {
                    let text = window.get(found..).unwrap_or_default();
                    let text = text.get(..BANNER_MAX.min(text.len())).unwrap_or_default();
                    let text = text.split(|b| *b == b'\n' || *b == 0).next().unwrap_or_default();
                    if text.contains(&b'#') && text.contains(&b'(') && text.is_ascii() {
                        return Some(String::from_utf8_lossy(text).into_owned());
                    }
                }
            }
            at = at.saturating_add(WINDOW as u64);
        }
        None
    }
}

/// Opens a dump and finds a kernel in it, and describes that kernel as it runs there.
pub fn open(path: &Path, source: &KernelSource) -> Result<(KernelDescription, MemoryImage), Error> {
    let builder = source.read()?;
    let at_link = source.build(builder.clone(), || None)?;
    let machine = at_link.machine;
    let arch = machine
        .and_then(|machine| reloc::architecture(machine.e_machine))
        .ok_or_else(|| Error::unusable(path, "the architecture of the kernel that was given is not known"))?;
    let file = DumpSource::open(path).map_err(|e| Error::read(path, e))?;
    let dump = Dump::open(file).map_err(|e| Error::unusable(path, e.to_string()))?;
    let image = MemoryImage::find(dump, &at_link, arch).map_err(|what| Error::unusable(path, what))?;
    let moved = |address: u64| if address >> 63 == 1 { address.wrapping_add(image.slide) } else { address };
    let own = at_link.symbols.iter().filter(|s| s.module.is_none());
    let symbols = KernelSymbols::of_kernel(own.map(|s| (moved(s.address), s.kind, s.name)));
    let symbols = symbols.map_err(|source| Error::Kernel { path: path.to_owned(), source })?;
    let mut builder = builder.live_symbols(&path.display().to_string(), symbols);
    let cmdline = at_link
        .symbols
        .address("saved_command_line")
        .and_then(|at| image.text(image.pointer(moved(at))?, 4096));
    if let Some(cmdline) = cmdline {
        builder = builder.cmdline("memory image", &String::from_utf8_lossy(&cmdline));
    }
    let kernel = source.build(builder, || None)?;
    Ok((kernel, image))
}

/// Structs of a running kernel: where their members lie, and their memory.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Structs<'s> {
    /// The memory.
    pub image: &'s MemoryImage,
    /// The members.
    pub types: &'s Types,
}

/// What is looked up in the kernel's BTF.
pub const TYPES: &kernel::types::StructPaths = &[
    ("list_head", &["next", "prev"]),
    ("hlist_node", &["next"]),
    (
        "module",
        &[
            "state",
            "list",
            "name",
            "mkobj",
            "mkobj.kobj",
            "mkobj.mod",
            "mem",
            "core_layout",
            "init_layout",
            "init",
            "exit",
            "percpu",
            "percpu_size",
            "build_id",
            "srcversion",
            "kallsyms",
            "core_kallsyms",
            "core_kallsyms.symtab",
            "core_kallsyms.num_symtab",
            "core_kallsyms.strtab",
            "its_num_pages",
            "its_page_array",
            "arch.its_num_pages",
            "arch.its_page_array",
        ],
    ),
    ("module_memory", &["base", "size", "mtn.node", "mtn.mod"]),
    ("module_layout", &["base", "size", "mtn.node", "mtn.mod"]),
    ("mod_tree_root", &["root.tree"]),
    ("rb_node", &["rb_left", "rb_right"]),
    ("module_kobject", &["kobj", "mod"]),
    ("kobject", &["entry", "name"]),
    ("kset", &["list"]),
    ("ftrace_page", &["next", "records", "index"]),
    ("dyn_ftrace", &["ip", "flags"]),
    ("ftrace_ops", &["func", "next", "flags", "trampoline", "trampoline_size", "direct_call"]),
    ("ftrace_hash", &["size_bits", "buckets", "count"]),
    ("ftrace_func_entry", &["hlist", "ip", "direct"]),
    ("kprobe", &["hlist", "list", "addr", "opcode", "flags", "ainsn", "pre_handler"]),
    ("optimized_kprobe", &["kp", "optinsn.insn", "optinsn.copied_insn"]),
    ("kprobe_insn_cache", &["pages"]),
    ("kprobe_insn_page", &["list", "insns"]),
    ("bpf_ksym", &["start", "end", "lnode"]),
    ("bpf_prog_pack", &["list", "ptr"]),
    ("vm_struct", &["next", "addr", "size", "flags"]),
];

/// The members of [`TYPES`] by a BTF; with those of the stages after relocation.
pub fn types_of(btf: &[u8]) -> Option<Types> {
    let btf = Btf::parse(btf).ok()?;
    Some(Types::of(&btf, TYPES))
}

impl Structs<'_> {
    /// Address of a member.
    pub fn at(&self, address: u64, of: &str, path: &str) -> Option<u64> {
        Some(address.wrapping_add(self.types.member(of, path)?.offset))
    }

    /// A member that is a number or a pointer.
    pub fn get(&self, address: u64, of: &str, path: &str) -> Option<u64> {
        let member = self.types.member(of, path)?;
        self.image.number(address.wrapping_add(member.offset), member.size)
    }

    /// The structs on a list with a head, by the member that links them. Stops at what is damaged or goes in circles; false then.
    pub fn list(&self, head: u64, of: &str, link: &str) -> (Vec<u64>, bool) {
        /// No list of these is longer.
        const LONGEST: usize = 1 << 18;
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        let (Some(offset), Some(next)) =
            (self.types.member(of, link), self.types.member("list_head", "next"))
        else {
            return (found, false);
        };
        let mut at = head;
        while found.len() < LONGEST {
            match self.image.pointer(at.wrapping_add(next.offset)) {
                Some(next) if next == head => return (found, true),
                Some(next) if next != 0 && seen.insert(next, ()).is_none() => at = next,
                _ => return (found, false),
            }
            found.push(at.wrapping_sub(offset.offset));
        }
        (found, false)
    }

    /// The structs that follow each other by a pointer, from the first on, up to NULL or `end`.
    pub fn chain(&self, first: u64, of: &str, next: &str, end: u64) -> Vec<u64> {
        const LONGEST: usize = 1 << 20;
        let mut found = Vec::new();
        let mut seen = BTreeMap::new();
        let mut at = first;
        while at != 0 && at != end && found.len() < LONGEST && seen.insert(at, ()).is_none() {
            found.push(at);
            let Some(next) = self.get(at, of, next) else { break };
            at = next;
        }
        found
    }
}
