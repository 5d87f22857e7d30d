//! A small kernel made by hand, in every layout that is read, and the tests on it.
#![cfg(feature = "decompress")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and its numbers are small"
)]

mod certificates;
mod containers;
mod elf;
mod exports;
mod facts;
mod folders;
mod hostile;
mod kallsyms;
mod machines;

use kernel_image::{Error, ImageArch, KallsymsLayout, KernelImage};
use testkit::elf::{EM_AARCH64, EM_X86_64, Flat, vmlinux};

/// Where the synthetic kernels are linked.
pub(crate) const X86_BASE: u64 = 0xffff_ffff_8100_0000;
pub(crate) const ARM64_BASE: u64 = 0xffff_8000_8000_0000;

pub(crate) type Symbol = (u64, u8, String);

/// What to build.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) arm64: bool,
    pub(crate) layout: KallsymsLayout,
    /// The seqs table that 6.1.y and later have.
    pub(crate) seqs: bool,
    /// Per-cpu symbols as absolute values, all others negative (x86 up to 6.14).
    pub(crate) absolute_percpu: bool,
    /// arm64: pointers are zero, and RELA records hold them (KSYM-12).
    pub(crate) rela: bool,
    pub(crate) exports: Tables,
    /// A vmlinux, as opposed to a flat Image.
    pub(crate) elf: bool,
    /// The vmlinux has section headers.
    pub(crate) sections: bool,
    /// CONFIG_KALLSYMS_ALL: the linker's labels are symbols.
    pub(crate) labels: bool,
}

/// How exports lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Two tables and their CRCs.
    Two,
    /// Without MODVERSIONS.
    NoCrcs,
    /// CRCs by reference, CONFIG_MODULE_REL_CRCS.
    RelCrcs,
    /// One table with flag bytes, 7.1.
    Flags,
    /// Records of 8 bytes, 4.19 to 5.3.
    Relative,
    /// Records of two pointers, before 4.19.
    Pointers,
}

impl Tables {
    /// Bytes of a record.
    pub(crate) fn record(self) -> u64 {
        match self {
            Tables::Relative => 8,
            Tables::Pointers => 16,
            _ => 12,
        }
    }
}

impl Plan {
    pub(crate) fn new(arm64: bool, layout: KallsymsLayout) -> Plan {
        Plan {
            arm64,
            layout,
            seqs: layout != KallsymsLayout::OldAbsolute,
            absolute_percpu: !arm64 && layout == KallsymsLayout::NamesFirst,
            rela: arm64,
            exports: Tables::Two,
            elf: !arm64,
            sections: false,
            labels: false,
        }
    }
}

/// A built kernel and what one should find in it.
pub(crate) struct Built {
    pub(crate) bytes: Vec<u8>,
    pub(crate) symbols: Vec<Symbol>,
    /// Name, address, CRC, GPL-only, namespace.
    pub(crate) exports: Vec<(String, u64, u32, bool, &'static str)>,
}

impl Built {
    pub(crate) fn open(&self) -> KernelImage<'_> {
        open(&self.bytes, 1 << 24).unwrap()
    }
}

/// The architectures of the project.
pub(crate) fn known() -> Vec<&'static dyn ImageArch> {
    reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect()
}

/// Opens an image for any of them.
pub(crate) fn open(file: &[u8], limit: usize) -> Result<KernelImage<'_>, Error> {
    KernelImage::open(file, limit, &known())
}

pub(crate) const RELEASE: &str = "6.1.2-made-up";

pub(crate) fn build(plan: &Plan) -> Built {
    build_with(plan, |_| Vec::new())
}

