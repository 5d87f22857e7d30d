//! As much of BTF as struct layouts need: sizes, member offsets, enumerators.

mod functions;

pub use functions::{Prototype, Sort};

use alloc::vec::Vec;

use memchr::memmem;

use crate::Error;
use crate::bytes::{cstr, le32, size32, slice};

const MAGIC: [u8; 4] = [0x9f, 0xeb, 1, 0];
const HEADER: usize = 24;
/// Types that are followed, members that are looked at: what a hostile blob may cost.
const DEPTH: u32 = 32;
const BUDGET: u32 = 100_000;
/// No name is longer.
const NAME_MAX: usize = 512;

const INT: u8 = 1;
const PTR: u8 = 2;
const ARRAY: u8 = 3;
const STRUCT: u8 = 4;
const UNION: u8 = 5;
const ENUM: u8 = 6;
const FUNC: u8 = 12;
const FUNC_PROTO: u8 = 13;
const VAR: u8 = 14;
const DATASEC: u8 = 15;
const FLOAT: u8 = 16;
const DECL_TAG: u8 = 17;
const ENUM64: u8 = 19;

/// Number of a type; 0 is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// A member of a struct or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Offset in bytes from the start of the outermost struct.
    pub offset: u64,
    /// What a bit-field has beyond whole bytes.
    pub bit: u8,
    /// Size of its type in bytes.
    pub size: u64,
    /// Its type.
    pub type_id: TypeId,
}

/// One type of the blob.
#[derive(Clone, Copy)]
struct Type<'d> {
    name: u32,
    kind: u8,
    kind_flag: bool,
    /// Size in bytes, or the type that this one refers to.
    size_or_type: u32,
    /// What follows the three common words.
    rest: &'d [u8],
}

/// A BTF blob, its types found.
#[derive(Clone, Debug)]
pub struct Btf<'d> {
    blob: &'d [u8],
    types: &'d [u8],
    strings: &'d [u8],
    /// Where each type starts, from type 1 on.
    starts: Vec<u32>,
}

