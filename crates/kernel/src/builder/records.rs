//! A description as the records of a SPEC (`docs/spec-file.md`).

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use elf_layout::KernelConfig;

use super::shown::Shown;
use super::{KernelDescriptionBuilder, Needs, set};
use crate::btf::BaseBtf;
use crate::built_in::{Names, Told};
use crate::description::newest;
use crate::error::Error;
use crate::exports::Exports;
use crate::kallsyms::KernelSymbols;
use crate::known::{Fact, Known};
use crate::memory::LinkMemory;
use crate::spec::{Records, SYMVERS, memory_text, parse_exports, parse_memory};
use crate::symvers::Symvers;
use crate::types::Types;

/// Records that begin so hold a certificate each.
const CERTIFICATE: &str = "certificate-";
/// Tables that are searched where they lie. A SPEC may have texts instead, but for BTF.
const SYMBOLS: &str = "kallsyms-table";
const EXPORTS: &str = "exports-table";
const BTF: &str = "btf-table";

impl KernelDescriptionBuilder {
    /// All facts of a SPEC.
    ///
    /// # Errors
    ///
    /// That of the record that is malformed.
    pub fn records(mut self, from: &str, records: &Records) -> Result<Self, Error> {
        let number = |name| records.number(name);
        let page_size = number("page-size").filter(|size| size.is_power_of_two());
        let symbols = match records.shared(SYMBOLS) {
            Some(table) => Some(KernelSymbols::of_record(table).ok_or(Error::Record(SYMBOLS))?),
            None => records.get("kallsyms").map(KernelSymbols::parse).transpose()?,
        };
        let symvers = match records.shared(SYMVERS) {
            Some(table) => Some(Symvers::of_record(table).ok_or(Error::Record(SYMVERS))?),
            None => records.get("symvers").map(Symvers::parse).transpose()?,
        };
        let memory = records.text("memory");
        let memory = memory.map(|text| parse_memory(&text).ok_or(Error::Record("memory"))).transpose()?;
        let exports = match (records.shared(EXPORTS), records.get("exports")) {
            (Some(table), _) => Some(Exports::of_record(table).ok_or(Error::Record(EXPORTS))?),
            (None, Some(text)) => Some(parse_exports(text).ok_or(Error::Record("exports"))?),
            (None, None) => None,
        };
        let btf = records.shared(BTF);
        let btf = btf.map(|table| BaseBtf::of_record(table).ok_or(Error::Record(BTF))).transpose()?;
        let mut told = vec![
            (Fact::Release, set(&mut self.release, records.text("release"))),
            (Fact::Vermagic, set(&mut self.vermagic, records.text("vermagic"))),
            (Fact::Banner, set(&mut self.banner, records.text("banner"))),
            (Fact::Machine, set(&mut self.e_machine, number("machine"))),
            (Fact::PageSize, set(&mut self.page_size, page_size)),
            (Fact::StructModule, set(&mut self.struct_module_size, number("struct-module-size"))),
            (Fact::Config, set(&mut self.config_text, records.get("config").map(<[u8]>::to_vec))),
            (Fact::Symbols, set(&mut self.symbols, symbols)),
            (Fact::Exports, exports.is_some() || symvers.is_some()),
            (Fact::NotLoaded, set(&mut self.symvers, symvers)),
            (Fact::Btf, set(&mut self.btf, btf)),
        ];
        set(&mut self.init_exit, number("struct-module-init").zip(number("struct-module-exit")));
        set(&mut self.exports, exports);
        if let Some(text) = records.text("options") {
            self.shown = Shown::parse(&text);
        }
        if let Some(text) = records.text("types") {
            self.types = Types::parse(&text);
            told.push((Fact::Types, true));
        }
        if let Some(pieces) = memory {
            self.memory = LinkMemory::Pieces(pieces);
            told.push((Fact::Memory, true));
        }
        self.built_in.names.extend(records.get("built-in").into_iter().flat_map(lines));
        let listed = |name| records.get(name).map(|text| lines(text).collect());
        set(&mut self.built_in.folders, listed("module-folders"));
        set(&mut self.built_in.drivers, listed("driver-modules"));
        let certificates = self.certificates.len();
        self.certificates.extend(records.all(CERTIFICATE).map(<[u8]>::to_vec));
        let has_none = number("certificates") == Some(0);
        told.push((Fact::Certificates, has_none || self.certificates.len() != certificates));
        self.note_told(told, &Known::given(from));
        self.find("everything", from, "read from a SPEC");
        Ok(self)
    }

