//! From the files that describe a kernel to a [`Kernel`].
//!
//! A [`Description`] is what is known of a kernel so far. Every file adds to
//! it: an image ([`image`]), a SPEC ([`spec_file`]), a tree ([`tree`]), or a single text.

pub mod image;
pub mod spec_file;
pub mod tree;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use elf_layout::elf::{EM_AARCH64, EM_X86_64};
use elf_layout::{KernelConfig, KernelVersion};
use symres::btf::BtfType;
use symres::kallsyms::KernelSymbols;
use symres::symvers::Symvers;
use symres::{BaseBtf, Export, Exports, Kernel, KernelParts, LoadFlags};

use crate::error::Error;
use crate::input::{hex_bytes, read_decompressed};
use crate::keyring;
use crate::running::{LinkMemory, Machine, Types};
use spec_file::Records;

/// The files that describe a kernel, in any combination.
#[derive(Clone, Debug, Default)]
pub struct KernelSource {
    /// vmlinuz, vmlinux, Image, a SPEC or a tree.
    pub kernel: Option<PathBuf>,
    /// `/proc/kallsyms` or System.map.
    pub symtab: Option<PathBuf>,
    /// Module.symvers.
    pub symvers: Option<PathBuf>,
    /// `.config`.
    pub config: Option<PathBuf>,
    /// Certificates that are trusted beside those built in.
    pub keyring: Vec<PathBuf>,
}

/// One piece of a description and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What was found.
    pub what: &'static str,
    /// Where and how.
    pub how: String,
}

/// What is known of a kernel.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// Release (`uname -r`).
    pub release: Option<String>,
    /// The string that vermagic is compared with.
    pub vermagic: Option<String>,
    /// `Linux version ...`
    pub banner: Option<String>,
    /// EM_* of its architecture.
    pub machine: Option<u16>,
    /// PAGE_SIZE in bytes.
    pub page_size: Option<u64>,
    /// sizeof(struct module) in bytes.
    pub struct_module_size: Option<u64>,
    /// Byte offsets of `init` and `exit` in it.
    pub init_exit: Option<(u64, u64)>,
    /// `.config`
    pub config: Option<Vec<u8>>,
    /// Symbols at link addresses, from an image or System.map.
    pub symbols: Option<KernelSymbols>,
    /// Symbols of the running kernel, with its modules.
    pub live_symbols: Option<KernelSymbols>,
    /// The kernel's own exports at link addresses.
    pub exports: Option<Exports>,
    /// Module.symvers.
    pub symvers: Option<Symvers>,
    /// Its memory.
    pub memory: LinkMemory,
    /// The layout of its types.
    pub types: Types,
    /// Certificates built in to verify modules, each as DER.
    pub certificates: Vec<Vec<u8>>,
    /// Certificates of other keyrings, each as DER.
    pub keyring: Vec<Vec<u8>>,
    /// The kernel's BTF.
    pub btf: Option<Vec<u8>>,
    /// What came from where.
    pub found: Vec<Found>,
}

/// Records of a SPEC that begin so hold a certificate each.
const CERTIFICATE: &str = "certificate-";

