//! Whole behaviour on the fixture `params`, whose source is `fixtures/src/params.c`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

extern crate std;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::any::Any;
use std::time::{Duration, Instant};

use elf_layout::elf::SymFields;
use elf_layout::layout::layout_sections;
use elf_layout::module::{HeapMemory, move_module};
use elf_layout::symtab::layout_symtab;
use elf_layout::validity::{Expected, elf_validity};
use elf_layout::{KernelConfig, Module, ModuleFile, Placement};
use testkit::fixtures::{KERNELS, ko, read};

use super::*;

/// `params.ko` in memory, and what the kernel said of its parameters.
struct Ran {
    file: &'static ModuleFile<'static>,
    layout: Layout,
    before: HeapMemory,
    memory: HeapMemory,
    outcome: ParamOutcome,
    said: Findings,
}

fn run_with(kernel: &str, args: &[u8], env: &ParamEnv<'_>) -> Ran {
    let bytes: &'static [u8] = read(&ko(kernel, "params")).leak();
    let version = kernel.split('-').next().unwrap();
    let config = alloc::boxed::Box::leak(alloc::boxed::Box::new(
        KernelConfig::of_release(version, reloc::MACHINES).unwrap(),
    ));
    let mut said = Findings::new();
    let known = reloc::MACHINES;
    let expected = Expected { config, machine: None, known, ignore_modversions: false };
    let file = elf_validity(bytes, &expected, &mut said).unwrap();
    let file: &'static ModuleFile<'static> = alloc::boxed::Box::leak(alloc::boxed::Box::new(file));
    let mut info = LoadInfo::rewrite_section_headers(file, config);
    info.edit_flags();
    let mut layout = layout_sections(&info, &mut said).unwrap();
    layout_symtab(&mut info, &mut layout, &mut said).unwrap();
    let placement = Placement::consecutive(&layout, 0xffff_ffff_c000_0000);
    let memory = Box::new(HeapMemory::new(&layout));
    let mut module = move_module(info, layout, placement, memory);
    assert!(!said.refused(), "the fixture is sound");
    let memory = |module: &Module<'_>| {
        let memory: &dyn Any = &*module.memory;
        memory.downcast_ref::<HeapMemory>().unwrap().clone()
    };
    let before = memory(&module);
    let outcome = parse_args(&mut module, args, env, &mut said);
    let memory = memory(&module);
    Ran { file, layout: module.layout, before, memory, outcome, said }
}

fn run(kernel: &str, args: &str) -> Ran {
    run_with(kernel, args.as_bytes(), &ParamEnv::default())
}

impl Ran {
    fn place(&self, variable: &str) -> SectionPlace {
        let mut symbols = self.file.symbols().iter();
        let symbol = symbols.find(|s| self.file.symbol_name(s) == variable.as_bytes()).unwrap();
        let place = self.layout.place(usize::from(symbol.shndx())).unwrap();
        SectionPlace { offset: place.offset + symbol.value(), ..place }
    }

    fn bytes(&self, variable: &str, len: u64) -> &[u8] {
        self.memory.at(self.place(variable), len).unwrap()
    }

    fn u32(&self, variable: &str) -> u32 {
        u32::from_le_bytes(self.bytes(variable, 4).try_into().unwrap())
    }

    fn dmesg(&self) -> Vec<&str> {
        self.said.dmesg().collect()
    }

    fn codes(&self) -> Vec<&str> {
        self.said.iter().map(|f| f.code).collect()
    }

    /// No byte has changed but those that the outcome tells of.
    fn nothing_else_changed(&self) {
        let mut undone = self.memory.clone();
        for Written { place, len, .. } in &self.outcome.written {
            let old = self.before.at(*place, *len).unwrap().to_vec();
            undone.at_mut(*place, *len).unwrap().copy_from_slice(&old);
        }
        assert!(undone == self.before, "only what is recorded as written has changed");
    }

    #[track_caller]
    fn is_fine(&self) {
        assert_eq!(self.dmesg(), [""; 0]);
        assert_eq!((self.said.errno(), self.said.refused(), self.outcome.refused), (None, false, false));
        self.nothing_else_changed();
    }

