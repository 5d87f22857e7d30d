//! The keyrings of a kernel, and which of them it asks for the keys of modules (SIG-8, SIG-9).

use elf_layout::KernelConfig;
use elf_layout::config::Flavour;

/// A keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyring {
    /// Given without a name: it is one that the kernel asks.
    Unnamed,
    /// `.builtin_trusted_keys`
    Builtin,
    /// `.secondary_trusted_keys`
    Secondary,
    /// `.machine`: the machine owner's keys (MOK), where they are trusted.
    Machine,
    /// `.platform`: the keys of the firmware, and MOK where they are not trusted.
    Platform,
    /// `.blacklist`: what is trusted nowhere.
    Blacklist,
}

impl Keyring {
    /// Those with a name.
    pub const NAMED: [Keyring; 5] =
        [Keyring::Builtin, Keyring::Secondary, Keyring::Machine, Keyring::Platform, Keyring::Blacklist];

    /// Its name, as /proc/keys shows it.
    pub fn name(self) -> &'static str {
        match self {
            Keyring::Unnamed => "",
            Keyring::Builtin => ".builtin_trusted_keys",
            Keyring::Secondary => ".secondary_trusted_keys",
            Keyring::Machine => ".machine",
            Keyring::Platform => ".platform",
            Keyring::Blacklist => ".blacklist",
        }
    }

    /// The one of a name, with or without the dot.
    pub fn of_name(name: &str) -> Option<Self> {
        Keyring::NAMED.into_iter().find(|ring| {
            ring.name() == name || ring.name().strip_prefix('.').is_some_and(|bare| bare == name)
        })
    }

    /// Does a kernel ask it for the keys of modules (kernel/module/signing.c: mod_verify_sig)? `None` if that is not known.
    pub fn is_asked(self, config: &KernelConfig) -> Option<bool> {
        let keys = &config.keys;
        match self {
            Keyring::Unnamed | Keyring::Builtin => Some(true),
            Keyring::Secondary => keys.secondary,
            // It is linked to the secondary keyring.
            Keyring::Machine => both(keys.machine, keys.secondary),
            // Not in mainline: a patch of several distributions, Debian among them.
            Keyring::Platform if config.flavour == Flavour::Debian => keys.platform,
            Keyring::Platform => keys.platform.filter(|built| !built),
            Keyring::Blacklist => Some(false),
        }
    }
}

/// Are both set, as far as that is known?
fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), Some(true)) => Some(true),
        (Some(false), _) | (_, Some(false)) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf_layout::KernelVersion;

    #[test]
    fn sig_8_names_of_keyrings() {
        for ring in Keyring::NAMED {
            assert_eq!(Keyring::of_name(ring.name()), Some(ring), "SIG-8");
            assert_eq!(Keyring::of_name(&ring.name()[1..]), Some(ring), "SIG-8: without the dot");
        }
        assert_eq!((Keyring::of_name(""), Keyring::of_name("..platform")), (None, None), "SIG-8");
    }

    #[test]
    fn sig_8_which_keyrings_are_asked() {
        let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0));
        let all = |config: &KernelConfig| Keyring::NAMED.map(|ring| ring.is_asked(config));
        assert_eq!(
            all(&config),
            [Some(true), None, None, None, Some(false)],
            "SIG-8, SIG-9: nothing is known"
        );
        config.keys.secondary = Some(true);
        config.keys.machine = Some(true);
        config.keys.platform = Some(true);
        let asked = [Some(true), Some(true), Some(true), None, Some(false)];
        assert_eq!(all(&config), asked, "SIG-8: whether .platform is asked depends on a patch");
        config.flavour = Flavour::Debian;
        assert_eq!(Keyring::Platform.is_asked(&config), Some(true), "SIG-8: Debian has it");
        config.keys.platform = Some(false);
        assert_eq!(Keyring::Platform.is_asked(&config), Some(false), "SIG-8: there is none");
        config.keys.secondary = Some(false);
        assert_eq!(Keyring::Machine.is_asked(&config), Some(false), "SIG-8: nothing links to .machine");
    }
}
