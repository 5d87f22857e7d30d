//! Bounded little-endian reads. A read outside the buffer is `None`, never a panic.

use alloc::borrow::Cow;
use alloc::string::String;

/// `N` bytes at byte offset `at`.
pub fn array<const N: usize>(bytes: &[u8], at: u64) -> Option<[u8; N]> {
    slice(bytes, at, N as u64)?.try_into().ok()
}

/// `len` bytes at byte offset `at`.
pub fn slice(bytes: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let end = at.checked_add(len)?;
    bytes.get(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
}

/// `len` writable bytes at byte offset `at`.
pub fn slice_mut(bytes: &mut [u8], at: u64, len: u64) -> Option<&mut [u8]> {
    let end = at.checked_add(len)?;
    bytes.get_mut(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
}

/// Little-endian u16 at byte offset `at`.
pub fn le16(bytes: &[u8], at: u64) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// Little-endian u32 at byte offset `at`.
pub fn le32(bytes: &[u8], at: u64) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// Little-endian u64 at byte offset `at`.
pub fn le64(bytes: &[u8], at: u64) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// The NUL-terminated string at byte offset `at`, without its NUL. A string
/// that the buffer cuts off ends with the buffer, where C would read on.
pub fn cstr(bytes: &[u8], at: u64) -> Option<&[u8]> {
    let tail = bytes.get(usize::try_from(at).ok()?..)?;
    match memchr::memchr(0, tail) {
        Some(end) => tail.get(..end),
        None => Some(tail),
    }
}

/// The most bytes of a name that are looked at. The names of a hostile table may overlap: reading each of them to
/// its end would take time and memory quadratic in the size of the file. The kernel's own are shorter than 512
/// bytes (KSYM_NAME_LEN).
pub const NAME_MAX: usize = 4096;

/// The name at byte offset `at` of a string table: as [`cstr`], but cut after [`NAME_MAX`] bytes.
pub fn name(bytes: &[u8], at: u64) -> Option<&[u8]> {
    let tail = bytes.get(usize::try_from(at).ok()?..)?;
    cstr(tail.get(..NAME_MAX).unwrap_or(tail), 0)
}

/// What a kernel log line keeps of a `%s` argument (LOG_LINE_MAX leaves less than 1 KiB).
const PRINTED_MAX: usize = 1024;

/// A name from the file as text for messages: invalid UTF-8 is replaced, and
/// what a log line could not hold is cut.
pub fn printed(name: &[u8]) -> Cow<'_, str> {
    let shown = name.get(..PRINTED_MAX).unwrap_or(name);
    String::from_utf8_lossy(shown)
}

/// The kernel's `ALIGN(value, align)` in wrapping arithmetic. An alignment of
/// 0 counts as 1; one that is no power of two gives what the kernel's mask
/// gives (LAYOUT-14: nothing checks it).
pub fn align_up(value: u64, align: u64) -> u64 {
    let mask = align.max(1).wrapping_sub(1);
    value.wrapping_add(mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_14_align_is_the_kernels_mask() {
        for (value, align, want) in [
            (0, 0, 0),
            (5, 0, 5),
            (5, 1, 5),
            (1, 16, 16),
            (16, 16, 16),
            (5, 3, 5),
            (6, 3, 8),
            (u64::MAX, 4096, 0),
        ] {
            assert_eq!(align_up(value, align), want, "LAYOUT-14: ALIGN({value:#x}, {align})");
        }
    }

    #[test]
    fn reads_outside_are_none() {
        let b = [1u8, 2, 3, 4];
        assert_eq!(le32(&b, 0), Some(0x0403_0201));
        assert_eq!(le32(&b, 1), None);
        assert_eq!(le64(&b, u64::MAX), None);
        assert_eq!(cstr(b"ab\0c", 1), Some(&b"b"[..]));
        assert_eq!(cstr(b"ab\0c", 3), Some(&b"c"[..]));
        assert_eq!(cstr(b"ab", 3), None);
        let long = [b'a'; NAME_MAX + 2];
        assert_eq!(name(&long, 0).map(<[u8]>::len), Some(NAME_MAX));
        assert_eq!(name(&long, 3).map(<[u8]>::len), Some(NAME_MAX - 1));
        assert_eq!((name(b"ab\0c", 1), name(b"ab", 3)), (Some(&b"b"[..]), None));
    }
}
