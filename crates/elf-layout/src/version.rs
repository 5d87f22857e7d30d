//! Kernel versions, and what changed with them. Every fork of behaviour in the
//! loader asks one value of this module, so that it stands in one place.

use crate::layout::Region;

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

    /// Is this `major.minor` or later?
    pub const fn since(self, major: u16, minor: u16) -> bool {
        self.major > major || (self.major == major && self.minor >= minor)
    }

    /// How this kernel divides a module's memory.
    pub const fn generation(self) -> Generation {
        // Since v6.4 (mod_mem_type, ac3b43283923); before that core_layout/init_layout.
        if self.since(6, 4) { Generation::ModMemType } else { Generation::CoreInit }
    }
}

/// How a module's memory is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Up to 6.3: one core and one init area.
    CoreInit,
    /// From 6.4: one area per `enum mod_mem_type`.
    ModMemType,
}

impl Generation {
    /// The regions in the order in which they are allocated (LAYOUT-40, LAYOUT-50).
    pub const fn regions(self) -> &'static [Region] {
        match self {
            Generation::CoreInit => &[Region::Core, Region::Init],
            Generation::ModMemType => &[
                Region::Text,
                Region::Data,
                Region::Rodata,
                Region::RoAfterInit,
                Region::InitText,
                Region::InitData,
                Region::InitRodata,
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn layout_18_generation_changes_with_6_4() {
        assert_eq!(KernelVersion::new(6, 3, 13).generation(), Generation::CoreInit);
        assert_eq!(KernelVersion::new(6, 4, 0).generation(), Generation::ModMemType);
        assert_eq!(KernelVersion::new(5, 10, 0).generation(), Generation::CoreInit);
        assert_eq!(KernelVersion::new(7, 0, 0).generation(), Generation::ModMemType);
    }
}
