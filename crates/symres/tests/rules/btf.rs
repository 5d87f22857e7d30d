//! Type information of modules (spec 06 §6.8): what comes of it if it does not fit the kernel's.

use elf_layout::{Findings, KernelConfig, KernelVersion};
use kernel::BtfType;
use kernel::{BaseBtf, Kernel, KernelDescriptionBuilder};
use testkit::elf::Builder;

use crate::common::{NONE, load};

/// Split BTF with one pointer: to type 1, its name at this offset (0 is right).
fn blob(name: u8) -> Vec<u8> {
    let header = [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0];
    [&header[..], &[name, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0]].concat()
}

/// What a kernel says of modules with these BTFs, loaded one after the other.
fn said(config: &KernelConfig, btf: Option<BaseBtf>, blobs: &[Vec<u8>]) -> Vec<Findings> {
    let builder = KernelDescriptionBuilder::new().config("test", config.clone());
    let builder = match btf {
        Some(btf) => builder.base_btf("test", btf),
        None => builder,
    };
    let mut kernel = Kernel::booted(builder.build(reloc::MACHINES).unwrap());
    let mut all = Vec::new();
    for (n, blob) in blobs.iter().enumerate() {
        let name = format!("name=mini{n}");
        let strings = [&*name, "license=GPL", "intree=Y", "retpoline=Y", "vermagic=6.12.0 SMP "];
        let mut b = Builder::module(&strings);
        b.section(".BTF", 0, 1).data(blob.clone());
        let (loaded, said) = load(&kernel, &b.build(), NONE);
        kernel.state.taints = loaded.expect("a load").taints.after();
        all.push(said);
    }
    all
}

fn config(minor: u16, modules: bool, allow: bool) -> KernelConfig {
    KernelConfig::new(KernelVersion::new(6, minor, 0)).with(|c| {
        c.module_sig = false;
        c.modversions = false;
        c.btf_modules = modules;
        c.allow_btf_mismatch = allow;
    })
}

#[test]
fn btf_1_and_3_what_the_kernel_makes_of_it() {
    let base = || Some(BaseBtf::new(b"\0int\0", [BtfType { kind: 1, size_or_type: 4 }]));
    let failed = |n: u32| format!("failed to validate module [mini{n}] BTF: -22");
    let once = "Kernel module BTF mismatch detected, BTF debug info may be unavailable for some modules";
    let name = "BPF: [2] Invalid name_offset:5";
    let (good, bad) = (blob(0), blob(5));
    let dmesg = |said: &Findings| -> Vec<String> {
        let of_btf = said.iter().filter(|f| f.code.starts_with("BTF-"));
        of_btf.flat_map(|f| f.dmesg.clone()).collect()
    };
    for (what, config, base, want) in [
        ("the kernel's BTF is not known", config(12, true, false), None, [vec![], vec![]]),
        ("CONFIG_DEBUG_INFO_BTF_MODULES=n", config(12, false, false), base(), [vec![], vec![]]),
        (
            "6.12, mismatches allowed",
            config(12, true, true),
            base(),
            [vec![name.to_owned(), once.to_owned()], vec![name.to_owned()]],
        ),
        (
            "6.1, mismatches allowed",
            config(1, true, true),
            base(),
            [vec![name.to_owned(), failed(0)], vec![name.to_owned(), failed(1)]],
        ),
        (
            "6.12, mismatches refused",
            config(12, true, false),
            base(),
            [vec![name.to_owned(), failed(0)], vec![name.to_owned(), failed(1)]],
        ),
    ] {
        let seen = said(&config, base.clone(), &[bad.clone(), bad.clone()]);
        let logs: Vec<Vec<String>> = seen.iter().map(&dmesg).collect();
        assert_eq!(logs, want, "BTF-3: {what}");
        let refused = base.is_some() && config.btf_modules && !config.allow_btf_mismatch;
        for said in &seen {
            assert_eq!(
                said.errno().map(|e| e.name()),
                refused.then_some("EINVAL"),
                "BTF-3: {what}: {said:?}"
            );
        }
        for said in said(&config, base, std::slice::from_ref(&good)) {
            assert!(said.iter().all(|f| !f.code.starts_with("BTF-")), "BTF-1: {what}: {said:?}");
        }
    }
}
