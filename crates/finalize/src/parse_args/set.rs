//! The `set` operations of the kernel's parameter types (spec 07 §7.4, PARAM-40 to PARAM-45).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use elf_layout::params::{Ops, ParamTable, Place};
use elf_layout::pointers::Target;
use elf_layout::{Changes, Errno, Layout, Memory, SectionPlace};
use reloc::PatchBytes;

use super::log::printk;
use super::{ParamOutcome, RuntimePointer, Written};
use crate::kstrto::{kstrto_signed, kstrto_unsigned, kstrtobool, kstrtoll, kstrtoull};

/// A charp takes no more bytes than this.
const CHARP_MAX: usize = 1024;

/// What `set` points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setter {
    /// param_set_byte
    Byte,
    /// param_set_short
    Short,
    /// param_set_ushort
    Ushort,
    /// param_set_int
    Int,
    /// param_set_uint, param_set_hexint
    Uint,
    /// param_set_long
    Long,
    /// param_set_ulong, param_set_ullong
    Ulong,
    /// param_set_charp
    Charp,
    /// param_set_bool
    Bool,
    /// param_set_invbool
    Invbool,
    /// param_set_bint
    Bint,
    /// param_set_bool_enable_only
    BoolEnableOnly,
    /// param_set_copystring
    String,
    /// param_array_set
    Array,
    /// Code that is not the kernel's, or does more than store a value.
    Code,
    /// NULL.
    Missing,
}

impl Setter {
    /// By the TYPE of `param_ops_TYPE` and `param_set_TYPE`.
    fn of_type(name: &str) -> Option<Setter> {
        Some(match name {
            "byte" => Setter::Byte,
            "short" => Setter::Short,
            "ushort" => Setter::Ushort,
            "int" => Setter::Int,
            "uint" | "hexint" => Setter::Uint,
            "long" => Setter::Long,
            "ulong" | "ullong" => Setter::Ulong,
            "charp" => Setter::Charp,
            "bool" => Setter::Bool,
            "invbool" => Setter::Invbool,
            "bint" => Setter::Bint,
            "bool_enable_only" => Setter::BoolEnableOnly,
            "string" | "copystring" => Setter::String,
            _ => return None,
        })
    }

    /// What it takes, in words.
    pub const fn takes(self) -> &'static str {
        match self {
            Setter::Byte => "a number of 8 bits without sign",
            Setter::Short => "a number of 16 bits",
            Setter::Ushort => "a number of 16 bits without sign",
            Setter::Int => "a number of 32 bits",
            Setter::Uint => "a number of 32 bits without sign",
            Setter::Long => "a number of 64 bits",
            Setter::Ulong => "a number of 64 bits without sign",
            Setter::Charp => "at most 1024 characters",
            Setter::Bool | Setter::Invbool | Setter::Bint => "y or n",
            Setter::BoolEnableOnly => "y or n, and not n once it is y",
            Setter::String => "a string that its buffer holds",
            Setter::Array => "a list of values",
            Setter::Code | Setter::Missing => "a value",
        }
    }
}

/// Operations, as far as they can be told.
#[derive(Clone, Copy, Debug)]
pub struct Operations {
    /// `set`
    pub set: Setter,
    /// Takes a parameter without value (KERNEL_PARAM_OPS_FL_NOARG), if known (PARAM-17).
    pub noarg: Option<bool>,
}

/// A pointer to what is set.
#[derive(Clone, Copy, Debug)]
pub enum Variable {
    /// A place of this module.
    Here(Place),
    /// Another module's or the kernel's, or per CPU: no region shows it.
    Elsewhere,
    /// NULL.
    Null,
}

/// Why a value was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// `set` returns this; the rule it follows from.
    Refused(Errno, &'static str),
    /// The kernel would read or write where nothing is.
    Crash(&'static str),
}

const NULL: Fail = Fail::Crash("its variable is at NULL");
const OUTSIDE: Fail = Fail::Crash("its variable reaches out of the module");

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Fail::Refused(errno, "PARAM-20")
    }
}

/// Sets one parameter once.
pub struct Setting<'r, 'd> {
    pub layout: &'r Layout,
    pub memory: &'r mut dyn Memory,
    pub table: &'r ParamTable<'d>,
    pub changes: Changes,
    /// Number of the record.
    pub record: u64,
    /// `kp->name`
    pub name: &'d [u8],
    /// What `set` itself prints.
    pub lines: Vec<String>,
    /// How much of the value is left once `set` has cut it at its first comma (PARAM-40).
    pub left_of_value: Option<usize>,
    /// A variable lies elsewhere.
    pub elsewhere: bool,
    /// A value is set by code that is not run.
    pub code: bool,
    pub outcome: &'r mut ParamOutcome,
}

impl Setting<'_, '_> {
    fn spot(&self, (section, offset): Place) -> Option<SectionPlace> {
        let place = self.layout.place(section)?;
        Some(SectionPlace { region: place.region, offset: place.offset.checked_add(offset)? })
    }

