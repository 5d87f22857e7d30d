//! `kmodld check` on sets: directories, dependencies among their modules, several kernels, parts, outputs (spec 12).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::elf::{ALLOC, Builder, EXEC, GLOBAL, LOCAL, Rela, UNDEF};
use common::{KERNELS, Ran, fixtures, kernel_args, kmodld, ko};
use kmodld::kernel_source::spec_file;
use serde_json::{Value, json};

/// `check` with these arguments.
fn check<S: AsRef<str>>(args: &[S]) -> Ran {
    let args = args.iter().map(|a| String::from(a.as_ref()));
    kmodld([String::from("check")].into_iter().chain(args))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A folder of the fixtures with the kernel that they were built for.
fn of_fixtures(kernel: &str, more: &[&str]) -> Vec<String> {
    let mut args = vec![text(&fixtures(kernel))];
    args.extend(kernel_args(kernel));
    args.extend(more.iter().map(|s| String::from(*s)));
    args
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[track_caller]
fn of_module<'v>(all: &'v [Value], module: &str) -> &'v Value {
    let mut found = all.iter().filter(|v| v["module"] == module);
    let first = found.next().unwrap_or_else(|| panic!("no {module} in {all:?}"));
    assert_eq!(found.next(), None, "{module} once");
    first
}

fn codes(v: &Value) -> Vec<&str> {
    v["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect()
}

#[track_caller]
fn explanation<'v>(v: &'v Value, code: &str) -> &'v str {
    let found = v["findings"].as_array().unwrap().iter().find(|f| f["code"] == code);
    found.unwrap_or_else(|| panic!("no {code} in {v}"))["explanation"].as_str().unwrap()
}

/// A small module for a kernel that compares nothing: what it exports, what it takes, its licence and `depends=`.
#[derive(Default)]
struct Mini<'m> {
    exports: &'m [&'m str],
    imports: &'m [&'m str],
    modinfo: &'m [&'m str],
}

impl Mini<'_> {
    fn build(&self, name: &str) -> Vec<u8> {
        let name = format!("name={name}");
        let mut modinfo = vec![&*name, "intree=Y", "retpoline=Y", "vermagic=6.12.0 SMP mod_unload "];
        modinfo.extend(self.modinfo);
        if !self.modinfo.iter().any(|m| m.starts_with("license=")) {
            modinfo.push("license=GPL");
        }
        let mut b = Builder::module(&modinfo);
        let strings: Vec<u8> = self.exports.iter().flat_map(|n| n.bytes().chain([0])).collect();
        b.section(".text", ALLOC | EXEC, 16).zeros(64);
        if !self.exports.is_empty() {
            b.section("__ksymtab_strings", ALLOC, 1).data([&strings[..], &[0]].concat());
            b.section("__ksymtab", ALLOC, 4).zeros(12 * self.exports.len() as u64);
            let (text, at) = (b.index(".text"), b.index("__ksymtab_strings"));
            let names = b.symbol("", LOCAL, 3, at, 0);
            let (mut records, mut offset) = (Vec::new(), 0);
            for (n, export) in self.exports.iter().enumerate() {
                let symbol = b.symbol(export, GLOBAL, 2, text, 0x10);
                let rela = |at, symbol, addend| Rela { offset: 12 * n as u64 + at, kind: 2, symbol, addend };
                records.extend([
                    rela(0, symbol, 0),
                    rela(4, names, offset),
                    rela(8, names, strings.len() as i64),
                ]);
                offset += export.len() as i64 + 1;
            }
            b.relocations("__ksymtab", &records);
        }
        for import in self.imports {
            b.symbol(import, GLOBAL, 0, UNDEF, 0);
        }
        b.build()
    }
}

