//! The modules that memory tells of, by everything that knows modules.

use std::collections::BTreeMap;

use elf_layout::{Change, Generation, KernelConfig, Region};
use kernel::KernelDescription;
use memory_image::Mapping;

use super::image::{MemoryImage, Structs};

/// What knows a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// The list `modules`.
    List,
    /// The tree that finds the module of an address (`mod_tree`).
    Tree,
    /// The folder /sys/module (`module_kset`).
    Sysfs,
    /// Memory of the module area that is shaped like a `struct module`.
    Shape,
}

impl Witness {
    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Witness::List => "the list of modules",
            Witness::Tree => "mod_tree",
            Witness::Sysfs => "/sys/module (module_kset)",
            Witness::Shape => "a struct module in the module area",
        }
    }
}

/// A module as its `struct module` in memory shows it.
#[derive(Clone, Debug)]
pub struct InMemory {
    /// Its name.
    pub name: Vec<u8>,
    /// Address of `struct module`.
    pub address: u64,
    /// `enum module_state`
    pub state: u64,
    /// Its regions: address and bytes that are allocated.
    pub regions: Vec<(Region, u64, u64)>,
    /// `mod->init`, 0 if it has none.
    pub init: u64,
    /// `mod->percpu`
    pub percpu: Option<u64>,
    /// `mod->build_id`
    pub build_id: Option<Vec<u8>>,
    /// `mod->srcversion`
    pub srcversion: Option<Vec<u8>>,
    /// Addresses that its own pages for other code have (ITS thunks), each a page.
    pub pages: Vec<u64>,
}

/// MODULE_STATE_LIVE
pub const LIVE: u64 = 0;
/// MODULE_STATE_UNFORMED
pub const UNFORMED: u64 = 3;
/// MODULE_NAME_LEN
const NAME_LEN: u64 = 56;
/// No region of a module is larger.
const REGION_MAX: u64 = 256 << 20;

impl InMemory {
    /// Reads a `struct module`; `None` if it cannot be read.
    pub fn read(structs: &Structs<'_>, config: &KernelConfig, address: u64) -> Option<Self> {
        let name_at = structs.at(address, "module", "name")?;
        let name = structs.image.bytes(name_at, NAME_LEN)?;
        let end = name.iter().position(|b| *b == 0)?;
        let get = |path| structs.get(address, "module", path);
        let percpu = match get("percpu_size") {
            Some(0) | None => None,
            Some(_) => get("percpu"),
        };
        let member = structs.types.member("module", "build_id");
        let build_id = member.and_then(|m| structs.image.bytes(address.wrapping_add(m.offset), m.size));
        let srcversion = get("srcversion").filter(|at| *at != 0).and_then(|at| structs.image.text(at, 64));
        let its = ["arch.", ""].iter().find_map(|prefix| {
            let count = structs.get(address, "module", &format!("{prefix}its_num_pages"))?;
            let array = structs.get(address, "module", &format!("{prefix}its_page_array"))?;
            Some((array, count.min(1024)))
        });
        let pages = its.filter(|(array, _)| *array != 0).map_or(Vec::new(), |(array, count)| {
            (0..count).filter_map(|n| structs.image.pointer(array.wrapping_add(n.wrapping_mul(8)))).collect()
        });
        Some(InMemory {
            name: name.get(..end)?.to_vec(),
            address,
            state: get("state")?,
            regions: regions(structs, config, address),
            init: get("init").unwrap_or(0),
            percpu,
            build_id,
            srcversion,
            pages,
        })
    }

    /// The base address of a region; `None` if it has none, or not any more.
    pub fn base(&self, region: Region) -> Option<u64> {
        self.regions.iter().find(|(of, ..)| *of == region).map(|(_, base, _)| *base)
    }

    /// Does an address lie in it?
    pub fn holds(&self, address: u64) -> bool {
        self.regions.iter().any(|(_, base, size)| address.wrapping_sub(*base) < *size)
    }

    /// Does an address lie in its code?
    pub fn holds_code(&self, address: u64) -> bool {
        self.regions
            .iter()
            .any(|(region, base, size)| region.is_executable() && address.wrapping_sub(*base) < *size)
    }
}