    fn read<const N: usize>(&self, at: Place) -> Option<[u8; N]> {
        self.memory.at(self.spot(at)?, N as u64)?.first_chunk().copied()
    }

    /// Where the pointer at a place points to.
    pub fn variable(&self, (section, offset): Place) -> Variable {
        match self.table.target(section, offset) {
            Some(Target::Section { section, offset }) => match self.layout.place(section) {
                Some(_) => Variable::Here((section, offset)),
                None => Variable::Elsewhere,
            },
            Some(Target::Import { .. } | Target::Absolute(_)) => Variable::Elsewhere,
            None => match self.read::<8>((section, offset)) {
                Some([0, 0, 0, 0, 0, 0, 0, 0]) => Variable::Null,
                _ => Variable::Elsewhere,
            },
        }
    }

    /// What the operations that the pointer at a place points to do (PARAM-1).
    pub fn operations(&self, at: Place) -> Operations {
        let code = Operations { set: Setter::Code, noarg: None };
        match self.table.ops_at(at.0, at.1) {
            Ops::Named(name) => match Setter::of_type(name) {
                Some(set) => {
                    let noarg = matches!(set, Setter::Bool | Setter::Bint | Setter::BoolEnableOnly);
                    Operations { set, noarg: Some(noarg) }
                }
                None => code,
            },
            Ops::Array => Operations { set: Setter::Array, noarg: Some(false) },
            Ops::Own((section, offset)) => {
                let flags = self.read::<4>((section, offset)).map(u32::from_le_bytes);
                let set = (section, offset.wrapping_add(8));
                let set = match self.table.target(set.0, set.1) {
                    Some(Target::Import { name, addend: 0 }) => {
                        let name =
                            name.strip_prefix(b"param_set_").and_then(|n| core::str::from_utf8(n).ok());
                        name.and_then(Setter::of_type).unwrap_or(Setter::Code)
                    }
                    None if matches!(self.variable(set), Variable::Null) => Setter::Missing,
                    _ => Setter::Code,
                };
                Operations { set, noarg: flags.map(|f| f & 1 != 0) }
            }
            Ops::Unknown if matches!(self.variable(at), Variable::Null) => {
                Operations { set: Setter::Missing, noarg: None }
            }
            Ops::Unknown => code,
        }
    }

    /// Runs `set(val, kp)` with `kp->arg` at `arg`.
    pub fn set(&mut self, set: Setter, val: Option<&[u8]>, arg: Variable) -> Result<(), Fail> {
        let given = || val.ok_or(Fail::Crash("its set operation reads a value, but none is given"));
        let truth = |changes| kstrtobool(val.unwrap_or(b"1"), changes);
        match set {
            Setter::Byte => self.store(arg, &kstrto_unsigned::<u8>(given()?)?.to_le_bytes()),
            Setter::Short => self.store(arg, &kstrto_signed::<i16>(given()?)?.to_le_bytes()),
            Setter::Ushort => self.store(arg, &kstrto_unsigned::<u16>(given()?)?.to_le_bytes()),
            Setter::Int => self.store(arg, &kstrto_signed::<i32>(given()?)?.to_le_bytes()),
            Setter::Uint => self.store(arg, &kstrto_unsigned::<u32>(given()?)?.to_le_bytes()),
            Setter::Long => self.store(arg, &kstrtoll(given()?)?.to_le_bytes()),
            Setter::Ulong => self.store(arg, &kstrtoull(given()?)?.to_le_bytes()),
            Setter::Bool => self.store(arg, &[u8::from(truth(self.changes)?)]),
            Setter::Invbool => self.store(arg, &[u8::from(!truth(self.changes)?)]),
            Setter::Bint => self.store(arg, &u32::from(truth(self.changes)?).to_le_bytes()),
            Setter::BoolEnableOnly => self.set_bool_enable_only(truth(self.changes), arg),
            Setter::Charp => self.set_charp(given()?, arg),
            Setter::String => self.set_copystring(given()?, arg),
            Setter::Array => self.set_array(given()?, arg),
            Setter::Code => {
                self.code = true;
                Ok(())
            }
            Setter::Missing => {
                Err(Fail::Crash("it has no set operation, and the kernel calls it all the same"))
            }
        }
    }

    /// Writes a value.
    fn put(&mut self, arg: Variable, value: &[u8]) -> Result<Option<Written>, Fail> {
        match arg {
            Variable::Here(at) => {
                let place = self.spot(at);
                let target = place.and_then(|p| self.memory.at_mut(p, value.len() as u64));
                let (Some(place), Some(target)) = (place, target) else {
                    return Err(OUTSIDE);
                };
                let bytes = PatchBytes { before: target.to_vec(), after: value.to_vec() };
                target.copy_from_slice(value);
                Ok(Some(Written { record: self.record, place, len: value.len() as u64, bytes }))
            }
            Variable::Elsewhere => {
                self.elsewhere = true;
                Ok(None)
            }
            Variable::Null => Err(NULL),
        }
    }

