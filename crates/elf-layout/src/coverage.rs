//! How far what kmodld says of a kernel is known to be right.

use crate::changes;
use crate::config::{Flavour, KernelConfig};
use crate::version::KernelVersion;

/// Kernels whose behaviour was captured and compared with what the rules predict (docs/spec/README.md).
const COMPARED: [(Flavour, KernelVersion); 3] = [
    (Flavour::Debian, KernelVersion::new(6, 1, 0)),
    (Flavour::Debian, KernelVersion::new(6, 12, 0)),
    (Flavour::Debian, KernelVersion::new(7, 3, 0)),
];

/// How well a kernel is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Kernels of this series were booted, and what they did was compared with the rules.
    Exact,
    /// The rules of this version are implemented, but were not compared with such a kernel.
    Rules,
    /// The version is newer or older than every rule, or not known.
    Unknown,
}

impl Coverage {
    /// That of a kernel.
    pub fn of(config: &KernelConfig) -> Self {
        let version = config.version();
        let compared =
            |known: &(Flavour, KernelVersion)| known.0 == config.flavour && known.1.same_series(version);
        if !config.is_version_known() {
            Coverage::Unknown
        } else if COMPARED.iter().any(compared) {
            Coverage::Exact
        } else if changes::is_known(version) {
            Coverage::Rules
        } else {
            Coverage::Unknown
        }
    }

    /// The word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Coverage::Exact => "exact",
            Coverage::Rules => "rules",
            Coverage::Unknown => "unknown",
        }
    }

    /// The same for people, as a sentence without a full stop.
    pub const fn sentence(self) -> &'static str {
        match self {
            Coverage::Exact => "kmodld was compared with booted kernels of this series",
            Coverage::Rules => {
                "the rules of this kernel version are implemented, but were not compared with such a kernel"
            }
            Coverage::Unknown => {
                "kmodld does not know the rules of this kernel version: results may be wrong"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::KNOWN;

    #[test]
    fn coverage_follows_release_and_version() {
        for (release, want) in [
            ("6.1.0-56-amd64", Coverage::Exact),
            ("6.1.192+deb12-arm64", Coverage::Exact),
            ("6.12.117+deb12-amd64", Coverage::Exact),
            ("6.12.117", Coverage::Rules),
            ("6.8.0-45-generic", Coverage::Rules),
            ("6.6.0+deb13-amd64", Coverage::Rules),
            ("5.4.0", Coverage::Rules),
            ("7.1.9", Coverage::Rules),
            ("7.2.13+deb14-amd64", Coverage::Rules),
            ("7.3.4+deb13-arm64", Coverage::Exact),
            ("7.3.4", Coverage::Rules),
            ("5.3.18", Coverage::Unknown),
            ("7.4-rc1", Coverage::Unknown),
            ("4.19.0-27-amd64", Coverage::Unknown),
            ("16.1.0-1-amd64", Coverage::Unknown),
        ] {
            let config = KernelConfig::of_release(release, KNOWN).unwrap();
            assert_eq!(Coverage::of(&config), want, "{release}");
        }
    }

    #[test]
    fn an_assumed_version_covers_nothing() {
        let mut config = KernelConfig::assumed(KernelVersion::new(6, 12, 0));
        config.flavour = Flavour::Debian;
        assert_eq!(Coverage::of(&config), Coverage::Unknown);
        config.set_version(KernelVersion::new(6, 12, 0));
        assert_eq!(Coverage::of(&config), Coverage::Exact);
    }

    #[test]
    fn every_coverage_has_a_word_and_a_sentence() {
        let all = [Coverage::Exact, Coverage::Rules, Coverage::Unknown];
        assert_eq!(all.map(Coverage::word), ["exact", "rules", "unknown"]);
        assert!(all.iter().all(|c| !c.sentence().is_empty() && !c.sentence().ends_with('.')));
    }
}
