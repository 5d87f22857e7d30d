//! `kmodld run` on real images: those of the trees in `KMODLD_KERNELS`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::path::{Path, PathBuf};

use common::{Elf, fixtures, program};
use serde_json::Value;

/// Fixtures, and how the releases begin that they are for.
const KERNELS: [(&str, &str); 3] = [("6.12-amd64", "6.12."), ("6.1-amd64", "6.1."), ("6.12-arm64", "6.12.")];

/// The trees that are there, with the fixtures for them.
fn trees() -> Vec<(PathBuf, PathBuf)> {
    let Some(folder) = std::env::var_os("KMODLD_KERNELS") else {
        eprintln!("skipped: KMODLD_KERNELS names no folder of kernels");
        return Vec::new();
    };
    let mut found = Vec::new();
    for (of, release) in KERNELS {
        let arch = of.split_once('-').unwrap().1;
        let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut trees: Vec<PathBuf> = entries
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with(release) && name.ends_with(&format!("-{arch}"))
            })
            .collect();
        trees.sort();
        match trees.pop() {
            Some(tree) => found.push((tree, fixtures(of))),
            None => eprintln!("skipped: no kernel {release}* for {of} in {}", Path::new(&folder).display()),
        }
    }
    found
}

/// The document of a run, and its exit code.
fn run(tree: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = program()
        .arg("run")
        .args(arguments)
        .args(["--json", "--no-cache", "--kernel"])
        .arg(tree)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let document = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    (document, output.status.code().unwrap())
}

fn dmesg(document: &Value) -> Vec<&str> {
    document["dmesg"].as_array().unwrap().iter().map(|message| message["text"].as_str().unwrap()).collect()
}

#[test]
fn hello_says_what_it_says() {
    for (tree, fixtures) in trees() {
        let file = fixtures.join("hello.ko");
        let (document, code) = run(&tree, &[file.to_str().unwrap()]);
        assert_eq!(code, 0, "{document:#}");
        assert_eq!(document["boot"], serde_json::json!({}), "no function of the boot stops");
        assert_eq!(document["init"]["result"], 0);
        assert_eq!(document["exit"]["result"], 0);
        assert_eq!(
            dmesg(&document),
            [
                "hello: loading out-of-tree module taints kernel.",
                "hello: module verification failed: signature and/or required key missing - tainting kernel",
                "hello: init",
                "hello: exit",
            ]
        );
        assert_eq!(document["left_behind"]["devices"], serde_json::json!([]));
    }
}

#[test]
fn a_character_device_is_registered_served_and_removed() {
    for (tree, fixtures) in trees() {
        let file = fixtures.join("chardev.ko");
        let actions =
            ["open /dev/kmodld", "rmmod chardev", "close 0", "cat /dev/kmodld", "cat /no/such/file"];
        let mut arguments = vec![file.to_str().unwrap()];
        actions.iter().for_each(|action| arguments.extend(["-e", action]));
        let (document, code) = run(&tree, &arguments);
        assert_eq!(code, 0, "{document:#}");
        let device = &document["devices"][0];
        assert_eq!(device["name"], "kmodld");
        assert_eq!(device["fops"]["read"], "chardev_read [chardev]");
        let errno = |number: usize| document["actions"][number]["errno"].as_str();
        // Process 1 has no other files.
        assert_eq!(document["actions"][0]["result"], 0);
        // An open file holds the module.
        assert_eq!(errno(1), Some("EWOULDBLOCK"), "{document:#}");
        let why = &document["actions"][1]["why"];
        assert_eq!(why, "it is in use: 2 references; open files: 0 (/dev/kmodld)", "{document:#}");
        assert_eq!((errno(2), errno(3)), (None, None));
        assert_eq!(document["actions"][3]["output"], "kmodld\n");
        assert_eq!(errno(4), Some("ENOENT"));
        assert_eq!(document["exit"]["result"], 0);
        assert_eq!(document["left_behind"]["devices"], serde_json::json!([]));
        assert_eq!(document["left_behind"]["modules"], serde_json::json!([]));
    }
}

