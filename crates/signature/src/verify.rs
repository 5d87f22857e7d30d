//! Verifying a module's signature as the kernel does with its keyrings (SIG-8, SIG-9, SIG-18).
//!
//! First the message by itself (pkcs7_parse_message, pkcs7_verify), then whether a key of the keyrings made it
//! (pkcs7_validate_trust), each with the algorithms that the kernel has.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{SignedData, SignerInfo};
use elf_layout::{Change, Crypto, Errno, KernelConfig, Presence};

use crate::decode::{decode, first_element};
use crate::hash::{self, Hash};
use crate::x509::{Cert, KeyKind, of_signature};
use crate::{Verdict, Verified};

const ID_SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
const ID_DATA: &str = "1.2.840.113549.1.7.1";
const ID_MS_INDIRECT_DATA: &str = "1.3.6.1.4.1.311.2.1.4";

/// What a kernel verifies signatures with.
#[derive(Clone, Debug)]
pub struct Trust<'k> {
    /// Its algorithms.
    pub config: &'k KernelConfig,
    /// The certificates of the keyrings that it asks, in DER; those that cannot be read are none. `None` if they are
    /// not known: then a signature that is right by itself counts as good.
    pub keys: Option<Vec<&'k [u8]>>,
    /// The certificates in its blacklist.
    pub revoked: Vec<&'k [u8]>,
    /// The hashes in its blacklist.
    pub blacklist: &'k [String],
}

/// A refusal, or an algorithm that is not there.
struct Stop {
    verdict: Verdict,
    line: Option<&'static str>,
    why: &'static str,
}

/// The message is refused.
const fn refuse(errno: Errno, why: &'static str, line: Option<&'static str>) -> Stop {
    Stop { verdict: Verdict::Refused(errno), line, why }
}

const MALFORMED: Stop = refuse(Errno::EBADMSG, "what is appended as one is no readable PKCS#7 message", None);
const UNSUPPORTED: Stop = Stop { verdict: Verdict::Unsupported, line: None, why: "" };
const REJECTED: Stop = refuse(Errno::EKEYREJECTED, CHANGED, None);
const CHANGED: &str = "it was not made for these bytes: the module was changed after it was signed";

/// Verifies a detached PKCS#7 signature of `data` (certs/system_keyring.c: verify_pkcs7_signature).
pub fn verify_pkcs7_signature(pkcs7: &[u8], data: &[u8], trust: &Trust<'_>) -> Verified {
    let mut run = Run { trust, lacks: Vec::new(), assumed: Vec::new(), not_computed: false };
    let stop = run.message(pkcs7, data).err();
    let verdict = stop.as_ref().map_or(Verdict::Good, |stop| stop.verdict);
    Verified {
        verdict,
        log: stop.iter().flat_map(|stop| stop.line).flat_map(str::lines).collect(),
        why: stop.as_ref().map_or("", |stop| stop.why),
        lacks: run.lacks,
        assumed: run.assumed,
        not_computed: run.not_computed,
    }
}

/// One signer of a message.
struct Signer<'m> {
    info: &'m SignerInfo,
    kind: KeyKind,
    /// The identifier of the hash; empty where the algorithm takes the data itself.
    hash: String,
    /// The certificates of the message that lead from the signer's, the signer's first.
    chain: Vec<&'m Cert>,
    /// The last of them signed itself.
    is_rooted: bool,
    unsupported: bool,
    blacklisted: bool,
}

/// What a key says of a signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Right,
    Wrong,
    /// The kernel has no such algorithm (ENOENT).
    NoAlgorithm,
}

struct Run<'r> {
    trust: &'r Trust<'r>,
    lacks: Vec<Crypto>,
    assumed: Vec<Crypto>,
    not_computed: bool,
}