/// Modules in a folder, and the description of a kernel without CRCs and signatures.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(symvers: &str) -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        let config = "# Linux/x86 6.12.0 Kernel Configuration\nCONFIG_KALLSYMS=y\nCONFIG_MODULE_UNLOAD=y\n\
            CONFIG_SMP=y\nCONFIG_MODULE_FORCE_LOAD=y\nCONFIG_MODULES=y\n";
        fs::write(folder.path("config"), config).unwrap();
        // That of the builder's modules.
        let facts = [
            ("release", "6.12.0"),
            ("machine", "62"),
            ("certificates", "0"),
            ("struct-module-size", "1280"),
            ("struct-module-init", "312"),
            ("struct-module-exit", "1200"),
        ];
        fs::write(folder.path("kernel"), common::spec(facts)).unwrap();
        let symvers = format!("0x00000000\tplain\tvmlinux\tEXPORT_SYMBOL\t\n{symvers}");
        fs::write(folder.path("symvers"), symvers).unwrap();
        fs::create_dir(folder.path("k")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, file: &str, module: &str, mini: Mini<'_>) -> &Self {
        let path = self.path("k").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, mini.build(module)).unwrap();
        self
    }

    fn check(&self, more: &[&str]) -> Ran {
        let mut args = vec![text(&self.path("k"))];
        for option in ["kernel", "config", "symvers"] {
            args.extend([format!("--{option}"), text(&self.path(option))]);
        }
        args.extend(more.iter().map(|s| String::from(*s)));
        check(&args)
    }

    fn verdicts(&self) -> Vec<Value> {
        let ran = self.check(&["--jsonl"]);
        let note = "is built without CONFIG_MODVERSIONS";
        assert!(ran.stderr.contains(note), "a kernel without CRCs is named: {}", ran.stderr);
        lines(&ran)
    }
}

#[test]
fn set_1_a_directory_is_a_set_in_the_order_of_its_paths() {
    for kernel in KERNELS {
        let ran = check(&of_fixtures(kernel, &["--jsonl"])).exits(1);
        let all = lines(&ran);
        let files: Vec<String> = common::modules(kernel).iter().map(|m| text(&ko(kernel, m))).collect();
        let got: Vec<&str> = all.iter().map(|v| v["file"].as_str().unwrap()).collect();
        assert_eq!(got, files, "{kernel}: SET-1: sorted");
        for v in &all {
            let want = match v["module"].as_str().unwrap() {
                "proprietary_gpl" => json!("ENOENT"),
                "ns_forgot" => json!("EINVAL"),
                _ => Value::Null,
            };
            assert_eq!(v["errno"], want, "{kernel}: SET-1: {v}");
            assert_eq!(v["kernel"], common::release(kernel));
        }
        // As the module alone, after what it needs.
        let exporter = text(&ko(kernel, "exporter"));
        let mut alone = vec![text(&ko(kernel, "gpl_importer")), "--jsonl".into(), "--with".into(), exporter];
        alone.extend(kernel_args(kernel));
        let alone = check(&alone).exits(0).json();
        let together = of_module(&all, "gpl_importer");
        assert_eq!(alone["verdict"], together["verdict"]);
        assert_eq!(alone["taints"], together["taints"], "SET-6");
    }
}

#[test]
fn set_1_walking() {
    let folder = Folder::new("");
    folder.put("b/x.ko", "x", Mini::default()).put("a/deep/y.ko", "y", Mini::default());
    folder.put("build_of/z.ko", "z", Mini::default());
    let k = folder.path("k");
    let z = fs::read(k.join("build_of/z.ko")).unwrap();
    fs::write(k.join("a/notes.txt"), "no module").unwrap();
    fs::write(k.join("a/zst.ko.zst"), zstd::stream::encode_all(&*z, 1).unwrap()).unwrap();
    fs::write(k.join("no.ko.bak"), &z).unwrap();
    std::os::unix::fs::symlink("..", k.join("a/loop")).unwrap();
    std::os::unix::fs::symlink("../build_of/z.ko", k.join("b/link.ko")).unwrap();
    let files = |ran: &Ran| -> Vec<String> {
        let file = |v: &Value| v["file"].as_str().unwrap().to_owned();
        lines(ran).iter().filter(|v| v["verdict"] != "unreadable").map(file).collect()
    };
    let want: Vec<String> = ["a/deep/y.ko", "a/zst.ko.zst", "b/link.ko", "b/x.ko", "build_of/z.ko"]
        .map(|f| text(&k.join(f)))
        .into();
    assert_eq!(files(&folder.check(&["--jsonl"]).exits(0)), want, "SET-1");
    // Files and directories in the order given, each file once.
    let (x, a) = (text(&k.join("b/x.ko")), text(&k.join("a")));
    let ran = check(&[&x, &a, &x, "--jsonl", "--symvers", &text(&folder.path("symvers"))]);
    assert_eq!(files(&ran), [&x, &want[0], &want[1]].map(String::from));
    // A directory without modules, and a link to nothing.
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    let ran = folder.check(&["--jsonl", &text(&empty)]).exits(3);
    assert!(ran.stderr.contains("no modules in this directory"), "{}", ran.stderr);
    assert_eq!(files(&ran), want, "the others are checked all the same");
    let ran = check(&[&text(&empty), "--symvers", &text(&folder.path("symvers"))]).exits(3);
    assert_eq!(ran.stdout, "");
    for (link, to, why) in [
        ("gone.ko", "nowhere", "gone.ko: cannot read: No such file"),
        ("circle.ko", "circle.ko", "circle.ko: cannot read: Too many levels"),
        // What might never end is not opened.
        ("device.ko", "/dev/zero", "device.ko: neither a file nor a directory"),
    ] {
        std::os::unix::fs::symlink(to, k.join(link)).unwrap();
        let ran = folder.check(&["--jsonl"]).exits(3);
        assert!(ran.stderr.contains(why), "{link}: {}", ran.stderr);
        assert_eq!(files(&ran), want, "{link}: the others are checked all the same");
    }
    let made = std::process::Command::new("mkfifo").arg(k.join("pipe.ko")).status().unwrap();
    assert!(made.success());
    let ran = folder.check(&["--jsonl"]).exits(3);
    assert!(ran.stderr.contains("pipe.ko: neither a file nor a directory"), "{}", ran.stderr);
}

