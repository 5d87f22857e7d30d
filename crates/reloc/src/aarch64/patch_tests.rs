//! Steps of arm64 on small modules.

use alloc::vec;

use super::insn::{BREAK_FAULT, MOV_X9_LR, NOP, branch};
use super::plts::get_plt_entry;

use super::*;
use crate::Step;
use crate::testing::*;

const ALT: &str = ".altinstructions";
const PATCH_NOPS: u64 = BASE - 0x1000_0000;
/// `ret`, and `mov x0, x1`: neither depends on its place.
const RET: u32 = 0xd65f_03c0;
const MOV: u32 = 0xaa01_03e0;

/// An entry of .altinstructions that stands at `at`.
fn alt_instr(at: u64, orig: u64, alt: u64, word: u16, orig_len: u8, alt_len: u8) -> Vec<u8> {
    let mut raw = (orig.wrapping_sub(at) as u32).to_le_bytes().to_vec();
    raw.extend((alt.wrapping_sub(at + 4) as u32).to_le_bytes());
    raw.extend(word.to_le_bytes());
    raw.extend([orig_len, alt_len]);
    raw
}

fn alternatives(release: &str, entries: usize) -> TestModule {
    let sections = [(".text", CODE, 64), (".altinstr_replacement", CODE, 64), (ALT, RODATA, 12 * entries)];
    let mut module = TestModule::arm64(release, &sections);
    module.imports = vec![("other_callback", PATCH_NOPS + 0x100), ("alt_cb_patch_nops", PATCH_NOPS)];
    module
}

fn kernel(capabilities: &[(u32, bool)]) -> TestKernel {
    TestKernel { capabilities: capabilities.iter().copied().collect(), ..TestKernel::default() }
}

/// Runs the alternatives of a module with one entry for 8 bytes of .text: (capability word, where the
/// replacement is if not at its section's start, its length). Gives .text, what was not known, and findings.
fn one(
    release: &str,
    kernel: &TestKernel,
    word: u16,
    alt: Option<u64>,
    alt_len: u8,
    replacement: [u32; 2],
) -> (Vec<u32>, Vec<alloc::string::String>, Vec<&'static str>) {
    alternatives(release, 1).run(kernel, |m| {
        let [text, code, at] = [".text", ".altinstr_replacement", ALT].map(|name| address(m, name));
        put_words(m, text, &[RET, RET, RET]);
        put_words(m, code, &replacement);
        put(m, at, &alt_instr(at, text, alt.unwrap_or(code), word, 8, alt_len));
        alternative::apply_alternatives_module(m);
        let said = m.said.iter().map(|f| f.code).collect();
        (words(m, text, 3), m.record.unknown.clone(), said)
    })
}

#[test]
fn fin_31_capability_decides() {
    let both = [MOV, NOP];
    let run = |caps: &[(u32, bool)], word| one("6.12.0", &kernel(caps), word, None, 8, both);
    assert_eq!(run(&[(94, true)], 94).0, [MOV, NOP, RET], "FIN-31: applied");
    assert_eq!(run(&[(94, false)], 94).0, [RET; 3], "FIN-31: not applied");
    let (text, unknown, _) = run(&[(93, true)], 94);
    assert_eq!(text, [RET; 3], "FIN-31: as compiled");
    assert_eq!(unknown, ["whether the CPUs have capability 94 of cpucaps"], "FIN-31");
    for always in [0, 1] {
        assert_eq!(run(&[], always).0, [MOV, NOP, RET], "FIN-31: ARM64_ALWAYS_BOOT, ARM64_ALWAYS_SYSTEM");
    }
    // Before 6.1 these numbers were others.
    assert_eq!(one("5.15.0", &kernel(&[]), 1, None, 8, both).0, [RET; 3], "FIN-31: 5.15");
}

#[test]
fn fin_31_callbacks() {
    let run = |release, word, alt| one(release, &kernel(&[(37, true)]), word, Some(alt), 0, [MOV, MOV]);
    assert_eq!(run("6.12.0", 37 | 0x8000, PATCH_NOPS).0, [NOP, NOP, RET], "FIN-31: alt_cb_patch_nops");
    let (text, unknown, _) = run("6.12.0", 37 | 0x8000, PATCH_NOPS + 0x100);
    assert_eq!(text, [RET; 3], "FIN-31: not modelled");
    assert_eq!(unknown, ["what the callback other_callback makes of its sites"], "FIN-31");
    // Before 6.1 entries without a replacement, always called, with a number that is no capability's.
    assert_eq!(run("5.15.0", 60, PATCH_NOPS).0, [NOP, NOP, RET], "FIN-31: 5.15");
}

