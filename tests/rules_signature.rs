//! Signatures verified against the certificates of a kernel (spec 01 §1.3).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{AMD64, library};
use kernel::Kernel;
use module_signature::{Verdict, verify_pkcs7_signature};
use symres::LoadFlags;

/// Bytes of the marker and of the info block in front of it.
const TAIL: usize = 28 + 12;

fn certificate() -> Vec<u8> {
    common::read(&common::fixtures("signing/kmodld-fixtures.der"))
}

fn signed(kernel: &str) -> Vec<u8> {
    common::read(&common::ko(kernel, "hello_signed"))
}

/// The module and its signature.
fn parts(kernel: &str) -> (Vec<u8>, Vec<u8>) {
    let file = signed(kernel);
    let opened = library::open(&file, &common::config(kernel));
    (opened.signature.module.to_vec(), opened.signature.pkcs7.expect("a signature").to_vec())
}

fn with_certificates(kernel: &str, certificates: Vec<Vec<u8>>) -> Kernel {
    let mut on = common::kernel(kernel);
    Arc::make_mut(&mut on.description).certificates = certificates;
    on
}

#[test]
fn sig_8_the_four_verdicts() {
    for kernel in common::KERNELS {
        let (module, pkcs7) = parts(kernel);
        let ours = [certificate()];
        let good = verify_pkcs7_signature(&pkcs7, &module, &ours);
        assert_eq!(good, Verdict::Good, "SIG-8: {kernel}, hello_signed");
        for at in [0, 0x40, module.len() / 2, module.len() - 1] {
            let mut changed = module.clone();
            changed[at] ^= 1;
            let found = verify_pkcs7_signature(&pkcs7, &changed, &ours);
            assert_eq!(found, Verdict::Rejected, "SIG-8: {kernel}, hello_signed: byte {at:#x} is changed");
        }
        let found = verify_pkcs7_signature(&pkcs7, &module[..module.len() - 1], &ours);
        assert_eq!(found, Verdict::Rejected, "SIG-8: {kernel}, hello_signed: a byte is missing");
        let mut changed = pkcs7.clone();
        *changed.last_mut().unwrap() ^= 1;
        let found = verify_pkcs7_signature(&changed, &module, &ours);
        assert_eq!(found, Verdict::Rejected, "SIG-8: {kernel}, hello_signed: the signature is changed");
        for (what, certificates) in [("no certificate", vec![]), ("one of no use", vec![b"no DER".to_vec()])]
        {
            let found = verify_pkcs7_signature(&pkcs7, &module, &certificates);
            assert_eq!(found, Verdict::UnknownKey, "SIG-8: {kernel}, hello_signed: {what}");
        }
        for garbage in [&b""[..], b"garbage", &pkcs7[..pkcs7.len() / 2], &pkcs7[1..]] {
            let found = verify_pkcs7_signature(garbage, &module, &ours);
            assert_eq!(found, Verdict::Malformed, "SIG-8: {kernel}, hello_signed: {} bytes", garbage.len());
        }
    }
}

#[test]
fn sig_8_what_a_kernel_makes_of_it() {
    for kernel in AMD64 {
        let len = signed(kernel).len() - TAIL;
        let pkcs7_at = len - parts(kernel).1.len();
        for (what, patch, errno, ok) in [
            ("good", None, None, true),
            ("a byte of the module", Some(0x200), Some("EKEYREJECTED"), false),
            ("the tag of the message", Some(pkcs7_at), Some("EBADMSG"), false),
        ] {
            let mut file = signed(kernel);
            if let Some(at) = patch {
                file[at] ^= 1;
            }
            let on = with_certificates(kernel, vec![certificate()]);
            let opened = kmodld::load::open(&file, &on, LoadFlags::default());
            let stop = library::stop(&opened.said).and_then(|s| s.1);
            assert_eq!(stop, errno, "SIG-8: {kernel}, hello_signed: {what}");
            if errno.is_none() {
                assert_eq!(opened.sig_ok(), ok, "SIG-8: {kernel}, hello_signed: {what}");
            }
        }
        let mut on = with_certificates(kernel, vec![b"another".to_vec()]);
        let file = signed(kernel);
        let opened = kmodld::load::open(&file, &on, LoadFlags::default());
        assert_eq!(
            (opened.sig_ok(), opened.said.refused()),
            (false, false),
            "SIG-8: {kernel}: ENOKEY is soft"
        );
        Arc::make_mut(&mut on.description).boot.sig_enforce = true;
        let said = kmodld::load::open(&file, &on, LoadFlags::default()).said;
        let line = "Loading of module with unavailable key is rejected";
        assert_eq!(said.dmesg().collect::<Vec<_>>(), [line], "SIG-8: {kernel}, hello_signed, enforced");
    }
}

