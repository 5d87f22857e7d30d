//! FineIBT and kCFI on a small module (FIN-90 to FIN-93).

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::cfi_mode::{Cfi, Mode};
use super::fineibt::apply_fineibt;
use super::ibt::apply_seal_endbr;
use crate::Finalizer;
use crate::testing::*;

const KERNEL: u64 = 0xffff_ffff_8100_0000;
const TEMPLATES: u64 = KERNEL + 0x1000;
const VARIABLES: u64 = KERNEL + 0x2000;
const HASH: u32 = 0x1122_3344;
const SEED: u32 = 0xdead_beef;
const HASHED: u32 = HASH ^ SEED;
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const POISON: [u8; 4] = [0x66, 0x0f, 0x1f, 0x00];

/// Preamble and caller of v6.12.
fn templates() -> Vec<u8> {
    let preamble =
        [0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x81, 0xea, 0x78, 0x56, 0x34, 0x12, 0x74, 3, 0x0f, 0x0b, 0x90];
    let caller = [0x41, 0xba, 0x78, 0x56, 0x34, 0x12, 0x49, 0x83, 0xeb, 0x10, 0x0f, 0x1f, 0x40, 0x00];
    [&preamble[..], &caller].concat()
}

/// A kernel that runs in a mode with a seed, 0 for one that is not known.
fn kernel(mode: u32, seed: u32, cmdline: &'static str) -> TestKernel {
    TestKernel {
        symbols: [
            ("_text", KERNEL),
            ("_end", KERNEL + 0x10_0000),
            ("__init_begin", KERNEL + 0xf_0000),
            ("__init_end", KERNEL + 0x10_0000),
            ("ibt_selftest", KERNEL + 0x100),
            ("fineibt_preamble_start", TEMPLATES),
            ("fineibt_preamble_end", TEMPLATES + 16),
            ("fineibt_caller_start", TEMPLATES + 16),
            ("fineibt_caller_end", TEMPLATES + 30),
            ("cfi_mode", VARIABLES),
            ("cfi_seed", VARIABLES + 4),
        ]
        .into(),
        memory: vec![
            (TEMPLATES, templates()),
            (VARIABLES, [&mode.to_le_bytes()[..], &seed.to_le_bytes()].concat()),
        ],
        cmdline,
        ..TestKernel::default()
    }
}

/// What became of a module: preamble, function, caller; bytes that are not known, relative to the preamble; what was not known; codes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    preamble: Vec<u8>,
    function: Vec<u8>,
    caller: Vec<u8>,
    runtime: Vec<(u64, u64)>,
    unknown: Vec<String>,
    codes: Vec<&'static str>,
}

const PREAMBLE: [u8; 16] = {
    let [a, b, c, d] = HASH.to_le_bytes();
    [0xb8, a, b, c, d, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90]
};

fn caller(hash: u32) -> Vec<u8> {
    let hash = hash.wrapping_neg().to_le_bytes();
    [&[0x41, 0xba][..], &hash, &[0x45, 0x03, 0x53, 0xf1, 0x74, 2, 0x0f, 0x0b]].concat()
}

/// Runs both steps on a module with one function and one indirect call, which `change` may change first.
fn run(
    release: &str,
    kernel: &TestKernel,
    sealed: bool,
    change: impl FnOnce(&mut Finalizer<'_, '_>, u64),
) -> Seen {
    let mut sections = vec![(".text", CODE, 256), (".cfi_sites", RODATA, 4), (".retpoline_sites", RODATA, 4)];
    if sealed {
        sections.push((".ibt_endbr_seal", RODATA, 4));
    }
    TestModule::x86(release, &sections).run(kernel, |m| {
        let text = address(m, ".text");
        put(m, text, &PREAMBLE);
        put(m, text + 16, &ENDBR64);
        put(m, text + 64, &caller(HASH));
        let lists = [(".cfi_sites", text), (".retpoline_sites", text + 78), (".ibt_endbr_seal", text + 16)];
        for (list, site) in lists.into_iter().take(sections.len() - 1) {
            let at = address(m, list);
            put(m, at, &(site.wrapping_sub(at) as u32).to_le_bytes());
        }
        change(m, text);
        let mut cfi = apply_fineibt(m);
        apply_seal_endbr(m, &mut cfi);
        cfi.tell(m);
        let read = |at, len| m.read(at, len).unwrap().to_vec();
        Seen {
            preamble: read(text, 16),
            function: read(text + 16, 4),
            caller: read(text + 64, 14),
            runtime: runtime(m).into_iter().map(|(at, len)| (at - text, len)).collect(),
            unknown: m.record.unknown.clone(),
            codes: m.said.iter().map(|f| f.code).collect(),
        }
    })
}