impl<'d> Btf<'d> {
    /// Reads a blob that starts with its header.
    pub fn parse(blob: &'d [u8]) -> Result<Btf<'d>, Error> {
        let bad = |what, at: usize| Error::DamagedBtf { what, at: at as u64 };
        if !blob.starts_with(&MAGIC) {
            return Err(bad("no little-endian BTF version 1", 0));
        }
        let header = size32(blob, 4).filter(|len| *len >= HEADER).ok_or(bad("header length", 4))?;
        let part = |at: usize| {
            let offset = header.checked_add(size32(blob, at)?)?;
            slice(blob, offset, size32(blob, at.checked_add(4)?)?)
        };
        let types = part(8).ok_or(bad("types beyond the end", 8))?;
        let strings = part(16).ok_or(bad("strings beyond the end", 16))?;
        let mut btf = Btf { blob, types, strings, starts: Vec::with_capacity(types.len() / 24) };
        let mut at = 0usize;
        while at < types.len() {
            let bad = bad("a type of unknown kind, or cut off", header.saturating_add(at));
            btf.starts.push(u32::try_from(at).map_err(|_| bad.clone())?);
            let len = btf.type_len(at).ok_or(bad.clone())?;
            at = at.checked_add(len).filter(|end| *end <= types.len()).ok_or(bad)?;
        }
        Ok(btf)
    }

    /// The blob in a flat image, by its header.
    pub(crate) fn find(data: &'d [u8]) -> Option<&'d [u8]> {
        memmem::find_iter(data, &MAGIC).find_map(|at| {
            let blob = data.get(at..)?;
            let header = size32(blob, 4).filter(|len| (HEADER..256).contains(len))?;
            let (types_at, types) = (size32(blob, 8)?, size32(blob, 12)?);
            let (strings_at, strings) = (size32(blob, 16)?, size32(blob, 20)?);
            let end = header.checked_add(strings_at)?.checked_add(strings)?;
            let fits = types_at == 0 && strings_at >= types && types >= 12 && strings > 1;
            (fits && blob.get(header.checked_add(strings_at)?) == Some(&0)).then(|| blob.get(..end)).flatten()
        })
    }

    /// Bytes of the type at `at`.
    fn type_len(&self, at: usize) -> Option<usize> {
        let info = le32(self.types, at.checked_add(4)?)?;
        let members = usize::from(info as u16);
        let each = |size: usize| members.checked_mul(size);
        let more = match kind(info) {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => each(12)?,
            ENUM | FUNC_PROTO => each(8)?,
            0 | 20.. => return None,
            _ => 0,
        };
        more.checked_add(12)
    }

    fn get(&self, id: TypeId) -> Option<Type<'d>> {
        let at = *self.starts.get((id.0 as usize).checked_sub(1)?)? as usize;
        let all = slice(self.types, at, self.type_len(at)?)?;
        let info = le32(all, 4)?;
        Some(Type {
            name: le32(all, 0)?,
            kind: kind(info),
            kind_flag: info >> 31 != 0,
            size_or_type: le32(all, 8)?,
            rest: all.get(12..)?,
        })
    }

    /// Is `name` the string at `at`?
    fn is(&self, at: u32, name: &str) -> bool {
        let string = self.strings.get(at as usize..).and_then(|s| s.strip_prefix(name.as_bytes()));
        string.is_some_and(|rest| rest.first() == Some(&0))
    }

    fn find_named(&self, kinds: [u8; 2], name: &str) -> Option<TypeId> {
        let ids = (1u32..).take(self.starts.len()).map(TypeId);
        ids.filter_map(|id| Some((id, self.get(id)?))).find_map(|(id, one)| {
            let wanted = kinds.contains(&one.kind) && !one.rest.is_empty();
            (wanted && self.is(one.name, name)).then_some(id)
        })
    }

    /// The blob, with its header.
    pub fn blob(&self) -> &'d [u8] {
        self.blob
    }

