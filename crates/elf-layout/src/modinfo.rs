//! `.modinfo`: a run of `tag=value` strings (VAL-60 to VAL-65).

use crate::bytes::cstr;

/// The strings of a `.modinfo` section, in order.
#[derive(Clone, Copy, Debug)]
pub struct Modinfo<'d> {
    bytes: &'d [u8],
}

impl<'d> Modinfo<'d> {
    /// Reads the bytes of a `.modinfo` section; empty if the module has none.
    pub fn new(bytes: &'d [u8]) -> Self {
        Modinfo { bytes }
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
        // The tag is searched for as such: measuring every string on the way takes twice as long.
        let bytes = self.bytes;
        memchr::memmem::find_iter(bytes, tag).filter_map(move |at| {
            let begins = at.checked_sub(1).is_none_or(|before| bytes.get(before) == Some(&0));
            let value =
                bytes.get(at..).filter(|_| begins)?.strip_prefix(tag.as_bytes())?.strip_prefix(b"=")?;
            cstr(value, 0)
        })
    }

    /// VAL-60, VAL-61, VAL-63: the first string begins at the start, NULs are
    /// skipped between strings, and one leftover byte ends the scan.
    fn strings(&self) -> impl Iterator<Item = &'d [u8]> + use<'d> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let text = cstr(rest, 0)?;
            rest = rest.get(text.len()..).unwrap_or(&[]);
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            rest = rest.get(zeros..).unwrap_or(&[]);
            if rest.len() <= 1 {
                rest = &[];
            }
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn val_60_to_63_strings() {
        let info = Modinfo::new(b"license=GPL\0\0\0alias=a\0alias=b=c\0licensex=no\0junk\0x");
        assert_eq!(info.get("license"), Some(&b"GPL"[..]), "VAL-62: first match");
        let each = info.get_each(["alias", "nothing", "license"]);
        assert_eq!(each, [Some(&b"a"[..]), None, Some(b"GPL")], "VAL-62: first match of each");
        assert_eq!(info.get("licen"), None, "VAL-62: = must follow the tag");
        assert_eq!(info.all("alias").collect::<Vec<_>>(), [&b"a"[..], b"b=c"], "VAL-62: later values");
        assert_eq!(info.entries().count(), 4, "VAL-63: the last byte alone is not a string");
        let unterminated = Modinfo::new(b"a=1\0b=2");
        assert_eq!(unterminated.get("b"), Some(&b"2"[..]), "VAL-63: stops at the section end");
        assert_eq!(Modinfo::new(b"\0a=1\0").get("a"), Some(&b"1"[..]), "VAL-61");
        assert_eq!(Modinfo::new(b"").get("a"), None, "VAL-64");
    }
}
