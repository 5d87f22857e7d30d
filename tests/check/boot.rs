//! How the kernel was started: its command line, lockdown, Secure Boot.

use serde_json::{Value, json};

use crate::asked::*;
use crate::common::{self, *};

#[test]
fn the_command_line_of_the_kernel() {
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", "quiet module_blacklist=foo,hello nokaslr"]);
    assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("EPERM")));
    assert_eq!(v["dmesg"], json!(["Module hello is blacklisted"]), "VAL-70");
    for cmdline in ["module_blacklist=hell,hello2", "module_blacklist=", ""] {
        let v = verdict(KERNEL, "hello", &[], &["--cmdline", cmdline]);
        assert_eq!(v["verdict"], "loads", "VAL-70: {cmdline:?}");
    }
    let blacklist = ["--cmdline", "initcall_blacklist=a_init,hello_init initcall_blacklist=b_init"];
    for kernel in common::KERNELS {
        let v = verdict(kernel, "hello", &[], &blacklist);
        assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("EPERM")), "LIFE-16");
        assert!(codes(&v).iter().any(|(code, _)| *code == "LIFE-16"), "LIFE-16: {kernel}: {v}");
        let quiet = |v: &Value| v["dmesg"].to_string();
        let v = (
            quiet(&v),
            verdict(kernel, "hello", &[], &["--cmdline", "initcall_blacklist=init_module,hello"]),
        );
        assert_eq!(v.1["verdict"], "loads", "LIFE-16: {kernel}: the first name in the symbol table counts");
        assert_eq!(v.0, quiet(&v.1), "LIFE-16: {kernel}: nothing is logged");
    }
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", "module.sig_enforce=1"]);
    assert_eq!((v["verdict"].as_str(), v["errno"].as_str()), (Some("refused"), Some("EKEYREJECTED")));
    assert_eq!(v["dmesg"], json!(["Loading of unsigned module is rejected"]), "SIG-11");
}

/// The certificate that the signed fixtures are signed with.
fn keyring() -> String {
    fixtures("signing/kmodld-fixtures.der").display().to_string()
}

#[test]
fn sig_16_lockdown_keeps_unsigned_modules_out() {
    let line = "Lockdown: insmod: unsigned module loading is restricted; see man kernel_lockdown.7";
    for level in ["lockdown=integrity", "lockdown=confidentiality"] {
        let v = verdict(KERNEL, "hello", &[], &["--cmdline", level]);
        assert_eq!((&v["errno"], &v["dmesg"]), (&json!("EPERM"), &json!([line])), "SIG-16: {level}: {v}");
        assert_eq!(v["taints"], "", "SIG-16 comes before SIG-12");
        let signed = verdict(KERNEL, "hello_signed", &[], &["--cmdline", level, "--keyring", &keyring()]);
        assert_eq!(signed["verdict"], "loads", "SIG-16: {level}: a signed module");
    }
    let both = "lockdown=integrity module.sig_enforce";
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", both]);
    assert_eq!(v["errno"], "EKEYREJECTED", "SIG-11 comes before SIG-16: {v}");
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", "lockdown=none"]);
    assert_eq!(v["verdict"], "loads", "SIG-16: no level of that name");
}

#[test]
fn sig_17_secure_boot_does_what_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let base = std::fs::read_to_string(fixtures(&format!("{KERNEL}/config"))).unwrap();
    let ima = "CONFIG_IMA_ARCH_POLICY=y\n";
    let lockdown = "CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\nCONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\n";
    let plain: String = base
        .lines()
        .filter(|l| !l.contains("LOCK") && !l.contains("IMA_ARCH"))
        .map(|l| format!("{l}\n"))
        .collect();
    for (options, errno) in [
        (format!("{ima}{lockdown}"), json!("EKEYREJECTED")),
        (ima.to_owned(), json!("EKEYREJECTED")),
        (lockdown.to_owned(), json!("EPERM")),
        (String::new(), json!(null)),
    ] {
        let config = dir.path().join("config");
        std::fs::write(&config, format!("{plain}{options}")).unwrap();
        let with = |module: &str, more: &[&str]| {
            let mut args = vec![String::from("check"), ko(KERNEL, module).display().to_string()];
            args.extend(kernel_args(KERNEL));
            *args.last_mut().unwrap() = config.display().to_string();
            args.push(String::from("--jsonl"));
            args.extend(more.iter().map(|s| String::from(*s)));
            parsed(kmodld(args))
        };
        let v = with("hello", &["--secure-boot"]);
        assert_eq!(v["errno"], errno, "SIG-17: {options}: {v}");
        let signed = with("hello_signed", &["--secure-boot", "--keyring", &keyring()]);
        assert_eq!(signed["errno"], json!(null), "SIG-17: {options}: signed: {signed}");
        let off = with("hello", &[]);
        assert_eq!(off["errno"], json!(null), "SIG-17: {options}: no Secure Boot");
    }
}

#[test]
fn val_1_nomodule() {
    let v = verdict(KERNEL, "hello", &[], &["--cmdline", "nomodule"]);
    assert_eq!((&v["errno"], &v["dmesg"]), (&json!("EPERM"), &json!([])), "VAL-1: {v}");
}
