//! What functions take and return, by the types of the image; those of a module by the tables that it hands over.

use std::collections::{HashMap, HashSet};

use kernel_image::{Btf, Prototype, Sort, TypeId};
use run::system::Running;
use run::watch::{Entry, Region, Seen};

/// Members that are looked at for one argument.
const STEPS: usize = 4000;
/// Pointers that are followed one after the other.
const FOLLOWED: u32 = 2;
/// What is an error, and not an address: MAX_ERRNO.
const ERRORS: u64 = 4095;

/// The types of a kernel image, and what is known of the functions of modules.
#[derive(Debug, Default)]
pub struct Types {
    blob: Vec<u8>,
    functions: HashMap<Vec<u8>, TypeId>,
    /// Functions of modules, by address.
    learnt: HashMap<u64, Known>,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    Type(TypeId),
    /// `int (void)`
    Init,
    /// `void (void)`
    Exit,
}

/// A value and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// The name of the parameter.
    pub name: String,
    /// Its type as C spells it.
    pub of: String,
    /// The number in the register.
    pub number: u64,
    /// As it is shown.
    pub text: String,
}

/// A call with what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// Its arguments; `None` if nothing is known of them.
    pub arguments: Option<Vec<Value>>,
    /// Do others follow?
    pub is_variadic: bool,
}

impl Types {
    /// Of the image's BTF. Without one nothing is known.
    pub(super) fn new(btf: Option<&Btf<'_>>) -> Self {
        let Some(btf) = btf else { return Types::default() };
        let mut functions = HashMap::new();
        for (name, id) in btf.functions() {
            functions.entry(name.to_vec()).or_insert(id);
        }
        Types { blob: btf.blob().to_vec(), functions, learnt: HashMap::new() }
    }

    /// The types, to be asked.
    pub(super) fn asked(&self) -> Option<Btf<'_>> {
        Btf::parse(&self.blob).ok()
    }

    /// Looks at what the module hands over for the types of its functions.
    pub(super) fn learn(&mut self, kernel: &mut dyn Running, entries: &[Entry]) {
        let Ok(btf) = Btf::parse(&self.blob) else { return };
        let code = kernel.watched().map(|watch| watch.memory()).unwrap_or_default();
        for entry in entries {
            if let Seen::Call { into: true, function, site, .. } = &entry.seen {
                match site.split('+').next() {
                    Some("do_one_initcall") => drop(self.learnt.insert(*function, Known::Init)),
                    Some(name) if name.contains("delete_module") => {
                        self.learnt.insert(*function, Known::Exit);
                    }
                    _ => {}
                }
            }
        }
        let mut search = Search { btf: &btf, code, found: HashMap::new(), seen: HashSet::new(), steps: 0 };
        for entry in entries {
            let Seen::Call { into: false, name, arguments, .. } = &entry.seen else { continue };
            let id = self.functions.get(name.as_bytes());
            let Some(prototype) = id.and_then(|id| btf.prototype(*id)) else { continue };
            search.steps = STEPS;
            for ((_, of), value) in prototype.parameters.iter().zip(arguments) {
                search.follow(kernel, *of, *value, FOLLOWED);
            }
        }
        for (function, id) in search.found {
            self.learnt.entry(function).or_insert(Known::Type(id));
        }
    }

    fn prototype<'b>(&self, btf: &Btf<'b>, name: &str, address: u64) -> Option<Prototype<'b>> {
        match self.learnt.get(&address) {
            Some(Known::Type(id)) => btf.prototype(*id),
            Some(_) => None,
            // Names of modules' functions are no names of the kernel's.
            None if name.contains(' ') => None,
            None => btf.prototype(*self.functions.get(name.as_bytes())?),
        }
    }

    /// The arguments of a call.
    pub(super) fn call(
        &self,
        btf: &Btf<'_>,
        kernel: &dyn Running,
        (name, address): (&str, u64),
        arguments: &[u64],
        texts: &[Option<String>],
    ) -> Typed {
        if matches!(self.learnt.get(&address), Some(Known::Init | Known::Exit)) {
            return Typed { arguments: Some(Vec::new()), is_variadic: false };
        }
        let Some(prototype) = self.prototype(btf, name, address) else { return Typed::default() };
        let mut all = Vec::new();
        for (number, (name, id)) in prototype.parameters.iter().enumerate() {
            let Some(value) = arguments.get(number) else { break };
            let text = texts.get(number).cloned().flatten();
            let mut shown = value_of(btf, kernel, *id, *value, text);
            shown.name = String::from_utf8_lossy(name).into_owned();
            all.push(shown);
        }
        Typed { arguments: Some(all), is_variadic: prototype.is_variadic }
    }

    /// What a call has returned. `None`: nothing is known of it; an empty text: void.
    pub(super) fn result(
        &self,
        btf: &Btf<'_>,
        kernel: &dyn Running,
        (name, address): (&str, u64),
        value: u64,
        text: Option<String>,
    ) -> Option<Value> {
        match self.learnt.get(&address) {
            Some(Known::Init) => {
                let text = (value as i32).to_string();
                return Some(Value { of: "int".into(), number: value, text, ..Value::default() });
            }
            Some(Known::Exit) => return Some(Value { of: "void".into(), ..Value::default() }),
            _ => {}
        }
        let returns = self.prototype(btf, name, address)?.returns;
        if btf.sort(returns) == Sort::Void {
            return Some(Value { of: "void".into(), ..Value::default() });
        }
        Some(value_of(btf, kernel, returns, value, text))
    }
}

