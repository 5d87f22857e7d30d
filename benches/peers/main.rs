//! kmodld beside the least work that linking can be, and beside other programs, on the same files in one run.
//!
//!     KMODLD_KERNELS=DIR cargo bench -p kmodld --bench peers [-- ROUNDS [FILE.svg]]
//!
//! With a file, cost against the size and the number of modules is drawn into it, of the last tree.
//!
//! For every tree of DIR that has a Module.symvers: files are read (and decompressed) before the clock starts; every
//! measurement is one pass over all modules on one thread; measurements alternate, and their medians are compared.
//! Nothing here can fail for being slow. docs/performance.md says what the figures mean.
#![allow(clippy::restriction, reason = "a benchmark fails by panicking, and its numbers are small")]

#[allow(dead_code)]
#[path = "../pipeline/inputs.rs"]
mod inputs;

mod growth;

use std::any::Any;
use std::hint::black_box;
use std::time::Instant;

use elf_layout::elf::{SHF_ALLOC, SHT_NOBITS, SHT_RELA, SHT_SYMTAB, SymFields};
use elf_layout::module::move_module;
use elf_layout::{Findings, HeapMemory, Module as InMemory, ModuleFile, Placement};
use kmodld::image::{Image, Spare};
use kmodld::load::{Args, LaidOut, Opened, lay_out};
use kmodld::{Loader, Place, Stage, Workspace};
use reloc::{Architecture, Cpu, ModArch, apply_relocations};
use symres::simplify::simplify_symbols;
use testkit::trees::{Tree, trees};

use inputs::{Module, kernel_of_tree, must_load};

fn main() {
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(7);
    let picture = std::env::args().skip(1).find(|a| a.ends_with(".svg"));
    for tree in trees("peers") {
        let Some(kernel) = kernel_of_tree(&tree) else { continue };
        let loader = Loader::from(kernel);
        let modules: Vec<Module> = tree.modules.iter().map(|p| Module::read(p)).collect();
        measure(&tree, &modules, &loader, rounds);
        if let Some(file) = &picture {
            std::fs::write(file, growth(&tree, modules, &loader, rounds)).unwrap();
        }
    }
}

/// Cost against size and number of modules; medians.
fn growth(tree: &Tree, mut modules: Vec<Module>, loader: &Loader, rounds: usize) -> String {
    let mut workspace = Workspace::default();
    let mut time = |modules: &[Module]| {
        let mut once = || {
            let from = Instant::now();
            black_box(modules.iter().map(|m| load(loader, m, &mut workspace)).sum::<u64>());
            from.elapsed().as_secs_f64()
        };
        median(&mut (0..rounds).map(|_| once()).collect::<Vec<f64>>())
    };
    let by_size: Vec<(usize, f64)> =
        modules.iter().map(|m| (m.bytes.len(), time(std::slice::from_ref(m)))).collect();
    // Neighbours are alike: an order that has nothing to do with what modules are.
    modules.sort_by_cached_key(|m| m.bytes.iter().fold(0u32, |sum, b| sum.rotate_left(5) ^ u32::from(*b)));
    let numbers = (1..=8).map(|eighths| modules.len() * eighths / 8);
    let by_number: Vec<(usize, f64)> = numbers.map(|n| (n, time(&modules[..n]))).collect();
    growth::svg(&format!("open and load, one thread: {}", tree.release), &by_size, &by_number)
}

fn measure(tree: &Tree, modules: &[Module], loader: &Loader, rounds: usize) {
    let opened: Vec<Opened<'_>> = modules.iter().map(|m| m.open(&loader.kernel)).collect();
    let files: Vec<&ModuleFile<'_>> = opened.iter().filter_map(|o| o.module.as_ref()).collect();
    let mut floor = Floor::default();
    let relocations: u64 = files.iter().map(|f| floor.link(f)).sum();
    println!("{}: {} modules, {relocations} relocations, {rounds} rounds", tree.release, modules.len());
    let mut ready: Vec<Ready<'_>> = files.iter().map(|f| Ready::new(loader, f)).collect();
    let mut image = None;
    let mut workspace = Workspace::default();
    type Pass<'p> = (&'static str, Box<dyn FnMut() -> u64 + 'p>);
    let floor = || files.iter().map(|f| floor.link(f)).sum::<u64>();
    let load = || modules.iter().map(|m| load(loader, m, &mut workspace)).sum();
    let apply = || ready.iter_mut().map(|r| r.copy_and_apply(&mut image)).sum();
    let mut passes: Vec<Pass<'_>> = vec![
        ("floor: copy, one store per relocation", Box::new(floor)),
        ("move_module and apply_relocations", Box::new(apply)),
        ("open and load", Box::new(load)),
    ];
    let mut times = vec![Vec::new(); passes.len()];
    for _ in 0..rounds {
        for ((_, pass), times) in passes.iter_mut().zip(&mut times) {
            let from = Instant::now();
            black_box(pass());
            times.push(from.elapsed().as_secs_f64());
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|t| median(t)).collect();
    for ((name, _), median) in passes.iter().zip(&medians) {
        let each = median * 1e9 / relocations as f64;
        println!("  {name:<44} {median:8.4} s {each:6.1} ns/relocation {:6.2} x floor", median / medians[0]);
    }
}

