//! The kernel's command line, as far as it changes how modules are loaded.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use elf_layout::lockdown::names_lockdown;

/// What the kernel's command line says about loading modules, and how it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootParams {
    /// `module_blacklist=` (VAL-70).
    pub module_blacklist: Vec<Vec<u8>>,
    /// `nomodule`: no module is ever loaded (VAL-1).
    pub modules_disabled: bool,
    /// `initcall_blacklist=` (LIFE-16): all of them, where it is there several times.
    pub initcall_blacklist: Vec<Vec<u8>>,
    /// `module.sig_enforce` (SIG-11).
    pub sig_enforce: bool,
    /// `lockdown=integrity` or `lockdown=confidentiality`: either keeps unsigned modules out (SIG-16).
    pub lockdown: bool,
    /// Does `lsm=` name lockdown? `None` if it is not given (SIG-16).
    pub lsm_names_lockdown: Option<bool>,
    /// The machine was started by UEFI with Secure Boot on (SIG-17). No word of the command line: firmware tells it.
    pub secure_boot: bool,
    /// What the running kernel itself shows: it beats what follows from its configuration and all of this.
    pub shown: Shown,
    /// Spectre v2 is not mitigated: modules without retpolines are fine.
    pub spectre_v2_off: bool,
    /// Words that look as if they changed how modules are loaded, and do not: each a sentence.
    pub doubts: Vec<String>,
}

/// What a running kernel shows of itself, each if it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `/sys/module/module/parameters/sig_enforce` (SIG-11).
    pub sig_enforced: Option<bool>,
    /// `/sys/kernel/security/lockdown` (SIG-16): is it at one of its two levels?
    pub locked_down: Option<bool>,
    /// `/proc/sys/kernel/modules_disabled` (VAL-1): no module is loaded any more.
    pub modules_disabled: bool,
}

/// Words of the command line that decide about modules, with what a value must be.
const WORDS: &[(&str, &str)] = &[
    ("initcall_blacklist", "names of init functions, with commas between them"),
    ("lockdown", "integrity or confidentiality"),
    ("lsm", "a list of security modules"),
    ("mitigations", "auto or off, and more behind commas"),
    ("module.sig_enforce", "nothing, 1 or y"),
    ("module_blacklist", "names of modules, with commas between them"),
    ("nomodule", "nothing or 1"),
    ("nospectre_v2", "nothing"),
    ("spectre_v2", "on, off, auto or one of its kinds"),
];

/// Words that others read, or that are known not to do what they seem to, with what is to be said of them.
const FOREIGN: &[(&str, &str)] = &[
    ("modprobe.blacklist", "modprobe reads it, not the kernel: insmod loads such a module all the same"),
    ("rd.driver.blacklist", "the initial RAM disk reads it, not the kernel"),
    ("sig_enforce", "the kernel knows it as module.sig_enforce"),
    ("module.blacklist", "the kernel knows it as module_blacklist"),
    ("blacklist", "the kernel knows it as module_blacklist"),
    ("ima_policy", "IMA may then ask modules for a signature in security.ima, which is not judged here"),
    ("ima_appraise", "IMA may then ask modules for a signature in security.ima, which is not judged here"),
    ("module.async_probe", "it sets when devices are probed, not whether modules load"),
    ("secureboot", "the firmware tells that, not the command line: --secure-boot"),
    ("secure_boot", "the firmware tells that, not the command line: --secure-boot"),
];

impl BootParams {
    /// Reads a kernel command line (kernel/params.c: parse_args; what follows `--` is for init).
    pub fn parse(cmdline: &str) -> Self {
        let mut boot = BootParams::default();
        for word in cmdline.split_ascii_whitespace().take_while(|word| *word != "--") {
            let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
            boot.word(name, value.map(|value| value.trim_matches('"')));
        }
        boot
    }

