//! States as bytes, to be kept elsewhere and taken up again.
//!
//! Bytes that are taken up are never trusted: what they cannot mean is [`None`]. Whether they are those that were given is for whoever
//! keeps them to know, by a checksum.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Bytes that are taken up one after the other.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// From their beginning.
    pub fn new(bytes: Bytes) -> Self {
        Reader { rest: bytes }
    }

    /// The next `len` bytes, without a copy.
    pub fn bytes(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.rest.len()).then(|| self.rest.split_to(len))
    }

    /// Is nothing left?
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.first_chunk().copied()
    }
}

/// What can be kept as bytes.
pub trait Kept: Sized {
    /// Adds its bytes.
    fn keep(&self, out: &mut Vec<u8>);
    /// Takes it up again. `None` if the bytes are not its.
    fn take_up(from: &mut Reader) -> Option<Self>;
}

macro_rules! kept_numbers {
    ($($number:ty),*) => {$(
        impl Kept for $number {
            fn keep(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }

            fn take_up(from: &mut Reader) -> Option<Self> {
                Some(<$number>::from_le_bytes(from.array()?))
            }
        }
    )*};
}
kept_numbers!(u8, u16, u32, u64, u128, i64);

/// A struct is kept field by field, and has no others.
macro_rules! kept {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::kept::Kept for $name {
            fn keep(&self, out: &mut alloc::vec::Vec<u8>) {
                let $name { $($field),* } = self;
                $($crate::kept::Kept::keep($field, out);)*
            }

            fn take_up(from: &mut $crate::kept::Reader) -> Option<Self> {
                Some($name { $($field: $crate::kept::Kept::take_up(from)?),* })
            }
        }
    };
}
pub(crate) use kept;

/// An enum without fields is kept as the number of the variant in this list, which has all of them.
macro_rules! kept_variants {
    ($name:ident { $($variant:ident),* $(,)? }) => {
        impl $crate::kept::Kept for $name {
            fn keep(&self, out: &mut alloc::vec::Vec<u8>) {
                let all = [$($name::$variant),*];
                // So that a variant that is not in the list is found when this is compiled.
                match self { $($name::$variant => {})* }
                let number = all.iter().position(|variant| variant == self).unwrap_or(0);
                out.push(number as u8);
            }

            fn take_up(from: &mut $crate::kept::Reader) -> Option<Self> {
                let all = [$($name::$variant),*];
                all.get(usize::from(u8::take_up(from)?)).copied()
            }
        }
    };
}
pub(crate) use kept_variants;