#[test]
fn a_module_of_another_kernel_is_refused_by_the_kernel_itself() {
    let trees = trees();
    let [(tree, _), (_, fixtures), ..] = trees.as_slice() else {
        eprintln!("skipped: that takes two kernels");
        return;
    };
    let file = fixtures.join("hello.ko");
    let (document, code) = run(tree, &["--load-only", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert_eq!(document["init"]["errno"], "ENOEXEC", "{document:#}");
    assert!(document["exit"].is_null());
}

/// Verdicts of `check`, by the module's name.
fn judged(tree: &Path, arguments: &[&str]) -> Vec<Value> {
    let usual = ["--cmdline", "nokaslr"];
    let usual = if arguments.contains(&"--cmdline") { &[][..] } else { &usual[..] };
    let output = program()
        .args(["check", "--jsonl", "--no-cache", "--no-deps", "--each", "--kernel"])
        .arg(tree)
        .args(usual)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_kernels_own_code_says_what_the_rules_say() {
    for (tree, fixtures) in trees() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(fixtures.join("hello.ko")).unwrap();
        // The name in struct module; half a file; a file of which one byte is another.
        let name = [&b"hello"[..], &[0; 51]].concat();
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        let mut renamed = bytes.clone();
        renamed[at..at + 8].copy_from_slice(b"vmlinux\0");
        let broken = [("renamed", &renamed[..]), ("half", &bytes[..bytes.len() / 2]), ("none", b"no module")];
        let mut files = Vec::new();
        for (name, bytes) in broken {
            files.push(dir.path().join(format!("{name}.ko")));
            std::fs::write(files.last().unwrap(), bytes).unwrap();
        }
        files.extend(
            ["hello", "params", "sections", "importer"].map(|name| fixtures.join(format!("{name}.ko"))),
        );
        let mut arguments: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
        arguments.extend(["--judge=both", "-j", "2"]);
        let both = judged(&tree, &arguments);
        assert_eq!(both.len(), files.len());
        for verdict in &both {
            let own = &verdict["by_kernel"];
            assert_eq!(own["differs"], serde_json::json!([]), "LIFE-58: {verdict:#}");
            assert_eq!(own["verdict"], verdict["verdict"], "{verdict:#}");
        }
        let errno: Vec<&Value> = both.iter().map(|verdict| &verdict["by_kernel"]["errno"]).collect();
        // Only livepatch minds the name, which not every architecture has.
        let renamed = if fixtures.ends_with("6.12-arm64") { Value::Null } else { "EINVAL".into() };
        assert_eq!(errno[..3], [&renamed, &"ENOEXEC".into(), &"ENOEXEC".into()]);
        assert_eq!(both[6]["by_kernel"]["errno"], "ENOENT", "importer, of which nothing is loaded before");

        // After what it needs; and without a word of the rules.
        let exporter = fixtures.join("exporter.ko");
        let with = ["--with", exporter.to_str().unwrap(), "--judge=kernel", files[6].to_str().unwrap()];
        let alone = judged(&tree, &with);
        assert_eq!((&alone[0]["verdict"], &alone[0]["findings"]), (&"loads".into(), &serde_json::json!([])));
        assert_eq!(alone[0]["taints"], "OE");
        // Words of the command line that the kernel's code takes, and flags of finit_module.
        let hello = files[3].to_str().unwrap();
        for (word, errno) in [
            ("module_blacklist=other,hello", "EPERM"),
            ("module.sig-enforce", "EKEYREJECTED"),
            ("nomodule", "EPERM"),
            ("quiet -- nomodule", "null"),
        ] {
            let told = judged(&tree, &[hello, "--judge=both", "--cmdline", &format!("nokaslr {word}")]);
            let errno = Some(errno).filter(|errno| *errno != "null").map_or(Value::Null, Value::from);
            assert_eq!(told[0]["by_kernel"]["errno"], errno, "{word}: {told:#?}");
            assert_eq!(told[0]["by_kernel"]["differs"], serde_json::json!([]), "{word}: {told:#?}");
        }
        let old = dir.path().join("old.ko");
        let magic = bytes.windows(12).position(|window| window == b"mod_unload m").unwrap();
        let mut other = bytes.clone();
        other[magic + 9] ^= 1;
        std::fs::write(&old, other).unwrap();
        let old = old.to_str().unwrap();
        for (flag, verdict) in [("--force-vermagic", "loads"), ("--force-modversion", "refused")] {
            let forced = judged(&tree, &[old, "--judge=both", flag]);
            assert_eq!(forced[0]["by_kernel"]["verdict"], verdict, "{flag}: {forced:#?}");
            assert_eq!(forced[0]["by_kernel"]["differs"], serde_json::json!([]), "{flag}: {forced:#?}");
        }
        // What the machine is not told of.
        let signed = judged(&tree, &[files[3].to_str().unwrap(), "--judge=kernel", "--tainted", "1"]);
        assert_eq!(signed[0]["verdict"], "undecided");
    }
}

/// FIN-78: a replacement that lies nowhere is read if the processor has the feature of its alternative. The kernel's code finds the
/// features of the machine's processor, and takes those that it is told instead.
#[test]
fn alternatives_are_applied_for_the_features_of_a_processor() {
    /// X86_FEATURE_XMM2, which the machine has, and X86_FEATURE_AVX512F, which it has not.
    const FEATURES: [(usize, bool); 2] = [(26, true), (9 * 32 + 16, false)];
    /// Bytes of `x86_capability` in 6.12.
    const CAPABILITIES: usize = 96;
    let kernels = trees().into_iter().filter(|(_, fixtures)| fixtures.to_str().unwrap().ends_with("-amd64"));
    for (tree, fixtures) in kernels {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(fixtures.join("patching.ko")).unwrap();
        for (feature, is_there) in FEATURES {
            let mut elf = Elf::new(bytes.clone());
            let (table, relocations) =
                (elf.section(".altinstructions"), elf.section(".rela.altinstructions"));
            // The feature of the first record, and where its replacement is: the addend of the second relocation.
            elf.data_mut(table)[8..10].copy_from_slice(&(feature as u16).to_le_bytes());
            elf.data_mut(relocations)[24 + 16..24 + 24].copy_from_slice(&(-0x7000_0000i64).to_le_bytes());
            let file = dir.path().join("patching.ko");
            std::fs::write(&file, &elf.bytes).unwrap();
            let file = file.to_str().unwrap();
            let verdict = |is_there| if is_there { "oops" } else { "loads" };
            let own = judged(&tree, &[file, "--judge=kernel"]);
            assert_eq!(own[0]["verdict"], verdict(is_there), "FIN-78: {feature}: {own:#?}");
            if !fixtures.ends_with("6.12-amd64") {
                continue;
            }
            for is_told in [true, false] {
                let mut capabilities = [0u8; CAPABILITIES];
                capabilities[feature / 8] = u8::from(is_told) << (feature % 8);
                let hex: String = capabilities.iter().map(|byte| format!("{byte:02x}")).collect();
                let both = judged(&tree, &[file, "--judge=both", "--cpu-caps", &hex]);
                assert_eq!(both[0]["by_kernel"]["verdict"], verdict(is_told), "{feature}: {both:#?}");
                assert_eq!(both[0]["by_kernel"]["differs"], serde_json::json!([]), "{both:#?}");
            }
        }
        // Words for mitigations are the kernel's: without retpolines, nothing else is undecided.
        let hello = fixtures.join("hello.ko");
        let off =
            judged(&tree, &[hello.to_str().unwrap(), "--judge=both", "--cmdline", "nokaslr mitigations=off"]);
        assert_eq!(off[0]["by_kernel"]["verdict"], "loads", "{off:#?}");
        assert_eq!(off[0]["by_kernel"]["differs"], serde_json::json!([]), "{off:#?}");
    }
}

/// The tree of 6.12 and the module of this name in `fixtures/run`.
fn misbehaving(name: &str) -> Option<(PathBuf, String)> {
    let (tree, _) = trees().into_iter().find(|(_, fixtures)| fixtures.ends_with("6.12-amd64"))?;
    let file = fixtures("run").join("6.12-amd64").join(format!("{name}.ko"));
    Some((tree, file.to_str().unwrap().to_owned()))
}

#[test]
fn calls_are_traced_with_the_types_of_the_image() {
    for (tree, fixtures) in trees() {
        let file = fixtures.join("chardev.ko");
        let arguments = [file.to_str().unwrap(), "-e", "cat /dev/kmodld", "--trace=calls"];
        let (document, code) = run(&tree, &arguments);
        assert_eq!(code, 0, "{document:#}");
        let trace = document["init"]["trace"].as_array().unwrap();
        assert_eq!((&trace[0]["kind"], &trace[0]["direction"]), (&"call".into(), &"in".into()));
        assert_eq!(trace[0]["arguments"], serde_json::json!([]), "int init(void)");
        let call = trace.iter().find(|entry| entry["function"] == "alloc_chrdev_region").unwrap();
        assert_eq!(call["depth"], 1);
        let argument = |number: usize| &call["arguments"][number];
        assert_eq!((&argument(3)["name"], &argument(3)["text"]), (&"name".into(), &"\"kmodld\"".into()));
        assert_eq!((&argument(3)["type"], &argument(2)["text"]), (&"const char *".into(), &"1".into()));
        let last = trace.last().unwrap();
        assert_eq!((&last["kind"], &last["result"]["text"]), (&"return".into(), &"0".into()));
        // Its type is that of the member of file_operations, which cdev_init was given.
        let read = &document["actions"][0]["trace"][0];
        assert_eq!(read["function"], "chardev_read [chardev]");
        assert_eq!(read["arguments"][0]["type"], "struct file *", "{read:#}");
        assert_eq!(document["events"], serde_json::json!([]));
        assert_eq!(document["trace_cut"], 0);
    }
}

#[test]
fn traces_have_an_end_and_go_to_a_file() {
    for (tree, fixtures) in trees() {
        let (dir, file) = (tempfile::tempdir().unwrap(), fixtures.join("hello.ko"));
        let path = dir.path().join("trace");
        let output = program()
            .args(["run", "--no-cache", "--trace=instructions", "--trace-limit", "3", "--trace-file"])
            .args([path.as_path(), Path::new("--kernel"), &tree, &file])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("of the trace are cut off: --trace-limit 3"), "{said}");
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(!shown.contains("init_module+"), "{shown}");
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| line.contains("init_module")).count();
        assert_eq!(lines, 3, "{text}");
        assert!(
            text.contains("init_module [hello]: endbr64") || text.contains("init_module [hello]: "),
            "{text}"
        );
    }
}