    /// Writes a value, and records where.
    fn store(&mut self, arg: Variable, value: &[u8]) -> Result<(), Fail> {
        let written = self.put(arg, value)?;
        self.outcome.written.extend(written);
        Ok(())
    }

    /// `param_set_bool_enable_only`: EROFS for what would switch it off.
    fn set_bool_enable_only(&mut self, value: Result<bool, Errno>, arg: Variable) -> Result<(), Fail> {
        let before = match arg {
            Variable::Here(at) => {
                let byte = self.read::<1>(at).ok_or(OUTSIDE)?;
                byte != [0]
            }
            // What stands there is not known.
            Variable::Elsewhere => false,
            Variable::Null => return Err(NULL),
        };
        match (before, value?) {
            (_, true) => self.store(arg, &[1]),
            (true, false) => Err(Fail::Refused(Errno::EROFS, "PARAM-20")),
            (false, false) => {
                self.elsewhere |= matches!(arg, Variable::Elsewhere);
                Ok(())
            }
        }
    }

    /// `param_set_charp`: the variable gets the address of a copy that only a running kernel knows.
    fn set_charp(&mut self, val: &[u8], arg: Variable) -> Result<(), Fail> {
        if val.len() > CHARP_MAX {
            self.print(&[b": string parameter too long"]);
            return Err(Errno::ENOSPC.into());
        }
        match arg {
            Variable::Here(at) => {
                let place = self.spot(at).filter(|p| self.memory.at(*p, 8).is_some());
                let place = place.ok_or(OUTSIDE)?;
                self.outcome.pointers.push(RuntimePointer {
                    record: self.record,
                    place,
                    value: val.to_vec(),
                });
                Ok(())
            }
            Variable::Elsewhere => {
                self.elsewhere = true;
                Ok(())
            }
            Variable::Null => Err(NULL),
        }
    }

    /// `param_set_copystring`, of `struct kparam_string {maxlen, string}`.
    fn set_copystring(&mut self, val: &[u8], arg: Variable) -> Result<(), Fail> {
        let Some((section, at)) = self.structure(arg)? else {
            return Ok(());
        };
        let maxlen = self.read::<4>((section, at)).map(u32::from_le_bytes).ok_or(OUTSIDE)?;
        if val.len() as u64 >= u64::from(maxlen) {
            let chars = maxlen.wrapping_sub(1).to_string();
            self.print(&[b": string doesn't fit in ", chars.as_bytes(), b" chars."]);
            return Err(Errno::ENOSPC.into());
        }
        let mut string = val.to_vec();
        string.push(0);
        self.store(self.variable((section, at.wrapping_add(8))), &string)
    }

    /// `param_array_set`, of `struct kparam_array {max, elemsize, *num, ops, elem}`.
    fn set_array(&mut self, val: &[u8], arg: Variable) -> Result<(), Fail> {
        let Some((section, at)) = self.structure(arg)? else {
            return Ok(());
        };
        let field = |offset| (section, at.wrapping_add(offset));
        let head = self.read::<8>(field(0)).map(u64::from_le_bytes).ok_or(OUTSIDE)?;
        // elemsize is an int where it is added.
        let (max, elemsize) = (head as u32, (head >> 32) as i32);
        let num = self.variable(field(8));
        let elem = self.variable(field(24));
        let set = self.operations(field(16)).set;
        if matches!(set, Setter::Code | Setter::Array) {
            self.code = true;
            return Ok(());
        }

        // PARAM-42: *num starts at 0 and counts what is set; without it (NULL) a local one does.
        let counted = !matches!(num, Variable::Null);
        if counted {
            self.store(num, &0u32.to_le_bytes())?;
        }
        let elements = (0u32..).zip(val.split(|c| *c == b','));
        for (n, element) in elements {
            if n == max {
                // PARAM-41
                let most = (max as i32).to_string();
                self.print(&[b": can only take ", most.as_bytes(), b" arguments"]);
                return Err(Fail::Refused(Errno::EINVAL, "PARAM-41"));
            }
            if n == 0 {
                self.left_of_value = Some(element.len());
            }
            let step = i64::from(elemsize).wrapping_mul(i64::from(n));
            let arg = match elem {
                Variable::Here((section, offset)) => {
                    Variable::Here((section, offset.wrapping_add_signed(step)))
                }
                Variable::Null if step != 0 => Variable::Elsewhere,
                other => other,
            };
            self.set(set, Some(element), arg)?;
            if counted {
                self.store(num, &n.wrapping_add(1).to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// The structure that `kp->arg` points to; `None` if it is not in this module.
    fn structure(&mut self, arg: Variable) -> Result<Option<Place>, Fail> {
        match arg {
            Variable::Here(at) => Ok(Some(at)),
            Variable::Elsewhere => {
                self.elsewhere = true;
                Ok(None)
            }
            Variable::Null => Err(NULL),
        }
    }

    /// A line that begins with the parameter's own name.
    fn print(&mut self, parts: &[&[u8]]) {
        let mut line = alloc::vec![self.name];
        line.extend(parts);
        self.lines.extend(printk(self.changes, &line));
    }
}
