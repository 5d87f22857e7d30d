//! BTF-2: each check of a module's BTF, on blobs made by hand; BTF-3: what comes of it.

use alloc::vec;

use elf_layout::KernelVersion;
use kernel::BtfType;

use super::*;

/// A blob: header, types, strings.
fn blob(types: &[u32], strings: &[u8]) -> Vec<u8> {
    let types: Vec<u8> = types.iter().flat_map(|w| w.to_le_bytes()).collect();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    let mut out = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, len(&types), len(&types), len(strings)] {
        out.extend(word.to_le_bytes());
    }
    out.extend(types);
    out.extend(strings);
    out
}

/// Offsets 0 to 7; types 1 (an int) and 2 (a pointer to it).
fn base() -> BaseBtf {
    BaseBtf::new(b"\0int\0ab\0", [BtfType { kind: 1, size_or_type: 4 }, BtfType { kind: 2, size_or_type: 1 }])
}

const fn info(kind: u32, kflag: bool, vlen: u32) -> u32 {
    (kflag as u32) << 31 | kind << 24 | vlen
}

/// Own names start at 8: "x" at 8, "no good" at 10, "yz" at 18.
const OWN: &[u8] = b"x\0no good\0yz\0";
const X: u32 = 8;
const BAD: u32 = 10;
const YZ: u32 = 18;
const END: u32 = 21;

fn config(version: (u16, u16), allow: bool) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(version.0, version.1, 0)).with(|c| c.allow_btf_mismatch = allow)
}

fn parsed(types: &[u32]) -> Result<(), Refusal> {
    btf_parse_module(&blob(types, OWN), &base(), &config((6, 12), false))
}

#[test]
fn btf_2_types_that_are_fine() {
    let fine: [(&str, &[u32]); 20] = [
        ("no types", &[]),
        ("int", &[X, info(1, false, 0), 4, 32]),
        ("int of 128 bits", &[X, info(1, false, 0), 16, 128]),
        ("pointer", &[0, info(2, false, 0), 1]),
        ("pointer to a type that does not exist", &[0, info(2, false, 0), 99]),
        ("typedef with a name of the base", &[1, info(8, false, 0), 1]),
        ("const of the next type", &[0, info(10, false, 0), 4, 0, info(2, false, 0), 1]),
        ("struct", &[X, info(4, false, 1), 8, YZ, 1, 64]),
        ("bit-fields", &[X, info(4, true, 2), 4, YZ, 1, 0x0300_0000, X, 1, 0x0400_0003]),
        ("empty union", &[0, info(5, false, 0), 0]),
        ("enum", &[0, info(6, false, 1), 4, X, 5]),
        ("forward", &[X, info(7, true, 0), 0]),
        ("function", &[X, info(12, false, 1), 2]),
        ("prototype", &[0, info(13, false, 1), 0, X, 1]),
        ("variable", &[X, info(14, false, 0), 1, 1]),
        ("section with a name of its own kind", &[BAD, info(15, false, 1), 4, 1, 0, 4]),
        ("float", &[X, info(16, false, 0), 12]),
        ("tag", &[BAD, info(17, false, 0), 1, u32::MAX]),
        ("type tag", &[BAD, info(18, false, 0), 1]),
        ("enum64", &[X, info(19, false, 1), 8, X, 1, 2]),
    ];
    for (what, types) in fine {
        assert_eq!(parsed(types), Ok(()), "BTF-2: {what}");
    }
}