fn untouched(_: &mut Finalizer<'_, '_>, _: u64) {}

fn with_hash(code: &[u8], at: usize, hash: u32) -> Vec<u8> {
    let mut code = code.to_vec();
    code[at..at + 4].copy_from_slice(&hash.to_le_bytes());
    code
}

fn known(preamble: Vec<u8>, function: [u8; 4], caller: Vec<u8>) -> Seen {
    let (runtime, unknown, codes) = (vec![], vec![], vec![]);
    Seen { preamble, function: function.to_vec(), caller, runtime, unknown, codes }
}

fn fineibt_preamble(hash: u32) -> Vec<u8> {
    with_hash(&templates()[..16], 7, hash)
}

fn fineibt_caller(hash: u32) -> Vec<u8> {
    with_hash(&templates()[16..], 2, hash)
}

#[test]
fn fin_92_kcfi_keeps_its_form_with_other_hashes() {
    let seen = run("6.12.0", &kernel(2, SEED, ""), false, untouched);
    assert_eq!(seen, known(with_hash(&PREAMBLE, 1, HASHED), ENDBR64, caller(HASHED)), "FIN-92");
    let seen = run("6.12.0", &kernel(2, SEED, "cfi=norand"), false, untouched);
    assert_eq!(seen, known(PREAMBLE.to_vec(), ENDBR64, caller(HASH)), "FIN-92: as compiled");
    let mut off = caller(HASH);
    off[..2].copy_from_slice(&[0xeb, 12]);
    let seen = run("6.12.0", &kernel(1, 0, "cfi=off"), false, untouched);
    assert_eq!(seen, known(PREAMBLE.to_vec(), ENDBR64, off), "FIN-92: callers jump over their check");
}

#[test]
fn fin_92_fineibt_rewrites_both() {
    let kernel = kernel(3, SEED, "");
    let seen = run("6.12.0", &kernel, false, untouched);
    assert_eq!(seen, known(fineibt_preamble(HASHED), POISON, fineibt_caller(HASHED)), "FIN-92");
    let seen = run("6.3.0", &kernel, false, untouched);
    assert_eq!(seen.function, ENDBR64, "FIN-92: before 6.5 the landing pad behind it stays");
    // A call that does not check.
    let seen = run("6.12.0", &kernel, false, |m, text| put(m, text + 64, &[0x90; 14]));
    assert_eq!((seen.caller, seen.codes), (vec![0x90; 14], vec![]), "FIN-92");
    // Since 6.15 a function without a landing pad keeps what it has.
    let newer = super::fineibt_tests::kernel(3, SEED, "cfi=fineibt");
    let plain = |m: &mut Finalizer<'_, '_>, text| put(m, text + 16, &[0x90; 4]);
    let seen = run("6.15.0", &newer, false, plain);
    assert_eq!(seen.preamble, with_hash(&PREAMBLE, 1, HASHED), "FIN-92: since 6.15");
    assert_eq!(run("6.14.0", &newer, false, plain).preamble, fineibt_preamble(HASHED), "FIN-92: before");
}

