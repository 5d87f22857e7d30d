//! `simplify_symbols`: every symbol of a module gets its value (spec 03 §3.1).

use alloc::format;
use alloc::vec::Vec;

use elf_layout::bytes::printed;
use elf_layout::elf::{SHN_ABS, SHN_COMMON, SHN_LIVEPATCH, SHN_UNDEF, STB_WEAK, SYM_SIZE, SymFields};
use elf_layout::symtab::name_is_nowhere;
use elf_layout::{Errno, Finding, Findings, LoadInfo, Module, Subject};

use kernel::{Kernel, Owner, Taints};

use crate::resolve::{Resolver, Unresolved};

/// A symbol taken from the kernel or from another module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Import<'k> {
    /// Index in the symbol table.
    pub symbol: u32,
    /// Its name.
    pub name: &'k [u8],
    /// Its address; `None` if the exporter is known but not where the symbol lies.
    pub address: Option<u64>,
    /// `vmlinux` or the module.
    pub owner: &'k [u8],
    /// The exporter's CRC.
    pub crc: Option<u32>,
    /// Exported to GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, empty if none.
    pub namespace: &'k [u8],
}

/// The outcome of `simplify_symbols`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Resolution<'k> {
    /// What was taken from elsewhere, in symbol order.
    pub imports: Vec<Import<'k>>,
    /// Modules that this one depends on, in the order in which the edges are made: by the symbols it
    /// takes (DEP-1, DEP-2), never by modinfo `depends=` (DEP-4).
    pub depends: Vec<&'k [u8]>,
    /// `mod->using_gplonly_symbols`.
    pub using_gplonly_symbols: bool,
    /// Taints of kernel and module after it.
    pub taints: Taints,
}

/// `kernel/module/main.c: simplify_symbols`: gives every symbol of a module its value (SYM-1 to SYM-9). `ignores` is true for undefined names that the architecture does
/// without (SYM-5: `_GLOBAL_OFFSET_TABLE_` on x86).
pub fn simplify_symbols<'k>(
    module: &mut Module<'k>,
    kernel: &'k Kernel,
    taints: Taints,
    ignores: impl Fn(&[u8]) -> bool,
    said: &mut Findings,
) -> Resolution<'k> {
    let mut resolver = Resolver::new(kernel, module.info.file, taints);
    let mut out = Resolution::default();
    let undefined = |info: &LoadInfo<'k>, index, bind, subject: &dyn Fn() -> Subject, said: &mut Findings| {
        resolve(info, &mut resolver, &mut out, index, bind, subject, &ignores, said)
    };
    values_of(module, undefined, said);
    out.using_gplonly_symbols = resolver.using_gplonly_symbols();
    out.taints = resolver.taints();
    out
}

/// Where symbols come from, for an operating system of one's own: by name alone, without the rules by which Linux gives them out.
/// Any function from a name to an address is one.
///
/// ```
/// use symres::SymbolSource;
///
/// let exports = |name: &[u8]| (name == b"_printk").then_some(0x1000);
/// assert_eq!(exports.address(b"_printk"), Some(0x1000));
/// assert_eq!(exports.address(b"kfree"), None);
/// ```
pub trait SymbolSource {
    /// Address of a symbol; `None` if there is none of that name.
    fn address(&self, name: &[u8]) -> Option<u64>;
}

impl<F: Fn(&[u8]) -> Option<u64>> SymbolSource for F {
    fn address(&self, name: &[u8]) -> Option<u64> {
        self(name)
    }
}

/// As [`simplify_symbols`], where an operating system of one's own exports what `source` has. A symbol that it does not have is
/// refused as Linux does (SYM-5), unless it is weak or `ignores` is true for it.
pub fn simplify_symbols_from(
    module: &mut Module<'_>,
    source: &dyn SymbolSource,
    ignores: impl Fn(&[u8]) -> bool,
    said: &mut Findings,
) {
    let undefined =
        |info: &LoadInfo<'_>, index: usize, bind, subject: &dyn Fn() -> Subject, said: &mut Findings| {
            let name = info.file.symbols().get(index).map_or(&b""[..], |s| info.file.symbol_name(s));
            match source.address(name) {
                Some(address) => Value::Is(address),
                None if bind == STB_WEAK || ignores(name) => Value::AsInFile,
                None => {
                    let (me, number) = (info.file.name_text(), Errno::ENOENT.number());
                    let line = format!("{me}: Unknown symbol {} (err -{number})", printed(name));
                    let why = format!("nobody exports {}", printed(name));
                    said.push(Finding::error("SYM-5", Errno::ENOENT, why).says(line).about(subject()));
                    Value::Unknown
                }
            }
        };
    values_of(module, undefined, said);
}

