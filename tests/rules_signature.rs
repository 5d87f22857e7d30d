//! Signatures verified against the certificates of a kernel (spec 01 §1.3).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{AMD64, library};
use elf_layout::Errno;
use kernel::Kernel;
use module_signature::{Trust, Verdict};
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

/// What a kernel of which no algorithm is known makes of a message, with these certificates.
fn verify_pkcs7_signature(pkcs7: &[u8], module: &[u8], certificates: &[Vec<u8>]) -> Verdict {
    let config = kernel::newest();
    let keys = Some(certificates.iter().map(Vec::as_slice).collect());
    let trust = Trust { config: &config, keys, revoked: Vec::new(), blacklist: &[] };
    module_signature::verify_pkcs7_signature(pkcs7, module, &trust).verdict
}

const REJECTED: Verdict = Verdict::Refused(Errno::EKEYREJECTED);

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
            assert_eq!(found, REJECTED, "SIG-8: {kernel}, hello_signed: byte {at:#x} is changed");
        }
        let found = verify_pkcs7_signature(&pkcs7, &module[..module.len() - 1], &ours);
        assert_eq!(found, REJECTED, "SIG-8: {kernel}, hello_signed: a byte is missing");
        let mut changed = pkcs7.clone();
        *changed.last_mut().unwrap() ^= 1;
        let found = verify_pkcs7_signature(&changed, &module, &ours);
        assert_eq!(found, REJECTED, "SIG-8: {kernel}, hello_signed: the signature is changed");
        for (what, certificates) in [("no certificate", vec![]), ("one of no use", vec![b"no DER".to_vec()])]
        {
            let found = verify_pkcs7_signature(&pkcs7, &module, &certificates);
            assert_eq!(found, Verdict::UnknownKey, "SIG-8: {kernel}, hello_signed: {what}");
        }
        for garbage in [&b""[..], b"garbage", &pkcs7[..pkcs7.len() / 2], &pkcs7[1..]] {
            let found = verify_pkcs7_signature(garbage, &module, &ours);
            assert_eq!(
                found,
                Verdict::Refused(Errno::EBADMSG),
                "SIG-8: {kernel}, hello_signed: {} bytes",
                garbage.len()
            );
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
fn sig_14_signed_attributes_are_refused() {
    let name = "sig_14_signed_attributes_are_refused";
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
        for (what, more, good) in [
            ("with attributes", "-nosmimecap", REJECTED),
            ("with more attributes", "-keyid", REJECTED),
            ("without", "-noattr", Verdict::Good),
            ("without, by key identifier", "-noattr -keyid", Verdict::Good),
        ] {
            openssl(dir, &format!("{sign} {more} -out cms"));
            let cms = common::read(&dir.join("cms"));
            let what = format!("hello, {key}, {hash}, {what}");
            let found = verify_pkcs7_signature(&cms, &module, &certificate);
            assert_eq!(found, good, "SIG-14: {what}");
            let mut changed = module.clone();
            changed[0x100] ^= 1;
            let found = verify_pkcs7_signature(&cms, &changed, &certificate);
            assert_eq!(found, REJECTED, "SIG-8: {what}: the module is changed");
        }
    }
}
