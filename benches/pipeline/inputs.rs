//! What is measured: modules in memory, and the kernels they go into.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use elf_layout::{Findings, KernelConfig};
use kmodld::input::read_decompressed;
use kmodld::load::{Opened, open};
use symres::kallsyms::KernelSymbols;
use symres::symvers::Symvers;
use symres::{Kernel, KernelParts, LoadFlags};
use testkit::fixtures::{fixtures, ko, read, release, text};
use testkit::trees::Tree;

const FIXTURES: &str = "6.12-amd64";

/// A module file in memory, uncompressed.
pub struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Module {
    pub fn read(path: &Path) -> Module {
        let file = path.file_name().unwrap().to_string_lossy();
        let name = file.split(".ko").next().unwrap_or_default().to_owned();
        Module { name, bytes: read_decompressed(path).unwrap().to_vec() }
    }

    /// The file after its ELF checks.
    pub fn open(&self, kernel: &Kernel) -> Opened<'_> {
        open(&self.bytes, kernel, LoadFlags::default())
    }
}

/// Modules of one kernel, and what describes it.
pub struct Fixtures {
    pub kernel: Kernel,
    pub modules: Vec<Module>,
}

impl Fixtures {
    /// The fixtures of Debian's 6.12 for x86_64, of which the kernel refuses none.
    pub fn read() -> Fixtures {
        let names = ["hello", "params", "patching", "relocs", "sections", "tracepoint"];
        let modules = names.iter().map(|name| Module::read(&ko(FIXTURES, name))).collect();
        Fixtures { kernel: kernel_of_fixtures(), modules }
    }

    pub fn module(&self, name: &str) -> &Module {
        self.modules.iter().find(|m| m.name == name).unwrap()
    }
}

fn kernel_of_fixtures() -> Kernel {
    let file = |name: &str| read(&fixtures(FIXTURES).join(name));
    kernel(&release(FIXTURES), &file("config"), &file("kallsyms"), &file("Module.symvers"))
}

/// A kernel from the texts that describe it.
pub fn kernel(release: &str, config: &[u8], kallsyms: &[u8], symvers: &[u8]) -> Kernel {
    let mut facts = KernelConfig::of_release(release, reloc::MACHINES).unwrap();
    facts.apply(config, reloc::MACHINES);
    let parts = KernelParts {
        release: release.to_owned(),
        symbols: Some(KernelSymbols::parse(kallsyms).unwrap()),
        symvers: Some(Symvers::parse(symvers).unwrap()),
        ..KernelParts::default()
    };
    Kernel::new(facts, parts)
}

/// The kernel of a tree, if the tree has a Module.symvers and a configuration. The addresses are made up, 16 bytes apart;
/// exports of modules count as the kernel's, so that every module can be linked by itself.
pub fn kernel_of_tree(tree: &Tree) -> Option<Kernel> {
    let (symvers, config) = (text(tree.symvers.as_ref()?), read(tree.config.as_ref()?));
    let text = match (tree.release.ends_with("arm64"), tree.release.starts_with("6.1.")) {
        (false, _) => 0xffff_ffff_8100_0000,
        (true, true) => 0xffff_8000_0800_0000,
        (true, false) => 0xffff_8000_8000_0000,
    };
    let symvers = owned_by_the_kernel(&symvers);
    Some(kernel(&tree.release, &config, made_up_kallsyms(&symvers, text).as_bytes(), symvers.as_bytes()))
}

/// The first module of a tree that has this name.
pub fn module_of_tree(tree: &Tree, name: &str) -> Option<Module> {
    let is_it = |p: &&PathBuf| {
        let file = p.file_name().unwrap().to_string_lossy();
        file.split(".ko").next() == Some(name)
    };
    tree.modules.iter().find(is_it).map(|p| Module::read(p))
}

fn owned_by_the_kernel(symvers: &str) -> String {
    let line = |line: &str| {
        let mut fields: Vec<&str> = line.split('\t').collect();
        fields[2] = "vmlinux";
        fields.join("\t") + "\n"
    };
    symvers.lines().map(line).collect()
}

fn made_up_kallsyms(symvers: &str, text: u64) -> String {
    let mut out = String::from("0000000000000000 A __per_cpu_start\n0000000000030000 A __per_cpu_end\n");
    writeln!(out, "{text:016x} T _text").unwrap();
    let names = symvers.lines().map(|line| line.split('\t').nth(1).unwrap());
    for (n, name) in names.enumerate() {
        writeln!(out, "{:016x} T {name}", text + 0x1000 + 16 * n as u64).unwrap();
    }
    writeln!(out, "{:016x} T _etext\n{:016x} D _end", text + 0x200_0000, text + 0x300_0000).unwrap();
    // As a kernel with CONFIG_KALLSYMS_ALL has it: also data that is not exported.
    writeln!(out, "{:016x} d local_data", text + 0x200_0000).unwrap();
    out
}

/// A kallsyms of as many symbols, and a Module.symvers with a tenth of them: a kernel of real size.
pub fn large_kernel_texts(symbols: u64) -> (String, String) {
    let (mut kallsyms, mut symvers) = (String::new(), String::new());
    for n in 0..symbols {
        let address = 0xffff_ffff_8100_0000 + 64 * n;
        let exported = n % 10 == 0;
        let kind = if exported { 'T' } else { 't' };
        // Names of real kernels have 20 bytes on average, and share their beginnings.
        writeln!(kallsyms, "{address:016x} {kind} subsystem_{}_do_{n}", n % 97).unwrap();
        if exported {
            let form = if n % 20 == 0 { "EXPORT_SYMBOL_GPL" } else { "EXPORT_SYMBOL" };
            writeln!(symvers, "{:#010x}\tsubsystem_{}_do_{n}\tvmlinux\t{form}\t", n as u32, n % 97).unwrap();
        }
    }
    (kallsyms, symvers)
}

/// A run must not go wrong unnoticed: what is refused does less work. That the kernel of a [`Tree`] has
/// a module's exports already is no such thing, and seen last.
pub fn must_load(name: &str, said: &Findings) {
    if let Some(finding) = said.iter().find(|f| f.severity.refuses() && f.code != "DUP-1") {
        panic!("{name} does not load: {} {}", finding.code, finding.explanation);
    }
}