#[test]
fn fin_93_sealing_clears_the_hash() {
    let seen = run("6.12.0", &kernel(2, SEED, ""), true, untouched);
    assert_eq!(seen, known(with_hash(&PREAMBLE, 1, 0), POISON, caller(HASHED)), "FIN-93: kCFI");
    assert_eq!(run("6.3.0", &kernel(2, SEED, ""), true, untouched).preamble[1..5], HASHED.to_le_bytes());
    let seen = run("6.12.0", &kernel(3, SEED, ""), true, untouched);
    let mut sealed = fineibt_preamble(0);
    sealed[..4].copy_from_slice(&POISON);
    assert_eq!(seen, known(sealed, POISON, fineibt_caller(HASHED)), "FIN-93: FineIBT");
    let mut only_the_pad = fineibt_preamble(HASHED);
    only_the_pad[..4].copy_from_slice(&POISON);
    assert_eq!(run("6.3.0", &kernel(3, SEED, ""), true, untouched).preamble, only_the_pad, "FIN-93");
    assert_eq!(run("6.12.0", &kernel(1, 0, "cfi=off"), true, untouched).preamble, PREAMBLE, "FIN-93: off");
    // Whatever stands there, up to 6.14.
    let no_preamble = |m: &mut Finalizer<'_, '_>, text| {
        put(m, text, &[0x55; 16]);
        let list = address(m, ".cfi_sites");
        put(m, list, &(text.wrapping_add(128).wrapping_sub(list) as u32).to_le_bytes());
        put(m, text + 128, &PREAMBLE);
    };
    let mut hit = vec![0x55; 16];
    hit[1..5].fill(0);
    assert_eq!(run("6.12.0", &kernel(2, SEED, ""), true, no_preamble).preamble, hit, "FIN-93");
    assert_eq!(run("6.15.0", &kernel(2, SEED, ""), true, no_preamble).preamble, vec![0x55; 16], "FIN-93");
}

#[test]
fn fin_91_hashes_are_not_known_without_the_seed() {
    for (mode, at, in_caller) in [(2, 1, 66), (3, 7, 66)] {
        let seen = run("6.12.0", &kernel(mode, 0, ""), false, untouched);
        assert_eq!(seen.runtime, [(at, 4), (in_caller, 4)], "FIN-91: mode {mode}");
        assert_eq!(seen.unknown, ["cfi_seed"], "FIN-91");
        let seen = run("6.12.0", &kernel(mode, 0, ""), true, untouched);
        assert_eq!(seen.runtime, [(in_caller, 4)], "FIN-91, FIN-93: a sealed hash is known, mode {mode}");
    }
}

#[test]
fn fin_90_code_is_not_known_without_the_mode() {
    let seen = run("6.12.0", &kernel(0, SEED, "quiet"), false, untouched);
    assert_eq!(seen.unknown, ["X86_FEATURE_IBT"], "FIN-90");
    let covered = |at: u64| seen.runtime.iter().any(|(start, len)| (*start..start + len).contains(&at));
    assert!((0..20).chain(64..78).all(covered), "FIN-90: {:?}", seen.runtime);
    assert!(!covered(20) && !covered(63) && !covered(78), "FIN-90: {:?}", seen.runtime);
    assert_eq!(seen.preamble, PREAMBLE, "FIN-90: nothing is guessed");
    // A kernel whose symbols are functions alone.
    let mut functions = kernel(2, SEED, "");
    functions.symbols.retain(|name, _| !name.starts_with("cfi_") && !name.starts_with("fineibt_"));
    let seen = run("6.12.0", &functions, false, untouched);
    assert_eq!((seen.unknown[0].as_str(), seen.runtime), ("cfi_mode", vec![(0, 20), (64, 14)]), "FIN-90");
    // One without FineIBT, but with its variables known.
    let mut without = kernel(2, SEED, "");
    without.symbols.retain(|name, _| *name != "cfi_seed" && !name.starts_with("fineibt_"));
    let seen = run("6.12.0", &without, true, untouched);
    assert_eq!(seen, known(PREAMBLE.to_vec(), POISON, caller(HASH)), "FIN-90: CONFIG_FINEIBT=n");
    // Link time optimisation renames static variables.
    let mut renamed = kernel(2, 0, "");
    let at = renamed.symbols.remove("cfi_seed").unwrap();
    renamed.symbols.insert("cfi_seed.llvm.123", VARIABLES + 32);
    renamed.memory.push((VARIABLES + 32, SEED.to_le_bytes().to_vec()));
    assert_ne!(at, VARIABLES + 32);
    let seen = run("6.12.0", &renamed, false, untouched);
    assert_eq!(seen.preamble, with_hash(&PREAMBLE, 1, HASHED), "FIN-90: {:?}", seen.unknown);
}

