//! Module parameters: the `__param` table, and the values that the variables
//! have before any is set (spec 07 §7.1), read from the file.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bytes::{cstr, le16, le32, printed, slice};
use crate::module_file::ModuleFile;
use crate::pointers::{Pointers, Target};

/// Bytes of `struct kernel_param`.
pub const KERNEL_PARAM_SIZE: u64 = 40;
/// More elements than this of an array are not shown.
const ELEMENTS_MAX: u32 = 4096;

/// One record of `__param`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// `None` if only the module's own code can tell.
    pub default: Option<String>,
    /// Its description in modinfo (`parm`).
    pub description: Option<&'d [u8]>,
}

/// All parameters of a module, in table order.
pub fn params<'d>(file: &'d ModuleFile<'d>) -> Vec<Param<'d>> {
    let table = file.find_sec("__param");
    if table == 0 {
        return Vec::new();
    }
    let reader = Reader { file, pointers: Pointers::new(file) };
    let size = file.sections().get(table).map_or(0, |s| s.sh_size);
    let count = size.checked_div(KERNEL_PARAM_SIZE).unwrap_or(0);
    // A section of no file bytes (NOBITS) has no records to read.
    (0..count)
        .map_while(|n| {
            slice(file.section_bytes(table), n.wrapping_mul(KERNEL_PARAM_SIZE), KERNEL_PARAM_SIZE)
                .map(|r| (n, r))
        })
        .filter_map(|(n, record)| reader.param(table, n.wrapping_mul(KERNEL_PARAM_SIZE), record))
        .collect()
}

struct Reader<'d> {
    file: &'d ModuleFile<'d>,
    pointers: Pointers<'d>,
}

/// A place in a section.
type Place = (usize, u64);

impl<'d> Reader<'d> {
    fn param(&self, table: usize, at: u64, record: &[u8]) -> Option<Param<'d>> {
        let name = self.string(self.section_target(table, at)?)?;
        let arg = self.section_target(table, at.wrapping_add(32));
        let ops = self.ops(table, at.wrapping_add(16));
        let parmtype = self.modinfo_of("parmtype", name);
        let (kind, default) = match ops {
            Some("array") => self.array(arg),
            Some("string") => (String::from("string"), arg.and_then(|at| self.kparam_string(at))),
            Some(kind) => (String::from(kind), arg.and_then(|at| self.value(kind, at))),
            None => (parmtype.map_or(String::from("?"), |t| printed(t).into()), None),
        };
        Some(Param {
            name,
            kind,
            perm: le16(record, 24).unwrap_or(0),
            flags: record.get(27).copied().unwrap_or(0),
            default,
            description: self.modinfo_of("parm", name),
        })
    }

    /// The type that the operations at a place implement: `param_ops_TYPE` and `param_array_ops`
    /// are the kernel's, anything else is the module's own code.
    fn ops(&self, section: usize, at: u64) -> Option<&'d str> {
        match self.pointers.target(section, at)? {
            Target::Import { name: b"param_array_ops", addend: 0 } => Some("array"),
            Target::Import { name, addend: 0 } => {
                core::str::from_utf8(name.strip_prefix(b"param_ops_")?).ok()
            }
            _ => None,
        }
    }

    /// `struct kparam_array {max, elemsize, *num, ops, elem}`: the elements joined by commas.
    fn array(&self, arg: Option<Place>) -> (String, Option<String>) {
        let unknown = || (String::from("array"), None);
        let Some((section, at)) = arg else {
            return unknown();
        };
        let Some(head) = self.pointers.initial_bytes(section, at, 8) else {
            return unknown();
        };
        let (Some(max), Some(elemsize)) = (le32(&head, 0), le32(&head, 4)) else {
            return unknown();
        };
        let Some(kind) = self.ops(section, at.wrapping_add(16)) else {
            return (String::from("array of ?"), None);
        };
        // *num is what was set so far; without it all elements count.
        let num = self.section_target(section, at.wrapping_add(8));
        let set = num.and_then(|(s, o)| le32(&self.pointers.initial_bytes(s, o, 4)?, 0));
        let count = set.unwrap_or(max).min(max).min(ELEMENTS_MAX);
        let elem = self.section_target(section, at.wrapping_add(24));
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
        let maxlen = le32(&self.pointers.initial_bytes(section, at, 4)?, 0)?;
        let (section, at) = self.section_target(section, at.wrapping_add(8))?;
        let left = self.file.sections().get(section)?.sh_size.saturating_sub(at);
        let len = u64::from(maxlen).min(left).min(u64::from(ELEMENTS_MAX));
        let bytes = self.pointers.initial_bytes(section, at, usize::try_from(len).ok()?)?;
        Some(printed(cstr(&bytes, 0)?).into())
    }

    /// A value as the type's `get` prints it, without its newline (spec 07 §7.4).
    fn value(&self, kind: &str, (section, at): Place) -> Option<String> {
        let bytes = |len| self.pointers.initial_bytes(section, at, len);
        let int = |len: usize| -> Option<u64> {
            let mut wide = [0; 8];
            wide.get_mut(..len)?.copy_from_slice(&bytes(len)?);
            Some(u64::from_le_bytes(wide))
        };
        let bool = |yes: bool| String::from(if yes { "Y" } else { "N" });
        Some(match kind {
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
            "charp" => match self.pointers.target(section, at) {
                Some(Target::Section { section, offset }) => printed(self.string((section, offset))?).into(),
                Some(_) => return None,
                // A NULL charp.
                None => String::from("(null)"),
            },
            _ => return None,
        })
    }

    fn section_target(&self, section: usize, at: u64) -> Option<Place> {
        match self.pointers.target(section, at)? {
            Target::Section { section, offset } => Some((section, offset)),
            _ => None,
        }
    }

    fn string(&self, (section, offset): Place) -> Option<&'d [u8]> {
        cstr(self.file.section_bytes(section), offset)
    }

    /// `TAG=NAME:VALUE` of modinfo.
    fn modinfo_of(&self, tag: &'static str, name: &[u8]) -> Option<&'d [u8]> {
        let mut values = self.file.modinfo().all(tag);
        values.find_map(|value| value.strip_prefix(name)?.strip_prefix(b":"))
    }
}