/// Module.symvers tells of `offered`, or does not, or tells something else: the files decide.
#[test]
fn set_7_symvers_or_files() {
    let told = "0x00000000\toffered\tk/one\tEXPORT_SYMBOL\t\n";
    let gpl = "0x00000000\toffered\tk/one\tEXPORT_SYMBOL_GPL\t\n";
    let elsewhere =
        "0x00000000\toffered\tk/absent\tEXPORT_SYMBOL\t\n0x00000000\tother\tk/one\tEXPORT_SYMBOL\t\n";
    let mut seen: Vec<Vec<Value>> = Vec::new();
    for symvers in ["", told, gpl, elsewhere] {
        let folder = Folder::new(symvers);
        folder.put("z/one.ko", "one", Mini { exports: &["offered"], ..Mini::default() });
        let prop =
            Mini { imports: &["offered", "plain"], modinfo: &["license=Proprietary"], ..Mini::default() };
        folder.put("user.ko", "user", prop);
        let missing = Mini { imports: &["nobodys"], ..Mini::default() };
        folder.put("a.ko", "a", missing);
        let mut all = folder.verdicts();
        for v in &mut all {
            let name = Path::new(v["file"].as_str().unwrap()).file_name().unwrap().to_owned();
            v["file"] = json!(name.to_str());
            // What only Module.symvers tells.
            let findings = v["findings"].as_array_mut().unwrap();
            let before = findings.len();
            findings.retain(|f| f["code"] != "DUP-5");
            let noted = findings.len() != before;
            assert_eq!(noted, symvers == elsewhere && v["module"] == "one", "DUP-5: {symvers:?}: {v}");
        }
        assert_eq!(of_module(&all, "user")["verdict"], "loads", "SET-7: {symvers:?}: {all:?}");
        assert_eq!(of_module(&all, "a")["errno"], "ENOENT", "SYM-5: {symvers:?}");
        seen.push(all);
    }
    assert!(seen.windows(2).all(|w| w[0] == w[1]), "SET-7: {seen:?}");
}

