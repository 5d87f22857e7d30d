//! Certificates in variables of UEFI (SIG-8): `db`, and shim's list of the machine's owner (MOK).

use alloc::vec::Vec;

/// EFI_CERT_X509_GUID, a5c059a1-94e4-4aa7-87b5-ab155c2bf072, as it lies in memory.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// Bytes of the header of a list: its type, and the sizes of the list, of a header of the type's own and of each signature.
const HEADER: usize = 28;
/// Bytes of the owner, which stand before each signature.
const OWNER: usize = 16;

/// The certificates in signature lists, each as DER (certs/platform_certs/efi_parser.c: parse_efi_signature_list). Lists of hashes are
/// passed over. `None` where the kernel stops: at a list that is not well-formed.
pub fn certificates(mut lists: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !lists.is_empty() {
        let word = |at: usize| {
            let bytes = lists.get(at..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        let (size, own, each) = (word(16)?, word(20)?, word(24)?);
        let signatures = lists.get(HEADER.checked_add(own)?..size)?;
        if each <= OWNER || signatures.len() < each || !signatures.len().is_multiple_of(each) {
            return None;
        }
        if lists.starts_with(&X509) {
            found.extend(signatures.chunks_exact(each).filter_map(|signature| signature.get(OWNER..)));
        }
        lists = lists.get(size..)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(kind: [u8; 16], each: u32, signatures: &[&[u8]]) -> Vec<u8> {
        let body: Vec<u8> = signatures.iter().flat_map(|s| [&[7; OWNER][..], s].concat()).collect();
        let size = u32::try_from(HEADER + body.len()).unwrap();
        [&kind[..], &size.to_le_bytes(), &0u32.to_le_bytes(), &each.to_le_bytes(), &body].concat()
    }

    #[test]
    fn sig_8_certificates_of_the_firmware() {
        let lists =
            [list(X509, 19, &[b"abc"]), list([0; 16], 18, &[b"xx", b"yy"]), list(X509, 17, &[b"d", b"e"])]
                .concat();
        assert_eq!(certificates(&lists), Some(Vec::from([&b"abc"[..], b"d", b"e"])), "SIG-8");
        assert_eq!(certificates(b""), Some(Vec::new()));
        let first = HEADER + 19;
        for len in (1..lists.len()).filter(|len| ![first, first + HEADER + 36].contains(len)) {
            assert_eq!(certificates(&lists[..len]), None, "SIG-8: cut at {len}");
        }
        for each in [0, 16, 18, 20] {
            assert_eq!(certificates(&list(X509, each, &[b"abc"])), None, "SIG-8: {each} bytes each");
        }
    }
}
