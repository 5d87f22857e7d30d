//! The running kernel: what its system shows of it (procfs, sysfs, its image and tree).
//!
//! Everything is read under a root directory. Nothing is guessed: what cannot be read is noted with its reason, and a file
//! that is of another kernel than the one that runs is not used.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use kernel::{
    Fact, KernelDescription, KernelDescriptionBuilder, KernelSymbols, Known, LoadedModule, Piece, Shown,
    parse_proc_modules,
};
use module_signature::efi::certificates;

use super::cache::Cache;
use super::tree::Tree;
use super::unread::{Unread, cannot_read};
use super::{add_config, image, kcore, needs, read_config};
use crate::error::Error;
use crate::input::{Bytes, read_decompressed};
use crate::root::Root;

/// Small files of procfs and sysfs are not larger.
const SMALL: u64 = 1 << 16;
const SUDO: &str = "run kmodld with sudo";
const CAPS: &str = "give them with --cpu-caps";
/// Variables of UEFI are not larger.
const KEYS_MAX: u64 = 1 << 20;

/// A running kernel and the root of its system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Where its procfs, sysfs, images and modules are.
    pub root: Root,
    /// `uname -r`
    pub release: String,
}

/// What a running kernel shows of itself beside its description; `None` is not known.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Shows {
    /// `/proc/cmdline`
    pub cmdline: Option<String>,
    /// `/proc/sys/kernel/tainted`
    pub tainted: Option<u64>,
    /// CPUs that are there.
    pub cpus: Option<u32>,
    /// Was it started by UEFI with Secure Boot on?
    pub secure_boot: Option<bool>,
    /// Whether signatures are enforced, whether it is locked down, and whether it takes modules at all.
    pub shown: Shown,
    /// Its modules, newest first.
    pub modules: Option<Vec<LoadedModule>>,
    /// The certificates of the machine's owner (MOK), if it was started with Secure Boot on.
    pub owner_keys: OwnerKeys,
}

/// The certificates of the machine's owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerKeys {
    /// Each as DER.
    pub certificates: Vec<Vec<u8>>,
    /// Has the owner told the kernel to trust them as its own (MokListTrustedRT)?
    pub trusted: bool,
}