/// The regions of a module that are there.
fn regions(structs: &Structs<'_>, config: &KernelConfig, address: u64) -> Vec<(Region, u64, u64)> {
    let mut found = Vec::new();
    // Since v6.4 (mod_mem_type); before that core_layout and init_layout.
    if config.has(Change::ModMemType) {
        let size = structs.types.struct_size("module_memory").unwrap_or(0);
        let first = structs.at(address, "module", "mem");
        for (region, n) in Generation::ModMemType.regions().iter().zip(0u64..) {
            let at = first.map(|first| first.wrapping_add(n.wrapping_mul(size)));
            let get = |path| at.and_then(|at| structs.get(at, "module_memory", path));
            found.push((*region, get("base"), get("size")));
        }
    } else {
        for (region, layout) in [(Region::Core, "core_layout"), (Region::Init, "init_layout")] {
            let at = structs.at(address, "module", layout);
            let get = |path| at.and_then(|at| structs.get(at, "module_layout", path));
            found.push((region, get("base"), get("size")));
        }
    }
    let there = |(region, base, size): (Region, Option<u64>, Option<u64>)| {
        let (base, size) = (base.filter(|base| *base != 0)?, size?);
        (size != 0 && size <= REGION_MAX).then_some((region, base, size))
    };
    found.into_iter().filter_map(there).collect()
}

/// All modules that memory tells of.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Modules {
    /// Each with who knows it, by address of `struct module`.
    pub all: BTreeMap<u64, (InMemory, Vec<Witness>)>,
    /// Those on the list, newest first.
    pub listed: Vec<u64>,
    /// Who could not be asked to the end, and why.
    pub unread: Vec<String>,
    /// Who was asked.
    pub asked: Vec<Witness>,
}

impl Modules {
    /// Asks all that know modules. `area` is what is mapped in the module area.
    pub fn find(structs: &Structs<'_>, kernel: &KernelDescription, area: &[Mapping]) -> Self {
        let mut out = Modules::default();
        match kernel.symbols.address("modules") {
            Some(head) => {
                let (list, whole) = structs.list(head, "module", "list");
                out.asked.push(Witness::List);
                if !whole {
                    out.unread.push("the list of modules is broken: it does not lead back to its head".into());
                }
                for address in list {
                    if out.add(structs, kernel, address, Witness::List) {
                        out.listed.push(address);
                    }
                }
            }
            None => out.unread.push(
                "the list of modules: the kernel's symbol table has no `modules` (CONFIG_KALLSYMS_ALL is off)".into(),
            ),
        }
        if let Some(found) = in_tree(structs, kernel) {
            out.asked.push(Witness::Tree);
            for address in found {
                out.add(structs, kernel, address, Witness::Tree);
            }
        } else {
            out.unread.push("mod_tree".into());
        }
        if let Some(found) = in_sysfs(structs, kernel) {
            out.asked.push(Witness::Sysfs);
            for address in found {
                out.add(structs, kernel, address, Witness::Sysfs);
            }
        } else {
            out.unread.push("module_kset".into());
        }
        out.asked.push(Witness::Shape);
        for address in shapes(structs, kernel, area) {
            out.add(structs, kernel, address, Witness::Shape);
        }
        // Without the list, what all others know is taken for it, in the order of addresses.
        if kernel.symbols.address("modules").is_none() {
            out.listed = out.all.keys().rev().copied().collect();
        }
        out
    }

    fn add(&mut self, structs: &Structs<'_>, kernel: &KernelDescription, address: u64, by: Witness) -> bool {
        if let Some((_, witnesses)) = self.all.get_mut(&address) {
            if !witnesses.contains(&by) {
                witnesses.push(by);
            }
            return true;
        }
        match InMemory::read(structs, &kernel.config, address) {
            Some(module) => {
                self.all.insert(address, (module, vec![by]));
                true
            }
            None => {
                self.unread.push(format!("{}: the struct module at {address:#x} cannot be read", by.name()));
                false
            }
        }
    }

    /// The module that an address lies in.
    pub fn holder(&self, address: u64) -> Option<&InMemory> {
        self.all.values().map(|(module, _)| module).find(|module| module.holds(address))
    }
}

/// `mod_tree`: the modules whose memory it finds.
fn in_tree(structs: &Structs<'_>, kernel: &KernelDescription) -> Option<Vec<u64>> {
    const NODES_MAX: usize = 1 << 20;
    let root = kernel.symbols.address("mod_tree")?;
    let tree = structs.at(root, "mod_tree_root", "root.tree")?;
    let of = if kernel.config.has(Change::ModMemType) { "module_memory" } else { "module_layout" };
    let node = structs.types.member(of, "mtn.node")?.offset;
    let owner = structs.types.member(of, "mtn.mod")?.offset;
    let mut open = vec![structs.image.pointer(tree)?];
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    while let Some(at) = open.pop() {
        if at == 0 || seen.len() > NODES_MAX || !seen.insert(at) {
            continue;
        }
        open.extend(structs.get(at, "rb_node", "rb_left"));
        open.extend(structs.get(at, "rb_node", "rb_right"));
        let module = structs.image.pointer(at.wrapping_sub(node).wrapping_add(owner));
        found.extend(module.filter(|module| *module != 0));
    }
    found.sort_unstable();
    found.dedup();
    Some(found)
}

