//! Steps of x86_64 on small modules.

use alloc::vec;
use alloc::vec::Vec;

use super::insn::text_gen_insn;
use super::nops::NOP5;
use super::text::{CALL, JMP32};
use super::*;
use crate::Step;
use crate::testing::*;
use kernel::RunningKernel;

/// Where the boot CPU is described.
const BOOT_CPU: u64 = KERNEL + 0xd000;
/// Kernel text.
const KERNEL: u64 = 0xffff_ffff_8100_0000;
const RETURN_THUNK: u64 = KERNEL + 0x1000;
const MITIGATION: u64 = KERNEL + 0x2000;
const THUNKS: u64 = KERNEL + 0x3000;
const RETHUNK: u32 = 11 * 32 + 14;
const RETPOLINE: u32 = 11 * 32 + 12;
const LFENCE: u32 = 11 * 32 + 13;
const CALL_DEPTH: u32 = 11 * 32 + 19;
const PLAIN_RET: [u8; 5] = [0xc3, 0xcc, 0xcc, 0xcc, 0xcc];

/// A kernel with all mitigations built in, and CPUs with `on` but without the other features by name.
fn kernel(on: &[u32]) -> TestKernel {
    let pointer = KERNEL + 0x9000;
    let features = [RETPOLINE, LFENCE, RETHUNK, CALL_DEPTH, 21 * 32 + 6];
    TestKernel {
        symbols: [
            ("_text", KERNEL),
            ("_stext", KERNEL),
            ("_etext", KERNEL + 0x8000),
            ("__x86_return_thunk", RETURN_THUNK),
            ("x86_return_thunk", pointer),
            ("its_return_thunk", KERNEL + 0x2400),
            ("call_depth_return_thunk", KERNEL + 0x2800),
            ("__x86_indirect_thunk_array", THUNKS),
            ("__x86_indirect_call_thunk_array", THUNKS + 0x400),
            ("__x86_indirect_jump_thunk_array", THUNKS + 0x800),
            ("__x86_indirect_its_thunk_array", THUNKS + 0xc00),
            ("__fentry__", KERNEL + 0x4000),
            ("BUG_func", KERNEL + 0x5000),
            ("nop_func", KERNEL + 0x5100),
            ("pv_ops", KERNEL + 0xa000),
            ("_paravirt_nop", KERNEL + 0x5200),
            ("paravirt_BUG", KERNEL + 0x5300),
            ("ibt_selftest", KERNEL + 0x5400),
            ("__static_call_return0", KERNEL + 0x5500),
            ("__start_static_call_tramp_key", KERNEL + 0xb000),
            ("__stop_static_call_tramp_key", KERNEL + 0xb008),
            ("skl_call_thunk_template", KERNEL + 0xc000),
            ("skl_call_thunk_tail", KERNEL + 0xc009),
            ("boot_cpu_data", BOOT_CPU),
        ]
        .into(),
        // Family, vendor and model of a CPU that takes the nops of all later kernels.
        memory: vec![(pointer, MITIGATION.to_le_bytes().to_vec()), (BOOT_CPU, vec![6, 0, 0x9e])],
        types: ["x86", "x86_vendor", "x86_model"]
            .into_iter()
            .zip(0..)
            .map(|(path, offset)| (format!("cpuinfo_x86.{path}"), kernel::Member { offset, size: 1 }))
            .collect(),
        capabilities: features.iter().map(|f| (*f, on.contains(f))).collect(),
        ..TestKernel::default()
    }
}

/// The same with a CPU that takes the older nops, before 5.13.
fn kernel_of_an_old_cpu() -> TestKernel {
    let mut kernel = kernel(&[]);
    kernel.memory.retain(|(at, _)| *at != BOOT_CPU);
    kernel.memory.push((BOOT_CPU, vec![0x0f, 2, 0x6b]));
    kernel
}

