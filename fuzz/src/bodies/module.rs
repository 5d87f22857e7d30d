//! Modules: inspected, checked, linked, loaded and unloaded.

use elf_layout::signature::module_sig_check;
use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::{Exit, Init, Kernel};
use kmodld::check::check as check_module;
use kmodld::document::Document;
use kmodld::inspect::inspect;
use kmodld::load::{lay_out, open};
use kmodld::load_map::load_map;
use kmodld::{Args, Loader, Place, Stage, elf_output};
use module_signature::{Trust, Verified, keyring, signer, verify_pkcs7_signature};
use reloc::Cpu;
use symres::LoadFlags;

use super::{checksum, same_twice};
use crate::{invariants, seeds};

/// Larger images are not written as files: they are mostly holes.
const WRITTEN_MAX: u64 = 1 << 22;

thread_local! {
    static X86_64: Loader = seeds::loader("6.12-amd64");
    static AARCH64: Loader = seeds::loader("6.12-arm64");
    static ERRATUM_843419: Loader = {
        let mut loader = seeds::loader("6.12-arm64");
        loader.kernel.state.errata.push("843419".into());
        loader
    };
    static OLD_X86_64: Loader = seeds::loader("6.1-amd64");
    static OLD_AARCH64: Loader = seeds::loader("6.1-arm64");
    static PARAMS: Vec<u8> = seeds::fixture("6.12-amd64", "params.ko");
    static MESSAGE: Vec<u8> = seeds::signatures().remove(1);
    static CERTIFICATE: Vec<Vec<u8>> = vec![seeds::certificate()];
}

/// The kernel of an input: by its machine, old or new by chance.
fn with_loader(data: &[u8], run: impl Fn(&Loader)) {
    let aarch64 = data.get(18) == Some(&183);
    match (aarch64, checksum(data) >> 32 & 1) {
        (false, 0) => X86_64.with(run),
        (false, _) => OLD_X86_64.with(run),
        (true, 0) => AARCH64.with(run),
        (true, _) => OLD_AARCH64.with(run),
    }
}

/// `inspect`, and the ELF checks and the layout by the rules of one kernel among many.
pub fn module(data: &[u8]) {
    const VERSIONS: [(u16, u16); 7] = [(5, 10), (6, 1), (6, 4), (6, 12), (6, 13), (6, 14), (7, 3)];
    same_twice(data, || match inspect("fuzz.ko", data) {
        Ok(inspection) => serde_json::to_string(&inspection).expect("a document is JSON"),
        Err(findings) => serde_json::to_string(&findings).expect("findings are JSON"),
    });
    let (major, minor) = VERSIONS[(checksum(data) >> 16) as usize % VERSIONS.len()];
    let mut config = KernelConfig::new(KernelVersion::new(major, minor, 0));
    config.struct_module_size = Some(0x500).filter(|_| checksum(data) >> 8 & 1 == 0);
    let kernel = Kernel::unknown(config.clone());
    let opened = open(data, &kernel, LoadFlags::default());
    invariants::opened(&opened);
    let (Some(module), mut said) = (&opened.module, opened.said.clone()) else { return };
    let cpu = Cpu(checksum(data) >> 9 & 1);
    let Some(arch) = reloc::architecture(module.e_machine()) else { return };
    let Some(laid_out) = lay_out(&config, module, arch, cpu, &mut said) else {
        invariants::findings(&said);
        return;
    };
    invariants::findings(&said);
    invariants::sections(&laid_out.info, &laid_out.layout, &said);
    for region in laid_out.layout.regions() {
        let size = laid_out.layout.sizes.get(region);
        assert!(size <= invariants::REGION_MAX, "{}: {size:#x} bytes", region.name());
    }
}

/// `link` on a 6.12 kernel for x86_64.
pub fn link_x86_64(data: &[u8]) {
    X86_64.with(|loader| link(loader, data));
}

/// `link` on a 6.12 kernel for AArch64.
pub fn link_aarch64(data: &[u8]) {
    let loader = if checksum(data) >> 45 & 1 == 0 { &ERRATUM_843419 } else { &AARCH64 };
    loader.with(|loader| link(loader, data));
}

/// `link` on a 6.1 kernel.
pub fn link_old(data: &[u8]) {
    match data.get(18) {
        Some(183) => OLD_AARCH64.with(|loader| link(loader, data)),
        _ => OLD_X86_64.with(|loader| link(loader, data)),
    }
}

fn link(loader: &Loader, data: &[u8]) {
    same_twice(data, || linked(loader, data));
}

/// All that `link` prints and writes.
fn linked(loader: &Loader, data: &[u8]) -> String {
    let chance = checksum(data);
    let stage = match chance >> 40 & 7 {
        0 => Stage::Relocated,
        1 => Stage::Kallsyms,
        _ => Stage::Final,
    };
    let args = Args {
        stage,
        choices: chance >> 44 & 1 == 0,
        params: (stage == Stage::Final).then_some(b"value=1 dyndbg=+p async_probe"),
        flags: LoadFlags::default(),
        verdict_only: false,
    };
    let place = match chance >> 46 & 7 {
        0 => Place::Base(chance & !0xfff),
        1 => Place::Base(0xffff_ffff_ffff_f000),
        _ => Place::Kernel,
    };
    let percpu = (chance >> 50 & 1 == 0).then_some(chance);
    let opened = open(data, &loader.kernel, args.flags);
    invariants::opened(&opened);
    let (load, said) = loader.load(&opened, &args, &place, percpu).whatever_it_says();
    invariants::findings(&said);
    let Some(load) = load else { return format!("{said:?}") };
    invariants::load(&load, &said);
    let document = Document::new(&load, "fuzz", &said);
    let mut out = serde_json::to_string(&document).expect("a document is JSON");
    if load.module.layout.regions().map(|r| load.module.layout.allocated(r)).sum::<u64>() <= WRITTEN_MAX {
        let mut elf = Vec::new();
        elf_output::write_to(&mut elf, &load, &elf_output::Options::default()).expect("a Vec takes all");
        out.push_str(&format!(" {:x}", checksum(&elf)));
        for region in load.module.layout.regions() {
            out.push_str(&format!(" {:x}", checksum(load.module.memory.region(region))));
        }
    }
    out.push_str(&load_map(&load, "fuzz"));
    let address = load.module.layout.regions().next().map_or(0, |region| load.bases().get(region));
    out.push_str(&format!("{:?}", load.explain(address.wrapping_add(chance & 0xfff))));
    out
}