#[test]
fn coverage_names_the_blocks_that_were_executed() {
    for (tree, fixtures) in trees() {
        let (dir, file) = (tempfile::tempdir().unwrap(), fixtures.join("hello.ko"));
        let path = dir.path().join("hello.drcov");
        let (document, _) = run(&tree, &[file.to_str().unwrap(), "--coverage", path.to_str().unwrap()]);
        let bytes = std::fs::read(path).unwrap();
        let at = bytes.windows(5).position(|window| window == b" bbs\n").unwrap() + 5;
        let text = String::from_utf8_lossy(&bytes[..at]);
        assert!(text.starts_with("DRCOV VERSION: 2\n") && text.contains("hello.ko\n"), "{text}");
        let blocks = document["coverage"]["blocks"].as_u64().unwrap();
        assert_eq!((bytes.len() - at) as u64, 8 * blocks);
        let sizes: u64 = bytes[at..].chunks(8).map(|block| u64::from(block[4])).sum();
        assert_eq!(document["coverage"]["bytes"], sizes, "of init and exit no byte is in two blocks");
        assert!(blocks >= 3, "init before and behind printk, and exit: {document:#}");
    }
}

#[test]
fn what_rootkits_do_is_told() {
    let Some((tree, file)) = misbehaving("deeds") else { return };
    let told = |deeds: &[&str]| {
        let actions: Vec<String> =
            deeds.iter().map(|deed| format!("echo {deed} > /sys/module/deeds/parameters/deed")).collect();
        let mut arguments = vec![file.as_str()];
        actions.iter().for_each(|action| arguments.extend(["-e", action]));
        run(&tree, &arguments).0
    };
    let all = [
        "text",
        "table",
        "variable",
        "copied",
        "rights",
        "other_rights",
        "program",
        "trace",
        "packets",
        "hide",
    ];
    let document = told(&all);
    let events = document["events"].as_array().unwrap();
    let of = |by: &str| {
        let found = events.iter().filter(|event| event["by"].as_str().unwrap().starts_with(by));
        found.map(|event| (event["kind"].as_str().unwrap(), event["symbol"].as_str())).collect::<Vec<_>>()
    };
    assert!(of("find+").contains(&("probe", Some("kallsyms_lookup_name"))), "{document:#}");
    assert!(of("text+").contains(&("protection", None)));
    assert!(of("text+").contains(&("text", Some("__x64_sys_getpgid"))));
    assert!(of("table+").contains(&("table", Some("sys_call_table+0x28"))));
    assert!(of("variable+").contains(&("write", Some("modules_disabled"))));
    assert!(of("copied+").contains(&("write", Some("modules_disabled"))));
    assert!(matches!(of("rights+")[..], [("credentials", Some(_))]), "{document:#}");
    assert_eq!(of("other_rights+"), [("credentials", None)]);
    assert_eq!(of("program+"), [("program", None)]);
    assert_eq!(of("trace+"), [("tracing", None)]);
    assert_eq!(of("do_deed+"), [("packets", Some("packet [deeds]"))]);
    assert!(matches!(of("hide+")[..], [("hiding", Some(_))]), "{document:#}");
    let first: Vec<&Value> = events.iter().filter(|event| event["first"] == true).collect();
    assert!(matches!(first[..], [event] if event["by"].as_str().unwrap().starts_with("text+")));
    assert!(document["left_behind"].is_null(), "who hides is still there");
    // Who does nothing of it.
    assert_eq!(told(&[])["events"], serde_json::json!([]));
}

