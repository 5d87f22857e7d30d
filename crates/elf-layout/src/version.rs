//! Kernel versions, as numbers. What changed with which of them is in [`crate::changes`]: a fork of behaviour
//! asks for a change, never for a version.

use core::fmt;

/// `major.minor.patch` of a kernel release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// 6 in 6.12.117.
    pub major: u16,
    /// 12 in 6.12.117.
    pub minor: u16,
    /// 117 in 6.12.117.
    pub patch: u16,
}

impl KernelVersion {
    /// A version.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        KernelVersion { major, minor, patch }
    }

    /// Reads the numbers that a release string begins with
    /// (`6.12.117+deb12-amd64`, `6.1.0-56-amd64`, `7.0-rc3`).
    pub fn parse(release: &str) -> Option<Self> {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (major, rest) = release.split_at(digits(release));
        let rest = rest.strip_prefix('.')?;
        let (minor, rest) = rest.split_at(digits(rest));
        let patch = rest.strip_prefix('.').map(|rest| rest.split_at(digits(rest)).0);
        Some(KernelVersion {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            patch: patch.and_then(|p| p.parse().ok()).unwrap_or(0),
        })
    }

    /// Are both of one series, such as 6.12?
    pub const fn same_series(self, other: Self) -> bool {
        self.major == other.major && self.minor == other.minor
    }

    /// May a release of this version be a kernel of that one? Distributions may name a series alone: 6.1.0-57-amd64 is a
    /// 6.1.192.
    pub const fn may_name(self, other: Self) -> bool {
        self.same_series(other) && (self.patch == 0 || self.patch == other.patch)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KernelVersion { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_may_name_its_series_alone() {
        let version = |patch| KernelVersion::new(6, 1, patch);
        assert!(version(0).may_name(version(192)) && version(192).may_name(version(192)));
        assert!(!version(191).may_name(version(192)) && !version(0).may_name(KernelVersion::new(6, 12, 0)));
    }

    #[test]
    fn releases_parse() {
        for (text, want) in [
            ("6.12.117+deb12-amd64", Some((6, 12, 117))),
            ("6.1.0-56-amd64", Some((6, 1, 0))),
            ("7.0-rc3", Some((7, 0, 0))),
            ("6.16", Some((6, 16, 0))),
            ("linux", None),
            ("6", None),
            ("", None),
            ("99999999.1.1", None),
        ] {
            let got = KernelVersion::parse(text).map(|v| (v.major, v.minor, v.patch));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn series_are_major_and_minor() {
        let v = KernelVersion::new;
        assert!(v(6, 12, 0).same_series(v(6, 12, 117)));
        assert!(!v(6, 12, 0).same_series(v(6, 1, 0)) && !v(6, 12, 0).same_series(v(5, 12, 0)));
    }
}
