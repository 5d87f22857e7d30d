//! `module_sig_check`: what a kernel makes of a module's signature (SIG-1 to SIG-17).

use alloc::format;
use alloc::string::String;

use elf_layout::signature::{MODULE_SIG_STRING, SignatureTail, module_sig_check};
use elf_layout::{Errno, Finding, Findings, Setting, needs};
use kernel::{Fact, Kernel};
use symres::LoadFlags;

use crate::Verdict;

/// Why a module counts as unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    /// The kernel's words for it (SIG-10).
    pub reason: &'static str,
    /// What is wrong, as it follows the module's name.
    pub why: String,
    /// What to do about it.
    pub hint: String,
}

/// Cuts the signature off, and verifies it where keys are known (kernel/module/signing.c: module_sig_check).
/// What comes back beside the tail is what leaves the module unsigned. What refuses it is pushed to `said`.
pub fn module_signature<'d>(
    file: &'d [u8],
    kernel: &Kernel,
    flags: LoadFlags,
    said: &mut Findings,
) -> (SignatureTail<'d>, Option<Unsigned>) {
    // SIG-13: without CONFIG_MODULE_SIG nothing is cut off.
    if !kernel.config.module_sig {
        return (untouched(file), None);
    }
    // What the tail of the file holds counts on a kernel with CONFIG_MODULE_SIG only.
    if kernel.config.assumes(Setting::ModuleSig) && file.ends_with(MODULE_SIG_STRING) {
        said.unjudged("SIG-13", needs::CONFIG);
        return (module_sig_check(file).0, None);
    }
    said.stage_at_first(|said| check_signature(file, kernel, flags, said))
}

/// A module of which no signature is cut off.
fn untouched(file: &[u8]) -> SignatureTail<'_> {
    SignatureTail { module: file, marker: false, pkcs7: None }
}

/// The check of a kernel with CONFIG_MODULE_SIG: the signature cut off, and why it does not count.
fn check_signature<'d>(
    file: &'d [u8],
    kernel: &Kernel,
    flags: LoadFlags,
    said: &mut Findings,
) -> (SignatureTail<'d>, Option<Unsigned>) {
    // SIG-1: a mangled module is not looked at, its signature cannot be right.
    let mangled = flags.ignore_modversions || flags.ignore_vermagic;
    let (tail, finding) = if mangled { (untouched(file), None) } else { module_sig_check(file) };
    finding.into_iter().for_each(|f| said.push(f));
    let verdict = tail.pkcs7.map(|pkcs7| verdict(pkcs7, tail.module, kernel));
    if let Some(Err(needs)) = verdict {
        said.unjudged("SIG-8", needs);
        return (tail, None);
    }
    let verdict = verdict.and_then(Result::ok);
    let by = || tail.pkcs7.map(signer_words).unwrap_or_default();
    // SIG-10: three reasons only leave the module unsigned.
    let unsigned = match verdict {
        Some(Verdict::Good) => None,
        Some(Verdict::Rejected) => {
            let why = format!(
                "bad signature: it is by a key that this kernel trusts ({}), but was not made for these bytes: the module was changed after it was signed",
                by()
            );
            let hint =
                "install the module again, or sign it as it is now (scripts/sign-file, after all stripping)";
            said.push(Finding::error("SIG-10", Errno::EKEYREJECTED, why).hint(hint));
            None
        }
        Some(Verdict::Malformed) => {
            let why = "bad signature: what is appended as one is no readable PKCS#7 message";
            let hint = "sign the module again (scripts/sign-file), or install it again";
            said.push(Finding::error("SIG-10", Errno::EBADMSG, why).hint(hint));
            None
        }
        Some(Verdict::UnknownKey) => Some(unknown_key(kernel, &by())),
        Some(Verdict::Unsupported) => Some(Unsigned {
            reason: "module with unsupported crypto",
            why: format!("is signed with an algorithm that is not supported ({})", by()),
            hint: String::from("sign it with RSA or ECDSA and SHA-2 (scripts/sign-file sha256 ...)"),
        }),
        None if tail.marker => Some(Unsigned {
            reason: "module with unsupported crypto",
            why: String::from("has a signature that is no PKCS#7 message"),
            hint: String::from("sign it again with this kernel's scripts/sign-file"),
        }),
        None if mangled => Some(Unsigned {
            reason: "unsigned module",
            why: String::from("is loaded by force, which leaves any signature out of account"),
            hint: String::from("load it without --force-vermagic and --force-modversion"),
        }),
        None => Some(Unsigned {
            reason: "unsigned module",
            why: String::from("is not signed"),
            hint: format!(
                "sign it: scripts/sign-file sha256 MOK.priv MOK.der FILE (after strip, which drops a signature); {ENROL}"
            ),
        }),
    };
    if let Some(unsigned) = &unsigned {
        refuse_unsigned(kernel, unsigned, said);
    }
    (tail, unsigned)
}

