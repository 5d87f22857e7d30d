//! Files of certificates: what a kernel trusts beside what is built into it (SIG-8), and what it does not (SIG-9).

use std::path::PathBuf;

use kernel::{KernelDescriptionBuilder, Keyring};
#[cfg(feature = "signature")]
use module_signature::keyring::{parse, parse_blacklist};

use crate::error::Error;
use crate::input;

/// A file with certificates of a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyringFile {
    /// The keyring.
    pub ring: Keyring,
    /// Certificates, one or several, in DER or PEM; for the blacklist also hashes, one a line. What stands around PEM
    /// blocks, keys too, is not looked at.
    pub path: PathBuf,
}

impl KeyringFile {
    /// `[NAME=]FILE`; a file with `=` in its name needs a `/` before that. The error names the keyrings that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let named = text.split_once('=').filter(|(name, _)| !name.contains('/'));
        let Some((name, path)) = named else {
            return Ok(KeyringFile { ring: Keyring::Unnamed, path: text.into() });
        };
        let names = || Keyring::NAMED.map(Keyring::name).join(", ");
        let ring = Keyring::of_name(name)
            .ok_or_else(|| format!("a kernel has no keyring {name}: NAME is one of {}", names()))?;
        Ok(KeyringFile { ring, path: path.into() })
    }

    /// Adds what it holds to a kernel.
    pub fn add(&self, to: KernelDescriptionBuilder) -> Result<KernelDescriptionBuilder, Error> {
        let bytes = input::read(&self.path)?;
        let from = self.path.display().to_string();
        if self.ring == Keyring::Blacklist
            && let Some(hashes) = parse_blacklist(&bytes)
        {
            return Ok(to.blacklist(&from, hashes));
        }
        let certificates = parse(&bytes).map_err(|what| Error::unusable(&self.path, what))?;
        Ok(to.keyring(&from, self.ring, certificates))
    }
}

#[cfg(not(feature = "signature"))]
fn parse(_: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    Err(String::from("this build reads no certificates: build it with the feature `signature`"))
}

#[cfg(not(feature = "signature"))]
fn parse_blacklist(_: &[u8]) -> Option<Vec<String>> {
    None
}
