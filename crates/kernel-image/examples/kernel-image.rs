//! Prints what is in a kernel image: its symbols as `/proc/kallsyms` has them,
//! its exports as Module.symvers has them, or the other facts.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::Instant;

use kernel_image::{Exports, ImageArch, KernelImage};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [path] => run(path, "--facts"),
        [path, what] => run(path, what),
        _ => Err("usage: kernel-image IMAGE [--kallsyms | --exports | --facts | --time]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kernel-image: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &str, what: &str) -> Result<(), Box<dyn std::error::Error>> {
    let file = std::fs::read(path)?;
    let start = Instant::now();
    let known: Vec<&dyn ImageArch> =
        reloc::ARCHITECTURES.iter().map(|arch| *arch as &dyn ImageArch).collect();
    let image = KernelImage::open(&file, KernelImage::DEFAULT_LIMIT, &known)?;
    let opened = start.elapsed();
    let mut out = BufWriter::new(io::stdout().lock());
    match what {
        "--kallsyms" => {
            for symbol in image.kallsyms().map_err(Clone::clone)?.iter() {
                write!(out, "{:016x} {} ", symbol.address, char::from(symbol.kind))?;
                out.write_all(symbol.name)?;
                out.write_all(b"\n")?;
            }
        }
        "--exports" => exports(&image.exports()?, &mut out)?,
        "--time" => {
            let start = Instant::now();
            let count = image.exports()?.len();
            let exported = start.elapsed();
            let start = Instant::now();
            let size = image.btf()?.struct_size("module");
            writeln!(
                out,
                "open {opened:?}, {count} exports {exported:?}, BTF {:?} ({size:?})",
                start.elapsed()
            )?;
        }
        _ => facts(&image, &mut out)?,
    }
    out.flush()?;
    Ok(())
}

fn exports(exports: &Exports<'_>, out: &mut impl Write) -> io::Result<()> {
    for export in exports.iter() {
        write!(out, "0x{:08x}\t", export.crc.unwrap_or(0))?;
        out.write_all(export.name)?;
        write!(out, "\tvmlinux\tEXPORT_SYMBOL{}\t", if export.gpl_only { "_GPL" } else { "" })?;
        out.write_all(export.namespace.unwrap_or(b""))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn facts(image: &KernelImage<'_>, out: &mut impl Write) -> io::Result<()> {
    let text = |bytes: Option<&[u8]>| bytes.map(|b| String::from_utf8_lossy(b).into_owned());
    writeln!(out, "format        {} in {:?}", image.format_name(), image.containers())?;
    writeln!(out, "arch          {}, pages of {:?}", image.machine().name, image.page_size())?;
    writeln!(out, "release       {:?}", text(image.release()))?;
    writeln!(out, "banner        {:?}", text(image.banner()))?;
    writeln!(out, "vermagic      {:?}", text(image.vermagic()))?;
    writeln!(out, "base          {:x?} guessed: {}", image.base(), image.base_is_a_guess())?;
    writeln!(out, "relocated     {}", image.relocated_pointers())?;
    match image.kallsyms() {
        Ok(kallsyms) => {
            let base = kallsyms.relative_base();
            writeln!(out, "kallsyms      {} {:?} base {base:x?}", kallsyms.len(), kallsyms.layout())?;
        }
        Err(e) => writeln!(out, "kallsyms      {e}")?,
    }
    match image.exports() {
        Ok(exports) => writeln!(out, "exports       {} by {:?}", exports.len(), exports.source())?,
        Err(e) => writeln!(out, "exports       {e}")?,
    }
    match image.btf() {
        Ok(btf) => {
            writeln!(out, "BTF           {} types", btf.len())?;
            writeln!(out, "struct module {:x?}", btf.struct_size("module"))?;
            for member in
                ["name", "init", "exit", "percpu", "mem", "core_layout.size", "state", "kp", "list.next"]
            {
                if let Some(m) = btf.member("module", member) {
                    writeln!(out, "  {member:<18} {:#x} size {:#x}", m.offset, m.size)?;
                }
            }
            writeln!(
                out,
                "kernel_param  {:?}, arg at {:?}",
                btf.struct_size("kernel_param"),
                btf.member("kernel_param", "arg").map(|m| m.offset)
            )?;
            writeln!(out, "MOD_INIT_TEXT {:?}", btf.enum_value("mod_mem_type", "MOD_INIT_TEXT"))?;
        }
        Err(e) => writeln!(out, "BTF           {e}")?,
    }
    let built_in = image.built_in().unwrap_or_default();
    let folders = built_in.iter().filter(|b| b.folder).map(|b| String::from_utf8_lossy(b.module));
    let folders: std::collections::BTreeSet<_> = folders.collect();
    writeln!(out, "in /sys/module {folders:?}")?;
    let drivers =
        image.registering().map(|all| all.into_iter().map(String::from_utf8_lossy).collect::<Vec<_>>());
    writeln!(out, "drivers       {drivers:?}")?;
    writeln!(out, "config        {:?}", image.config().map(|c| c.map(|text| text.len())))?;
    let certificates = image.certificates();
    let sizes: Vec<usize> = certificates.der.iter().map(|der| der.len()).collect();
    writeln!(out, "certificates  {sizes:?} by {:?}", certificates.source)
}