impl Running {
    /// The kernel that this program runs on.
    #[cfg(target_os = "linux")]
    pub fn here() -> Result<Self, Error> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Ok(Running { root: Root::default(), release })
    }

    /// The kernel that this program runs on.
    #[cfg(not(target_os = "linux"))]
    pub fn here() -> Result<Self, Error> {
        Err(Error::Usage(String::from(
            "no Linux kernel runs here: say which one is meant (--kernel, --root)",
        )))
    }

    /// Its tree, whatever is there of it.
    pub fn tree(&self) -> Tree {
        Tree::at(&self.root, &self.release)
    }

    /// Its description: image, configuration, Module.symvers, symbols.
    pub fn read(
        &self,
        unread: &mut Vec<Unread>,
        cache: Option<&Cache>,
    ) -> Result<KernelDescriptionBuilder, Error> {
        let tree = self.tree();
        let image = self.image(&tree, unread, cache);
        let has_image = image.is_some();
        let mut out = image.unwrap_or_default();
        if out.own_release().is_none() {
            out = out.release("uname", &self.release);
        }
        if !out.has_config_text() {
            out = self.config(out, &tree, unread)?;
        }
        out = tree.add_texts(out, Some(unread), cache)?;
        let btf = self.root.at("sys/kernel/btf/vmlinux");
        if !has_image && let Ok(bytes) = read_decompressed(&btf) {
            let from = btf.display().to_string();
            out = out.btf(&from, &bytes, &needs()).map_err(|source| Error::Kernel { path: btf, source })?;
        }
        match self.symbols() {
            Ok((from, symbols)) => out = out.live_symbols(&from, symbols),
            Err(why) => unread.push(why),
        }
        if out.is_empty() {
            let reasons: Vec<String> =
                unread.iter().map(|u| format!("{} ({}: {})", u.what, u.path.display(), u.why)).collect();
            return Err(Error::Usage(format!(
                "nothing that can be read describes the running kernel {}: no {}; name a kernel with --kernel, or run kmodld with sudo",
                self.release,
                reasons.join(", no ")
            )));
        }
        Ok(out)
    }

    /// What the image of this very build tells.
    fn image(
        &self,
        tree: &Tree,
        unread: &mut Vec<Unread>,
        cache: Option<&Cache>,
    ) -> Option<KernelDescriptionBuilder> {
        const WHAT: &str = "kernel image";
        let banner = self.text("proc/version");
        let mut none = true;
        for path in tree.images().filter(|path| path.is_file()) {
            none = false;
            if let Some(why) = cannot_read(&path) {
                unread.push(Unread::new(WHAT, path, why));
                continue;
            }
            let told = match image::read_kept(&path, cache) {
                Ok(told) => told,
                Err(error) => {
                    let why = error.to_string();
                    let why = why.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&why).to_owned();
                    unread.push(Unread::because(WHAT, path, why, ""));
                    continue;
                }
            };
            // A package may have been replaced since the machine was started, under the same name.
            let is_it = match (&banner, told.banner()) {
                (Some(running), Some(banner)) => running.trim() == banner.trim(),
                _ => told.own_release() == Some(&*self.release),
            };
            if is_it {
                return Some(told);
            }
            let why = "it is of another build than the kernel that runs (/proc/version)";
            unread.push(Unread::because(
                WHAT,
                path,
                why,
                "start the kernel that is installed, or name it with --kernel",
            ));
        }
        if none {
            let path = tree.images().next().unwrap_or_default();
            let way = "install its package, or name the image with --kernel";
            unread.push(Unread::because(WHAT, path, "there is no such file", way));
        }
        None
    }

    fn config(
        &self,
        out: KernelDescriptionBuilder,
        tree: &Tree,
        unread: &mut Vec<Unread>,
    ) -> Result<KernelDescriptionBuilder, Error> {
        const WHAT: &str = "configuration";
        let own = self.root.at("proc/config.gz");
        for path in [own.clone()].into_iter().chain(tree.configs()).filter(|path| path.is_file()) {
            match cannot_read(&path) {
                None if path == own => {
                    return Ok(out.own_config_text(&path.display().to_string(), read_config(&path)?));
                }
                None => return add_config(out, &path),
                Some(why) => unread.push(Unread::new(WHAT, path, why)),
            }
        }
        let path = tree.configs().next().unwrap_or(own);
        unread.push(Unread::because(WHAT, path, "there is no such file", "give it with --config"));
        Ok(out)
    }

    /// Its symbols at their addresses, unless it hides them.
    fn symbols(&self) -> Result<(String, KernelSymbols), Unread> {
        const WHAT: &str = "addresses of symbols";
        let path = self.root.at("proc/kallsyms");
        let restrict = self.text("proc/sys/kernel/kptr_restrict").unwrap_or_default();
        let way = match restrict.trim() {
            "2" => "sysctl kernel.kptr_restrict=1, and run kmodld with sudo",
            _ => SUDO,
        };
        let hidden = |path: &Path| Unread::because(WHAT, path.to_owned(), "all addresses are zero", way);
        let begin = head(&path, SMALL).map_err(|e| Unread::new(WHAT, path.clone(), e))?;
        // The whole takes the kernel a tenth of a second to write.
        if begin
            .split(|b| *b == b'\n')
            .all(|line| line.iter().take_while(|b| **b != b' ').all(|b| *b == b'0'))
        {
            return Err(hidden(&path));
        }
        let text =
            read_decompressed(&path).map_err(|e| Unread::because(WHAT, path.clone(), e.to_string(), ""))?;
        match KernelSymbols::parse(&text) {
            Ok(symbols) => Ok((path.display().to_string(), symbols)),
            Err(kernel::Error::Hidden) => Err(hidden(&path)),
            Err(error) => Err(Unread::because(WHAT, path, error.to_string(), "")),
        }
    }

    /// Everything else that it shows.
    pub fn shows(&self, unread: &mut Vec<Unread>) -> Shows {
        let flag = |path: &str| self.text(path).and_then(|text| is_on(text.trim()));
        let secure_boot = self.secure_boot(unread);
        Shows {
            cmdline: self
                .told("kernel command line", "proc/cmdline", unread, |text| Some(text.trim().to_owned())),
            tainted: self.told("taints", "proc/sys/kernel/tainted", unread, |text| text.trim().parse().ok()),
            cpus: self.text("sys/devices/system/cpu/present").and_then(|text| count(text.trim())),
            // Without Secure Boot the kernel does not look at them (certs/platform_certs/load_uefi.c: load_uefi_certs).
            owner_keys: if secure_boot == Some(true) {
                self.owner_keys(unread)
            } else {
                OwnerKeys::default()
            },
            secure_boot,
            shown: Shown {
                modules_disabled: flag("proc/sys/kernel/modules_disabled") == Some(true),
                sig_enforced: flag("sys/module/module/parameters/sig_enforce"),
                locked_down: self.locked_down(unread),
            },
            modules: self.modules(unread),
        }
    }

    /// A small text, and what it says; else it is noted why not.
    fn told<T>(
        &self,
        what: &'static str,
        path: &str,
        unread: &mut Vec<Unread>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let path = self.root.at(path);
        let value = match head(&path, SMALL) {
            Ok(bytes) => parse(&String::from_utf8_lossy(&bytes)),
            Err(why) => {
                unread.push(Unread::new(what, path, why));
                return None;
            }
        };
        if value.is_none() {
            unread.push(Unread::because(what, path, "its text is not what it should be", ""));
        }
        value
    }

    fn text(&self, path: &str) -> Option<String> {
        head(&self.root.at(path), SMALL).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `none [integrity] confidentiality`; without the file that module may be off.
    fn locked_down(&self, unread: &mut Vec<Unread>) -> Option<bool> {
        if let Some(text) = self.text("sys/kernel/security/lockdown") {
            let level = text.split_ascii_whitespace().find_map(|w| w.strip_prefix('[')?.strip_suffix(']'));
            return level.map(|level| level != "none");
        }
        if let Some(modules) = self.text("sys/kernel/security/lsm") {
            return Some(false).filter(|_| modules.trim().split(',').all(|name| name != "lockdown"));
        }
        let path = self.root.at("sys/kernel/security/lockdown");
        let why = File::open(&path).err()?;
        unread.push(Unread {
            way: "mount -t securityfs securityfs /sys/kernel/security",
            ..Unread::new("lockdown", path, why)
        });
        None
    }

    /// UEFI's variable SecureBoot, behind four bytes of attributes; shim's MokSBState switches it off for the kernel.
    fn secure_boot(&self, unread: &mut Vec<Unread>) -> Option<bool> {
        let efi = self.root.at("sys/firmware/efi");
        if !efi.is_dir() {
            return self.root.at("sys/firmware").is_dir().then_some(false);
        }
        let variable = |name: &str| {
            let path = efi.join("efivars").join(name);
            head(&path, SMALL).map(|bytes| bytes.get(4).copied()).map_err(|e| (path, e))
        };
        match variable("SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c") {
            Ok(Some(1)) => {
                let off = variable("MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23");
                Some(!matches!(off, Ok(Some(1))))
            }
            Ok(_) => Some(false),
            // Where efivarfs is mounted and has no such variable, the firmware knows nothing of it.
            Err(_) if fs::read_dir(efi.join("efivars")).is_ok_and(|mut all| all.next().is_some()) => {
                Some(false)
            }
            Err((path, why)) => {
                unread.push(Unread::new("Secure Boot", path, why));
                None
            }
        }
    }

    /// shim's list of the owner's certificates: of the table that it leaves in memory, else of the variable.
    fn owner_keys(&self, unread: &mut Vec<Unread>) -> OwnerKeys {
        const WHAT: &str = "keys of the machine's owner";
        let efi = self.root.at("sys/firmware/efi");
        let variable = |name: &str| efi.join(format!("efivars/{name}-605dab50-e046-4300-abb6-3dd810dd8b23"));
        let mut denied = None;
        // A variable has four bytes of attributes before its value.
        for (path, skipped) in [(efi.join("mok-variables/MokListRT"), 0), (variable("MokListRT"), 4)] {
            let bytes = match head(&path, KEYS_MAX) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    denied = Some(Unread::new(WHAT, path, error));
                    continue;
                }
            };
            let Some(found) = bytes.get(skipped..).and_then(certificates) else {
                unread.push(Unread::because(WHAT, path, "it is no list of signatures", ""));
                return OwnerKeys::default();
            };
            let certificates = found.into_iter().map(<[u8]>::to_vec).collect();
            return OwnerKeys { certificates, trusted: variable("MokListTrustedRT").is_file() };
        }
        unread.extend(denied);
        OwnerKeys::default()
    }

    /// The bitmap of CPU capabilities as this kernel holds it, if it has one: its place and its bytes. `kernel` describes it
    /// with the addresses of its symbols.
    pub fn cpu_caps(&self, kernel: &KernelDescription, unread: &mut Vec<Unread>) -> Option<Piece> {
        const WHAT: &str = "CPU capabilities";
        // The addresses of an image are not those of the kernel that runs.
        let shown = Known::given(self.root.at("proc/kallsyms").display().to_string());
        if kernel.known(Fact::Symbols) != Some(&shown) {
            return None;
        }
        let (address, len) = kernel.cpu_capabilities()?;
        let path = self.root.at("proc/kcore");
        let len = usize::try_from(len).ok()?;
        match kcore::read(&path, address, len) {
            Ok(Some(bytes)) => return Some(Piece { address, bytes }),
            Ok(None) => unread.push(Unread::because(WHAT, path, "it does not have this memory", CAPS)),
            // Everything else of root's is read by now: this file is closed to root as well.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                unread.push(Unread::because(WHAT, path, "permission denied (lockdown?)", CAPS));
            }
            Err(error) => unread.push(Unread { way: CAPS, ..Unread::new(WHAT, path, error) }),
        }
        None
    }

    fn modules(&self, unread: &mut Vec<Unread>) -> Option<Vec<LoadedModule>> {
        const WHAT: &str = "loaded modules";
        let path = self.root.at("proc/modules");
        let text = read_or_tell(WHAT, &path, unread)?;
        match parse_proc_modules(&text) {
            Ok(modules) => Some(modules),
            Err(error) => {
                unread.push(Unread::because(WHAT, path, error.to_string(), ""));
                None
            }
        }
    }

    /// What lies in the memory that modules are placed in, `[start, end)`: all of it, whoever holds it.
    /// `/proc/vmallocinfo`: `0xffffffffc0201000-0xffffffffc0206000   20480 layout_and_allocate+0x2fc/0xbb0 pages=4 vmalloc`
    pub fn areas(&self, unread: &mut Vec<Unread>) -> Option<Vec<(u64, u64)>> {
        const WHAT: &str = "places that modules take";
        let path = self.root.at("proc/vmallocinfo");
        let text = read_or_tell(WHAT, &path, unread)?;
        let areas: Option<Vec<(u64, u64)>> =
            text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(range).collect();
        // With kptr_restrict=0 these are hashes of 32 bits instead (lib/vsprintf.c: ptr_to_id).
        let areas = areas.filter(|areas| areas.iter().any(|(start, _)| start >> 32 != 0));
        if areas.is_none() {
            let way = "sysctl kernel.kptr_restrict=1, and run kmodld with sudo";
            unread.push(Unread::because(WHAT, path, "it shows no addresses", way));
        }
        areas
    }

    /// Where the running kernel shows a module of this name.
    pub fn sysfs(&self, module: &str) -> PathBuf {
        self.root.at(Path::new("sys/module").join(module))
    }
}

/// `0x...-0x...` at the beginning of a line.
fn range(line: &[u8]) -> Option<(u64, u64)> {
    let word = line.split(u8::is_ascii_whitespace).next()?;
    let (start, end) = std::str::from_utf8(word).ok()?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some((hex(start)?, hex(end)?))
}

/// How many there are in a list such as `0-3,8`.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0u32, |sum, part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        sum.checked_add(to.checked_sub(from)?.checked_add(1)?)
    })
}

fn is_on(text: &str) -> Option<bool> {
    match text {
        "Y" | "1" => Some(true),
        "N" | "0" => Some(false),
        _ => None,
    }
}

/// The first bytes of a file.
fn head(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
/// A file of the system; what cannot be read is noted.
fn read_or_tell(what: &'static str, path: &Path, unread: &mut Vec<Unread>) -> Option<Bytes> {
    match read_decompressed(path) {
        Ok(text) => Some(text),
        Err(Error::Read { source, .. }) => {
            unread.push(Unread::new(what, path.to_owned(), source));
            None
        }
        Err(error) => {
            unread.push(Unread::because(what, path.to_owned(), error.to_string(), ""));
            None
        }
    }
}
