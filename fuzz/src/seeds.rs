//! Inputs to start from: the fixtures, and what is made of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernel::{BaseBtf, Init, KernelState, Piece, Records, Symvers, Types};
use kernel_image::{Btf, Compression, decompress};
use kmodld::check::check;
use kmodld::explain;
use kmodld::kernel_source::KernelSource;
use kmodld::kernel_source::spec_file::{self, Packing};
use kmodld::kernel_source::{needs, of_file};
use kmodld::load::vermagic_release;
use kmodld::{Args, Loader, Stage};
use reloc::MACHINES;
use symres::LoadFlags;

/// The kernels of the fixtures.
pub const KERNELS: [&str; 4] = ["6.12-amd64", "6.12-arm64", "6.1-amd64", "6.1-arm64"];

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(of)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of a folder, in order.
pub fn files(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("a folder can be read").path()).collect();
    files.sort();
    files
}

/// A file of the fixtures of a kernel.
pub fn fixture(kernel: &str, file: &str) -> Vec<u8> {
    read(&folder("../fixtures").join(kernel).join(file))
}

/// A file of this package's own seeds.
fn own(file: &str) -> Vec<u8> {
    read(&folder("seeds").join(file))
}

fn modules_of(kernel: &str) -> Vec<Vec<u8>> {
    let all = files(&folder("../fixtures").join(kernel));
    all.iter().filter(|path| path.extension().is_some_and(|e| e == "ko")).map(|path| read(path)).collect()
}

/// The modules of all fixtures.
pub fn modules() -> Vec<Vec<u8>> {
    KERNELS.iter().flat_map(|kernel| modules_of(kernel)).collect()
}

/// Those of 6.12 for x86_64.
pub fn modules_6_12_amd64() -> Vec<Vec<u8>> {
    modules_of("6.12-amd64")
}

/// Those of 6.12 for AArch64.
pub fn modules_6_12_arm64() -> Vec<Vec<u8>> {
    modules_of("6.12-arm64")
}

/// Those of 6.1.
pub fn modules_6_1() -> Vec<Vec<u8>> {
    [modules_of("6.1-amd64"), modules_of("6.1-arm64")].concat()
}

/// A fixture kernel that runs: its symbols, the layout of its types, made-up memory around its symbols, with the
/// modules loaded that others need.
pub fn loader(kernel: &str) -> Loader {
    let file = |name: &str| Some(folder("../fixtures").join(kernel).join(name));
    let source = KernelSource {
        symtab: file("kallsyms"),
        symvers: file("Module.symvers"),
        config: file("config"),
        release: vermagic_release(&fixture(kernel, "hello.ko")),
        ..KernelSource::default()
    };
    let types = Types::parse(&String::from_utf8_lossy(&own(&format!("types-{kernel}"))));
    let known = source.read().expect("the fixtures are good").types("seeds", types);
    let known = known.build(MACHINES).expect("the fixtures are good");
    let mut state = KernelState::booted(&known);
    state.live = Arc::new(memory_of(&known.symbols.iter().map(|s| s.address).collect::<Vec<_>>()));
    state.cpu_caps = Some(vec![0x5555_3333_0f0f_ffff; 12]);
    state.cpus = Some(4);
    let mut loader = Loader::new(known, state);
    let args = Args { stage: Stage::Relocated, ..Args::default() };
    // What 6.1 for arm64 does not list of its data keeps some from being loaded.
    for module in ["exporter.ko", "ns_exporter.ko"].into_iter().filter(|_| kernel != "6.1-arm64") {
        let file = fixture(kernel, module);
        let opened = kmodld::load::open(&file, &loader.kernel.clone(), LoadFlags::default()).said;
        assert!(!opened.refused(), "{kernel}/{module}: {opened:?}");
        let kernel_now = loader.kernel.clone();
        let opened = kmodld::load::open(&file, &kernel_now, LoadFlags::default());
        let said = loader.insmod(&opened, &args, Init::Returns(0));
        assert!(!said.refused(), "{kernel}/{module}: {said:?}");
    }
    loader
}

/// 64 bytes at each address, made of the address.
fn memory_of(addresses: &[u64]) -> Vec<Piece> {
    let bytes =
        |address: u64| (0..8u64).flat_map(move |n| address.rotate_left(n as u32 * 8).to_le_bytes()).collect();
    let of_kernel = addresses.iter().filter(|address| **address >> 63 == 1);
    of_kernel.map(|address| Piece { address: *address, bytes: bytes(*address) }).collect()
}