/// The values of all symbols; `undefined` gives those of undefined ones, by index and binding.
fn values_of<'k>(
    module: &mut Module<'k>,
    mut undefined: impl FnMut(&LoadInfo<'k>, usize, u8, &dyn Fn() -> Subject, &mut Findings) -> Value,
    said: &mut Findings,
) {
    let info = &module.info;
    let file = info.file;
    let count = file.symbols().len();
    let (mut values, mut unknown) = (Vec::with_capacity(count), Vec::with_capacity(count));
    said.stage(|said| {
        for (i, symbol) in file.symbols().iter().enumerate() {
            let name = || file.symbol_name(symbol);
            let subject = || Subject::Symbol {
                index: u32::try_from(i).unwrap_or(u32::MAX),
                name: printed(name()).into(),
            };
            let mut value = symbol.value();
            let mut is_unknown = false;
            match symbol.shndx() {
                // Index 0 is never touched.
                _ if i == 0 => {}
                SHN_ABS | SHN_LIVEPATCH => {}
                // Their names are looked for, or told.
                shndx
                    if (matches!(shndx, SHN_COMMON | SHN_UNDEF)
                        || usize::from(shndx) >= info.sechdrs.len())
                        && file.symbol_name_is_nowhere(symbol, info.config.page_size) =>
                {
                    said.refuse(name_is_nowhere(u32::try_from(i).unwrap_or(u32::MAX), symbol));
                    is_unknown = true;
                }
                SHN_COMMON if name().starts_with(b"__gnu_lto") => {}
                SHN_COMMON => {
                    let line = format!("{}: please compile with -fno-common", file.name_text());
                    let why =
                        format!("{} is a common symbol, which has no place in a module", printed(name()));
                    said.push(Finding::error("SYM-1", Errno::ENOEXEC, why).says(line).about(subject()));
                }
                SHN_UNDEF => match undefined(info, i, symbol.bind(), &subject, said) {
                    Value::Is(address) => value = address,
                    Value::AsInFile => {}
                    Value::Unknown => is_unknown = true,
                },
                shndx if usize::from(shndx) >= info.sechdrs.len() => {
                    let max = info.sechdrs.len().saturating_sub(1);
                    let (me, text) = (file.name_text(), printed(name()));
                    let line =
                        format!("{me}: Symbol {text} has an invalid section index {shndx} (max {max})");
                    let why = format!("st_shndx {shndx:#x} of {text} names no section");
                    said.push(Finding::error("SYM-6", Errno::ENOEXEC, why).says(line).about(subject()));
                }
                shndx if usize::from(shndx) == file.index().pcpu => match module.placement.percpu {
                    Some(base) => value = value.wrapping_add(base),
                    None => is_unknown = true,
                },
                shndx => {
                    let base = info.sechdrs.get(usize::from(shndx)).map_or(0, |s| s.sh_addr);
                    value = value.wrapping_add(base);
                }
            }
            values.push(value);
            unknown.push(is_unknown);
        }
    });
    (module.values, module.unknown) = (values, unknown);
}

/// What becomes of the value of an undefined symbol.
enum Value {
    Is(u64),
    /// It stays (SYM-5).
    AsInFile,
    Unknown,
}

/// One undefined symbol (SYM-4, SYM-5, SYM-5b).
#[allow(clippy::too_many_arguments, reason = "one symbol of the loop above")]
fn resolve<'a>(
    info: &LoadInfo<'a>,
    resolver: &mut Resolver<'a>,
    out: &mut Resolution<'a>,
    index: usize,
    bind: u8,
    subject: impl Fn() -> Subject,
    ignores: &impl Fn(&[u8]) -> bool,
    said: &mut Findings,
) -> Value {
    let name = info.file.symbols().get(index).map_or(&b""[..], |s| info.file.symbol_name(s));
    match resolver.resolve_symbol(name, &subject, said) {
        Ok((owner, export)) => {
            out.imports.push(Import {
                symbol: u32::try_from(index).unwrap_or(u32::MAX),
                name,
                address: export.address,
                owner: owner.name(),
                crc: export.crc,
                gpl_only: export.gpl_only,
                namespace: export.namespace,
            });
            if let Owner::Module(owner) = owner
                && !out.depends.contains(&owner)
            {
                out.depends.push(owner);
            }
            export.address.map_or(Value::Unknown, Value::Is)
        }
        // A weak symbol is taken to find nothing then.
        Err(Unresolved::Unjudged) => {
            if bind == STB_WEAK {
                Value::AsInFile
            } else {
                Value::Unknown
            }
        }
        // SYM-5: only "not found" is forgiven to weak symbols.
        Err(Unresolved::NotFound) if bind == STB_WEAK || ignores(name) => Value::AsInFile,
        Err(why) => {
            // What a relocation would make of a value that is missing says nothing about the module.
            said.push(resolver.unknown_symbol(name, why, subject()));
            Value::Unknown
        }
    }
}

/// Writes the values into the moved symbol table, which is where the kernel keeps them (LAYOUT-30).
pub fn write_symtab(module: &mut Module<'_>) {
    let Module { info, layout, values, memory, .. } = module;
    let sym = info.file.index().sym;
    let Some(place) = layout.place(sym).filter(|_| sym != 0) else {
        return;
    };
    let size = info.sechdrs.get(sym).map_or(0, |s| s.sh_size);
    let Some(table) = memory.at_mut(place, size) else {
        return;
    };
    let records = table.chunks_exact_mut(SYM_SIZE as usize);
    for (record, value) in records.zip(values.iter()) {
        if let Some(st_value) = record.get_mut(8..16) {
            st_value.copy_from_slice(&value.to_le_bytes());
        }
    }
}
