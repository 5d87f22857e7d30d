//! Strings, configuration, BTF, and memory at link addresses.

use super::{ARM64_BASE, Plan, RELEASE, build};
use kernel_image::{Btf, Error, KallsymsLayout, KernelImage};

/// A blob with, in C:
///
/// ```c
/// typedef int number;
/// struct inner { number a; number b; };
/// struct outer { int x; struct { int y : 4; int z : 12; union { long u; struct inner in[3]; }; }; void *p; };
/// enum e { MINUS = -1, TWO = 2 };
/// ```
pub(super) fn btf_blob() -> Vec<u8> {
    let mut strings: Vec<u8> = vec![0];
    let mut string = |s: &str| {
        strings.extend_from_slice(s.as_bytes());
        strings.push(0);
        (strings.len() - s.len() - 1) as u32
    };
    const FLAG: u32 = 1 << 31;
    let info = |kind: u32, members: u32| kind << 24 | members;
    let types: Vec<u32> = [
        &[string("int"), info(1, 0), 4, 1 << 24 | 32][..], // 1
        &[string("number"), info(8, 0), 1],                // 2
        &[string("inner"), info(4, 2), 8, string("a"), 2, 0, string("b"), 2, 32], // 3
        &[0, info(3, 0), 0, 3, 1, 3],                      // 4: inner[3]
        &[string("long"), info(1, 0), 8, 1 << 24 | 64],    // 5
        &[0, info(5, 2), 24, string("u"), 5, 0, string("in"), 4, 0], // 6
        &[0, info(4, 3) | FLAG, 32, string("y"), 1, 4 << 24, string("z"), 1, 12 << 24 | 4, 0, 6, 64], // 7
        &[string("outer"), info(4, 3), 48, string("x"), 1, 0, 0, 7, 64, string("p"), 9, 320], // 8
        &[0, info(2, 0), 0],                               // 9: void *
        &[string("e"), info(6, 2) | FLAG, 4, string("MINUS"), u32::MAX, string("TWO"), 2], // 10
        &[string("loop"), info(8, 0), 11],                 // 11: itself
        &[0, info(13, 2), 0, string("driver"), 9, string("mod_name"), 9], // 12: its parameters
        &[string("__toy_register_driver"), info(12, 1), 12], // 13
        &[string("toy_name"), info(12, 1), 12],            // 14: registers nothing
        &[0, info(13, 1), 0, string("name"), 9],           // 15
        &[string("toy_register"), info(12, 1), 15],        // 16
    ]
    .concat();
    let mut blob = vec![0x9f, 0xeb, 1, 0];
    let types_len = 4 * types.len() as u32;
    for word in [24, 0, types_len, types_len, strings.len() as u32] {
        blob.extend_from_slice(&word.to_le_bytes());
    }
    types.iter().for_each(|word| blob.extend_from_slice(&word.to_le_bytes()));
    blob.extend_from_slice(&strings);
    blob
}

#[test]
fn btf_sizes_and_offsets() {
    let blob = btf_blob();
    let btf = Btf::parse(&blob).unwrap();
    assert_eq!((btf.len(), btf.is_empty()), (16, false));
    let functions = btf.functions_with_parameter(&["modname", "mod_name"]);
    assert_eq!(functions, [&b"__toy_register_driver"[..], b"toy_name"]);
    assert!(btf.functions_with_parameter(&["mod"]).is_empty());
    assert_eq!(
        (btf.struct_size("outer"), btf.struct_size("inner"), btf.struct_size("none")),
        (Some(48), Some(8), None)
    );
    let at = |path| btf.member("outer", path).map(|m| (m.offset, m.bit, m.size));
    assert_eq!(at("x"), Some((0, 0, 4)));
    assert_eq!(at("y"), Some((8, 0, 4)), "through an anonymous struct");
    assert_eq!(at("z"), Some((8, 4, 4)), "a bit-field");
    assert_eq!(at("u"), Some((16, 0, 8)), "through two of them");
    assert_eq!(at("in"), Some((16, 0, 24)), "an array");
    assert_eq!(at("p"), Some((40, 0, 8)));
    assert_eq!(btf.member("inner", "b").map(|m| (m.offset, m.size)), Some((4, 4)), "through a typedef");
    assert_eq!(at("in.a"), None, "not into an array");
    assert_eq!((at("nothing"), at("x.y"), at("")), (None, None, None));
    assert_eq!(btf.enum_value("e", "MINUS"), Some(-1));
    assert_eq!(btf.enum_value("e", "TWO"), Some(2));
    assert_eq!(btf.enum_value("e", "THREE"), None);
    assert_eq!(btf.size_of(kernel_image::TypeId(11)), None, "a typedef of itself");
    assert_eq!(btf.size_of(kernel_image::TypeId(99)), None);
}