impl KernelSource {
    /// The files and trees that are named.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let one = [&self.kernel, &self.symtab, &self.symvers, &self.config];
        one.into_iter().flatten().chain(&self.keyring).map(PathBuf::as_path)
    }

    /// Reads all files.
    pub fn describe(&self) -> Result<Description, Error> {
        let mut description = match &self.kernel {
            Some(path) => Description::read(path)?,
            None => Description::default(),
        };
        if let Some(path) = &self.config {
            description.add_config(path)?;
        }
        if let Some(path) = &self.symvers {
            description.add_symvers(path)?;
        }
        if let Some(path) = &self.symtab {
            let symbols = read_symbols(path)?;
            description.add("symbols of the running kernel", path, "read as text");
            description.live_symbols = Some(symbols);
        }
        for path in &self.keyring {
            description.keyring.extend(keyring::read(path)?);
        }
        Ok(description)
    }

    /// Reads all files; what they do not tell (version, configuration) is taken from the vermagic of
    /// `module`, the one to be loaded.
    pub fn kernel_for(&self, module: &[u8]) -> Result<(Kernel, Machine), Error> {
        self.kernel_or_release(|| vermagic_release(module))
    }

    /// Reads all files; `release` gives that of the modules to be loaded, if no file tells the kernel's.
    pub fn kernel_or_release(
        &self,
        release: impl FnOnce() -> Option<String>,
    ) -> Result<(Kernel, Machine), Error> {
        let description = self.describe()?;
        let release = if description.release.is_some() { None } else { release() };
        let at_fault = self.symtab.as_deref().or(self.kernel.as_deref()).unwrap_or(Path::new("-")).to_owned();
        description.into_kernel(release).map_err(|what| Error::unusable(&at_fault, what))
    }
}

