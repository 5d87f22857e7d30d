//! What debuggers make of a linked file: names of what is called, lines of the source, what made the file.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::trees::trees;
use common::{AMD64, library};
use elf_layout::Region;
use goblin::elf::section_header::{SHT_NOBITS, SHT_NOTE};
use goblin::elf::sym::{STT_FUNC, STT_OBJECT};
use kmodld::elf_output::{self, Options};
use kmodld::{Args, Loader, Place};

const KERNEL: &str = "6.12-amd64";

/// What gdb prints when it runs these commands on a file.
fn gdb(file: &Path, commands: &[String]) -> String {
    let commands = commands.iter().flat_map(|command| ["-ex", command]);
    let output = Command::new("gdb").args(["-nx", "-batch"]).args(commands).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How many calls gdb shows in the module's own code, and the first of those that have no name.
fn calls(file: &Path) -> (usize, Option<String>) {
    let bytes = common::read(file);
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let own =
        elf.section_headers.iter().filter(|s| s.is_executable() && s.sh_type != SHT_NOBITS && s.sh_size != 0);
    let commands: Vec<String> =
        own.map(|s| format!("disassemble {:#x},{:#x}", s.sh_addr, s.sh_addr + s.sh_size)).collect();
    let out = gdb(file, &commands);
    let direct = ["\tcall   0x", "\tjmp    0x", "\tbl\t0x", "\tb\t0x"];
    let calls: Vec<&str> = out.lines().filter(|line| direct.iter().any(|op| line.contains(op))).collect();
    let is_nameless = |line: &&&str| !line.rsplit('\t').next().unwrap().contains('<');
    (calls.len(), calls.iter().find(is_nameless).map(|line| (*line).to_owned()))
}

/// Links a fixture into a file, with more arguments.
fn linked(module: &str, more: &[&str], dir: &Path) -> PathBuf {
    let elf = dir.join(format!("{module}.elf"));
    let output = ["-o", elf.to_str().unwrap()];
    common::link(KERNEL, module, &[&output, more].concat()).exits(0);
    elf
}

#[test]
fn gdb_names_every_call() {
    if !common::has_tool("gdb_names_every_call", "gdb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for module in ["chardev", "importer", "patching", "tracepoint"] {
        let (count, nameless) = calls(&linked(module, &[], dir.path()));
        assert!(count > 3, "{module}: {count} calls");
        assert_eq!(nameless, None, "{module}");
    }
}

#[test]
fn gdb_names_every_call_in_large_modules() {
    let test = "gdb_names_every_call_in_large_modules";
    if !common::has_tool(test, "gdb") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for tree in trees(test).iter().filter(|tree| tree.machine() == 62) {
        for module in ["fat", "ext4"] {
            let elf = dir.path().join(module);
            let root = tree.root.display().to_string();
            let args = ["link", module, "--kernel", &root, "-o", elf.to_str().unwrap()];
            common::kmodld(args).exits(0);
            let (count, nameless) = calls(&elf);
            assert!(count > 1000, "{} {module}: {count} calls", tree.release);
            assert_eq!(nameless, None, "{} {module}", tree.release);
        }
    }
}

#[test]
fn imports_are_functions_or_objects_in_sections_over_them() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = common::read(&linked("importer", &[], dir.path()));
    let elf = goblin::elf::Elf::parse(&bytes).unwrap();
    let symbols: BTreeMap<&str, _> =
        elf.syms.iter().map(|symbol| (elf.strtab.get_at(symbol.st_name).unwrap(), symbol)).collect();
    let section = |name: &str| {
        let header = &elf.section_headers[symbols[name].st_shndx];
        let range = header.sh_addr..header.sh_addr + header.sh_size;
        assert!(header.sh_type == SHT_NOBITS && header.is_alloc(), "{name}");
        assert!(range.contains(&symbols[name].st_value), "{name}: {range:x?}");
        elf.shdr_strtab.get_at(header.sh_name).unwrap()
    };
    assert_eq!((symbols["_printk"].st_type(), section("_printk")), (STT_FUNC, ".import.vmlinux.text"));
    // Those of another module.
    let exporter = elf.syms.iter().filter(|symbol| {
        let header = elf.section_headers.get(symbol.st_shndx);
        let name = header.and_then(|header| elf.shdr_strtab.get_at(header.sh_name));
        name.is_some_and(|name| name.starts_with(".import.exporter."))
    });
    let types: Vec<u8> = exporter.map(|symbol| symbol.st_type()).collect();
    assert!(
        types.contains(&STT_FUNC) && types.iter().all(|t| [STT_FUNC, STT_OBJECT].contains(t)),
        "{types:?}"
    );
    // A range over the module itself would hide its own symbols.
    let ranges = |kind: fn(u32) -> bool| {
        let of_kind = elf.section_headers.iter().filter(move |s| s.is_alloc() && kind(s.sh_type));
        of_kind.map(|s| s.sh_addr..s.sh_addr + s.sh_size).collect::<Vec<_>>()
    };
    for over in ranges(|kind| kind == SHT_NOBITS) {
        for own in ranges(|kind| kind != SHT_NOBITS) {
            assert!(over.end <= own.start || own.end <= over.start, "{over:x?} {own:x?}");
        }
    }
}

