//! Exports by section, by label and by scan.

use super::{Built, Plan, Tables, build, open};
use kernel_image::{Error, ExportSource, KallsymsLayout};

fn check(plan: &Plan, source: ExportSource) {
    let built = build(plan);
    let image = built.open();
    let exports = image.exports().unwrap();
    assert_eq!(exports.source(), source);
    assert_eq!((exports.len(), exports.is_empty()), (built.exports.len(), false));
    for (got, (name, address, crc, gpl_only, namespace)) in exports.iter().zip(&built.exports) {
        let crc = (plan.exports != Tables::NoCrcs).then_some(*crc);
        assert_eq!(got.name, name.as_bytes(), "IMG-24; SYM-30, SYM-33: table by table, each by name");
        let record = (got.address, got.crc, got.gpl_only);
        assert_eq!(
            record,
            (*address, crc, *gpl_only),
            "SYM-35, SYM-36, IMG-33: records; SYM-39: whose flags tell"
        );
        assert_eq!(got.namespace.unwrap_or(b""), namespace.as_bytes(), "IMG-25");
    }
}

const ALL: [Tables; 6] =
    [Tables::Two, Tables::NoCrcs, Tables::RelCrcs, Tables::Flags, Tables::Relative, Tables::Pointers];

#[test]
fn img_22_by_section() {
    for exports in ALL {
        let plan = Plan { sections: true, exports, ..Plan::new(false, KallsymsLayout::Old) };
        check(&plan, ExportSource::Sections);
    }
}

#[test]
fn img_22_by_label() {
    for exports in ALL {
        for arm64 in [false, true] {
            let plan = Plan { labels: true, exports, ..Plan::new(arm64, KallsymsLayout::NamesFirst) };
            check(&plan, ExportSource::Symbols);
        }
    }
}

#[test]
fn img_23_by_scan() {
    for exports in ALL {
        for arm64 in [false, true] {
            let plan = Plan { exports, ..Plan::new(arm64, KallsymsLayout::Old) };
            check(&plan, ExportSource::Scan); // KSYM-10: no labels; with Flags, IMG-31
        }
    }
}

fn with(built: &Built, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = built.bytes.clone();
    while let Some(at) = memchr::memmem::find(&bytes, from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

#[test]
fn another_known_name_will_do() {
    let built = build(&Plan::new(true, KallsymsLayout::Old));
    // Without MODVERSIONS module_layout is not exported.
    let bytes = with(&built, b"module_layout\0", b"module_layouu\0");
    assert_eq!(open(&bytes, 1 << 24).unwrap().exports().unwrap().len(), built.exports.len());
}

#[test]
fn what_is_missing_or_damaged_is_said() {
    let built = build(&Plan::new(true, KallsymsLayout::Old));
    let mut bytes = with(&built, b"module_layout\0", b"module_layouu\0");
    let kfree = memchr::memmem::find(&bytes, b"kfree\0").unwrap();
    bytes[kfree] = b'q';
    let image = open(&bytes, 1 << 24).unwrap();
    assert!(matches!(image.exports(), Err(Error::NoExports(why)) if why.starts_with("none of the symbols")));

    let built = build(&Plan { labels: true, ..Plan::new(true, KallsymsLayout::NamesFirst) });
    let image = built.open();
    let table = image.kallsyms().unwrap().address("__start___ksymtab").unwrap();
    let at = usize::try_from(table - image.base().unwrap()).unwrap();
    let mut bytes = built.bytes.clone();
    bytes[at + 3 * 12 + 7] = 0x7f;
    let error = open(&bytes, 1 << 24).unwrap().exports().unwrap_err();
    let what = "a name, namespace or CRC outside the image";
    assert_eq!(error, Error::DamagedExports { what, address: table, index: 3 });
}

#[test]
fn img_34_an_image_without_modules_is_named_as_such() {
    let mut strange = build(&Plan::new(true, KallsymsLayout::Old));
    strange.bytes = with(&strange, b"module_layout\0", b"module_layouu\0");
    strange.bytes = with(&strange, b"kfree\0", b"qfree\0");
    let image = strange.open();
    assert!(matches!(image.exports(), Err(Error::NoExports(_))), "IMG-34: its vermagic tells of modules");
    let bytes = with(&strange, b" mod_unload ", b" xod_unload ");
    let image = open(&bytes, 1 << 24).unwrap();
    assert_eq!(image.vermagic(), None);
    assert!(matches!(image.exports(), Err(Error::NoModules)), "IMG-34");
    assert!(image.kallsyms().is_ok(), "its symbols are there all the same");
}