#[test]
fn btf_2_types_that_are_not() {
    let bad: [(&str, &[u32]); 39] = [
        ("meta_left:4 meta_needed:12", &[X]),
        ("Invalid btf_info:1010000", &[X, info(1, false, 1 << 16), 4, 32]),
        ("Invalid kind:0", &[X, 0, 0]),
        ("Invalid kind:20", &[X, info(20, false, 0), 0]),
        ("Invalid name_offset:21", &[END, info(8, false, 0), 1]),
        ("Invalid name_offset:16777216", &[0x0100_0000, info(8, false, 0), 1]),
        ("meta_left:0 meta_needed:4", &[X, info(1, false, 0), 4]),
        ("vlen != 0", &[X, info(1, false, 1), 4, 32]),
        ("Invalid btf_info kind_flag", &[X, info(1, true, 0), 4, 32]),
        ("Invalid int_data:10000020", &[X, info(1, false, 0), 4, 0x1000_0020]),
        ("nr_bits exceeds 128", &[X, info(1, false, 0), 32, 129]),
        ("nr_bits exceeds type_size", &[X, info(1, false, 0), 4, 33]),
        ("Invalid type_id", &[0, info(2, false, 0), 0x0010_0000]),
        ("Invalid name", &[X, info(2, false, 0), 1]),
        ("Invalid name", &[0, info(8, false, 0), 1]),
        ("Invalid name", &[BAD, info(8, false, 0), 1]),
        ("Invalid name", &[0, info(18, false, 0), 1]),
        ("type != 0", &[X, info(7, false, 0), 1]),
        ("Invalid name", &[X, info(3, false, 0), 0, 1, 1, 1]),
        ("size != 0", &[0, info(3, false, 0), 1, 1, 1, 1]),
        ("Invalid elem", &[0, info(3, false, 0), 0, 0, 1, 1]),
        ("Invalid index", &[0, info(3, false, 0), 0, 1, 0, 1]),
        ("Invalid member name_offset:21", &[X, info(4, false, 1), 8, END, 1, 0]),
        ("Invalid type_id", &[X, info(4, false, 1), 8, YZ, 0, 0]),
        ("Invalid member bits_offset", &[X, info(5, false, 1), 8, YZ, 1, 1]),
        ("Invalid member bits_offset", &[X, info(4, false, 2), 8, YZ, 1, 8, X, 1, 7]),
        ("Member bits_offset exceeds its struct size", &[X, info(4, false, 1), 8, YZ, 1, 65]),
        ("Unexpected size", &[X, info(6, false, 0), 3]),
        ("Invalid name_offset:21", &[X, info(6, false, 1), 4, END, 1]),
        ("Invalid name", &[X, info(6, false, 1), 4, 0, 1]),
        ("Invalid func linkage", &[X, info(12, false, 2), 1]),
        ("Linkage not supported", &[X, info(14, false, 0), 1, 2]),
        ("size == 0", &[X, info(15, false, 0), 0]),
        ("Invalid offset", &[X, info(15, false, 1), 4, 1, 4, 1]),
        ("Invalid size", &[X, info(15, false, 1), 4, 1, 0, 5]),
        ("Invalid offset+size", &[X, info(15, false, 1), 4, 1, 3, 2]),
        ("Invalid type_size", &[X, info(16, false, 0), 3]),
        ("Invalid component_idx", &[X, info(17, false, 0), 1, u32::MAX - 1]),
        ("which does not exist", &[0, info(10, false, 0), 4]),
    ];
    for (why, types) in bad {
        let refusal = parsed(types).expect_err(why);
        assert!(refusal.why.contains(why), "BTF-2: {why}: {refusal:?}");
        assert_eq!(refusal.errno, Errno::EINVAL, "BTF-2: {why}");
    }
    let unsupported = parsed(&[X, info(1, false, 0), 4, 0x0300_0020]).unwrap_err();
    assert_eq!(unsupported.errno, Errno::ENOTSUPP, "BTF-2: {unsupported:?}");
    let cycle = parsed(&[0, info(10, false, 0), 4, 0, info(9, false, 0), 3]).unwrap_err();
    assert_eq!(cycle.errno, Errno::ELOOP, "BTF-2: {cycle:?}");
    // A type tag behind a modifier.
    let tag = parsed(&[0, info(10, false, 0), 4, X, info(18, false, 0), 1]).unwrap_err();
    assert_eq!(tag.log, ["BPF: Type tags don't precede modifiers"], "BTF-2");
}

