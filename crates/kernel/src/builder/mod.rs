//! Builds the description of a kernel from all sources there are.

mod image;
mod pieces;
mod records;
mod shown;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use elf_layout::Coverage;

use elf_layout::{Change, KernelConfig, KernelVersion, Machine, Setting};

use crate::boot::BootParams;
use crate::btf::BaseBtf;
use crate::built_in::{self, BuiltIn};
use crate::description::{KernelDescription, newest};
use crate::error::Error;
use crate::exports::Exports;
use crate::kallsyms::KernelSymbols;
use crate::keyring::Keyring;
use crate::known::{Fact, Found, Known};
use crate::memory::{LinkMemory, Part};
use crate::symvers::Symvers;
use crate::tables::Tables;
use crate::types::Types;

use shown::Shown;

/// What later stages read of a kernel beside its symbols: what is taken out of a BTF, and kept of an image in a SPEC.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Structs and members.
    pub types: Vec<(&'static str, &'static [&'static str])>,
    /// Memory.
    pub memory: Vec<Part>,
}

/// All that is known of a kernel so far. Every image, SPEC and text adds to it, and says where it comes from;
/// [`KernelDescriptionBuilder::build`] joins them.
#[derive(Clone, Debug, Default)]
pub struct KernelDescriptionBuilder {
    release: Option<String>,
    /// The version whose rules to take if nothing tells the kernel's.
    assumed_version: Option<KernelVersion>,
    vermagic: Option<String>,
    banner: Option<String>,
    e_machine: Option<u64>,
    page_size: Option<u64>,
    struct_module_size: Option<u64>,
    init_exit: Option<(u64, u64)>,
    /// Given outright; the texts do not count then.
    config: Option<KernelConfig>,
    config_text: Option<Vec<u8>>,
    /// The kernel itself has that text: it needs no proof of being this kernel's.
    config_is_own: bool,
    /// What an image showed of it, as a SPEC keeps it.
    shown: Shown,
    /// At link addresses.
    symbols: Option<KernelSymbols>,
    live_symbols: Option<KernelSymbols>,
    exports: Option<Exports>,
    symvers: Option<Symvers>,
    memory: LinkMemory,
    types: Types,
    built_in: built_in::Told,
    certificates: Vec<Vec<u8>>,
    keyring: Vec<(Keyring, Vec<u8>)>,
    blacklist: Vec<String>,
    btf: Option<BaseBtf>,
    cmdline: String,
    found: Vec<Found>,
    known: BTreeMap<Fact, Known>,
}

/// Adding what is at hand. `from` names the file or the option that it comes from.
impl KernelDescriptionBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        KernelDescriptionBuilder::default()
    }

    /// Its release (`uname -r`).
    #[must_use]
    pub fn release(mut self, from: &str, release: &str) -> Self {
        self.release = Some(release.to_owned());
        self.note(Fact::Release, Known::given(from));
        self
    }

    /// The version whose rules to take if nothing tells the kernel's, such as that which a module was built for. The
    /// kernel's version stays unknown.
    #[must_use]
    pub fn assume_version(mut self, version: Option<KernelVersion>) -> Self {
        self.assumed_version = version;
        self
    }

    /// The string that vermagic is compared with.
    #[must_use]
    pub fn vermagic(mut self, from: &str, vermagic: &str) -> Self {
        self.vermagic = Some(vermagic.to_owned());
        self.note(Fact::Vermagic, Known::given(from));
        self
    }

    /// The `e_machine` of its architecture.
    #[must_use]
    pub fn e_machine(mut self, from: &str, e_machine: u16) -> Self {
        self.e_machine = Some(u64::from(e_machine));
        self.note(Fact::Machine, Known::given(from));
        self
    }

    /// The text of its `.config`.
    #[must_use]
    pub fn config_text(mut self, from: &str, text: Vec<u8>) -> Self {
        self.config_text = Some(text);
        self.config_is_own = false;
        self.note(Fact::Config, Known::given(from));
        self.find("configuration", from, "read as text");
        self
    }

    /// The text that the running kernel itself gives out (`/proc/config.gz`). Whatever release it names, it is this kernel's:
    /// builders leave CONFIG_BUILD_SALT of the configuration that they began with.
    #[must_use]
    pub fn own_config_text(self, from: &str, text: Vec<u8>) -> Self {
        KernelDescriptionBuilder { config_is_own: true, ..self.config_text(from, text) }
    }

    /// Its version and configuration outright: what release, vermagic and `.config` tell of them does not count.
    #[must_use]
    pub fn config(mut self, from: &str, config: KernelConfig) -> Self {
        self.config = Some(config);
        self.note(Fact::Config, Known::given(from));
        self
    }

    /// Symbols at link addresses, such as those of System.map.
    #[must_use]
    pub fn symbols(mut self, from: &str, symbols: impl Into<Option<KernelSymbols>>) -> Self {
        if let Some(symbols) = symbols.into() {
            self.symbols = Some(symbols);
            self.note(Fact::Symbols, Known::given(from));
            self.find("symbols", from, "System.map");
        }
        self
    }

    /// Symbols of the running kernel, with its modules: `/proc/kallsyms`, or System.map of a kernel that does not move.
    #[must_use]
    pub fn live_symbols(mut self, from: &str, symbols: impl Into<Option<KernelSymbols>>) -> Self {
        if let Some(symbols) = symbols.into() {
            self.live_symbols = Some(symbols);
            self.note(Fact::Symbols, Known::given(from));
            self.find("symbols of the running kernel", from, "read as text");
        }
        self
    }

    /// Module.symvers.
    #[must_use]
    pub fn symvers(mut self, from: &str, symvers: impl Into<Option<Symvers>>) -> Self {
        if let Some(symvers) = symvers.into() {
            self.symvers = Some(symvers);
            self.known.entry(Fact::Exports).or_insert_with(|| Known::given(from));
            self.note(Fact::NotLoaded, Known::given(from));
            self.find("Module.symvers", from, "read as text");
        }
        self
    }

    /// Names of modules that are built in: the lines of `modules.builtin`.
    #[must_use]
    pub fn modules_builtin(mut self, from: &str, text: &[u8]) -> Self {
        let files = text.split(|b| *b == b'\n').filter_map(|line| line.rsplit(|b| *b == b'/').next());
        let names = files.filter_map(|file| file.trim_ascii().strip_suffix(b".ko")).map(|stem| {
            // KBUILD_MODNAME
            stem.iter().map(|b| if *b == b'-' { b'_' } else { *b }).collect()
        });
        self.built_in.names.extend(names);
        self.find("built-in modules", from, "read as text");
        self
    }

    /// `sizeof(struct module)` in bytes, and the byte offsets of `init` and `exit` in it, as so many of its own modules show them.
    #[must_use]
    pub fn struct_module_shown(
        mut self,
        from: &str,
        modules: usize,
        size: u64,
        init_exit: (u64, u64),
    ) -> Self {
        (self.struct_module_size, self.init_exit) = (Some(size), Some(init_exit));
        self.note(Fact::StructModule, Known::given(from));
        self.find("struct module", from, &format!("as {modules} of its own modules have it"));
        self
    }

    /// Certificates of a keyring beside those built in, each as DER.
    #[must_use]
    pub fn keyring(
        mut self,
        from: &str,
        ring: Keyring,
        certificates: impl IntoIterator<Item = Vec<u8>>,
    ) -> Self {
        self.keyring.extend(certificates.into_iter().map(|der| (ring, der)));
        self.note(Fact::Keyring, Known::given(from));
        self
    }

    /// Hashes of its blacklist, `bin:HEX` or `tbs:HEX`.
    #[must_use]
    pub fn blacklist(mut self, from: &str, hashes: impl IntoIterator<Item = String>) -> Self {
        self.blacklist.extend(hashes);
        self.note(Fact::Keyring, Known::given(from));
        self
    }

    /// The layout of its types.
    #[must_use]
    pub fn types(mut self, from: &str, types: Types) -> Self {
        self.types = types;
        self.note(Fact::Types, Known::given(from));
        self
    }

    /// What BTF of modules refers to.
    #[must_use]
    pub fn base_btf(mut self, from: &str, btf: impl Into<Option<BaseBtf>>) -> Self {
        if let Some(btf) = btf.into() {
            self.btf = Some(btf);
            self.note(Fact::Btf, Known::given(from));
        }
        self
    }

    /// Its command line.
    #[must_use]
    pub fn cmdline(mut self, from: &str, cmdline: &str) -> Self {
        self.cmdline = cmdline.to_owned();
        self.note(Fact::Cmdline, Known::given(from));
        self
    }

    /// Says that something was looked at, and what came of it.
    #[must_use]
    pub fn found_nothing(mut self, what: &'static str, from: &str, how: &str) -> Self {
        self.find(what, from, how);
        self
    }

    fn find(&mut self, what: &'static str, from: &str, how: &str) {
        self.found.push(Found { what, how: format!("{how} ({from})") });
    }

    fn note(&mut self, fact: Fact, known: Known) {
        self.known.insert(fact, known);
    }

    /// Notes how those facts are known that were told.
    fn note_told(&mut self, facts: impl IntoIterator<Item = (Fact, bool)>, known: &Known) {
        let told = facts.into_iter().filter(|(_, told)| *told);
        self.known.extend(told.map(|(fact, _)| (fact, known.clone())));
    }
}

