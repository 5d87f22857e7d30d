//! The kernel's command line, as far as it changes how modules are loaded.

use alloc::vec::Vec;

/// What the kernel's command line says about loading modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootParams {
    /// `module_blacklist=` (VAL-70).
    pub module_blacklist: Vec<Vec<u8>>,
    /// `initcall_blacklist=` (LIFE-16): all of them, where it is there several times.
    pub initcall_blacklist: Vec<Vec<u8>>,
    /// `module.sig_enforce` (SIG-11).
    pub sig_enforce: bool,
    /// Spectre v2 is not mitigated: modules without retpolines are fine.
    pub spectre_v2_off: bool,
}

impl BootParams {
    /// Reads a kernel command line.
    pub fn parse(cmdline: &str) -> Self {
        let mut boot = BootParams::default();
        for word in cmdline.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
            let on = value.is_none_or(|v| matches!(v.bytes().next(), Some(b'1' | b'y' | b'Y' | b't' | b'T')));
            match (name, value) {
                ("module_blacklist", Some(list)) => {
                    boot.module_blacklist = list.split(',').map(|name| name.as_bytes().to_vec()).collect();
                }
                ("initcall_blacklist", Some(list)) => {
                    boot.initcall_blacklist.extend(list.split(',').map(|name| name.as_bytes().to_vec()));
                }
                ("module.sig_enforce", _) => boot.sig_enforce = on,
                ("nospectre_v2", _) | ("spectre_v2", Some("off")) | ("mitigations", Some("off")) => {
                    boot.spectre_v2_off = true;
                }
                _ => {}
            }
        }
        boot
    }
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
        assert!(BootParams::parse("module.sig_enforce").sig_enforce, "SIG-11: no value is true");
        assert!(!BootParams::parse("module.sig_enforce=0").sig_enforce);
        assert_eq!(BootParams::parse(""), BootParams::default());
        let boot = BootParams::parse("initcall_blacklist=a_init,b_init initcall_blacklist=c_init");
        let names: [Vec<u8>; 3] = [b"a_init".to_vec(), b"b_init".to_vec(), b"c_init".to_vec()];
        assert_eq!(boot.initcall_blacklist, names, "LIFE-16");
    }
}