#[test]
fn fin_27_and_31_entry_by_entry_and_choices() {
    alternatives("6.1.0", 3).run(&kernel(&[(3, true), (4, true), (5, false)]), |m| {
        let [text, code, at] = [".text", ".altinstr_replacement", ALT].map(|name| address(m, name));
        put_words(m, text, &[RET]);
        put_words(m, code, &[MOV, NOP, BREAK_FAULT]);
        for n in 0..3 {
            let at = at + 12 * n;
            put(m, at, &alt_instr(at, text, code + 4 * n, 3 + n as u16, 4, 4));
        }
        alternative::apply_alternatives_module(m);
        assert_eq!(words(m, text, 1), [NOP], "FIN-31: the later one wins");
        assert_eq!(steps(m), [Step::Alternative; 2]);
        let may: Vec<Vec<u32>> = m
            .record
            .choices
            .iter()
            .map(|c| c.may.iter().map(|b| u32::from_le_bytes(b[..].try_into().unwrap())).collect())
            .collect();
        assert_eq!(may, [[RET, MOV], [MOV, NOP], [NOP, BREAK_FAULT]], "FIN-27, FIN-31");
    });
}

#[test]
fn fin_31_branches_and_pages_follow_their_place() {
    let caps = kernel(&[(9, true)]);
    alternatives("6.12.0", 1).run(&caps, |m| {
        let [text, code, at] = [".text", ".altinstr_replacement", ALT].map(|name| address(m, name));
        let back = code.wrapping_sub(text) as i64;
        assert!(back > 0 && back < 4096);
        // (instruction in the replacement at offset 4, the same at its new place)
        let words_away = |distance: i64| distance >> 2;
        let imm = |base: u32, bits: u32, at: u32, distance: i64| {
            base | ((words_away(distance) as u32) & ((1 << bits) - 1)) << at
        };
        let moved = |base, bits, at| (imm(base, bits, at, -400), imm(base, bits, at, -400 + back));
        let same = |insn| (insn, insn);
        let cases = [
            ("b", moved(0x1400_0000, 26, 0)),
            ("bl", moved(0x9400_0000, 26, 0)),
            ("b.ne", moved(0x5400_0001, 19, 5)),
            ("cbz", moved(0x3400_0003, 19, 5)),
            ("cbnz", moved(0xb500_0003, 19, 5)),
            ("tbz", moved(0x3600_0003, 14, 5)),
            ("tbnz", moved(0x3728_0003, 14, 5)),
            ("b to the start", same(imm(0x1400_0000, 26, 0, -4))),
            ("b to the end", same(imm(0x1400_0000, 26, 0, 4))),
            ("b behind the end", (imm(0x1400_0000, 26, 0, 8), imm(0x1400_0000, 26, 0, 8 + back))),
            ("adrp", same(0xf000_0005)),
            ("add", same(0x9100_00a5)),
        ];
        for (name, (given, want)) in cases {
            put_words(m, text, &[RET, RET]);
            put_words(m, code, &[MOV, given]);
            put(m, at, &alt_instr(at, text, code, 9, 8, 8));
            alternative::apply_alternatives_module(m);
            assert_eq!(words(m, text, 2), [MOV, want], "FIN-31: {name}");
        }
    });
}

#[test]
fn fin_31_adrp_across_pages() {
    let sections = [(".text", CODE, 0x3010), (ALT, RODATA, 12)];
    TestModule::arm64("6.12.0", &sections).run(&kernel(&[(9, true)]), |m| {
        let [text, at] = [".text", ALT].map(|name| address(m, name));
        let code = text + 0x3000;
        // adrp x0, two pages back
        put_words(m, code, &[0xd0ff_ffe0]);
        put(m, at, &alt_instr(at, text, code, 9, 4, 4));
        alternative::apply_alternatives_module(m);
        assert_eq!(words(m, text, 1), [0xb000_0000], "FIN-31: the page behind");
    });
}