impl Description {
    /// Reads an image, a SPEC or a tree.
    pub fn read(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            return tree::read(path);
        }
        Description::of_file(path, &crate::input::read(path)?)
    }

    /// What the bytes of an image or a SPEC tell; `path` is for messages.
    pub fn of_file(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        if Records::is_spec(bytes) {
            let records = Records::parse(bytes).map_err(|e| Error::unusable(path, e.to_string()))?;
            return Description::from_records(path, &records);
        }
        image::read(path, bytes)
    }

    fn add(&mut self, what: &'static str, path: &Path, how: &str) {
        self.found.push(Found { what, how: format!("{how} ({})", path.display()) });
    }

    fn add_config(&mut self, path: &Path) -> Result<(), Error> {
        self.config = Some(read_decompressed(path)?.to_vec());
        self.add("configuration", path, "read as text");
        Ok(())
    }

    fn add_symvers(&mut self, path: &Path) -> Result<(), Error> {
        let text = read_decompressed(path)?;
        let symvers =
            Symvers::parse(&text).map_err(|source| Error::Kernel { path: path.to_owned(), source })?;
        self.symvers = Some(symvers);
        self.add("Module.symvers", path, "read as text");
        Ok(())
    }

    /// Is there anything to load a module into? Without it the error says what to give.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_none()
            && self.live_symbols.is_none()
            && self.exports.is_none()
            && self.symvers.is_none()
    }

    /// Joins everything. `release` is that of the module, for a kernel that does not tell its own.
    /// The error says which two pieces do not belong together.
    pub fn into_kernel(self, release: Option<String>) -> Result<(Kernel, Machine), String> {
        self.is_one_kernel()?;
        let release = self.release.clone().or(release).unwrap_or_default();
        let mut config = KernelConfig::of_release(&release, reloc::MACHINES).unwrap_or_else(newest);
        if let Some(vermagic) = &self.vermagic {
            config.apply_vermagic(vermagic.as_bytes());
        }
        if let Some(text) = &self.config {
            config.apply(text, reloc::MACHINES);
        }
        if self.vermagic.is_none() && self.config.is_none() && self.has_no_crcs() {
            config.modversions = false;
        }
        if let Some(size) = self.page_size {
            config.page_size = size;
        }
        config.struct_module_size = self.struct_module_size;
        config.struct_module_init_exit = self.init_exit;
        let mut exports = self.exports;
        let mut machine = Machine { link: self.memory, types: self.types, ..Machine::default() };
        if let (Some(link), Some(live)) = (&self.symbols, &self.live_symbols) {
            let slide = slide(link, live)?;
            machine.slide = slide;
            exports
                .iter_mut()
                .for_each(|all| all.set_addresses(0..all.len(), |e| e.address.map(|a| slid(a, slide))));
        }
        let link_or_live = self.live_symbols.as_ref().or(self.symbols.as_ref());
        let parts = KernelParts {
            release,
            vermagic: self.vermagic.map(String::into_bytes),
            machine: self
                .machine
                .or_else(|| self.config.as_deref().and_then(machine_of_config))
                .or_else(|| link_or_live.and_then(machine_of_symbols)),
            symbols: self.live_symbols.or(self.symbols),
            exports,
            symvers: self.symvers,
            certificates: self.certificates,
            keyring: self.keyring,
            btf: self.btf.as_deref().and_then(base_btf),
        };
        Ok((Kernel::new(config, parts), machine))
    }

    /// Do the pieces belong together? The error says which do not.
    fn is_one_kernel(&self) -> Result<(), String> {
        let architectures = [
            ("the kernel image", self.machine),
            ("the configuration", self.config.as_deref().and_then(machine_of_config)),
            ("the symbol table", self.live_symbols.as_ref().and_then(machine_of_symbols)),
        ];
        let mut known = architectures.iter().filter_map(|(what, machine)| Some((what, (*machine)?)));
        if let Some((first, machine)) = known.next()
            && let Some((other, another)) = known.find(|(_, m)| *m != machine)
        {
            let (is, differs) = (machine_name(machine), machine_name(another));
            return Err(format!("{first} is of {is}, {other} of {differs}: they are two kernels"));
        }
        let (Some(exports), Some(symvers)) = (&self.exports, &self.symvers) else { return Ok(()) };
        let crcs: HashMap<&[u8], u32> =
            exports.iter().filter_map(|e| Some((e.name, e.crc.filter(|crc| *crc != 0)?))).collect();
        let pair = |e: Export<'_>| Some((*crcs.get(e.name)?, e.crc.filter(|crc| *crc != 0)?));
        let own = symvers.exporters().filter(|e| e.module().is_none());
        let own = own.flat_map(|e| symvers.exports().part(e.positions));
        let both: Vec<(u32, u32)> = own.filter_map(pair).collect();
        let differ = both.iter().filter(|(found, told)| found != told).count();
        // A few may: a Module.symvers of a neighbouring build still tells which module exports what.
        if differ > both.len() / 2 {
            let both = both.len();
            return Err(format!(
                "{differ} of {both} exports have other CRCs in Module.symvers than in the kernel image: they are two kernels"
            ));
        }
        Ok(())
    }

    /// Module.symvers of a kernel without CONFIG_MODVERSIONS: every CRC is zero.
    fn has_no_crcs(&self) -> bool {
        self.symvers.as_ref().is_some_and(|symvers| symvers.exports().iter().all(|e| e.crc == Some(0)))
    }

    /// As the records of a SPEC.
    pub fn to_records(&self) -> Records {
        let mut records = Records::default();
        let texts = [("release", &self.release), ("vermagic", &self.vermagic), ("banner", &self.banner)];
        for (name, text) in texts {
            text.iter().for_each(|text| records.set(name, text.as_str()));
        }
        let (init, exit) = self.init_exit.unzip();
        let numbers = [
            ("machine", self.machine.map(u64::from)),
            ("page-size", self.page_size),
            ("struct-module-size", self.struct_module_size),
            ("struct-module-init", init),
            ("struct-module-exit", exit),
        ];
        for (name, number) in numbers {
            number.iter().for_each(|number| records.set(name, number.to_string()));
        }
        self.config.iter().for_each(|config| records.set("config", config.as_slice()));
        self.symbols.iter().for_each(|symbols| records.set("kallsyms", kallsyms_text(symbols)));
        self.exports.iter().for_each(|exports| records.set("exports", exports_text(exports)));
        self.symvers.iter().for_each(|symvers| records.set("symvers", symvers_text(symvers)));
        if self.types != Types::default() {
            records.set("types", self.types.to_text());
        }
        if let (Some(symbols), Some(exports)) = (&self.symbols, &self.exports) {
            let pieces = self.memory.pieces(symbols, exports);
            if !pieces.is_empty() {
                records.set("memory", memory_text(&pieces));
            }
        }
        self.btf.iter().for_each(|btf| records.set("btf", btf.as_slice()));
        for (n, der) in self.certificates.iter().enumerate() {
            records.set(&format!("{CERTIFICATE}{n:04}"), der.as_slice());
        }
        records
    }

    fn from_records(path: &Path, records: &Records) -> Result<Self, Error> {
        let bad = |source| Error::Kernel { path: path.to_owned(), source };
        let number = |name| records.number(name);
        let mut description = Description {
            release: records.text("release"),
            vermagic: records.text("vermagic"),
            banner: records.text("banner"),
            machine: number("machine").and_then(|m| u16::try_from(m).ok()),
            page_size: number("page-size").filter(|size| size.is_power_of_two()),
            struct_module_size: number("struct-module-size"),
            init_exit: number("struct-module-init").zip(number("struct-module-exit")),
            config: records.get("config").map(<[u8]>::to_vec),
            symbols: records.get("kallsyms").map(KernelSymbols::parse).transpose().map_err(bad)?,
            symvers: records.get("symvers").map(Symvers::parse).transpose().map_err(bad)?,
            certificates: records.all(CERTIFICATE).map(<[u8]>::to_vec).collect(),
            types: records.text("types").map(|text| Types::parse(&text)).unwrap_or_default(),
            btf: records.get("btf").map(<[u8]>::to_vec),
            ..Description::default()
        };
        if let Some(text) = records.text("memory") {
            let pieces =
                parse_memory(&text).ok_or_else(|| Error::unusable(path, "a damaged record \"memory\""))?;
            description.memory = LinkMemory::Pieces(pieces);
        }
        if let Some(text) = records.get("exports") {
            let exports =
                parse_exports(text).ok_or_else(|| Error::unusable(path, "a damaged record \"exports\""))?;
            description.exports = Some(exports);
        }
        description.add("everything", path, "read from a SPEC");
        Ok(description)
    }
}