/// What becomes of a module that counts as unsigned: enforcement is asked first, then lockdown.
fn refuse_unsigned(kernel: &Kernel, unsigned: &Unsigned, said: &mut Findings) {
    let Unsigned { reason, why, hint } = unsigned;
    if let Some(rule) = kernel.may_keep_unsigned_out() {
        said.unjudged(rule, needs::CONFIG);
    }
    if let Some(by) = kernel.sig_enforced_by() {
        let why = format!("this kernel enforces signatures ({by}), and the module {why}");
        let finding = Finding::error("SIG-11", Errno::EKEYREJECTED, why).hint(hint.as_str());
        said.push(finding.says(format!("Loading of {reason} is rejected")));
    } else if let Some(by) = kernel.locked_down_by() {
        // security_locked_down(LOCKDOWN_MODULE_SIGNATURE)
        let why = format!("this kernel is locked down ({by}), and the module {why}");
        let line = "Lockdown: insmod: unsigned module loading is restricted; see man kernel_lockdown.7";
        said.push(Finding::error("SIG-16", Errno::EPERM, why).hint(hint.as_str()).says(line));
    }
}

/// What the kernel makes of a signature, or what telling that needs (SIG-8): a key that is none of those known may be one of
/// those that are not.
#[cfg(feature = "verify")]
fn verdict(pkcs7: &[u8], module: &[u8], kernel: &Kernel) -> Result<Verdict, &'static str> {
    match crate::verify_pkcs7_signature(pkcs7, module, kernel.trusted()) {
        Verdict::UnknownKey if kernel.known(Fact::Certificates).is_none() => Err(
            "the keys built into this kernel: its image or a SPEC made of it (--kernel); or the signer's certificate (--keyring)",
        ),
        verdict => Ok(verdict),
    }
}

/// Without cryptography nothing is verified.
#[cfg(not(feature = "verify"))]
fn verdict(_: &[u8], _: &[u8], _: &Kernel) -> Result<Verdict, &'static str> {
    Err("a build of this program that can verify signatures (feature `signature`)")
}

/// The signer in words; empty if the message does not name it.
#[cfg(feature = "verify")]
fn signer_words(pkcs7: &[u8]) -> String {
    crate::signer::read(pkcs7).map(|signer| signer.words()).unwrap_or_default()
}

/// Without cryptography the message is not read.
#[cfg(not(feature = "verify"))]
fn signer_words(_: &[u8]) -> String {
    String::new()
}

/// What makes a kernel trust a key of one's own, and this program know it.
const ENROL: &str =
    "enrol the certificate once (mokutil --import MOK.der) and give it here with --keyring MOK.der";

/// ENOKEY: the signature may be good, but its key is not known.
fn unknown_key(kernel: &Kernel, by: &str) -> Unsigned {
    let known = match (kernel.certificates.len(), kernel.keyring.len()) {
        (0, added) => {
            format!("none of the {added} of --keyring; the keys built into this kernel are not known")
        }
        (built_in, 0) => format!("none of the {built_in} built into this kernel"),
        (built_in, added) => {
            format!("none of the {built_in} built into this kernel and {added} of --keyring")
        }
    };
    Unsigned {
        reason: "module with unavailable key",
        why: format!("is signed by an unknown key ({by}), {known}"),
        hint: format!(
            "if it is a key of your own, {ENROL}; else get the module from where this kernel is from"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use alloc::vec;
    use alloc::vec::Vec;
    use elf_layout::{KernelConfig, KernelVersion, LockdownConfig};
    use kernel::BootParams;

    /// What an unsigned module gets, with the log; the codes of what is told or left open.
    fn unsigned(kernel: &Kernel) -> (Option<Errno>, Vec<String>, Vec<&'static str>) {
        let mut said = Findings::new();
        let (_, unsigned) = module_signature(b"unsigned", kernel, LoadFlags::default(), &mut said);
        assert!(unsigned.is_some());
        let open = said.open_rules().iter().map(|rule| rule.code);
        let codes = said.iter().map(|f| f.code).chain(open).collect();
        (said.errno(), said.dmesg().map(String::from).collect(), codes)
    }

    #[test]
    fn sig_16_and_17_enforcement_is_asked_first_then_lockdown() {
        let with = |cmdline: &str, secure_boot, options: LockdownConfig| {
            let mut kernel = Kernel::unknown(KernelConfig::new(KernelVersion::new(6, 1, 0)));
            let description = Arc::make_mut(&mut kernel.description);
            description.boot = BootParams { secure_boot, ..BootParams::parse(cmdline) };
            description.config.lockdown = options;
            unsigned(&kernel)
        };
        let rejected = String::from("Loading of unsigned module is rejected");
        let restricted = String::from(
            "Lockdown: insmod: unsigned module loading is restricted; see man kernel_lockdown.7",
        );
        let known = LockdownConfig {
            lsm: Some(true),
            early: Some(true),
            listed: Some(true),
            forced: Some(false),
            in_secure_boot: Some(true),
            ima_arch_policy: Some(false),
        };
        let ima = LockdownConfig { ima_arch_policy: Some(true), ..known };
        let eperm = (Some(Errno::EPERM), vec![restricted], vec!["SIG-16"]);
        let ekeyrejected = (Some(Errno::EKEYREJECTED), vec![rejected], vec!["SIG-11"]);
        assert_eq!(with("lockdown=integrity", false, known), eperm, "SIG-16");
        assert_eq!(with("lockdown=integrity module.sig_enforce", false, known), ekeyrejected, "SIG-11");
        assert_eq!(with("", true, known), eperm, "SIG-17: lockdown follows from Secure Boot");
        assert_eq!(with("", true, ima), ekeyrejected, "SIG-17: IMA enforces signatures before that");
        assert_eq!(with("", false, ima), (None, vec![], vec![]), "SIG-17: no Secure Boot");
        let open = (None, vec![], vec!["SIG-17"]);
        assert_eq!(with("", true, LockdownConfig::default()), open, "SIG-17: left open");
    }
}
