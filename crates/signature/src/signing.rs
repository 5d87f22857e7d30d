//! `module_sig_check`: what a kernel makes of a module's signature (SIG-1 to SIG-17).

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::signature::{MODULE_SIG_STRING, SignatureTail, module_sig_check};
use elf_layout::{Crypto, Errno, Finding, Findings, Presence, Setting, Severity, needs};
use kernel::{Fact, Kernel};
use symres::LoadFlags;

use crate::{Verdict, Verified};
#[cfg(feature = "verify")]
use {elf_layout::Change, elf_layout::config::Flavour, kernel::Keyring};

/// Why a module counts as unsigned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
    let verified = tail.pkcs7.map(|pkcs7| verified(pkcs7, tail.module, kernel));
    if let Some((rule, needs)) = verified.as_ref().and_then(|verified| left_open(verified, kernel)) {
        said.unjudged(rule, needs);
        return (tail, None);
    }
    if let Some(open) = verified.as_ref().and_then(|verified| open_questions(verified, kernel)) {
        said.push(open);
    }
    let by = || tail.pkcs7.map(signer_words).unwrap_or_default();
    // SIG-10: three reasons only leave the module unsigned.
    let unsigned = match verified.as_ref().map(|verified| verified.verdict) {
        Some(Verdict::Good) => {
            module_is_blacklisted(file, kernel).into_iter().for_each(|f| said.push(f));
            None
        }
        Some(Verdict::Refused(errno)) => {
            let (why, log) = verified.map(|v| (v.why, v.log)).unwrap_or_default();
            let why = format!("bad signature ({}): {why}", by());
            let hint =
                "install the module again, or sign it as it is now (scripts/sign-file, after all stripping)";
            let finding = Finding::error("SIG-10", errno, why).hint(hint);
            said.push(log.into_iter().fold(finding, Finding::says));
            None
        }
        Some(Verdict::UnknownKey) => {
            let elsewhere = tail.pkcs7.and_then(|pkcs7| known_elsewhere(pkcs7, tail.module, kernel));
            let (words, note) = elsewhere.unzip();
            if note.as_ref().is_some_and(Option::is_some) && keeps_unsigned_out(kernel) {
                said.unjudged("SIG-8", needs::CONFIG);
                return (tail, None);
            }
            note.flatten().into_iter().for_each(|f| said.push(f));
            Some(unknown_key(kernel, &by(), words))
        }
        Some(Verdict::Unsupported) => Some(unsupported(verified.as_ref(), &by())),
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

/// What the kernel makes of it, as far as its keys are known.
#[cfg(feature = "verify")]
fn verified(pkcs7: &[u8], module: &[u8], kernel: &Kernel) -> Verified {
    let keys = Some(kernel.trusted().map(Vec::as_slice).collect());
    crate::verify_pkcs7_signature(pkcs7, module, &trust(kernel, keys))
}

/// What a kernel verifies with, with these keys.
#[cfg(feature = "verify")]
fn trust<'k>(kernel: &'k Kernel, keys: Option<Vec<&'k [u8]>>) -> crate::Trust<'k> {
    crate::Trust {
        config: &kernel.config,
        keys,
        revoked: kernel.keys_of(Keyring::Blacklist).map(Vec::as_slice).collect(),
        blacklist: &kernel.blacklist,
    }
}

/// Without cryptography nothing is verified.
#[cfg(not(feature = "verify"))]
fn verified(_: &[u8], _: &[u8], _: &Kernel) -> Verified {
    Verified {
        verdict: Verdict::Good,
        log: Vec::new(),
        why: "",
        lacks: Vec::new(),
        assumed: Vec::new(),
        not_computed: true,
    }
}

/// A keyring that has the signer's key, but is not known to be asked: its words, and a note if nobody knows whether it is.
#[cfg(feature = "verify")]
fn known_elsewhere(pkcs7: &[u8], module: &[u8], kernel: &Kernel) -> Option<(String, Option<Finding>)> {
    let has = |ring: &Keyring| {
        let keys: Vec<&[u8]> = kernel.keys_of(*ring).map(Vec::as_slice).collect();
        let trust = crate::Trust { revoked: Vec::new(), ..trust(kernel, Some(keys)) };
        crate::verify_pkcs7_signature(pkcs7, module, &trust).verdict == Verdict::Good
    };
    let not_asked = |ring: &Keyring| ring.is_asked(&kernel.config) != Some(true);
    let ring = Keyring::NAMED.into_iter().filter(not_asked).find(has)?;
    let name = ring.name();
    if ring.is_asked(&kernel.config).is_some() {
        return Some((format!("its key is in {name}, which this kernel does not ask for modules"), None));
    }
    let words =
        format!("its key is in {name}, and it is not known whether this kernel asks that for modules");
    let hint = match ring {
        Keyring::Platform => {
            "mainline does not ask .platform for modules, a patch of several distributions does; Debian has it"
        }
        _ => "give the kernel's configuration (--config), or its image",
    };
    let why = format!("the signature is right, and {words}: it is taken as not asked");
    Some((words, Some(Finding::note("SIG-8", Severity::Warning, why).hint(hint))))
}

/// Without cryptography no key is looked for.
#[cfg(not(feature = "verify"))]
fn known_elsewhere(_: &[u8], _: &[u8], _: &Kernel) -> Option<(String, Option<Finding>)> {
    None
}

/// SIG-9: Debian looks up the SHA-256 of the whole file (mod_is_hash_blacklisted), until it dropped the patch.
#[cfg(feature = "verify")]
fn module_is_blacklisted(file: &[u8], kernel: &Kernel) -> Option<Finding> {
    let looks = kernel.config.flavour == Flavour::Debian
        && !kernel.config.has(Change::ModuleHashesNotLookedUp)
        && kernel.config.keys.blacklist != Some(false);
    if !looks || kernel.blacklist.is_empty() {
        return None;
    }
    let name = crate::hash::blacklist_name("bin", &crate::Hash::Sha256.digest(file));
    let hex = name.strip_prefix("bin:").unwrap_or_default();
    let why = "the hash of the module is in the blacklist of this kernel";
    let finding = Finding::error("SIG-9", Errno::EKEYREJECTED, why)
        .says(format!("Module hash {hex} is blacklisted"))
        .hint("the firmware forbids this file (dbx): get another version of the module");
    kernel.blacklist.contains(&name).then_some(finding)
}

/// Without cryptography there is no hash.
#[cfg(not(feature = "verify"))]
fn module_is_blacklisted(_: &[u8], _: &Kernel) -> Option<Finding> {
    None
}

/// The rule that leaves a signature open, and what would settle it (SIG-8, SIG-18).
fn left_open(verified: &Verified, kernel: &Kernel) -> Option<(&'static str, Cow<'static, str>)> {
    if !cfg!(feature = "verify") {
        return Some((
            "SIG-8",
            "a build of this program that can verify signatures (feature `signature`)".into(),
        ));
    }
    // Of an unknown key nothing is computed.
    if verified.not_computed && verified.verdict != Verdict::UnknownKey {
        return Some(("SIG-18", "the kernel itself: the signature's algorithm is not computed here".into()));
    }
    // A key that is none of those known may be one of those that are not.
    if verified.verdict == Verdict::UnknownKey && kernel.known(Fact::Certificates).is_none() {
        let needs = "the keys built into this kernel: its image or a SPEC made of it (--kernel); or the signer's certificate (--keyring)";
        return Some(("SIG-8", needs.into()));
    }
    // Without an algorithm that it is taken to have, the module counts as unsigned.
    let keeps_out = keeps_unsigned_out(kernel);
    let differs = match verified.verdict {
        Verdict::Good => keeps_out,
        Verdict::Refused(_) => !keeps_out,
        Verdict::UnknownKey | Verdict::Unsupported => false,
    };
    let crypto = verified.assumed.first().filter(|_| differs)?;
    let needs = match kernel.config.keys.presence(*crypto) {
        Some(_) => Cow::from(format!(
            "whether modprobe can load CONFIG_CRYPTO_{}, a module of this kernel, by then",
            crypto.option()
        )),
        None => needs::CONFIG.into(),
    };
    Some(("SIG-18", needs))
}

/// Does it keep a module out that counts as unsigned, or may it?
fn keeps_unsigned_out(kernel: &Kernel) -> bool {
    let reason = kernel.sig_enforced_by().or(kernel.locked_down_by());
    reason.or(kernel.may_keep_unsigned_out()).is_some()
}

/// SIG-18: algorithms that are taken to be there.
fn open_questions(verified: &Verified, kernel: &Kernel) -> Option<Finding> {
    if verified.verdict == Verdict::UnknownKey {
        return None;
    }
    let is = |presence| move |crypto: &&Crypto| kernel.config.keys.presence(**crypto) == presence;
    let names = |presence| {
        let all = verified.assumed.iter().filter(is(presence));
        all.map(|crypto| format!("CONFIG_CRYPTO_{}", crypto.option())).collect::<Vec<_>>().join(", ")
    };
    let (modules, unknown) = (names(Some(Presence::Module)), names(None));
    if !modules.is_empty() {
        let why = format!(
            "the signature needs an algorithm that is a module of this kernel ({modules}), which asks modprobe for it: \
             where that cannot load it, the module counts as unsigned"
        );
        let hint = "load it before (modprobe), and have it in the initramfs if this module is there";
        return Some(Finding::note("SIG-18", Severity::Warning, why).hint(hint));
    }
    let why = format!(
        "it is not known whether this kernel has what the signature needs ({unknown}): that is assumed"
    );
    let hint = "give the kernel's configuration (--config), or its image";
    (!unknown.is_empty()).then(|| Finding::note("SIG-18", Severity::Note, why).hint(hint))
}

/// ENOPKG
fn unsupported(verified: Option<&Verified>, by: &str) -> Unsigned {
    let lacks = verified.map(|verified| verified.lacks.as_slice()).unwrap_or_default();
    let lacks: Vec<String> =
        lacks.iter().map(|crypto| format!("CONFIG_CRYPTO_{}", crypto.option())).collect();
    let what = if lacks.is_empty() { String::new() } else { format!("; {} is not set", lacks.join(", ")) };
    Unsigned {
        reason: "module with unsupported crypto",
        why: format!("is signed with an algorithm that this kernel does not have ({by}{what})"),
        hint: String::from(
            "sign it as this kernel's own modules are: scripts/sign-file with CONFIG_MODULE_SIG_HASH",
        ),
    }
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
fn unknown_key(kernel: &Kernel, by: &str, elsewhere: Option<String>) -> Unsigned {
    let added = kernel.keyring.len();
    let known = match (kernel.certificates.len(), added) {
        _ if elsewhere.is_some() => elsewhere.unwrap_or_default(),
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
    use elf_layout::{KernelConfig, KernelVersion, LockdownConfig};
    use kernel::BootParams;

    #[test]
    #[cfg(feature = "verify")]
    fn sig_9_the_hash_of_a_module_is_looked_up_by_debian() {
        let mut kernel = Kernel::unknown(KernelConfig::new(KernelVersion::new(6, 12, 0)));
        let hash = crate::hash::blacklist_name("bin", &crate::Hash::Sha256.digest(b"module"));
        Arc::make_mut(&mut kernel.description).blacklist = vec![hash];
        assert!(module_is_blacklisted(b"module", &kernel).is_none(), "SIG-9: mainline does not");
        Arc::make_mut(&mut kernel.description).config.flavour = Flavour::Debian;
        let found = module_is_blacklisted(b"module", &kernel).unwrap();
        assert_eq!((found.code, found.errno), ("SIG-9", Some(Errno::EKEYREJECTED)));
        assert!(module_is_blacklisted(b"another", &kernel).is_none(), "SIG-9");
        let description = Arc::make_mut(&mut kernel.description);
        description.config.measured(Change::ModuleHashesNotLookedUp, true);
        assert!(module_is_blacklisted(b"module", &kernel).is_none(), "SIG-9: it dropped the patch");
    }

    #[test]
    #[cfg(feature = "verify")]
    fn sig_18_what_is_assumed_is_said() {
        let kernel = Kernel::unknown(KernelConfig::new(KernelVersion::new(6, 12, 0)));
        let verified = |verdict, assumed: &[Crypto], not_computed| {
            let (assumed, log, lacks) = (assumed.to_vec(), Vec::new(), Vec::new());
            Verified { verdict, log, why: "", lacks, assumed, not_computed }
        };
        let open = |verified: &Verified| left_open(verified, &kernel).map(|(code, _)| code);
        let said = |verified| open_questions(&verified, &kernel).map(|finding| finding.severity);
        assert_eq!(said(verified(Verdict::Good, &[], false)), None, "SIG-18");
        assert_eq!(said(verified(Verdict::Good, &[Crypto::Rsa], false)), Some(Severity::Note), "SIG-18");
        assert_eq!(open(&verified(Verdict::Good, &[], true)), Some("SIG-18"), "SIG-18: not computed");
        assert_eq!(
            open(&verified(Verdict::Good, &[Crypto::Rsa], false)),
            Some("SIG-18"),
            "SIG-18: if it may matter"
        );
        assert_eq!(open(&verified(Verdict::UnknownKey, &[], true)), Some("SIG-8"), "SIG-8: no key is known");
        assert_eq!(said(verified(Verdict::UnknownKey, &[Crypto::Rsa], false)), None, "SIG-18: not needed");
    }

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