#[test]
fn btf_functions_and_their_types() {
    use kernel_image::{Sort, TypeId};
    let blob = btf_blob();
    let btf = Btf::parse(&blob).unwrap();
    let all: Vec<_> = btf.functions().collect();
    assert_eq!(all[0], (&b"__toy_register_driver"[..], TypeId(12)));
    let prototype = btf.prototype(TypeId(12)).unwrap();
    assert_eq!(prototype.parameters, [(&b"driver"[..], TypeId(9)), (&b"mod_name"[..], TypeId(9))]);
    assert_eq!((prototype.returns, prototype.is_variadic), (TypeId(0), false));
    assert_eq!(btf.prototype(TypeId(8)), None, "that is a struct");
    for (id, sort, spelled) in [
        (0, Sort::Void, "void"),
        (2, Sort::Integer { size: 4, signed: true }, "number"),
        (3, Sort::Other, "struct inner"),
        (9, Sort::Pointer, "void *"),
        (10, Sort::Enum { id: TypeId(10), size: 4 }, "enum e"),
        (11, Sort::Void, "loop"),
        (99, Sort::Void, "void"),
    ] {
        assert_eq!((btf.sort(TypeId(id)), btf.spelled(TypeId(id)).as_str()), (sort, spelled), "type {id}");
    }
    assert_eq!(btf.members(TypeId(8)), [(0, TypeId(1)), (8, TypeId(7)), (40, TypeId(9))]);
    assert_eq!(btf.members(TypeId(7)), [(8, TypeId(6))], "bit-fields have no bytes of their own");
    assert!(btf.is_struct(TypeId(6)) && !btf.is_struct(TypeId(9)));
    assert_eq!(btf.enumerator(TypeId(10), -1), Some(&b"MINUS"[..]));
    assert_eq!((btf.enumerator(TypeId(10), 3), btf.enumerator(TypeId(8), 0)), (None, None));
}

#[test]
fn btf_in_any_image() {
    for plan in [
        Plan::new(true, KallsymsLayout::Old),
        Plan::new(false, KallsymsLayout::Old),
        Plan { sections: true, ..Plan::new(false, KallsymsLayout::Old) },
    ] {
        let built = build(&plan);
        assert_eq!(built.open().btf().unwrap().struct_size("outer"), Some(48));
    }
    let mut blob = btf_blob();
    blob[24 + 7] = 0x1f; // kind 31
    assert!(matches!(Btf::parse(&blob), Err(Error::DamagedBtf { at: 24, .. })));
    assert!(matches!(Btf::parse(b"\xeb\x9f\0\x01"), Err(Error::DamagedBtf { at: 0, .. })));
}

#[test]
fn strings_and_configuration() {
    let built = build(&Plan::new(true, KallsymsLayout::Old));
    let image = built.open();
    assert_eq!(image.release(), Some(RELEASE.as_bytes()), "not the %s of a format");
    assert!(image.banner().unwrap().ends_with(b"#1 SMP"));
    let vermagic = b"6.1.2-made-up SMP preempt mod_unload modversions aarch64";
    assert_eq!(image.vermagic(), Some(&vermagic[..]));
    assert_eq!(image.config(), Some(Ok(b"CONFIG_MODULES=y\n".to_vec())));
}

#[test]
fn memory_at_link_addresses() {
    let built = build(&Plan::new(true, KallsymsLayout::NamesFirst));
    let image = built.open();
    assert_eq!(image.base(), Some(ARM64_BASE));
    assert_eq!(image.read(ARM64_BASE + 0x38, 4), Some(&b"ARMd"[..]));
    assert_eq!(image.read(ARM64_BASE - 1, 1), None);
    let len = built.bytes.len();
    assert_eq!(image.read(ARM64_BASE + len as u64 - 4, 5), None, "beyond the file");
    assert!(image.read_cstr(ARM64_BASE + 4096).unwrap().starts_with(b"Linux version"));
    // KSYM-12: kallsyms_relative_base is zero in the file, and RELA knows it.
    assert_eq!(image.relocated_pointers(), 1);
    let rela = memchr::memmem::find(&built.bytes, &0x403u64.to_le_bytes()).unwrap();
    let place = u64::from_le_bytes(built.bytes[rela - 8..rela].try_into().unwrap());
    assert_eq!(image.read(place, 8), Some(&[0; 8][..]));
    assert_eq!(image.read_u64(place), Some(ARM64_BASE));
    assert_eq!(image.read_u64(ARM64_BASE + 0x38), Some(u64::from(u32::from_le_bytes(*b"ARMd"))));
    let around = image.read_relocated(place - 2, 12).unwrap();
    assert_eq!(around[2..10], ARM64_BASE.to_le_bytes());
    let partly = image.read_relocated(place + 3, 5).unwrap();
    assert_eq!(*partly, ARM64_BASE.to_le_bytes()[3..]);
    let owned: KernelImage<'static> = image.clone().into_owned();
    assert_eq!(owned.read_u64(place), Some(ARM64_BASE));
}