    #[track_caller]
    fn is_refused(&self, errno: Errno, lines: &[&str]) {
        assert_eq!(self.dmesg(), lines);
        assert_eq!((self.said.errno(), self.outcome.refused), (Some(errno), true));
        self.nothing_else_changed();
    }
}

#[test]
fn param_10_nothing_given_changes_nothing() {
    for args in ["", "  \t\n", " \0 an_int=1"] {
        let ran = run("6.12-amd64", args);
        ran.is_fine();
        assert!(ran.memory == ran.before, "PARAM-10: {args:?}");
        assert_eq!(ran.outcome, ParamOutcome::default(), "PARAM-10");
    }
}

#[test]
fn param_1_every_kernel_type_of_number() {
    for kernel in KERNELS {
        let ran = run(
            kernel,
            "a_byte=0xff a_short=-32768 a_ushort=65535 an_int=-2147483648 a_uint=4294967295 \
             a_long=-9223372036854775808 a_ulong=0xfedcba9876543211 a_ullong=18446744073709551615 \
             a_hexint=0xabcdef zero_int=-1 outer_name=077 a_level=7 an_ioport=0x2f8",
        );
        ran.is_fine();
        assert_eq!(ran.bytes("a_byte", 1), [0xff], "PARAM-1: byte");
        assert_eq!(ran.bytes("a_short", 2), [0, 0x80], "PARAM-1: short");
        assert_eq!(ran.bytes("a_ushort", 2), [0xff; 2], "PARAM-1: ushort");
        assert_eq!(ran.bytes("an_int", 4), i32::MIN.to_le_bytes(), "PARAM-1: int");
        assert_eq!(ran.bytes("a_uint", 4), [0xff; 4], "PARAM-1: uint");
        assert_eq!(ran.bytes("a_long", 8), i64::MIN.to_le_bytes(), "PARAM-1: long");
        assert_eq!(ran.bytes("a_ulong", 8), 0xfedc_ba98_7654_3211u64.to_le_bytes(), "PARAM-1: ulong");
        assert_eq!(ran.bytes("a_ullong", 8), [0xff; 8], "PARAM-1: ullong");
        assert_eq!(ran.u32("a_hexint"), 0xab_cdef, "PARAM-1: hexint");
        assert_eq!(ran.u32("zero_int"), u32::MAX, "PARAM-1: int in .bss");
        assert_eq!(ran.u32("inner_name"), 0o77, "PARAM-1: another name");
        assert_eq!(ran.u32("a_level"), 7, "PARAM-16: levels don't matter");
        assert_eq!(ran.u32("an_ioport"), 0x2f8, "PARAM-18: no lockdown");
        assert_eq!(ran.outcome.written.len(), 13, "PARAM-1: one value each");
    }
}

#[test]
fn param_15_dashes_and_exact_names() {
    let ran = run("6.12-amd64", "an-int=1 int-array=5 zero_int=2 zero-int=3 AN_INT=4 an_in=5 an_int2=6");
    assert_eq!(
        (ran.u32("an_int"), ran.u32("int_array"), ran.u32("zero_int")),
        (1, 5, 3),
        "PARAM-15, PARAM-23"
    );
    assert_eq!(
        ran.dmesg(),
        ["AN_INT", "an_in", "an_int2"].map(|n| format!("params: unknown parameter '{n}' ignored")),
        "PARAM-15"
    );
    assert_eq!(
        ran.outcome.written.len(),
        6,
        "PARAM-23, PARAM-42: zero_int twice, the array's count twice and its element"
    );
}