/// The notes of a section, as type and bytes.
fn notes(elf: &goblin::elf::Elf<'_>, bytes: &[u8], section: &str) -> Vec<(String, u32, Vec<u8>)> {
    let notes = elf.iter_note_sections(bytes, Some(section)).unwrap();
    notes.map(|note| note.unwrap()).map(|n| (n.name.to_owned(), n.n_type, n.desc.to_vec())).collect()
}

#[test]
fn a_note_says_what_made_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let note = |more: &[&str]| {
        let bytes = common::read(&linked("hello", more, dir.path()));
        let elf = goblin::elf::Elf::parse(&bytes).unwrap();
        let notes = notes(&elf, &bytes, ".note.kmodld");
        let [(gnu, 3, id), (own, 1, words)] = notes.as_slice() else { panic!("{notes:?}") };
        assert_eq!((gnu.as_str(), own.as_str(), id.len()), ("GNU", "kmodld", 16));
        let headers = elf.iter_note_headers(&bytes).unwrap().count();
        assert_eq!(headers, 2, "PT_NOTE");
        let words = String::from_utf8(words.clone()).unwrap();
        let of_module = elf.section_headers.iter().filter(|s| s.sh_type == SHT_NOTE && s.is_alloc()).count();
        assert!(of_module > 0, "the notes of the module stay");
        (id.clone(), words)
    };
    let (id, words) = note(&[]);
    let release = format!("kernel: {}\n", common::release(KERNEL));
    for line in ["module: hello\n", &release, "stage: final\n", "\ntext: 0x", "\nrodata: 0x"] {
        assert!(words.contains(line), "no {line:?} in {words}");
    }
    assert_eq!(note(&[]), (id.clone(), words), "the same again");
    let (other, words) = note(&["--stage", "relocated"]);
    assert!(id != other && words.contains("stage: relocated\n"), "{words}");
    let (other, words) = note(&["--base", "0xffffffffc1000000"]);
    assert!(id != other && words.contains("text: 0xffffffffc1000000 0x"), "{words}");
}

