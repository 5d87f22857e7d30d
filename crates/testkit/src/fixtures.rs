//! The modules and kernels of `fixtures/`.

use std::path::{Path, PathBuf};

/// The folders of fixtures of kernels with CRCs (CONFIG_MODVERSIONS).
pub const KERNELS: [&str; 4] = ["6.1-amd64", "6.12-amd64", "6.1-arm64", "6.12-arm64"];

/// All folders of fixtures: Debian's 7.3 has no CRCs.
pub const ALL_KERNELS: [&str; 6] =
    ["6.1-amd64", "6.12-amd64", "7.3-amd64", "6.1-arm64", "6.12-arm64", "7.3-arm64"];

/// Those of x86_64 with CRCs.
pub const AMD64: [&str; 2] = ["6.1-amd64", "6.12-amd64"];

/// What each fixture needs loaded before it.
pub fn dependencies(module: &str) -> &'static [&'static str] {
    match module {
        "importer" | "gpl_importer" | "proprietary" | "proprietary_gpl" => &["exporter"],
        "ns_importer" | "ns_forgot" => &["ns_exporter"],
        _ => &[],
    }
}

/// The folder of the workspace.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/testkit")
}

/// A file or folder of the fixtures.
pub fn fixtures(path: &str) -> PathBuf {
    root().join("fixtures").join(path)
}

/// A fixture module.
pub fn ko(kernel: &str, module: &str) -> PathBuf {
    fixtures(kernel).join(format!("{module}.ko"))
}

/// A file's bytes.
pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A file's text.
pub fn text(path: &Path) -> String {
    String::from_utf8(read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The release of a fixture kernel.
pub fn release(kernel: &str) -> String {
    text(&fixtures(kernel).join("release")).trim().to_owned()
}

/// Names of all fixtures of a kernel, in order.
pub fn modules(kernel: &str) -> Vec<String> {
    let names =
        std::fs::read_dir(fixtures(kernel)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut modules: Vec<String> = names.filter_map(|n| n.strip_suffix(".ko").map(String::from)).collect();
    modules.sort();
    assert!(modules.len() >= 19, "{kernel}: fixtures are missing");
    modules
}

/// Name, type, mode and default of the parameters of the fixture `params`: as fixtures/src/params.c declares them, printed as sysfs would.
/// A type of the module's own has the type `?` and a default that only its code can print.
pub const PARAMETERS: [(&str, &str, Option<&str>, Option<&str>); 29] = [
    ("a_byte", "byte", Some("0644"), Some("183")),
    ("a_short", "short", Some("0644"), Some("-12345")),
    ("a_ushort", "ushort", Some("0644"), Some("48879")),
    ("an_int", "int", Some("0644"), Some("-123456789")),
    ("a_uint", "uint", Some("0444"), Some("3737837057")),
    ("a_long", "long", Some("0644"), Some("-81985529216486895")),
    ("a_ulong", "ulong", Some("0644"), Some("18364758544493064720")),
    ("a_ullong", "ullong", None, Some("10064964684273864717")),
    ("a_hexint", "hexint", Some("0644"), Some("0xc0ffee")),
    ("a_bool", "bool", Some("0644"), Some("Y")),
    ("an_invbool", "invbool", Some("0644"), Some("N")),
    ("a_bint", "bint", Some("0644"), Some("1")),
    ("a_latch", "bool_enable_only", Some("0644"), Some("N")),
    ("a_charp", "charp", Some("0644"), Some("kmodld-charp-default")),
    ("a_null_charp", "charp", Some("0444"), Some("(null)")),
    ("a_string", "string", Some("0644"), Some("kmodld-string-default")),
    ("int_array", "array of int", Some("0644"), Some("286331153,572662306,858993459,1145324612")),
    ("ushort_array", "array of ushort", Some("0444"), Some("41377,45746,50115")),
    ("charp_array", "array of charp", Some("0444"), Some("first,second")),
    ("bool_array", "array of bool", Some("0444"), Some("")),
    ("zero_int", "int", Some("0644"), Some("0")),
    ("zero_array", "array of ulong", Some("0644"), Some("")),
    ("zero_string", "string", Some("0644"), Some("")),
    ("outer_name", "int", Some("0644"), Some("231784670")),
    ("an_unsafe", "int", Some("0644"), Some("23134")),
    ("an_ioport", "int", Some("0444"), Some("1016")),
    ("a_percent", "?", Some("0644"), None),
    ("a_counter", "?", Some("0444"), None),
    ("a_level", "int", Some("0444"), Some("6")),
];