/// A value as its type says.
fn value_of(btf: &Btf<'_>, kernel: &dyn Running, id: TypeId, value: u64, string: Option<String>) -> Value {
    let sort = btf.sort(id);
    let signed = |size: u8| {
        let unused = 64u32.saturating_sub(u32::from(size).saturating_mul(8));
        value.wrapping_shl(unused).cast_signed().wrapping_shr(unused)
    };
    let unsigned = |size: u8| {
        let unused = 64u32.saturating_sub(u32::from(size).saturating_mul(8));
        value.wrapping_shl(unused).wrapping_shr(unused)
    };
    let pointer = || match value {
        0 => "NULL".into(),
        // ERR_PTR
        error if error > u64::MAX.wrapping_sub(ERRORS) => error.cast_signed().to_string(),
        address => kernel.text(address),
    };
    let text = match sort {
        Sort::Integer { size, signed: true } => signed(size).to_string(),
        Sort::Integer { size, .. } => match unsigned(size) {
            number if number < 0x1_0000 => number.to_string(),
            number => format!("{number:#x}"),
        },
        Sort::Bool => if value & 0xff == 0 { "false" } else { "true" }.into(),
        Sort::Enum { id, size } => match btf.enumerator(id, signed(size)) {
            Some(name) => String::from_utf8_lossy(name).into_owned(),
            None => signed(size).to_string(),
        },
        Sort::Text => match string {
            Some(text) => format!("{text:?}"),
            None => pointer(),
        },
        Sort::Function(_) | Sort::Struct(_) | Sort::Pointer => pointer(),
        Sort::Void | Sort::Other => format!("{value:#x}"),
    };
    Value { name: String::new(), of: btf.spelled(id), number: value, text }
}

/// A search for the types of functions in what is handed over.
struct Search<'s, 'b> {
    btf: &'s Btf<'b>,
    code: Vec<Region>,
    found: HashMap<u64, TypeId>,
    seen: HashSet<(TypeId, u64)>,
    steps: usize,
}

impl Search<'_, '_> {
    /// A value of this type.
    fn follow(&mut self, kernel: &mut dyn Running, of: TypeId, value: u64, depth: u32) {
        match self.btf.sort(of) {
            Sort::Function(id) if self.code.iter().any(|region| region.has(value)) => {
                self.found.entry(value).or_insert(id);
            }
            Sort::Struct(id) if value != 0 && depth > 0 && self.seen.insert((id, value)) => {
                self.members(kernel, id, value, depth.saturating_sub(1));
            }
            _ => {}
        }
    }

    /// The members of a struct at an address.
    fn members(&mut self, kernel: &mut dyn Running, of: TypeId, at: u64, depth: u32) {
        for (offset, id) in self.btf.members(of) {
            let Some(steps) = self.steps.checked_sub(1) else { return };
            self.steps = steps;
            let at = at.wrapping_add(offset);
            if self.btf.is_struct(id) {
                self.members(kernel, id, at, depth);
            } else if matches!(self.btf.sort(id), Sort::Function(_) | Sort::Struct(_))
                && let Ok(bytes) = kernel.read_memory(at, 8)
                && let Some(word) = bytes.first_chunk()
            {
                self.follow(kernel, id, u64::from_le_bytes(*word), depth);
            }
        }
    }
}
