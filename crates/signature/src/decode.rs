//! DER from hostile hands: decoding what fits, and the first element of several.

use alloc::vec;

use der::Decode;

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

/// The first element of DER, without what follows it.
pub(crate) fn first_element(bytes: &[u8]) -> Option<&[u8]> {
    let (header, len) = match bytes {
        [_, len @ 0..=0x7f, ..] => (2usize, usize::from(*len)),
        [_, count @ 0x81..=0x84, rest @ ..] => {
            let count = usize::from(count & 0x7f);
            let len = rest.get(..count)?.iter().fold(0u64, |len, byte| len << 8 | u64::from(*byte));
            (count.saturating_add(2), usize::try_from(len).ok()?)
        }
        _ => return None,
    };
    bytes.get(..header.checked_add(len)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cms::cert::x509::Certificate;

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
