//! Licences (spec 03 §3.3).

/// The strings that `license_is_gpl_compatible` takes, exactly (LIC-1).
const GPL_COMPATIBLE: [&[u8]; 6] =
    [b"GPL", b"GPL v2", b"GPL and additional rights", b"Dual BSD/GPL", b"Dual MIT/GPL", b"Dual MPL/GPL"];

/// LIC-1.
pub fn license_is_gpl_compatible(license: &[u8]) -> bool {
    GPL_COMPATIBLE.contains(&license)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lic_1_exact_strings() {
        for (license, want) in
            [(&b"GPL"[..], true), (b"Dual MIT/GPL", true), (b"gpl", false), (b"GPL v3", false), (b"", false)]
        {
            assert_eq!(
                license_is_gpl_compatible(license),
                want,
                "LIC-1: {:?}",
                license.escape_ascii().to_string()
            );
        }
    }
    use alloc::string::ToString;
}
