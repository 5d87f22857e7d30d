//! The programs of `examples/` do what they say, on the fixtures.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

#[path = "../examples/batch.rs"]
#[allow(dead_code, reason = "its `main`")]
mod batch;
mod common;
#[path = "../examples/disassemble.rs"]
#[allow(dead_code, reason = "its `main`")]
mod disassemble;
#[path = "../examples/hunt.rs"]
#[allow(dead_code, reason = "its `main`")]
mod hunt;
#[path = "../examples/list.rs"]
#[allow(dead_code, reason = "its `main`")]
mod list;
#[path = "../examples/own_kernel.rs"]
#[allow(dead_code, reason = "its `main`")]
mod own_kernel;
#[path = "../examples/own_os.rs"]
#[allow(dead_code, reason = "its `main`")]
mod own_os;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::elf::{ALLOC, Builder, EXEC, GLOBAL, Rela, UNDEF, WRITE};
use kernel::KernelSymbols;
use kmodld::kernel_source::{KernelSource, needs, spec_file};
use kmodld::{Kernel, Placement};

const KERNEL: &str = "6.12-amd64";
const BASE: u64 = 0xffff_ffff_c100_0000;

/// The fixture kernel as one SPEC.
fn spec() -> &'static Path {
    static SPEC: OnceLock<PathBuf> = OnceLock::new();
    SPEC.get_or_init(|| {
        let file = |name| Some(common::fixtures(KERNEL).join(name));
        let source = KernelSource {
            kernel: Some(common::facts(KERNEL)),
            symvers: file("Module.symvers"),
            config: file("config"),
            ..KernelSource::default()
        };
        // As if its image had told its symbols: those of a running kernel are in no SPEC.
        let symbols =
            KernelSymbols::parse(&common::read(&common::fixtures(KERNEL).join("kallsyms"))).unwrap();
        let mut records = source.read().unwrap().symbols("test", symbols).to_records(&needs());
        records.set("banner", "Linux version 6.12.117+deb12-amd64 (fixture) #1 SMP\n");
        let mut bytes = Vec::new();
        spec_file::write(&records, &mut bytes).unwrap();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples.spec");
        std::fs::write(&path, bytes).unwrap();
        path
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn ko(module: &str) -> String {
    common::ko(KERNEL, module).display().to_string()
}

fn kernel() -> Kernel {
    Kernel::builder().image(spec()).unwrap().build().unwrap()
}

#[test]
fn what_the_library_gives_out_goes_to_other_threads_and_borrows_nothing() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Kernel>();
    is_shared::<kmodld::LinkedModule>();
    is_shared::<kmodld::Failure>();
    let module = kernel().load(common::read(&common::ko(KERNEL, "hello"))).run().unwrap();
    let init = module.init();
    // Kernel and file are gone.
    let found = std::thread::spawn(move || module.symbol("init_module").unwrap().address).join().unwrap();
    assert!(found.is_some() && found == init);
}

#[test]
fn list_tells_the_modules_of_a_folder() {
    let (folder, mut out) = (tempfile::tempdir().unwrap(), Vec::new());
    for module in ["hello", "exporter", "importer"] {
        std::fs::copy(common::ko(KERNEL, module), folder.path().join(format!("{module}.ko"))).unwrap();
    }
    list::run(&words(&[spec().to_str().unwrap(), folder.path().to_str().unwrap()]), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let init = kernel().load(common::read(&common::ko(KERNEL, "hello"))).run().unwrap().init().unwrap();
    assert!(out.contains(&format!(" exports, init at {init:#x}\n")), "{out}");
    assert!(out.lines().any(|line| line.starts_with("exporter: ") && !line.contains(" 0 exports")), "{out}");
    assert!(out.contains("importer.ko: the kernel refuses the module with ENOENT"), "{out}");
}

#[test]
fn disassemble_names_what_is_called() {
    let mut out = Vec::new();
    disassemble::run(&words(&[spec().to_str().unwrap(), &ko("chardev")]), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.lines().count() > 3 && out.contains("0xffffffff"), "{out}");
    assert!(out.lines().any(|line| line.contains(" call ") && !line.ends_with(' ')), "{out}");
}

#[test]
fn hunt_finds_what_was_changed_and_why_other_bytes_differ() {
    let kernel = kernel();
    let module =
        kernel.load(common::read(&common::ko(KERNEL, "hello"))).at(Placement::Base(BASE)).run().unwrap();
    let text = module.regions().next().unwrap();
    let mut bytes = text.bytes.to_vec();
    let call = module.relocations().into_iter().find(|r| r.symbol == "_printk").expect("a call of _printk");
    let blob = tempfile::NamedTempFile::new().unwrap();
    let hunt = |bytes: &[u8]| {
        std::fs::write(blob.path(), bytes).unwrap();
        let args = words(&[
            spec().to_str().unwrap(),
            &ko("hello"),
            "0xffffffffc1000000",
            blob.path().to_str().unwrap(),
        ]);
        let mut out = Vec::new();
        hunt::run(&args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(hunt(&bytes), "", "nothing was changed");
    let is_here = (text.base..text.base + text.bytes.len() as u64).contains(&call.address);
    let at = if is_here { (call.address - text.base) as usize } else { 0 };
    bytes[at] ^= 0x10;
    let out = hunt(&bytes);
    assert!(out.starts_with("ALARM: 0x") && out.lines().count() == 1, "{out}");
    assert_eq!(out.contains("Relocation(\"R_X86_64_PLT32 _printk-0x4\")"), is_here, "{out}");
    // struct module has what only the running kernel knows.
    let data = module.region(elf_layout::Region::Data).unwrap();
    let run_time = module.as_load().record.runtime.iter().find(|r| r.place.region == data.region).unwrap();
    let mut bytes = data.bytes.to_vec();
    bytes[run_time.place.offset as usize] ^= 0xff;
    let differences = module.compare(data.region, &bytes).unwrap();
    assert!(matches!(&differences[..], [one] if one.cause.is_sound()), "{differences:?}");
    assert!(module.compare_at(BASE + 1, text.bytes).is_err(), "it reaches beyond the region");
}

#[test]
fn an_operating_system_of_ones_own_loads_a_module() {
    let mut out = Vec::new();
    own_os::run(&words(&[&ko("hello")]), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(out.ends_with('\n') && out.contains("init at 0xffffffffc10"), "{out}");
    // The bytes are those of the pipeline for Linux, where both know the same addresses.
    let bytes = common::read(&common::ko(KERNEL, "hello"));
    let kernel = kernel();
    let config = &kernel.loader().kernel.config;
    let file = elf_layout::ModuleFile::parse(&bytes, config, reloc::MACHINES).unwrap();
    let symbols = |name: &[u8]| kernel.symbol(std::str::from_utf8(name).unwrap());
    let module = own_os::load(&file, config, (vec![0xaa; 1 << 20], BASE), &symbols).unwrap();
    let init = module.init().unwrap();
    let memory: Vec<u8> =
        module.segments().flat_map(|s| module.memory.region(s.region).iter().copied()).collect();
    let linux = kernel.load(&*bytes).at(Placement::Base(BASE)).stage(kmodld::Stage::Relocated).run().unwrap();
    assert!((BASE..BASE + memory.len() as u64).contains(&init), "{init:#x}");
    // The first region is the same in both, and its calls lead to the same functions of the kernel.
    let end = BASE + linux.region(elf_layout::Region::Text).unwrap().bytes.len() as u64;
    let imported = |name: &str| linux.imports().any(|import| import.name == name);
    let mut calls = 0;
    for call in linux.relocations().iter().filter(|r| (BASE..end).contains(&r.address) && imported(&r.symbol))
    {
        let at = (call.address - BASE) as usize;
        assert_eq!(
            memory[at..][..call.size as usize],
            *linux.read(call.address, call.size).unwrap(),
            "{call:?}"
        );
        calls += 1;
    }
    assert!(calls > 0);
    let no_symbols = |_: &[u8]| None;
    let refused = own_os::load(&file, config, (vec![0; 1 << 20], BASE), &no_symbols).unwrap_err();
    assert!(refused.to_string().contains("nobody exports _printk"), "{refused}");
    let small = own_os::load(&file, config, (vec![0; 16], BASE), &symbols).unwrap_err();
    assert_eq!(small.to_string(), format!("the module needs {} bytes", memory.len()));
    let program = std::fs::read("/proc/self/exe").unwrap();
    let hosts = elf_layout::ModuleFile::parse(&program, config, reloc::MACHINES);
    assert!(hosts.unwrap_err().iter().any(|f| f.code == "VAL-12"), "VAL-12: a program is no module");
}

#[test]
fn an_architecture_and_a_kernel_come_from_outside() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let run = |kind, offset| {
        let mut b = Builder::module(&["name=toy", "license=GPL", "intree=Y", "vermagic=9.1.0 "]);
        b.machine = 0x7079;
        b.section(".text", ALLOC | EXEC, 16).zeros(32);
        b.section(".toys", ALLOC | WRITE, 8).zeros(32);
        let print = b.symbol("toy_print", GLOBAL, 0, UNDEF, 0);
        b.relocations(".toys", &[Rela { offset, kind, symbol: print, addend: 2 }]);
        std::fs::write(file.path(), b.build()).unwrap();
        let mut out = Vec::new();
        own_kernel::run(&words(&[file.path().to_str().unwrap()]), &mut out)
            .map(|()| String::from_utf8(out).unwrap())
            .map_err(|why| why.to_string())
    };
    let out = run(7, 8).unwrap();
    assert!(
        out.starts_with("toy on toy 9.1.0: Unknown\n") && out.contains("\n0x700000000000 .text ["),
        "{out}"
    );
    assert!(
        out.contains(" .toys [0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 60, 0, 0, 0, 0,"),
        "relocated: {out}"
    );
    let unknown = run(8, 8).unwrap_err();
    assert!(unknown.contains("with ENOEXEC (RELOC-GEN-7)"), "RELOC-GEN-7: {unknown}");
    let outside = run(7, 1 << 40).unwrap_err();
    assert!(outside.contains("crash"), "RELOC-GEN-11: {outside}");
}

/// Lines that are neither empty nor comments.
fn lines_of_code(example: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{example}.rs"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn the_examples_stay_short_and_their_lines_are_told() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    // What the same programs took with the stages alone; loading into one's own system is to take less than 40.
    for (example, before, most) in [
        ("list", "48", 24),
        ("disassemble", "67", 33),
        ("hunt", "67", 33),
        ("own_os", "99", 39),
        ("own_kernel", "78", 39),
        ("batch", "", 39),
    ] {
        let lines = lines_of_code(example);
        assert!(lines <= most, "examples/{example}.rs has {lines} lines of code, more than {most}");
        let row = format!("| [{example}.rs]({example}.rs) | {lines} | {before}");
        assert!(readme.contains(&row), "examples/README.md does not say: {row}");
    }
}

#[test]
fn batch_judges_all_that_are_named() {
    let mut out = Vec::new();
    let modules = ["hello", "importer", "no-such-module"].map(ko);
    let mut args = words(&[spec().to_str().unwrap()]);
    args.extend(modules.iter().cloned());
    batch::run(&args, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{out}");
    assert_eq!(lines[0], format!("{}: loads", modules[0]));
    assert_eq!(lines[1], format!("{}: refused ENOENT", modules[1]));
    assert!(lines[2].starts_with(&modules[2]) && lines[2].contains("No such file"), "{out}");
}

#[test]
fn modules_are_loaded_and_removed() {
    let mut kernel = kernel();
    let read = |module: &str| common::read(&common::ko(KERNEL, module));
    assert!(kernel.insmod(&read("importer"), "").unwrap_err().to_string().contains("ENOENT"));
    kernel.insmod(&read("exporter"), "").unwrap();
    let earlier = kernel.clone();
    let importer = kernel.load(read("importer")).run().unwrap();
    assert_eq!(importer.depends().collect::<Vec<_>>(), ["exporter"]);
    kernel.insmod(&read("importer"), "").unwrap();
    let failure = kernel.rmmod("exporter").unwrap_err();
    assert!(
        matches!(failure, kmodld::Failure::Refused { errno: Some(elf_layout::Errno::EWOULDBLOCK), .. }),
        "{failure:?}"
    );
    kernel.rmmod("importer").unwrap();
    kernel.rmmod("exporter").unwrap();
    assert_eq!((kernel.modules().count(), earlier.modules().count()), (0, 1), "copies go ways of their own");
    let with = Kernel::builder().image(spec()).unwrap().with_module(ko("exporter")).unwrap().build().unwrap();
    assert_eq!(with.modules().count(), 1);
    let needed = kernel.load_needed(ko("importer")).unwrap();
    assert_eq!(needed, [PathBuf::from(ko("exporter"))]);
    // It outlives the kernel, and goes to other threads.
    let name = std::thread::spawn(move || importer.name().into_owned()).join().unwrap();
    assert_eq!(name, "importer");
}

#[test]
fn regions_that_overlap_are_refused() {
    let hello = common::read(&common::ko(KERNEL, "hello"));
    let both = vec![(elf_layout::Region::Text, BASE), (elf_layout::Region::Data, BASE)];
    let failure = kernel().load(hello).at(Placement::Regions(both)).run().unwrap_err();
    assert!(
        matches!(&failure, kmodld::Failure::Error(why) if why.to_string().contains("overlap")),
        "{failure}"
    );
}