#[test]
fn fin_32_bugs() {
    let caps = kernel(&[(9, true), (10, false)]);
    let said = |word, alt_len, insn| one("6.12.0", &caps, word, None, alt_len, [MOV, insn]).2;
    assert_eq!(said(9, 4, MOV), ["FIN-32"], "lengths differ");
    assert_eq!(said(9 | 0x8000, 8, MOV), ["FIN-32"], "a callback with a replacement");
    for (insn, name) in
        [(0x5800_0040, "ldr"), (0x9800_0040, "ldrsw"), (0xd800_0040, "prfm"), (0x1000_0040, "adr")]
    {
        assert_eq!(said(9, 8, insn), ["FIN-32"], "{name}");
        assert!(said(10, 8, insn).is_empty(), "FIN-32: only what is applied: {name}");
    }
    assert!(said(9, 8, MOV).is_empty());
}

const TRAMPOLINE: &str = ".text.ftrace_trampoline";
const INIT_TRAMPOLINE: &str = ".init.text.ftrace_trampoline";

#[test]
fn fin_33_ways_to_the_tracer() {
    const CALLER: u64 = BASE + 0x10_0000;
    const REGS_CALLER: u64 = BASE + 0x10_1000;
    let symbols = [("ftrace_caller", CALLER), ("ftrace_regs_caller", REGS_CALLER)].into_iter().collect();
    let kernel = TestKernel { symbols, ..TestKernel::default() };
    let slots = |release, kernel: &TestKernel, dynamic_ftrace| {
        let mut module = TestModule::arm64(release, &[(TRAMPOLINE, CODE, 24), (INIT_TRAMPOLINE, CODE, 12)]);
        module.config.dynamic_ftrace = dynamic_ftrace;
        module.run(kernel, |m| {
            Aarch64.module_finalize(m);
            let [core, init] = [TRAMPOLINE, INIT_TRAMPOLINE].map(|name| address(m, name));
            let slot = |at: u64| {
                let bytes: [u8; 12] = m.read(at, 12).unwrap().try_into().unwrap();
                [CALLER, REGS_CALLER].into_iter().find(|target| bytes == get_plt_entry(*target, at))
            };
            ([slot(core), slot(core + 12), slot(init)], m.record.unknown.clone())
        })
    };
    let (caller, regs) = (Some(CALLER), Some(REGS_CALLER));
    for (release, want) in [
        ("5.4.0", [None, None, None]),
        ("5.5.0", [caller, regs, None]),
        ("6.1.0", [caller, regs, None]),
        ("6.2.0", [caller, None, None]),
        ("6.12.117", [caller, None, caller]),
    ] {
        assert_eq!(slots(release, &kernel, true).0, want, "FIN-33: {release}");
        assert_eq!(slots(release, &kernel, false).0, [None; 3], "FIN-33: without DYNAMIC_FTRACE: {release}");
    }
    let unknown = slots("6.1.0", &TestKernel::default(), true).1;
    assert_eq!(unknown, ["ftrace_caller", "ftrace_regs_caller"], "FIN-33");
}