/// Sets what is told and leaves what is not. Was it told?
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let told = value.is_some();
    if told {
        *slot = value;
    }
    told
}

/// What is there so far.
impl KernelDescriptionBuilder {
    /// Is there anything to load a module into?
    pub fn is_empty(&self) -> bool {
        self.symbols.is_none()
            && self.live_symbols.is_none()
            && self.exports.is_none()
            && self.symvers.is_none()
    }

    /// What came from where, in the order in which it was found.
    pub fn found(&self) -> &[Found] {
        &self.found
    }

    /// Its release.
    pub fn own_release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// The string that vermagic is compared with.
    pub fn own_vermagic(&self) -> Option<&str> {
        self.vermagic.as_deref()
    }

    /// `Linux version ...`
    pub fn banner(&self) -> Option<&str> {
        self.banner.as_deref()
    }

    /// PAGE_SIZE in bytes, if another source than the configuration has it.
    pub fn page_size(&self) -> Option<u64> {
        self.page_size
    }

    /// `sizeof(struct module)` in bytes, and the byte offsets of `init` and `exit` in it.
    pub fn struct_module(&self) -> (Option<u64>, Option<(u64, u64)>) {
        (self.struct_module_size, self.init_exit)
    }

    /// The CRC of one of its exports, if an image or Module.symvers has it.
    pub fn own_crc(&self, name: &[u8]) -> Option<u32> {
        if let Some(exports) = &self.exports {
            return exports.find(name)?.crc;
        }
        let symvers = self.symvers.as_ref()?;
        let own = symvers.exporters().filter(|exporter| exporter.module().is_none());
        let mut exports = own.flat_map(|exporter| symvers.exports().part(exporter.positions));
        exports.find(|export| export.name == name)?.crc
    }