#[test]
fn fin_92_a_preamble_without_a_hash() {
    let module = TestModule::x86(
        "6.12.0",
        &[(".text", CODE, 256), (".cfi_sites", RODATA, 8), (".retpoline_sites", RODATA, 4)],
    );
    let of = |mode, cmdline| {
        module.run(&kernel(mode, SEED, cmdline), |m| {
            let [text, list, branches] =
                [".text", ".cfi_sites", ".retpoline_sites"].map(|name| address(m, name));
            put(m, text, &PREAMBLE);
            put(m, text + 32, &[0x90; 16]);
            put(m, text + 64, &caller(HASH));
            put(m, list, &(text.wrapping_sub(list) as u32).to_le_bytes());
            put(m, list + 4, &((text + 32).wrapping_sub(list + 4) as u32).to_le_bytes());
            put(m, branches, &((text + 78).wrapping_sub(branches) as u32).to_le_bytes());
            let cfi = apply_fineibt(m);
            assert!(matches!(cfi, Cfi { built: true, mode: Some(Mode::Kcfi | Mode::FineIbt), .. }));
            let lines: Vec<String> = m.said.dmesg().map(Into::into).collect();
            (m.bytes::<5>(text).unwrap(), m.bytes::<2>(text + 64).unwrap(), lines, text)
        })
    };
    let (preamble, caller, lines, text) = of(3, "");
    let first = alloc::format!("no CFI hash found at: {:#x} {:016x} 90 90 90 90 90", text + 32, text + 32);
    let last = "SMP alternatives: Something went horribly wrong trying to rewrite the CFI implementation.";
    assert_eq!(lines, [first.as_str(), last], "FIN-92");
    assert_eq!(preamble[1..], HASHED.to_le_bytes(), "FIN-92: what came before is hashed");
    assert_eq!(caller, [0xeb, 12], "FIN-92: callers stay without a check");
    // Without new hashes kCFI does not look at preambles.
    assert_eq!(of(2, "cfi=norand").2, [""; 0], "FIN-92");
}

#[test]
fn fin_78_sites_of_cfi_that_lead_nowhere() {
    let nowhere = |list: &'static str, to: u64| {
        run("6.12.0", &kernel(2, SEED, ""), true, move |m, _| {
            let at = address(m, list);
            put(m, at, &(to.wrapping_sub(at) as u32).to_le_bytes());
        })
        .codes
    };
    for list in [".cfi_sites", ".retpoline_sites"] {
        assert_eq!(nowhere(list, 0xffff_ffff_8000_0000), ["FIN-78"], "FIN-78: {list}");
        assert_eq!(nowhere(list, KERNEL + 0x100), ["FIN-78"], "FIN-78: {list} in the kernel's code");
    }
    let codes = nowhere(".ibt_endbr_seal", 0xffff_ffff_8000_0000);
    assert!(codes.contains(&"FIN-78"), "FIN-93 writes without a look: {codes:?}");
}

/// The templates of v6.18: preamble, caller, and a caller that checks the hash as well.
const OF_6_18: [&[u8]; 3] = [
    &[
        0xf3, 0x0f, 0x1e, 0xfa, 0x2d, 0x78, 0x56, 0x34, 0x12, 0x2e, 0x0f, 0x85, 3, 0, 0, 0, 0x0f, 0x1f, 0x40,
        0xd6,
    ],
    &[0xb8, 0x78, 0x56, 0x34, 0x12, 0x4d, 0x8d, 0x5b, 0xf0, 0x0f, 0x1f, 0x44, 0, 0],
    &[
        0xb8, 0x78, 0x56, 0x34, 0x12, 0x41, 0x3b, 0x43, 0xf5, 0x2e, 0x4d, 0x8d, 0x5b, 0xf0, 0x75, 0xfd, 0x2e,
        0x41, 0xff, 0xd3,
    ],
];

/// A kernel of v6.18 with a CPU that has, or has not, the thunks of ITS.
fn kernel_of_6_18(mode: u32, cmdline: &'static str, its: bool) -> TestKernel {
    let mut kernel = kernel(mode, SEED, cmdline);
    kernel.memory.retain(|(at, _)| *at != TEMPLATES);
    let mut at = TEMPLATES;
    let names = [
        ("fineibt_preamble_start", "fineibt_preamble_end"),
        ("fineibt_caller_start", "fineibt_caller_end"),
        ("fineibt_paranoid_start", "fineibt_paranoid_end"),
    ];
    for ((start, end), bytes) in names.into_iter().zip(OF_6_18) {
        kernel.memory.push((at, bytes.to_vec()));
        kernel.symbols.extend([(start, at), (end, at + bytes.len() as u64)]);
        at += bytes.len() as u64;
    }
    kernel.symbols.insert("its_return_thunk", KERNEL + 0x400);
    kernel.symbols.insert("__x86_indirect_thunk_array", KERNEL + 0x4000);
    kernel.capabilities.insert(21 * 32 + 10, its);
    kernel
}