#[test]
fn fin_30_the_trampolines_must_be_there() {
    let refused = |release, sections: &[(&'static str, u64, usize)]| {
        TestModule::arm64(release, sections).run(&TestKernel::default(), |m| {
            Aarch64.refuse_in_module_finalize(&m.module.info, m.said);
            m.said.refused()
        })
    };
    let (core, init) = ((TRAMPOLINE, CODE, 12), (INIT_TRAMPOLINE, CODE, 12));
    for (release, sections, want) in [
        ("5.4.0", &[][..], false),
        ("6.1.0", &[], true),
        ("6.1.0", &[core], false),
        ("6.12.0", &[core], false),
        ("6.17.0", &[core], true),
        ("6.17.0", &[init], true),
        ("6.17.0", &[core, init], false),
    ] {
        assert_eq!(refused(release, sections), want, "FIN-30: {release} {sections:?}");
    }
}

const SITES: &str = "__patchable_function_entries";
const NOP_OPS: u64 = 0xffff_8000_8200_1240;
const BTI_C: u32 = 0xd503_245f;

/// The only site that the second section lists, at an offset in .text, which holds `code`; .text after, and FIN-47 where
/// the kernel would warn.
fn site(
    module: &TestModule,
    kernel: &TestKernel,
    code: &[u32],
    offset: u64,
) -> (Vec<u32>, Vec<&'static str>) {
    module.run(kernel, |m| {
        let text = address(m, ".text");
        put_words(m, text, code);
        let listed = Aarch64.ftrace_callsites(m.info.config) == module.sections[1].0;
        let made = if listed { Aarch64.ftrace_init_nop(m, text + offset) } else { Ok(()) };
        let said = match made {
            Ok(()) => vec![],
            Err(FtraceBug::Crash(_)) => vec!["FIN-44"],
            Err(FtraceBug::Unexpected { at, shown, expected }) => {
                assert_eq!((at % 4, shown, expected), (0, 4, None), "FIN-47");
                vec!["FIN-47"]
            }
            Err(FtraceBug::Faulted(_)) => vec!["faulted"],
        };
        (words(m, text, code.len() as u64), said)
    })
}

fn traced(release: &str) -> TestModule {
    TestModule::arm64(release, &[(".text", CODE, 64), (SITES, RODATA, 8)])
}

#[test]
fn fin_43_two_nops() {
    let kernel = TestKernel::default();
    for release in ["5.5.0", "6.1.0", "6.2.0"] {
        let module = traced(release);
        let (text, said) = site(&module, &kernel, &[BTI_C, NOP, NOP, RET], 4);
        assert_eq!(text, [BTI_C, MOV_X9_LR, NOP, RET], "FIN-43: {release}");
        assert!(said.is_empty(), "{said:?}");
        let (text, said) = site(&module, &kernel, &[RET, NOP], 0);
        assert_eq!((text, said), (vec![RET, NOP], vec!["FIN-47"]), "FIN-43: no nop: {release}");
        let said = site(&module, &kernel, &[NOP, NOP], 0x10_0000).1;
        assert_eq!(said, ["faulted"], "FIN-47: nothing there: {release}");
    }
}

#[test]
fn fin_44_and_46_pointer_before_the_function() {
    let kernel = TestKernel { symbols: [("ftrace_nop_ops", NOP_OPS)].into_iter().collect(), ..kernel(&[]) };
    let (low, high) = (NOP_OPS as u32, (NOP_OPS >> 32) as u32);
    let module = traced("6.12.0");
    let run = |code: &[u32], offset| site(&module, &kernel, code, offset);
    let (text, said) = run(&[NOP, NOP, NOP, NOP, RET], 0);
    assert_eq!(text, [low, high, MOV_X9_LR, NOP, RET], "FIN-44");
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(run(&[NOP, NOP, BTI_C, NOP, NOP], 0).0, [low, high, BTI_C, MOV_X9_LR, NOP], "FIN-44: BTI");
    assert_eq!(run(&[NOP; 6], 4), (vec![NOP; 6], vec!["FIN-44"]), "FIN-44: not aligned");
    // Where every system has memory, by the linear mapping.
    module.run(&kernel, |m| {
        let made = Aarch64.ftrace_init_nop(m, 0x1_0000);
        assert_eq!(made, Err(FtraceBug::Faulted(0x1_000c)), "FIN-47: an address of user space");
    });
    assert_eq!(run(&[NOP; 6], 0x2000), (vec![NOP; 6], vec!["FIN-44"]), "FIN-44: the page behind the module");
    module.run(&kernel, |m| {
        let far = address(m, ".text") + 0x10_0000;
        let made = Aarch64.ftrace_init_nop(m, far);
        assert!(
            matches!(made, Err(FtraceBug::Unexpected { .. })),
            "FIN-44: perhaps another module: {made:?}"
        );
        assert!(m.said.open_rules().iter().any(|rule| rule.code == "FIN-44"), "FIN-44: it is open");
    });
    // The pointer is written before the nop is looked at.
    assert_eq!(run(&[NOP, NOP, RET], 0), (vec![low, high, RET], vec!["FIN-47"]), "FIN-44");
    let unknown = site(&module, &TestKernel::default(), &[NOP; 4], 0);
    assert_eq!(unknown, (vec![NOP, NOP, MOV_X9_LR, NOP], vec![]), "FIN-46: ftrace_nop_ops is not known");
    let mut without = traced("6.12.0");
    without.config.dynamic_ftrace_with_call_ops = false;
    assert_eq!(site(&without, &kernel, &[NOP; 3], 0).0, [MOV_X9_LR, NOP, NOP], "FIN-43: no CALL_OPS");
}

#[test]
fn fin_40_calls_of_mcount() {
    let mut module = traced("5.4.0");
    module.sections[1].0 = "__mcount_loc";
    let text = site(&module, &TestKernel::default(), &[RET, 0x9400_0123, RET], 4).0;
    assert_eq!(text, [RET, NOP, RET], "FIN-40: 5.4");
    let text = site(&traced("5.4.0"), &TestKernel::default(), &[NOP, NOP], 0).0;
    assert_eq!(text, [NOP, NOP], "FIN-40: 5.4 does not look at {SITES}");
}

#[test]
fn fin_53_nop_or_branch() {
    traced("6.12.0").run(&TestKernel::default(), |m| {
        let text = address(m, ".text");
        let word = |jump, target| {
            Aarch64
                .jump_label_insn(m, text, target, jump)
                .map(|b| b.try_into().map(u32::from_le_bytes).unwrap())
        };
        assert_eq!(word(false, text + 8), Some(NOP), "FIN-53");
        assert_eq!(word(true, text + 8), Some(branch(text, text + 8)), "FIN-53");
        assert_eq!(word(true, text + (128 << 20)), Some(BREAK_FAULT), "FIN-53: out of reach");
        assert_eq!(Aarch64.jump_label_insn(m, 0x1000, text, true), None, "FIN-53: not the module's");
    });
}

#[test]
fn fin_34_shadow_call_stack_is_not_modelled() {
    for (name, want) in [(".init.eh_frame", 1), (".eh_frame", 0)] {
        let module = TestModule::arm64("6.12.0", &[(name, RODATA, 64)]);
        module.run(&TestKernel::default(), |m| {
            Aarch64.module_finalize(m);
            assert_eq!(m.record.unknown.len(), want, "FIN-34: {name}");
        });
    }
}

#[test]
fn fin_36_callbacks_that_are_not_the_kernels() {
    const TEXT: u64 = BASE - 0x2000_0000;
    let symbols = [("_stext", TEXT), ("_etext", TEXT + 0x10_0000)];
    let known = TestKernel { symbols: symbols.into(), ..kernel(&[(9, true), (10, false)]) };
    let unknown = kernel(&[(9, true)]);
    // Where the callback is if not in the module's code, and what comes of it: a refusal, a crash, or an open rule.
    for (release, kernel, word, alt, want) in [
        ("6.12.0", &known, 9, None, (None, true, None)),
        ("6.19.0", &known, 9, None, (Some("ENOEXEC"), false, None)),
        ("6.17.12", &known, 9, None, (Some("ENOEXEC"), false, None)),
        ("6.17.11", &known, 9, None, (None, true, None)),
        ("6.19.0", &known, 10, None, (None, false, None)),
        ("6.19.0", &known, 9, Some(TEXT), (None, false, Some("FIN-36"))),
        ("6.19.0", &known, 9, Some(TEXT + 0x10_0000), (Some("ENOEXEC"), false, None)),
        ("6.19.0", &unknown, 9, Some(PATCH_NOPS), (None, false, None)),
        ("6.19.0", &unknown, 9, Some(PATCH_NOPS + 0x100), (None, false, Some("FIN-36"))),
        ("6.19.0", &unknown, 9, None, (Some("ENOEXEC"), false, None)),
    ] {
        alternatives(release, 1).run(kernel, |m| {
            let [text, code, table] = [".text", ".altinstr_replacement", ALT].map(|name| address(m, name));
            put(m, table, &alt_instr(table, text, alt.unwrap_or(code), word | 0x8000, 8, 0));
            alternative::apply_alternatives_module(m);
            let refusal = m.said.errno().map(elf_layout::Errno::name);
            let crashes = m.said.refused() && refusal.is_none();
            let open = m.said.open_rules().first().map(|rule| rule.code);
            assert_eq!((refusal, crashes, open), want, "FIN-36: {release} {word} {alt:x?}");
            let lines: Vec<_> = m.said.dmesg().collect();
            let line = "Modules: module : error occurred when applying alternatives";
            assert_eq!(lines, if refusal.is_some() { vec![line] } else { vec![] }, "FIN-36");
        });
    }
}

#[test]
fn fin_35_capabilities_that_do_not_exist() {
    for (release, number, unknowable) in [
        ("6.12.0", 100, false),
        ("6.12.0", 512, false),
        ("6.12.0", 4095, false),
        ("6.12.0", 4096, true),
        ("6.12.0", 0x7fff, true),
        ("5.10.0", 511, false),
        ("5.10.0", 512, true),
    ] {
        alternatives(release, 1).run(&kernel(&[]), |m| {
            let [text, code, table] = [".text", ".altinstr_replacement", ALT].map(|name| address(m, name));
            put(m, table, &alt_instr(table, text, code, number, 4, 4));
            alternative::apply_alternatives_module(m);
            let found: Vec<_> = m.said.open_rules().iter().map(|rule| rule.code).collect();
            assert_eq!(found, if unknowable { vec!["FIN-35"] } else { vec![] }, "FIN-35: {release} {number}");
        });
    }
}
