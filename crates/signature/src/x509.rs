//! Certificates and public keys as the kernel reads them (crypto/asymmetric_keys: x509_cert_parser.c, public_key.c).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cms::cert::x509::Certificate;
use cms::cert::x509::spki::SubjectPublicKeyInfoOwned;
use cms::signed_data::SignerIdentifier;
use der::asn1::{ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use elf_layout::{Change, Crypto, KernelConfig};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::pkcs8::DecodePublicKey;

use crate::decode::decode;
use crate::hash::Hash;

const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// A kind of public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with PKCS#1 v1.5 padding.
    Rsa,
    /// ECDSA on a curve of NIST's.
    Ecdsa,
    /// GOST R 34.10-2012.
    Ecrdsa,
    /// ML-DSA; the number is that of its parameters.
    MlDsa(u8),
}

impl KeyKind {
    /// What the kernel needs for it.
    pub fn needs(self) -> Crypto {
        match self {
            KeyKind::Rsa => Crypto::Rsa,
            KeyKind::Ecdsa => Crypto::Ecdsa,
            KeyKind::Ecrdsa => Crypto::Ecrdsa,
            KeyKind::MlDsa(_) => Crypto::MlDsa,
        }
    }
}

/// ECDSA with these hashes.
const ECDSA_WITH: [(&str, &str); 8] = [
    ("1.2.840.10045.4.1", "1.3.14.3.2.26"),
    ("1.2.840.10045.4.3.1", "2.16.840.1.101.3.4.2.4"),
    ("1.2.840.10045.4.3.2", "2.16.840.1.101.3.4.2.1"),
    ("1.2.840.10045.4.3.3", "2.16.840.1.101.3.4.2.2"),
    ("1.2.840.10045.4.3.4", "2.16.840.1.101.3.4.2.3"),
    ("2.16.840.1.101.3.4.3.10", "2.16.840.1.101.3.4.2.8"),
    ("2.16.840.1.101.3.4.3.11", "2.16.840.1.101.3.4.2.9"),
    ("2.16.840.1.101.3.4.3.12", "2.16.840.1.101.3.4.2.10"),
];
/// RSA with these hashes, which only certificates name together.
const RSA_WITH: [(&str, &str); 10] = [
    ("1.2.840.113549.1.1.3", "1.2.840.113549.2.4"),
    ("1.2.840.113549.1.1.4", "1.2.840.113549.2.5"),
    ("1.2.840.113549.1.1.5", "1.3.14.3.2.26"),
    ("1.2.840.113549.1.1.14", "2.16.840.1.101.3.4.2.4"),
    ("1.2.840.113549.1.1.11", "2.16.840.1.101.3.4.2.1"),
    ("1.2.840.113549.1.1.12", "2.16.840.1.101.3.4.2.2"),
    ("1.2.840.113549.1.1.13", "2.16.840.1.101.3.4.2.3"),
    ("2.16.840.1.101.3.4.3.14", "2.16.840.1.101.3.4.2.8"),
    ("2.16.840.1.101.3.4.3.15", "2.16.840.1.101.3.4.2.9"),
    ("2.16.840.1.101.3.4.3.16", "2.16.840.1.101.3.4.2.10"),
];

/// Keys that stand for themselves, in certificates and messages.
fn named(oid: &str, config: &KernelConfig) -> Option<KeyKind> {
    match oid {
        "1.2.643.7.1.1.1.1" | "1.2.643.7.1.1.1.2" => Some(KeyKind::Ecrdsa),
        // Since v7.0.
        "2.16.840.1.101.3.4.3.17" => Some(KeyKind::MlDsa(44)),
        "2.16.840.1.101.3.4.3.18" => Some(KeyKind::MlDsa(65)),
        "2.16.840.1.101.3.4.3.19" => Some(KeyKind::MlDsa(87)),
        _ => None,
    }
    .filter(|kind| !matches!(kind, KeyKind::MlDsa(_)) || config.has(Change::MlDsaSignatures))
}

/// The algorithm of a signature of PKCS#7 (pkcs7_parser.c: pkcs7_sig_note_pkey_algo).
pub fn of_signature(oid: &str, config: &KernelConfig) -> Option<KeyKind> {
    match oid {
        "1.2.840.113549.1.1.1" => Some(KeyKind::Rsa),
        _ => {
            let with = ECDSA_WITH.iter().find(|(known, _)| *known == oid);
            let ecdsa = with.filter(|(_, hash)| crate::hash::needs(hash, config).is_some());
            ecdsa.map(|_| KeyKind::Ecdsa).or_else(|| named(oid, config))
        }
    }
}

/// The algorithm and the hash of a certificate's own signature (x509_cert_parser.c: x509_note_sig_algo).
fn of_certificate(oid: &str, config: &KernelConfig) -> Option<(KeyKind, &'static str)> {
    let with = |table: &[(&'static str, &'static str)], kind| {
        table.iter().find(|(known, _)| *known == oid).map(|(_, hash)| (kind, *hash))
    };
    with(&RSA_WITH, KeyKind::Rsa)
        .or_else(|| with(&ECDSA_WITH, KeyKind::Ecdsa))
        .or_else(|| named(oid, config).map(|kind| (kind, "")))
        .filter(|(_, hash)| hash.is_empty() || crate::hash::needs(hash, config).is_some())
}