#[test]
fn what_is_left_behind_is_named() {
    let Some((tree, file)) = misbehaving("leaks") else { return };
    let exporter = format!("insmod {}", fixtures("6.12-amd64").join("exporter.ko").display());
    let (document, code) = run(&tree, &[&file, "-e", &exporter]);
    assert_eq!(code, 0, "{document:#}");
    let left = &document["left_behind"];
    let bytes: Vec<Option<u64>> =
        left["allocations"].as_array().unwrap().iter().map(|one| one["bytes"].as_u64()).collect();
    assert_eq!(
        bytes,
        [Some(100), Some(19), Some(12288), Some(4096), None],
        "what was freed is not there: {left:#}"
    );
    assert!(left["allocations"][0]["site"].as_str().unwrap().ends_with(" [leaks]"));
    let files: Vec<&str> =
        left["files"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    for path in ["/proc/kmodld_leaks", "/sys/kernel/debug/kmodld_leaks", "/sys/kernel/kmodld_leaks"] {
        assert!(files.contains(&path), "{path}: {left:#}");
    }
    assert_eq!(left["devices"][0]["name"], "kmodld_leaks");
    let strays: Vec<(&str, &str)> = left["strays"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["function"].as_str().unwrap()))
        .collect();
    for stray in [
        ("timer", "rings [leaks]"),
        ("timer", "precise_rings [leaks]"),
        ("work", "works [leaks]"),
        ("thread", "runs [leaks]"),
        ("notifier", "hears [leaks]"),
        ("interrupt", "interrupted [leaks]"),
    ] {
        assert!(strays.contains(&stray), "{stray:?}: {left:#}");
    }
    assert_eq!(left["queues"], serde_json::json!(["kmodld_leaks"]));
    assert_eq!(left["references"], serde_json::json!({"exporter": 1}));
    assert_eq!(left["modules"], serde_json::json!(["exporter"]));
    assert_eq!(left["unknown"], serde_json::json!([]));
}