/// Parameter strings, good and bad.
pub fn parameters() -> Vec<Vec<u8>> {
    let names = String::from_utf8_lossy(&own("parameters")).into_owned();
    names.lines().map(|line| line.as_bytes().to_vec()).collect()
}

/// The certificate of the fixtures' key.
pub fn certificate() -> Vec<u8> {
    read(&folder("../fixtures/signing/kmodld-fixtures.der"))
}

/// The tail of a signed module, its message alone, and a certificate.
pub fn signatures() -> Vec<Vec<u8>> {
    let signed = fixture("6.12-amd64", "hello_signed.ko");
    let (tail, _) = elf_layout::signature::module_sig_check(&signed);
    let message = tail.pkcs7.expect("it is signed").to_vec();
    let from = tail.module.len() - 32;
    vec![signed[from..].to_vec(), message, certificate()]
}

/// Certificates as they come: DER, several after each other, PEM.
pub fn keyrings() -> Vec<Vec<u8>> {
    vec![certificate(), certificate().repeat(2), own("certificate.pem")]
}

/// A module in every format that modules are packed in.
pub fn compressed() -> Vec<Vec<u8>> {
    ["module.gz", "module.xz", "module.zst", "empty.xz"].map(own).to_vec()
}

/// Symbol tables as `/proc/kallsyms` shows them.
pub fn kallsyms() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = KERNELS.map(|kernel| fixture(kernel, "kallsyms")).to_vec();
    let mut with_modules = all[0].clone();
    with_modules.extend_from_slice(
        b"ffffffffc0201000 t hello_init\t[hello]\nffffffffc0202000 d v\t[hello]\nffffffffc0300000 t bpf_prog_1\t[bpf]\n",
    );
    all.push(with_modules);
    all
}

/// System.maps: the same at other addresses.
pub fn system_map() -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(&fixture("6.12-amd64", "kallsyms")).into_owned();
    vec![text.replace("ffffffff8", "ffffffff9").into_bytes(), text.into_bytes()]
}

/// Module.symvers.
pub fn symvers() -> Vec<Vec<u8>> {
    KERNELS.map(|kernel| fixture(kernel, "Module.symvers")).to_vec()
}

/// `.config`, and words of a command line.
pub fn config() -> Vec<Vec<u8>> {
    let mut all = KERNELS.map(|kernel| fixture(kernel, "config")).to_vec();
    all.push(b"module_blacklist=hello,a module.sig_enforce=1 mitigations=off nospectre_v2 quiet\n".to_vec());
    all
}

/// Pieces of memory as JSON.
pub fn memory() -> Vec<Vec<u8>> {
    let symbols = loader("6.12-amd64").kernel.state.live;
    let piece = |piece: &Piece| {
        let hex: String = piece.bytes.iter().map(|b| format!("{b:02x}")).collect();
        format!("{{\"addr\": \"{:#x}\", \"bytes\": \"{hex}\"}}", piece.address)
    };
    let all: Vec<String> = symbols.iter().step_by(20).map(piece).collect();
    vec![format!("[\n{}\n]\n", all.join(",\n")).into_bytes(), b"[]".to_vec()]
}

/// Records, each a line `NAME LENGTH` and so many bytes, as a SPEC: what was changed in them lies behind the checksums.
pub fn pack_spec(mut rest: &[u8]) -> Vec<u8> {
    let mut spec = Records::default();
    while let Some(end) = rest.iter().take(200).position(|b| *b == b'\n') {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let Some((name, len)) = head.split_once(' ') else { break };
        let len = len.parse().unwrap_or(rest.len()).min(rest.len());
        spec.set(name, &rest[..len]);
        rest = rest[len..].strip_prefix(b"\n").unwrap_or(&rest[len..]);
    }
    let mut file = Vec::new();
    spec_file::write_as(Packing::Plain, &spec, &mut file).expect("a Vec takes all");
    file
}

/// Records in the form that [`pack_spec`] takes.
fn unpacked(records: &Records) -> Vec<u8> {
    let record = |(name, value): (&str, &[u8])| {
        [format!("{name} {}\n", value.len()).as_bytes(), value, b"\n"].concat()
    };
    records.iter().flat_map(record).collect()
}