#[test]
fn set_2_and_set_4_alternatives() {
    let folder = Folder::new("");
    let prop = Mini { exports: &["shared"], modinfo: &["license=Proprietary"], ..Mini::default() };
    let good = || Mini { exports: &["shared"], ..Mini::default() };
    let user = |modinfo| Mini { imports: &["shared"], modinfo, ..Mini::default() };
    // By `depends=`, else the first; who uses the proprietary one inherits its taint (LIC-5).
    folder.put("1.ko", "first", good()).put("2.ko", "second-one", prop);
    folder.put("3.ko", "plain_user", user(&[])).put("4.ko", "picky", user(&["depends=x,second-one"]));
    let all = folder.verdicts();
    let taints = |all: &[Value], m: &str| of_module(all, m)["taints"].as_str().unwrap().to_owned();
    assert!(all.iter().all(|v| v["verdict"] == "loads"), "SET-4: {all:?}");
    assert_eq!(
        (taints(&all, "plain_user"), taints(&all, "picky")),
        ("".into(), "P".into()),
        "SET-2: {all:?}"
    );
    // One that needs an alternative of itself cannot be loaded after it.
    let both = Mini { exports: &["shared", "more"], imports: &["own"], ..Mini::default() };
    folder.put("5.ko", "both", both).put(
        "6.ko",
        "base",
        Mini { exports: &["own", "more"], ..Mini::default() },
    );
    let all = folder.verdicts();
    let both = of_module(&all, "both");
    assert_eq!(both["errno"], "ENOEXEC", "SET-4, DUP-1: {both}");
    assert_eq!(both["dmesg"], json!(["both: exports duplicate symbol more (owned by base)"]), "DUP-1");
    assert_eq!(of_module(&all, "base")["verdict"], "loads", "SET-4");
    // updates/ comes first, of names and of files of one name.
    let folder = Folder::new("0x00000000\tshared\tk/mod\tEXPORT_SYMBOL\t\n");
    let prop = || Mini { exports: &["shared", "two"], modinfo: &["license=Proprietary"], ..Mini::default() };
    folder.put("kernel/mod.ko", "mod", good()).put("updates/dkms/mod.ko", "mod", prop());
    folder.put("kernel/a.ko", "a", Mini { exports: &["two"], ..Mini::default() });
    folder.put("u.ko", "u", user(&[])).put("v.ko", "v", Mini { imports: &["two"], ..Mini::default() });
    let all = folder.verdicts();
    assert_eq!((taints(&all, "u"), taints(&all, "v")), ("P".into(), "P".into()), "SET-2: {all:?}");
}

#[test]
fn set_3_circles() {
    let folder = Folder::new("");
    folder.put("a.ko", "a", Mini { exports: &["fa"], imports: &["fb", "base"], ..Mini::default() });
    folder.put("b.ko", "b", Mini { exports: &["fb"], imports: &["fa"], ..Mini::default() });
    folder.put("base.ko", "base", Mini { exports: &["base"], ..Mini::default() });
    folder.put("self.ko", "selfish", Mini { exports: &["me"], imports: &["me"], ..Mini::default() });
    folder.put("user.ko", "user", Mini { imports: &["fa", "fb"], ..Mini::default() });
    for jobs in ["1", "4"] {
        let all = lines(&folder.check(&["--jsonl", "-j", jobs]).exits(1));
        for (module, symbol, other) in [("a", "fb", "b"), ("b", "fa", "a")] {
            let v = of_module(&all, module);
            let line = format!("{module}: Unknown symbol {symbol} (err -2)");
            assert_eq!(v["dmesg"], json!([line]), "SET-3: {v}");
            assert!(explanation(v, "SET-3").contains(&format!("it needs {other}, ")), "SET-3: {v}");
        }
        assert_eq!(of_module(&all, "selfish")["errno"], "ENOENT", "SET-1: not its own exports");
        assert_eq!(of_module(&all, "base")["verdict"], "loads");
        let user = of_module(&all, "user");
        assert_eq!(user["verdict"], "loads", "SET-5: {user}");
        let why = explanation(user, "SET-5");
        assert!(why.contains("a") && why.contains("b") && !why.contains("base"), "SET-5: {why}");
    }
}

#[test]
fn set_5_a_module_that_is_needed_is_refused() {
    let folder = Folder::new("0x00000000\toffered\tk/broken\tEXPORT_SYMBOL\t\n");
    folder.put("a.ko", "user", Mini { imports: &["offered"], ..Mini::default() });
    let broken = Mini { exports: &["offered"], imports: &["nobodys"], ..Mini::default() };
    folder.put("k/broken.ko", "broken", broken);
    folder.put("z.ko", "deeper", Mini { imports: &["offered", "nobodys_either"], ..Mini::default() });
    let all = folder.verdicts();
    assert_eq!(of_module(&all, "broken")["errno"], "ENOENT", "SYM-5");
    let user = of_module(&all, "user");
    assert_eq!((&user["verdict"], codes(user)), (&json!("loads"), vec!["SET-5"]), "SET-5: {user}");
    assert_eq!(user["findings"][0]["severity"], "note", "SET-5");
    assert!(explanation(user, "SET-5").ends_with(": broken"), "SET-5: {user}");
    assert_eq!(codes(of_module(&all, "deeper")), ["SYM-5", "SET-5"], "SET-5");
}

