//! The forms that a record of an export table has had (SYM-35, IMG-33).

use super::{NAME_MAX, identifier};
use crate::bytes::{cstr, le32, prel32, slice};
use crate::memory::Memory;

/// Records of a table that are looked at to tell its form.
const LOOKED_AT: usize = 64;

/// `struct kernel_symbol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Since 5.4: value, name and namespace, each a PREL32, so that they read the same in an image that nothing has
    /// relocated (IMG-21).
    Namespaced,
    /// 4.19 to 5.3: value and name, each a PREL32.
    Relative,
    /// Before 4.19: two pointers.
    Pointers,
}

/// What one record says.
pub(super) struct Fields<'d> {
    pub(super) value: u64,
    pub(super) name: &'d [u8],
    /// Empty and none are the same (IMG-25).
    pub(super) namespace: Option<&'d [u8]>,
}

impl Form {
    /// All of them, the one of current kernels first.
    pub(super) const ALL: [Form; 3] = [Form::Namespaced, Form::Relative, Form::Pointers];

    /// Bytes of a record.
    pub(super) const fn size(self) -> usize {
        match self {
            Form::Namespaced => 12,
            Form::Relative => 8,
            Form::Pointers => 16,
        }
    }

    /// Where in a record its name is.
    pub(super) const fn name_at(self) -> usize {
        match self {
            Form::Namespaced | Form::Relative => 4,
            Form::Pointers => 8,
        }
    }

    /// The form of a table of `len` bytes at file offset `at`: as many records as there are CRCs, else one in which its first
    /// records have names.
    pub(super) fn of_table(data: &[u8], memory: &Memory, at: usize, len: usize, crcs: Option<usize>) -> Form {
        let by_crcs = crcs.filter(|crcs| *crcs >= 4).and_then(|crcs| {
            let fits = |form: &Form| {
                len.checked_div(form.size()) == Some(crcs / 4) && len.is_multiple_of(form.size())
            };
            Form::ALL.into_iter().find(fits)
        });
        let named = |form: &Form| {
            let count = len.checked_div(form.size()).unwrap_or(0);
            let name = |n: usize| form.name(data, memory, at.checked_add(n.checked_mul(form.size())?)?);
            len.is_multiple_of(form.size()) && (0..count.min(LOOKED_AT)).all(|n| name(n).is_some())
        };
        by_crcs.or_else(|| Form::ALL.into_iter().find(named)).unwrap_or(Form::Namespaced)
    }

    /// The name of the record at a file offset, if it is an identifier.
    fn name<'d>(self, data: &'d [u8], memory: &Memory, at: usize) -> Option<&'d [u8]> {
        identifier(data, self.name_place(data, memory, at)?)
    }

    /// File offset of the name of the record at a file offset.
    pub(super) fn name_place(self, data: &[u8], memory: &Memory, at: usize) -> Option<usize> {
        self.place(data, memory, at.checked_add(self.name_at())?)
    }

    /// File offset of what the field at a file offset points to.
    fn place(self, data: &[u8], memory: &Memory, at: usize) -> Option<usize> {
        let address = memory.address_of(at)?;
        let to = match self {
            Form::Namespaced | Form::Relative => prel32(address, le32(data, at)?),
            Form::Pointers => memory.pointer(data, address)?,
        };
        Some(memory.locate(to)?.0)
    }

    /// The record at a file offset.
    pub(super) fn read<'d>(self, data: &'d [u8], memory: &Memory, at: usize) -> Option<Fields<'d>> {
        slice(data, at, self.size())?;
        let address = memory.address_of(at)?;
        let string = |field: usize| {
            let place = self.place(data, memory, at.checked_add(field)?)?;
            cstr(data.get(place..)?, NAME_MAX)
        };
        let value = match self {
            Form::Namespaced | Form::Relative => prel32(address, le32(data, at)?),
            Form::Pointers => memory.pointer(data, address)?,
        };
        let namespace = match self {
            Form::Namespaced if le32(data, at.checked_add(8)?)? != 0 => {
                Some(string(8)?).filter(|namespace| !namespace.is_empty())
            }
            _ => None,
        };
        Some(Fields { value, name: string(self.name_at())?, namespace })
    }
}