/// A module for the fixture kernel with debug information, as gcc makes it with these options.
fn with_debug_information(dir: &Path, name: &str, options: &[&str]) -> Option<PathBuf> {
    let hello = common::Elf::new(common::read(&common::ko(KERNEL, "hello")));
    let (this, rela) =
        (hello.section(".gnu.linkonce.this_module"), hello.section(".rela.gnu.linkonce.this_module"));
    let symbols = hello.symbols();
    let relocations = hello.relocations(rela);
    let place =
        |name: &str| relocations.iter().find(|r| symbols[r.symbol as usize].name == name).unwrap().offset;
    let (init, exit, size) = (place("init_module"), place("cleanup_module"), hello.data(this).len() as u64);
    let modinfo = hello.data(hello.section(".modinfo"));
    let vermagic = modinfo.split(|b| *b == 0).find(|tag| tag.starts_with(b"vermagic=")).unwrap();
    let source = format!(
        "int _printk(const char *, ...);\n\
         static int counter;\n\
         static int __attribute__((noinline)) step(int by)\n\
         {{\n\
         \tcounter += by;\n\
         \t_printk(\"%d\\n\", counter);\n\
         \treturn counter;\n\
         }}\n\
         int init_module(void) {{ return step(2) - 2; }}\n\
         void cleanup_module(void) {{ step(-2); }}\n\
         __attribute__((section(\".gnu.linkonce.this_module\"))) struct {{\n\
         char a[24], name[{}]; int (*init)(void); char b[{}]; void (*exit)(void); char c[{}];\n\
         }} __this_module = {{ .name = \"debugged\", .init = init_module, .exit = cleanup_module }};\n\
         __attribute__((section(\".modinfo\"), used, aligned(1))) static const char modinfo[] =\n\
         \"name=debugged\\0license=GPL\\0depends=\\0retpoline=Y\\0intree=Y\\0{}\";\n",
        init - 24,
        exit - init - 8,
        size - exit - 8,
        String::from_utf8_lossy(vermagic)
    );
    std::fs::write(dir.join("debugged.c"), source).unwrap();
    let ko = dir.join(format!("{name}.ko"));
    let base = ["-c", "-g", "-O1", "-ffreestanding", "-fno-pie", "-mcmodel=kernel", "-fcf-protection=none"];
    let compile = Command::new("gcc")
        .args(base)
        .args(options)
        .arg("-o")
        .arg(&ko)
        .arg("debugged.c")
        .current_dir(dir)
        .output();
    let output = compile.unwrap();
    output.status.success().then_some(ko)
}

/// Links it.
fn link_debugged(ko: &Path, more: &[&str]) -> PathBuf {
    let elf = ko.with_extension("elf");
    let mut args =
        vec!["link".to_owned(), ko.display().to_string(), "--force-modversion".into(), "--no-deps".into()];
    args.extend(common::kernel_args(KERNEL));
    args.extend(["-o".to_owned(), elf.display().to_string()]);
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    common::kmodld(args).exits(0);
    elf
}

#[test]
fn lines_of_the_source_are_found_compressed_or_not() {
    let test = "lines_of_the_source_are_found_compressed_or_not";
    if !["gdb", "gcc", "objcopy"].iter().all(|tool| common::has_tool(test, tool)) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let plain = with_debug_information(dir.path(), "plain", &[]).expect("gcc compiles");
    let mut modules = vec![plain.clone()];
    for (name, options) in [("zlib", "-gz=zlib"), ("zdebug", "-gz=zlib-gnu")] {
        match with_debug_information(dir.path(), name, &[options]) {
            Some(ko) => modules.push(ko),
            None => common::skipped(&format!("{test} ({name})"), "gcc does not compress so"),
        }
    }
    let zstd = dir.path().join("zstd.ko");
    let packed =
        Command::new("objcopy").arg("--compress-debug-sections=zstd").args([&plain, &zstd]).output().unwrap();
    match packed.status.success() {
        true => modules.push(zstd),
        false => common::skipped(&format!("{test} (zstd)"), "objcopy does not compress so"),
    }
    let mut sections: Option<BTreeMap<String, Vec<u8>>> = None;
    for ko in modules {
        let elf = link_debugged(&ko, &[]);
        let what = ko.display();
        let out = gdb(
            &elf,
            &["info line step".into(), "info address counter".into(), "disassemble /s step".into()],
        );
        assert!(out.contains("Line 4 of \"debugged.c\" starts at address 0xffffffff"), "{what}: {out}");
        assert!(out.contains("counter += by;") || out.contains("debugged.c:"), "{what}: {out}");
        assert!(out.contains("Symbol \"counter\" is static storage at address 0xffffffff"), "{what}: {out}");
        let bytes = common::read(&elf);
        let parsed = goblin::elf::Elf::parse(&bytes).unwrap();
        let debug = parsed.section_headers.iter().filter_map(|s| {
            let name = parsed.shdr_strtab.get_at(s.sh_name)?;
            name.starts_with(".debug_").then(|| (name.to_owned(), bytes[s.file_range().unwrap()].to_vec()))
        });
        let debug: BTreeMap<String, Vec<u8>> = debug.collect();
        assert!(debug.len() > 4, "{what}: {:?}", debug.keys());
        let first = sections.get_or_insert_with(|| debug.clone());
        assert!(first.keys().eq(debug.keys()), "{what}: {:?}", debug.keys());
        // The compiler's options are text in .debug_str, to which others point.
        for name in [".debug_abbrev", ".debug_aranges", ".debug_line"] {
            assert!(first[name] == debug[name], "{what}: {name} is the same after decompression");
        }
        let without = common::read(&link_debugged(&ko, &["--debug", "no"]));
        let parsed = goblin::elf::Elf::parse(&without).unwrap();
        let names = parsed.section_headers.iter().filter_map(|s| parsed.shdr_strtab.get_at(s.sh_name));
        let left: Vec<&str> = names.filter(|name| name.contains("debug_")).collect();
        assert_eq!(left, [""; 0], "{what}: --debug no");
    }
}

