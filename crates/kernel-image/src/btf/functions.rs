//! Functions and their prototypes, and types as C spells them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    ARRAY, Btf, DEPTH, ENUM, ENUM64, FLOAT, FUNC, FUNC_PROTO, INT, NAME_MAX, PTR, STRUCT, TypeId, UNION,
};
use crate::bytes::{cstr, le32};

/// A forward declaration.
const FWD: u8 = 7;
/// BTF_INT_SIGNED, BTF_INT_CHAR and BTF_INT_BOOL.
const SIGNED: u32 = 1 << 24;
const CHAR: u32 = 2 << 24;
const BOOL: u32 = 4 << 24;

/// What a function takes and returns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prototype<'d> {
    /// Names and types; a name may be empty.
    pub parameters: Vec<(&'d [u8], TypeId)>,
    /// What it returns; 0 is void.
    pub returns: TypeId,
    /// Do others follow?
    pub is_variadic: bool,
}

/// Of which sort a type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// void
    Void,
    /// A number.
    Integer {
        /// Bytes.
        size: u8,
        /// Can it be negative?
        signed: bool,
    },
    /// true or false
    Bool,
    /// An enum.
    Enum {
        /// Its type.
        id: TypeId,
        /// Bytes.
        size: u8,
    },
    /// A pointer to char.
    Text,
    /// A pointer to a function.
    Function(TypeId),
    /// A pointer to a struct or union.
    Struct(TypeId),
    /// Another pointer.
    Pointer,
    /// A struct, an array, a floating-point number.
    Other,
}

impl<'d> Btf<'d> {
    fn name_at(&self, at: u32) -> &'d [u8] {
        self.strings.get(at as usize..).and_then(|rest| cstr(rest, NAME_MAX)).unwrap_or_default()
    }

    /// Functions by name, with the numbers of their prototypes. Names may occur several times.
    pub fn functions(&self) -> impl Iterator<Item = (&'d [u8], TypeId)> {
        let all = (1u32..).take(self.starts.len()).filter_map(|id| self.get(TypeId(id)));
        all.filter(|one| one.kind == FUNC).map(|one| (self.name_at(one.name), TypeId(one.size_or_type)))
    }

    /// The prototype of this number.
    pub fn prototype(&self, id: TypeId) -> Option<Prototype<'d>> {
        let one = self.get(id).filter(|one| one.kind == FUNC_PROTO)?;
        let pair = |entry: &[u8]| Some((le32(entry, 0)?, TypeId(le32(entry, 4)?)));
        let mut all: Vec<(u32, TypeId)> = one.rest.chunks_exact(8).filter_map(pair).collect();
        let is_variadic = all.last() == Some(&(0, TypeId(0)));
        if is_variadic {
            all.pop();
        }
        let parameters = all.into_iter().map(|(name, id)| (self.name_at(name), id)).collect();
        Some(Prototype { parameters, returns: TypeId(one.size_or_type), is_variadic })
    }

    /// Of which sort a type is, without typedefs and qualifiers.
    pub fn sort(&self, id: TypeId) -> Sort {
        let (Some(id), true) = (self.stripped(id), id.0 != 0) else { return Sort::Void };
        let Some(one) = self.get(id) else { return Sort::Void };
        let size = one.size_or_type.min(16) as u8;
        match one.kind {
            INT => match le32(one.rest, 0).unwrap_or(0) {
                info if info & BOOL != 0 => Sort::Bool,
                info => Sort::Integer { size, signed: info & SIGNED != 0 },
            },
            ENUM | ENUM64 => Sort::Enum { id, size },
            PTR => self.sort_of_pointer(TypeId(one.size_or_type)),
            _ => Sort::Other,
        }
    }

    fn sort_of_pointer(&self, to: TypeId) -> Sort {
        let Some(id) = self.stripped(to) else { return Sort::Pointer };
        let Some(target) = self.get(id) else { return Sort::Pointer };
        match target.kind {
            FUNC_PROTO => Sort::Function(id),
            STRUCT | UNION => Sort::Struct(id),
            // char is signed or not, and a CHAR or not, as compilers like it; u8 is no text.
            INT if target.size_or_type == 1 => {
                let info = le32(target.rest, 0).unwrap_or(0);
                let is_char = info & CHAR != 0 || self.name_at(target.name) == b"char";
                if is_char { Sort::Text } else { Sort::Pointer }
            }
            _ => Sort::Pointer,
        }
    }

    /// Members of a struct or union, with their offsets in bytes; those of bit-fields are left out.
    pub fn members(&self, id: TypeId) -> Vec<(u64, TypeId)> {
        let one = self.stripped(id).and_then(|id| self.get(id));
        let Some(one) = one.filter(|one| matches!(one.kind, STRUCT | UNION)) else { return Vec::new() };
        let entries = one.rest.chunks_exact(12);
        let all = entries.filter_map(|entry| Some((le32(entry, 8)?, TypeId(le32(entry, 4)?))));
        let whole = all.filter(|(bits, _)| !one.kind_flag || bits >> 24 == 0);
        whole
            .map(|(bits, id)| (u64::from(bits & if one.kind_flag { 0xff_ffff } else { u32::MAX }) / 8, id))
            .collect()
    }

    /// Is that a struct or union itself?
    pub fn is_struct(&self, id: TypeId) -> bool {
        let one = self.stripped(id).and_then(|id| self.get(id));
        one.is_some_and(|one| matches!(one.kind, STRUCT | UNION))
    }

    /// The enumerator of this value.
    pub fn enumerator(&self, id: TypeId, value: i64) -> Option<&'d [u8]> {
        let one = self.get(id).filter(|one| matches!(one.kind, ENUM | ENUM64))?;
        let size = if one.kind == ENUM { 8 } else { 12 };
        one.rest.chunks_exact(size).find_map(|entry| {
            let low = le32(entry, 4)?;
            let this = match le32(entry, 8) {
                Some(high) => (u64::from(high) << 32 | u64::from(low)).cast_signed(),
                None => i64::from(low.cast_signed()),
            };
            (this == value).then(|| self.name_at(le32(entry, 0).unwrap_or(0)))
        })
    }

    /// A type as C spells it, without a name: `const char *`, `struct file *`. Pointers to functions are `(*)()`.
    pub fn spelled(&self, id: TypeId) -> String {
        self.spelled_within(id, DEPTH)
    }

    fn spelled_within(&self, id: TypeId, depth: u32) -> String {
        let (Some(depth), Some(one)) = (depth.checked_sub(1), self.get(id)) else { return "void".to_owned() };
        let of = |id| self.spelled_within(TypeId(id), depth);
        let name = String::from_utf8_lossy(self.name_at(one.name));
        match one.kind {
            PTR => {
                let to = of(one.size_or_type);
                if to.ends_with(')') || to.ends_with('*') { format!("{to}*") } else { format!("{to} *") }
            }
            ARRAY => format!("{}[]", of(le32(one.rest, 0).unwrap_or(0))),
            STRUCT => format!("struct {name}"),
            UNION => format!("union {name}"),
            FWD if one.kind_flag => format!("union {name}"),
            FWD => format!("struct {name}"),
            ENUM | ENUM64 => format!("enum {name}"),
            FUNC_PROTO => format!("{} ()", of(one.size_or_type)),
            INT | FLOAT | 8 => name.into_owned(),
            10 => {
                let inner = of(one.size_or_type);
                if inner.ends_with('*') { format!("{inner}const") } else { format!("const {inner}") }
            }
            _ => of(one.size_or_type),
        }
    }
}
