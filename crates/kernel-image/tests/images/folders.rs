//! The built-in modules that have a folder in /sys/module.

use kernel_image::{BuiltIn, KernelImage};
use testkit::elf::Flat;

use super::{Plan, build_with, open};
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
            let image = build_with(&plan, |out| put(out, &parameters(), &["versioned"]));
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
            let mut labels = put(out, parameters, &[]);
            edit(&mut labels);
            labels
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
