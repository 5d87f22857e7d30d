//! What is known of a kernel, and whether its pieces are of one kernel (spec 01, 03, 09).

use elf_layout::{Coverage, KernelConfig, KernelVersion};
use kernel::{Error, KernelDescriptionBuilder, Keyring, newest};

use crate::common::{KNOWN, builder, describe, records, symbols, symvers};
use crate::image;

#[test]
fn sig_8_which_certificates_are_trusted() {
    let spec = records(&[("certificate-0000", "one"), ("certificate-0001", "two")]);
    let builder = builder().records("SPEC", &spec).unwrap();
    assert_eq!(builder.certificates(), [b"one", b"two"]);
    let kernel = describe(builder.keyring("--keyring", Keyring::Unnamed, [b"mine".to_vec()]));
    let trusted: Vec<&[u8]> = kernel.trusted().map(Vec::as_slice).collect();
    assert_eq!(trusted, [&b"one"[..], b"two", b"mine"], "SIG-8: those built in, and those of other keyrings");
    let other = kernel.without_certificates();
    assert!(other.certificates.is_empty(), "SIG-8: none is built in");
    assert_eq!(other.known(kernel::Fact::Certificates), None, "SIG-8: so nothing is known of them");
    assert_eq!(kernel.trusted().count(), 3, "the kernel that it is a copy of keeps them");
    assert_eq!(describe(self::builder()).trusted().count(), 0, "SIG-8: nothing is known");
}

#[test]
fn ver_20_the_string_that_vermagic_is_compared_with() {
    for (vermagic, smp, unload, modversions) in [
        ("6.12.0 SMP preempt mod_unload modversions ", true, true, true),
        ("6.12.0 preempt mod_unload ", false, true, false),
        ("6.12.0 SMP preempt_rt modversions aarch64", true, false, true),
    ] {
        let builder = KernelDescriptionBuilder::new().release("test", "6.12.0").vermagic("test", vermagic);
        let kernel = describe(builder);
        assert_eq!(kernel.vermagic.as_deref(), Some(vermagic.as_bytes()), "VER-20: byte for byte");
        let config = &kernel.config;
        let found = (config.smp, config.module_unload, config.modversions);
        assert_eq!(found, (smp, unload, modversions), "VER-20: {vermagic}: its words tell the configuration");
    }
    assert_eq!(describe(builder()).vermagic, None, "VER-20: it is not made up");
}

#[test]
fn ksym_1_letters_tell_local_from_global() {
    let text = "0000000000000000 A __per_cpu_start\nffff800000010000 T _text\nffff800000010500 t hidden\n\
        ffff800000010600 W weak\nffff800000010700 b local_data\n";
    let kernel = describe(builder().symbols("test", symbols(text)));
    for (name, kind) in
        [("hidden", b't'), ("_text", b'T'), ("__per_cpu_start", b'A'), ("weak", b'W'), ("local_data", b'b')]
    {
        assert_eq!(kernel.symbols.unique(name.as_bytes()).map(|s| s.kind), Some(kind), "KSYM-1: {name}");
    }
    // A text without any local data is one of a kernel that lists text only (KSYM-10). Then global symbols count as
    // exported, local ones do not.
    let exported = |text: &str| {
        let kernel = describe(builder().symbols("test", symbols(text)));
        ["hidden", "_text", "weak"].map(|name| kernel.exports().find(name.as_bytes(), true).is_some())
    };
    let text_only: String = text.lines().filter(|l| !l.contains(" b ")).map(|l| format!("{l}\n")).collect();
    assert_eq!(exported(&text_only), [false, true, true], "KSYM-1, KSYM-2: lower case is local");
    assert_eq!(exported(text), [false; 3], "KSYM-2, KSYM-10: data without labels, nothing is exported");
}

#[track_caller]
fn two_kernels(builder: KernelDescriptionBuilder, want: &str) {
    match builder.build(KNOWN) {
        Err(error @ Error::TwoKernels(_)) => {
            assert_eq!(error.to_string(), format!("{want}: they are two kernels"))
        }
        other => panic!("{want}: {:?}", other.map(|kernel| kernel.machine)),
    }
}

fn config(arch: &str) -> Vec<u8> {
    format!("#\n# Linux/{arch} 6.1.176 Kernel Configuration\n#\n").into_bytes()
}