    fn word(&mut self, name: &str, value: Option<&str>) {
        // parameq: a dash is as good as an underscore.
        let name = name.trim_matches('"').replace('-', "_");
        match (name.as_str(), value) {
            ("module_blacklist", Some(list)) if !list.is_empty() => {
                self.module_blacklist = list.split(',').map(|name| name.as_bytes().to_vec()).collect();
            }
            // init/main.c: initcall_blacklist; every one of them adds to the list.
            ("initcall_blacklist", Some(list)) if !list.is_empty() => {
                self.initcall_blacklist.extend(list.split(',').map(|name| name.as_bytes().to_vec()));
            }
            // bool_enable_only: what is on stays on.
            ("module.sig_enforce", _) if is_on(value) == Some(true) => self.sig_enforce = true,
            ("module.sig_enforce", _) if is_on(value) == Some(false) => {}
            // param_set_bint
            ("nomodule", _) if is_on(value).is_some() => self.modules_disabled = is_on(value) == Some(true),
            // security/lockdown/lockdown.c: lockdown_param
            ("lockdown", Some("integrity" | "confidentiality")) => self.lockdown = true,
            ("lsm", Some(list)) => self.lsm_names_lockdown = Some(names_lockdown(list.as_bytes())),
            ("nospectre_v2", _) => self.spectre_v2_off = true,
            // cpu_mitigations_parse_cmdline takes the whole value.
            ("spectre_v2" | "mitigations", Some("off")) => self.spectre_v2_off = true,
            ("spectre_v2" | "mitigations", Some(value)) if !value.is_empty() => {}
            (known, value) if WORDS.iter().any(|(word, _)| *word == known) => self.wrong_value(known, value),
            (other, _) => self.unknown(other),
        }
    }

    fn wrong_value(&mut self, name: &str, value: Option<&str>) {
        let wants = WORDS.iter().find(|(word, _)| *word == name).map_or("", |(_, wants)| wants);
        let is = value.map_or_else(|| "without a value".to_string(), |value| format!("as `{value}'"));
        self.doubts.push(format!("{name} {is} has no effect: its value is {wants}"));
    }

    /// A word that means nothing to the loading of modules; told if somebody may have thought otherwise.
    fn unknown(&mut self, name: &str) {
        if let Some((word, why)) = FOREIGN.iter().find(|(word, _)| *word == name) {
            self.doubts.push(format!("{word} on the kernel's command line: {why}"));
            return;
        }
        let alike = |word: &&(&str, &str)| word.0.len() > 4 && is_one_slip_from(name, word.0);
        if let Some((word, _)) = WORDS.iter().find(alike) {
            self.doubts.push(format!("{name} on the kernel's command line has no effect: is {word} meant?"));
        }
    }
}

/// `kstrtobool`, where no value is as good as yes; `None` for what is neither.
fn is_on(value: Option<&str>) -> Option<bool> {
    let Some(value) = value else { return Some(true) };
    match value.as_bytes() {
        [b'1' | b'y' | b'Y' | b't' | b'T', ..] | [b'o' | b'O', b'n' | b'N', ..] => Some(true),
        [b'0' | b'n' | b'N' | b'f' | b'F', ..] | [b'o' | b'O', b'f' | b'F', ..] => Some(false),
        _ => None,
    }
}