#[test]
fn param_17_missing_values() {
    let noarg = run("6.1-amd64", "a_bool a_bint a_latch");
    noarg.is_fine();
    assert_eq!(noarg.bytes("a_bool", 1), [1], "PARAM-17: NOARG");
    assert_eq!(noarg.u32("a_bint"), 1, "PARAM-17: NOARG");
    assert_eq!(noarg.bytes("a_latch", 1), [1], "PARAM-17: NOARG");
    for name in ["an_int", "an_invbool", "a_charp", "a_string", "int_array", "bool_array", "a_percent"] {
        let ran = run("6.12-amd64", name);
        ran.is_refused(Errno::EINVAL, &[&format!("params: `' invalid for parameter `{name}'")]);
        assert_eq!(ran.codes(), ["PARAM-17"], "PARAM-17, PARAM-45: {name}");
        assert!(ran.memory == ran.before, "PARAM-17: set is not called");
    }
}

#[test]
fn param_1_truth_values() {
    let ran = run("6.12-arm64", "a_bool=off an_invbool=Yes a_bint=n a_latch=no");
    ran.is_fine();
    assert_eq!(ran.bytes("a_bool", 1), [0], "PARAM-1: bool");
    assert_eq!(ran.bytes("an_invbool", 1), [0], "PARAM-1: invbool stores the opposite");
    assert_eq!(ran.u32("a_bint"), 0, "PARAM-1: bint writes an int");
    assert_eq!(ran.bytes("a_latch", 1), [0], "PARAM-1: bool_enable_only");
    assert_eq!(ran.outcome.written.len(), 3, "PARAM-1: a latch that is off is not written to");
    let invbool = run("6.12-amd64", "an_invbool=0");
    assert_eq!(invbool.bytes("an_invbool", 1), [1], "PARAM-1: invbool");

    let latch = run("6.1-amd64", "a_latch=1 a_latch=0");
    assert_eq!(latch.dmesg(), ["params: `0' invalid for parameter `a_latch'"], "PARAM-20: EROFS");
    assert!(latch.outcome.refused && latch.said.refused());
    assert_eq!(latch.bytes("a_latch", 1), [1], "PARAM-1: it stays on");
    let garbage = run("6.1-amd64", "a_latch=maybe");
    garbage.is_refused(Errno::EINVAL, &["params: `maybe' invalid for parameter `a_latch'"]);
}

#[test]
fn param_20_errors_and_their_lines() {
    for (args, errno, shown) in [
        ("a_byte=256", Errno::ERANGE, "256"),
        ("a_byte=-1", Errno::EINVAL, "-1"),
        ("a_short=32768", Errno::ERANGE, "32768"),
        ("an_int=99999999999999", Errno::ERANGE, "99999999999999"),
        ("an_int=0x", Errno::EINVAL, "0x"),
        ("an_int=", Errno::EINVAL, ""),
        ("a_bool=maybe", Errno::EINVAL, "maybe"),
        ("an-int=\"1 2\"", Errno::EINVAL, "1 2"),
    ] {
        let ran = run("6.12-amd64", args);
        let name = args.split('=').next().unwrap();
        ran.is_refused(errno, &[&format!("params: `{shown}' invalid for parameter `{name}'")]);
        assert_eq!(ran.codes(), ["PARAM-20"], "PARAM-20: {args}");
        assert!(ran.memory == ran.before, "PARAM-20: nothing is written");
    }
    let newline = run("6.12-amd64", "an_int=\"1\n\"");
    assert_eq!(newline.u32("an_int"), 1, "PARAM-20: one newline may follow a number");
    let lines = run("6.12-amd64", "an_int=\"1\n2\"");
    let two = ["params: `1", "2' invalid for parameter `an_int'"];
    assert_eq!(lines.dmesg(), two, "PARAM-20: a newline in a value divides the line");
}