/// As [`build`], with what else is put into it, and the symbols of that.
pub(crate) fn build_with(plan: &Plan, more: impl FnOnce(&mut Flat) -> Vec<Symbol>) -> Built {
    let base = if plan.arm64 { ARM64_BASE } else { X86_BASE };
    let mut out = if plan.arm64 { Flat::arm64(base) } else { Flat::new(base) };
    out.rela = (plan.arm64 && plan.rela).then(Vec::new);
    let arch = if plan.arm64 { "aarch64" } else { "" };
    out.put(format!("Linux version %s\0Linux version {RELEASE} (me@here) (cc) #1 SMP\n\0").as_bytes());
    out.put(format!("{RELEASE}\0{RELEASE} SMP preempt mod_unload modversions {arch}\0").as_bytes());
    let certificates = certificates::list(&mut out);
    let more_symbols = more(&mut out);
    let (exports, export_labels) = put_exports(&mut out, plan);
    let btf = out.align(8);
    let blob = facts::btf_blob();
    out.put(&blob);
    let mut symbols = symbols(plan, base);
    if plan.labels {
        symbols.extend(export_labels.iter().map(|(name, address)| (*address, b'R', String::from(*name))));
        symbols.extend(certificates);
    }
    symbols.extend(more_symbols);
    symbols.sort_by_key(|s| s.0);
    put_kallsyms(&mut out, plan, &symbols);
    out.put(b"IKCFG_ST");
    out.put(&containers::gzip(b"CONFIG_MODULES=y\n"));
    out.put(b"IKCFG_ED");
    out.put_rela();
    let bytes = match plan.elf {
        false => out.bytes,
        true => vmlinux_of(&out, plan, &export_labels, (btf, blob.len())),
    };
    Built { bytes, symbols, exports }
}

/// 700 symbols with static twins, one long name, and per-cpu ones where there are any.
fn symbols(plan: &Plan, base: u64) -> Vec<Symbol> {
    let mut all: Vec<Symbol> = vec![(base, b'T', String::from("_text"))];
    if plan.absolute_percpu {
        all.push((0, b'A', String::from("fixed_percpu_data")));
        all.push((0x1_5000, b'A', String::from("cpu_hot")));
    }
    for i in 0..700u64 {
        let kind = b"TtDdRrBbVW"[i as usize % 10];
        all.push((
            base + 0x10 * (i / 2),
            kind,
            format!("function_{}_of_{}", i % 350, "xyz".repeat(i as usize % 5)),
        ));
    }
    all.push((base + 0x9000, b't', "Q".repeat(300)));
    all
}

/// Tokens: every letter for itself, and some that stand for more.
fn token(code: u8) -> &'static [u8] {
    const LONG: [&[u8]; 6] = [b"function_", b"_of_", b"xyz", b"_text", b"__start___", b"ksymtab"];
    const ASCII: [u8; 128] = {
        let mut all = [0; 128];
        let mut i = 0;
        while i < 128 {
            all[i] = i as u8;
            i += 1;
        }
        all
    };
    match code {
        0..=5 => LONG[usize::from(code)],
        0x21..=0x7e => &ASCII[usize::from(code)..=usize::from(code)],
        _ => b"unused",
    }
}

fn compress(kind: u8, name: &str) -> Vec<u8> {
    let mut codes = vec![kind];
    let mut rest = name.as_bytes();
    while let Some(first) = rest.first() {
        let long = (0u8..6).find(|code| rest.starts_with(token(*code)));
        let code = long.unwrap_or(*first);
        codes.push(code);
        rest = &rest[token(code).len()..];
    }
    let mut out = match codes.len() {
        len @ 0..0x80 => vec![len as u8],
        len => vec![len as u8 | 0x80, (len >> 7) as u8],
    };
    out.append(&mut codes);
    out
}