/// `check`, by force now and then.
pub fn check(data: &[u8]) {
    let chance = checksum(data);
    let flags =
        LoadFlags { ignore_modversions: chance >> 40 & 7 == 0, ignore_vermagic: chance >> 41 & 7 == 0 };
    let args = Args { flags, stage: Stage::Relocated, params: Some(b"value=1"), ..Args::default() };
    with_loader(data, |loader| {
        same_twice(data, || {
            let verdict = check_module(loader, "fuzz.ko", data, &args);
            invariants::verdict(&verdict);
            serde_json::to_string(&verdict).expect("a verdict is JSON")
        });
    });
}

/// A module's life: it leaves the kernel as it found it.
pub fn lifecycle(data: &[u8]) {
    let chance = checksum(data);
    with_loader(data, |fixed| {
        let mut loader = Loader::from(fixed.kernel.clone());
        let kernel = loader.kernel.clone();
        let opened = open(data, &kernel, LoadFlags::default());
        invariants::opened(&opened);
        let args = Args { stage: Stage::Relocated, ..Args::default() };
        let init = *[Init::Returns(0), Init::Returns(0), Init::Returns(0), Init::Returns(7), Init::Crashes]
            .get((chance >> 40) as usize % 5)
            .expect("five");
        let name = opened.module.as_ref().map_or(Vec::new(), |m| m.name().to_vec());
        let before = loader.kernel.modules().count();
        let first = loader.insmod(&opened, &args, init);
        invariants::findings(&first);
        let base = loader.kernel.module(&name).map(|module| module.base);
        let second = loader.insmod(&opened, &args, init);
        invariants::findings(&second);
        assert!(first.refused() || second.refused(), "{} is loaded twice", name.escape_ascii());
        let (list, oops) = (loader.kernel.proc_modules(), loader.kernel.print_modules());
        assert!(
            list.len() + oops.len() < 64 * data.len() + 4096,
            "lists of {} bytes",
            list.len() + oops.len()
        );
        let exit = if chance >> 43 & 7 == 0 { Exit::Crashes } else { Exit::Returns };
        let gone = loader.rmmod(&name, chance >> 46 & 3 == 0, exit);
        invariants::findings(&gone);
        if !first.refused() && !gone.refused() && exit == Exit::Returns {
            assert_eq!(loader.kernel.modules().count(), before, "{} is still there", name.escape_ascii());
            let again = loader.insmod(&opened, &args, init);
            assert!(!again.refused(), "{}: once, but not again: {again:?}", name.escape_ascii());
            let now = loader.kernel.module(&name).map(|module| module.base);
            assert_eq!(now, base, "{}: its memory was not freed", name.escape_ascii());
        }
    });
}

/// Any parameter string.
pub fn parameters(data: &[u8]) {
    PARAMS.with(|file| {
        X86_64.with(|loader| {
            same_twice(data, || {
                let args = Args { params: Some(data), stage: Stage::Relocated, ..Args::default() };
                let opened = open(file, &loader.kernel, args.flags);
                let (load, said) = loader.load(&opened, &args, &Place::Kernel, None).whatever_it_says();
                invariants::findings(&said);
                let load = load.expect("the module itself is good");
                invariants::load(&load, &said);
                serde_json::to_string(&Document::new(&load, "fuzz", &said)).expect("a document is JSON")
            });
        });
    });
}

/// A file of certificates.
pub fn keyring(data: &[u8]) {
    same_twice(data, || format!("{:?}", keyring::parse(data)));
    let Ok(certificates) = keyring::parse(data) else { return };
    let bytes: usize = certificates.iter().map(Vec::len).sum();
    assert!(bytes <= data.len(), "{bytes} bytes of certificates in {} bytes", data.len());
    MESSAGE.with(|message| verified(message, &certificates));
}

/// What a kernel that trusts these certificates makes of a message.
fn verified(message: &[u8], certificates: &[Vec<u8>]) -> Verified {
    let config = kernel::newest();
    let keys = Some(certificates.iter().map(Vec::as_slice).collect());
    let trust = Trust { config: &config, keys, revoked: Vec::new(), blacklist: &[] };
    verify_pkcs7_signature(message, b"signed", &trust)
}

/// A signature's tail, its message, its certificates.
pub fn signature(data: &[u8]) {
    let (tail, finding) = module_sig_check(data);
    assert!(tail.module.len() <= data.len());
    let mut said = Findings::new();
    said.stage_at_first(|said| finding.into_iter().for_each(|finding| said.push(finding)));
    invariants::findings(&said);
    let message = tail.pkcs7.unwrap_or(data);
    same_twice(data, || format!("{:?}", signer::read(message)));
    CERTIFICATE.with(|certificates| {
        same_twice(data, || format!("{:?}", verified(message, certificates)));
    });
    let hostile = vec![data.to_vec()];
    let _ = verified(message, &hostile);
}