/// What of a kernel's BTF that of modules refers to; `None` if it is damaged.
fn base_btf(blob: &[u8]) -> Option<BaseBtf> {
    let btf = kernel_image::Btf::parse(blob).ok()?;
    let types = btf.types().map(|(kind, size_or_type)| BtfType { kind, size_or_type });
    Some(BaseBtf::new(btf.strings(), types))
}

/// The architecture that the first lines of a `.config` name (`# Linux/arm64 6.1.176 Kernel Configuration`).
fn machine_of_config(config: &[u8]) -> Option<u16> {
    let config = String::from_utf8_lossy(config.get(..512.min(config.len())).unwrap_or_default());
    match () {
        () if config.contains("# Linux/x86 ") => Some(EM_X86_64),
        () if config.contains("# Linux/arm64 ") => Some(EM_AARCH64),
        () => None,
    }
}

/// The architecture by where symbols of the kernel lie: the upper 2 GiB are x86_64's alone.
fn machine_of_symbols(symbols: &KernelSymbols) -> Option<u16> {
    let text = symbols.iter().find(|s| matches!(s.kind, b'T' | b't') && s.module.is_none())?.address;
    match text >> 32 {
        0xffff_ffff => Some(EM_X86_64),
        0xffff_0000..0xffff_ffff => Some(EM_AARCH64),
        _ => None,
    }
}

fn machine_name(machine: u16) -> &'static str {
    if machine == EM_X86_64 { "x86_64" } else { "aarch64" }
}

/// Reads kallsyms or System.map.
fn read_symbols(path: &Path) -> Result<KernelSymbols, Error> {
    let text = read_decompressed(path)?;
    KernelSymbols::parse(&text).map_err(|source| Error::Kernel { path: path.to_owned(), source })
}

/// Only addresses of the upper half move with the kernel; per-cpu offsets and constants do not (KSYM-31).
fn slid(address: u64, slide: u64) -> u64 {
    if address >> 63 == 1 { address.wrapping_add(slide) } else { address }
}