#[test]
fn btf_2_header_and_strings() {
    let good = blob(&[], OWN);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let longer = |len: u32, more: &[u8]| {
        let mut changed = with(4, &len.to_le_bytes());
        changed.splice(24..24, more.iter().copied());
        changed
    };
    assert_eq!(btf_parse_module(&good, &base(), &config((6, 12), false)), Ok(()));
    assert_eq!(
        btf_parse_module(&longer(28, &[0; 4]), &base(), &config((6, 12), false)),
        Ok(()),
        "BTF-2: a longer header of zeros"
    );
    let cases: [(&str, Vec<u8>, Errno); 13] = [
        ("hdr_len not found", good[..7].to_vec(), Errno::EINVAL),
        ("btf_header not found", good[..23].to_vec(), Errno::EINVAL),
        ("Unsupported btf_header", longer(28, &[0, 0, 0, 1]), Errno::E2BIG),
        ("Invalid magic", with(0, &[0x9e]), Errno::EINVAL),
        ("Unsupported version", with(2, &[2]), Errno::ENOTSUPP),
        ("Unsupported flags", with(3, &[1]), Errno::ENOTSUPP),
        ("Invalid section offset", with(16, &[99]), Errno::EINVAL),
        ("Unsupported section found", with(16, &[1, 0, 0, 0, 12]), Errno::EINVAL),
        ("Section overlap found", with(12, &[1]), Errno::EINVAL),
        ("Total section length too long", with(20, &[14]), Errno::EINVAL),
        ("Unsupported section found", with(20, &[12]), Errno::EINVAL),
        ("Invalid string section", blob(&[], b"no end"), Errno::EINVAL),
        // Types behind the strings.
        (
            "String section is not at the end",
            {
                let mut swapped = blob(&[0, info(2, false, 0), 1], b"x\0\0\0");
                swapped[8..24].copy_from_slice(&[4, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
                swapped
            },
            Errno::EINVAL,
        ),
    ];
    for (why, bytes, errno) in cases {
        let refusal = btf_parse_module(&bytes, &base(), &config((6, 12), true)).expect_err(why);
        assert_eq!((refusal.why.as_str(), refusal.errno), (why, errno), "BTF-2");
        assert_eq!(refusal.log, [format!("BPF: {why}")], "BTF-2: the log, also where mismatches are allowed");
    }
    assert_eq!(
        btf_parse_module(&blob(&[], b""), &base(), &config((6, 12), false)),
        Ok(()),
        "BTF-2: split BTF needs no strings"
    );
}

/// BTF-3: the records of the verifier's log, by configuration and version.
#[test]
fn btf_3_what_is_logged() {
    let member: &[u32] = &[X, info(4, false, 1), 8, YZ, 0, 0];
    let lines = |types: &[u32], version, allow| {
        btf_parse_module(&blob(types, OWN), &base(), &config(version, allow)).unwrap_err().log
    };
    let typed = ["BPF: [3] PTR x ", "BPF: type_id=1", "BPF:  ", "BPF: Invalid name", "BPF: "];
    let pointer: &[u32] = &[X, info(2, false, 0), 1];
    assert_eq!(lines(pointer, (6, 1), true), typed, "BTF-3: 6.1 logs all");
    assert_eq!(lines(pointer, (6, 12), false), typed, "BTF-3");
    assert!(lines(pointer, (6, 12), true).is_empty(), "BTF-3: since 6.3 not where it is allowed");
    let told = ["BPF: \tyz type_id=0 bits_offset=0", "BPF:  ", "BPF: Invalid type_id", "BPF: "];
    assert_eq!(lines(member, (6, 1), true), told, "BTF-3");
    assert!(lines(member, (6, 12), true).is_empty(), "BTF-3");
    // Lines that belong to no type are never left out.
    let name: &[u32] = &[END, info(2, false, 0), 1];
    assert_eq!(lines(name, (6, 12), true), ["BPF: [3] Invalid name_offset:21"], "BTF-3");
    // Names of sections: what can be printed, since 6.12.
    let section: &[u32] = &[BAD, info(15, false, 1), 4, 1, 0, 4];
    assert!(lines(section, (6, 11), false)[3].contains("Invalid name"), "BTF-2: before 6.12");
}

#[test]
fn btf_4_a_base_of_its_own() {
    let config = config((6, 12), false);
    let own = parse(&blob(&[1, info(1, false, 0), 4, 32], b"\0int\0"), None, &config).unwrap();
    assert_eq!((own.strings().len(), own.len()), (5, 2), "BTF-4: void and one type");
    assert!(parse(&blob(&[], b"int\0"), None, &config).is_err(), "BTF-4: a base begins with NUL");
    let no_data = parse(&blob(&[], b""), None, &config).unwrap_err();
    assert_eq!(no_data.why, "No data", "BTF-4");
    // The split part refers to it: name 1, type 2 is its own first.
    let split = blob(&[1, info(8, false, 0), 1, 0, info(10, false, 0), 2], b"");
    assert_eq!(btf_parse_module(&split, &own, &config), Ok(()), "BTF-4");
}

#[test]
fn hostile_blobs_end() {
    let config = config((6, 12), false);
    let good = blob(&[X, info(4, false, 1), 8, YZ, 1, 64, 0, info(10, false, 0), 3], OWN);
    for len in 0..good.len() {
        let _ = btf_parse_module(&good[..len], &base(), &config);
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = good.clone();
            changed[at] = value;
            let _ = btf_parse_module(&changed, &base(), &config);
        }
    }
    // A long chain of modifiers, each looked at once.
    let many: Vec<u32> = (0..100_000u32).flat_map(|i| [0, info(10, false, 0), (i + 2).max(1)]).collect();
    assert_eq!(btf_parse_module(&blob(&many, b""), &base(), &config), Ok(()));
}

#[test]
fn btf_5_the_name_of_the_kernels_own() {
    let lines = [
        "sysfs: cannot create duplicate filename '/kernel/btf/vmlinux'",
        "failed to register module [vmlinux] BTF in sysfs: -17",
    ];
    for (name, want) in [(&b"vmlinux"[..], &lines[..]), (b"vmlinux2", &[]), (b"", &[])] {
        let mut said = Findings::new();
        already_shown(name, &mut said);
        assert!(!said.refused(), "BTF-5");
        assert_eq!(said.dmesg().collect::<Vec<_>>(), want, "BTF-5: {name:?}");
    }
}
