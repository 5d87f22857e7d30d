//! Signatures of all kinds on kernels with and without the algorithms, and the keyrings: what booted Debian kernels said
//! (SIG-8, SIG-9, SIG-14, SIG-18), with openssl's own keys in place of the kernel's.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Ran, kernel_args, kmodld, ko};
use module_signature::Hash;
use serde_json::Value;

/// A folder with keys, and with modules that are signed by them.
struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    /// `None` where there is no openssl.
    fn new(test: &str) -> Option<Self> {
        // `openssl --version` is an error up to 1.1, but it runs.
        if !common::has_tool(test, "openssl") {
            return None;
        }
        let keys = Keys { dir: tempfile::tempdir().unwrap() };
        for (name, kind) in [
            ("rsa", "rsa:2048"),
            ("rsa2", "rsa:2048"),
            ("ec256", "ec -pkeyopt ec_paramgen_curve:P-256"),
            ("ec384", "ec -pkeyopt ec_paramgen_curve:P-384"),
        ] {
            keys.openssl(&format!(
                "req -new -x509 -nodes -sha256 -newkey {kind} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 9"
            ));
        }
        Some(keys)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, args: &str) {
        let run =
            Command::new("openssl").args(args.split(' ')).current_dir(self.dir.path()).output().unwrap();
        assert!(run.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&run.stderr));
    }

    /// `hello` of a kernel, signed as scripts/sign-file does but for `more`; `edit` changes the message.
    fn signed(&self, kernel: &str, key: &str, more: &str, edit: Edit) -> PathBuf {
        let mut module = common::read(&ko(kernel, "hello"));
        std::fs::write(self.path("module"), &module).unwrap();
        self.openssl(&format!(
            "cms -sign -binary -nosmimecap -in module -signer {key}.pem -inkey {key}.key -outform DER -out cms {more}"
        ));
        let mut cms = common::read(&self.path("cms"));
        edit(&mut module, &mut cms);
        let mut file = module;
        file.extend(&cms);
        file.extend([0, 0, 2, 0, 0, 0, 0, 0]);
        file.extend((cms.len() as u32).to_be_bytes());
        file.extend(b"~Module signature appended~\n");
        let path = self.path("hello.ko");
        std::fs::write(&path, file).unwrap();
        path
    }
}

/// The options of Debian's kernels.
const OPTIONS: [(&str, &str); 2] = [
    (
        "6.1-amd64",
        "CRYPTO=y CRYPTO_MD5=y CRYPTO_SHA1=y CRYPTO_SHA256=y CRYPTO_SHA512=m CRYPTO_SHA3=m CRYPTO_RSA=y \
         SECONDARY_TRUSTED_KEYRING=y INTEGRITY_MACHINE_KEYRING=y INTEGRITY_PLATFORM_KEYRING=y SYSTEM_BLACKLIST_KEYRING=y",
    ),
    (
        "6.12-amd64",
        "CRYPTO=y CRYPTO_MD5=y CRYPTO_SHA1=y CRYPTO_SHA256=y CRYPTO_SHA512=y CRYPTO_SHA3=y CRYPTO_RSA=y CRYPTO_ECDSA=y \
         SECONDARY_TRUSTED_KEYRING=y INTEGRITY_MACHINE_KEYRING=y INTEGRITY_PLATFORM_KEYRING=y SYSTEM_BLACKLIST_KEYRING=y",
    ),
];

fn options(kernel: &str) -> &'static str {
    OPTIONS.iter().find(|(of, _)| *of == kernel).unwrap().1
}

