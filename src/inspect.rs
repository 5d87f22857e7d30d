//! `inspect`: what a module says about itself, and where its sections would go.

use std::collections::HashMap;

use elf_layout::elf::{SHN_UNDEF, STB_WEAK, SymFields};
use elf_layout::ksymtab;
use elf_layout::params::params;
use elf_layout::validity::THIS_MODULE;
use elf_layout::versions::{modversions, modversions_ext};
use elf_layout::{KernelConfig, ModuleFile, Placement};
use kernel::Kernel;
use reloc::Cpu;
use serde::Serialize;
use symres::LoadFlags;

use crate::document::{self, FindingEntry, RegionEntry, SectionEntry, crc, findings, some_text, text};
use crate::load::vermagic_release;
use crate::load::{LaidOut, Opened, lay_out, open};
use crate::loader::Loader;

/// Everything about one module file.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Inspection {
    /// The version of this document: 2.
    pub schema: u32,
    /// The file as it was named.
    pub file: String,
    /// Module name.
    pub module: String,
    /// `x86_64` or `aarch64`, null if it is of no known architecture.
    pub arch: Option<&'static str>,
    /// Release that it was built for.
    pub release: Option<String>,
    /// Bytes of the file without its signature.
    pub size: u64,
    /// The `.modinfo` strings in order, as tag and value.
    pub modinfo: Vec<(String, String)>,
    /// Its parameters in table order.
    pub parameters: Vec<ParameterEntry>,
    /// Undefined symbols in table order.
    pub imports: Vec<WantedEntry>,
    /// Exports in table order.
    pub exports: Vec<OfferedEntry>,
    /// Its signature, null if it has none.
    pub signature: Option<SignatureEntry>,
    /// Regions where a kernel of that release would put them first.
    pub regions: Vec<RegionEntry>,
    /// All sections.
    pub sections: Vec<SectionEntry>,
    /// What is wrong with the file.
    pub findings: Vec<FindingEntry>,
}

/// One parameter.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ParameterEntry {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Value before any is set, null if only the module's own code can tell.
    pub default: Option<String>,
    /// Mode of its sysfs file in octal, null if it has none.
    pub perm: Option<String>,
    /// Setting it taints the kernel.
    #[serde(rename = "unsafe")]
    pub is_unsafe: bool,
    /// It sets hardware resources, and is refused under lockdown.
    pub hardware: bool,
    /// Its description.
    pub description: Option<String>,
}

/// One undefined symbol.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct WantedEntry {
    /// Its name.
    pub name: String,
    /// The CRC that the module expects, null if it expects none.
    pub crc: Option<String>,
    /// Weak: it may be missing.
    pub weak: bool,
}

/// One export.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct OfferedEntry {
    /// Its name.
    pub name: String,
    /// Its CRC.
    pub crc: Option<String>,
    /// For GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, null if none.
    pub namespace: Option<String>,
}

/// What a signature says about itself; the fields are those that `modinfo` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct SignatureEntry {
    /// `PKCS#7`
    pub sig_id: &'static str,
    /// Common name of the certificate's issuer.
    pub signer: Option<String>,
    /// Serial number of the certificate, or its subject key identifier: hex pairs.
    pub sig_key: Option<String>,
    /// Hash algorithm.
    pub sig_hashalgo: Option<String>,
    /// The signature value: hex pairs.
    pub signature: Option<String>,
}

impl SignatureEntry {
    /// Facts, not a verdict: what says nothing readable is a signature all the same.
    #[cfg(feature = "signature")]
    fn of(pkcs7: &[u8]) -> Self {
        let signer = module_signature::signer::read(pkcs7).unwrap_or_default();
        SignatureEntry {
            sig_id: "PKCS#7",
            signer: signer.signer,
            sig_key: signer.sig_key,
            sig_hashalgo: signer.sig_hashalgo,
            signature: signer.signature,
        }
    }

    /// This build reads no PKCS#7 messages.
    #[cfg(not(feature = "signature"))]
    fn of(_: &[u8]) -> Self {
        SignatureEntry { sig_id: "PKCS#7", signer: None, sig_key: None, sig_hashalgo: None, signature: None }
    }
}

