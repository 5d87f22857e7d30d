//! Built-in certificates, by symbol and by scan.

use testkit::elf::Flat;

use super::{Plan, Symbol, build};
use kernel_image::{CertificateSource, KallsymsLayout};

/// As much of a version 3 certificate as tells it from other bytes.
fn certificate(fill: u8) -> Vec<u8> {
    let mut der = vec![0x30, 0x82, 1, 0, 0x30, 0x82, 0, 0x80, 0xa0, 3, 2, 1, 2, 2, 1, 5];
    der.resize(4 + 256, fill);
    der
}

/// Puts the list and its size, and gives their symbols.
pub(super) fn list(out: &mut Flat) -> [Symbol; 2] {
    out.align(8);
    let start = out.here();
    let certificates = [certificate(1), certificate(2)].concat();
    out.put(&certificates);
    out.align(8);
    let size = out.here();
    out.put(&(certificates.len() as u64).to_le_bytes());
    [
        (start, b'R', String::from("system_certificate_list")),
        (size, b'R', String::from("system_certificate_list_size")),
    ]
}

#[test]
fn der_certificates_are_split() {
    for labels in [false, true] {
        let built = build(&Plan { labels, ..Plan::new(true, KallsymsLayout::NamesFirst) });
        let image = built.open();
        let found = image.certificates();
        assert_eq!(found.der, [certificate(1), certificate(2)]);
        let want = if labels { CertificateSource::Symbols } else { CertificateSource::Scan };
        assert_eq!(found.source, want);
    }
}