#[test]
fn fin_24_sites_before_5_13_get_the_nops_of_the_cpu() {
    const K8: [u8; 5] = [0x66, 0x66, 0x66, 0x66, 0x90];
    let sections = [(".text", CODE, 64), ("__jump_table", DATA, 32)];
    let run = |release, kernel: &TestKernel| {
        TestModule::x86(release, &sections).run(kernel, |m| {
            let [text, table] = [".text", "__jump_table"].map(|name| address(m, name));
            put(m, text, &text_gen_insn(CALL, text, KERNEL + 0x4000));
            put(m, text + 8, &NOP5);
            put(m, text + 16, &text_gen_insn(JMP32, text + 16, text));
            for (n, site) in [text + 8, text + 16].into_iter().enumerate() {
                let at = table + 16 * n as u64;
                put(m, at, &relative(at, site));
            }
            assert!(X86_64.ftrace_init_nop(m, text).is_ok(), "FIN-42: {release}");
            sites::jump_label_apply_nops(m);
            (bytes(m, text, 5), bytes(m, text + 8, 5), bytes(m, text + 16, 1), m.record.unknown.len())
        })
    };
    let old = kernel_of_an_old_cpu();
    assert_eq!(run("5.10.0", &old), (K8.to_vec(), K8.to_vec(), vec![JMP32], 0), "FIN-24, FIN-53");
    let new = (NOP5.to_vec(), NOP5.to_vec(), vec![JMP32], 0);
    assert_eq!(run("5.10.0", &kernel(&[])), new, "FIN-24: a later CPU");
    assert_eq!(run("5.13.0", &old), new, "FIN-24: since 5.13");
    let mut unknown = kernel(&[]);
    unknown.symbols.remove("boot_cpu_data");
    let (ftrace, label, _, said) = run("5.10.0", &unknown);
    assert_eq!((ftrace[0], label, said), (CALL, NOP5.to_vec(), 1), "FIN-24: the CPU is not known");
}

#[test]
fn layout_51_what_the_kernel_takes_first() {
    let first = |release: &str, symbols: &[&str]| {
        let config = KernelConfig::of_release(release, crate::MACHINES).unwrap();
        X86_64.module_area(&config, &|name| symbols.contains(&name).then_some(1)).direct.0
    };
    let base = first("6.12.0", &["load_module"]);
    assert_eq!(first("6.12.0", &[]), base + 0x20_1000, "LAYOUT-51: assumed where no symbols are known");
    assert_eq!(first("5.10.0", &[]), base + 0x2000, "LAYOUT-51: before packs of BPF programs");
    let compiles = ["load_module", "ptp_classifier_init", "bpf_jit_binary_alloc"];
    assert_eq!(first("6.12.0", &compiles), base + 0x2000, "LAYOUT-51: symbols tell more than the version");
    let packs = [&compiles[..], &["bpf_prog_pack_alloc"]].concat();
    assert_eq!(first("5.10.0", &packs), base + 0x20_1000, "LAYOUT-51: with packs");
}

/// A self-relative s32 at `at`.
fn relative(at: u64, to: u64) -> [u8; 4] {
    (to.wrapping_sub(at) as u32).to_le_bytes()
}

fn bytes(module: &Finalizer<'_, '_>, at: u64, len: u64) -> Vec<u8> {
    module.read(at, len).unwrap().to_vec()
}

fn codes(module: &Finalizer<'_, '_>) -> Vec<&'static str> {
    module.said.iter().map(|f| f.code).collect()
}

/// A module with a list of `entries` sites.
fn with_list(release: &str, list: &'static str, entries: usize) -> TestModule {
    TestModule::x86(release, &[(".text", CODE, 256), (list, RODATA, 4 * entries)])
}