/// The trees of 6.12 and the module of this name in `fixtures/run`, for each architecture that it is there for.
fn everywhere(name: &str) -> Vec<(PathBuf, String)> {
    let of = |(tree, fixtures): (PathBuf, PathBuf)| {
        let file = fixtures.join("../run").join(fixtures.file_name()?).join(format!("{name}.ko"));
        file.exists().then(|| (tree, file.display().to_string()))
    };
    trees().into_iter().filter_map(of).collect()
}

#[test]
fn misuses_of_memory_are_told() {
    // What is done, the kind, by which function of the module or of the kernel, bytes, and those of the object.
    let misuses = [
        ("write_behind", "out-of-bounds", "write_behind", 1, 40),
        ("write_before", "out-of-bounds", "write_before", 8, 64),
        ("read_behind", "out-of-bounds", "read_behind", 4, 20),
        ("read_across", "out-of-bounds", "read_across", 8, 12),
        ("behind_pages", "out-of-bounds", "behind_pages", 1, 5000),
        ("write_freed", "use-after-free", "write_freed", 8, 100),
        ("read_freed", "use-after-free", "read_freed", 8, 100),
        ("read_freed_record", "use-after-free", "read_freed_record", 1, 40),
        ("free_twice", "free", "", 0, 10),
        ("free_inside", "free", "free_inside", 0, 10),
        ("read_unwritten", "uninitialised", "read_unwritten", 8, 64),
        ("print_unwritten", "uninitialised", "print_unwritten", 8, 64),
        ("copy_behind", "out-of-bounds", "copy_behind", 31, 30),
        ("copy_over", "out-of-bounds", "", 0, 30),
        ("print_over", "out-of-bounds", "vsnprintf", 1, 8),
        ("timer_freed", "use-after-free", "__run_timer", 8, 48),
    ];
    for (tree, file) in everywhere("misuses") {
        let path = "/sys/module/misuses/parameters/misuse";
        let told = |actions: &[&str], more: &[&str]| {
            let mut arguments = vec![file.as_str()];
            actions.iter().for_each(|action| arguments.extend(["-e", action]));
            let (document, code) = run(&tree, &[&arguments[..], more].concat());
            assert_eq!(code, 0, "{document:#}");
            document["events"].as_array().unwrap().clone()
        };
        let mut actions: Vec<String> =
            misuses.iter().map(|(name, ..)| format!("echo {name} > {path}")).collect();
        actions
            .extend(["read /dev/kmodld_misuses 32".into(), format!("write /dev/kmodld_misuses {:040}", 0)]);
        let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
        let events = told(&actions, &["--sanitize"]);
        let mut rest = events.iter().peekable();
        for (name, kind, by, bytes, size) in misuses {
            let event = rest.next().unwrap_or_else(|| panic!("{name}: nothing is told: {events:#?}"));
            let (memory, text) = (&event["memory"], event["by"].as_str().unwrap());
            assert_eq!(event["kind"], kind, "{name}: {event:#}");
            assert!(text.starts_with(by), "{name}: {event:#}");
            assert_eq!(memory["object"]["size"], size, "{name}: {event:#}");
            assert!(bytes == 0 || memory["bytes"] == bytes, "{name}: {event:#}");
            assert_eq!(
                memory["write"],
                name.starts_with("write")
                    || matches!(name, "behind_pages" | "copy_over" | "print_over" | "timer_freed"),
                "{name}: {event:#}"
            );
            let calls = |of: &Value| {
                of.as_array().unwrap().iter().any(|call| call.as_str().unwrap().ends_with("[misuses]"))
            };
            assert!(calls(&memory["object"]["allocated"]), "{name}: {event:#}");
            let was_freed = kind == "use-after-free" || name == "free_twice";
            assert!(memory["object"]["freed"].is_null() != was_freed, "{name}: {event:#}");
            assert!(!was_freed || calls(&memory["object"]["freed"]), "{name}: {event:#}");
            // One mistake may be told of more than one instruction.
            while rest.next_if(|other| other["memory"]["object"] == memory["object"]).is_some() {}
        }
        let (leak, over) = (rest.next().unwrap(), rest.next().unwrap());
        assert_eq!((&leak["kind"], &leak["memory"]["bytes"]), (&"uninitialised".into(), &32.into()));
        assert_eq!((&over["kind"], &over["memory"]["object"]["size"]), (&"out-of-bounds".into(), &16.into()));
        assert!(rest.all(|other| other["memory"]["object"] == over["memory"]["object"]), "{events:#?}");
        let right = format!("echo right_use > {path}");
        assert_eq!(told(&[&right], &["--sanitize"]), Vec::<Value>::new(), "what is right");
        let silent = told(&actions, &[]);
        assert!(silent.iter().all(|event| event["memory"].is_null()), "nobody has asked: {silent:#?}");
    }
}