/// How far the running kernel lies from its link addresses (KSYM-30). Every symbol that both have
/// once must lie that far, else they are two kernels.
fn slide(link: &KernelSymbols, live: &KernelSymbols) -> Result<u64, String> {
    let mut slide = None;
    let (mut compared, mut elsewhere) = (0u64, 0u64);
    let text = link.iter().filter(|s| matches!(s.kind, b'T' | b't') && s.address >> 63 == 1);
    for symbol in text {
        let once = link.unique(symbol.name).is_some();
        let Some(here) = live.unique(symbol.name).filter(|s| once && s.module.is_none()) else { continue };
        let distance = here.address.wrapping_sub(symbol.address);
        compared = compared.saturating_add(1);
        if *slide.get_or_insert(distance) != distance {
            elsewhere = elsewhere.saturating_add(1);
        }
    }
    match slide {
        None => {
            Err(String::from("no symbol of the kernel image is in this symbol table: they are two kernels"))
        }
        Some(_) if elsewhere != 0 => {
            let what = "of the functions that the kernel image and this symbol table have in common do not lie equally far apart";
            Err(format!("{elsewhere} of {compared} {what}: they are two kernels"))
        }
        Some(slide) => Ok(slide),
    }
}

/// `/proc/kallsyms` text of the kernel's own symbols.
pub fn kallsyms_text(symbols: &KernelSymbols) -> Vec<u8> {
    let mut out = Vec::with_capacity(symbols.len().saturating_mul(48));
    for symbol in symbols.iter().filter(|s| s.module.is_none()) {
        // Writing to a Vec does not fail.
        let _ = write!(out, "{:016x} {} ", symbol.address, char::from(symbol.kind));
        out.extend_from_slice(symbol.name);
        out.push(b'\n');
    }
    out
}

/// Lines of Module.symvers for the kernel's own exports.
pub fn exports_as_symvers(exports: &Exports) -> Vec<u8> {
    let mut out = Vec::new();
    for export in exports.iter() {
        out.extend_from_slice(format!("{:#010x}\t", export.crc.unwrap_or(0)).as_bytes());
        out.extend_from_slice(export.name);
        out.extend_from_slice(b"\tvmlinux\t");
        out.extend_from_slice(kind(export.gpl_only));
        out.push(b'\t');
        out.extend_from_slice(export.namespace);
        out.push(b'\n');
    }
    out
}

fn kind(gpl_only: bool) -> &'static [u8] {
    if gpl_only { b"EXPORT_SYMBOL_GPL" } else { b"EXPORT_SYMBOL" }
}

/// The SPEC's record `exports`: a line of Module.symvers each, after address and a tab. `-` for no CRC.
fn exports_text(exports: &Exports) -> Vec<u8> {
    let mut out = Vec::new();
    for export in exports.iter() {
        let crc = export.crc.map_or(String::from("-"), |crc| format!("{crc:#010x}"));
        out.extend_from_slice(format!("{:#x}\t{crc}\t", export.address.unwrap_or(0)).as_bytes());
        for field in [export.name, b"\t", kind(export.gpl_only), b"\t", export.namespace, b"\n"] {
            out.extend_from_slice(field);
        }
    }
    out
}

fn parse_exports(text: &[u8]) -> Option<Exports> {
    let hex =
        |field: &[u8]| u64::from_str_radix(std::str::from_utf8(field).ok()?.strip_prefix("0x")?, 16).ok();
    let mut exports = Exports::default();
    for line in text.strip_suffix(b"\n").unwrap_or(text).split(|b| *b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
        let [address, crc, name, export, namespace] = fields.as_slice() else { return None };
        exports.push(Export {
            name,
            address: Some(hex(address)?),
            crc: if *crc == b"-" { None } else { Some(u32::try_from(hex(crc)?).ok()?) },
            gpl_only: *export == kind(true),
            namespace,
        });
    }
    Some(exports)
}

/// The SPEC's record `memory`: a line for each piece, its address and its bytes, all in hex.
fn memory_text(pieces: &BTreeMap<u64, Vec<u8>>) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for (address, bytes) in pieces {
        // Writing to a String does not fail.
        let _ = write!(out, "{address:#x} ");
        bytes.iter().for_each(|byte| {
            let _ = write!(out, "{byte:02x}");
        });
        out.push('\n');
    }
    out
}