#[test]
fn sig_1_with_versions_ignored_the_marker_is_not_looked_at() {
    for kernel in AMD64 {
        let file = signed(kernel);
        for (ignore_modversions, ignore_vermagic) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let flags = LoadFlags { ignore_modversions, ignore_vermagic };
            let mut on = with_certificates(kernel, vec![certificate()]);
            let opened = kmodld::load::open(&file, &on, flags);
            let plain = flags == LoadFlags::default();
            let what = format!("{kernel}, hello_signed, {flags:?}");
            assert_eq!((opened.signature.marker, opened.sig_ok()), (plain, plain), "SIG-1: {what}");
            let len = if plain { parts(kernel).0.len() } else { file.len() };
            assert_eq!(
                opened.module.unwrap().bytes().len(),
                len,
                "SIG-1: {what}: the signature stays inside"
            );
            assert!(!opened.said.refused(), "SIG-1: {what}");
            Arc::make_mut(&mut on.description).boot.sig_enforce = true;
            let said = kmodld::load::open(&file, &on, flags).said;
            let log: Vec<&str> = said.dmesg().collect();
            let want = if plain { vec![] } else { vec!["Loading of unsigned module is rejected"] };
            assert_eq!(log, want, "SIG-1: {what}, enforced");
        }
    }
}

/// Runs openssl in a folder.
fn openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl").args(args.split(' ')).current_dir(dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "openssl {args}: {text}");
}

#[test]
fn sig_14_signed_attributes_are_what_is_signed() {
    let name = "sig_14_signed_attributes_are_what_is_signed";
    // `openssl --version` is an error up to 1.1, but it runs.
    if !common::has_tool(name, "openssl") {
        return;
    }
    let module = common::read(&common::ko("6.12-amd64", "hello"));
    for (key, hash) in [
        ("rsa:2048", "sha256"),
        ("rsa:2048", "sha512"),
        ("ec -pkeyopt ec_paramgen_curve:prime256v1", "sha256"),
        ("ec -pkeyopt ec_paramgen_curve:secp384r1", "sha384"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::write(dir.join("module"), &module).unwrap();
        openssl(
            dir,
            &format!("req -new -x509 -nodes -newkey {key} -keyout key -out pem -subj /CN=test -days 9"),
        );
        openssl(dir, "x509 -in pem -outform DER -out der");
        let certificate = vec![common::read(&dir.join("der"))];
        let sign =
            format!("cms -sign -binary -nocerts -signer pem -inkey key -in module -outform DER -md {hash}");
        for (what, more, attributes) in [
            ("with attributes", "-nosmimecap", true),
            ("with more attributes", "-keyid", true),
            ("without", "-noattr", false),
        ] {
            openssl(dir, &format!("{sign} {more} -out cms"));
            let cms = common::read(&dir.join("cms"));
            let what = format!("hello, {key}, {hash}, {what}");
            // The OID of messageDigest stands in the message if there are attributes.
            let oid = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
            assert_eq!(cms.windows(9).any(|w| w == oid), attributes, "SIG-14: {what}");
            let found = verify_pkcs7_signature(&cms, &module, &certificate);
            assert_eq!(found, Verdict::Good, "SIG-14: {what}");
            let mut changed = module.clone();
            changed[0x100] ^= 1;
            let found = verify_pkcs7_signature(&cms, &changed, &certificate);
            assert_eq!(found, Verdict::Rejected, "SIG-14: {what}: the module is changed");
            if attributes {
                // Its value is the last of OID, SET and OCTET STRING: 4 bytes of headers behind the OID.
                let at = cms.windows(9).position(|w| w == oid).unwrap() + 9 + 4;
                let mut forged = cms.clone();
                forged[at] ^= 1;
                let found = verify_pkcs7_signature(&forged, &module, &certificate);
                assert_eq!(found, Verdict::Rejected, "SIG-14: {what}: messageDigest is another");
                // Changing the signing time leaves messageDigest right, but not what is signed.
                let time = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 5];
                let at = cms.windows(9).position(|w| w == time).unwrap() + 9 + 4 + 11;
                let mut forged = cms.clone();
                forged[at] ^= 1;
                let found = verify_pkcs7_signature(&forged, &module, &certificate);
                assert_eq!(found, Verdict::Rejected, "SIG-14: {what}: the signing time is another");
            }
        }
    }
}
