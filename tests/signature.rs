//! The appended signature: what is cut off, what is refused (spec 01 §1.3).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::{AMD64, Elf, library};

/// Bytes of the marker and of the info block in front of it.
const MARKER: usize = 28;
const INFO: usize = 12;

fn signed(kernel: &str) -> Elf {
    Elf::new(common::read(&common::ko(kernel, "hello_signed")))
}

#[test]
fn sig_7_the_elf_checks_see_the_module_without_its_signature() {
    for kernel in AMD64 {
        let (file, hello) = (signed(kernel), common::read(&common::ko(kernel, "hello")));
        let config = common::config(kernel);
        let opened = library::open(&file.bytes, &config);
        assert!(opened.signature.marker && !opened.said.refused(), "{kernel}");
        assert_eq!(opened.module.unwrap().bytes(), hello, "SIG-7: {kernel}");
        let len = file.bytes.len() - hello.len() - MARKER - INFO;
        assert_eq!(opened.signature.pkcs7.unwrap().len(), len, "SIG-7: {kernel}: the PKCS#7 message");
    }
}

/// Each field of the info block, its offset from the end of the file, and what the kernel makes of it.
#[test]
fn sig_4_to_6_the_info_block() {
    for kernel in AMD64 {
        let config = common::config(kernel);
        let end = signed(kernel).bytes.len();
        let info = end - MARKER - INFO;
        let pkcs7 = ["module: not signed with expected PKCS#7 message"];
        let params = ["module: PKCS#7 signature info has unexpected non-zero params"];
        type Case<'c> = (&'c str, usize, u8, &'c str, &'c str, &'c [&'c str]);
        let cases: [Case<'_>; 9] = [
            ("algo", 0, 1, "SIG-6", "EBADMSG", &params),
            ("hash", 1, 4, "SIG-6", "EBADMSG", &params),
            ("id_type PGP", 2, 0, "SIG-5", "ENOPKG", &pkcs7),
            ("id_type X509", 2, 1, "SIG-5", "ENOPKG", &pkcs7),
            ("signer_len", 3, 1, "SIG-6", "EBADMSG", &params),
            ("key_id_len", 4, 1, "SIG-6", "EBADMSG", &params),
            ("pad", 5, 1, "SIG-6", "EBADMSG", &params),
            ("pad, last byte", 7, 0x80, "SIG-6", "EBADMSG", &params),
            ("sig_len beyond the file", 8, 0x7f, "SIG-4", "EBADMSG", &[]),
        ];
        for (what, at, value, code, errno, lines) in cases {
            let mut file = signed(kernel);
            file.bytes[info + at] = value;
            let said = library::check(&file.bytes, &config);
            let finding =
                said.iter().find(|f| f.code == code).unwrap_or_else(|| panic!("{code}: {kernel}: {what}"));
            // An unsupported signature is a soft reason (SIG-10): the module counts as unsigned.
            if finding.severity.refuses() {
                assert_eq!(finding.errno.map(|e| e.name()), Some(errno), "{code}: {kernel}: {what}");
            }
            assert_eq!(finding.dmesg, lines, "{code}: {kernel}: {what}");
        }
    }
}

#[test]
fn sig_10_only_unsupported_crypto_is_forgiven() {
    for kernel in AMD64 {
        let config = common::config(kernel);
        let info = signed(kernel).bytes.len() - MARKER - INFO;
        for (at, value, refused) in [(2, 1, false), (1, 4, true)] {
            let mut file = signed(kernel);
            file.bytes[info + at] = value;
            let said = library::check(&file.bytes, &config);
            let codes = library::codes(&said);
            assert_eq!(
                said.refused(),
                refused,
                "SIG-10: {kernel}: ENOPKG is soft without enforcement: {codes:?}"
            );
        }
    }
}

#[test]
fn sig_2_and_3_short_tails() {
    let config = common::config("6.12-amd64");
    let file = signed("6.12-amd64").bytes;
    let marker = &file[file.len() - MARKER..];
    // Whatever is that short has no room for an ELF header either, and the kernel does not even look.
    assert!(!library::open(marker, &config).signature.marker, "SIG-2: just the marker is no marker");
    for before in [1, INFO] {
        let short = [&vec![0; before][..], marker].concat();
        let said = library::check(&short, &config);
        assert_eq!(library::stop(&said).unwrap().0, "VAL-2", "{before} bytes before the marker");
        let finding = said.iter().find(|f| f.code == "SIG-3").expect("SIG-3");
        assert_eq!(
            finding.errno.map(|e| e.name()),
            Some("EBADMSG"),
            "SIG-3: {before} bytes before the marker"
        );
    }
    let mut damaged = file.clone();
    *damaged.last_mut().unwrap() = b' ';
    let opened = library::open(&damaged, &config);
    assert!(!opened.signature.marker && !opened.said.refused(), "SIG-2: a damaged marker is trailing bytes");
}

#[test]
fn sig_13_without_module_sig_nothing_is_cut_off() {
    let mut config = common::config("6.12-amd64");
    config.module_sig = false;
    let mut file = signed("6.12-amd64").bytes;
    let info = file.len() - MARKER - INFO;
    file[info] = 7;
    let opened = library::open(&file, &config);
    assert!(!opened.said.refused(), "SIG-13: {:?}", library::codes(&opened.said));
    assert_eq!(opened.module.unwrap().bytes().len(), file.len(), "SIG-13");
}

#[test]
fn a_signature_does_not_change_the_memory() {
    for kernel in AMD64 {
        let regions = |module| common::link(kernel, module, &["--json"]).exits(0).json()["regions"].clone();
        assert_eq!(regions("hello"), regions("hello_signed"), "SIG-7: {kernel}");
    }
}