    /// The records of a SPEC that keeps all of this, and as much of the kernel's memory as is needed.
    pub fn to_records(&self, needs: &Needs) -> Records {
        let mut records = Records::default();
        let texts = [("release", &self.release), ("vermagic", &self.vermagic), ("banner", &self.banner)];
        for (name, text) in texts {
            text.iter().for_each(|text| records.set(name, text.as_str()));
        }
        let (init, exit) = self.init_exit.unzip();
        let numbers = [
            ("machine", self.e_machine),
            ("page-size", self.page_size),
            ("struct-module-size", self.struct_module_size),
            ("struct-module-init", init),
            ("struct-module-exit", exit),
        ];
        for (name, number) in numbers {
            number.iter().for_each(|number| records.set(name, number.to_string()));
        }
        self.config_text.iter().for_each(|config| records.set("config", config.as_slice()));
        self.symbols.iter().for_each(|symbols| records.set(SYMBOLS, symbols.to_record()));
        self.exports.iter().for_each(|exports| records.set(EXPORTS, exports.to_record()));
        self.symvers.iter().for_each(|symvers| records.set(SYMVERS, symvers.to_record()));
        self.btf.iter().for_each(|btf| records.set(BTF, btf.to_record()));
        if !self.types.is_empty() {
            records.set("types", self.types.to_text());
        }
        if let (Some(symbols), Some(exports)) = (&self.symbols, &self.exports) {
            let pieces = self.memory.pieces(&needs.memory, symbols, exports);
            if !pieces.is_empty() {
                records.set("memory", memory_text(&pieces));
            }
        }
        let Told { names, folders, drivers } = &self.built_in;
        let names = Some(names).filter(|names| !names.is_empty());
        for (name, list) in
            [("built-in", names), ("module-folders", folders.as_ref()), ("driver-modules", drivers.as_ref())]
        {
            list.iter().for_each(|list| records.set(name, text_of(list)));
        }
        if self.known.contains_key(&Fact::Certificates) && self.certificates.is_empty() {
            records.set("certificates", "0");
        }
        if self.config_text.is_none() {
            let config = KernelConfig::of_release(self.release.as_deref().unwrap_or_default(), &[]);
            let shown = self.shown(&config.unwrap_or_else(newest));
            if !shown.is_empty() {
                records.set("options", shown.to_text());
            }
        }
        for (n, der) in self.certificates.iter().enumerate() {
            records.set(&format!("{CERTIFICATE}{n:04}"), der.as_slice());
        }
        records
    }
}

/// A name in each line.
fn text_of(names: &Names) -> Vec<u8> {
    names.iter().flat_map(|name| [&**name, b"\n"].concat()).collect()
}

/// Reads that.
fn lines(text: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::Export;

    const NEEDS: Needs = Needs { types: Vec::new(), memory: Vec::new() };

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
        let exports: Exports = exports.into_iter().map(export).collect();
        let builder = KernelDescriptionBuilder {
            release: Some("6.12.0".into()),
            page_size: Some(4096),
            init_exit: Some((0x138, 0x4b0)),
            symbols: Some(KernelSymbols::parse(b"ffffffff81000000 T _text\n").unwrap()),
            exports: Some(exports),
            built_in: Told {
                names: lines(b"a\nb").collect(),
                folders: Some(lines(b"a").collect()),
                drivers: Some(Names::new()),
            },
            ..KernelDescriptionBuilder::default()
        };
        let records = builder.to_records(&NEEDS);
        let read = KernelDescriptionBuilder::new().records("x", &records).unwrap();
        assert_eq!(read.exports, builder.exports);
        assert_eq!(read.built_in, builder.built_in, "LIFE-41");
        assert_eq!(
            (read.release.as_deref(), read.page_size, read.init_exit),
            (Some("6.12.0"), Some(4096), Some((0x138, 0x4b0)))
        );
        assert_eq!(read.symbols.as_ref().unwrap().address("_text"), Some(0xffff_ffff_8100_0000));
        assert_eq!(read.to_records(&NEEDS), records);
        assert_eq!(read.known.get(&Fact::Release), Some(&Known::given("x")));
        assert_eq!(read.known.get(&Fact::Config), None);
    }
}