#[test]
fn coverage_names_the_lines_that_were_executed() {
    let source = include_str!("../fixtures/src/run/covered.c");
    for (tree, file) in everywhere("covered") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("covered.info");
        let arguments = [file.as_str(), "rounds=4", "--coverage", path.to_str().unwrap()];
        let (document, code) = run(&tree, &arguments);
        assert_eq!(code, 0, "{document:#}");
        let text = std::fs::read_to_string(&path).unwrap();
        let record = text.split("end_of_record\n").find(|record| record.contains("SF:/kmodld/covered.c\n"));
        let record = record.unwrap_or_else(|| panic!("{text}"));
        for (number, line) in (1..).zip(source.lines()) {
            let count = match line.rsplit("/* ").next() {
                Some("never */") => 0,
                Some("once */") => 1,
                Some("often */") => 4,
                _ => continue,
            };
            assert!(record.contains(&format!("\nDA:{number},{count}\n")), "line {number}: {record}");
        }
        for function in ["FNDA:1,covered_init", "FNDA:4,twice", "FNDA:0,unused", "FNDA:1,covered_exit"] {
            assert!(record.contains(&format!("\n{function}\n")), "{function}: {record}");
        }
        // Blocks, if that is what is asked for; and of a module without lines there are none.
        run(&tree, &[&arguments[..], &["--coverage-format", "drcov"]].concat());
        assert!(std::fs::read(&path).unwrap().starts_with(b"DRCOV VERSION"));
    }
    for (tree, fixtures) in trees() {
        let output = program()
            .args(["run", "--no-cache", "--coverage", "x.info", "--kernel"])
            .args([tree, fixtures.join("hello.ko")])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("hello.ko") && said.contains("no debug information"), "{said}");
    }
}