/// A module of which all is known, and which is loaded again and again.
struct Ready<'d> {
    arch: &'static dyn Architecture,
    mod_arch: ModArch,
    module: InMemory<'d>,
}

impl<'d> Ready<'d> {
    fn new(loader: &'d Loader, file: &'d ModuleFile<'d>) -> Self {
        let (kernel, mut said) = (&loader.kernel, Findings::new());
        let arch = reloc::architecture(file.e_machine()).unwrap();
        let LaidOut { mod_arch, info, layout, .. } =
            lay_out(&kernel.config, file, arch, Cpu::default(), &mut said).unwrap();
        let bases = loader.place(arch, &info, &layout).unwrap();
        let placement = Placement { bases, percpu: Some(1 << 16) };
        let image = Image::new(&layout).unwrap();
        let mut module = move_module(info, layout, placement, Box::new(image));
        let ignores = |name: &[u8]| arch.ignores_undefined(name);
        simplify_symbols(&mut module, kernel, kernel.state.taints, ignores, &mut said);
        assert!(!said.refused(), "{}", file.name_text());
        // It takes memory that the one before it has left.
        module.memory = Box::new(HeapMemory::default());
        Ready { arch, mod_arch, module }
    }

    /// Zeroed memory, `move_module` and `apply_relocations` with all checks. Returns the number of relocations.
    fn copy_and_apply(&mut self, image: &mut Option<Image>) -> u64 {
        let Ready { arch, mod_arch, module } = self;
        let memory = Image::reusing(image.take().map(Spare::from), &module.layout).unwrap();
        let nothing = module.move_again(Box::new(memory));
        let mut said = Findings::new();
        apply_relocations(*arch, mod_arch, module, &|_, _| Some(Err(String::new())), &mut said);
        let memory = std::mem::replace(&mut module.memory, nothing);
        *image = Some(*(memory as Box<dyn Any>).downcast().unwrap());
        let info = &module.info;
        assert!(!said.refused(), "{}", info.file.name_text());
        let tables = (0..info.sechdrs.len()).filter(|i| info.sechdrs[*i].sh_type == SHT_RELA);
        tables.map(|i| info.file.relocations(i).len() as u64).sum()
    }
}

fn load(loader: &Loader, module: &Module, workspace: &mut Workspace) -> u64 {
    let opened = module.open(&loader.kernel);
    let args = Args { stage: Stage::Relocated, ..Args::default() };
    let (load, said) = loader.load_in(workspace, &opened, &args, &Place::Kernel, None).whatever_it_says();
    must_load(&module.name, &said);
    let load = black_box(load).unwrap();
    let relocations = load.relocations();
    workspace.recycle(load.module);
    relocations
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The least that linking can be: one copy of the ALLOC sections into memory that is used again, symbol values, and
/// for each relocation one load and one store. Nothing is checked.
#[derive(Default)]
struct Floor {
    memory: Vec<u8>,
    values: Vec<u64>,
    places: Vec<Option<usize>>,
}

impl Floor {
    /// Returns the number of relocations.
    fn link(&mut self, file: &ModuleFile<'_>) -> u64 {
        let mut end = 0;
        self.places.clear();
        for (index, section) in file.sections().iter().enumerate() {
            if section.sh_flags & SHF_ALLOC == 0 {
                self.places.push(None);
                continue;
            }
            let at = usize::next_multiple_of(end, 64);
            end = at + section.sh_size as usize;
            if self.memory.len() < end + 8 {
                self.memory.resize(end + 8, 0);
            }
            if section.sh_type != SHT_NOBITS {
                self.memory[at..end].copy_from_slice(file.section_bytes(index));
            }
            self.places.push(Some(at));
        }
        self.values.clear();
        assert!(file.sections().iter().any(|s| s.sh_type == SHT_SYMTAB));
        for symbol in file.symbols() {
            let base = self.places.get(usize::from(symbol.shndx())).copied().flatten().unwrap_or(0);
            self.values.push(symbol.value().wrapping_add(base as u64));
        }
        let mut relocations = 0;
        for (index, section) in file.sections().iter().enumerate().filter(|(_, s)| s.sh_type == SHT_RELA) {
            let Some(to) = self.places[section.sh_info as usize] else { continue };
            for record in file.relocations(index) {
                let rela = elf_layout::elf::Rela::from(record);
                let at = to + rela.r_offset as usize;
                let value = self.values[rela.r_sym() as usize].wrapping_add_signed(rela.r_addend);
                if rela.r_type() == 1 {
                    self.memory[at..at + 8].copy_from_slice(&value.to_le_bytes());
                } else {
                    let value = value.wrapping_sub(at as u64) as u32;
                    self.memory[at..at + 4].copy_from_slice(&value.to_le_bytes());
                }
                relocations += 1;
            }
        }
        relocations
    }
}
