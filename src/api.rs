//! The way in: a kernel made of what describes it, and modules loaded into it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use elf_layout::{Coverage, Findings, KernelVersion};
use kernel::{Exit, Init, KernelSymbols, LiveMemory, LoadedModule, Symvers};
use kernel_image::{Packed, decompress_file};
use reloc::{ARCHITECTURES, Architecture};
use symres::LoadFlags;

use crate::attempt::Failure;
use crate::check::{Verdict, check};
use crate::error::Error;
use crate::input::{FILE_MAX, read_decompressed};
use crate::kernel_source::unread::Unread;
use crate::kernel_source::{KernelSource, of_file};
use crate::keyring::KeyringFile;
use crate::linked::{self, Input, LinkedModule};
use crate::load::{Args, Stage, vermagic_version};
use crate::loader::{Loader, Place};
use crate::modprobe::providers::Home;
use crate::setup::{RunningFacts, Texts, boot};

/// A kernel with the modules that it has loaded so far. Copies share what is large.
///
/// ```no_run
/// use kmodld::{Kernel, Placement, Stage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let kernel = Kernel::builder()
///     .image("/boot/vmlinuz-6.12.0")?
///     .cmdline("mitigations=off")
///     .with_module("jbd2.ko")?
///     .build()?;
/// let bytes = std::fs::read("ext4.ko")?;
/// let module = kernel.load(bytes).at(Placement::Kernel).stage(Stage::Final).run()?;
/// module.write_elf(std::fs::File::create("ext4.elf")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Kernel {
    loader: Arc<Loader>,
    source: Arc<KernelSource>,
    unread: Arc<[Unread]>,
}

/// What describes a kernel, before it is read: files or texts, in any combination.
///
/// ```no_run
/// use kmodld::Kernel;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // All that a running kernel's machine shows, copied from there.
/// let kernel = Kernel::builder()
///     .image("vmlinuz")?
///     .symtab("kallsyms")?
///     .symvers("Module.symvers")?
///     .config("config")?
///     .cmdline("mitigations=off")
///     .build()?;
/// println!("{} on {:?}: {:?}", kernel.release(), kernel.arch(), kernel.coverage());
///
/// // No file at all. What hangs on rules that cannot be judged then is accepted.
/// let kernel = Kernel::builder()
///     .release("6.12.1")
///     .config_text("# Linux/x86 6.12.1 Kernel Configuration\nCONFIG_MODULES=y\n")
///     .symtab_text("ffffffff81000000 T _text\nffffffff81122340 T _printk\n")?
///     .symvers_text("0x92997ed8\t_printk\tvmlinux\tEXPORT_SYMBOL\t\n")?
///     .accept_undecided()
///     .build()?;
/// assert_eq!(kernel.symbol("_printk"), Some(0xffff_ffff_8112_2340));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct KernelBuilder {
    source: KernelSource,
    facts: RunningFacts,
    texts: Texts,
    with: Vec<(PathBuf, Vec<u8>)>,
    architectures: Option<&'static [&'static dyn Architecture]>,
    accepts_undecided: bool,
    live: Option<Arc<dyn LiveMemory>>,
}

impl KernelBuilder {
    /// What describes the kernel: `vmlinuz`, `vmlinux`, an arm64 `Image`, a SPEC, or a tree with `boot` and `lib/modules`.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], if there is no such file or folder.
    pub fn image(mut self, path: impl Into<PathBuf>) -> Result<Self, Error> {
        self.source.kernel = Some(there(path.into())?);
        Ok(self)
    }