#[test]
fn param_19_the_last_error_counts_and_good_values_stay() {
    let ran = run("6.12-amd64", "an_int=x a_byte=300 zero_int=5");
    assert_eq!(ran.u32("zero_int"), 5, "PARAM-19: good ones are stored");
    let lines =
        ["params: `x' invalid for parameter `an_int'", "params: `300' invalid for parameter `a_byte'"];
    ran.is_refused(Errno::ERANGE, &lines);

    let ran = run("6.12-amd64", "a_byte=300 nosuch an_unsafe=1 an_int=x other=1");
    ran.is_refused(
        Errno::EINVAL,
        &[
            "params: `300' invalid for parameter `a_byte'",
            "params: unknown parameter 'nosuch' ignored",
            "Setting dangerous option an_unsafe - tainting kernel",
            "params: `x' invalid for parameter `an_int'",
            "params: unknown parameter 'other' ignored",
        ],
    );
    let codes = ["PARAM-20", "PARAM-32", "PARAM-18", "PARAM-20", "PARAM-32", "PARAM-22"];
    assert_eq!(ran.codes(), codes, "PARAM-22: what comes after the last error is said before the end");
    assert_eq!(ran.said.iter().filter(|f| f.stops_here).count(), 1);
}

#[test]
fn param_18_unsafe_and_hardware() {
    let ran = run("6.1-arm64", "an-unsafe=x");
    let lines = [
        "Setting dangerous option an_unsafe - tainting kernel",
        "params: `x' invalid for parameter `an-unsafe'",
    ];
    ran.is_refused(Errno::EINVAL, &lines);
    assert!(ran.outcome.taints_user, "PARAM-18: even if the value is wrong");
    let no_value = run("6.1-arm64", "an_unsafe");
    assert!(!no_value.outcome.taints_user, "PARAM-17, PARAM-18: a missing value comes first");

    let locked = ParamEnv { lockdown: Some("insmod"), ..ParamEnv::default() };
    let ran = run_with("6.12-amd64", b"an_ioport=1 an_int=1", &locked);
    ran.is_refused(
        Errno::EPERM,
        &[
            "Lockdown: insmod: unsafe module parameters is restricted; see man kernel_lockdown.7",
            "params: `1' invalid for parameter `an_ioport'",
        ],
    );
    assert_eq!((ran.u32("an_ioport"), ran.u32("an_int")), (0x3f8, 1), "PARAM-18: only hardware ones");
    let missing = run_with("6.12-amd64", b"an_ioport", &locked);
    assert_eq!(missing.codes(), ["PARAM-17"], "PARAM-18: a missing value comes first");
}

#[test]
fn param_20_strings() {
    for kernel in KERNELS {
        let ran = run(kernel, "a_string=0123456789abcdefghijklm zero_string=\"\"");
        ran.is_fine();
        assert_eq!(
            ran.bytes("string_buffer", 24),
            b"0123456789abcdefghijklm\0",
            "PARAM-1: 23 characters and NUL"
        );
        assert_eq!(ran.bytes("zero_buffer", 16), [0; 16], "PARAM-1: empty");

        let long = run(kernel, "a_string=0123456789abcdefghijklmn");
        let lines = [
            "a_string: string doesn't fit in 23 chars.",
            "params: `0123456789abcdefghijklmn' too large for parameter `a_string'",
        ];
        long.is_refused(Errno::ENOSPC, &lines);
        assert!(long.memory == long.before, "PARAM-20: nothing is written");
    }
    let short = run("6.12-amd64", "a-string=ab");
    assert_eq!(
        short.bytes("string_buffer", 24),
        b"ab\0dld-string-default\0\0\0",
        "PARAM-1: no byte behind its NUL"
    );
    let other = run("6.12-amd64", "zero-string=0123456789abcdef");
    assert_eq!(
        other.dmesg()[0],
        "zero_string: string doesn't fit in 15 chars.",
        "PARAM-20: the record's own name"
    );
}

#[test]
fn param_1_charp_is_a_run_time_pointer() {
    let long = "x".repeat(1024);
    let ran = run("6.12-amd64", &format!("a_charp=hello a_null_charp={long} a_charp=\"\""));
    ran.is_fine();
    assert!(ran.memory == ran.before, "PARAM-1: only the running kernel knows the address");
    let pointers = ran.outcome.pointers.iter().map(|p| (p.place, p.value.as_slice()));
    let (charp, null_charp) = (ran.place("a_charp"), ran.place("a_null_charp"));
    let want = [(charp, &b"hello"[..]), (null_charp, long.as_bytes()), (charp, &b""[..])];
    assert_eq!(pointers.collect::<Vec<_>>(), want, "PARAM-23: given twice, set twice");

    // A record of the log holds 1024 bytes with its level and NUL, up to 6.2 992.
    for (kernel, room) in [("6.1-amd64", 989), ("6.12-amd64", 1021)] {
        let ran = run(kernel, &format!("a_charp={long}x"));
        let full = format!("params: `{long}x' too large for parameter `a_charp'");
        ran.is_refused(Errno::ENOSPC, &["a_charp: string parameter too long", &full[..room]]);
        assert_eq!(ran.outcome.pointers, [], "PARAM-20: too long");
    }
}

