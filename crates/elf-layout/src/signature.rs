//! The signature that is appended to a module: cutting it off (SIG-2 to SIG-7)
//! and the facts of its tail. Verification needs keys and is not done here.

use crate::bytes::slice;
use crate::finding::{Errno, Finding, Severity};

/// The last bytes of a signed module.
pub const MODULE_SIG_STRING: &[u8; 28] = b"~Module signature appended~\n";
/// Bytes of `struct module_signature`.
const INFO_SIZE: u64 = 12;
/// `id_type` of a PKCS#7 message.
const PKEY_ID_PKCS7: u8 = 2;

/// What `module_sig_check` makes of a file's tail before any cryptography.
#[derive(Clone, Debug)]
pub struct SignatureTail<'d> {
    /// The bytes that the ELF checks see (SIG-7).
    pub module: &'d [u8],
    /// The marker is there.
    pub marker: bool,
    /// The PKCS#7 message in DER, if the tail is well formed.
    pub pkcs7: Option<&'d [u8]>,
}

/// Cuts the signature off as `module_sig_check` and `mod_check_sig` do. With a
/// malformed tail the kernel's refusal comes back beside what is left of the file.
pub fn module_sig_check(file: &[u8]) -> (SignatureTail<'_>, Option<Finding>) {
    let unsigned = SignatureTail { module: file, marker: false, pkcs7: None };
    // SIG-2: a file of just the marker has no marker.
    let Some(signed) = file.strip_suffix(MODULE_SIG_STRING).filter(|rest| !rest.is_empty()) else {
        return (unsigned, None);
    };
    let tail = SignatureTail { module: signed, marker: true, pkcs7: None };
    let bad = |code, errno, why: &'static str| Some(Finding::error(code, errno, why));
    let len = signed.len() as u64;
    let info_at = len.checked_sub(INFO_SIZE).filter(|at| *at > 0);
    let Some((info_at, info)) = info_at.and_then(|at| Some((at, slice(signed, at, INFO_SIZE)?))) else {
        return (
            tail,
            bad("SIG-3", Errno::EBADMSG, "no room for struct module_signature before the signature marker"),
        );
    };
    let [algo, hash, id_type, signer_len, key_id_len, pad @ .., a, b, c, d] = info else {
        return (tail, bad("SIG-3", Errno::EBADMSG, "no room for struct module_signature"));
    };
    let sig_len = u64::from(u32::from_be_bytes([*a, *b, *c, *d]));
    // SIG-4: at least one byte of module must be left.
    let Some(module_len) = info_at.checked_sub(sig_len).filter(|len| *len > 0) else {
        return (tail, bad("SIG-4", Errno::EBADMSG, "the signature claims to be longer than the file"));
    };
    if *id_type != PKEY_ID_PKCS7 {
        // SIG-10: ENOPKG is a soft reason, the module counts as unsigned.
        let why = "the appended signature is not a PKCS#7 message: the module counts as unsigned";
        let finding = Finding::note("SIG-5", Severity::Warning, why);
        return (tail, Some(finding.says("module: not signed with expected PKCS#7 message")));
    }
    if [algo, hash, signer_len, key_id_len].into_iter().chain(pad).any(|byte| *byte != 0) {
        let finding = Finding::error(
            "SIG-6",
            Errno::EBADMSG,
            "fields of struct module_signature that must be 0 are not",
        );
        return (tail, Some(finding.says("module: PKCS#7 signature info has unexpected non-zero params")));
    }
    let module = slice(signed, 0, module_len).unwrap_or(signed);
    (SignatureTail { module, marker: true, pkcs7: slice(signed, module_len, sig_len) }, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn signed(module: &[u8], sig: &[u8], info: [u8; 8], sig_len: u32) -> Vec<u8> {
        [module, sig, &info, &sig_len.to_be_bytes(), MODULE_SIG_STRING].concat()
    }

    const PKCS7: [u8; 8] = [0, 0, 2, 0, 0, 0, 0, 0];

    #[test]
    fn sig_7_a_good_tail_is_cut_off() {
        let file = signed(b"MODULE", b"SIGN", PKCS7, 4);
        let (tail, finding) = module_sig_check(&file);
        assert_eq!((tail.module, tail.pkcs7, finding), (&b"MODULE"[..], Some(&b"SIGN"[..]), None), "SIG-7");
    }

    #[test]
    fn sig_2_to_6_bad_tails() {
        let cases: [(&str, Vec<u8>, Option<&str>, usize); 7] = [
            ("no marker", b"MODULE".to_vec(), None, 6),
            ("SIG-2 only the marker", MODULE_SIG_STRING.to_vec(), None, 28),
            ("SIG-3", [&b"twelve bytes"[..], MODULE_SIG_STRING].concat(), Some("SIG-3"), 12),
            ("SIG-4 whole file", signed(b"MODULE", b"SIGN", PKCS7, 10), Some("SIG-4"), 22),
            ("SIG-4 huge", signed(b"MODULE", b"SIGN", PKCS7, u32::MAX), Some("SIG-4"), 22),
            ("SIG-5", signed(b"MODULE", b"SIGN", [0, 0, 1, 0, 0, 0, 0, 0], 4), Some("SIG-5"), 22),
            ("SIG-6", signed(b"MODULE", b"SIGN", [0, 4, 2, 0, 0, 0, 0, 0], 4), Some("SIG-6"), 22),
        ];
        for (what, file, code, left) in cases {
            let (tail, finding) = module_sig_check(&file);
            let refuses = finding.as_ref().is_some_and(|f| f.severity.refuses());
            assert_eq!(refuses, code.is_some_and(|c| c != "SIG-5"), "SIG-10: {what}: ENOPKG alone is soft");
            assert_eq!(finding.map(|f| f.code), code, "{what}");
            assert_eq!(tail.module.len(), left, "{what}: bytes that the ELF checks see");
        }
    }
}
