//! A module in memory is to be had only where the kernel takes it, and where all of its memory is known.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::elf::{ALLOC, Builder, GLOBAL, UNDEF, WRITE};
use common::library;
use elf_layout::{KernelConfig, KernelVersion};
use kernel::{KernelDescriptionBuilder, KernelSymbols, Symvers, Types};
use kmodld::{Args, Failure, Load, Loader, Place};

const SYMVERS: &str = "0x000000aa\tplain\tvmlinux\tEXPORT_SYMBOL\t\n0x000000bb\tother\tvmlinux\tEXPORT_SYMBOL\t\n\
    0x000000dd\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n";

/// A kernel with these lines of kallsyms beside those of every one.
fn loader(more: &str, symvers: Option<&str>) -> Loader {
    loader_of_types(more, symvers, "")
}

/// The same of a kernel with these types.
fn loader_of_types(more: &str, symvers: Option<&str>, types: &str) -> Loader {
    let of_modules = importing(&[]);
    let this_module = of_modules.sections.iter().find(|s| s.name == ".gnu.linkonce.this_module").unwrap();
    let config = KernelConfig::new(KernelVersion::new(6, 12, 0)).with(|c| {
        (c.module_sig, c.modversions) = (false, false);
        c.struct_module_size = Some(this_module.data.len() as u64);
        c.struct_module_init_exit = Some((0x138, 0x2b0));
    });
    let text = format!(
        "ffffffff81000000 T _text\nffffffff81000400 T module_layout\nffffffff81000100 T plain\n{more}"
    );
    let kernel = KernelDescriptionBuilder::new()
        .config("test", config)
        .types("test", Types::parse(types))
        .vermagic("test", "6.12.0 SMP preempt mod_unload ")
        .symbols("test", KernelSymbols::parse(text.as_bytes()).unwrap())
        .symvers("test", symvers.map(|text| Symvers::parse(text.as_bytes()).unwrap()));
    Loader::booted(kernel.build(reloc::MACHINES).unwrap())
}

/// A good module that imports these.
fn importing(imports: &[&str]) -> Builder {
    let mut b = Builder::module(&[
        "name=mini",
        "license=GPL",
        "intree=Y",
        "retpoline=Y",
        "vermagic=6.12.0 SMP preempt mod_unload ",
    ]);
    for name in imports {
        b.symbol(name, GLOBAL, 0, UNDEF, 0);
    }
    b
}

/// What comes of it.
fn outcome<R>(loader: &Loader, b: &Builder, show: impl FnOnce(Result<&Load<'_>, &Failure>) -> R) -> R {
    let bytes = b.build();
    let opened = library::open_on(loader, &bytes);
    let result = loader.load(&opened, &Args::default(), &Place::Kernel, None).into_result();
    show(result.as_ref().map(|(load, _)| load))
}

#[test]
fn what_the_kernel_takes_is_a_module_in_memory() {
    outcome(&loader("", Some(SYMVERS)), &importing(&["plain"]), |result| {
        let load = result.expect("a module");
        assert_eq!(load.module.values[1], 0xffff_ffff_8100_0100);
        assert!(load.unknown_symbols().is_empty());
    });
}

#[test]
fn what_it_refuses_is_none() {
    outcome(&loader("", Some(SYMVERS)), &importing(&["nobody_has_it"]), |result| {
        let failure = result.expect_err("refused");
        assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
        assert!(failure.findings().unwrap().refused());
        assert!(
            failure.to_string().starts_with("the kernel refuses the module with ENOENT (SYM-"),
            "{failure}"
        );
    });
}

#[test]
fn what_is_undecided_is_none() {
    // Without Module.symvers it is not known what the kernel exports.
    outcome(&loader("", None), &importing(&["plain"]), |result| {
        let failure = result.expect_err("undecided");
        assert!(matches!(failure, Failure::Undecided { .. }), "{failure:?}");
        assert!(failure.findings().unwrap().is_undecided());
        assert!(failure.to_string().contains("that needs "), "{failure}");
    });
}

#[test]
fn memory_with_unknown_addresses_is_none() {
    let mut percpu = importing(&[]);
    percpu.section(".data..percpu", ALLOC | WRITE, 8).zeros(8);
    let index = percpu.index(".data..percpu");
    percpu.symbol("counter", GLOBAL, 1, index, 0);
    // Nothing tells where the reserve of modules begins; the second kernel does.
    let reserve = "0000000000000000 A __per_cpu_start\n0000000000030000 A __per_cpu_end\n";
    for (b, more, want) in [
        (importing(&["plain", "other"]), "", Some("other")),
        (importing(&["plain", "other"]), "ffffffff81000200 T other\n", None),
        (percpu.clone(), "", Some("counter")),
        (percpu, reserve, None),
    ] {
        outcome(&loader(more, Some(SYMVERS)), &b, |result| match (result, want) {
            (Ok(_), None) => {}
            (Err(Failure::Incomplete { symbols, findings }), Some(name)) => {
                assert!(symbols.iter().any(|symbol| symbol == name), "{symbols:?}");
                assert!(!findings.refused() && !findings.is_undecided(), "{findings:?}");
            }
            (result, want) => panic!("{want:?}: {result:?}"),
        });
    }
}

#[test]
fn whoever_looks_into_it_gets_what_there_is() {
    let loader = loader("", Some(SYMVERS));
    let bytes = importing(&["nobody_has_it"]).build();
    let opened = library::open_on(&loader, &bytes);
    let (load, said) = loader.load(&opened, &Args::default(), &Place::Kernel, None).whatever_it_says();
    assert!(load.is_some() && said.refused());
}

/// What the file has as `percpu` in struct module is freed when the module is refused.
#[test]
fn layout_63_per_cpu_memory_of_the_file() {
    const AT: usize = 0x40;
    let loader = loader_of_types("", Some(SYMVERS), &format!("module 0 1280\nmodule.percpu {AT} 8\n"));
    for (percpu, has_data, imports, undecided) in [
        (0u64, false, "nobody_has_it", false),
        (0x312e_3231, false, "nobody_has_it", true),
        // The kernel sets it for a module with per-cpu data.
        (0x312e_3231, true, "nobody_has_it", false),
    ] {
        let mut b = importing(&[imports]);
        let this = b.sections.iter_mut().find(|s| s.name == ".gnu.linkonce.this_module").unwrap();
        this.data[AT..AT + 8].copy_from_slice(&percpu.to_le_bytes());
        if has_data {
            b.section(".data..percpu", ALLOC | WRITE, 8).zeros(8);
        }
        outcome(&loader, &b, |result| {
            let failure = result.expect_err("refused");
            let is_open = matches!(failure, Failure::Undecided { .. });
            assert_eq!(is_open, undecided, "LAYOUT-63: {percpu:#x}, per-cpu data {has_data}: {failure:?}");
        });
    }
    let mut b = importing(&["plain"]);
    let this = b.sections.iter_mut().find(|s| s.name == ".gnu.linkonce.this_module").unwrap();
    this.data[AT] = 1;
    outcome(&loader, &b, |result| assert!(result.is_ok(), "LAYOUT-63: nothing is freed"));
}
