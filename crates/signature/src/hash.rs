//! Hash algorithms of signatures: one table of identifiers, names, and what can be computed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::{Change, Crypto, KernelConfig};
use rsa::pkcs1v15::Pkcs1v15Sign;
use sha2::Digest;

/// A hash algorithm that signatures are verified with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1
    Sha1,
    /// SHA-224
    Sha224,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

/// Object identifier, the kernel's name, what the kernel needs for it, and the algorithm, if it is computed here.
const HASHES: [(&str, &str, Crypto, Option<Hash>); 13] = [
    ("1.2.840.113549.2.4", "md4", Crypto::Md4, None),
    ("1.2.840.113549.2.5", "md5", Crypto::Md5, None),
    ("1.3.14.3.2.26", "sha1", Crypto::Sha1, Some(Hash::Sha1)),
    ("2.16.840.1.101.3.4.2.4", "sha224", Crypto::Sha256, Some(Hash::Sha224)),
    ("2.16.840.1.101.3.4.2.1", "sha256", Crypto::Sha256, Some(Hash::Sha256)),
    ("2.16.840.1.101.3.4.2.2", "sha384", Crypto::Sha512, Some(Hash::Sha384)),
    ("2.16.840.1.101.3.4.2.3", "sha512", Crypto::Sha512, Some(Hash::Sha512)),
    ("2.16.840.1.101.3.4.2.8", "sha3-256", Crypto::Sha3, None),
    ("2.16.840.1.101.3.4.2.9", "sha3-384", Crypto::Sha3, None),
    ("2.16.840.1.101.3.4.2.10", "sha3-512", Crypto::Sha3, None),
    ("1.2.156.10197.1.401", "sm3", Crypto::Sm3, None),
    ("1.2.643.7.1.1.2.2", "streebog256", Crypto::Streebog, None),
    ("1.2.643.7.1.1.2.3", "streebog512", Crypto::Streebog, None),
];

/// The name of a hash algorithm; its identifier, if it is none of those known.
pub fn name(oid: &str) -> &str {
    HASHES.iter().find(|(known, ..)| *known == oid).map_or(oid, |(_, name, ..)| name)
}

/// What the kernel needs for a hash of PKCS#7 (pkcs7_parser.c: pkcs7_sig_note_digest_algo); `None` if it knows none by
/// this identifier.
pub fn needs(oid: &str, config: &KernelConfig) -> Option<Crypto> {
    let crypto = HASHES.iter().find(|(known, ..)| *known == oid).map(|(.., crypto, _)| *crypto)?;
    let known = match crypto {
        // Since v6.7 SHA-3, and MD4 and MD5 no longer.
        Crypto::Sha3 => config.has(Change::Sha3Signatures),
        Crypto::Md4 | Crypto::Md5 => !config.has(Change::Sha3Signatures),
        _ => true,
    };
    known.then_some(crypto)
}

impl Hash {
    /// The algorithm of an object identifier.
    pub fn of_oid(oid: &str) -> Option<Self> {
        HASHES.iter().find(|(known, ..)| *known == oid).and_then(|(.., hash)| *hash)
    }

    /// The hash of `data`.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => sha1::Sha1::digest(data).to_vec(),
            Hash::Sha224 => sha2::Sha224::digest(data).to_vec(),
            Hash::Sha256 => sha2::Sha256::digest(data).to_vec(),
            Hash::Sha384 => sha2::Sha384::digest(data).to_vec(),
            Hash::Sha512 => sha2::Sha512::digest(data).to_vec(),
        }
    }

    /// What RSA's padding needs of it.
    pub(crate) fn padding(self) -> Pkcs1v15Sign {
        match self {
            Hash::Sha1 => Pkcs1v15Sign::new::<sha1::Sha1>(),
            Hash::Sha224 => Pkcs1v15Sign::new::<sha2::Sha224>(),
            Hash::Sha256 => Pkcs1v15Sign::new::<sha2::Sha256>(),
            Hash::Sha384 => Pkcs1v15Sign::new::<sha2::Sha384>(),
            Hash::Sha512 => Pkcs1v15Sign::new::<sha2::Sha512>(),
        }
    }
}

/// A hash as the blacklist of a kernel names it (certs/blacklist.c: get_raw_hash).
pub fn blacklist_name(kind: &str, digest: &[u8]) -> String {
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}:{hex}")
}
