//! What the kernel makes of a compressed module file, where it is the kernel that decompresses it.

use elf_layout::config::ModuleDecompress;
use elf_layout::{Finding, KernelConfig, Severity};
use kernel_image::{Compression, Packed};

/// A file that kmod before 31 decompresses, and with which kmod 31 and later hands to a kernel that does it itself
/// (libkmod/libkmod-module.c: do_finit_module), is two files: it is told where the kernel would not read what is read
/// here (kernel/module/decompress.c: module_decompress; DEC-1 to DEC-7).
pub fn module_decompress(packed: &Packed, config: &KernelConfig) -> Option<Finding> {
    let objection = packed.objection.as_ref()?;
    let by_kernel = match (config.module_decompress, packed.compression) {
        // DEC-2: kmod decompresses itself what the kernel's one algorithm is not for.
        (None, _)
        | (Some(ModuleDecompress::Gzip), Compression::Gzip)
        | (Some(ModuleDecompress::Xz), Compression::Xz)
        | (Some(ModuleDecompress::Zstd), Compression::Zstd) => config.module_decompress.is_some(),
        _ => return None,
    };
    let whether = if by_kernel {
        "this kernel decompresses such files itself (CONFIG_MODULE_DECOMPRESS)"
    } else {
        "whether this kernel decompresses such files itself is not known (/sys/module/compression)"
    };
    let result = objection.line.map_or_else(
        || String::from("what it loads then is not what is judged here"),
        |line| format!("EINVAL, \"{line}\""),
    );
    let why = format!(
        "the file {}; {whether}, and kmod 31 and later leaves it to such a kernel: {result}. kmod before 31 decompresses it",
        objection.why
    );
    let hint = format!("pack it again: {}", objection.fix);
    Some(Finding::note(objection.rule, Severity::Warning, why).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use elf_layout::KernelVersion;

    #[test]
    fn dec_1_to_7_who_is_told_of_a_file_that_the_kernel_does_not_read() {
        let crc64 = Packed::of(b"\xfd7zXZ\0\0\x04").unwrap();
        let of = |packed: &Packed, by| {
            let mut config = KernelConfig::new(KernelVersion::new(6, 12, 0));
            config.module_decompress = by;
            module_decompress(packed, &config)
        };
        let told = of(&crc64, Some(ModuleDecompress::Xz)).expect("DEC-6: a warning");
        assert_eq!((told.code, told.errno), ("DEC-6", None));
        assert!(told.dmesg.is_empty(), "DEC-7: kmod before 31 logs nothing");
        assert!(told.explanation.contains("kmod 31 and later"), "DEC-7: {told:?}");
        assert!(told.hint.is_some_and(|hint| hint.contains("xz --check=crc32 --lzma2=dict=1MiB")));
        let open = of(&crc64, None).expect("DEC-1: not known");
        assert!(open.explanation.contains("is not known"), "DEC-1: {open:?}");
        for by in [ModuleDecompress::No, ModuleDecompress::Gzip, ModuleDecompress::Zstd] {
            assert_eq!(of(&crc64, Some(by)), None, "DEC-1, DEC-2: {by:?}: kmod decompresses it");
        }
        let crc32 = Packed::of(b"\xfd7zXZ\0\0\x01").unwrap();
        assert_eq!(of(&crc32, Some(ModuleDecompress::Xz)), None, "DEC-6: nothing is against it");
    }
}
