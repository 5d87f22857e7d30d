//! Kernel images: what `kernel-image` finds in one, as a [`Description`].

use std::path::Path;

use kernel_image::{ImageArch, KernelImage};
use symres::Export;
use symres::kallsyms::KernelSymbols;

use super::{Description, Found};
use crate::error::Error;
use crate::running::{LinkMemory, Types};

/// Reads an image in any container. Without symbols or exports it is of no use.
pub fn read(path: &Path, bytes: &[u8]) -> Result<Description, Error> {
    if bytes.is_empty() {
        return Err(Error::unusable(path, "not a kernel image: the file is empty"));
    }
    let bad = |e: &kernel_image::Error| Error::unusable(path, e.to_string());
    let known: Vec<&dyn ImageArch> =
        reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let image = KernelImage::open(bytes, KernelImage::DEFAULT_LIMIT, &known).map_err(|e| bad(&e))?;
    let mut out = Description {
        release: image.release().map(text),
        vermagic: image.vermagic().map(text),
        banner: image.banner().map(text),
        machine: Some(image.machine().e_machine),
        page_size: image.page_size().map(u64::from),
        ..Description::default()
    };
    let containers: Vec<String> = image.containers().iter().map(ToString::to_string).collect();
    let shell = if containers.is_empty() { String::from("no container") } else { containers.join(", ") };
    out.note("image", format!("{} in {shell} ({})", image.format_name(), path.display()));

    let kallsyms = image.kallsyms().map_err(bad)?;
    let symbols = KernelSymbols::of_kernel(kallsyms.iter().map(|s| (s.address, s.kind, s.name)))
        .map_err(|source| Error::Kernel { path: path.to_owned(), source })?;
    out.note("symbols", format!("{} in kallsyms tables, {:?}", symbols.len(), kallsyms.layout()));
    out.symbols = Some(symbols);

    let exports = image.exports().map_err(|e| bad(&e))?;
    out.note("exports", format!("{} in __ksymtab, found by {:?}", exports.len(), exports.source()));
    let all = exports.iter().map(|e| Export {
        name: e.name,
        address: Some(e.address),
        crc: e.crc,
        gpl_only: e.gpl_only,
        namespace: e.namespace.unwrap_or_default(),
    });
    out.exports = Some(all.collect());

    match image.btf() {
        Ok(btf) => {
            out.struct_module_size = btf.struct_size("module");
            let offset = |member| btf.member("module", member).map(|m| m.offset);
            out.init_exit = offset("init").zip(offset("exit"));
            out.types = Types::of(&btf);
            out.note("BTF", format!("{} types", btf.len()));
            out.btf = Some(btf.blob().to_vec());
        }
        Err(e) => out.note("BTF", format!("none: {e}")),
    }
    if let Some(config) = image.config() {
        out.config = Some(config.map_err(|e| bad(&e))?);
        out.note("configuration", String::from("built in (IKCONFIG)"));
    }
    let certificates = image.certificates();
    out.note("certificates", format!("{}, found by {:?}", certificates.der.len(), certificates.source));
    out.certificates = certificates.der.iter().map(|der| der.to_vec()).collect();
    out.memory = LinkMemory::Image(Box::new(image.into_owned()));
    Ok(out)
}

impl Description {
    fn note(&mut self, what: &'static str, how: String) {
        self.found.push(Found { what, how });
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
}