#[test]
fn what_cannot_be_decompressed_stays_as_it_is() {
    let test = "what_cannot_be_decompressed_stays_as_it_is";
    if !common::has_tool(test, "gcc") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ko = with_debug_information(dir.path(), "damaged", &["-gz=zlib"]).expect("gcc compresses");
    let mut bytes = common::read(&ko);
    let range = {
        let elf = goblin::elf::Elf::parse(&bytes).unwrap();
        let info =
            elf.section_headers.iter().find(|s| elf.shdr_strtab.get_at(s.sh_name) == Some(".debug_info"));
        info.unwrap().file_range().unwrap()
    };
    // Elf64_Chdr claims a size: one that does not come out, and one that nobody has.
    for size in [1u64, u64::MAX] {
        bytes[range.start + 8..range.start + 16].copy_from_slice(&size.to_le_bytes());
        std::fs::write(&ko, &bytes).unwrap();
        let linked = common::read(&link_debugged(&ko, &[]));
        let elf = goblin::elf::Elf::parse(&linked).unwrap();
        let info =
            elf.section_headers.iter().find(|s| elf.shdr_strtab.get_at(s.sh_name) == Some(".debug_info"));
        let info = info.unwrap();
        assert_eq!(info.sh_flags, 0x800, "SHF_COMPRESSED");
        assert_eq!(
            linked[info.file_range().unwrap()],
            bytes[range.clone()],
            "not relocated while compressed"
        );
    }
}

#[test]
fn regions_that_overlap_are_written_nowhere() {
    let loader = Loader::from(common::kernel(KERNEL));
    let bytes = common::read(&common::ko(KERNEL, "hello"));
    let opened = library::open_on(&loader, &bytes);
    let write = |place: &Place| {
        let (load, _) = loader.load(&opened, &Args::default(), place, None).whatever_it_says();
        elf_output::write_to(&mut Vec::new(), &load.unwrap(), &Options::default())
    };
    let at = |data| Place::Regions(vec![(Region::Text, 0xffff_ffff_c100_0000), (Region::Data, data)]);
    assert!(write(&at(0xffff_ffff_c200_0000)).is_ok());
    let error = write(&at(0xffff_ffff_c100_0000)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn every_fixture_has_names_for_what_it_imports() {
    let dir = tempfile::tempdir().unwrap();
    for kernel in AMD64 {
        for module in ["chardev", "importer"] {
            let elf = dir.path().join("out.elf");
            common::link(kernel, module, &["-o", elf.to_str().unwrap()]).exits(0);
            let bytes = common::read(&elf);
            let elf = goblin::elf::Elf::parse(&bytes).unwrap();
            let absolute =
                elf.syms.iter().filter(|s| s.st_shndx == 0xfff1 && s.st_bind() != 0 && s.st_value > 1 << 32);
            let absolute: Vec<_> = absolute.filter_map(|s| elf.strtab.get_at(s.st_name)).collect();
            assert!(
                absolute.iter().all(|name| name.starts_with("__crc_")),
                "{kernel} {module}: {absolute:?}"
            );
        }
    }
}
