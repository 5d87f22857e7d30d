//! Module parameters: the `__param` table, and the values that the variables
//! have before any is set (spec 07 §7.1), read from the file.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use crate::bytes::{self, array, cstr, le16, le32, printed};
use crate::module_file::ModuleFile;
use crate::pointers::{Pointers, Target};

/// Bytes of `struct kernel_param`.
pub const KERNEL_PARAM_SIZE: u64 = 40;
/// More elements than this of an array are not shown.
const ELEMENTS_MAX: u32 = 4096;

/// One record of `__param`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Param<'d> {
    /// Its name.
    pub name: &'d [u8],
    /// Its type: `int`, `charp`, `array of ushort`, `string`... from the operations it
    /// uses, else from modinfo `parmtype` (PARAM-1).
    pub kind: String,
    /// Mode of its file in sysfs, 0 for none.
    pub perm: u16,
    /// 1 UNSAFE, 2 HWPARAM.
    pub flags: u8,
    /// Its value before any is set, as reading its sysfs file would print it;
    /// `None` if only code of the module can print it.
    pub default: Option<String>,
    /// Its description in modinfo (`parm`).
    pub description: Option<&'d [u8]>,
}

/// Byte offsets in `struct kernel_param`.
pub mod field {
    /// `name`
    pub const NAME: u64 = 0;
    /// `ops`
    pub const OPS: u64 = 16;
    /// `perm`
    pub const PERM: u64 = 24;
    /// `flags`
    pub const FLAGS: u64 = 27;
    /// `arg`, `str`, `arr`
    pub const ARG: u64 = 32;
}

/// A place in a section: its index, and the byte offset in it.
pub type Place = (usize, u64);

/// The operations of a parameter (PARAM-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops<'d> {
    /// `param_ops_TYPE`, nearly always the kernel's: the TYPE.
    Named(&'d str),
    /// The kernel's `param_array_ops`.
    Array,
    /// A `struct kernel_param_ops` of the module itself lies here.
    Own(Place),
    /// Anything else, or nothing.
    Unknown,
}

/// The records of a `__param` section, as relocations will fill them.
#[derive(Debug)]
pub struct ParamTable<'d> {
    file: &'d ModuleFile<'d>,
    section: usize,
    pointers: Pointers<'d>,
}

impl<'d> ParamTable<'d> {
    /// The table in section `section`; 0 gives an empty one.
    pub fn new(file: &'d ModuleFile<'d>, section: usize) -> Self {
        ParamTable { file, section, pointers: Pointers::new(file) }
    }

    /// Index of its section.
    pub fn section(&self) -> usize {
        self.section
    }

    /// Number of whole records. A section of no file bytes (NOBITS) has none to read.
    pub fn len(&self) -> u64 {
        if self.section == 0 {
            return 0;
        }
        let bytes = self.file.section_bytes(self.section).len() as u64;
        bytes.checked_div(KERNEL_PARAM_SIZE).unwrap_or(0)
    }

    /// No records?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Byte offset of a field ([`field`]) of record `n`.
    pub fn at(&self, n: u64, field: u64) -> u64 {
        n.wrapping_mul(KERNEL_PARAM_SIZE).wrapping_add(field)
    }

    /// Where the name of record `n` lies.
    pub fn name(&self, n: u64) -> Option<Place> {
        self.place(self.section, self.at(n, field::NAME))
    }

    /// The operations of record `n`.
    pub fn ops(&self, n: u64) -> Ops<'d> {
        self.ops_at(self.section, self.at(n, field::OPS))
    }

    /// The operations that the pointer at `offset` of `section` points to: `param_ops_TYPE` and
    /// `param_array_ops` are the kernel's, a structure of the module is its own code.
    pub fn ops_at(&self, section: usize, offset: u64) -> Ops<'d> {
        match self.target(section, offset) {
            Some(Target::Import { name: b"param_array_ops", addend: 0 }) => Ops::Array,
            Some(Target::Import { name, addend: 0 }) => {
                let name = name.strip_prefix(b"param_ops_").and_then(|n| core::str::from_utf8(n).ok());
                name.map_or(Ops::Unknown, Ops::Named)
            }
            Some(Target::Section { section, offset }) => Ops::Own((section, offset)),
            _ => Ops::Unknown,
        }
    }

    /// Where the pointer at `offset` of `section` points to.
    pub fn target(&self, section: usize, offset: u64) -> Option<Target<'d>> {
        self.pointers.target(section, offset)
    }

    /// Where the pointer at `offset` of `section` points to, if into this module.
    pub fn place(&self, section: usize, offset: u64) -> Option<Place> {
        match self.target(section, offset)? {
            Target::Section { section, offset } => Some((section, offset)),
            _ => None,
        }
    }
}

/// All parameters of a module, in table order.
pub fn params<'d>(file: &'d ModuleFile<'d>) -> Vec<Param<'d>> {
    let modinfo_of = |tag| {
        let mut values = BTreeMap::new();
        for value in file.modinfo().all(tag) {
            if let Some((name, value)) =
                value.iter().position(|b| *b == b':').and_then(|at| value.split_at_checked(at))
            {
                values.entry(name).or_insert(value.get(1..).unwrap_or(&[]));
            }
        }
        values
    };
    let reader = Reader {
        file,
        table: ParamTable::new(file, file.find_sec("__param")),
        types: modinfo_of("parmtype"),
        descriptions: modinfo_of("parm"),
        room: Cell::new(file.bytes().len().saturating_add(ROOM)),
    };
    (0..reader.table.len()).filter_map(|n| reader.param(n)).collect()
}

/// Room for texts, in bytes, beside what the file is long.
const ROOM: usize = 1 << 16;