    /// The same as bytes, where there is no file; `name` is for messages.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    pub fn image_bytes(mut self, name: &str, bytes: &[u8]) -> Result<Self, Error> {
        self.texts.image = Some(of_file(Path::new(name), bytes)?);
        Ok(self)
    }

    /// The files that describe it, in any combination; replaces those that were named before.
    #[must_use]
    pub fn source(self, source: KernelSource) -> Self {
        KernelBuilder { source, ..self }
    }

    /// `/proc/kallsyms` or System.map, as a file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], if there is no such file.
    pub fn symtab(mut self, path: impl Into<PathBuf>) -> Result<Self, Error> {
        self.source.symtab = Some(there(path.into())?);
        Ok(self)
    }

    /// Module.symvers, as a file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], if there is no such file.
    pub fn symvers(mut self, path: impl Into<PathBuf>) -> Result<Self, Error> {
        self.source.symvers = Some(there(path.into())?);
        Ok(self)
    }

    /// `.config`, as a file.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], if there is no such file.
    pub fn config(mut self, path: impl Into<PathBuf>) -> Result<Self, Error> {
        self.source.config = Some(there(path.into())?);
        Ok(self)
    }

    /// Certificates of its keyrings beside those that are built in.
    #[must_use]
    pub fn keyring(mut self, file: KeyringFile) -> Self {
        self.source.keyring.push(file);
        self
    }

    /// Its release (`uname -r`).
    #[must_use]
    pub fn release(mut self, release: impl Into<String>) -> Self {
        self.source.release = Some(release.into());
        self
    }

    /// The text of its `/proc/kallsyms` or System.map, where there is no file.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`], if it is none.
    pub fn symtab_text(mut self, text: &str) -> Result<Self, Error> {
        self.texts.symtab = Some(KernelSymbols::parse(text.as_bytes()).map_err(of_text)?);
        Ok(self)
    }

    /// The text of its Module.symvers, where there is no file.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`], if it is none.
    pub fn symvers_text(mut self, text: &str) -> Result<Self, Error> {
        self.texts.symvers = Some(Symvers::parse(text.as_bytes()).map_err(of_text)?);
        Ok(self)
    }

    /// The text of its `.config`, where there is no file.
    #[must_use]
    pub fn config_text(mut self, text: impl Into<String>) -> Self {
        self.texts.config = Some(text.into());
        self
    }

    /// Its command line.
    #[must_use]
    pub fn cmdline(mut self, cmdline: impl Into<String>) -> Self {
        self.facts.cmdline = cmdline.into();
        self
    }

    /// What else only the running system knows; replaces the command line too.
    #[must_use]
    pub fn facts(self, facts: RunningFacts) -> Self {
        KernelBuilder { facts, ..self }
    }

    /// A module that is loaded before, in this order: its file, also compressed.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    pub fn with_module(mut self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = read_decompressed(path)?.to_vec();
        self.with.push((path.to_owned(), bytes));
        Ok(self)
    }

    /// The architectures that it can be of, instead of those of this project: any may come from elsewhere.
    #[must_use]
    pub fn architectures(mut self, architectures: &'static [&'static dyn Architecture]) -> Self {
        self.architectures = Some(architectures);
        self
    }

    /// Its memory as it runs, which tells what no image does: how its code was patched, and why. Where it holds the capabilities of the
    /// processor, those of [`KernelBuilder::facts`] come before it.
    #[must_use]
    pub fn live_memory(self, memory: Arc<dyn LiveMemory>) -> Self {
        KernelBuilder { live: Some(memory), ..self }
    }

    /// Modules that are loaded before may hang on rules that cannot be judged, for want of facts of the kernel.
    #[must_use]
    pub fn accept_undecided(self) -> Self {
        KernelBuilder { accepts_undecided: true, ..self }
    }

    /// Reads all that was named, and loads the modules.
    ///
    /// # Errors
    ///
    /// [`Failure::Error`], if a file cannot be used or nothing describes the kernel; else that of a module that it does not take.
    pub fn build(self) -> Result<Kernel, Failure> {
        let architectures = self.architectures.unwrap_or(ARCHITECTURES);
        let version = || -> Option<KernelVersion> { vermagic_version(&self.with.first()?.1) };
        let (mut loader, unread) = boot(&self.source, &self.facts, self.texts, architectures, version)?;
        loader.kernel.state.whole = self.live;
        let source = Arc::new(self.source);
        let mut kernel = Kernel { loader: Arc::new(loader), source, unread: unread.into() };
        for (_, bytes) in self.with {
            kernel.insert(&bytes, None, "", self.accepts_undecided)?;
        }
        Ok(kernel)
    }
}

/// A path that leads somewhere.
fn there(path: PathBuf) -> Result<PathBuf, Error> {
    std::fs::metadata(&path).map_err(|why| Error::read(&path, why))?;
    Ok(path)
}

fn of_text(source: kernel::Error) -> Error {
    Error::Kernel { path: PathBuf::from("-"), source }
}

impl From<Loader> for Kernel {
    fn from(loader: Loader) -> Self {
        Kernel { loader: Arc::new(loader), source: Arc::default(), unread: Arc::default() }
    }
}

impl Kernel {
    /// A kernel is made of whatever describes it.
    pub fn builder() -> KernelBuilder {
        KernelBuilder::default()
    }

