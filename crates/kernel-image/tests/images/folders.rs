//! The built-in modules that have a folder in /sys/module.

use kernel_image::{BuiltIn, KernelImage};
use testkit::elf::Flat;

use super::{Plan, Symbol, build_with, open};
use kernel_image::KallsymsLayout::Old;

/// Parameters by name and mode; `panic` is among those of every kernel.
fn parameters() -> Vec<(String, u16)> {
    let mut all: Vec<(String, u16)> =
        (0..20).map(|n| (format!("module_{n}.parameter"), 0o644 * (n % 2))).collect();
    all.insert(7, (String::from("panic"), 0o644));
    all.push((String::from("printk.time"), 0o600));
    all
}

/// Puts both tables down; the labels of the linker.
fn put(out: &mut Flat, parameters: &[(String, u16)], versions: &[&str]) -> Vec<(&'static str, u64)> {
    out.put(b"\0version\0");
    let version = out.here() - 8;
    let name = |out: &mut Flat, text: &str| {
        out.put(b"\0");
        let at = out.here();
        out.put(&[text.as_bytes(), b"\0"].concat());
        at
    };
    let names: Vec<u64> = parameters.iter().map(|(text, _)| name(out, text)).collect();
    let modules: Vec<u64> = versions.iter().map(|text| name(out, text)).collect();
    out.align(8);
    let (ops, start) = (out.base, out.here());
    for (name, (_, mode)) in names.into_iter().zip(parameters) {
        out.pointer(name);
        out.put(&[0; 8]);
        out.pointer(ops);
        out.put(&u64::from(*mode).to_le_bytes());
        out.put(&[0; 8]);
    }
    let stop = out.here();
    for module in modules {
        out.pointer(version);
        out.put(&[0; 48]);
        out.pointer(module);
        out.pointer(version);
    }
    let end = out.here();
    out.put(&[1; 80]);
    vec![
        ("__start___param", start),
        ("__stop___param", stop),
        ("__start___modver", stop),
        ("__stop___modver", end),
    ]
}

