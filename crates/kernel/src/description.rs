//! What is known of a kernel: facts that loading modules does not change.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use elf_layout::{Coverage, KernelConfig, KernelVersion, Machine};

use crate::boot::BootParams;
use crate::btf::BaseBtf;
use crate::built_in::BuiltIn;
use crate::exports::ExportTable;
use crate::kallsyms::KernelSymbols;
use crate::keyring::Keyring;
use crate::known::{Fact, Found, Known};
use crate::memory::LinkMemory;
use crate::module::LoadedModule;
use crate::tables::Tables;
use crate::types::Types;

/// An export of a module that is not loaded, as Module.symvers tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotLoaded<'k> {
    /// The module that would export it.
    pub module: &'k [u8],
    /// To GPL-compatible modules only.
    pub gpl_only: bool,
    /// Its namespace, empty if none.
    pub namespace: &'k [u8],
}

/// A kernel as it is described. [`crate::KernelDescriptionBuilder`] makes one; it is shared by [`Arc`] and does not
/// change. Copies share what is large.
#[derive(Clone, Debug)]
pub struct KernelDescription {
    /// Release (`uname -r`), empty if not known.
    pub release: String,
    /// The string that vermagic is compared with, if known (VER-20).
    pub vermagic: Option<Vec<u8>>,
    /// What follows the release in that string, blank first, where only this is known.
    pub vermagic_words: Option<Vec<u8>>,
    /// `Linux version ...`, if known.
    pub banner: Option<String>,
    /// Version and configuration.
    pub config: KernelConfig,
    /// Its architecture, if known.
    pub machine: Option<&'static Machine>,
    /// All symbols, at the addresses where the kernel runs.
    pub symbols: Arc<KernelSymbols>,
    /// Its built-in modules, as far as they are known.
    pub built_in: Arc<BuiltIn>,
    /// Certificates that are built into it to trust modules by, each as DER; empty if they are not known.
    pub certificates: Vec<Vec<u8>>,
    /// Those of its keyrings, as far as they are known, with the keyring that each is in.
    pub keyring: Vec<(Keyring, Vec<u8>)>,
    /// The hashes in its blacklist: `bin:HEX` of whole modules, `tbs:HEX` of what is signed of certificates (SIG-9).
    pub blacklist: Vec<String>,
    /// Its BTF, which that of modules goes on from; `None` if it has none or it is not known.
    pub btf: Option<Arc<BaseBtf>>,
    /// The layout of its types.
    pub types: Arc<Types>,
    /// Its memory at link addresses.
    pub memory: Arc<LinkMemory>,
    /// How far it runs from its link addresses, in bytes (KSYM-30).
    pub slide: u64,
    /// Its command line.
    pub cmdline: String,
    /// What of that changes how modules are loaded.
    pub boot: BootParams,
    /// What came from where, in the order in which it was found.
    pub found: Vec<Found>,
    pub(crate) tables: Tables,
    pub(crate) known: BTreeMap<Fact, Known>,
}

/// The configuration of a kernel of unknown version: the newest whose rules are exact.
pub fn newest() -> KernelConfig {
    KernelConfig::assumed(KernelVersion::new(6, 12, 0))
}

impl KernelDescription {
    /// Where the kernel keeps the bitmap of its CPUs' capabilities, and how many bytes of it there are at most.
    pub fn cpu_capabilities(&self) -> Option<(u64, u64)> {
        /// A bitmap of which the kernel's types tell no size is not larger.
        const LARGEST: u64 = 64;
        self.machine?.cpu_capabilities.iter().find_map(|bitmap| {
            let address = self.symbols.address(bitmap.symbol)?;
            let Some((of, member)) = bitmap.member else { return Some((address, LARGEST)) };
            let member = self.types.member(of, member)?;
            Some((address.checked_add(member.offset)?, member.size))
        })
    }

    /// A kernel of which nothing is known but its version and configuration.
    pub fn unknown(config: KernelConfig) -> Self {
        KernelDescription {
            release: String::new(),
            vermagic: None,
            vermagic_words: None,
            banner: None,
            config,
            machine: None,
            symbols: Arc::default(),
            built_in: Arc::default(),
            certificates: Vec::new(),
            keyring: Vec::new(),
            blacklist: Vec::new(),
            btf: None,
            types: Arc::default(),
            memory: Arc::default(),
            slide: 0,
            cmdline: String::new(),
            boot: BootParams::default(),
            found: Vec::new(),
            tables: Tables::default(),
            known: BTreeMap::from([(Fact::Config, Known::Assumed)]),
        }
    }

    /// How far what kmodld says of it is known to be right.
    pub fn coverage(&self) -> Coverage {
        Coverage::of(&self.config)
    }

    /// How a fact is known; `None` if it is not.
    pub fn known(&self, fact: Fact) -> Option<&Known> {
        self.known.get(&fact)
    }

    /// Is anything known of the kernel's symbols or exports?
    pub fn is_described(&self) -> bool {
        let facts = [Fact::Symbols, Fact::Exports, Fact::NotLoaded];
        facts.iter().any(|fact| self.known.contains_key(fact))
    }

    /// The same without its certificates: a kernel that verifies no signature (SIG-8).
    #[must_use]
    pub fn without_certificates(&self) -> Self {
        let mut other = self.clone();
        other.certificates = Vec::new();
        other.known.remove(&Fact::Certificates);
        other
    }

    /// The certificates of a keyring, those built in too.
    pub fn keys_of(&self, ring: Keyring) -> impl Iterator<Item = &Vec<u8>> {
        let built_in = self.certificates.iter().filter(move |_| ring == Keyring::Builtin);
        built_in.chain(self.keyring.iter().filter(move |(of, _)| *of == ring).map(|(_, der)| der))
    }

    /// All certificates that it is known to trust modules by (SIG-8).
    pub fn trusted(&self) -> impl Iterator<Item = &Vec<u8>> {
        let asked = |ring: &Keyring| ring.is_asked(&self.config) == Some(true);
        let rings = Keyring::NAMED.into_iter().chain([Keyring::Unnamed]).filter(asked);
        rings.flat_map(|ring| self.keys_of(ring))
    }

    /// What the kernel itself exports.
    pub fn exports(&self) -> &ExportTable {
        &self.tables.own
    }

    /// The modules that its symbol table lists as loaded, oldest first.
    pub fn modules_listed(&self) -> &[Arc<LoadedModule>] {
        &self.tables.listed
    }

    /// The module that would export `name` if it were loaded.
    pub fn exporter_not_loaded(&self, name: &[u8]) -> Option<NotLoaded<'_>> {
        let module = self.not_loaded(name)?;
        let export = module.exports.find(name, true)?;
        Some(NotLoaded { module: &module.name, gpl_only: export.gpl_only, namespace: export.namespace })
    }

    /// The modules of Module.symvers that are not loaded.
    pub fn modules_not_loaded(&self) -> impl Iterator<Item = &LoadedModule> {
        self.tables.not_loaded.modules.iter().map(|module| &**module)
    }

    /// That module as Module.symvers describes it; the last one if several export `name`.
    pub fn not_loaded(&self, name: &[u8]) -> Option<&Arc<LoadedModule>> {
        self.tables.not_loaded.exporter(name)
    }
}