fn parse_memory(text: &str) -> Option<BTreeMap<u64, Vec<u8>>> {
    let line = |line: &str| {
        let (address, bytes) = line.strip_prefix("0x")?.split_once(' ')?;
        Some((u64::from_str_radix(address, 16).ok()?, hex_bytes(bytes)?))
    };
    text.lines().map(line).collect()
}

fn symvers_text(symvers: &Symvers) -> Vec<u8> {
    let mut out = Vec::new();
    for exporter in symvers.exporters() {
        for export in symvers.exports().part(exporter.positions) {
            out.extend_from_slice(format!("{:#010x}", export.crc.unwrap_or(0)).as_bytes());
            for field in [export.name, exporter.path, kind(export.gpl_only), export.namespace] {
                out.push(b'\t');
                out.extend_from_slice(field);
            }
            out.push(b'\n');
        }
    }
    out
}

/// For a module that tells no version: the newest whose rules are exact.
pub fn newest() -> KernelConfig {
    KernelConfig::assumed(KernelVersion::new(6, 12, 0))
}

/// A kernel of which nothing is known but the rules: the newest whose rules are exact.
pub(crate) fn unknown() -> Kernel {
    Kernel::new(newest(), KernelParts::default())
}

/// The release that a module's vermagic begins with.
pub fn vermagic_release(module: &[u8]) -> Option<String> {
    // Only to learn which rules apply: the checks themselves come later.
    let opened = crate::load::open(module, &unknown(), LoadFlags::default());
    let vermagic = opened.module.as_ref()?.modinfo().get("vermagic")?;
    let vermagic = String::from_utf8_lossy(vermagic).into_owned();
    Some(vermagic.split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(text: &str) -> KernelSymbols {
        KernelSymbols::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn ksym_30_slide_and_two_kernels() {
        let link = symbols(
            "0000000000001000 A percpu\nffffffff81000000 T _text\nffffffff81000100 t f\nffffffff81000200 T g\n",
        );
        let live = symbols(
            "0000000000001000 A percpu\nffffffff9a000000 T _text\nffffffff9a000100 t f\nffffffff9a000200 T g\n",
        );
        assert_eq!(slide(&link, &live), Ok(0x1900_0000), "KSYM-30");
        assert_eq!(slid(0x1000, 0x1900_0000), 0x1000, "KSYM-31: per-cpu offsets stay");
        let other = symbols("ffffffff9a000000 T _text\nffffffff9a000110 t f\nffffffff9a000200 T g\n");
        assert!(slide(&link, &other).unwrap_err().contains("1 of 3"), "a mismatch is detected");
        assert!(slide(&link, &symbols("ffffffff9a000000 T nothing\n")).is_err());
    }

    #[test]
    fn a_description_survives_its_spec() {
        let export = |(name, crc, gpl_only, namespace)| Export {
            name,
            address: Some(0xffff_ffff_8100_0000),
            crc,
            gpl_only,
            namespace,
        };
        let exports = [(&b"a"[..], Some(7), true, &b"NS"[..]), (b"b", None, false, b"")];
        let description = Description {
            release: Some("6.12.0".into()),
            page_size: Some(4096),
            init_exit: Some((0x138, 0x4b0)),
            symbols: Some(symbols("ffffffff81000000 T _text\n")),
            exports: Some(exports.into_iter().map(export).collect()),
            ..Description::default()
        };
        let read = Description::from_records(Path::new("x"), &description.to_records()).unwrap();
        assert_eq!(read.exports, description.exports);
        assert_eq!(
            (read.release, read.page_size, read.init_exit),
            (description.release, Some(4096), Some((0x138, 0x4b0)))
        );
        assert_eq!(read.symbols.unwrap().address("_text"), Some(0xffff_ffff_8100_0000));
    }
}