/// SPECs: records before they are packed, as texts and as tables, and a packed one.
pub fn specs() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for kernel in KERNELS {
        let release = fixture(kernel, "release").trim_ascii().to_vec();
        let machine = if kernel.ends_with("amd64") { "62" } else { "183" };
        let exports = "0xffffffff81164550\t0x92997ed8\t_printk\tEXPORT_SYMBOL\t\n\
                       0xffffffff811acc70\t-\tmodule_layout\tEXPORT_SYMBOL_GPL\tNS\n";
        let records: [(&str, Vec<u8>); 12] = [
            ("release", release.clone()),
            ("vermagic", [&release[..], b" SMP preempt mod_unload modversions "].concat()),
            ("machine", machine.into()),
            ("page-size", "4096".into()),
            ("struct-module-size", "1280".into()),
            ("struct-module-init", "312".into()),
            ("struct-module-exit", "1200".into()),
            ("types", own(&format!("types-{kernel}"))),
            ("memory", "0xffffffff81093a90 0f1f440000c3\n0xffffffff82a00000 00ff00ff\n".into()),
            ("exports", exports.into()),
            ("certificate-0000", certificate()),
            ("kallsyms", fixture(kernel, "kallsyms")),
        ];
        let mut spec = Records::default();
        records.into_iter().for_each(|(name, value)| spec.set(name, value));
        all.push(unpacked(&spec));
        let mut file = Vec::new();
        spec_file::write(&spec, &mut file).expect("a Vec takes all");
        let told = of_file(Path::new("seed"), &file).expect("a good SPEC");
        let told = told.base_btf("seed", BaseBtf::of(&Btf::parse(&own("btf")).expect("a good BTF")));
        let told = told.symvers("seed", Symvers::parse(&fixture(kernel, "Module.symvers")).ok());
        all.push(unpacked(&told.to_records(&needs())));
        if kernel == "6.12-amd64" {
            all.push(file);
        }
    }
    all
}

/// Small kernel images as `crates/kernel-image` builds them, each as a gzip file.
fn packed_images() -> Vec<Vec<u8>> {
    files(&folder("seeds/images")).iter().map(|path| read(path)).collect()
}

/// Kernel images in containers of every kind.
pub fn containers() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = files(&folder("seeds/containers")).iter().map(|path| read(path)).collect();
    [all, packed_images()].concat()
}

/// Kernel images without a container.
pub fn images() -> Vec<Vec<u8>> {
    let unpack = |packed: &Vec<u8>| decompress(Compression::Gzip, packed, 1 << 22).expect("a good seed");
    packed_images().iter().map(unpack).collect()
}

/// A BTF with types of every kind.
pub fn btf() -> Vec<Vec<u8>> {
    vec![own("btf")]
}

/// Outputs of `check --jsonl`: the modules of the fixtures on a kernel of their release, and on another.
pub fn verdicts() -> Vec<Vec<u8>> {
    let args = Args::default();
    let lines = |kernel: &str, modules: Vec<Vec<u8>>| -> Vec<u8> {
        let loader = loader(kernel);
        let line = |module: &Vec<u8>| {
            let verdict = check(&loader, "m.ko", module, &args);
            serde_json::to_string(&verdict).expect("a verdict is JSON") + "\n"
        };
        modules.iter().take(2).map(line).collect::<String>().into_bytes()
    };
    let unreadable =
        r#"{"schema":2,"file":"m.ko","verdict":"unreadable","error":"m.ko: cannot read: no such file"}"#;
    vec![
        lines("6.12-amd64", modules_6_12_amd64()),
        lines("6.1-amd64", modules_6_12_amd64()),
        [unreadable.as_bytes(), b"\n"].concat(),
    ]
}

/// What `explain` is asked: every code, and lines of dmesg.
pub fn questions() -> Vec<Vec<u8>> {
    let lines = "hello: disagrees about version of symbol module_layout\n[   12.345678] hello: Unknown symbol bar (err -2)\n\
        Nov 29 12:00:00 host kernel: Module hello is blacklisted\nENOEXEC\n-8\nVER\n";
    let codes = explain::all().map(|e| e.code.to_owned());
    codes.chain(lines.lines().map(String::from)).map(String::into_bytes).collect()
}