/// `check` on a kernel with these options beside those of its fixture.
fn check_with(kernel: &str, options: &str, file: &Path, more: &[&str]) -> Ran {
    let whole = common::text(&common::fixtures(&format!("{kernel}/config")));
    // Only what is given tells of keyrings and algorithms.
    let tells = |line: &&str| !["CRYPTO", "KEYRING", "REVOCATION"].iter().any(|word| line.contains(word));
    let mut config: String = whole.lines().filter(tells).map(|line| format!("{line}\n")).collect();
    config.extend(options.split_whitespace().map(|option| format!("CONFIG_{option}\n")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, config).unwrap();
    let mut args = vec![String::from("check"), String::from("--jsonl"), file.display().to_string()];
    args.extend(kernel_args(kernel));
    *args.last_mut().unwrap() = path.display().to_string();
    args.extend(more.iter().map(|s| String::from(*s)));
    kmodld(args)
}

fn check(kernel: &str, file: &Path, more: &[&str]) -> Ran {
    check_with(kernel, options(kernel), file, more)
}

/// Changes the module, which is signed by then, or the message.
type Edit = fn(&mut [u8], &mut Vec<u8>);

fn as_made(_: &mut [u8], _: &mut Vec<u8>) {}

fn module_changed(module: &mut [u8], _: &mut Vec<u8>) {
    module[9] ^= 1;
}

/// errno, and the lines of the log that are of the signature.
fn outcome(v: &Value) -> (String, Vec<String>) {
    let errno = v["errno"].as_str().unwrap_or("loads").to_owned();
    let lines = v["dmesg"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
    (errno, lines.filter(|line| !line.starts_with("hello: ")).collect())
}

/// With `module.sig_enforce`, which tells ENOKEY from ENOPKG. Each line is what booted 6.1 and 6.12 gave.
#[test]
fn sig_18_what_booted_kernels_said() {
    let Some(keys) = Keys::new("sig_18_what_booted_kernels_said") else { return };
    let good = ("loads", &[][..]);
    let unknown = ("EKEYREJECTED", &["Loading of module with unavailable key is rejected"][..]);
    let unsupported = ("EKEYREJECTED", &["Loading of module with unsupported crypto is rejected"][..]);
    let rejected = ("EKEYREJECTED", &[][..]);
    let attributes = ("EKEYREJECTED", &["PKCS7: Invalid module sig (has authattrs)"][..]);
    let attached =
        ("EBADMSG", &["PKCS7: Data already supplied", "PKCS#7 signature with non-detached data"][..]);
    let plain = "-noattr -nocerts -md";
    let rows: [(&str, String, Edit, _, _); 19] = [
        ("rsa", format!("{plain} sha1"), as_made, good, good),
        ("rsa", format!("{plain} sha224"), as_made, good, good),
        ("rsa", format!("{plain} sha256"), as_made, good, good),
        ("rsa", format!("{plain} md5"), as_made, good, unsupported),
        ("rsa", format!("{plain} sha3-256"), as_made, unsupported, good),
        ("ec256", format!("{plain} sha256"), as_made, unknown, good),
        ("ec384", format!("{plain} sha256"), as_made, unknown, good),
        ("rsa", String::from("-nocerts -md sha256"), as_made, attributes, attributes),
        ("rsa2", String::from("-nocerts -md sha256"), as_made, attributes, attributes),
        ("rsa", String::from("-noattr -md sha256"), as_made, good, good),
        ("rsa2", String::from("-noattr -md sha256"), as_made, unknown, unknown),
        ("ec256", String::from("-noattr -md sha256"), as_made, ("ENOENT", &[][..]), good),
        ("rsa", format!("{plain} sha256 -keyid"), as_made, good, good),
        ("rsa", format!("{plain} sha256 -nodetach"), as_made, attached, attached),
        ("rsa", format!("{plain} sha256 -keyopt rsa_padding_mode:pss"), as_made, unsupported, unsupported),
        ("rsa", format!("{plain} sha256"), module_changed, rejected, rejected),
        // The certificate in the message is enough to tell.
        ("rsa2", String::from("-noattr -md sha256"), module_changed, rejected, rejected),
        ("rsa2", format!("{plain} sha256"), module_changed, unknown, unknown),
        ("rsa", format!("{plain} sha256"), |_, cms| cms.extend([0; 3]), good, good),
    ];
    for (key, how, edit, old, new) in rows {
        for (kernel, (errno, lines)) in [("6.1-amd64", old), ("6.12-amd64", new)] {
            let file = keys.signed(kernel, key, &how, edit);
            let mut more = vec![String::from("--cmdline"), String::from("module.sig_enforce")];
            for ring in ["rsa", "ec256", "ec384"] {
                more.extend([
                    String::from("--keyring"),
                    keys.path(&format!("{ring}.pem")).display().to_string(),
                ]);
            }
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            let v = check(kernel, &file, &more).json();
            let lines: Vec<String> = lines.iter().map(|line| String::from(*line)).collect();
            assert_eq!(outcome(&v), (errno.to_owned(), lines), "SIG-18: {kernel}: {key} {how}: {v}");
        }
    }
}

/// 6.1 of Debian has SHA-512 as a module: it depends on modprobe.
#[test]
fn sig_18_an_algorithm_in_a_module_is_told() {
    let Some(keys) = Keys::new("sig_18_an_algorithm_in_a_module_is_told") else { return };
    let ring = keys.path("rsa.pem").display().to_string();
    for (kernel, told) in [("6.1-amd64", true), ("6.12-amd64", false)] {
        let file = keys.signed(kernel, "rsa", "-noattr -nocerts -md sha512", as_made);
        let v = check(kernel, &file, &["--keyring", &ring]).exits(0).json();
        let all = v["findings"].as_array().unwrap();
        let found = all.iter().find(|f| f["code"] == "SIG-18");
        assert_eq!(found.is_some(), told, "SIG-18: {kernel}: {v}");
        let why = found.map(|f| f["explanation"].as_str().unwrap().to_owned()).unwrap_or_default();
        assert_eq!(why.contains("CONFIG_CRYPTO_SHA512"), told, "SIG-18: {kernel}: {why}");
    }
}

#[test]
fn sig_8_which_keyrings_are_asked() {
    let Some(keys) = Keys::new("sig_8_which_keyrings_are_asked") else { return };
    let kernel = "6.12-amd64";
    let file = keys.signed(kernel, "rsa", "-noattr -nocerts -md sha256", as_made);
    let ring = keys.path("rsa.pem").display().to_string();
    let algorithms = "CRYPTO=y CRYPTO_SHA256=y CRYPTO_RSA=y";
    // Options that the kernel is built with, the keyring, and whether it is asked.
    for (options, name, asked) in [
        ("", ".builtin_trusted_keys", true),
        ("", "secondary_trusted_keys", false),
        ("SECONDARY_TRUSTED_KEYRING=y", "secondary_trusted_keys", true),
        ("INTEGRITY_MACHINE_KEYRING=y", ".machine", false),
        ("SECONDARY_TRUSTED_KEYRING=y", ".machine", false),
        ("SECONDARY_TRUSTED_KEYRING=y INTEGRITY_MACHINE_KEYRING=y", ".machine", true),
        ("", ".platform", false),
        ("INTEGRITY_PLATFORM_KEYRING=y", ".platform", true),
        ("SECONDARY_TRUSTED_KEYRING=y INTEGRITY_PLATFORM_KEYRING=y", ".blacklist", false),
    ] {
        let what = format!("SIG-8: {options:?}, {name}");
        let options = format!("{algorithms} {options}");
        let named = format!("{name}={ring}");
        let v = check_with(kernel, &options, &file, &["--keyring", &named]).exits(0).json();
        assert_eq!(v["taints"], if asked { "O" } else { "OE" }, "{what}: {v}");
        let found = v["findings"].as_array().unwrap().iter().find(|f| f["code"] == "SIG-12");
        let why = found.map(|f| f["explanation"].as_str().unwrap().to_owned()).unwrap_or_default();
        let words =
            format!("its key is in .{}, which this kernel does not ask", name.trim_start_matches('.'));
        assert_eq!(why.contains(&words), !asked, "{what}: {why}");
        let enforced = ["--keyring", &named, "--cmdline", "module.sig_enforce"];
        check_with(kernel, &options, &file, &enforced).exits(if asked { 0 } else { 1 });
    }
    // Nothing tells whether there are such keyrings: that is told, and the key does not count.
    for name in [".secondary_trusted_keys", ".machine", ".platform"] {
        let v = check_with(kernel, "", &file, &["--keyring", &format!("{name}={ring}")]).exits(0).json();
        let found = v["findings"].as_array().unwrap().iter().find(|f| f["code"] == "SIG-8");
        let why = found.map(|f| f["explanation"].as_str().unwrap().to_owned()).unwrap_or_default();
        assert!(why.contains(name) && why.contains("not known whether"), "SIG-8: {name}: {v}");
        assert_eq!(v["taints"], "OE", "SIG-8: {name}: {v}");
    }
}

#[test]
fn sig_8_a_keyring_that_no_kernel_has() {
    let hello = ko("6.12-amd64", "hello");
    let ran = check("6.12-amd64", &hello, &["--keyring", ".platfrom=key.der"]).exits(2);
    for name in [
        ".platfrom",
        ".builtin_trusted_keys",
        ".secondary_trusted_keys",
        ".machine",
        ".platform",
        ".blacklist",
    ] {
        assert!(ran.stderr.contains(name), "SIG-8: no {name:?} in {}", ran.stderr);
    }
    // With a slash before the sign it is a file.
    let ran = check("6.12-amd64", &hello, &["--keyring", "./no=key.der"]).exits(3);
    assert!(ran.stderr.contains("./no=key.der"), "{}", ran.stderr);
}

#[test]
fn sig_9_what_is_in_the_blacklist_is_refused() {
    let Some(keys) = Keys::new("sig_9_what_is_in_the_blacklist_is_refused") else { return };
    let kernel = "6.12-amd64";
    let ring = keys.path("rsa.pem").display().to_string();
    let file = keys.signed(kernel, "rsa", "-noattr -nocerts -md sha256", as_made);
    let hex: String = Hash::Sha256.digest(&common::read(&file)).iter().map(|b| format!("{b:02x}")).collect();
    let list = keys.path("list");
    let named = format!(".blacklist={}", list.display());
    for (text, refused) in
        [(format!("# dbx\nbin:{hex}\n"), true), (format!("bin:{}\n", "00".repeat(32)), false)]
    {
        std::fs::write(&list, text).unwrap();
        let v = check(kernel, &file, &["--keyring", &ring, "--keyring", &named]).json();
        let line = format!("Module hash {hex} is blacklisted");
        let want = if refused { ("EKEYREJECTED", vec![line]) } else { ("loads", vec![]) };
        assert_eq!(outcome(&v), (want.0.to_owned(), want.1), "SIG-9: {v}");
    }
    // The certificate in a message, by the hash of what is signed of it.
    let file = keys.signed(kernel, "rsa2", "-noattr -md sha256", as_made);
    keys.openssl("x509 -in rsa2.pem -outform DER -out rsa2.der");
    let der = common::read(&keys.path("rsa2.der"));
    // SEQUENCE { tbsCertificate SEQUENCE ..., each with a length of two bytes.
    let len = usize::from(u16::from_be_bytes([der[6], der[7]])) + 4;
    let hex: String = Hash::Sha256.digest(&der[4..4 + len]).iter().map(|b| format!("{b:02x}")).collect();
    std::fs::write(&list, format!("tbs:{hex}\n")).unwrap();
    let v = check(kernel, &file, &["--keyring", &ring, "--keyring", &named]).exits(1).json();
    assert_eq!(v["errno"], "EKEYREJECTED", "SIG-9: {v}");
    // A file that is no list and no certificate is told.
    std::fs::write(&list, "bin:XYZ\n").unwrap();
    check(kernel, &file, &["--keyring", &named]).exits(3);
}