/// Reads a module file; `bytes` are already decompressed. `None` if it is no module at all, then
/// the findings say why.
pub fn inspect(file: &str, bytes: &[u8]) -> Result<Inspection, Vec<FindingEntry>> {
    let release = vermagic_release(bytes);
    let config = release
        .as_deref()
        .and_then(|r| KernelConfig::of_release(r, reloc::MACHINES))
        .unwrap_or_else(kernel::newest);
    let kernel = Kernel::unknown(config.clone());
    let Opened { signature, module, mut said, .. } = open(bytes, &kernel, LoadFlags::default());
    // VAL-13: what is laid out by another machine's rules is not read.
    // VAL-45: without struct module it is some other ELF file.
    let is_known = |module: &ModuleFile<'_>| {
        reloc::architecture(module.e_machine()).is_some() && module.find_any_sec(THIS_MODULE) != 0
    };
    let Some(module) = module.filter(is_known) else {
        return Err(findings(&said));
    };
    let mut regions = Vec::new();
    let mut sections = Vec::new();
    let mut arch = None;
    if let Some(architecture) = reloc::architecture(module.e_machine())
        && let Some(LaidOut { info, layout, .. }) =
            lay_out(&config, &module, architecture, Cpu::default(), &mut said)
    {
        let bases = Loader::from(kernel).place(architecture, &info, &layout).unwrap_or_default();
        let placement = Placement { bases, percpu: None };
        arch = Some(architecture.name());
        regions = document::regions(&layout, &placement);
        sections = document::sections(&info, &layout, &placement);
    }
    Ok(Inspection {
        schema: document::SCHEMA,
        file: file.to_owned(),
        module: module.name_text().into_owned(),
        arch,
        release,
        size: module.bytes().len() as u64,
        modinfo: module.modinfo().entries().map(|(tag, value)| (text(tag), whole(value))).collect(),
        parameters: parameters(&module),
        imports: wanted(&module),
        exports: offered(&module, &config),
        signature: signature.pkcs7.map(SignatureEntry::of),
        regions,
        sections,
        findings: findings(&said),
    })
}

/// A string of `.modinfo` uncut: those do not overlap, so all together are no longer than the file.
fn whole(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn parameters(module: &ModuleFile<'_>) -> Vec<ParameterEntry> {
    let entry = |p: elf_layout::params::Param<'_>| ParameterEntry {
        name: text(p.name),
        kind: p.kind,
        default: p.default,
        perm: (p.perm != 0).then(|| format!("{:04o}", p.perm)),
        is_unsafe: p.flags & 1 != 0,
        hardware: p.flags & 2 != 0,
        description: p.description.map(whole),
    };
    params(module).into_iter().map(entry).collect()
}

fn wanted(module: &ModuleFile<'_>) -> Vec<WantedEntry> {
    let index = module.index();
    let bytes = |i: usize| if i == 0 { &[][..] } else { module.section_bytes(i) };
    let basic = modversions(bytes(index.vers));
    let extended = modversions_ext(bytes(index.vers_ext_crc), bytes(index.vers_ext_name));
    let mut crcs: HashMap<&[u8], u64> = HashMap::new();
    for version in extended.chain(basic) {
        crcs.entry(version.name).or_insert(version.crc);
    }
    let undefined = module.symbols().iter().skip(1).filter(|s| s.shndx() == SHN_UNDEF);
    let entry = |s: &elf_layout::elf::Sym| {
        let name = module.symbol_name(s);
        WantedEntry {
            name: text(name),
            crc: crcs.get(name).map(|c| format!("{c:#010x}")),
            weak: s.bind() == STB_WEAK,
        }
    };
    undefined.map(entry).collect()
}

fn offered(module: &ModuleFile<'_>, config: &KernelConfig) -> Vec<OfferedEntry> {
    let entry = |e: ksymtab::ModuleExport<'_>| OfferedEntry {
        name: text(e.name),
        crc: e.crc.map(crc),
        gpl_only: e.gpl_only,
        namespace: some_text(e.namespace),
    };
    ksymtab::exports(module, config.changes()).into_iter().map(entry).collect()
}
