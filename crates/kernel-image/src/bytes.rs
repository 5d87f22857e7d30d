//! Bounded little-endian reads. A read outside the buffer is `None`, never a panic.

/// `N` bytes at byte offset `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// `len` bytes at byte offset `at`.
pub(crate) fn slice(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..)?.get(..len)
}

/// Little-endian u16 at byte offset `at`.
pub(crate) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// Little-endian u32 at byte offset `at`.
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// Little-endian u64 at byte offset `at`.
pub(crate) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// A little-endian u32 at byte offset `at` that is a size or an offset.
pub(crate) fn size32(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(le32(bytes, at)?).ok()
}

/// A little-endian u64 at byte offset `at` that is a size or an offset.
pub(crate) fn size64(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(le64(bytes, at)?).ok()
}

/// The NUL-terminated string at the start of `bytes`, without its NUL, which must lie within `max` bytes.
pub(crate) fn cstr(bytes: &[u8], max: usize) -> Option<&[u8]> {
    let within = bytes.get(..max).unwrap_or(bytes);
    within.get(..memchr::memchr(0, within)?)
}

/// The next multiple of `align`, a power of two, saturating.
pub(crate) fn align_up(value: usize, align: usize) -> usize {
    let mask = align.saturating_sub(1);
    value.saturating_add(mask) & !mask
}

/// `base + sign_extend(offset)`, as the kernel's PREL32 references are read.
pub(crate) fn prel32(base: u64, offset: u32) -> u64 {
    base.wrapping_add_signed(i64::from(offset.cast_signed()))
}

/// As [`prel32`], for byte offsets in a buffer.
pub(crate) fn prel32_offset(base: usize, offset: u32) -> Option<usize> {
    base.checked_add_signed(isize::try_from(offset.cast_signed()).ok()?)
}