/// The kind of a public key (x509_cert_parser.c: x509_extract_key_data).
fn of_key(key: &SubjectPublicKeyInfoOwned, config: &KernelConfig) -> Option<KeyKind> {
    const CURVES: [&str; 4] = ["1.2.840.10045.3.1.1", "1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
    match key.algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => Some(KeyKind::Rsa),
        "1.2.840.10045.2.1" => {
            let parameters = key.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok())?.to_string();
            CURVES.contains(&curve.as_str()).then_some(KeyKind::Ecdsa)
        }
        oid => named(oid, config),
    }
}

/// A certificate.
#[derive(Clone, Debug)]
pub struct Cert {
    x509: Certificate,
    /// The kind of its key.
    pub kind: KeyKind,
    /// Who signed it, and the hash of that, by its identifier.
    pub signed_with: (KeyKind, &'static str),
    /// What was signed.
    pub signed: Vec<u8>,
    /// Its key identifier, and that of its issuer's key.
    skid: Option<Vec<u8>>,
    akid: Option<Vec<u8>>,
}

impl Cert {
    /// Reads a certificate in DER. The error: is it an algorithm that the kernel does not know (ENOPKG)? Else it is no
    /// certificate.
    pub fn parse(der: &[u8], config: &KernelConfig) -> Result<Self, bool> {
        let x509: Certificate = decode(der).map_err(|_| false)?;
        Self::of(x509, config)
    }

    /// The same of one that is decoded.
    pub fn of(x509: Certificate, config: &KernelConfig) -> Result<Self, bool> {
        let signed_with = of_certificate(&x509.signature_algorithm.oid.to_string(), config).ok_or(true)?;
        let kind = of_key(&x509.tbs_certificate.subject_public_key_info, config).ok_or(true)?;
        let signed = x509.tbs_certificate.to_der().map_err(|_| false)?;
        let extension = |id| {
            let all = x509.tbs_certificate.extensions.iter().flatten();
            all.into_iter().find(|e| e.extn_id == id).map(|e| e.extn_value.as_bytes())
        };
        let skid = extension(SUBJECT_KEY_ID).and_then(|value| decode::<OctetString>(value).ok());
        let akid = extension(AUTHORITY_KEY_ID).and_then(key_identifier);
        Ok(Cert {
            kind,
            signed_with,
            signed,
            skid: skid.map(|id| id.as_bytes().to_vec()),
            akid: akid.map(<[u8]>::to_vec),
            x509,
        })
    }

    /// Is it by the key that it is of, as far as names tell?
    pub fn is_by_itself(&self) -> bool {
        let tbs = &self.x509.tbs_certificate;
        tbs.issuer == tbs.subject && (self.akid.is_none() || self.akid == self.skid)
    }

    /// Is the other one that of its issuer?
    pub fn is_by(&self, other: &Cert) -> bool {
        self.akid.is_some() && self.akid == other.skid
    }

    /// Are both the same (issuer, serial number, key identifier)?
    pub fn is_same(&self, other: &Cert) -> bool {
        let (one, two) = (&self.x509.tbs_certificate, &other.x509.tbs_certificate);
        one.issuer == two.issuer
            && one.serial_number.as_bytes() == two.serial_number.as_bytes()
            && (self.skid.is_none() || self.skid == other.skid)
    }

    /// Does a message name it as the signer's?
    pub fn is_signer(&self, signer: &SignerIdentifier) -> bool {
        let tbs = &self.x509.tbs_certificate;
        match signer {
            SignerIdentifier::IssuerAndSerialNumber(id) => {
                tbs.issuer == id.issuer && tbs.serial_number.as_bytes() == id.serial_number.as_bytes()
            }
            SignerIdentifier::SubjectKeyIdentifier(id) => {
                self.skid.as_deref().is_some_and(|skid| skid == id.0.as_bytes())
            }
        }
    }

    /// The signature on it.
    pub fn signature(&self) -> &[u8] {
        self.x509.signature.raw_bytes()
    }

    /// Did its key make a signature for a digest? `None` where this is not computed here.
    pub fn verifies(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> Option<bool> {
        let der = self.x509.tbs_certificate.subject_public_key_info.to_der().ok()?;
        match self.kind {
            KeyKind::Rsa => {
                let key = rsa::RsaPublicKey::from_public_key_der(&der).ok()?;
                Some(key.verify(hash.padding(), digest, signature).is_ok())
            }
            KeyKind::Ecdsa => {
                if let Ok(key) = p384::ecdsa::VerifyingKey::from_public_key_der(&der) {
                    let signature = p384::ecdsa::Signature::from_der(signature).ok();
                    return Some(signature.is_some_and(|s| key.verify_prehash(digest, &s).is_ok()));
                }
                let key = p256::ecdsa::VerifyingKey::from_public_key_der(&der).ok()?;
                let signature = p256::ecdsa::Signature::from_der(signature).ok();
                Some(signature.is_some_and(|s| key.verify_prehash(digest, &s).is_ok()))
            }
            KeyKind::Ecrdsa | KeyKind::MlDsa(_) => None,
        }
    }

    /// `tbs:HEX`, as the blacklist names it.
    pub fn blacklist_name(&self) -> Option<String> {
        let digest = Hash::of_oid(self.signed_with.1)?.digest(&self.signed);
        Some(crate::hash::blacklist_name("tbs", &digest))
    }
}

/// keyIdentifier, the first member of AuthorityKeyIdentifier.
fn key_identifier(value: &[u8]) -> Option<&[u8]> {
    let sequence = der::asn1::AnyRef::from_der(value).ok()?.value();
    match sequence {
        [0x80, len, rest @ ..] => rest.get(..usize::from(*len)),
        _ => None,
    }
}
