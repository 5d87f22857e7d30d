//! Names, letters and addresses from every layout.

use super::{Plan, build, open};
use KallsymsLayout::{NamesFirst, Old, OldAbsolute, PlaceRelative};
use kernel_image::{Error, KallsymsLayout};

fn check(plan: &Plan) {
    let built = build(plan);
    let image = built.open();
    let kallsyms = image.kallsyms().unwrap();
    assert_eq!(kallsyms.layout(), plan.layout, "spec 09 step 5");
    let got: Vec<_> = kallsyms.iter().collect();
    assert_eq!(got.len(), built.symbols.len());
    for (got, (address, kind, name)) in got.iter().zip(&built.symbols) {
        assert_eq!((got.address, got.kind, got.name), (*address, *kind, name.as_bytes()));
    }
    let twins = kallsyms.named(b"function_5_of_").count();
    assert_eq!(twins, 2, "KSYM-3: names are not unique");
    assert_eq!(kallsyms.address("_text"), image.base());
    assert!(kallsyms.find(b"no such symbol").is_none());
}

#[test]
fn every_layout_on_both_machines() {
    for arm64 in [false, true] {
        for layout in [Old, OldAbsolute, NamesFirst, PlaceRelative] {
            check(&Plan::new(arm64, layout));
        }
    }
}

#[test]
fn old_layout_without_seqs() {
    for arm64 in [false, true] {
        check(&Plan { seqs: false, ..Plan::new(arm64, Old) });
    }
}

#[test]
fn absolute_percpu_or_not() {
    for layout in [Old, NamesFirst] {
        for absolute_percpu in [false, true] {
            check(&Plan { absolute_percpu, ..Plan::new(false, layout) });
        }
    }
}

#[test]
fn ksym_12_pointers_in_place_as_with_relr() {
    for layout in [Old, NamesFirst] {
        let plan = Plan { rela: false, ..Plan::new(true, layout) };
        check(&plan);
        let built = build(&plan);
        assert!(!built.open().base_is_a_guess(), "KSYM-11: the base follows from _text");
        assert_eq!(built.open().relocated_pointers(), 0);
    }
}

#[test]
fn an_unknown_base_is_said_to_be_a_guess() {
    let built = build(&Plan { rela: false, ..Plan::new(true, PlaceRelative) });
    let image = built.open();
    assert!(image.base_is_a_guess());
    assert_eq!(image.kallsyms().unwrap().address("_text"), image.base(), "right relative to each other");
}

#[test]
fn facts_of_the_machine() {
    let x86 = build(&Plan::new(false, Old));
    assert_eq!((x86.open().machine(), x86.open().page_size()), (&reloc::x86_64::MACHINE, Some(4096)));
    let arm64 = build(&Plan::new(true, Old));
    let arm64_machine = &reloc::aarch64::MACHINE;
    assert_eq!((arm64.open().machine(), arm64.open().page_size()), (arm64_machine, Some(4096)), "IMG-4");
    for (flags, size) in [(2 << 1, Some(16384)), (3 << 1, Some(65536)), (0, None)] {
        let mut bytes = arm64.bytes.clone();
        bytes[0x18] = flags;
        assert_eq!(open(&bytes, 1 << 24).unwrap().page_size(), size);
    }
    let mut bytes = arm64.bytes.clone();
    bytes[0x18] |= 1;
    assert_eq!(open(&bytes, 1 << 24).unwrap_err(), Error::BigEndian);
}

#[test]
fn without_tables_one_is_told_what_is_missing() {
    let built = build(&Plan::new(false, NamesFirst));
    let mut bytes = built.bytes.clone();
    while let Some(at) = memchr::memmem::find(&bytes, b"0\x001\x002\0") {
        bytes[at] = b'x';
    }
    let image = open(&bytes, 1 << 24).unwrap();
    assert!(matches!(image.kallsyms(), Err(Error::NoKallsyms(why)) if why.starts_with("no token table")));

    let mut bytes = built.bytes.clone();
    let name = memchr::memmem::find(&bytes, &[b'Q'; 300]).unwrap();
    bytes[name - 3] = 0x7f;
    let image = open(&bytes, 1 << 24).unwrap();
    assert!(
        matches!(image.kallsyms(), Err(Error::NoKallsyms(why)) if why.starts_with("a token table, but no names"))
    );

    let mut bytes = built.bytes.clone();
    let order: Vec<u8> =
        [u32::MAX, u32::MAX, u32::MAX - 0x10, u32::MAX - 0x10].iter().flat_map(|o| o.to_le_bytes()).collect();
    let offsets = memchr::memmem::find(&bytes, &order).unwrap();
    bytes[offsets + 4..offsets + 8].copy_from_slice(&0x8000_0000u32.to_le_bytes());
    let image = open(&bytes, 1 << 24).unwrap();
    assert!(matches!(image.kallsyms(), Err(Error::DamagedKallsyms { .. })), "addresses out of order");
}
