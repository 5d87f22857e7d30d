//! Verifying a module's signature against certificates, as the kernel does with
//! its keyring (SIG-8).

use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use cms::cert::x509::Certificate;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::pkcs8::DecodePublicKey;

use crate::Verdict;
use crate::hash::Hash;

const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
const ID_MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");

/// Verifies a detached PKCS#7 signature of `data` (crypto/asymmetric_keys, certs/system_keyring.c:
/// verify_pkcs7_signature). `certificates` are DER; those
/// that cannot be read match no signer.
pub fn verify_pkcs7_signature(
    pkcs7: &[u8],
    data: &[u8],
    certificates: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Verdict {
    let signed = decode::<ContentInfo>(pkcs7).and_then(|content| content.content.decode_as::<SignedData>());
    let Ok(signed) = signed else { return Verdict::Malformed };
    let trusted: Vec<Certificate> =
        certificates.into_iter().filter_map(|der| decode(der.as_ref()).ok()).collect();
    // The kernel goes on to the next signer only where a key or an algorithm is missing.
    let mut verdict = Verdict::UnknownKey;
    for signer in signed.signer_infos.0.iter() {
        verdict = verify_signer(signer, data, &trusted);
        if !matches!(verdict, Verdict::UnknownKey | Verdict::Unsupported) {
            break;
        }
    }
    verdict
}

fn verify_signer(signer: &SignerInfo, data: &[u8], trusted: &[Certificate]) -> Verdict {
    let Some(hash) = Hash::of_oid(&signer.digest_alg.oid.to_string()) else { return Verdict::Unsupported };
    let mut digest = hash.digest(data);
    if let Some(attributes) = &signer.signed_attrs {
        // SIG-14: then the signature covers the attributes, and one of them the data.
        let says =
            attributes.iter().find(|a| a.oid == ID_MESSAGE_DIGEST).and_then(|a| a.values.iter().next());
        let same =
            says.and_then(|v| v.decode_as::<OctetString>().ok()).is_some_and(|v| v.as_bytes() == digest);
        let Ok(covered) = attributes.to_der() else { return Verdict::Malformed };
        if !same {
            return Verdict::Rejected;
        }
        digest = hash.digest(&covered);
    }
    let Some(certificate) = trusted.iter().find(|c| is_signer(c, &signer.sid)) else {
        return Verdict::UnknownKey;
    };
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let Ok(der) = key.to_der() else { return Verdict::Malformed };
    let signature = signer.signature.as_bytes();
    let verified = if key.algorithm.oid.to_string() == RSA_ENCRYPTION {
        rsa::RsaPublicKey::from_public_key_der(&der)
            .ok()
            .map(|key| key.verify(hash.padding(), &digest, signature).is_ok())
    } else if let Ok(key) = p384::ecdsa::VerifyingKey::from_public_key_der(&der) {
        let signature = p384::ecdsa::Signature::from_der(signature).ok();
        Some(signature.is_some_and(|s| key.verify_prehash(&digest, &s).is_ok()))
    } else if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(&der) {
        let signature = p256::ecdsa::Signature::from_der(signature).ok();
        Some(signature.is_some_and(|s| key.verify_prehash(&digest, &s).is_ok()))
    } else {
        None
    };
    match verified {
        Some(true) => Verdict::Good,
        Some(false) => Verdict::Rejected,
        None => Verdict::Unsupported,
    }
}

/// Do all lengths in it stay within what contains them? The `der` crate makes room for a string of the length that it
/// claims before it finds that there are not so many bytes.
fn lengths_fit(der: &[u8]) -> bool {
    // Where the elements end that the next one is inside of.
    let mut ends = vec![der.len()];
    let mut at = 0usize;
    loop {
        while ends.last() == Some(&at) {
            ends.pop();
        }
        let Some(end) = ends.last() else { return true };
        let (is_constructed, header, len) = match der.get(at..*end).unwrap_or_default() {
            [tag, len @ 0..=0x7f, ..] => (tag & 0x20 != 0, 2usize, u64::from(*len)),
            [tag, count @ 0x81..=0x84, rest @ ..] => {
                let count = usize::from(count & 0x7f);
                let Some(bytes) = rest.get(..count) else { return false };
                let len = bytes.iter().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
                (tag & 0x20 != 0, count.saturating_add(2), len)
            }
            _ => return false,
        };
        let value = at.saturating_add(header);
        let next = value.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        if next > *end {
            return false;
        }
        if is_constructed {
            ends.push(next);
        }
        at = if is_constructed { value } else { next };
    }
}

/// Decodes DER whose lengths fit.
pub(crate) fn decode<'d, T: Decode<'d>>(der: &'d [u8]) -> der::Result<T> {
    let out_of_it = der::ErrorKind::Length { tag: der::Tag::Sequence };
    if lengths_fit(der) { T::from_der(der) } else { Err(out_of_it.into()) }
}

fn is_signer(certificate: &Certificate, signer: &SignerIdentifier) -> bool {
    let tbs = &certificate.tbs_certificate;
    match signer {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            tbs.issuer == id.issuer && tbs.serial_number.as_bytes() == id.serial_number.as_bytes()
        }
        SignerIdentifier::SubjectKeyIdentifier(id) => {
            let extension = tbs.extensions.iter().flatten().find(|e| e.extn_id == SUBJECT_KEY_ID);
            let key_id = extension.and_then(|e| decode::<OctetString>(e.extn_value.as_bytes()).ok());
            key_id.is_some_and(|k| k.as_bytes() == id.0.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_stay_within_what_contains_them() {
        let certificate = include_bytes!("../../../fixtures/signing/kmodld-fixtures.der");
        assert!(lengths_fit(certificate) && decode::<Certificate>(certificate).is_ok());
        for (der, fit) in [
            (&[0x30, 0][..], true),
            (&[0x30, 3, 0x04, 1, 7], true),
            (&[0x30, 3, 0x04, 2, 7], false),
            (&[0x30, 4, 0x04, 1, 7], false),
            (&[0x30, 0x81, 3, 0x04, 1, 7], true),
            (&[0x30, 7, 0x0c, 0x84, 0x0f, 0xff, 0xff, 0xff, 7], false),
            (&[0x30, 0x80, 0, 0], false),
            (&[0x30, 0x81], false),
            (&[0x30], false),
            (&[0x30, 2, 0x30, 0, 0x30, 0], true),
        ] {
            assert_eq!(lengths_fit(der), fit, "{der:x?}");
        }
    }
}