#[test]
fn any_number_of_threads_and_parts_gives_the_same() {
    for kernel in ["6.12-amd64", "6.1-arm64"] {
        let args = of_fixtures(kernel, &["--jsonl"]);
        let whole = check(&args).exits(1).stdout;
        // The same without a Module.symvers that tells of modules.
        for jobs in ["1", "2", "3", "16"] {
            let ran = check(&[&args[..], &["-j".into(), jobs.into()]].concat()).exits(1);
            assert_eq!(ran.stdout, whole, "{kernel}: -j {jobs}");
        }
        let count = common::modules(kernel).len();
        for of in [1, 2, 3, count, count + 5] {
            let part =
                |i: usize| check(&[&args[..], &["--shard".into(), format!("{i}/{of}")]].concat()).stdout;
            let parts: String = (1..=of).map(part).collect();
            assert_eq!(parts, whole, "{kernel}: {of} parts");
        }
    }
    let args = of_fixtures("6.12-amd64", &[]);
    for bad in ["0/3", "4/3", "1", "x/2", "1/0"] {
        check(&[&args[..], &["--shard".into(), bad.into()]].concat()).exits(2);
    }
    check(&[&args[..], &["-j".into(), "0".into()]].concat()).exits(1);
}

/// SPECs of fixture kernels, with their modules at hand.
fn spec(kernel: &str, dir: &Path) -> String {
    let root = dir.join(kernel);
    let modules = root.join("lib/modules").join(common::release(kernel));
    fs::create_dir_all(modules.join("build")).unwrap();
    fs::copy(fixtures(kernel).join("Module.symvers"), modules.join("build/Module.symvers")).unwrap();
    fs::copy(fixtures(kernel).join("config"), modules.join("config")).unwrap();
    let spec = text(&dir.join(format!("{kernel}.spec")));
    kmodld(["kernel", &text(&root), "-o", &spec]).exits(0);
    // What such a tree does not have.
    let of_tree = spec_file::parse(&common::read(Path::new(&spec))).unwrap();
    let facts = spec_file::parse(&common::read(&common::facts(kernel))).unwrap();
    let mut both = kernel::Records::default();
    of_tree.iter().chain(facts.iter()).for_each(|(name, value)| both.set(name, value));
    let mut bytes = Vec::new();
    spec_file::write(&both, &mut bytes).unwrap();
    fs::write(&spec, bytes).unwrap();
    spec
}

#[test]
fn modules_by_kernels() {
    let dir = tempfile::tempdir().unwrap();
    let specs = ["6.12-amd64", "6.1-amd64"].map(|k| spec(k, dir.path()));
    let modules = text(&fixtures("6.12-amd64"));
    let kernels = ["--kernel", &specs[0], "--kernel", &specs[1]];
    let both = check(&[&[&*modules, "--jsonl"][..], &kernels].concat()).exits(1);
    let one = |spec: &str| lines(&check(&[&*modules, "--jsonl", "--kernel", spec]));
    let (first, second) = (one(&specs[0]), one(&specs[1]));
    let want: Vec<&Value> = first.iter().zip(&second).flat_map(|(a, b)| [a, b]).collect();
    let got = lines(&both);
    assert_eq!(got.iter().collect::<Vec<_>>(), want, "each module on each kernel in turn");
    assert_eq!(got[0]["kernel"], common::release("6.12-amd64"));
    assert_eq!(got[1]["kernel"], common::release("6.1-amd64"));
    assert!(second.iter().all(|v| v["verdict"] == "refused"), "built for another kernel");
    let halves: String = ["1/2", "2/2"]
        .map(|part| check(&[&[&*modules, "--jsonl", "--shard", part][..], &kernels].concat()).stdout)
        .concat();
    assert_eq!(halves, both.stdout, "parts of the matrix");
    // Text: a table of what differs, a summary for each kernel.
    let table = check(&[&[&*modules][..], &kernels].concat()).exits(1).stdout;
    let row = |module: &str| table.lines().find(|l| l.ends_with(&format!("/{module}.ko")));
    assert_eq!(row("hello").unwrap().split_whitespace().take(2).collect::<Vec<_>>(), ["loads", "ENOEXEC"]);
    for kernel in ["6.12-amd64", "6.1-amd64"] {
        assert!(table.contains(&format!("modules on {}: ", common::release(kernel))), "{table}");
    }
    // The same kernel twice is told apart.
    let twice = check(&[&*modules, "--jsonl", "--kernel", &specs[0], "--kernel", &specs[0]]);
    assert_eq!(lines(&twice)[0]["kernel"], specs[0]);
    for option in ["--symtab", "--symvers", "--config"] {
        let file = text(&fixtures("6.12-amd64").join("Module.symvers"));
        let ran = check(&[&[&*modules, option, &file][..], &kernels].concat()).exits(2);
        assert!(ran.stderr.contains(option), "{}", ran.stderr);
    }
}