#[test]
fn param_40_arrays() {
    for kernel in KERNELS {
        let ran = run(kernel, "int_array=1,-2,0x3 ushort_array=7 bool_array=y,off,1,Tx,0");
        ran.is_fine();
        let ints = [1u32, 2u32.wrapping_neg(), 3, 0x4444_4444].map(u32::to_le_bytes).concat();
        assert_eq!(ran.bytes("int_array", 16), ints, "PARAM-40: the rest stays");
        assert_eq!(ran.u32("int_array_count"), 3, "PARAM-42");
        assert_eq!(ran.bytes("ushort_array", 6), [7, 0, 0xb2, 0xb2, 0xc3, 0xc3], "PARAM-40: no count");
        assert_eq!(ran.bytes("bool_array", 5), [1, 0, 1, 1, 0], "PARAM-44");
        assert_eq!(ran.u32("bool_array_count"), 5, "PARAM-40");
    }
    let zero = run("6.1-amd64", "zero_array=1,2,3,4,5,6,7,18446744073709551615");
    zero.is_fine();
    assert_eq!(
        zero.bytes("zero_array", 64)[48..],
        [&[7, 0, 0, 0, 0, 0, 0, 0][..], &[0xff; 8]].concat(),
        "PARAM-40"
    );
}

#[test]
fn param_41_too_many() {
    let ran = run("6.12-amd64", "int_array=1,2,3,4,5");
    // The commas before the fifth are cut out, so that the line shows the first element only.
    ran.is_refused(
        Errno::EINVAL,
        &["int_array: can only take 4 arguments", "params: `1' invalid for parameter `int_array'"],
    );
    assert_eq!(ran.codes(), ["PARAM-41"]);
    assert_eq!(ran.u32("int_array_count"), 4, "PARAM-42: elements already stored stay");
    assert_eq!(ran.bytes("int_array", 16), [1u32, 2, 3, 4].map(u32::to_le_bytes).concat(), "PARAM-42");
    let uncounted = run("6.12-amd64", "ushort-array=1,2,3,");
    let lines =
        ["ushort_array: can only take 3 arguments", "params: `1' invalid for parameter `ushort-array'"];
    uncounted.is_refused(Errno::EINVAL, &lines);
}

#[test]
fn param_42_stops_at_the_first_wrong_element() {
    let ran = run("6.12-amd64", "int_array=7,x,9");
    ran.is_refused(Errno::EINVAL, &["params: `7' invalid for parameter `int_array'"]);
    assert_eq!(ran.u32("int_array_count"), 1, "PARAM-42");
    assert_eq!(ran.bytes("int_array", 8), [7u32, 0x2222_2222].map(u32::to_le_bytes).concat(), "PARAM-42");
    let range = run("6.12-amd64", "ushort_array=65536");
    range.is_refused(Errno::ERANGE, &["params: `65536' invalid for parameter `ushort_array'"]);
    let empty = run("6.12-amd64", "int_array=");
    empty.is_refused(Errno::EINVAL, &["params: `' invalid for parameter `int_array'"]);
    assert_eq!(empty.u32("int_array_count"), 0, "PARAM-41, PARAM-42: an empty value calls set");
    let none = run("6.12-amd64", "int_array");
    assert_eq!(
        (none.u32("int_array_count"), none.codes()),
        (4, alloc::vec!["PARAM-17"]),
        "PARAM-45: not even reset"
    );
}