struct Reader<'d> {
    file: &'d ModuleFile<'d>,
    table: ParamTable<'d>,
    /// By parameter: `parmtype=NAME:VALUE` of modinfo, the first one.
    types: BTreeMap<&'d [u8], &'d [u8]>,
    /// The same of `parm=`.
    descriptions: BTreeMap<&'d [u8], &'d [u8]>,
    /// Bytes that texts may still take. Parameters of a hostile file all have the same array, or the same name.
    room: Cell<usize>,
}

impl<'d> Reader<'d> {
    fn param(&self, n: u64) -> Option<Param<'d>> {
        let section = self.table.section();
        let record = self.file.section_bytes(section);
        let name = self.string(self.table.name(n)?)?;
        let arg = self.table.place(section, self.table.at(n, field::ARG));
        let parmtype = self.types.get(name);
        let (kind, default) = match self.table.ops(n) {
            Ops::Array => self.array(arg),
            Ops::Named("string") => (String::from("string"), arg.and_then(|at| self.kparam_string(at))),
            Ops::Named(kind) => (String::from(kind), arg.and_then(|at| self.value(kind, at))),
            Ops::Own(_) | Ops::Unknown => (parmtype.map_or(String::from("?"), |t| printed(t).into()), None),
        };
        Some(Param {
            name,
            kind,
            perm: le16(record, self.table.at(n, field::PERM)).unwrap_or(0),
            flags: array::<1>(record, self.table.at(n, field::FLAGS)).map_or(0, |[flags]| flags),
            default,
            description: self.descriptions.get(name).copied().filter(|text| self.has_room(text.len())),
        })
    }

    /// `struct kparam_array {max, elemsize, *num, ops, elem}`: the elements joined by commas.
    fn array(&self, arg: Option<Place>) -> (String, Option<String>) {
        let unknown = || (String::from("array"), None);
        let Some((section, at)) = arg else {
            return unknown();
        };
        let Some(head) = self.table.pointers.initial_bytes(section, at, 8) else {
            return unknown();
        };
        let (Some(max), Some(elemsize)) = (le32(&head, 0), le32(&head, 4)) else {
            return unknown();
        };
        let Ops::Named(kind) = self.table.ops_at(section, at.wrapping_add(16)) else {
            return (String::from("array of ?"), None);
        };
        // *num is what was set so far; without it all elements count.
        let num = self.table.place(section, at.wrapping_add(8));
        let set = num.and_then(|(s, o)| le32(&self.table.pointers.initial_bytes(s, o, 4)?, 0));
        let count = set.unwrap_or(max).min(max).min(ELEMENTS_MAX);
        let elem = self.table.place(section, at.wrapping_add(24));
        let values = elem.and_then(|(s, o)| {
            let value = |n: u32| {
                let step = u64::from(n).wrapping_mul(u64::from(elemsize));
                self.value(kind, (s, o.wrapping_add(step)))
            };
            (0..count).map(value).collect::<Option<Vec<String>>>()
        });
        (format!("array of {kind}"), values.map(|v| v.join(",")))
    }

    /// `struct kparam_string {maxlen, string}`
    fn kparam_string(&self, (section, at): Place) -> Option<String> {
        let maxlen = le32(&self.table.pointers.initial_bytes(section, at, 4)?, 0)?;
        let (section, at) = self.table.place(section, at.wrapping_add(8))?;
        let left = self.file.sections().get(section)?.sh_size.saturating_sub(at);
        let len = u64::from(maxlen).min(left).min(u64::from(ELEMENTS_MAX));
        let bytes = self.table.pointers.initial_bytes(section, at, usize::try_from(len).ok()?)?;
        let text = printed(cstr(&bytes, 0)?);
        self.has_room(text.len()).then(|| text.into())
    }

    /// A value as the type's `get` prints it, without its newline (spec 07 §7.4).
    fn value(&self, kind: &str, (section, at): Place) -> Option<String> {
        let bytes = |len| self.table.pointers.initial_bytes(section, at, len);
        let int = |len: usize| -> Option<u64> {
            let mut wide = [0; 8];
            wide.get_mut(..len)?.copy_from_slice(&bytes(len)?);
            Some(u64::from_le_bytes(wide))
        };
        let bool = |yes: bool| String::from(if yes { "Y" } else { "N" });
        let text = match kind {
            "byte" => format!("{}", int(1)?),
            "short" => format!("{}", int(2)? as i16),
            "ushort" => format!("{}", int(2)?),
            "int" | "bint" => format!("{}", int(4)? as i32),
            "uint" => format!("{}", int(4)?),
            "long" => format!("{}", int(8)? as i64),
            "ulong" | "ullong" => format!("{}", int(8)?),
            "hexint" => format!("{:#08x}", int(4)?),
            "bool" | "bool_enable_only" => bool(int(1)? != 0),
            "invbool" => bool(int(1)? == 0),
            "charp" => match self.table.target(section, at) {
                Some(Target::Section { section, offset }) => printed(self.string((section, offset))?).into(),
                Some(_) => return None,
                // A NULL charp.
                None => String::from("(null)"),
            },
            _ => return None,
        };
        self.has_room(text.len()).then_some(text)
    }

    /// Takes room for a text; false if there is none.
    fn has_room(&self, len: usize) -> bool {
        // With what stands between two of them.
        let left = self.room.get().checked_sub(len.saturating_add(1));
        self.room.set(left.unwrap_or(0));
        left.is_some()
    }

    fn string(&self, (section, offset): Place) -> Option<&'d [u8]> {
        bytes::name(self.file.section_bytes(section), offset)
    }
}
