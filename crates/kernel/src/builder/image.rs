//! What a kernel image adds to a description.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kernel_image::{Btf, KernelImage};

use super::{KernelDescriptionBuilder, Needs, set};
use crate::btf::BaseBtf;
use crate::built_in::Names;
use crate::error::Error;
use crate::exports::Export;
use crate::kallsyms::KernelSymbols;
use crate::known::{Fact, Found, Known};
use crate::memory::LinkMemory;
use crate::types::Types;

impl KernelDescriptionBuilder {
    /// All that an image tells. `config` is the text of its built-in configuration, if it has one: unpacking that is
    /// left to the caller.
    ///
    /// # Errors
    ///
    /// [`Error::Image`], if neither its symbols nor its exports are there, or one of them is damaged, or if that configuration
    /// cannot be read.
    pub fn image(
        mut self,
        from: &str,
        image: KernelImage<'_>,
        config: Option<Result<Vec<u8>, kernel_image::Error>>,
        needs: &Needs,
    ) -> Result<Self, Error> {
        let e_machine = Some(u64::from(image.machine().e_machine));
        let told = [
            (Fact::Release, set(&mut self.release, image.release().map(text))),
            (Fact::Vermagic, set(&mut self.vermagic, image.vermagic().map(text))),
            (Fact::Banner, set(&mut self.banner, image.banner().map(text))),
            (Fact::Machine, set(&mut self.e_machine, e_machine)),
            (Fact::PageSize, set(&mut self.page_size, image.page_size().map(u64::from))),
        ];
        self.note_told(told, &Known::Image);
        let containers: Vec<String> = image.containers().iter().map(ToString::to_string).collect();
        let shell =
            if containers.is_empty() { String::new() } else { format!(" in {}", containers.join(", ")) };
        self.tell("image", format!("{}{shell} ({from})", image.format_name()));

        let kallsyms = image.kallsyms().map_err(Clone::clone);
        let exports = image.exports();
        // One of the two alone is of use: what it does not tell can be given (--symtab, --symvers).
        match (&kallsyms, &exports) {
            (Err(_), Err(kernel_image::Error::NoModules)) => {
                return Err(kernel_image::Error::NoModules.into());
            }
            (Err(error), Err(_)) => return Err(error.clone().into()),
            (Err(error @ kernel_image::Error::DamagedKallsyms { .. }), _)
            | (_, Err(error @ kernel_image::Error::DamagedExports { .. })) => {
                return Err(error.clone().into());
            }
            _ => {}
        }
        match kallsyms {
            Ok(kallsyms) => {
                let symbols = KernelSymbols::of_kernel(kallsyms.iter().map(|s| (s.address, s.kind, s.name)))?;
                self.tell("symbols", format!("{} in {}", symbols.len(), kallsyms.layout()));
                self.symbols = Some(symbols);
                self.note(Fact::Symbols, Known::Image);
            }
            Err(error) => self.tell("symbols", format!("none: {error}")),
        }
        match exports {
            Ok(exports) => {
                self.tell("exports", format!("{} in __ksymtab, found {}", exports.len(), exports.source()));
                let all = exports.iter().map(|e| Export {
                    name: e.name,
                    address: Some(e.address),
                    crc: e.crc,
                    gpl_only: e.gpl_only,
                    namespace: e.namespace.unwrap_or_default(),
                });
                self.exports = Some(all.collect());
                self.note(Fact::Exports, Known::Image);
            }
            Err(error) => self.tell("exports", format!("none: {error}")),
        }

        match image.btf() {
            Ok(btf) => {
                self.tell("BTF", format!("{} types", btf.len()));
                self.add_btf(&btf, needs, &Known::Image);
            }
            Err(e) => self.tell("BTF", format!("none: {e}")),
        }
        if let Some(config) = config {
            self.config_text = Some(config?);
            self.note(Fact::Config, Known::Image);
            self.tell("configuration", String::from("built in (IKCONFIG)"));
        }
        if let Some(built_in) = image.built_in() {
            let folders: Names = built_in.iter().filter(|b| b.folder).map(|b| Box::from(b.module)).collect();
            self.tell("built-in modules", format!("{} have a folder in /sys/module", folders.len()));
            self.built_in.names.extend(built_in.iter().map(|b| Box::from(b.module)));
            self.built_in.folders = Some(folders);
        }
        let drivers = image.registering();
        self.built_in.drivers = drivers.map(|all| all.into_iter().map(Box::from).collect());
        let certificates = image.certificates();
        self.tell("certificates", format!("{}, found {}", certificates.der.len(), certificates.source));
        self.certificates = certificates.der.iter().map(|der| der.to_vec()).collect();
        self.note(Fact::Certificates, Known::Image);
        self.memory = LinkMemory::Image(Box::new(image.into_owned()));
        self.note(Fact::Memory, Known::Image);
        Ok(self)
    }

    /// The kernel's BTF by itself, as a running one shows it (`/sys/kernel/btf/vmlinux`).
    ///
    /// # Errors
    ///
    /// [`Error::Image`], if these bytes are no BTF.
    pub fn btf(mut self, from: &str, bytes: &[u8], needs: &Needs) -> Result<Self, Error> {
        let btf = Btf::parse(bytes)?;
        self.tell("BTF", format!("{} types ({from})", btf.len()));
        self.add_btf(&btf, needs, &Known::given(from));
        Ok(self)
    }

    fn add_btf(&mut self, btf: &Btf<'_>, needs: &Needs, known: &Known) {
        self.struct_module_size = btf.struct_size("module");
        let offset = |member| btf.member("module", member).map(|m| m.offset);
        self.init_exit = offset("init").zip(offset("exit"));
        self.types = Types::of(btf, &needs.types);
        self.btf = Some(BaseBtf::of(btf));
        for fact in [Fact::StructModule, Fact::Types, Fact::Btf] {
            self.note(fact, known.clone());
        }
    }

    fn tell(&mut self, what: &'static str, how: String) {
        self.found.push(Found { what, how });
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\n').to_string()
}