/// Code, what may stand there, what was not known, and findings.
type Seen = (Vec<u8>, Vec<Vec<u8>>, Vec<alloc::string::String>, Vec<&'static str>);

/// Puts `code` into .text, lists its start, runs the step, and gives what stands there then.
fn one_site(
    module: &TestModule,
    kernel: &TestKernel,
    code: &[u8],
    step: impl FnOnce(&mut Finalizer<'_, '_>),
) -> Seen {
    let list = module.sections[1].0;
    module.run(kernel, |m| {
        let [text, at] = [".text", list].map(|name| address(m, name));
        put(m, text, code);
        put(m, at, &relative(at, text));
        step(m);
        let may = m.record.choices.first().map_or(Vec::new(), |c| c.may.clone());
        (bytes(m, text, code.len() as u64), may, m.record.unknown.clone(), codes(m))
    })
}

#[test]
fn fin_72_returns() {
    let module = with_list("6.12.0", ".return_sites", 1);
    let text = module.run(&kernel(&[]), |m| address(m, ".text"));
    let compiled = text_gen_insn(JMP32, text, RETURN_THUNK);
    let run = |kernel: &TestKernel, code: &[u8]| one_site(&module, kernel, code, returns::apply_returns);
    let (code, may, ..) = run(&kernel(&[]), &compiled);
    assert_eq!(code, PLAIN_RET, "FIN-72: no thunk needed");
    assert_eq!(may[0], compiled, "FIN-72: first of all what was compiled");
    assert!(may.contains(&PLAIN_RET.to_vec()) && may.len() == 4, "FIN-72: {may:02x?}");
    let (code, ..) = run(&kernel(&[RETHUNK]), &compiled);
    assert_eq!(code, text_gen_insn(JMP32, text, MITIGATION), "FIN-72: the mitigation's thunk");
    let mut unknown = kernel(&[]);
    unknown.capabilities.clear();
    let (code, _, said, _) = run(&unknown, &compiled);
    assert_eq!((code, said), (compiled.to_vec(), vec!["X86_FEATURE_RETHUNK".into()]), "FIN-72");
    // The trampoline of a static call that was patched before.
    let trampoline = [&PLAIN_RET[..], &[0x0f, 0xb9, 0xcc]].concat();
    let (code, ..) = run(&kernel(&[RETHUNK]), &trampoline);
    assert_eq!(code[..5], text_gen_insn(JMP32, text, MITIGATION), "FIN-72: __static_call_fixup");
    let (code, _, _, said) = run(&kernel(&[]), &[0xe8, 0, 0, 0, 0]);
    assert_eq!((code, said), (vec![0xe8, 0, 0, 0, 0], vec!["FIN-72"]), "FIN-72: missing return thunk");
}

#[test]
fn fin_72_the_kernel_names_addresses_of_an_unformed_module() {
    let module = with_list("6.12.0", ".return_sites", 1);
    module.run(&kernel(&[]), |m| {
        let [text, at] = [".text", ".return_sites"].map(|name| address(m, name));
        put(m, text, &[0x90; 5]);
        put(m, at, &relative(at, text));
        returns::apply_returns(m);
        let line = alloc::format!("missing return thunk: {text:#x}-0x0: 90 90 90 90 90");
        assert_eq!(m.said.dmesg().collect::<Vec<_>>(), [line], "FIN-72");
    });
}

#[test]
fn fin_70_retpolines() {
    let module = with_list("6.12.0", ".retpoline_sites", 1);
    let text = module.run(&kernel(&[]), |m| address(m, ".text"));
    let call = text_gen_insn(CALL, text, THUNKS + 32 * 3);
    let run = |on: &[u32], code: &[u8]| {
        let (code, _, _, said) = one_site(&module, &kernel(on), code, |m| {
            retpolines::apply_retpolines(m, &cfi_mode::Cfi::default());
        });
        (code, said)
    };
    assert_eq!(run(&[], &call).0, [0xff, 0xd3, 0x0f, 0x1f, 0x00], "FIN-70: call *%rbx");
    assert_eq!(run(&[RETPOLINE], &call).0, call, "FIN-70: the thunk stays");
    assert_eq!(run(&[RETPOLINE, LFENCE], &call).0, [0x0f, 0xae, 0xe8, 0xff, 0xd3], "FIN-70: lfence");
    let tracked = text_gen_insn(CALL, text, THUNKS + 0x400 + 32 * 3);
    assert_eq!(run(&[RETPOLINE, CALL_DEPTH], &call).0, tracked, "FIN-71: call depth");
    assert_eq!(
        run(&[], &text_gen_insn(CALL, text, KERNEL)),
        (text_gen_insn(CALL, text, KERNEL).to_vec(), vec!["FIN-70"])
    );
    assert_eq!(run(&[], &text_gen_insn(CALL, text, THUNKS + 32 * 4)).1, ["FIN-70"], "FIN-70: rsp");
}

#[test]
fn fin_71_its_thunks_are_run_time_state() {
    let module = with_list("6.12.0", ".retpoline_sites", 1);
    module.run(&kernel(&[21 * 32 + 6]), |m| {
        let [text, at] = [".text", ".retpoline_sites"].map(|name| address(m, name));
        put(m, text, &text_gen_insn(CALL, text, THUNKS));
        put(m, at, &relative(at, text));
        retpolines::apply_retpolines(m, &cfi_mode::Cfi::default());
        assert_eq!(bytes(m, text, 5), text_gen_insn(CALL, text, THUNKS + 0xc00), "FIN-71");
        let runtime: Vec<_> = m.record.runtime.iter().map(|r| (r.place.offset, r.len)).collect();
        assert_eq!(runtime, [(1, 4)], "FIN-71: the distance depends on an allocated page");
    });
}

#[test]
fn fin_73_paravirt() {
    let module = TestModule::x86("6.1.0", &[(".text", CODE, 64), (".parainstructions", RODATA, 16)]);
    let run = |op: Option<u64>, len: u8| {
        let mut kernel = kernel(&[]);
        kernel.memory.extend(op.map(|op| (KERNEL + 0xa000 + 8 * 5, op.to_le_bytes().to_vec())));
        module.run(&kernel, |m| {
            let [text, at] = [".text", ".parainstructions"].map(|name| address(m, name));
            put(m, at, &text.to_le_bytes());
            put(m, at + 8, &[5, len]);
            paravirt::apply_paravirt(m);
            (bytes(m, text, 7), codes(m), m.record.unknown.clone(), text)
        })
    };
    let (code, _, _, text) = run(Some(KERNEL), 7);
    assert_eq!(code, [&text_gen_insn(CALL, text, KERNEL)[..], &[0x66, 0x90]].concat(), "FIN-73");
    assert_eq!(run(Some(0), 5).0[..5], text_gen_insn(CALL, text, KERNEL + 0x5300), "FIN-73: paravirt_BUG");
    assert_eq!(run(Some(KERNEL + 0x5200), 5).0[..5], NOP5, "FIN-73: _paravirt_nop");
    assert_eq!(run(None, 5).2, ["pv_ops"], "FIN-73");
    assert_eq!(run(Some(KERNEL), 4).1, ["FIN-73"], "FIN-73: BUG");
}

#[test]
fn fin_74_endbr() {
    let module = with_list("6.12.0", ".ibt_endbr_seal", 1);
    let run = |kernel: &TestKernel, code: [u8; 4]| {
        let (code, _, _, said) = one_site(&module, kernel, &code, |m| {
            ibt::apply_seal_endbr(m, &mut cfi_mode::Cfi::default());
        });
        (code, said)
    };
    let (endbr, poison) = ([0xf3, 0x0f, 0x1e, 0xfa], vec![0x66, 0x0f, 0x1f, 0x00]);
    assert_eq!(run(&kernel(&[]), endbr), (poison, vec![]), "FIN-74");
    assert_eq!(run(&kernel(&[]), [0x90; 4]), (vec![0x90; 4], vec!["FIN-74"]), "FIN-74: no ENDBR");
    let mut without = kernel(&[]);
    without.symbols.remove("ibt_selftest");
    assert_eq!(run(&without, endbr).0, endbr, "FIN-74: without CONFIG_X86_KERNEL_IBT");
}

#[test]
fn fin_75_locks() {
    for release in ["6.1.0", "6.12.0"] {
        let module = with_list(release, ".smp_locks", 1);
        let run = |cpus, code: u8| {
            let kernel = TestKernel { cpus, ..kernel(&[]) };
            let (code, may, unknown, _) =
                one_site(&module, &kernel, &[code], smp_locks::alternatives_smp_module_add);
            (code[0], may.len(), unknown.len())
        };
        assert_eq!(run(Some(1), 0xf0), (0x3e, 2, 0), "FIN-75: {release}");
        assert_eq!(run(Some(2), 0xf0), (0xf0, 2, 0), "FIN-75: {release}");
        assert_eq!(run(None, 0xf0), (0xf0, 2, 1), "FIN-75: {release}");
        assert_eq!(run(Some(1), 0x90), (0x90, 0, 0), "FIN-75: no lock, {release}");
    }
}

#[test]
fn fin_42_ftrace_sites() {
    let module = TestModule::x86("6.12.0", &[(".text", CODE, 64)]);
    module.run(&kernel(&[]), |m| {
        assert_eq!(X86_64.ftrace_callsites(m.info.config), "__mcount_loc", "FIN-40");
        let text = address(m, ".text");
        for (code, good) in [
            (text_gen_insn(CALL, text, KERNEL + 0x4000), true),
            (NOP5, true),
            (text_gen_insn(CALL, text, KERNEL), false),
        ] {
            put(m, text, &code);
            let made = X86_64.ftrace_init_nop(m, text);
            let call = text_gen_insn(CALL, text, KERNEL + 0x4000).to_vec();
            let unexpected = FtraceBug::Unexpected { at: text, shown: 5, expected: Some(call) };
            assert_eq!(made, if good { Ok(()) } else { Err(unexpected) }, "FIN-42, FIN-47: {code:02x?}");
            assert_eq!(bytes(m, text, 5) == NOP5, good, "FIN-42: {code:02x?}");
        }
        let far = text + 0x10_0000;
        assert_eq!(X86_64.ftrace_init_nop(m, far), Err(FtraceBug::Faulted(far)), "FIN-47: nothing there");
    });
}

#[test]
fn fin_53_and_54_jump_labels() {
    let run = |release, code: &[u8], jump| {
        TestModule::x86(release, &[(".text", CODE, 64)]).run(&kernel(&[]), |m| {
            let text = address(m, ".text");
            put(m, text, code);
            X86_64.jump_label_insn(m, text, text + 0x20, jump)
        })
    };
    assert_eq!(run("6.1.0", &[0x66, 0x90], true), Some(vec![0xeb, 0x1e]), "FIN-54: two bytes");
    assert_eq!(run("6.1.0", &[0xeb, 0x1e], false), Some(vec![0x66, 0x90]), "FIN-53");
    assert_eq!(run("6.1.0", &NOP5, true), Some(vec![0xe9, 0x1b, 0, 0, 0]), "FIN-53");
    assert_eq!(run("5.13.0", &[0x66, 0x90], true), Some(vec![0xe9, 0x1b, 0, 0, 0]), "FIN-54: 5.13");
    assert_eq!(run("6.1.0", &[0x90], true), None, "FIN-53: neither");
}

/// An entry of .altinstructions at `at`, of the form that `release` has.
fn alt_instr(
    release: &str,
    at: u64,
    instr: u64,
    repl: u64,
    cpuid: u16,
    flags: u16,
    lens: [u8; 2],
) -> Vec<u8> {
    let mut raw = [relative(at, instr), relative(at + 4, repl)].concat();
    match release {
        "5.10.0" => {
            raw.extend(cpuid.to_le_bytes());
            raw.extend([lens[0], lens[1], lens[0] - lens[1]]);
        }
        "6.1.0" => {
            raw.extend((cpuid | (flags & 1) << 15).to_le_bytes());
            raw.extend(lens);
        }
        _ => {
            raw.extend(cpuid.to_le_bytes());
            raw.extend(flags.to_le_bytes());
            raw.extend(lens);
        }
    }
    raw
}

/// Applies entries (feature, flags, length of the site, replacement) to `code` and gives it back, the lengths
/// that the entries have then, and what was not known and may stand there.
type Entry<'a> = (u16, u16, u8, &'a [u8]);
fn alternatives_of(
    release: &'static str,
    kernel: &TestKernel,
    code: &[u8],
    entries: &[Entry<'_>],
) -> (Vec<u8>, Vec<u8>, Vec<alloc::string::String>, Vec<Vec<u8>>) {
    let size = match release {
        "5.10.0" => 13,
        "6.1.0" => 12,
        _ => 14,
    };
    let sections = [
        (".text", CODE, 512),
        (".altinstr_replacement", CODE, 256),
        (".altinstructions", RODATA, size * entries.len()),
    ];
    TestModule::x86(release, &sections).run(kernel, |m| {
        let [text, mut repl, mut at] =
            [".text", ".altinstr_replacement", ".altinstructions"].map(|name| address(m, name));
        let first = at;
        put(m, text, code);
        for (cpuid, flags, len, replacement) in entries {
            let lens = [*len, replacement.len() as u8];
            put(m, at, &alt_instr(release, at, text, repl, *cpuid, *flags, lens));
            put(m, repl, replacement);
            at += size as u64;
            repl += replacement.len() as u64;
        }
        alternatives::apply_alternatives(m);
        let lens = (0..entries.len())
            .map(|n| bytes(m, first + (n * size) as u64, size as u64)[if size == 14 { 12 } else { 10 }]);
        let lens = lens.collect();
        let may = m.record.choices.first().map_or(Vec::new(), |c| c.may.clone());
        (bytes(m, text, code.len() as u64), lens, m.record.unknown.clone(), may)
    })
}

fn cpu(capabilities: &[(u32, bool)]) -> TestKernel {
    let mut kernel = kernel(&[]);
    kernel.capabilities.extend(capabilities.iter().copied());
    kernel
}

#[test]
fn fin_21_to_24_applied_or_not() {
    let code = [0x0f, 0x01, 0xca, 0x90, 0x90, 0xc3];
    let with = |release, has| {
        let entry: Entry<'_> = (9 * 32 + 20, 0, 5, &[0xf3, 0x0f, 0x1e, 0xfa]);
        alternatives_of(release, &cpu(&[(9 * 32 + 20, has)]), &code, &[entry]).0
    };
    // A single 90 at the end is left; two become one nop.
    for release in ["6.1.0", "6.12.0"] {
        assert_eq!(with(release, true), [0xf3, 0x0f, 0x1e, 0xfa, 0x90, 0xc3], "FIN-23: {release}");
        assert_eq!(with(release, false), [0x0f, 0x01, 0xca, 0x66, 0x90, 0xc3], "FIN-22: {release}");
    }
    assert_eq!(with("5.10.0", true), [0xf3, 0x0f, 0x1e, 0xfa, 0x90, 0xc3], "FIN-23: 5.10");
    assert_eq!(with("5.10.0", false), code, "FIN-22: 5.10 looks at one byte of padding only");
    let inverted = |release, has| {
        let entry: Entry<'_> = (70, 1, 2, &[0x31, 0xc0]);
        alternatives_of(release, &cpu(&[(70, has)]), &[0x89, 0xd8], &[entry]).0
    };
    for release in ["6.1.0", "6.12.0"] {
        assert_eq!(inverted(release, true), [0x89, 0xd8], "FIN-21: NOT, {release}");
        assert_eq!(inverted(release, false), [0x31, 0xc0], "FIN-21: NOT, {release}");
    }
}

#[test]
fn fin_21_unknown_features() {
    let entry: Entry<'_> = (70, 0, 2, &[0x31, 0xc0]);
    let always: Entry<'_> = (cpu::ALWAYS, 0, 2, &[0x31, 0xc9]);
    let (code, _, unknown, may) = alternatives_of("6.12.0", &kernel(&[]), &[0x89, 0xd8], &[entry]);
    assert_eq!((code, unknown), (vec![0x89, 0xd8], vec!["CPU feature 2*32+6".into()]), "FIN-21");
    assert_eq!(may, [[0x89, 0xd8], [0x31, 0xc0]], "FIN-21: both may stand there");
    let (code, _, unknown, _) = alternatives_of("6.12.0", &kernel(&[]), &[0x89, 0xd8], &[entry, always]);
    assert_eq!((code, unknown.len()), (vec![0x31, 0xc9], 0), "FIN-21: a later entry settles it");
    let crash: Entry<'_> = (70, 0, 255, &[0x31, 0xc0]);
    let module = alternatives_of("6.12.0", &kernel(&[]), &[0x90; 255], &[crash]);
    assert_eq!(module.0, [0x90; 255], "FIN-21: BUG");
}

#[test]
fn fin_20_one_length_for_a_site() {
    let entries: [Entry<'_>; 3] = [(70, 0, 2, &[]), (71, 0, 5, &[]), (72, 0, 3, &[])];
    let off = cpu(&[(70, false), (71, false), (72, false)]);
    let code = [0x90; 5];
    let (text, lens, ..) = alternatives_of("6.12.0", &off, &code, &entries);
    assert_eq!((text, lens), (NOP5.to_vec(), vec![5, 5, 5]), "FIN-20");
    let (_, lens, ..) = alternatives_of("6.1.0", &off, &code, &entries);
    assert_eq!(lens, [2, 5, 3], "FIN-20: not before 6.11");
    let (text, lens, ..) = alternatives_of("7.0.0", &off, &code, &entries);
    assert_eq!((text, lens), (NOP5.to_vec(), vec![2, 5, 3]), "FIN-26: records stay as they are since 7.0");
}

#[test]
fn fin_23_branches_follow() {
    let on = cpu(&[(70, true)]);
    let text = TestModule::x86("6.12.0", &[(".text", CODE, 512)]).run(&on, |m| address(m, ".text"));
    // The replacement stands 512 bytes behind the site.
    let repl = text + 512;
    let call = text_gen_insn(CALL, repl, KERNEL);
    for release in ["5.10.0", "6.1.0", "6.12.0"] {
        let (code, ..) = alternatives_of(release, &on, &[0x90; 6], &[(70, 0, 6, &call)]);
        assert_eq!(code[..5], text_gen_insn(CALL, text, KERNEL), "FIN-23: {release}");
    }
    let near = text_gen_insn(JMP32, repl, text + 0x40);
    let code = |release| alternatives_of(release, &on, &[0x90; 5], &[(70, 0, 5, &near)]).0;
    assert_eq!(code("6.1.0"), [0xeb, 0x3e, 0x0f, 0x1f, 0x00], "FIN-23: short, then a nop");
    assert_eq!(code("6.12.0"), [0xeb, 0x3e, 0xcc, 0xcc, 0xcc], "FIN-23: short, then int3");
    let back = text_gen_insn(JMP32, repl, text - 0x10);
    let code = |release| alternatives_of(release, &on, &[0x90; 5], &[(70, 0, 5, &back)]).0;
    assert_eq!(code("6.1.0"), text_gen_insn(JMP32, text, text - 0x10), "FIN-23: backward stays long");
    assert_eq!(code("6.12.0"), [0xeb, 0xee, 0xcc, 0xcc, 0xcc], "FIN-23: backward");
    // Inside of the block and to its end nothing changes; RIP-relative operands do.
    let inner = [0x74, 0x02, 0x31, 0xc0];
    let (code, ..) = alternatives_of("6.12.0", &on, &[0x90; 4], &[(70, 0, 4, &inner)]);
    assert_eq!(code, inner, "FIN-23: to the end of the block");
    let load = [0x48, 0x8b, 0x05, 0, 0, 0x01, 0];
    let (code, ..) = alternatives_of("6.12.0", &on, &[0x90; 7], &[(70, 0, 7, &load)]);
    assert_eq!(code, [0x48, 0x8b, 0x05, 0, 2, 1, 0], "FIN-23: RIP-relative");
}

#[test]
fn fin_25_direct_calls() {
    let slot = KERNEL + 0xa000;
    let text = TestModule::x86("6.12.0", &[(".text", CODE, 512)]).run(&kernel(&[]), |m| address(m, ".text"));
    let original = [&[0xff, 0x15][..], &relative(text + 6, slot)].concat();
    let bug = text_gen_insn(CALL, text + 512, KERNEL + 0x5000);
    let run = |op: Option<u64>| {
        let mut kernel = kernel(&[]);
        kernel.memory.extend(op.map(|op| (slot, op.to_le_bytes().to_vec())));
        let (code, _, unknown, _) =
            alternatives_of("6.12.0", &kernel, &original, &[(cpu::ALWAYS, 2, 6, &bug)]);
        (code, unknown)
    };
    let call = |to| [&text_gen_insn(CALL, text, to)[..], &[0x90]].concat();
    assert_eq!(run(Some(KERNEL + 0x40)).0, call(KERNEL + 0x40), "FIN-25");
    assert_eq!(run(Some(0)).0, call(KERNEL + 0x5000), "FIN-25: BUG_func");
    assert_eq!(run(Some(KERNEL + 0x5100)).0, [0x66, 0x0f, 0x1f, 0x44, 0, 0], "FIN-25: nop_func");
    assert_eq!(run(None), (original.clone(), vec!["pv_ops".into()]), "FIN-25: not known");
}

#[test]
fn fin_77_call_thunks() {
    let mut kernel = kernel(&[RETPOLINE, RETHUNK, CALL_DEPTH]);
    // sarq $5, %gs:X(%rip), as linked to a per-cpu address of 0x1234.
    let template_at = KERNEL + 0xc000;
    kernel.symbols.insert("pcpu_hot", 0x1200);
    let displacement = 0x1234u64.wrapping_sub(template_at + 8 + 1) as u32;
    let template = |d: u32| [&[0x65, 0x48, 0xc1, 0x3d][..], &d.to_le_bytes(), &[5]].concat();
    kernel.memory.push((template_at, template(displacement)));
    let free = KERNEL + 0x6000;
    kernel.memory.push((free - 9, vec![0x90; 9]));
    kernel.memory.push((free + 0x100 - 9, vec![0xcc; 9]));
    let module = with_list("6.12.0", ".call_sites", 3);
    module.run(&kernel, |m| {
        let [text, at] = [".text", ".call_sites"].map(|name| address(m, name));
        let own = text + 0x80;
        put(m, own - 16, &[0x90; 16]);
        for (n, target) in [(0, free), (1, own), (2, free + 0x100)] {
            put(m, text + 8 * n, &text_gen_insn(CALL, text + 8 * n, target));
            put(m, at + 4 * n, &relative(at + 4 * n, text + 8 * n));
        }
        callthunks::callthunks_patch_module_calls(m, core::iter::empty());
        assert_eq!(bytes(m, text, 5), text_gen_insn(CALL, text, free - 9), "FIN-77: the kernel's padding");
        assert_eq!(bytes(m, text + 8, 5), text_gen_insn(CALL, text + 8, own - 9), "FIN-77: its own");
        let code = template(0x1234u64.wrapping_sub(own) as u32);
        assert_eq!(bytes(m, own - 9, 9), code, "FIN-77: the padding is filled");
        assert_eq!(bytes(m, own - 10, 1), [0x90]);
        let left = text_gen_insn(CALL, text + 16, free + 0x100);
        assert_eq!(bytes(m, text + 16, 5), left, "FIN-77: no padding there");
    });
}

/// Without the kernel's text: what tells where padding is.
#[test]
fn fin_77_padding_that_cannot_be_read() {
    let module = with_list("6.12.0", ".call_sites", 2);
    // Where a call goes that is listed twice, as calls in alternatives are, and whether that is known.
    let run = |prefixes: &[(&'static str, u64)], target: u64| {
        let mut kernel = kernel(&[RETPOLINE, RETHUNK, CALL_DEPTH]);
        let template = [0x65, 0x48, 0xc1, 0x3c, 0x25, 0, 0, 0, 5];
        kernel.memory.push((KERNEL + 0xc000, template.to_vec()));
        kernel.symbols.extend(prefixes.iter().copied());
        module.run(&kernel, |m| {
            let [text, at] = [".text", ".call_sites"].map(|name| address(m, name));
            put(m, text, &text_gen_insn(CALL, text, target));
            for at in [at, at + 4] {
                put(m, at, &relative(at, text));
            }
            callthunks::callthunks_patch_module_calls(m, core::iter::empty());
            let goes = (text + 5).wrapping_add_signed(i64::from(m.u32(text + 1).unwrap() as i32));
            (target - goes, m.record.unknown.is_empty())
        })
    };
    let (function, other) = (KERNEL + 0x6000, KERNEL + 0x6100);
    let known = [("__pfx__printk", KERNEL + 0x40), ("__pfx_function", function - 16)];
    assert_eq!(run(&known, function), (9, true), "FIN-77: named padding; once only");
    assert_eq!(run(&known, other), (0, true), "FIN-77: entry code has none");
    assert_eq!(run(&[], function), (9, false), "FIN-77: supposed; once only");
    assert_eq!(run(&known[1..], other), (9, false), "FIN-77: not all symbols of padding are at hand");
    assert_eq!(run(&[], function + 8), (0, true), "FIN-77: no function begins there");
    let elsewhere = 0xffff_ffff_a000_0000;
    assert_eq!(run(&known, elsewhere), (9, false), "FIN-77: another module's");
}

/// A module with sites (offset in .text, code, address of the key) of static calls.
fn static_calls_of<T>(
    kernel: &TestKernel,
    sites: &[(u64, &[u8], u64)],
    test: impl FnOnce(&mut Finalizer<'_, '_>, u64, u64) -> T,
) -> T {
    let sections = [
        (".text", CODE, 256),
        (".init.text", CODE, 256),
        (".data", DATA, 64),
        (".static_call_sites", DATA, 8 * sites.len()),
    ];
    TestModule::x86("6.12.0", &sections).run(kernel, |m| {
        let [text, at] = [".text", ".static_call_sites"].map(|name| address(m, name));
        for ((offset, code, key), at) in sites.iter().zip((at..).step_by(8)) {
            put(m, text + offset, code);
            put(m, at, &relative(at, text + offset));
            put(m, at + 4, &relative(at + 4, *key));
        }
        static_calls::static_call_add_module(m);
        test(m, text, at)
    })
}

#[test]
fn fin_60_trampolines_become_keys() {
    let mut kernel = kernel(&[]);
    let (tramp, key, func) = (KERNEL + 0x7000, KERNEL + 0xd000, KERNEL + 0x7100);
    let table = KERNEL + 0xb000;
    let record = [relative(table, tramp), relative(table + 4, key)].concat();
    kernel.memory.push((table, record));
    kernel.memory.push((key, func.to_le_bytes().to_vec()));
    // What is taken for the list of a key at tramp + 8.
    kernel.memory.push((tramp + 16, vec![0; 8]));
    let call = [CALL, 0, 0, 0, 0];
    static_calls_of(&kernel, &[(0, &call, tramp), (16, &[JMP32, 0, 0, 0, 0], tramp | 1)], |m, text, at| {
        assert_eq!(bytes(m, text, 5), text_gen_insn(CALL, text, func), "FIN-61: call");
        assert_eq!(bytes(m, text + 16, 5), text_gen_insn(JMP32, text + 16, func), "FIN-61: tail call");
        // Two equal keys: the newer heapsort turns them around (FIN-9).
        let keys = [m.relative(at + 4).unwrap(), m.relative(at + 12).unwrap()];
        assert_eq!(keys.map(|k| k & !3), [key; 2], "FIN-60");
    });
    let text = static_calls_of(&kernel, &[(0, &call, tramp + 8)], |m, text, _| {
        assert_eq!(m.said.errno(), Some(elf_layout::Errno::EINVAL), "FIN-60: no such trampoline");
        assert_eq!(codes(m), ["FIN-60"]);
        assert_eq!(bytes(m, text, 5), call);
        assert!(m.said.open_rules().is_empty(), "FIN-60");
        text
    });
    // On the way back a key in code is followed, which is patched by then.
    static_calls_of(&kernel, &[(0, &call, tramp + 8), (16, &call, text + 8)], |m, _, _| {
        assert_eq!(codes(m), ["FIN-60"]);
        assert!(m.said.open_rules().iter().any(|rule| rule.code == "FIN-60"), "FIN-60: a key in code");
    });
}

#[test]
fn fin_61_own_keys_and_bad_sites() {
    let kernel = kernel(&[]);
    let at = static_calls_of(&kernel, &[(0, &[CALL, 0, 0, 0, 0], KERNEL + 0xd000)], |m, _, at| {
        assert_eq!(m.record.unknown, ["functions of static call keys"], "FIN-61");
        (address(m, ".data"), at)
    });
    static_calls_of(&kernel, &[(0, &[CALL, 1, 2, 3, 4], at.0)], |m, text, _| {
        assert_eq!(bytes(m, text, 5), NOP5, "FIN-61: a key of the module without a function");
        let runtime: Vec<_> = m.record.runtime.iter().map(|r| (r.place.offset, r.len)).collect();
        assert_eq!(runtime, [(m.place_of(at.0).unwrap().offset + 8, 8)], "FIN-61: key->mods");
    });
    static_calls_of(&kernel, &[(0, &[0xc3], at.0)], |m, _, _| {
        assert!(m.said.refused(), "FIN-61: unexpected static_call insn opcode");
    });
}

#[test]
fn whole_order_on_an_empty_module() {
    // Nothing to patch, nothing asked for.
    let module = TestModule::x86("6.12.0", &[(".text", CODE, 64)]);
    let kernel = TestKernel::default();
    assert_eq!(kernel.cpus(), None);
    module.run(&kernel, |m| {
        X86_64.module_finalize(m);
        X86_64.static_calls(m);
        assert!(m.record.patches.is_empty() && m.record.unknown.is_empty());
        assert_eq!(steps(m), [] as [Step; 0]);
    });
}
