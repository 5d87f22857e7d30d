//! Options that say which kernel is meant, how it runs, and what goes where.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use elf_layout::Region;
use kernel::spec::hex_bytes;
use kmodld::kernel_source::KernelSource;
use kmodld::kernel_source::cache::Cache;
use kmodld::keyring::KeyringFile;
use kmodld::setup::RunningFacts;
use kmodld::{Error, Place};
use symres::LoadFlags;

/// The kernel.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub struct Kernel {
    /// The release of an installed kernel, `running`, or a path: vmlinuz, vmlinux, Image, a SPEC, or a tree (a root with
    /// boot/ and lib/modules/RELEASE, or lib/modules/RELEASE itself) [default: the running kernel]
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<OsString>,
    #[command(flatten)]
    pub facts: KernelFiles,
}

/// Kernels, one or several.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub struct Kernels {
    /// The release of an installed kernel, `running`, or a path: vmlinuz, vmlinux, Image, a SPEC, or a tree (a root with
    /// boot/ and lib/modules/RELEASE, or lib/modules/RELEASE itself). Repeatable: every module is checked against every
    /// kernel, which --symtab, --symvers, --config and --release do not go with [default: the running kernel]
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Vec<OsString>,
    #[command(flatten)]
    pub facts: KernelFiles,
}

/// What else describes a kernel.
#[derive(Debug, Args)]
#[command(next_help_heading = "Kernel")]
pub struct KernelFiles {
    /// Look for kernels, modules and modprobe.d in an image or chroot, not in /
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Read the kernel's files anew, and keep nothing of them in the cache folder
    #[arg(long)]
    pub no_cache: bool,
    /// Its /proc/kallsyms or System.map
    #[arg(long, value_name = "FILE")]
    pub symtab: Option<PathBuf>,
    /// Its Module.symvers
    #[arg(long, value_name = "FILE")]
    pub symvers: Option<PathBuf>,
    /// Its .config
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Certificates that it trusts beside those built in, one or more, in DER or PEM. NAME is the keyring that
    /// they are in: builtin_trusted_keys, secondary_trusted_keys, machine (MOK), platform, or blacklist (also
    /// hashes as text); without it they are in one that is asked for modules. Repeatable
    #[arg(long, value_name = "[NAME=]FILE", value_parser = KeyringFile::parse)]
    pub keyring: Vec<KeyringFile>,
    /// Its release (uname -r), or the text of its /proc/version, where nothing else tells it
    #[arg(long, value_name = "R")]
    pub release: Option<String>,
    /// The machine starts it with UEFI Secure Boot on
    #[arg(long)]
    pub secure_boot: bool,
}

impl KernelFiles {
    /// What they tell, of a kernel that is not named yet.
    fn source(&self) -> KernelSource {
        KernelSource {
            symtab: self.symtab.clone(),
            symvers: self.symvers.clone(),
            config: self.config.clone(),
            keyring: self.keyring.clone(),
            release: self.release.clone(),
            cache: if self.no_cache { None } else { cache() },
            ..KernelSource::default()
        }
    }

    /// An option that describes one kernel only, if any was given.
    fn of_one(&self) -> Option<&'static str> {
        let refining = [
            ("--symtab", self.symtab.is_some()),
            ("--symvers", self.symvers.is_some()),
            ("--config", self.config.is_some()),
            ("--release", self.release.is_some()),
        ];
        refining.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}

impl Kernel {
    /// Does nothing say which kernel is meant?
    pub fn is_none_given(&self) -> bool {
        let facts = &self.facts;
        self.kernel.is_none() && facts.root.is_none() && facts.symtab.is_none() && facts.release.is_none()
    }

    /// Where its description comes from.
    pub fn source(&self) -> Result<KernelSource, Error> {
        self.facts.source().named(self.kernel.as_deref(), self.facts.root.as_deref())
    }
}

impl Kernels {
    /// Where the description of each comes from; at least one, described or not. The error names options that do not
    /// say which kernel they mean.
    pub fn sources(&self) -> Result<Vec<KernelSource>, Error> {
        let (given, root) = (self.facts.source(), self.facts.root.as_deref());
        match (self.kernel.as_slice(), self.facts.of_one()) {
            ([], _) => Ok(vec![given.named(None, root)?]),
            ([kernel], _) => Ok(vec![given.named(Some(kernel), root)?]),
            (_, Some(option)) => Err(Error::Usage(format!(
                "{option} with several --kernel: which of them is it of? (make a SPEC of each: kmodld kernel -o)"
            ))),
            (several, None) => several.iter().map(|kernel| given.clone().named(Some(kernel), root)).collect(),
        }
    }
}

