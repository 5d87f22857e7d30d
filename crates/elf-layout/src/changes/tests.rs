use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::*;

const fn v(major: u16, minor: u16, patch: u16) -> KernelVersion {
    KernelVersion::new(major, minor, patch)
}

/// The last version before `major.minor`: that of the series before, at its highest patch level.
fn below(major: u16, minor: u16) -> KernelVersion {
    match minor {
        0 => v(major - 1, u16::MAX, u16::MAX),
        _ => v(major, minor - 1, u16::MAX),
    }
}

/// The version next to this one, lower or higher.
fn beside(version: KernelVersion) -> [KernelVersion; 2] {
    let KernelVersion { major, minor, patch } = version;
    let lower = if patch == 0 { below(major, minor) } else { v(major, minor, patch - 1) };
    let higher = if patch == u16::MAX { v(major, minor + 1, 0) } else { v(major, minor, patch + 1) };
    [lower, higher]
}

#[test]
fn every_variant_has_its_row_and_no_other() {
    // The variants as the source has them, so that one without a row shows.
    let source = include_str!("mod.rs");
    let body = source.split_once("pub enum Change {\n").unwrap().1.split_once("\n}\n").unwrap().0;
    let variants: Vec<&str> = body
        .lines()
        .filter(|line| !line.trim().starts_with("//"))
        .map(|line| line.trim().trim_end_matches(','))
        .collect();
    let rows: Vec<String> = TABLE.iter().map(|row| format!("{:?}", row.change)).collect();
    assert_eq!(rows, variants, "rows stand in the order of the variants, one for each");
    assert!(rows.len() <= 128, "a set of changes has 128 bits");
    for (place, row) in TABLE.iter().enumerate() {
        assert_eq!(row.change as usize, place, "{}", row.name);
    }
}

#[test]
fn rows_are_whole() {
    for row in &TABLE {
        assert!(!row.name.is_empty(), "{:?}", row.change);
        assert_eq!(TABLE.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
        assert!(row.mainline.is_some() || !row.backports.is_empty(), "{}: in no kernel", row.name);
        for commit in row.commits {
            let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            assert!(commit.len() == 12 && commit.chars().all(hex), "{}: {commit}", row.name);
        }
        for (first, last) in row.backports {
            assert!(first <= last, "{}", row.name);
            // What mainline has needs no backport.
            assert!(row.mainline.is_none_or(|mainline| !since(*last, mainline)), "{}", row.name);
        }
    }
}

#[test]
fn every_row_begins_with_its_version() {
    for row in &TABLE {
        let has = |version| Changes::of(version).has(row.change);
        let ported =
            |version| row.backports.iter().any(|(first, last)| *first <= version && version <= *last);
        if let Some((major, minor)) = row.mainline {
            assert_eq!(has(below(major, minor)), ported(below(major, minor)), "{}", row.name);
            for later in [
                v(major, minor, 0),
                v(major, minor, 1),
                v(major, minor, u16::MAX),
                v(major, minor + 1, 0),
                v(major + 1, 0, 0),
                v(u16::MAX, u16::MAX, u16::MAX),
            ] {
                assert!(has(later), "{}: {later}", row.name);
            }
        }
        for (first, last) in row.backports {
            assert!(has(*first) && has(*last), "{}: {first} to {last}", row.name);
            let ([before, _], [_, after]) = (beside(*first), beside(*last));
            let mainline = |version| row.mainline.is_some_and(|mainline| since(version, mainline));
            for outside in [before, after] {
                let want = mainline(outside) || ported(outside);
                assert_eq!(has(outside), want, "{}: {outside}", row.name);
            }
        }
        assert!(!has(v(0, 0, 0)) && !has(v(5, 3, u16::MAX)), "{}", row.name);
    }
}

/// What the code asked before there was a table, as it asked it.
#[test]
fn backports_are_those_that_were_known() {
    use Change::*;
    let asked = |change: Change, version: KernelVersion| {
        let (series, patch) = ((version.major, version.minor), version.patch);
        let since = |major, minor| series >= (major, minor);
        match change {
            RetpolineInWord11 => {
                since(5, 19) || (series == (5, 15) && patch >= 54) || (series == (5, 10) && patch >= 133)
            }
            CfiSealed => since(6, 5) || (series == (6, 4) && patch >= 5),
            InitFtracePlt => since(6, 6),
            InitFtracePltRequired => {
                let backported = [((6, 6), 107), ((6, 12), 48), ((6, 16), 8)];
                since(6, 17) || backported.iter().any(|(of, first)| series == *of && patch >= *first)
            }
            ItsInBit6 => since(6, 12) && !since(6, 13),
            ItsInBit10 => since(6, 13),
            StringTableTypeChecked => since(7, 3) || series == (6, 12),
            AltCallbackChecked => {
                since(6, 19) || (series == (6, 17) && patch >= 12) || (series == (6, 18) && patch >= 1)
            }
            Erratum843419IsCap54 => matches!((series, patch), ((6, 1), 0 | 170..)),
            Erratum843419IsCap70 => matches!((series, patch), ((6, 12), 107..)),
            _ => false,
        }
    };
    for row in TABLE.iter().filter(|row| !row.backports.is_empty()) {
        for major in 4..=8 {
            for minor in 0..=25 {
                for patch in [
                    0,
                    1,
                    4,
                    5,
                    7,
                    8,
                    11,
                    12,
                    47,
                    48,
                    53,
                    54,
                    106,
                    107,
                    132,
                    133,
                    169,
                    170,
                    171,
                    500,
                    u16::MAX,
                ] {
                    let version = v(major, minor, patch);
                    let want = asked(row.change, version);
                    assert_eq!(Changes::of(version).has(row.change), want, "{}: {version}", row.name);
                }
            }
        }
    }
}

#[test]
fn what_is_measured_beats_every_version() {
    let old = Changes::of(v(6, 1, 0)).with(Change::OneExportTable, true).with(Change::AltCallbackBit, false);
    for changes in [old, old.at(v(5, 4, 0)), old.at(v(7, 1, 0)).at(v(6, 1, 0))] {
        assert!(changes.has(Change::OneExportTable) && !changes.has(Change::AltCallbackBit));
        assert_eq!(changes.at(v(6, 1, 0)), old);
    }
    assert!(!old.has(Change::ModMemType) && old.at(v(6, 4, 0)).has(Change::ModMemType));
    assert!(!old.with(Change::OneExportTable, false).has(Change::OneExportTable), "measured again");
}

#[test]
fn known_versions_have_both_ends() {
    for (version, want) in [
        (v(5, 3, 99), false),
        (v(5, 4, 0), true),
        (v(6, 12, 117), true),
        (v(7, 3, u16::MAX), true),
        (v(7, 4, 0), false),
        (v(0, 0, 0), false),
    ] {
        assert_eq!(is_known(version), want, "{version}");
    }
}
