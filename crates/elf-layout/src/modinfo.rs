//! `.modinfo`: a run of `tag=value` strings (VAL-60 to VAL-65).

use crate::bytes::cstr;

/// The strings of a `.modinfo` section, in order.
#[derive(Clone, Copy, Debug)]
pub struct Modinfo<'d> {
    /// The file from the section on.
    bytes: &'d [u8],
    /// Strings begin in so many bytes. The first one is looked at even if there are none (VAL-61), and the last one ends
    /// where there is a NUL (VAL-63).
    size: usize,
}

impl<'d> Modinfo<'d> {
    /// Reads a `.modinfo` section of `size` bytes, with which `bytes` begin; empty if the module has none.
    pub fn new(bytes: &'d [u8], size: u64) -> Self {
        Modinfo { bytes, size: usize::try_from(size).unwrap_or(usize::MAX) }
    }

    /// All strings as `(tag, value)`. A string without `=` is skipped; it can match no tag.
    pub fn entries(&self) -> impl Iterator<Item = (&'d [u8], &'d [u8])> + use<'d> {
        self.strings().filter_map(|text| {
            let at = memchr::memchr(b'=', text)?;
            Some((text.get(..at)?, text.get(at.checked_add(1)?..)?))
        })
    }

    /// The first value of `tag`, as `get_modinfo` finds it (VAL-62).
    pub fn get(&self, tag: &str) -> Option<&'d [u8]> {
        self.all(tag).next()
    }

    /// [`Modinfo::get`] of several tags, none with a `=` in it, in one pass.
    pub fn get_each<const N: usize>(&self, tags: [&str; N]) -> [Option<&'d [u8]>; N] {
        let mut values = [None; N];
        for (tag, value) in self.entries() {
            let same = tags.iter().zip(&mut values).find(|(wanted, _)| wanted.as_bytes() == tag);
            if let Some((_, first @ None)) = same {
                *first = Some(value);
            }
        }
        values
    }

    /// All values of `tag`, in order. The tag must be followed by `=` directly,
    /// so a tag that itself contains `=` is compared as the kernel compares it.
    pub fn all<'t>(&self, tag: &'t str) -> impl Iterator<Item = &'d [u8]> + use<'d, 't> {
        self.places(tag).map(|(_, value)| value)
    }

    /// Does the section end between the begin of a tag and that of its value? What asks for the next one of that tag then goes
    /// on without an end (NS-7).
    pub fn ends_within(&self, tag: &str) -> bool {
        self.places(tag).any(|(at, _)| at.saturating_add(tag.len()).saturating_add(1) > self.size)
    }

    /// Where the strings of `tag` begin, and their values.
    fn places<'t>(&self, tag: &'t str) -> impl Iterator<Item = (usize, &'d [u8])> + use<'d, 't> {
        // The tag is searched for as such: measuring every string on the way takes twice as long.
        let Modinfo { bytes, size } = *self;
        let searched = bytes.get(..size.saturating_add(tag.len())).unwrap_or(bytes);
        memchr::memmem::find_iter(searched, tag).filter_map(move |at| {
            let begins = match at.checked_sub(1) {
                None => true,
                Some(before) => at < size && bytes.get(before) == Some(&0),
            };
            let value =
                bytes.get(at..).filter(|_| begins)?.strip_prefix(tag.as_bytes())?.strip_prefix(b"=")?;
            Some((at, cstr(value, 0)?))
        })
    }

    /// VAL-60, VAL-61: the first string begins at the start, and NULs are skipped between strings.
    fn strings(&self) -> impl Iterator<Item = &'d [u8]> + use<'d> {
        let Modinfo { bytes, size } = *self;
        let mut next = (!bytes.is_empty()).then_some(0usize);
        core::iter::from_fn(move || {
            let at = next?;
            let text = cstr(bytes, at as u64)?;
            let end = at.saturating_add(text.len());
            let zeros = bytes.get(end..).unwrap_or(&[]).iter().take_while(|byte| **byte == 0).count();
            let after = end.saturating_add(zeros);
            next = (after < size && after < bytes.len()).then_some(after);
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn whole(bytes: &[u8]) -> Modinfo<'_> {
        Modinfo::new(bytes, bytes.len() as u64)
    }

    #[test]
    fn ns_7_a_section_that_ends_within_a_tag() {
        let bytes = b"tag=x\0tag=y\0";
        for (size, ends) in
            [(0, true), (3, true), (4, false), (6, false), (7, true), (9, true), (10, false), (12, false)]
        {
            assert_eq!(Modinfo::new(bytes, size).ends_within("tag"), ends, "NS-7: {size}");
        }
        assert!(!Modinfo::new(bytes, 0).ends_within("other"), "NS-7: without such a tag");
    }

    #[test]
    fn val_60_to_63_strings() {
        let info = whole(b"license=GPL\0\0\0alias=a\0alias=b=c\0licensex=no\0junk\0x");
        assert_eq!(info.get("license"), Some(&b"GPL"[..]), "VAL-62: first match");
        let each = info.get_each(["alias", "nothing", "license"]);
        assert_eq!(each, [Some(&b"a"[..]), None, Some(b"GPL")], "VAL-62: first match of each");
        assert_eq!(info.get("licen"), None, "VAL-62: = must follow the tag");
        assert_eq!(info.all("alias").collect::<Vec<_>>(), [&b"a"[..], b"b=c"], "VAL-62: later values");
        assert_eq!(info.entries().count(), 4, "a string without = matches nothing");
        assert_eq!(whole(b"a=1\0b=2").get("b"), Some(&b"2"[..]), "VAL-63");
        let file = b"a=1\0b=2 and on\0c=3";
        for size in [5, 6, 7] {
            let info = Modinfo::new(file, size);
            assert_eq!(info.get("b"), Some(&b"2 and on"[..]), "VAL-63: of {size} bytes, read to its NUL");
            assert_eq!(
                (info.get("c"), info.entries().count()),
                (None, 2),
                "VAL-63: begins behind the section"
            );
        }
        assert_eq!(Modinfo::new(file, 4).get("b"), None, "VAL-63");
        let empty = Modinfo::new(file, 0);
        assert_eq!(
            (empty.get("a"), empty.entries().count()),
            (Some(&b"1"[..]), 1),
            "VAL-61: looked at all the same"
        );
        assert_eq!(whole(b"\0a=1\0").get("a"), Some(&b"1"[..]), "VAL-61");
        assert_eq!(whole(b"").get("a"), None, "VAL-64");
    }
}