/// Symbols of these labels, if the kernel has such.
fn labels_of(has: bool, labels: Vec<(&'static str, u64)>) -> Vec<Symbol> {
    labels.into_iter().filter(|_| has).map(|(name, at)| (at, b'R', String::from(name))).collect()
}

fn with_folder(image: &KernelImage<'_>) -> Option<Vec<String>> {
    let all = image.built_in()?;
    let with = all.iter().filter(|b: &&BuiltIn<'_>| b.folder);
    Some(with.map(|b| String::from_utf8_lossy(b.module).into_owned()).collect())
}

#[test]
fn life_41_parameters_with_a_mode_and_versions_make_folders() {
    let mut want: Vec<String> = (1..20).step_by(2).map(|n| format!("module_{n}")).collect();
    want.insert(3, String::from("kernel"));
    want.extend(["printk", "versioned"].map(String::from));
    for arm64 in [false, true] {
        for labels in [true, false] {
            let plan = Plan { labels, ..Plan::new(arm64, Old) };
            let image = build_with(&plan, |out| labels_of(labels, put(out, &parameters(), &["versioned"])));
            let image = open(&image.bytes, 1 << 24).unwrap();
            assert_eq!(with_folder(&image).as_ref(), Some(&want), "LIFE-41: arm64 {arm64}, labels {labels}");
            let named = image.built_in().unwrap();
            assert!(
                named.contains(&BuiltIn { module: b"module_2", folder: false }),
                "LIFE-41: built in, no folder"
            );
        }
    }
}

#[test]
fn life_41_what_is_no_table_tells_nothing() {
    let found = |labels, parameters: &[(String, u16)], edit: fn(&mut Vec<(&'static str, u64)>)| {
        let plan = Plan { labels, ..Plan::new(false, Old) };
        let image = build_with(&plan, |out| {
            let mut all = put(out, parameters, &[]);
            edit(&mut all);
            labels_of(labels, all)
        });
        with_folder(&open(&image.bytes, 1 << 24).unwrap())
    };
    assert_eq!(found(false, &parameters()[..9], |_| {}), None, "LIFE-41: too few to be a kernel's");
    assert_eq!(found(true, &parameters()[..1], |_| {}), Some(vec![]), "LIFE-41: the labels tell");
    assert_eq!(found(true, &parameters(), |labels| labels[1].1 += 1), None, "LIFE-41: no whole records");
    assert_eq!(
        found(true, &parameters(), |labels| labels[1].1 = labels[0].1 - 40),
        None,
        "LIFE-41: ends before it begins"
    );
    assert_eq!(found(true, &parameters(), |labels| labels[3].1 += 72), None, "LIFE-41: no version there");
    let unnamed = [(String::new(), 0o644)];
    assert_eq!(found(true, &unnamed, |_| {}), None, "LIFE-41: a parameter without a name");
}

/// Functions, each of which calls another one or none; modules with their initcalls.
fn put_code(
    out: &mut Flat,
    arm64: bool,
    functions: &[(&str, &str)],
    initcalls: &[(&str, &str)],
) -> Vec<Symbol> {
    const SIZE: u64 = 16;
    out.align(16);
    let start = out.here();
    let at = |name: &str| functions.iter().position(|(own, _)| *own == name).map(|n| start + SIZE * n as u64);
    for (_, callee) in functions {
        let code = match (at(callee), arm64) {
            (None, _) => vec![0x90; 16],
            (Some(to), true) => {
                let distance = to.wrapping_sub(out.here()) >> 2;
                [0x9400_0000 | distance as u32 & 0x3ff_ffff, 0, 0, 0].map(u32::to_le_bytes).concat()
            }
            (Some(to), false) => {
                let distance = to.wrapping_sub(out.here() + 6) as u32;
                [&[0x90, 0xe8][..], &distance.to_le_bytes(), &[0xc3; 10]].concat()
            }
        };
        out.put(&code);
    }
    let mut symbols: Vec<Symbol> =
        functions.iter().map(|(name, _)| (at(name).unwrap(), b't', String::from(*name))).collect();
    // What follows the last of them.
    symbols.push((out.here(), b't', String::from("behind")));
    for (n, (module, function)) in initcalls.iter().enumerate() {
        symbols.push((out.here(), b'd', format!("__initcall__kmod_{module}__{n}_1_{function}6")));
        out.prel32(at(function).unwrap());
    }
    symbols
}

#[test]
fn life_41_initcalls_that_register_drivers() {
    let functions = [
        ("__toy_register_driver", ""),
        ("toy_name", ""),
        ("toy_register", ""),
        ("direct", "__toy_register_driver"),
        ("helper", "__toy_register_driver"),
        ("by_helper", "helper"),
        ("too_deep", "by_helper"),
        ("names", "toy_name"),
        ("without", "toy_register"),
        ("idle", ""),
    ];
    let initcalls = ["direct", "by_helper", "too_deep", "names", "without", "idle"].map(|name| (name, name));
    for arm64 in [false, true] {
        let plan = Plan { sections: !arm64, ..Plan::new(arm64, Old) };
        let registering = |functions: &[(&str, &str)], initcalls: &[(&str, &str)]| {
            let image = build_with(&plan, |out| put_code(out, arm64, functions, initcalls));
            let image = open(&image.bytes, 1 << 24).unwrap();
            let found = image.registering();
            found.map(|all| {
                all.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
            })
        };
        let want = ["by_helper", "direct"].map(String::from);
        assert_eq!(registering(&functions, &initcalls).as_deref(), Some(&want[..]), "LIFE-41: arm64 {arm64}");
        assert_eq!(registering(&functions, &[]), None, "LIFE-41: arm64 {arm64}: no initcalls are listed");
        assert_eq!(
            registering(&functions[1..2], &[("names", "toy_name")]),
            None,
            "LIFE-41: arm64 {arm64}: nothing registers"
        );
    }
}
