//! Facts of a module's PKCS#7 signature: who signed it, with which key and
//! hash. Nothing is verified.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use cms::cert::x509::name::Name;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier};
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Tag, Tagged};

use crate::decode::decode;
use crate::hash;

/// What a signature says about itself, as `modinfo` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signature {
    /// Common name of the certificate's issuer.
    pub signer: Option<String>,
    /// Serial number of the certificate, or its subject key identifier: hex pairs.
    pub sig_key: Option<String>,
    /// Hash algorithm.
    pub sig_hashalgo: Option<String>,
    /// The signature value: hex pairs.
    pub signature: Option<String>,
}

const ID_COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

impl Signature {
    /// Signer, key and hash in words.
    pub fn words(&self) -> String {
        let signer = self.signer.as_deref().map_or(String::new(), |name| format!("'{name}', "));
        let unknown = || String::from("?");
        let key = self.sig_key.clone().unwrap_or_else(unknown);
        format!("{signer}key {key}, {}", self.sig_hashalgo.clone().unwrap_or_else(unknown))
    }
}

/// Reads a PKCS#7 message in DER; the error says where it is not one.
pub fn read(pkcs7: &[u8]) -> Result<Signature, String> {
    let bad = |what: &str, e: der::Error| format!("{what}: {e}");
    let content: ContentInfo = decode(pkcs7).map_err(|e| bad("not a PKCS#7 message", e))?;
    let signed: SignedData = content.content.decode_as().map_err(|e| bad("not signed data", e))?;
    let Some(info) = signed.signer_infos.0.iter().next() else {
        return Err(String::from("nobody signed it"));
    };
    let (signer, key) = match &info.sid {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            (common_name(&id.issuer), hex(id.serial_number.as_bytes()))
        }
        SignerIdentifier::SubjectKeyIdentifier(id) => (None, hex(id.0.as_bytes())),
    };
    let oid = info.digest_alg.oid.to_string();
    Ok(Signature {
        signer,
        sig_key: Some(key),
        sig_hashalgo: Some(hash::name(&oid).to_owned()),
        signature: Some(hex(info.signature.as_bytes())),
    })
}

/// The last common name of an issuer.
fn common_name(name: &Name) -> Option<String> {
    let mut parts = name.0.iter().flat_map(|set| set.0.iter());
    let value = &parts.rfind(|part| part.oid == ID_COMMON_NAME)?.value;
    let bytes = value.to_der().ok()?;
    let any = AnyRef::from_der(&bytes).ok()?;
    match any.tag() {
        Tag::BmpString => None,
        _ => Some(String::from_utf8_lossy(any.value()).into_owned()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":")
}
