//! The symbols of a kernel of [`crate::trees`]: those that one had in memory, or made-up ones.

use std::path::Path;

use super::{Set, packs};

/// The kernel's own lines of a captured kallsyms of that release, if KMODLD_TRUTH has one.
fn captured_kallsyms(release: &str) -> Option<(String, Vec<u8>)> {
    let top = std::env::var_os("KMODLD_TRUTH").filter(|p| !p.is_empty())?;
    let arch = if release.ends_with("arm64") { "arm64" } else { "amd64" };
    for pack in packs(&Path::new(&top).join("truth")) {
        // Without KASLR all addresses are those of the link.
        let name = super::set_name(&pack);
        if !name.contains(arch) || name.contains("-kaslr") {
            continue;
        }
        let set = Set::open_with(&pack, |file| file == "kallsyms.txt");
        if set.kernel() != release {
            continue;
        }
        let text = crate::fixtures::read(&set.kallsyms());
        let core = text.split(|b| *b == b'\n').filter(|l| !l.is_empty() && !l.contains(&b'\t'));
        return Some((set.name.clone(), core.flat_map(|l| l.iter().copied().chain([b'\n'])).collect()));
    }
    None
}

/// A kallsyms of that release with an address for every export of the kernel, and where the addresses
/// come from: a captured one if there is, and whatever it lacks (CONFIG_KALLSYMS_ALL=n) made up.
pub fn kallsyms(symvers: &[u8], machine: u16, release: &str) -> (String, Vec<u8>) {
    let Some((set, mut text)) = captured_kallsyms(release) else {
        return (String::from("synthesized addresses"), synthetic_kallsyms(symvers, machine, release));
    };
    let known: std::collections::HashSet<Vec<u8>> = text
        .split(|b| *b == b'\n')
        .filter_map(|l| l.splitn(3, |b| *b == b' ').nth(2).map(<[u8]>::to_vec))
        .collect();
    let end = address_of(&text, "_end").or_else(|| address_of(&text, "_etext")).unwrap_or(0);
    let missing: Vec<String> =
        kernel_exports(symvers).into_iter().filter(|name| !known.contains(name.as_bytes())).collect();
    for (n, name) in missing.iter().enumerate() {
        text.extend(format!("{:016x} D {name}\n", end.wrapping_add(64 * n as u64)).bytes());
    }
    if !known.contains(&b"__per_cpu_end"[..]) {
        let at = end.wrapping_add(0x20_0000);
        text.extend(format!("{at:016x} D __per_cpu_start\n{:016x} D __per_cpu_end\n", at + 0x3000).bytes());
    }
    let made_up =
        if missing.is_empty() { String::new() } else { format!(", {} addresses made up", missing.len()) };
    (format!("kallsyms of {set}{made_up}"), text)
}

fn address_of(kallsyms: &[u8], name: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(kallsyms);
    let line = text.lines().find(|l| l.split(' ').nth(2) == Some(name))?;
    u64::from_str_radix(line.split(' ').next()?, 16).ok()
}

/// Names that the kernel itself exports.
fn kernel_exports(symvers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(symvers);
    let fields = text.lines().map(|l| l.split('\t').collect::<Vec<_>>());
    fields.filter(|f| f.get(2) == Some(&"vmlinux")).map(|f| f[1].to_owned()).collect()
}

/// A kallsyms with an address for every export of the kernel, spaced over its text.
fn synthetic_kallsyms(symvers: &[u8], machine: u16, release: &str) -> Vec<u8> {
    use std::fmt::Write;
    let (text, area_end) = match (machine, release.starts_with("6.1.")) {
        (62, _) => (0xffff_ffff_8100_0000u64, 0x200_0000),
        (_, true) => (0xffff_8000_0800_0000, 0x200_0000),
        (_, false) => (0xffff_8000_8000_0000, 0x200_0000),
    };
    let mut out = String::from("0000000000000000 A __per_cpu_start\n0000000000030000 A __per_cpu_end\n");
    let _ = writeln!(out, "{text:016x} T _text\n{text:016x} T _stext");
    for (n, name) in kernel_exports(symvers).into_iter().enumerate() {
        let _ = writeln!(out, "{:016x} T {name}", text + 0x1000 + 64 * n as u64);
    }
    let _ = writeln!(out, "{:016x} T _etext\n{:016x} B _end", text + area_end, text + 2 * area_end);
    out.into_bytes()
}
