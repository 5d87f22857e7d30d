//! Kernel trees: a root with `boot/` and `lib/modules/RELEASE`, or
//! `lib/modules/RELEASE` itself. Every piece found adds to the description.

use std::path::{Path, PathBuf};

use kernel::KernelDescriptionBuilder;

use super::{add_config, add_symvers, image, own_modules, read_symbols};
use crate::error::Error;

/// Where distributions keep what belongs to a release; `{r}` is the release, `{m}` its folder under
/// `lib/modules`. Paths are relative to the root.
const IMAGES: [&str; 6] = [
    "boot/vmlinuz-{r}",
    "boot/vmlinux-{r}",
    "boot/Image-{r}",
    "{m}/vmlinuz",
    "{m}/vmlinux",
    "usr/lib/debug/boot/vmlinux-{r}",
];
const CONFIGS: [&str; 4] =
    ["boot/config-{r}", "{m}/config", "{m}/build/.config", "usr/src/linux-headers-{r}/.config"];
const SYMVERS: [&str; 5] = [
    "{m}/build/Module.symvers",
    "usr/src/linux-headers-{r}/Module.symvers",
    "{m}/symvers.gz",
    "{m}/symvers.xz",
    "boot/symvers-{r}.gz",
];
const SYSTEM_MAPS: [&str; 3] = ["boot/System.map-{r}", "{m}/System.map", "{m}/build/System.map"];

/// Reads what is there.
pub fn read(path: &Path) -> Result<KernelDescriptionBuilder, Error> {
    let Tree { root, modules, release } = find(path)?;
    let existing = |candidates: &[&str]| {
        let fill =
            |c: &&str| root.join(c.replace("{r}", &release).replace("{m}", &modules.to_string_lossy()));
        candidates.iter().map(fill).find(|p| p.is_file())
    };
    let mut out = match existing(&IMAGES) {
        Some(path) => image::read(&path, &crate::input::read(&path)?)?,
        None => KernelDescriptionBuilder::new(),
    };
    if out.own_release().is_none() {
        out = out.release(&path.display().to_string(), &release);
    }
    if let Some(path) = existing(&CONFIGS).filter(|_| !out.has_config_text()) {
        out = add_config(out, &path)?;
    }
    if let Some(path) = existing(&SYMVERS) {
        out = add_symvers(out, &path)?;
    }
    if let Some(path) = existing(&["{m}/modules.builtin"]) {
        out = out.modules_builtin(&path.display().to_string(), &crate::input::read(&path)?);
    }
    if out.link_symbols().is_none()
        && let Some(path) = existing(&SYSTEM_MAPS)
    {
        let from = path.display().to_string();
        out = match read_symbols(&path) {
            Ok(symbols) => out.symbols(&from, symbols),
            // Debian ships a stub, which is no reason to refuse the rest.
            Err(Error::Kernel { source, .. }) => out.found_nothing("no symbols", &from, &source.to_string()),
            Err(error) => return Err(error),
        };
    }
    // What was put there later (updates, extra) may be of another kernel.
    out = own_modules::add(out, &root.join(&modules).join("kernel"));
    if out.is_empty() {
        let what = format!(
            "nothing under it describes kernel {release}: no image, no Module.symvers, no System.map"
        );
        return Err(Error::unusable(path, what));
    }
    Ok(out)
}

struct Tree {
    root: PathBuf,
    /// The release's module folder, relative to the root.
    modules: PathBuf,
    release: String,
}

fn find(path: &Path) -> Result<Tree, Error> {
    let absolute = path.canonicalize().map_err(|e| Error::read(path, e))?;
    let parts: Vec<_> = absolute.components().rev().take(3).collect();
    if let [release, modules, lib] = parts.as_slice()
        && modules.as_os_str() == "modules"
        && lib.as_os_str() == "lib"
    {
        let lib = absolute.ancestors().nth(2).unwrap_or(&absolute);
        // /usr/lib/modules, where /lib is a link to it.
        let usr = lib.parent().filter(|p| p.file_name().is_some_and(|n| n == "usr")).and_then(Path::parent);
        let root = usr.or(lib.parent()).unwrap_or(&absolute).to_owned();
        let modules = absolute.strip_prefix(&root).unwrap_or(&absolute).to_owned();
        return Ok(Tree { root, modules, release: release.as_os_str().to_string_lossy().into_owned() });
    }
    for folder in ["lib/modules", "usr/lib/modules"] {
        let Ok(entries) = std::fs::read_dir(absolute.join(folder)) else { continue };
        let mut releases: Vec<String> = entries
            .flatten()
            .filter(|e| e.path().is_dir())
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        releases.sort();
        match releases.as_slice() {
            [] => continue,
            [release] => {
                let modules = Path::new(folder).join(release);
                return Ok(Tree { root: absolute, modules, release: release.clone() });
            }
            several => {
                let what = format!("holds several kernels, name one: {folder}/{{{}}}", several.join(","));
                return Err(Error::unusable(path, what));
            }
        }
    }
    Err(Error::unusable(path, "not a kernel tree: there is no lib/modules/RELEASE in it, nor is it one"))
}