#[test]
fn param_43_charp_elements() {
    let ran = run("6.12-amd64", "charp_array=,,");
    ran.is_fine();
    assert_eq!(ran.u32("charp_array_count"), 3, "PARAM-43: three empty strings");
    let base = ran.place("charp_array");
    let places = ran.outcome.pointers.iter().map(|p| (p.place.offset - base.offset, p.value.len()));
    assert_eq!(places.collect::<Vec<_>>(), [(0, 0), (8, 0), (16, 0)], "PARAM-43");
    let long = format!("charp_array=a,{}", "x".repeat(1025));
    let ran = run("6.12-amd64", &long);
    ran.is_refused(
        Errno::ENOSPC,
        &["charp_array: string parameter too long", "params: `a' too large for parameter `charp_array'"],
    );
    assert_eq!(ran.u32("charp_array_count"), 1, "PARAM-42");
}

#[test]
fn param_1_code_of_the_module_is_not_run() {
    let ran = run("6.12-amd64", "a_percent=5 a_counter a_counter=3 an_int=1");
    assert_eq!((ran.dmesg(), ran.said.refused()), (Vec::new(), false), "PARAM-1");
    assert_eq!(ran.codes(), ["PARAM-1"; 3], "PARAM-1: it says so");
    assert!(ran.said.iter().all(|f| f.severity == Severity::Note));
    assert_eq!(ran.outcome.not_run.len(), 3, "PARAM-1");
    assert_eq!((ran.u32("a_percent"), ran.u32("a_counter"), ran.u32("an_int")), (70, 41, 1), "PARAM-1");
}

#[test]
fn param_30_async_probe() {
    for (args, want) in [
        ("async_probe", true),
        ("async_probe=0", false),
        ("async_probe=off", false),
        ("async_probe=y", true),
        ("async_probe=maybe", true),
        ("async_probe=", true),
        ("async_probe=1 async_probe=n", false),
    ] {
        let ran = run("6.12-amd64", args);
        ran.is_fine();
        assert_eq!(ran.outcome.async_probe, Some(want), "PARAM-30: {args}");
    }
    let folded = run("6.12-amd64", "async-probe=0");
    assert_eq!(
        folded.dmesg(),
        ["params: unknown parameter 'async-probe' ignored"],
        "PARAM-30: compared exactly"
    );
}

#[test]
fn param_31_dyndbg() {
    let ran = run("6.12-amd64", "dyndbg dyndbg=\"func x +p; file y +t\" other.dyndbg=+p");
    assert_eq!((ran.dmesg(), ran.said.refused()), (Vec::new(), false), "PARAM-31");
    let own = |query: &str| DyndbgQuery { module: None, query: query.as_bytes().to_vec() };
    let other = DyndbgQuery { module: Some(b"other".to_vec()), query: b"+p".to_vec() };
    assert_eq!(ran.outcome.dyndbg, [own("+p"), own("func x +p; file y +t"), other], "PARAM-31");
    let dotted = run("6.12-amd64", "some.thing.else=1 .x");
    assert_eq!(
        dotted.dmesg(),
        ["params: unknown parameter 'some' ignored", "params: unknown parameter '' ignored"],
        "PARAM-31, PARAM-32: the name is cut at its dot"
    );

    let off = ParamEnv { dynamic_debug: false, ..ParamEnv::default() };
    let ran = run_with("6.12-amd64", b"dyndbg=+p some.thing", &off);
    assert_eq!(
        ran.dmesg(),
        [
            "dyndbg param is supported only in CONFIG_DYNAMIC_DEBUG builds",
            "params: unknown parameter 'some.thing' ignored"
        ],
        "PARAM-33"
    );
    assert!(!ran.said.refused() && ran.outcome.dyndbg.is_empty(), "PARAM-33: accepted and ignored");
}

#[test]
fn param_32_unknown_parameters_are_ignored() {
    for (args, name) in [("nosuch=1", "nosuch"), ("=x", "=x"), ("\"\"", ""), ("\"a b\"=", "a b\"")] {
        let ran = run("6.1-amd64", args);
        assert_eq!(ran.dmesg(), [format!("params: unknown parameter '{name}' ignored")], "PARAM-32: {args}");
        assert_eq!((ran.said.errno(), ran.codes()), (None, alloc::vec!["PARAM-32"]), "PARAM-21, PARAM-32");
    }
}