#[test]
fn text_names_what_is_not_clean_and_sums_up() {
    let folder = Folder::new("");
    let names: Vec<String> = (0..20).map(|n| format!("nobodys_{n:02}")).collect();
    let imports: Vec<&str> = names.iter().map(String::as_str).collect();
    folder.put("bad.ko", "bad", Mini { imports: &imports, ..Mini::default() });
    folder.put("good.ko", "good", Mini::default());
    folder.put("staging.ko", "staging", Mini { modinfo: &["staging=Y"], ..Mini::default() });
    fs::write(folder.path("k/broken.ko.xz"), b"\xfd7zXZ\0 rubbish").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path("k/gone.ko")).unwrap();
    let ran = folder.check(&[]).exits(3);
    let k = text(&folder.path("k"));
    let want = format!(
        "{k}/bad.ko: refused with ENOENT\n{k}/staging.ko: loads; init not run, taints C\n\
        3 modules on 6.12.0: 2 load, 1 refused, 2 unreadable\n"
    );
    assert!(ran.stdout.starts_with(&want), "{}", ran.stdout);
    for line in ["refused with ENOENT", "error[SYM-5]", "warning[LIC-2]"] {
        assert!(ran.stdout.contains(line), "no {line:?} in {}", ran.stdout);
    }
    assert_eq!(ran.stderr.matches("error[SYM-5]").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("exports nobodys_00; likewise nobodys_01, "), "{}", ran.stderr);
    assert!(ran.stderr.contains(" and 15 more (-v lists them)"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\r'), "no progress without a terminal");
    let ran = folder.check(&["-v"]).exits(3);
    assert!(ran.stdout.contains("good.ko: loads; init not run\n"), "{}", ran.stdout);
    assert_eq!(ran.stderr.matches("error[SYM-5]").count(), 20);
}

/// What the schema of SARIF 2.1.0 requires, and what is made of a finding.
#[test]
fn sarif() {
    let ran = check(&of_fixtures("6.12-amd64", &["--sarif"])).exits(1);
    let document = ran.json();
    assert_eq!(document["version"], "2.1.0");
    assert!(document["$schema"].as_str().unwrap().contains("sarif-2.1.0"));
    let runs = document["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1);
    let driver = &runs[0]["tool"]["driver"];
    assert_eq!(driver["name"], "kmodld");
    let rules = driver["rules"].as_array().unwrap();
    let ids: Vec<&str> = rules.iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "ids are unique");
    for rule in rules {
        let text = rule["shortDescription"]["text"].as_str().unwrap();
        assert!(!text.is_empty() && rule["id"] != text, "{rule}");
    }
    let results = runs[0]["results"].as_array().unwrap();
    let verdicts = lines(&check(&of_fixtures("6.12-amd64", &["--jsonl"])));
    let is_open = |r: &&Value| r["kind"] == "open";
    let open = results.iter().filter(is_open).count();
    let unjudged = verdicts.iter().flat_map(|v| v["unjudged"].as_array().unwrap()).count();
    assert!(open > 0 && open == unjudged, "a result for each rule that is not judged");
    let results: Vec<&Value> = results.iter().filter(|r| !is_open(r)).collect();
    let findings: Vec<(&Value, &Value)> =
        verdicts.iter().flat_map(|v| v["findings"].as_array().unwrap().iter().map(move |f| (v, f))).collect();
    assert_eq!(results.len(), findings.len(), "a result for each finding");
    for (result, (verdict, finding)) in results.iter().zip(findings) {
        assert_eq!(result["ruleId"], finding["code"]);
        assert_eq!(ids[result["ruleIndex"].as_u64().unwrap() as usize], finding["code"]);
        let level = if finding["severity"] == "oops" { &json!("error") } else { &finding["severity"] };
        assert_eq!(&result["level"], level);
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert_eq!(uri.as_str().unwrap(), format!("file://{}", verdict["file"].as_str().unwrap()));
        for (property, value) in [
            ("errno", &finding["errno"]),
            ("dmesg", &finding["dmesg"]),
            ("stops_here", &finding["stops_here"]),
        ] {
            assert_eq!(&result["properties"][property], value);
        }
    }
    assert_eq!(runs[0]["invocations"][0]["executionSuccessful"], true);
    let ran = check(&of_fixtures("6.12-amd64", &["--sarif", "/nonexistent/x.ko"])).exits(3);
    let invocation = &ran.json()["runs"][0]["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    let told = invocation["toolExecutionNotifications"][0]["message"]["text"].as_str().unwrap();
    assert!(told.contains("/nonexistent/x.ko"), "{told}");
    // So is what a directory holds and nobody can read, and a set of nothing else.
    let folder = Folder::new("");
    std::os::unix::fs::symlink("nowhere", folder.path("k/gone.ko")).unwrap();
    for modules in 0..2 {
        let document = folder.check(&["--sarif"]).exits(3).json();
        let invocation = &document["runs"][0]["invocations"][0];
        assert_eq!(invocation["executionSuccessful"], false, "{modules} modules beside it: {document}");
        let told = invocation["toolExecutionNotifications"][0]["message"]["text"].as_str().unwrap();
        assert!(told.contains("gone.ko"), "{told}");
        let array = folder.check(&["--json"]).exits(3).json();
        let is_module = |v: &&Value| v["verdict"] != "unreadable";
        assert_eq!(array.as_array().unwrap().iter().filter(is_module).count(), modules);
        folder.put("good.ko", "good", Mini::default());
    }
    fs::remove_file(folder.path("k/gone.ko")).unwrap();
    // A set without a finding is a document as well.
    assert_eq!(folder.check(&["--sarif"]).exits(0).json()["runs"][0]["results"], json!([]));
    assert_eq!(folder.check(&["--json"]).exits(0).json().as_array().unwrap().len(), 1);
}

/// What describes the kernel does not fit together, or is of no use: that is said, by name.
#[test]
fn kernels_that_are_mixed_up() {
    let file = |kernel: &str, name: &str| text(&fixtures(kernel).join(name));
    let hello = text(&ko("6.12-amd64", "hello"));
    let symtab = file("6.12-amd64", "kallsyms");
    let ran = check(&[&hello, "--symtab", &symtab, "--config", &file("6.12-arm64", "config")]).exits(3);
    for words in ["the configuration is of aarch64", "the symbol table of x86_64", "two kernels"] {
        assert!(ran.stderr.contains(words), "no {words:?} in {}", ran.stderr);
    }
    let dir = tempfile::tempdir().unwrap();
    let hidden = dir.path().join("kallsyms");
    let zeros = common::text(Path::new(&symtab))
        .lines()
        .map(|l| format!("{:016x}{}\n", 0, &l[16..]))
        .collect::<String>();
    fs::write(&hidden, zeros).unwrap();
    let ran =
        check(&[&*hello, "--symtab", &text(&hidden), "--symvers", &file("6.12-amd64", "Module.symvers")]);
    assert!(ran.exits(3).stderr.contains("kptr_restrict"), "KSYM-1");
    // All CRCs zero: a kernel without CONFIG_MODVERSIONS, on which CRCs of modules say nothing.
    let symvers = common::text(Path::new(&file("6.12-amd64", "Module.symvers")));
    let zeros: String = symvers.lines().map(|l| format!("0x00000000{}\n", &l[10..])).collect();
    let path = dir.path().join("symvers");
    fs::write(&path, zeros).unwrap();
    let ran = check(&[&*hello, "--symvers", &text(&path)]).exits(4);
    assert!(ran.stderr.contains("without CONFIG_MODVERSIONS"), "VER-1: {}", ran.stderr);
    // Modules of another architecture in the set are refused one by one.
    let mixed = [text(&fixtures("6.12-arm64")), text(&fixtures("6.12-amd64"))];
    let mut args = vec!["--jsonl".to_owned()];
    args.extend(mixed);
    args.extend(kernel_args("6.12-amd64"));
    let all = lines(&check(&args).exits(1));
    for v in &all {
        let foreign = v["file"].as_str().unwrap().contains("arm64");
        assert_eq!(foreign, codes(v).contains(&"VAL-13"), "VAL-13: {v}");
    }
    assert_eq!(
        of_module(&all[all.len() / 2..], "importer")["verdict"],
        "loads",
        "SET-2: its own architecture's"
    );
}