#[test]
fn two_machines_are_two_kernels() {
    let toy = || builder().e_machine("test", 0x1234);
    let live = || symbols("ffff900000010000 T _text\n");
    let of_config = "the kernel image is of toy, the configuration of plain";
    two_kernels(toy().config_text("test", config("plains")), of_config);
    let of_live = "the kernel image is of toy, the symbol table of plain";
    two_kernels(toy().live_symbols("test", live()), of_live);
    let of_both = "the configuration is of toy, the symbol table of plain";
    two_kernels(builder().config_text("test", config("toys")).live_symbols("test", live()), of_both);
    let agree = builder().e_machine("test", 0x1235).config_text("test", config("plains"));
    assert_eq!(describe(agree.live_symbols("test", live())).machine.map(|m| m.name), Some("plain"));
}

#[test]
fn a_configuration_of_another_release_is_of_another_kernel() {
    let with = |release: &str, text: &str| {
        builder().release("test", release).config_text("test", text.as_bytes().to_vec())
    };
    let head = |version: &str| format!("#\n# Linux/toys {version} Kernel Configuration\n#\n");
    for (release, version) in
        [("6.12.117", "6.12.118"), ("6.12.117-x", "6.11.117"), ("6.1.0-57-amd64", "6.2.0")]
    {
        let want = format!("the configuration is of {version}, the release is {release}");
        two_kernels(with(release, &head(version)), &want);
    }
    for (release, version) in
        [("6.12.117", "6.12.117"), ("6.12.117-x", "6.12.117"), ("6.1.0-57-amd64", "6.1.192")]
    {
        describe(with(release, &head(version)));
    }
    // The salt of distributions is the release; one that is none says nothing.
    let salt = |salt: &str| format!("{}CONFIG_BUILD_SALT=\"{salt}\"\n", head("6.1.192"));
    let want = "the configuration is of 6.1.0-56-amd64, the release is 6.1.0-57-amd64";
    two_kernels(with("6.1.0-57-amd64", &salt("6.1.0-56-amd64")), want);
    for fine in ["6.1.0-57-amd64", "", "salt"] {
        describe(with("6.1.0-57-amd64", &salt(fine)));
    }
}

#[test]
fn a_configuration_that_vermagic_contradicts_is_of_another_kernel() {
    let with = |text: &str| {
        let vermagic = "6.12.117 SMP preempt mod_unload modversions ";
        builder().vermagic("test", vermagic).config_text("test", text.as_bytes().to_vec())
    };
    let all = "CONFIG_SMP=y\nCONFIG_MODULE_UNLOAD=y\nCONFIG_MODVERSIONS=y\n";
    describe(with(all));
    describe(with("CONFIG_SMP=y\n"));
    for option in ["CONFIG_SMP", "CONFIG_MODULE_UNLOAD", "CONFIG_MODVERSIONS"] {
        let text = all.replace(&format!("{option}=y"), &format!("# {option} is not set"));
        let want = format!("{option} is not set in the configuration, and set by the kernel's vermagic");
        two_kernels(with(&text), &want);
    }
}

