//! Files of certificates: what a kernel trusts beside what is built into it (SIG-8).

use std::path::Path;

#[cfg(feature = "signature")]
use module_signature::keyring::parse;

use crate::error::Error;
use crate::input;

/// Reads the certificates of a file, each as DER: one or several, in DER or PEM. What stands around
/// PEM blocks, keys too, is not looked at.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    parse(&input::read(path)?).map_err(|what| Error::unusable(path, what))
}

#[cfg(not(feature = "signature"))]
fn parse(_: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    Err(String::from("this build reads no certificates: build it with the feature `signature`"))
}