    /// The string section.
    pub fn strings(&self) -> &'d [u8] {
        self.strings
    }

    /// Kind of each type, and its size or the type that it refers to, from type 1 on.
    pub fn types(&self) -> impl Iterator<Item = (u8, u32)> {
        let word = |at: u32, more: usize| le32(self.types, (at as usize).checked_add(more)?);
        self.starts.iter().filter_map(move |at| Some((kind(word(*at, 4)?), word(*at, 8)?)))
    }

    /// Number of types.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// No types at all?
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The struct or union `name` that has members.
    pub fn find_struct(&self, name: &str) -> Option<TypeId> {
        self.find_named([STRUCT, UNION], name)
    }

    /// `sizeof(struct name)`.
    pub fn struct_size(&self, name: &str) -> Option<u64> {
        self.size_of(self.find_struct(name)?)
    }

    /// `sizeof` a type.
    pub fn size_of(&self, id: TypeId) -> Option<u64> {
        let mut id = id;
        let mut factor = 1u64;
        for _ in 0..DEPTH {
            let one = self.get(id)?;
            match one.kind {
                PTR => return factor.checked_mul(8),
                INT | STRUCT | UNION | ENUM | FLOAT | DATASEC | ENUM64 => {
                    return factor.checked_mul(u64::from(one.size_or_type));
                }
                ARRAY => {
                    factor = factor.checked_mul(u64::from(le32(one.rest, 8)?))?;
                    id = TypeId(le32(one.rest, 0)?);
                }
                FUNC | FUNC_PROTO => return None,
                _ => id = TypeId(one.size_or_type),
            }
        }
        None
    }

    /// The member `path` of the struct `name`: member names with dots between
    /// them, through anonymous structs and unions where there are any. `mem`,
    /// `core_layout.size` and the like.
    pub fn member(&self, name: &str, path: &str) -> Option<Member> {
        self.member_of(self.find_struct(name)?, path)
    }

    /// As [`Btf::member`], in a struct or union by number.
    pub fn member_of(&self, id: TypeId, path: &str) -> Option<Member> {
        let mut budget = BUDGET;
        let mut found: Option<Member> = None;
        for name in path.split('.') {
            if name.is_empty() {
                return None;
            }
            let id = self.stripped(found.map_or(id, |member| member.type_id))?;
            let (bits, type_id) = self.member_named(id, name, DEPTH, &mut budget)?;
            let base = found.map_or(0, |member| member.offset);
            found = Some(Member {
                offset: base.checked_add(bits / 8)?,
                bit: (bits % 8) as u8,
                size: self.size_of(type_id)?,
                type_id,
            });
        }
        found
    }

    /// The functions that have a parameter of one of these names.
    pub fn functions_with_parameter(&self, names: &[&str]) -> Vec<&'d [u8]> {
        let all = (1u32..).take(self.starts.len()).filter_map(|id| self.get(TypeId(id)));
        let has = |function: &Type<'_>| {
            let proto = self.get(TypeId(function.size_or_type)).filter(|proto| proto.kind == FUNC_PROTO);
            let parameters = proto.map(|proto| proto.rest).unwrap_or_default().chunks_exact(8);
            parameters.filter_map(|p| le32(p, 0)).any(|at| names.iter().any(|name| self.is(at, name)))
        };
        let functions = all.filter(|one| one.kind == FUNC).filter(has);
        functions.filter_map(|one| cstr(self.strings.get(one.name as usize..)?, NAME_MAX)).collect()
    }

    /// The value of `enumerator` of the enum `name`.
    pub fn enum_value(&self, name: &str, enumerator: &str) -> Option<i64> {
        let one = self.get(self.find_named([ENUM, ENUM64], name)?)?;
        let size = if one.kind == ENUM { 8 } else { 12 };
        one.rest.chunks_exact(size).find_map(|entry| {
            self.is(le32(entry, 0)?, enumerator).then_some(())?;
            let low = le32(entry, 4)?;
            Some(match le32(entry, 8) {
                Some(high) => (u64::from(high) << 32 | u64::from(low)).cast_signed(),
                None if one.kind_flag => i64::from(low.cast_signed()),
                None => i64::from(low),
            })
        })
    }

    /// A type without typedefs and qualifiers.
    fn stripped(&self, id: TypeId) -> Option<TypeId> {
        let mut id = id;
        for _ in 0..DEPTH {
            let one = self.get(id)?;
            match one.kind {
                8..=11 | 18 => id = TypeId(one.size_or_type),
                _ => return Some(id),
            }
        }
        None
    }

    /// Bit offset and type of a member, looked for in anonymous members too.
    fn member_named(&self, id: TypeId, name: &str, depth: u32, budget: &mut u32) -> Option<(u64, TypeId)> {
        let depth = depth.checked_sub(1)?;
        let one = self.get(id).filter(|one| matches!(one.kind, STRUCT | UNION))?;
        for entry in one.rest.chunks_exact(12) {
            *budget = budget.checked_sub(1)?;
            let type_id = TypeId(le32(entry, 4)?);
            // With the kind flag, the upper byte is a bit-field's size.
            let bits = u64::from(le32(entry, 8)? & if one.kind_flag { 0xff_ffff } else { u32::MAX });
            let this = le32(entry, 0)?;
            if self.is(this, name) {
                return Some((bits, type_id));
            }
            if self.is(this, "") {
                let inner = self.stripped(type_id).and_then(|id| self.member_named(id, name, depth, budget));
                if let Some((more, type_id)) = inner {
                    return Some((bits.checked_add(more)?, type_id));
                }
            }
        }
        None
    }
}

fn kind(info: u32) -> u8 {
    (info >> 24) as u8 & 0x1f
}