/// What `scripts/kallsyms.c` writes.
fn put_kallsyms(out: &mut Flat, plan: &Plan, symbols: &[Symbol]) {
    use KallsymsLayout::{Old, OldAbsolute, PlaceRelative};
    let align = if plan.layout == PlaceRelative { 4 } else { 8 };
    // Something that looks like the digits, but is not: real images have such.
    out.put(b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0");
    out.align(align);
    if matches!(plan.layout, Old | OldAbsolute) {
        put_addresses(out, plan, symbols);
    }
    out.align(align);
    out.u32(symbols.len() as u32);
    out.align(align);
    let mut markers = Vec::new();
    let names = out.bytes.len();
    for (i, (_, kind, name)) in symbols.iter().enumerate() {
        if i % 256 == 0 {
            markers.push((out.bytes.len() - names) as u32);
        }
        out.put(&compress(*kind, name));
    }
    out.align(align);
    markers.iter().for_each(|marker| out.u32(*marker));
    out.align(align);
    if matches!(plan.layout, Old | OldAbsolute) {
        put_seqs(out, plan, symbols);
    }
    let table = out.align(align);
    let mut index = Vec::new();
    for code in 0..=255u8 {
        index.push((out.bytes.len() - table) as u16);
        out.put(token(code));
        out.put(b"\0");
    }
    out.align(align);
    for offset in index {
        out.put(&offset.to_le_bytes());
    }
    if !matches!(plan.layout, Old | OldAbsolute) {
        out.align(align);
        put_addresses(out, plan, symbols);
        put_seqs(out, plan, symbols);
    }
    out.align(8);
}

fn put_addresses(out: &mut Flat, plan: &Plan, symbols: &[Symbol]) {
    let base = out.base;
    for (address, ..) in symbols {
        match plan.layout {
            KallsymsLayout::OldAbsolute => out.pointer(*address),
            KallsymsLayout::PlaceRelative => out.prel32(*address),
            _ if plan.absolute_percpu && *address >= base => {
                out.u32((base as i64 - 1 - *address as i64) as u32)
            }
            _ if plan.absolute_percpu => out.u32(*address as u32),
            _ => out.u32((*address - base) as u32),
        }
    }
    if matches!(plan.layout, KallsymsLayout::Old | KallsymsLayout::NamesFirst) {
        out.pointer(base);
    }
}

fn put_seqs(out: &mut Flat, plan: &Plan, symbols: &[Symbol]) {
    if plan.seqs {
        let mut order: Vec<u32> = (0..symbols.len() as u32).collect();
        order.sort_by_key(|i| &symbols[*i as usize].2);
        for i in order {
            out.put(&i.to_be_bytes()[1..]);
        }
    }
}

/// Export tables, CRCs and strings in the linker's order (IMG-20), with a
/// tail-merged name (IMG-24). Gives the exports and the linker's labels.
#[expect(clippy::type_complexity)]
fn put_exports(
    out: &mut Flat,
    plan: &Plan,
) -> (Vec<(String, u64, u32, bool, &'static str)>, Vec<(&'static str, u64)>) {
    let base = out.base;
    let mut exports: Vec<(String, u64, u32, bool, &'static str)> = Vec::new();
    for i in 0..300u64 {
        let (gpl, namespace) = (i % 3 == 0, if i % 7 == 0 { "CRYPTO" } else { "" });
        let namespace = if plan.exports.record() == 12 { namespace } else { "" };
        exports.push((
            format!("export_{i:03}"),
            base + 4 * i,
            0x9e37_79b9u32.wrapping_mul(i as u32 + 1),
            gpl,
            namespace,
        ));
    }
    exports.push((String::from("kfree"), base + 0x800, 7, false, ""));
    exports.push((String::from("module_layout"), base + 0x808, 0xdead_beef, false, ""));
    exports.push((String::from("my_export_001"), base + 0x810, 8, true, ""));
    // Twice, as some of 5.10 are (IMG-23).
    exports.push((String::from("copy_page"), base + 0x818, 9, false, ""));
    exports.push((String::from("copy_page"), base + 0x818, 9, false, ""));
    exports.sort();
    if plan.exports != Tables::Flags {
        exports.sort_by_key(|e| e.3);
    }
    let plain = match plan.exports {
        Tables::Flags => exports.len(),
        _ => exports.iter().filter(|e| !e.3).count(),
    };
    out.align(if plan.exports == Tables::Pointers { 8 } else { 4 });
    let count = exports.len();
    let crc_bytes = match plan.exports {
        Tables::Two | Tables::RelCrcs | Tables::Relative | Tables::Pointers => 4 * count,
        Tables::NoCrcs => 0,
        Tables::Flags => 5 * count,
    };
    let start = out.here();
    let strings_at = (start + plan.exports.record() * count as u64 + crc_bytes as u64).next_multiple_of(16);
    // The strings: an empty one for no namespace, then names; one name is the tail of another.
    let mut strings: Vec<u8> = b"\0CRYPTO\0my_export_001\0".to_vec();
    let at: Vec<u64> = exports
        .iter()
        .map(|(name, ..)| match name.as_str() {
            "my_export_001" => 8,
            "export_001" => 11,
            name => {
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                (strings.len() - 1 - name.len()) as u64
            }
        })
        .collect();
    for ((_, address, _, _, namespace), name_at) in exports.iter().zip(&at) {
        if plan.exports == Tables::Pointers {
            out.pointer(*address);
            out.pointer(strings_at + name_at);
            continue;
        }
        out.prel32(*address);
        out.prel32(strings_at + name_at);
        match *namespace {
            _ if plan.exports == Tables::Relative => {}
            "" if address % 8 == 0 => out.u32(0), // IMG-25
            "" => out.prel32(strings_at),
            _ => out.prel32(strings_at + 1),
        }
    }
    let crcs = out.here();
    let crc_values = (strings_at + strings.len() as u64).next_multiple_of(4);
    for (i, export) in exports.iter().enumerate() {
        match plan.exports {
            Tables::NoCrcs => {}
            Tables::RelCrcs => out.prel32(crc_values + 4 * i as u64),
            Tables::Two | Tables::Flags | Tables::Relative | Tables::Pointers => out.u32(export.2),
        }
    }
    let flags = out.here();
    if plan.exports == Tables::Flags {
        for e in &exports {
            out.put(&[u8::from(e.3)]);
        }
    }
    out.align(16);
    out.put(&strings);
    out.align(4);
    if plan.exports == Tables::RelCrcs {
        exports.iter().for_each(|e| out.u32(e.2));
    }
    let (plain, count) = (plain as u64, count as u64);
    let record = plan.exports.record();
    let mut labels = vec![
        ("__start___ksymtab", start),
        ("__stop___ksymtab", start + record * plain),
        ("__start___ksymtab_gpl", start + record * plain),
        ("__stop___ksymtab_gpl", start + record * count),
    ];
    if crcs != flags {
        labels.extend([
            ("__start___kcrctab", crcs),
            ("__stop___kcrctab", crcs + 4 * plain),
            ("__start___kcrctab_gpl", crcs + 4 * plain),
            ("__stop___kcrctab_gpl", crcs + 4 * count),
        ]);
    }
    if plan.exports == Tables::Flags {
        labels.extend([("__start___kflagstab", flags), ("__stop___kflagstab", flags + count)]);
    }
    (exports, labels)
}

/// Wraps the flat image as an ELF: one segment, and sections if asked for.
fn vmlinux_of(out: &Flat, plan: &Plan, labels: &[(&str, u64)], btf: (usize, usize)) -> Vec<u8> {
    let label = |name: &str| labels.iter().find(|l| l.0 == name).map(|l| l.1);
    let mut sections = vec![(".BTF", out.base + btf.0 as u64, btf.1 as u64)];
    for name in ["__ksymtab", "__ksymtab_gpl", "__kcrctab", "__kcrctab_gpl", "__kflagstab"] {
        if let (Some(start), Some(stop)) =
            (label(&format!("__start_{name}")), label(&format!("__stop_{name}")))
        {
            sections.push((name, start, stop - start));
        }
    }
    let machine = if plan.arm64 { EM_AARCH64 } else { EM_X86_64 };
    vmlinux(machine, out, plan.sections.then_some(&sections[..]))
}
