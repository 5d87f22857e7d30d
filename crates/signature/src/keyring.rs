//! Certificates as files hold them: what a kernel trusts beside what is built into it (MOK, secondary and platform
//! keyrings, SIG-8).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cms::cert::x509::Certificate;
use kernel_image::split_certificates;
use memchr::memmem;

use crate::decode::decode;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// The certificates of a file, each as DER: one or several, in DER or PEM. What stands around PEM blocks,
/// keys too, is not looked at. The error says what is wrong with the file, in words that follow its name.
pub fn parse(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let certificates = if memmem::find(bytes, b"-----BEGIN ").is_some() { pem(bytes)? } else { der(bytes)? };
    for (n, certificate) in (1u32..).zip(&certificates) {
        decode::<Certificate>(certificate)
            .map_err(|e| format!("certificate {n} cannot be read as X.509: {e}"))?;
    }
    Ok(certificates)
}

/// The hashes of a blacklist as a text: one a line, `bin:HEX` of a module or `tbs:HEX` of what is signed of a certificate
/// (certs/blacklist.c: blacklist_vet_description); `None` if it is no such text.
pub fn parse_blacklist(bytes: &[u8]) -> Option<Vec<String>> {
    let text = core::str::from_utf8(bytes).ok()?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_hash = |line: &&str| {
        let hex = line.strip_prefix("bin:").or(line.strip_prefix("tbs:"));
        hex.is_some_and(|hex| {
            !hex.is_empty()
                && hex.len().is_multiple_of(2)
                && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let all: Vec<&str> = lines.collect();
    (!all.is_empty() && all.iter().all(is_hash)).then(|| all.into_iter().map(String::from).collect())
}

fn der(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let found = split_certificates(bytes);
    let used = found.iter().map(|c| c.len()).fold(0, usize::saturating_add);
    if found.is_empty() || used != bytes.len() {
        return Err(String::from("not a certificate, neither in DER nor in PEM"));
    }
    Ok(found.into_iter().map(<[u8]>::to_vec).collect())
}

fn pem(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(block) = memmem::find(rest, BEGIN).and_then(|at| rest.get(at..)) {
        let number = found.len().saturating_add(1);
        let bad = |why: &str| format!("PEM certificate {number}: {why}");
        let end = memmem::find(block, END).ok_or_else(|| bad("it has no end"))?.saturating_add(END.len());
        let (one, after) = block.split_at_checked(end).ok_or_else(|| bad("it has no end"))?;
        let (_, certificate) = der::pem::decode_vec(one).map_err(|e| bad(&e.to_string()))?;
        found.push(certificate);
        rest = after;
    }
    if found.is_empty() {
        return Err(String::from("no certificate in it, only other PEM blocks (a private key?)"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const DER: &[u8] = include_bytes!("../../../fixtures/signing/kmodld-fixtures.der");

    fn pem_of(der: &[u8]) -> String {
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap()
    }

    #[test]
    fn sig_8_certificates_in_der_and_pem() {
        let one = vec![DER.to_vec()];
        let two = vec![DER.to_vec(), DER.to_vec()];
        assert_eq!(parse(DER), Ok(one.clone()), "DER");
        assert_eq!(parse(&[DER, DER].concat()), Ok(two.clone()), "DER after DER");
        let pem = pem_of(DER);
        assert_eq!(parse(pem.as_bytes()), Ok(one.clone()), "PEM");
        assert_eq!(parse(pem.replace('\n', "\r\n").as_bytes()), Ok(one), "PEM with CRLF");
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let bundle = format!("a comment\n{pem}{key}\n{pem}and more");
        assert_eq!(parse(bundle.as_bytes()), Ok(two), "PEM bundle with a key in it");
        for (what, bytes, why) in [
            ("nothing", &b""[..], "neither"),
            ("rubbish", b"rubbish", "neither"),
            ("cut DER", &DER[..DER.len() - 1], "neither"),
            ("DER and more", &[DER, b"x"].concat(), "neither"),
            ("no X.509", &[&[0x30, 0x82, 0, 4][..], &[1; 4]].concat(), "X.509"),
            ("a key", key.as_bytes(), "no certificate"),
            ("cut PEM", &pem.as_bytes()[..pem.len() / 2], "no end"),
            ("damaged PEM", pem.replacen("MI", "*I", 1).as_bytes(), "PEM certificate 1"),
        ] {
            let error = parse(bytes).unwrap_err();
            assert!(error.contains(why), "{what}: {error}");
        }
    }
}