impl Run<'_> {
    /// Does the kernel have an algorithm?
    fn has(&mut self, crypto: Crypto) -> bool {
        let presence = self.trust.config.keys.presence(crypto);
        let to = match presence {
            Some(Presence::BuiltIn) => return true,
            Some(Presence::Absent) => &mut self.lacks,
            Some(Presence::Module) | None => &mut self.assumed,
        };
        if !to.contains(&crypto) {
            to.push(crypto);
        }
        presence != Some(Presence::Absent)
    }

    /// verify_pkcs7_message_sig
    fn message(&mut self, pkcs7: &[u8], data: &[u8]) -> Result<(), Stop> {
        let signed = parse(pkcs7)?;
        let certs = self.certificates(&signed)?;
        let mut signers = Vec::new();
        for info in signed.signer_infos.0.iter() {
            signers.push(self.signer(&signed, info)?);
        }
        consistent(&signed, &signers, self.trust.config)?;
        let mut verified = UNSUPPORTED;
        let mut is_verified = false;
        for signer in &mut signers {
            let ok = self.verify_one(signer, &certs, data)?;
            if signer.blacklisted {
                if !is_verified && verified.verdict == Verdict::Unsupported {
                    verified = BLACKLISTED;
                }
            } else if ok {
                is_verified = true;
            } else {
                signer.unsupported = true;
            }
        }
        if !is_verified {
            return Err(verified);
        }
        self.trusted(&signers, data)
    }

    /// The certificates of a message (pkcs7_parser.c: pkcs7_extract_cert).
    fn certificates(&mut self, signed: &SignedData) -> Result<Vec<Cert>, Stop> {
        let mut out = Vec::new();
        for choice in signed.certificates.iter().flat_map(|set| set.0.iter()) {
            let CertificateChoices::Certificate(x509) = choice else { return Err(MALFORMED) };
            let cert = Cert::of(x509.clone(), self.trust.config)
                .map_err(|unknown| if unknown { UNSUPPORTED } else { MALFORMED })?;
            match self.self_signed(&cert) {
                Some(Outcome::NoAlgorithm) => return Err(NO_ALGORITHM),
                Some(Outcome::Wrong) => return Err(REJECTED_CERTIFICATE),
                _ => out.push(cert),
            }
        }
        Ok(out)
    }

    /// What a certificate says of itself, if it says anything (x509_public_key.c: x509_check_for_self_signed).
    fn self_signed(&mut self, cert: &Cert) -> Option<Outcome> {
        let (kind, hash) = cert.signed_with;
        if !cert.is_by_itself() {
            return None;
        }
        if let Some(crypto) = hash::needs(hash, self.trust.config)
            && !self.has(crypto)
        {
            // Then it is taken as it is.
            return None;
        }
        Some(self.verify(cert, kind, hash, &cert.signed, cert.signature()))
    }

    /// public_key_verify_signature, with the hash of `data`.
    fn verify(&mut self, key: &Cert, kind: KeyKind, hash: &str, data: &[u8], signature: &[u8]) -> Outcome {
        if key.kind != kind {
            return Outcome::Wrong;
        }
        if !self.has(kind.needs()) {
            return Outcome::NoAlgorithm;
        }
        let hash = Hash::of_oid(hash);
        match hash.and_then(|hash| key.verifies(hash, &hash.digest(data), signature)) {
            Some(true) => Outcome::Right,
            Some(false) => Outcome::Wrong,
            None => {
                self.not_computed = true;
                Outcome::Right
            }
        }
    }

    /// Algorithms of a signer, which are asked for while the message is read.
    fn signer<'m>(&mut self, signed: &SignedData, info: &'m SignerInfo) -> Result<Signer<'m>, Stop> {
        match (signed.version, info.version) {
            (CmsVersion::V1, CmsVersion::V1) | (CmsVersion::V3, CmsVersion::V3) => {}
            (CmsVersion::V1, CmsVersion::V3) | (CmsVersion::V3, CmsVersion::V1) => {
                return Err(VERSIONS_DIFFER);
            }
            _ => return Err(SIGNER_VERSION),
        }
        let mut hash = info.digest_alg.oid.to_string();
        hash::needs(&hash, self.trust.config).ok_or(UNSUPPORTED)?;
        let kind = of_signature(&info.signature_algorithm.oid.to_string(), self.trust.config);
        let kind = kind.ok_or(UNSUPPORTED)?;
        if matches!(kind, KeyKind::MlDsa(_)) && info.signed_attrs.is_none() {
            hash.clear();
        }
        Ok(Signer {
            info,
            kind,
            hash,
            chain: Vec::new(),
            is_rooted: false,
            unsupported: false,
            blacklisted: false,
        })
    }

    /// One signer against the certificates of the message (pkcs7_verify_one). False: an algorithm is not there (ENOPKG).
    fn verify_one<'m>(
        &mut self,
        signer: &mut Signer<'m>,
        certs: &'m [Cert],
        data: &[u8],
    ) -> Result<bool, Stop> {
        if let Some(crypto) = hash::needs(&signer.hash, self.trust.config)
            && !self.has(crypto)
        {
            return Ok(false);
        }
        let Some(first) = certs.iter().find(|cert| is_issued(cert, signer.info)) else { return Ok(true) };
        match self.verify(first, signer.kind, &signer.hash, data, signer.info.signature.as_bytes()) {
            Outcome::Right => {}
            Outcome::Wrong => return Err(REJECTED),
            Outcome::NoAlgorithm => return Err(NO_ALGORITHM),
        }
        self.chain(signer, first, certs)?;
        Ok(true)
    }

    /// From the signer's certificate up (pkcs7_verify_sig_chain).
    fn chain<'m>(&mut self, signer: &mut Signer<'m>, first: &'m Cert, certs: &'m [Cert]) -> Result<(), Stop> {
        let mut cert = first;
        loop {
            signer.chain.push(cert);
            if self.is_blacklisted(cert) {
                signer.blacklisted = true;
                return Ok(());
            }
            if cert.is_by_itself() {
                signer.is_rooted = true;
                return Ok(());
            }
            let Some(issuer) = certs.iter().find(|other| cert.is_by(other)) else { return Ok(()) };
            if signer.chain.iter().any(|seen| seen.is_same(issuer)) {
                return Ok(());
            }
            let (kind, hash) = cert.signed_with;
            match self.verify(issuer, kind, hash, &cert.signed, cert.signature()) {
                Outcome::Right => cert = issuer,
                Outcome::Wrong => return Err(REJECTED),
                Outcome::NoAlgorithm => return Err(NO_ALGORITHM),
            }
        }
    }

    fn is_blacklisted(&self, cert: &Cert) -> bool {
        let listed = self.trust.blacklist;
        !listed.is_empty() && cert.blacklist_name().is_some_and(|name| listed.contains(&name))
    }

    /// Does a key of the keyrings stand behind it?
    fn trusted(&mut self, signers: &[Signer<'_>], data: &[u8]) -> Result<(), Stop> {
        let trust = self.trust;
        // Without the option the kernel has no such list.
        let revoked: &[&[u8]] =
            if trust.config.keys.revocation_list == Some(true) { &trust.revoked } else { &[] };
        let revoked = self.loadable(revoked.iter().copied());
        let is_revoked =
            |run: &mut Self| !revoked.is_empty() && run.validate_trust(signers, &revoked, data).is_ok();
        // Since v6.12 first of all; before that only on the way to the platform keyring.
        let first = trust.config.has(Change::RevokedKeysRefused);
        if first && is_revoked(self) {
            return Err(REVOKED);
        }
        let Some(keys) = &trust.keys else { return Ok(()) };
        let keys = self.loadable(keys.iter().copied());
        let out = self.validate_trust(signers, &keys, data);
        let asks_platform = trust.config.keys.platform == Some(true);
        match &out {
            Err(Stop { verdict: Verdict::UnknownKey, .. }) if asks_platform && !first && is_revoked(self) => {
                Err(REVOKED)
            }
            _ => out,
        }
    }

    /// The certificates that the kernel takes into a keyring (x509_key_preparse).
    fn loadable<'c>(&mut self, all: impl Iterator<Item = &'c [u8]>) -> Vec<Cert> {
        let mut out = Vec::new();
        for der in all {
            let Ok(cert) = Cert::parse(der, self.trust.config) else { continue };
            let fits = !matches!(self.self_signed(&cert), Some(Outcome::NoAlgorithm | Outcome::Wrong));
            if fits && !self.is_blacklisted(&cert) {
                out.push(cert);
            }
        }
        out
    }

    /// pkcs7_validate_trust
    fn validate_trust(&mut self, signers: &[Signer<'_>], keys: &[Cert], data: &[u8]) -> Result<(), Stop> {
        let mut best = Stop { verdict: Verdict::UnknownKey, line: None, why: "" };
        let mut is_trusted = false;
        for signer in signers {
            match self.validate_trust_one(signer, keys, data) {
                Ok(()) => is_trusted = true,
                Err(stop) if stop.verdict == Verdict::UnknownKey => {}
                Err(stop) if stop.verdict == Verdict::Unsupported => {
                    if best.verdict == Verdict::UnknownKey {
                        best = stop;
                    }
                }
                Err(stop) => return Err(stop),
            }
        }
        if is_trusted { Ok(()) } else { Err(best) }
    }

    fn validate_trust_one(&mut self, signer: &Signer<'_>, keys: &[Cert], data: &[u8]) -> Result<(), Stop> {
        let unknown = Stop { verdict: Verdict::UnknownKey, line: None, why: "" };
        if signer.unsupported {
            return Err(UNSUPPORTED);
        }
        let by_signer = |run: &mut Self, key: &Cert| {
            run.verify(key, signer.kind, &signer.hash, data, signer.info.signature.as_bytes())
        };
        let by_cert = |run: &mut Self, key: &Cert, cert: &Cert| {
            let (kind, hash) = cert.signed_with;
            run.verify(key, kind, hash, &cert.signed, cert.signature())
        };
        let mut below: Option<&Cert> = None;
        let mut matched = None;
        for cert in &signer.chain {
            if let Some(key) = keys.iter().find(|key| cert.is_same(key)) {
                matched = Some(match below {
                    None => by_signer(self, key),
                    Some(below) => by_cert(self, key, below),
                });
                break;
            }
            below = Some(cert);
        }
        if matched.is_none() {
            if signer.is_rooted {
                return Err(unknown);
            }
            let issuer = below.and_then(|last| Some((last, keys.iter().find(|key| last.is_by(key))?)));
            let direct = || keys.iter().find(|key| key.is_signer(&signer.info.sid));
            matched = match (issuer, direct()) {
                (Some((last, key)), _) => Some(by_cert(self, key, last)),
                (None, Some(key)) => Some(by_signer(self, key)),
                (None, None) => None,
            };
        }
        match matched {
            None => Err(unknown),
            Some(Outcome::Right) => Ok(()),
            Some(Outcome::Wrong) => Err(REJECTED),
            Some(Outcome::NoAlgorithm) => Err(NO_ALGORITHM_OF_KEY),
        }
    }
}

