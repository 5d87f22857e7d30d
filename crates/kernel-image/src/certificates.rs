//! The certificates that were built into a kernel to trust (`system_certificate_list`).

use alloc::vec::Vec;
use core::fmt;

use memchr::memmem;

use crate::bytes::slice;
use crate::kallsyms::Kallsyms;
use crate::memory::Memory;

/// How the certificates were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CertificateSource {
    /// They are the kernel's `system_certificate_list`: the ones it trusts.
    Symbols,
    /// No such symbol in kallsyms (KSYM-10): they are all that looks like X.509
    /// version 3 in the image, whatever the kernel does with it.
    Scan,
}

impl fmt::Display for CertificateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CertificateSource::Symbols => "by its list of certificates",
            CertificateSource::Scan => "by their looks",
        })
    }
}

/// X.509 certificates in an image, each as DER.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificates<'i> {
    /// How they were found.
    pub source: CertificateSource,
    /// The certificates.
    pub der: Vec<&'i [u8]>,
}

/// Most certificates that are believed.
const MOST: usize = 4096;
/// Largest certificate that is believed.
const LARGEST: usize = 0xffff;

pub(crate) fn find<'d>(data: &'d [u8], memory: &Memory, kallsyms: Option<&Kallsyms>) -> Certificates<'d> {
    match kallsyms.and_then(|kallsyms| list(data, memory, kallsyms)) {
        Some(list) => Certificates { source: CertificateSource::Symbols, der: split_certificates(list) },
        None => Certificates { source: CertificateSource::Scan, der: scan(data) },
    }
}

fn list<'d>(data: &'d [u8], memory: &Memory, kallsyms: &Kallsyms) -> Option<&'d [u8]> {
    let start = kallsyms.address("system_certificate_list")?;
    let size = memory.pointer(data, kallsyms.address("system_certificate_list_size")?)?;
    memory.read(data, start, usize::try_from(size).ok()?)
}

/// Splits certificates in DER that follow each other, as the kernel does. What is none ends the list.
pub fn split_certificates(list: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    let mut rest = list;
    while let Some(certificate) = sequence(rest).filter(|_| all.len() < MOST) {
        all.push(certificate);
        rest = rest.get(certificate.len()..).unwrap_or(&[]);
    }
    all
}

/// The DER SEQUENCE at the start of `bytes`, with a two-byte length as every certificate has.
fn sequence(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x30, 0x82, high, low, ..] => {
            slice(bytes, 0, usize::from(u16::from_be_bytes([*high, *low])).checked_add(4)?)
        }
        _ => None,
    }
}

/// SEQUENCE { SEQUENCE { [0] { INTEGER 2 } INTEGER ...
fn scan(data: &[u8]) -> Vec<&[u8]> {
    const VERSION_3_SERIAL: &[u8] = b"\xa0\x03\x02\x01\x02\x02";
    let mut all = Vec::new();
    let mut end = 0usize;
    for at in memmem::find_iter(data, VERSION_3_SERIAL) {
        let Some(start) = at.checked_sub(8).filter(|start| *start >= end) else {
            continue;
        };
        let Some(outer) = data.get(start..).and_then(sequence) else {
            continue;
        };
        let inner = outer.get(4..).and_then(sequence);
        if inner.is_some_and(|inner| inner.len() < outer.len()) && outer.len() <= LARGEST && all.len() < MOST
        {
            end = start.saturating_add(outer.len());
            all.push(outer);
        }
    }
    all
}