/// Is a word another one with one letter more, less, changed, or two neighbours swapped?
fn is_one_slip_from(word: &str, other: &str) -> bool {
    let (a, b) = (word.as_bytes(), other.as_bytes());
    if a == b || a.len().abs_diff(b.len()) > 1 {
        return false;
    }
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let rest = |text: &[u8], skip: usize| text.get(same.saturating_add(skip)..).unwrap_or_default().to_vec();
    let swapped = |text: &[u8]| {
        let mut rest = rest(text, 0);
        rest.get_mut(..2).into_iter().for_each(<[u8]>::reverse);
        rest
    };
    rest(a, 1) == rest(b, 1)
        || rest(a, 1) == rest(b, 0)
        || rest(a, 0) == rest(b, 1)
        || swapped(a) == rest(b, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn val_70_and_sig_11_boot_parameters() {
        let boot =
            BootParams::parse("nokaslr module_blacklist=a,b_c module.sig_enforce=1 quiet mitigations=off");
        assert_eq!(boot.module_blacklist, [b"a".to_vec(), b"b_c".to_vec()], "VAL-70");
        assert!(boot.sig_enforce && boot.spectre_v2_off, "SIG-11");
        for on in ["", "=1", "=y", "=Y", "=on", "=t", "=1 module.sig_enforce=0"] {
            let boot = BootParams::parse(&format!("module.sig_enforce{on}"));
            assert!(boot.sig_enforce && boot.doubts.is_empty(), "SIG-11: module.sig_enforce{on}");
        }
        assert!(BootParams::parse("module.sig-enforce=1").sig_enforce, "SIG-11: a dash");
        assert!(!BootParams::parse("module.sig_enforce=0").sig_enforce);
        assert!(!BootParams::parse("quiet -- module.sig_enforce=1").sig_enforce, "SIG-11: for init");
        assert_eq!(BootParams::parse(""), BootParams::default());
        let boot = BootParams::parse("initcall_blacklist=a_init,b_init initcall_blacklist=c_init");
        let names: [Vec<u8>; 3] = [b"a_init".to_vec(), b"b_init".to_vec(), b"c_init".to_vec()];
        assert_eq!(boot.initcall_blacklist, names, "LIFE-16");
    }

    #[test]
    fn val_1_nomodule() {
        assert!(BootParams::parse("nomodule").modules_disabled, "VAL-1");
        assert!(BootParams::parse("nomodule=1").modules_disabled, "VAL-1");
        assert!(!BootParams::parse("nomodule=0").modules_disabled, "VAL-1");
        assert!(!BootParams::parse("nomodules").modules_disabled, "VAL-1: another word");
    }

    #[test]
    fn sig_16_lockdown() {
        for (cmdline, want) in [
            ("lockdown=integrity", true),
            ("lockdown=confidentiality", true),
            ("lockdown=\"integrity\"", true),
            ("lockdown=integrity lockdown=none", true),
            ("lockdown=none", false),
            ("lockdown=1", false),
            ("lockdown", false),
            ("", false),
        ] {
            assert_eq!(BootParams::parse(cmdline).lockdown, want, "SIG-16: {cmdline}");
        }
        let lsm = |cmdline| BootParams::parse(cmdline).lsm_names_lockdown;
        assert_eq!(lsm("quiet"), None);
        assert_eq!(lsm("lsm=yama,lockdown"), Some(true), "SIG-16");
        assert_eq!(lsm("lsm=yama,apparmor"), Some(false), "SIG-16");
    }

    #[test]
    fn words_that_look_as_if_they_mattered_are_told() {
        let told = [
            ("lockdwon=integrity", "is lockdown meant?"),
            ("lockdow=integrity", "is lockdown meant?"),
            ("lock_down=integrity", "is lockdown meant?"),
            ("lockdown", "lockdown without a value has no effect: its value is integrity or confidentiality"),
            ("lockdown=integrety", "lockdown as `integrety' has no effect"),
            ("module_blacklist", "module_blacklist without a value has no effect"),
            ("module_blacklist=", "module_blacklist as `' has no effect"),
            ("module_blacklst=a", "is module_blacklist meant?"),
            ("module.sig_enforce=maybe", "module.sig_enforce as `maybe' has no effect"),
            ("modul.sig_enforce", "is module.sig_enforce meant?"),
            ("sig_enforce=1", "the kernel knows it as module.sig_enforce"),
            ("modprobe.blacklist=a", "modprobe reads it"),
            ("mitigatons=off", "is mitigations meant?"),
            ("nomodules", "is nomodule meant?"),
        ];
        for (cmdline, want) in told {
            let doubts = BootParams::parse(cmdline).doubts;
            assert_eq!(doubts.len(), 1, "{cmdline}: {doubts:?}");
            assert!(doubts[0].contains(want), "{cmdline}: {doubts:?}");
        }
        let quiet = "BOOT_IMAGE=/boot/vmlinuz-6.1.0 root=/dev/sda1 ro quiet splash console=ttyS0,115200n8 nokaslr \
                     mitigations=auto,nosmt spectre_v2=retpoline lsm=yama,lockdown lockdown=integrity \
                     module_blacklist=a crashkernel=256M modules=ext4 nomodeset";
        assert_eq!(BootParams::parse(quiet).doubts, [""; 0]);
    }
}