const NO_ALGORITHM: Stop =
    refuse(Errno::ENOENT, "the kernel does not have the algorithm of a certificate in it", None);
const NO_ALGORITHM_OF_KEY: Stop =
    refuse(Errno::EKEYREJECTED, "the kernel does not have the algorithm of its key", None);
const REJECTED_CERTIFICATE: Stop =
    refuse(Errno::EKEYREJECTED, "a certificate in it is not signed by the key that it names", None);
const BLACKLISTED: Stop =
    refuse(Errno::EKEYREJECTED, "a certificate in it is in the blacklist of this kernel", None);
const REVOKED: Stop = refuse(Errno::EKEYREJECTED, "its key is in the blacklist of this kernel", None);
const VERSIONS_DIFFER: Stop = refuse(
    Errno::EBADMSG,
    "the versions of message and signer do not go together",
    Some("PKCS7: SignedData-SignerInfo version mismatch"),
);
const SIGNER_VERSION: Stop = refuse(
    Errno::EINVAL,
    "the signer has a version that is not known",
    Some("PKCS7: Unsupported SignerInfo version"),
);

/// The message itself (pkcs7_parse_message). What follows it is not looked at.
fn parse(pkcs7: &[u8]) -> Result<SignedData, Stop> {
    let message = first_element(pkcs7).ok_or(MALFORMED)?;
    let content: ContentInfo = decode(message).map_err(|_| MALFORMED)?;
    if content.content_type.to_string() != ID_SIGNED_DATA {
        let line = "PKCS7: Only support pkcs7_signedData type";
        return Err(refuse(Errno::EINVAL, "the message is not of signed data", Some(line)));
    }
    let signed: SignedData = content.content.decode_as().map_err(|_| MALFORMED)?;
    if !matches!(signed.version, CmsVersion::V1 | CmsVersion::V3) {
        let line = "PKCS7: Unsupported SignedData version";
        return Err(refuse(Errno::EINVAL, "the message has a version that is not known", Some(line)));
    }
    let content = signed.encap_content_info.econtent_type.to_string();
    if content != ID_DATA && content != ID_MS_INDIRECT_DATA {
        return Err(refuse(Errno::EINVAL, "the message is of data of another type", None));
    }
    Ok(signed)
}