    /// The loader behind it, for what is not to be had here.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Its release (`uname -r`), empty if not known.
    pub fn release(&self) -> &str {
        &self.loader.kernel.release
    }

    /// Its architecture, as `uname -m` calls it; `None` if not known.
    pub fn arch(&self) -> Option<&'static str> {
        self.loader.kernel.machine.map(|machine| machine.name)
    }

    /// How far what is said of it is known to be right.
    pub fn coverage(&self) -> Coverage {
        self.loader.kernel.coverage()
    }

    /// What the system of a running kernel did not show.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// Address of a symbol of its own; `None` if it is not known, and the first if there are several.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.loader.kernel.symbols.address(name)
    }

    /// The modules that are loaded, newest first.
    pub fn modules(&self) -> impl Iterator<Item = &LoadedModule> {
        self.loader.kernel.modules()
    }

    /// A module that is to be loaded, without adding it to the kernel; the bytes of its file, also compressed.
    pub fn load(&self, file: impl Into<Arc<[u8]>>) -> Loading {
        Loading {
            loader: Arc::clone(&self.loader),
            file: file.into(),
            place: Place::Kernel,
            percpu: None,
            params: String::new(),
            stage: Stage::LAST,
            flags: LoadFlags::default(),
            choices: false,
            accepts_undecided: false,
        }
    }

    /// The verdict on a module, with all reasons; `name` is what the verdict calls its file.
    ///
    /// # Errors
    ///
    /// [`Error::Decompress`], if the file is compressed and damaged.
    pub fn check(&self, name: &str, file: &[u8]) -> Result<Verdict, Error> {
        let (unpacked, _) = unpacked(file)?;
        let args = Args::verdict(LoadFlags::default(), b"");
        Ok(check(&self.loader, name, unpacked.as_deref().unwrap_or(file), &args))
    }

    /// `init_module`: loads a module where the kernel would put it, and keeps it; its init function returns 0. What the kernel
    /// says all the same.
    ///
    /// # Errors
    ///
    /// Why it is not taken. A module that is refused leaves its taints behind, as it does in the kernel.
    pub fn insmod(&mut self, file: &[u8], params: &str) -> Result<Findings, Failure> {
        let (bytes, packed) = unpacked(file)?;
        self.insert(bytes.as_deref().unwrap_or(file), packed, params, false)
    }

    /// Loads what modprobe would load before the module of a file: what it needs of the kernel's tree, and of the folder that
    /// it lies in. The files, in this order.
    ///
    /// # Errors
    ///
    /// Those of reading the files, and why the kernel does not take one of them.
    pub fn load_needed(&mut self, path: impl AsRef<Path>) -> Result<Vec<PathBuf>, Failure> {
        let loader = Arc::make_mut(&mut self.loader);
        let way = Home::new(&self.source, &loader.kernel)?.way_of_file(path.as_ref(), loader)?;
        let mut files = Vec::new();
        for step in way.before {
            let Some(file) = step.file else { continue };
            let bytes = read_decompressed(&file)?;
            match self.insert(&bytes, bytes.packed().cloned(), &step.options, false) {
                Ok(_) => files.push(file),
                // modprobe goes on without them; what lies beside a module need not be there for it.
                Err(_) if !step.required || step.is_neighbour => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(files)
    }

    /// `delete_module`: removes a module. What the kernel says.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`], if it cannot be removed.
    pub fn rmmod(&mut self, name: &str) -> Result<Findings, Failure> {
        let findings = Arc::make_mut(&mut self.loader).rmmod(name.as_bytes(), false, Exit::Returns);
        Failure::of(findings, false)
    }

    /// Is what lies in the memory of a dump, or of the running kernel (`/proc/kcore`), what should lie there? The kernel has to be
    /// made of files: it is read again as it is in the dump.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Unusable`], if the dump cannot be read, or is not of this kernel.
    #[cfg(feature = "verify")]
    pub fn verify(
        &self,
        dump: impl AsRef<Path>,
        wanted: &crate::verify::Wanted,
    ) -> Result<crate::verify::report::Report, Error> {
        let target = crate::verify::Target::open(dump.as_ref(), &self.source)?;
        target.verify(&self.source, wanted, &mut |_, _| {})
    }

    fn insert(
        &mut self,
        file: &[u8],
        packed: Option<Packed>,
        params: &str,
        accepts_undecided: bool,
    ) -> Result<Findings, Failure> {
        let mut loader = (*self.loader).clone();
        let args = Args::verdict(LoadFlags::default(), params.as_bytes());
        let opened = self.loader.open(file, args.flags).out_of(packed.as_ref(), &self.loader.kernel.config);
        let said = Failure::of(loader.insmod(&opened, &args, Init::Returns(0)), accepts_undecided);
        // Whether it is in the kernel is not known then.
        if !matches!(said, Err(Failure::Undecided { .. })) {
            self.loader = Arc::new(loader);
        }
        said
    }
}

/// What comes out of a compressed file; `None` if it is not compressed.
fn unpacked(file: &[u8]) -> Result<(Option<Vec<u8>>, Option<Packed>), Error> {
    let mut out = Vec::new();
    let is_packed = decompress_file(file, &mut out, FILE_MAX).map_err(|error| Error::Decompress {
        path: PathBuf::from("-"),
        format: error.compression.name(),
        why: error.why,
    })?;
    Ok((is_packed.then_some(out), Packed::of(file).filter(|_| is_packed)))
}

/// A module about to be loaded: how, and where.
///
/// ```no_run
/// use kmodld::{Failure, Kernel, Placement, Stage};
///
/// # fn sample(kernel: &Kernel, file: Vec<u8>) {
/// let loading = kernel.load(file).at(Placement::Base(0xffff_ffff_c100_0000)).stage(Stage::Final).params("debug=1");
/// match loading.run() {
///     Ok(module) => println!("{} is there", module.name()),
///     Err(Failure::Refused { errno, findings }) => {
///         for finding in findings.iter().filter(|finding| finding.severity.refuses()) {
///             println!("{:?} {}: {}", errno, finding.code, finding.explanation);
///         }
///     }
///     Err(Failure::Undecided { findings }) => println!("that needs {}", findings.open_rules()[0].needs),
///     Err(Failure::Incomplete { symbols, .. }) => println!("no addresses for {symbols:?}"),
///     Err(other) => println!("{other}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is loaded before `run`"]
pub struct Loading {
    loader: Arc<Loader>,
    file: Arc<[u8]>,
    place: Place,
    percpu: Option<u64>,
    params: String,
    stage: Stage,
    flags: LoadFlags,
    choices: bool,
    accepts_undecided: bool,
}

impl Loading {
    /// Where it goes; where the kernel would put it, if not told.
    pub fn at(self, place: Place) -> Self {
        Loading { place, ..self }
    }

    /// Where its per-cpu area lies; where the kernel would put it, if not told.
    pub fn percpu(self, address: u64) -> Self {
        Loading { percpu: Some(address), ..self }
    }

    /// How far the load goes; to the call of its init function, if not told.
    pub fn stage(self, stage: Stage) -> Self {
        Loading { stage, ..self }
    }

    /// Its parameters: `A=1 B=2`. Only the stage [`Stage::Final`] shows them.
    pub fn params(self, params: impl Into<String>) -> Self {
        Loading { params: params.into(), ..self }
    }

    /// The flags of `finit_module`.
    pub fn flags(self, flags: LoadFlags) -> Self {
        Loading { flags, ..self }
    }

    /// Keeps all that sites which depend on the running system may hold, so that [`LinkedModule::compare`] knows them.
    pub fn choices(self) -> Self {
        Loading { choices: true, ..self }
    }

    /// Gives the module also where rules that could refuse it were not judged, for want of facts of the kernel.
    pub fn accept_undecided(self) -> Self {
        Loading { accepts_undecided: true, ..self }
    }

    /// Loads it.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`], if the kernel refuses it or crashes; [`Failure::Undecided`], if that hangs on what is not known of
    /// the kernel; [`Failure::Incomplete`], if addresses are not known; [`Failure::Error`], if the file cannot be read.
    pub fn run(self) -> Result<LinkedModule, Failure> {
        let (bytes, packed) = unpacked(&self.file)?;
        let file = bytes.map_or(self.file, Arc::from);
        let input = Input { loader: self.loader, file, packed, flags: self.flags };
        let args = Args {
            flags: self.flags,
            stage: self.stage,
            params: (self.stage == Stage::Final).then_some(self.params.as_bytes()),
            choices: self.choices,
            verdict_only: false,
        };
        linked::load(input, &args, &self.place, self.percpu, self.accepts_undecided)
    }
}