/// `module_kset`: the modules that have a folder in /sys/module. Those of what is built in have no `struct module`.
fn in_sysfs(structs: &Structs<'_>, kernel: &KernelDescription) -> Option<Vec<u64>> {
    let kset = structs.image.pointer(kernel.symbols.address("module_kset")?)?;
    let list = structs.at(kset, "kset", "list")?;
    let (objects, _) = structs.list(list, "kobject", "entry");
    let kobj = structs.types.member("module_kobject", "kobj")?.offset;
    let of = |object: u64| structs.get(object.wrapping_sub(kobj), "module_kobject", "mod");
    Some(objects.into_iter().filter_map(of).filter(|module| *module != 0).collect())
}

/// Bytes that a `struct module` is aligned to: a cache line.
const ALIGN: usize = 64;

/// Whatever in the module area has the shape of a `struct module`: it says that it is the module of its own kobject, or it lies in
/// the data that it calls its own.
fn shapes(structs: &Structs<'_>, kernel: &KernelDescription, area: &[Mapping]) -> Vec<u64> {
    let member = |path| structs.types.member("module", path).map(|m| m.offset);
    let (Some(name), Some(of_kobject)) = (member("name"), member("mkobj.mod")) else { return Vec::new() };
    let first_base = if kernel.config.has(Change::ModMemType) {
        member("mem")
            .zip(structs.types.member("module_memory", "base"))
            .map(|(mem, base)| mem.wrapping_add(base.offset))
    } else {
        member("core_layout")
            .zip(structs.types.member("module_layout", "base"))
            .map(|(at, base)| at.wrapping_add(base.offset))
    };
    let size = structs.types.struct_size("module").unwrap_or(0);
    let mut found = Vec::new();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for mapping in area.iter().filter(|mapping| mapping.write) {
        match runs.last_mut() {
            Some((_, end)) if *end == mapping.start => *end = mapping.end(),
            _ => runs.push((mapping.start, mapping.end())),
        }
    }
    for (start, end) in runs {
        let Some(bytes) = structs.image.bytes(start, end.saturating_sub(start)) else { continue };
        for (offset, window) in (0u64..).step_by(ALIGN).zip(bytes.chunks(ALIGN)) {
            // The name begins behind state and list: at a place that chunks of a cache line do not cut.
            let address = start.wrapping_add(offset);
            let at = |o: u64| elf_layout::bytes::le64(&bytes, offset.checked_add(o)?);
            let plausible = window.len() == ALIGN && at(size).is_some();
            let own_kobject = at(of_kobject) == Some(address);
            let own_memory = || {
                let is_page = |base: &u64| *base != 0 && base & 0xfff == 0;
                let base = first_base.and_then(at).filter(is_page);
                base.is_some_and(|base| area.iter().any(|m| m.start <= base && base < m.end()))
            };
            if plausible && own_kobject
                || (plausible && is_name(&bytes, offset.wrapping_add(name)) && own_memory())
            {
                found.push(address);
            }
        }
    }
    let looks = |address: &u64| {
        InMemory::read(structs, &kernel.config, *address).is_some_and(|module| {
            let named = !module.name.is_empty() && module.name.iter().all(|b| b.is_ascii_graphic());
            let own = structs.get(*address, "module", "mkobj.mod") == Some(*address);
            let inside =
                module.regions.iter().any(|(region, ..)| !region.is_init()) && module.holds(*address);
            // A module that is being loaded has no kobject yet.
            module.state <= UNFORMED && (named && inside || own && (named || inside))
        })
    };
    found.retain(looks);
    found
}

/// Is there the name of a module: text, then zeros up to its end?
fn is_name(bytes: &[u8], at: u64) -> bool {
    let Some(field) = elf_layout::bytes::slice(bytes, at, NAME_LEN) else { return false };
    let len = field.iter().position(|b| *b == 0).unwrap_or(0);
    let (text, rest) = field.split_at(len);
    len != 0 && text.iter().all(u8::is_ascii_graphic) && rest.iter().all(|b| *b == 0)
}

/// What is mapped where modules may lie.
pub fn module_area(image: &MemoryImage, windows: &[(u64, u64)]) -> Vec<Mapping> {
    windows.iter().flat_map(|(from, to)| image.mappings(*from, *to)).collect()
}