/// What the kernel asks of a message as a whole before it verifies it (pkcs7_check_authattrs, pkcs7_verify).
fn consistent(signed: &SignedData, signers: &[Signer<'_>], config: &KernelConfig) -> Result<(), Stop> {
    let with_attributes = |signer: &&Signer<'_>| signer.info.signed_attrs.is_some();
    let attributes = signers.iter().filter(with_attributes).count();
    if signers.is_empty() || attributes != 0 && attributes != signers.len() {
        let line = "PKCS7: Inconsistently supplied authAttrs";
        return Err(refuse(Errno::EINVAL, "nobody signed it, or not all in one way", Some(line)));
    }
    if signed.encap_content_info.econtent.is_some() {
        let lines = "PKCS7: Data already supplied\nPKCS#7 signature with non-detached data";
        return Err(refuse(Errno::EBADMSG, "the message brings data of its own", Some(lines)));
    }
    if signed.encap_content_info.econtent_type.to_string() != ID_DATA {
        let line = "PKCS7: Invalid module sig (not pkcs7-data)";
        return Err(refuse(Errno::EKEYREJECTED, "the message is not of plain data", Some(line)));
    }
    // SIG-14: since v7.0 an option lets ML-DSA have them.
    let waived = config.keys.mldsa_attributes == Some(true)
        && signers.iter().all(|signer| matches!(signer.kind, KeyKind::MlDsa(_)));
    if attributes != 0 && !waived {
        let line = "PKCS7: Invalid module sig (has authattrs)";
        let why = "it has signed attributes, which signatures of modules must not have";
        return Err(refuse(Errno::EKEYREJECTED, why, Some(line)));
    }
    Ok(())
}

/// Is a certificate the signer's by issuer and serial number (pkcs7_find_key)?
fn is_issued(cert: &Cert, signer: &SignerInfo) -> bool {
    use cms::signed_data::SignerIdentifier;
    matches!(signer.sid, SignerIdentifier::IssuerAndSerialNumber(_)) && cert.is_signer(&signer.sid)
}