/// The user's folder for what can be made again (XDG Base Directory Specification). Programs that differ do not share it.
pub fn cache() -> Option<Cache> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let built = std::env::current_exe().and_then(std::fs::metadata).ok();
    let when = built.as_ref().and_then(|m| m.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok());
    let program = format!("{}.{:x}", env!("CARGO_PKG_VERSION"), when.unwrap_or_default().as_nanos());
    Some(Cache::new(folder.join("kmodld"), &program))
}

/// Parameters in one word.
#[derive(Debug, Args)]
pub struct Params {
    /// Module parameters in one word, before those that stand by themselves: "A=1 B=2"
    #[arg(
        long,
        value_name = "PARAMS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub params: String,
}

/// What is loaded before a module.
#[derive(Debug, Args)]
pub struct Before {
    #[command(flatten)]
    pub with: With,
    /// As insmod, not as modprobe: nothing is loaded before but what --with names, and modprobe.d does not count
    #[arg(long)]
    pub no_deps: bool,
}

/// Modules that are loaded already.
#[derive(Debug, Args)]
pub struct With {
    /// A module loaded before, in this order; repeatable
    #[arg(long = "with", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Where the module goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Place (else where the kernel puts it)")]
pub struct PlaceArgs {
    /// Address of the first region (text, before 6.4 core), as /sys/module/NAME/sections shows it; the others lie where the kernel
    /// would then put them: each behind the one before it and a guard page, or in a hole between other modules
    #[arg(long, value_name = "ADDR", value_parser = number, conflicts_with = "region")]
    pub base: Option<u64>,
    /// Address of one region; repeatable
    #[arg(long, value_name = "NAME=ADDR", value_parser = region)]
    pub region: Vec<(Region, u64)>,
    /// mod->percpu: address of the module's per-cpu area
    #[arg(long, value_name = "ADDR", value_parser = number)]
    pub percpu: Option<u64>,
}

impl PlaceArgs {
    /// Where the regions go.
    pub fn place(&self) -> Place {
        match self.base {
            Some(base) => Place::Base(base),
            None if self.region.is_empty() => Place::Kernel,
            None => Place::Regions(self.region.clone()),
        }
    }
}

/// What only the running system knows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Running system")]
pub struct Live {
    /// Kernel command line: module_blacklist=, module.sig_enforce=, lockdown=, mitigations=...
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    pub cmdline: String,
    /// Number of CPUs
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// CPU capability bitmap as the kernel holds it: its bytes in hex
    #[arg(long, value_name = "HEX", value_parser = bytes_in_hex)]
    pub cpu_caps: Option<Bytes>,
    /// arm64: the CPU has erratum 843419 (early Cortex-A53), where --cpu-caps does not tell
    #[arg(long)]
    pub erratum_843419: bool,
    /// Taint mask before the load (/proc/sys/kernel/tainted)
    #[arg(long, value_name = "N", value_parser = number)]
    pub tainted: Option<u64>,
    /// Pieces of the kernel's memory, a JSON array of {"addr": "0x...", "bytes": "hex"}; they are read
    /// before the kernel image
    #[arg(long, value_name = "FILE")]
    pub memory: Option<PathBuf>,
    /// Load as modprobe --force-vermagic does
    #[arg(long)]
    pub force_vermagic: bool,
    /// Load as modprobe --force-modversion does
    #[arg(long)]
    pub force_modversion: bool,
}

impl Live {
    /// finit_module flags.
    pub fn flags(&self) -> LoadFlags {
        LoadFlags { ignore_modversions: self.force_modversion, ignore_vermagic: self.force_vermagic }
    }

    /// What they tell of the running system; `secure_boot` is an option of the kernel's.
    pub fn facts(&self, secure_boot: bool) -> RunningFacts {
        RunningFacts {
            cmdline: self.cmdline.clone(),
            secure_boot,
            cpus: self.cpus,
            cpu_caps: self.cpu_caps.as_ref().map(|caps| caps.0.clone()),
            errata: self.erratum_843419.then(|| String::from("843419")).into_iter().collect(),
            tainted: self.tainted,
            memory: self.memory.clone(),
        }
    }
}

/// Bytes of a bitmap.
#[derive(Clone, Debug)]
pub struct Bytes(pub Vec<u8>);

fn bytes_in_hex(text: &str) -> Result<Bytes, String> {
    hex_bytes(text).map(Bytes).ok_or_else(|| String::from("not bytes in hex"))
}

/// A number, decimal or with 0x.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| String::from("not a number (decimal, or hexadecimal after 0x)"))
}

fn region(text: &str) -> Result<(Region, u64), String> {
    let (name, at) = text.split_once('=').ok_or("not NAME=ADDR")?;
    let known = || Region::ALL.map(Region::name).join(", ");
    let region = Region::from_name(name).ok_or_else(|| format!("no region {name}; there are {}", known()))?;
    Ok((region, number(at)?))
}