#[test]
fn param_14_after_two_dashes() {
    let ran = run("6.12-amd64", "an_int=1 --  zero_int=2 \"a b\" ");
    assert_eq!(ran.dmesg(), ["params: parameters 'zero_int=2 \"a b\" ' after `--' ignored"], "PARAM-14");
    assert_eq!((ran.u32("an_int"), ran.u32("zero_int"), ran.said.refused()), (1, 0, false), "PARAM-14");
    assert_eq!(run("6.12-amd64", "\"--\"").dmesg(), ["params: parameters '' after `--' ignored"], "PARAM-14");
    let ran = run("6.12-amd64", "an_int=x -- zero_int=2");
    ran.is_refused(Errno::EINVAL, &["params: `x' invalid for parameter `an_int'"]);
    let value = run("6.12-amd64", "--= zero_int=2");
    assert_eq!(value.u32("zero_int"), 2, "PARAM-14: with a value it is a name");
}

#[test]
fn param_20_verdicts_of_real_kernels() {
    // The four recorded cases, on this module's parameters of the same types.
    for kernel in ["6.1-amd64", "6.12-amd64"] {
        assert_eq!(
            run(kernel, "nosuch=1").dmesg(),
            ["params: unknown parameter 'nosuch' ignored"],
            "PARAM-32"
        );
        run(kernel, "a_bool=maybe")
            .is_refused(Errno::EINVAL, &["params: `maybe' invalid for parameter `a_bool'"]);
        run(kernel, "a_bool").is_fine();
        let lines = ["params: `99999999999999' invalid for parameter `a_uint'"];
        run(kernel, "a_uint=99999999999999").is_refused(Errno::ERANGE, &lines);
    }
}

#[test]
fn param_19_long_and_hostile_lines_end() {
    let many = |token: &str| token.repeat((1 << 20) / token.len());
    for args in [
        many("a "),
        many("an_int=x "),
        many("an_int=1 "),
        many("\" "),
        many("=\" "),
        many("\""),
        many("dyndbg "),
        many("."),
        String::from("int_array=") + &many("1,"),
        String::from("charp_array=") + &many(","),
        String::from("a_string=") + &many("x"),
        String::from("an_int=") + &many("9"),
        String::from("an_int=0x") + &many("0"),
        many("x") + "=1",
    ] {
        let start = Instant::now();
        let ran = run("6.12-amd64", &args);
        assert!(ran.said.iter().count() <= FINDINGS_MAX);
        assert!(start.elapsed() < Duration::from_secs(20), "{}", &args[..20]);
        ran.nothing_else_changed();
    }
    // More errors than are kept: the last one decides all the same.
    let ran = run("6.12-amd64", &(many("an_int=x ") + "a_byte=256 nosuch"));
    assert_eq!((ran.said.errno(), ran.outcome.refused), (Some(Errno::ERANGE), true), "PARAM-19");
    assert!(ran.said.suppressed() > 100_000);
    let ran = run("6.12-amd64", &(many("a ") + "an_int=1"));
    assert_eq!((ran.said.errno(), ran.u32("an_int")), (None, 1), "PARAM-19");
}

#[test]
fn param_11_any_bytes() {
    let mut state = 1u32;
    let words: [&[u8]; 14] = [
        b"an_int",
        b"a_bool",
        b"int_array",
        b"charp_array",
        b"a_string",
        b"=",
        b" ",
        b"\"",
        b",",
        b"1",
        b"x",
        b"\xff",
        b"--",
        b".dyndbg",
    ];
    for _ in 0..300 {
        let mut args = Vec::new();
        for _ in 0..12 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            args.extend_from_slice(words[(state >> 16) as usize % words.len()]);
        }
        run_with("6.12-amd64", &args, &ParamEnv::default()).nothing_else_changed();
    }
}