#[test]
fn exports_that_are_no_symbols_are_of_another_kernel() {
    let table =
        "ffff800000010000 T _text\nffff800000010100 T a\nffff800000010200 D b\nffff800000010300 b local\n";
    let symvers = |names: &[&str]| {
        let line = |name: &&str| format!("0x00000001\t{name}\tvmlinux\tEXPORT_SYMBOL\t\n");
        symvers(&names.iter().map(line).collect::<String>())
    };
    let with = |table: &str, names: &[&str]| {
        builder().live_symbols("test", symbols(table)).symvers("test", symvers(names))
    };
    describe(with(table, &["a", "b"]));
    two_kernels(with(table, &["a", "gone"]), "1 of 2 exports of Module.symvers are not in the symbol table");
    // A table without data cannot tell.
    let text_only: String = table.lines().filter(|l| l.contains(" T ")).map(|l| format!("{l}\n")).collect();
    describe(with(&text_only, &["a", "b"]));
    // A few may be missing.
    let many: String = (0..200).map(|n| format!("ffff800000011{n:03} T f{n}\n")).collect();
    let names: Vec<String> = (0..200).map(|n| format!("f{n}")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("gone");
    describe(with(&format!("{table}{many}"), &names));
}

#[test]
fn ksym_30_symbols_that_lie_elsewhere_are_of_two_kernels() {
    let link = || symbols("ffff800000010000 T _text\nffff800000010100 t f\nffff800000010200 T g\n");
    let with = |live: &str| builder().symbols("a", link()).live_symbols("b", symbols(live));
    two_kernels(
        with("ffff800001010000 T _text\nffff800001010110 t f\nffff800001010200 T g\n"),
        "1 of 3 of the functions that the kernel image and this symbol table have in common do not lie equally far apart",
    );
    two_kernels(with("ffff800001010000 T other\n"), "no symbol of the kernel image is in this symbol table");
    let one = describe(with("ffff800001010000 T _text\nffff800001010200 T g\nffff800001010300 T more\n"));
    assert_eq!(one.slide, 0x100_0000, "KSYM-30: not all need be in both");
}

#[test]
fn crcs_that_differ_are_of_two_kernels() {
    let exports = "0x1000\t0x00000001\ta\tEXPORT_SYMBOL\t\n0x2000\t0x00000002\tb\tEXPORT_SYMBOL\t\n\
        0x3000\t0x00000003\tc\tEXPORT_SYMBOL\t\n";
    let with = |crcs: [u32; 3], owner: &str| {
        let spec = records(&[("exports", exports)]);
        let line = |(name, crc): (&str, u32)| format!("{crc:#010x}\t{name}\t{owner}\tEXPORT_SYMBOL\t\n");
        let text: String = ["a", "b", "c"].into_iter().zip(crcs).map(line).collect();
        builder().records("SPEC", &spec).unwrap().symvers("test", symvers(&text))
    };
    let differ = "of 3 exports have other CRCs in Module.symvers than in the kernel image";
    two_kernels(with([9, 9, 3], "vmlinux"), &format!("2 {differ}"));
    two_kernels(with([9, 9, 9], "vmlinux"), &format!("3 {differ}"));
    // A few may differ, zeros are no CRCs, and modules are not compared.
    for (crcs, owner) in
        [([1, 2, 3], "vmlinux"), ([9, 2, 3], "vmlinux"), ([0, 0, 3], "vmlinux"), ([9, 9, 9], "d/m")]
    {
        let kernel = describe(with(crcs, owner));
        assert_eq!(
            kernel.exports().find(b"a", true).and_then(|e| e.crc),
            Some(1),
            "the image's own: {crcs:?}"
        );
    }
    let text = "0x00000009\tdata\tvmlinux\tEXPORT_SYMBOL\t\n0x00000009\tfunction\tvmlinux\tEXPORT_SYMBOL\t\n";
    let image = image::describe(true, None).symvers("test", symvers(text)).build(reloc::MACHINES);
    assert!(matches!(image, Err(Error::TwoKernels(_))), "a real image: {image:?}");
}

#[test]
fn coverage_of_a_builder_is_that_of_what_it_builds() {
    let new = KernelDescriptionBuilder::new;
    let release = |release: &str| new().release("test", release);
    let assume = |minor| new().assume_version(Some(KernelVersion::new(6, minor, 0)));
    let version = |minor| KernelConfig::new(KernelVersion::new(6, minor, 0));
    let old = b"# Linux/x86 4.19.0 Kernel Configuration\n".to_vec();
    for (what, builder, want) in [
        ("nothing is known", new(), Coverage::Unknown),
        ("the newest is assumed", new().config("test", newest()), Coverage::Unknown),
        ("compared", release("6.12.117+deb12-amd64"), Coverage::Exact),
        ("Debian's arm64", release("6.1.0-37-arm64"), Coverage::Exact),
        ("not compared", release("6.8.0-45-generic"), Coverage::Rules),
        ("too old", release("4.19.0-27-amd64"), Coverage::Unknown),
        ("a version that is assumed", assume(8), Coverage::Unknown),
        ("its own comes first", assume(1).release("test", "6.8.0"), Coverage::Rules),
        ("the configuration has the last word", assume(8).config_text("test", old), Coverage::Unknown),
        ("given outright", release("4.19.0").config("test", version(6)), Coverage::Rules),
        ("an image", image::describe(true, None), Coverage::Rules),
    ] {
        assert_eq!(builder.coverage(reloc::MACHINES), want, "{what}");
        assert_eq!(builder.build(reloc::MACHINES).unwrap().coverage(), want, "{what}: built");
    }
}