/// What the program prints, as it is, with a cache folder or without.
fn printed(cache: Option<&Path>, arguments: &[&str]) -> (Vec<u8>, i32) {
    let mut command = program();
    command.args(arguments);
    match cache {
        Some(folder) => command.env("XDG_CACHE_HOME", folder),
        None => command.arg("--no-cache"),
    };
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.stdout, output.status.code().unwrap())
}

/// The machine that is kept in a cache folder.
fn kept(cache: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(cache.join("kmodld")).ok()?.map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "machine")).max()
}

#[test]
fn a_kernel_that_was_kept_is_the_one_that_was_booted() {
    for (number, (tree, fixtures)) in trees().into_iter().enumerate() {
        let top = tempfile::tempdir().unwrap();
        let cache = top.path();
        let file = |name: &str| fixtures.join(format!("{name}.ko")).display().to_string();
        let (chardev, hello, tree) = (file("chardev"), file("hello"), tree.display().to_string());
        let run = ["run", &chardev, "--json", "-e", "cat /dev/kmodld", "--trace=calls", "--kernel", &tree];
        let judge = ["check", &hello, &chardev, "--judge=both", "--jsonl", "-j", "2", "--kernel", &tree];
        let booted = [printed(None, &run), printed(None, &judge)];
        assert_eq!(kept(cache), None);
        for round in ["as it is booted", "from the cache"] {
            assert!([printed(Some(cache), &run), printed(Some(cache), &judge)] == booted, "{round}");
        }
        // That is the same on every kernel, and takes a boot each time.
        if number != 0 {
            continue;
        }
        let machine = kept(cache).unwrap();
        let whole = std::fs::read(&machine).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 3] ^= 4;
        for damaged in [&flipped[..], &whole[..whole.len() / 2], b"", b"rubbish"] {
            std::fs::write(&machine, damaged).unwrap();
            assert!(printed(Some(cache), &run) == booted[0]);
            assert!(std::fs::read(kept(cache).unwrap()).unwrap() == whole, "it was booted and kept again");
        }
    }
}