    /// Symbols at link addresses.
    pub fn link_symbols(&self) -> Option<&KernelSymbols> {
        self.symbols.as_ref()
    }

    /// The kernel's own exports at link addresses, as its image has them.
    pub fn own_exports(&self) -> Option<&Exports> {
        self.exports.as_ref()
    }

    /// Is there the text of a `.config`?
    pub fn has_config_text(&self) -> bool {
        self.config_text.is_some()
    }

    /// The certificates that are built in, each as DER.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// The machine that an image or a SPEC names, among those known; `None` if there is neither.
    pub fn machine_told(&self, known: &[&'static Machine]) -> Result<Option<&'static Machine>, Error> {
        self.e_machine.map(|number| pieces::machine_of_number(number, known)).transpose()
    }
}

impl KernelDescriptionBuilder {
    /// Joins everything. `known` are the machines that a kernel may be for.
    ///
    /// # Errors
    ///
    /// - [`Error::UnknownMachine`]: an image, SPEC, `.config` or symbol table is of a machine that is not among `known`.
    /// - [`Error::TwoKernels`]: two pieces do not belong together.
    pub fn build(mut self, known: &[&'static Machine]) -> Result<KernelDescription, Error> {
        let machine = self.machine(known)?;
        self.is_one_kernel()?;
        let release = self.release.clone().unwrap_or_default();
        let of_config = self.known.entry(Fact::Config).or_insert(Known::Assumed).clone();
        self.known.entry(Fact::PageSize).or_insert_with(|| of_config.clone());
        let mut config = self.join_config(&release, known);
        let vermagic_words = self.vermagic_words(machine);
        if self.vermagic.is_none()
            && !release.is_empty()
            && let Some(words) = &vermagic_words
        {
            // VER-20: the string follows from the release and the configuration.
            self.vermagic = Some([&release, words.as_str()].concat());
            self.note(Fact::Vermagic, of_config);
        }
        let slide = self.slide()?;
        for fact in [Fact::Slide, Fact::Cmdline] {
            self.known.entry(fact).or_insert(Known::Assumed);
        }
        let symbols = self.live_symbols.take().or(self.symbols.take());
        if let Some(symbols) = symbols.as_ref().filter(|_| config.kallsyms_all.is_none()) {
            // KSYM-10
            config.kallsyms_all = Some(symbols.has_local_data());
        }
        let symbols = symbols.unwrap_or_default();
        // A table of all functions shows options as well; every kernel has one of these.
        let is_whole = ["start_kernel", "load_module"].into_iter().any(|f| symbols.address(f).is_some());
        if self.config.is_none() && self.config_text.is_none() && is_whole {
            config.of_symbols(|name| symbols.address(name).is_some());
        }
        let built_in = BuiltIn::new(self.built_in, &symbols, is_whole);
        let one_table = config.has(Change::OneExportTable);
        Ok(KernelDescription {
            release,
            vermagic: self.vermagic.map(String::into_bytes),
            vermagic_words: vermagic_words.map(String::into_bytes),
            banner: self.banner,
            config,
            machine,
            tables: Tables::join(&symbols, self.exports, self.symvers, one_table),
            symbols: Arc::new(symbols),
            built_in: Arc::new(built_in),
            certificates: self.certificates,
            keyring: self.keyring,
            blacklist: self.blacklist,
            btf: self.btf.map(Arc::new),
            types: Arc::new(self.types),
            memory: Arc::new(self.memory),
            slide,
            boot: BootParams::parse(&self.cmdline),
            cmdline: self.cmdline,
            found: self.found,
            known: self.known,
        })
    }

    /// How far what kmodld says of such a kernel is known to be right.
    pub fn coverage(&self, known: &[&Machine]) -> Coverage {
        Coverage::of(&self.join_config(self.release.as_deref().unwrap_or_default(), known))
    }

    /// Version and configuration from all sources. For each fact the last source counts.
    fn join_config(&self, release: &str, known: &[&Machine]) -> KernelConfig {
        let mut config = match &self.config {
            Some(config) => config.clone(),
            None => self.config_of_texts(release, known),
        };
        config.page_size = self.page_size.unwrap_or(config.page_size);
        config.struct_module_size = self.struct_module_size.or(config.struct_module_size);
        config.struct_module_init_exit = self.init_exit.or(config.struct_module_init_exit);
        config
    }

    /// What the image shows of the configuration.
    fn shown(&self, config: &KernelConfig) -> Shown {
        match (&self.memory, &self.symbols) {
            (LinkMemory::Image(image), Some(symbols)) => Shown::of_image(image, symbols, config),
            _ => self.shown.clone(),
        }
    }

    fn config_of_texts(&self, release: &str, known: &[&Machine]) -> KernelConfig {
        let assumed = || self.assumed_version.map_or_else(newest, KernelConfig::assumed);
        let config = KernelConfig::of_release(release, known).unwrap_or_else(assumed);
        let mut config = config.with_settings_assumed();
        if let Some(vermagic) = &self.vermagic {
            config.apply_vermagic(vermagic.as_bytes());
        }
        if let Some(text) = &self.config_text {
            config.apply(text, known);
        }
        // In the Module.symvers of a kernel without CONFIG_MODVERSIONS every CRC is zero; else hardly any is.
        let has_crcs =
            |symvers: &Symvers| symvers.exports().iter().any(|e| e.crc.is_some_and(|crc| crc != 0));
        if self.vermagic.is_none()
            && self.config_text.is_none()
            && let Some(symvers) = &self.symvers
        {
            config.set(Setting::Modversions, has_crcs(symvers));
        }
        if self.symvers.is_some() {
            config.learn(Setting::Modules, true);
        }
        if self.config_text.is_none() {
            self.shown(&config).teach(&mut config);
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    static TOY: Machine = Machine {
        name: "toy",
        e_machine: 0x1234,
        source_arch: "toys",
        debian_arch: "toy",
        vermagic_word: "",
        text_addresses: 0xffff_8000..=0xffff_8fff,
        page_sizes: &[],
        inline_static_calls: false,
        asks_for_retpoline: false,
        cpu_capabilities: &[],
        toolchain_symbols: &[],
    };
    const KNOWN: &[&Machine] = &[&TOY];

    fn symbols(text: &str) -> KernelSymbols {
        KernelSymbols::parse(text.as_bytes()).unwrap()
    }

    fn config(arch: &str) -> Vec<u8> {
        format!("#\n# Linux/{arch} 6.1.176 Kernel Configuration\n#\nCONFIG_SMP=y\n").into_bytes()
    }

    #[test]
    fn a_machine_that_is_not_known_is_an_error() {
        let builder = KernelDescriptionBuilder::new;
        let said = |builder: KernelDescriptionBuilder| builder.build(KNOWN).unwrap_err().to_string();
        let mut spec = crate::Records::default();
        spec.set("machine", "243");
        for (builder, want) in [
            (builder().e_machine("a", 243), "a kernel for RISC-V: kmodld knows toy"),
            (builder().records("a", &spec).unwrap(), "a kernel for RISC-V: kmodld knows toy"),
            (builder().config_text("a", config("other")), "a configuration for other: kmodld knows toy"),
            (
                builder().symbols("a", symbols("ffffffff80000000 T _text\n")),
                "a symbol table for a machine with kernel code at 0xffffffff80000000: kmodld knows toy",
            ),
            (
                builder().live_symbols("a", symbols("c000000000000000 T _text\n")),
                "a symbol table for a machine with kernel code at 0xc000000000000000: kmodld knows toy",
            ),
        ] {
            assert_eq!(said(builder), want);
        }
    }

    #[test]
    fn the_machine_is_that_of_whatever_tells_it() {
        let text = || symbols("ffff800000080000 T _text\n");
        let machine = |builder: KernelDescriptionBuilder| {
            let kernel = builder.build(KNOWN).unwrap();
            (kernel.machine.map(|m| m.name), kernel.known(Fact::Machine).cloned())
        };
        let new = KernelDescriptionBuilder::new;
        let toy = |by: &str| (Some("toy"), Some(Known::given(by)));
        assert_eq!(machine(new().e_machine("number", 0x1234).symbols("map", text())), toy("number"));
        assert_eq!(
            machine(new().config_text(".config", config("toys")).symbols("map", text())),
            toy(".config")
        );
        assert_eq!(machine(new().symbols("map", text())), toy("map"));
        assert_eq!(machine(new().live_symbols("kallsyms", text())), toy("kallsyms"));
        assert_eq!(machine(new().symbols("map", symbols("1000 T f\n"))), (None, None), "the lower half");
        assert_eq!(machine(new().config_text("config", b"CONFIG_SMP=y\n".to_vec())), (None, None));
    }

    #[test]
    fn how_each_fact_is_known() {
        let kernel = KernelDescriptionBuilder::new()
            .assume_version(Some(KernelVersion::new(6, 1, 0)))
            .symbols("System.map", symbols("ffff800000080000 T _text\n"))
            .build(KNOWN)
            .unwrap();
        assert_eq!((&*kernel.release, kernel.config.version()), ("", KernelVersion::new(6, 1, 0)));
        assert!(!kernel.config.is_version_known());
        for (fact, want) in [
            (Fact::Release, None),
            (Fact::Config, Some(Known::Assumed)),
            (Fact::PageSize, Some(Known::Assumed)),
            (Fact::Symbols, Some(Known::given("System.map"))),
            (Fact::Slide, Some(Known::Assumed)),
            (Fact::Cmdline, Some(Known::Assumed)),
            (Fact::Exports, None),
            (Fact::Btf, None),
        ] {
            assert_eq!(kernel.known(fact).cloned(), want, "{fact:?}");
        }
        assert!(kernel.is_described());
        let kernel = KernelDescriptionBuilder::new()
            .release("tree", "6.1.0")
            .assume_version(Some(KernelVersion::new(6, 12, 0)))
            .config_text("config", config("toys"))
            .cmdline("--cmdline", "module.sig_enforce")
            .build(KNOWN)
            .unwrap();
        assert_eq!(
            (&*kernel.release, &*kernel.config.version().to_string()),
            ("6.1.0", "6.1.176"),
            "the configuration has the last word"
        );
        assert_eq!(kernel.known(Fact::Release), Some(&Known::given("tree")));
        assert_eq!(kernel.known(Fact::PageSize), Some(&Known::given("config")));
        assert_eq!(kernel.known(Fact::Cmdline), Some(&Known::given("--cmdline")));
        assert!(kernel.boot.sig_enforce && !kernel.is_described());
    }
}