impl Kept for bool {
    fn keep(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        match u8::take_up(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Kept for usize {
    fn keep(&self, out: &mut Vec<u8>) {
        (*self as u64).keep(out);
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        usize::try_from(u64::take_up(from)?).ok()
    }
}

impl Kept for String {
    fn keep(&self, out: &mut Vec<u8>) {
        self.len().keep(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        let len = usize::take_up(from)?;
        let bytes = from.bytes(len)?;
        core::str::from_utf8(&bytes).ok().map(String::from)
    }
}

impl<T: Kept> Kept for Option<T> {
    fn keep(&self, out: &mut Vec<u8>) {
        self.is_some().keep(out);
        if let Some(value) = self {
            value.keep(out);
        }
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        Some(if bool::take_up(from)? { Some(T::take_up(from)?) } else { None })
    }
}

impl<T: Kept, E: Kept> Kept for Result<T, E> {
    fn keep(&self, out: &mut Vec<u8>) {
        self.is_ok().keep(out);
        match self {
            Ok(value) => value.keep(out),
            Err(error) => error.keep(out),
        }
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        Some(if bool::take_up(from)? { Ok(T::take_up(from)?) } else { Err(E::take_up(from)?) })
    }
}

impl<T: Kept> Kept for Box<T> {
    fn keep(&self, out: &mut Vec<u8>) {
        (**self).keep(out);
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        T::take_up(from).map(Box::new)
    }
}

impl Kept for Arc<[u8]> {
    fn keep(&self, out: &mut Vec<u8>) {
        self.len().keep(out);
        out.extend_from_slice(self);
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        let len = usize::take_up(from)?;
        Some(Arc::from(&*from.bytes(len)?))
    }
}

impl<T: Kept> Kept for Vec<T> {
    fn keep(&self, out: &mut Vec<u8>) {
        self.len().keep(out);
        self.iter().for_each(|one| one.keep(out));
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        let len = usize::take_up(from)?;
        // Everything takes a byte at least: no length asks for more memory than there are bytes.
        if len > from.rest.len() {
            return None;
        }
        let mut all = Vec::new();
        for _ in 0..len {
            all.push(T::take_up(from)?);
        }
        Some(all)
    }
}

impl<T: Kept> Kept for VecDeque<T> {
    fn keep(&self, out: &mut Vec<u8>) {
        self.len().keep(out);
        self.iter().for_each(|one| one.keep(out));
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        Vec::take_up(from).map(VecDeque::from)
    }
}

impl<T: Kept + Copy + Default, const N: usize> Kept for [T; N] {
    fn keep(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|one| one.keep(out));
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        let mut all = [T::default(); N];
        for one in &mut all {
            *one = T::take_up(from)?;
        }
        Some(all)
    }
}

impl<A: Kept, B: Kept> Kept for (A, B) {
    fn keep(&self, out: &mut Vec<u8>) {
        self.0.keep(out);
        self.1.keep(out);
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        Some((A::take_up(from)?, B::take_up(from)?))
    }
}

impl<A: Kept, B: Kept, C: Kept> Kept for (A, B, C) {
    fn keep(&self, out: &mut Vec<u8>) {
        self.0.keep(out);
        self.1.keep(out);
        self.2.keep(out);
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        Some((A::take_up(from)?, B::take_up(from)?, C::take_up(from)?))
    }
}

/// In the order of the keys, so that equal maps have equal bytes.
impl<K: Kept + Ord + core::hash::Hash + Clone, V: Kept> Kept for HashMap<K, V, FixedState> {
    fn keep(&self, out: &mut Vec<u8>) {
        let mut all: Vec<(&K, &V)> = self.iter().collect();
        all.sort_by_key(|(key, _)| *key);
        all.len().keep(out);
        for (key, value) in all {
            key.keep(out);
            value.keep(out);
        }
    }

    fn take_up(from: &mut Reader) -> Option<Self> {
        let all: Vec<(K, V)> = Vec::take_up(from)?;
        Some(all.into_iter().collect())
    }
}

/// Adds a number in as few bytes as it takes: seven bits in each.
pub(crate) fn keep_short(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes up what [`keep_short`] has added.
pub(crate) fn take_up_short(from: &mut Reader) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = u8::take_up(from)?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn back<T: Kept>(value: &T) -> Option<T> {
        let mut bytes = Vec::new();
        value.keep(&mut bytes);
        let mut reader = Reader::new(Bytes::from(bytes));
        let taken = T::take_up(&mut reader);
        assert!(reader.is_at_end());
        taken
    }

    #[test]
    fn values_come_back() {
        let value = (alloc::vec![Some(String::from("ä")), None], [7u16; 3], (true, u64::MAX, -1i64));
        assert_eq!(back(&value), Some(value));
        let map: HashMap<u64, u32, FixedState> = (0..100).map(|n| (n, n as u32)).collect();
        assert_eq!(back(&map), Some(map));
        for value in [0, 0x7f, 0x80, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            keep_short(value, &mut bytes);
            assert_eq!(take_up_short(&mut Reader::new(Bytes::from(bytes))), Some(value));
        }
    }

    #[test]
    fn what_cannot_be_is_none() {
        let take = |bytes: &'static [u8]| Reader::new(Bytes::from_static(bytes));
        assert_eq!(bool::take_up(&mut take(&[2])), None);
        assert_eq!(String::take_up(&mut take(&[1, 0, 0, 0, 0, 0, 0, 0, 0xff])), None, "no UTF-8");
        assert_eq!(Vec::<u8>::take_up(&mut take(&[0xff; 20])), None, "longer than all there is");
        assert_eq!(take_up_short(&mut take(&[0xff; 20])), None);
    }
}