/// A call with a prefix through the thunk of r11, behind the caller's check, which ends at a place in the cache line.
fn with_call(
    release: &str,
    kernel: &TestKernel,
    caller_at: u64,
) -> (Vec<u8>, Vec<(u64, u64)>, Vec<&'static str>) {
    let sections = [(".text", CODE, 256), (".cfi_sites", RODATA, 4), (".retpoline_sites", RODATA, 4)];
    TestModule::x86(release, &sections).run(kernel, |m| {
        let [text, list, branches] = [".text", ".cfi_sites", ".retpoline_sites"].map(|name| address(m, name));
        put(m, text, &PREAMBLE);
        put(m, text + 16, &ENDBR64);
        let (at, site) = (text + caller_at, text + caller_at + 14);
        put(m, at, &caller(HASH));
        put(m, site, &[0x2e]);
        put(m, site + 1, &super::insn::text_gen_insn(0xe8, site + 1, KERNEL + 0x4000 + 32 * 11));
        put(m, list, &(text.wrapping_sub(list) as u32).to_le_bytes());
        put(m, branches, &(site.wrapping_sub(branches) as u32).to_le_bytes());
        let cfi = apply_fineibt(m);
        super::retpolines::apply_retpolines(m, &cfi);
        cfi.tell(m);
        let left = runtime(m).into_iter().map(|(found, len)| (found - at, len)).collect();
        (m.read(at, 20).unwrap().to_vec(), left, m.said.iter().map(|f| f.code).collect())
    })
}

#[test]
fn fin_92_forms_since_6_18() {
    // The preamble reaches into the function.
    let seen = run("6.18.0", &kernel_of_6_18(3, "cfi=fineibt", false), false, untouched);
    let preamble = with_hash(OF_6_18[0], 5, HASHED);
    assert_eq!((seen.preamble, seen.function), (preamble[..16].to_vec(), preamble[16..].to_vec()), "FIN-92");
    assert_eq!(seen.caller, with_hash(OF_6_18[1], 1, HASHED), "FIN-92");
    let seen = run("6.18.0", &kernel_of_6_18(3, "cfi=fineibt", false), true, untouched);
    assert_eq!(seen.preamble[..9], [0x0f, 0x1f, 0x40, 0xd6, 0x2d, 0, 0, 0, 0], "FIN-93");
    // kCFI's check ends with UDB.
    let seen = run("6.18.0", &kernel_of_6_18(2, "", false), false, untouched);
    assert_eq!(seen.caller[10..], [0x75, 0x01, 0xa8, 0xd6], "FIN-92: since 6.18");
    assert_eq!(seen.caller[..10], caller(HASHED)[..10], "FIN-92");
    assert_eq!(
        run("6.17.0", &kernel_of_6_18(2, "", false), false, untouched).caller,
        caller(HASHED),
        "FIN-92"
    );
}

#[test]
fn fin_92_paranoid_callers() {
    let paranoid = with_hash(OF_6_18[2], 1, HASHED);
    let (code, left, codes) = with_call("6.18.0", &kernel_of_6_18(3, "cfi=fineibt,paranoid", false), 64);
    assert_eq!((code, left, codes), (paranoid.clone(), vec![], vec![]), "FIN-92: the branch is part of it");
    // Before 6.18 a call of three bytes and what the template has behind it.
    let (code, ..) = with_call("6.17.0", &kernel_of_6_18(3, "cfi=fineibt,paranoid", false), 64);
    assert_eq!(code[16..19], [0x41, 0xff, 0xd3], "FIN-92: before 6.18");
    // A CPU with ITS: a thunk of the module, if the last byte is in the lower half of a cache line.
    let its = kernel_of_6_18(3, "cfi=fineibt,paranoid", true);
    let (code, left, codes) = with_call("6.18.0", &its, 64);
    assert_eq!(code[..14], paranoid[..14], "FIN-92");
    assert_eq!((&code[14..16], left, codes), (&[0x2e, 0xe8][..], vec![(16, 4)], vec![]), "FIN-71");
    let (code, left, _) = with_call("6.18.0", &its, 64 + 16);
    assert_eq!((code, left), (paranoid, vec![]), "FIN-71: the upper half");
}
