//! The modules and kernels of `fixtures/`.

use std::path::{Path, PathBuf};

/// The folders of fixtures.
pub const KERNELS: [&str; 4] = ["6.1-amd64", "6.12-amd64", "6.1-arm64", "6.12-arm64"];

/// Those of x86_64.
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
