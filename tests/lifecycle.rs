//! `kmodld simulate`: the life of modules, from insmod to rmmod (spec 08).
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use common::{AMD64, KERNELS, Ran, hex, kernel_args, ko, library};
use kernel::Exit;
use kmodld::Loader;
use serde_json::{Value, json};

const KERNEL: &str = "6.12-amd64";

/// Takes steps on a fixture kernel; `insmod NAME` loads that fixture.
fn simulate(kernel: &str, steps: &[&str], more: &[&str]) -> Ran {
    let mut args = vec![String::from("simulate")];
    let mut own = kernel_args(kernel);
    if more.contains(&"--config") {
        let at = own.iter().position(|a| a == "--config").unwrap();
        own.drain(at..at + 2);
    }
    args.extend(own);
    args.extend(more.iter().map(|s| String::from(*s)));
    args.extend(steps.iter().map(|step| match step.strip_prefix("insmod ") {
        Some(rest) => {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            format!("insmod {} {rest}", ko(kernel, name).display()).trim_end().to_owned()
        }
        None => String::from(*step),
    }));
    common::kmodld(args)
}

/// What each step returns: null, the name of an errno, or "never" if it does not return.
fn returns(document: &Value) -> Vec<Value> {
    let steps = document["steps"].as_array().unwrap().iter();
    steps.map(|s| if s["result"] == "oops" { json!("never") } else { s["errno"].clone() }).collect()
}

/// What the last step prints.
#[track_caller]
fn output(document: &Value) -> &str {
    document["steps"].as_array().unwrap().last().unwrap()["output"].as_str().expect("it prints")
}

/// (name, base, size) of the regions of a module that is loaded first.
fn regions(kernel: &str, module: &str) -> Vec<(String, u64, u64)> {
    let document = common::link(kernel, module, &["--json"]).exits(0).json();
    let region =
        |r: &Value| (r["name"].as_str().unwrap().to_owned(), hex(&r["base"]), r["size"].as_u64().unwrap());
    document["regions"].as_array().unwrap().iter().map(region).collect()
}

/// Bytes of a module: those that stay, those of init.
fn sizes(kernel: &str, module: &str) -> (u64, u64) {
    let (init, stay): (Vec<_>, Vec<_>) =
        regions(kernel, module).into_iter().partition(|r| r.0.starts_with("init"));
    let sum = |regions: Vec<(String, u64, u64)>| regions.iter().map(|r| r.2).sum();
    (sum(stay), sum(init))
}

#[test]
fn life_33_a_module_with_users_stays_until_they_go() {
    for kernel in AMD64 {
        let steps = [
            "insmod exporter",
            "insmod importer",
            "lsmod",
            "rmmod exporter",
            "rmmod exporter -f",
            "rmmod importer",
            "rmmod exporter",
            "rmmod exporter",
            "lsmod",
        ];
        let ran = simulate(kernel, &steps, &[]).exits(1);
        let path = |module| ko(kernel, module).display().to_string();
        let (exporter, importer) = (sizes(kernel, "exporter").0, sizes(kernel, "importer").0);
        let at = regions(kernel, "importer")[0].1;
        let want = format!(
            "insmod {}: done\n\
             \x20   kernel: exporter: loading out-of-tree module taints kernel.\n\
             \x20   kernel: exporter: module verification failed: signature and/or required key missing - tainting kernel\n\
             insmod {}: done\n\
             importer {importer} 0 - Live {at:#018x} (OE)\n\
             exporter {exporter} 1 importer, Live 0xffffffffc0201000 (OE)\n\
             rmmod exporter: EWOULDBLOCK\n\
             rmmod exporter -f: EWOULDBLOCK\n\
             rmmod importer: done\n\
             rmmod exporter: done\n\
             rmmod exporter: ENOENT\n",
            path("exporter"),
            path("importer")
        );
        assert_eq!(ran.stdout, want, "LIFE-4, LIFE-23, LIFE-32, LIFE-33, LIFE-37, LIFE-60: {kernel}");
        assert!(
            ran.stderr.contains("error[LIFE-33]: rmmod exporter: exporter is used by importer"),
            "{ran:?}"
        );
        assert!(ran.stderr.contains("error[LIFE-32]"), "LIFE-32: {ran:?}");
    }
}

#[test]
fn life_23_users_are_listed_newest_first_and_counted() {
    for kernel in KERNELS {
        let steps =
            ["insmod exporter", "insmod importer", "insmod gpl_importer", "insmod proprietary", "lsmod"];
        let document = simulate(kernel, &steps, &["--json"]).exits(0).json();
        let line = output(&document).lines().last().unwrap().to_owned();
        assert!(
            line.contains(" 3 proprietary,gpl_importer,importer, Live "),
            "LIFE-20, LIFE-23: {kernel}: {line}"
        );
        // DEP-5, LIFE-33: what goes drops its reference.
        let steps = [&steps[..4], &["rmmod gpl_importer", "lsmod"]].concat();
        let document = simulate(kernel, &steps, &["--json"]).exits(0).json();
        let line = output(&document).lines().last().unwrap().to_owned();
        assert!(line.contains(" 2 proprietary,importer, Live "), "DEP-5, LIFE-37: {kernel}: {line}");
    }
}

#[test]
fn life_2_a_second_load_is_refused_and_changes_nothing() {
    for kernel in KERNELS {
        let steps = ["insmod hello", "lsmod", "insmod hello", "insmod hello_signed", "lsmod"];
        let document = simulate(kernel, &steps, &["--json"]).exits(1).json();
        assert_eq!(
            returns(&document),
            [json!(null), json!(null), json!("EEXIST"), json!("EEXIST"), json!(null)],
            "LIFE-2: {kernel}"
        );
        assert_eq!(document["steps"][1]["output"], document["steps"][4]["output"], "LIFE-2: {kernel}");
        assert_eq!(document["steps"][2]["events"], json!([]), "LIFE-45: {kernel}");
    }
}

#[test]
fn life_60_lines_of_proc_modules() {
    for kernel in AMD64 {
        let (stay, init) = sizes(kernel, "hello");
        let base = "0xffffffffc0201000";
        let config = |line: &str| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("config");
            let text = common::text(&common::fixtures(kernel).join("config"));
            let name = line.split('=').next().unwrap();
            let kept = text.lines().filter(|l| !l.starts_with(&format!("{name}=")));
            std::fs::write(&path, kept.map(|l| format!("{l}\n")).collect::<String>() + line + "\n").unwrap();
            (dir, path.display().to_string())
        };
        let hello = |steps: &[&str], more: &[&str]| {
            let more = [&["--json"], more].concat();
            output(&simulate(kernel, steps, &more).json()).to_owned()
        };
        assert_eq!(
            hello(&["insmod hello", "lsmod"], &[]),
            format!("hello {stay} 0 - Live {base} (OE)\n"),
            "LIFE-60: {kernel}: live"
        );
        assert_eq!(
            hello(&["insmod hello --init=crash", "lsmod"], &[]),
            format!("hello {} 1 - Loading {base} (OE+)\n", stay + init),
            "LIFE-15, LIFE-20, LIFE-60: {kernel}: init memory counts while it is loading"
        );
        assert_eq!(
            hello(&["insmod hello", "rmmod hello --exit=crash", "lsmod"], &[]),
            format!("hello {stay} -1 - Unloading {base} (OE-)\n"),
            "LIFE-20, LIFE-37, LIFE-60: {kernel}"
        );
        let size = sizes(kernel, "bss_only_init").0;
        // Since v6.4 the address is that of the text, and this module has none that stays.
        let base = if kernel == "6.1-amd64" { base } else { "0x0000000000000000" };
        assert_eq!(
            hello(&["insmod bss_only_init", "lsmod"], &[]),
            format!("bss_only_init {size} 0 [permanent], Live {base} (OE)\n"),
            "LIFE-10, LIFE-60: {kernel}"
        );
        let (_dir, path) = config("CONFIG_MODULE_UNLOAD=n");
        // The fixture's vermagic says mod_unload.
        let steps = [
            "insmod exporter --force-vermagic",
            "insmod importer --force-vermagic",
            "rmmod importer",
            "lsmod",
        ];
        let document = simulate(kernel, &steps, &["--json", "--config", &path]);
        let Ok(document) = serde_json::from_str::<Value>(&document.stdout) else { panic!("{document:?}") };
        assert_eq!(returns(&document)[2], "ENOSYS", "LIFE-38: {kernel}");
        let exporter = output(&document).lines().last().unwrap().to_owned();
        assert!(exporter.contains(" - - Live "), "DEP-3, LIFE-60: {kernel}: {exporter}");
    }
}

#[test]
fn layout_50_init_memory_is_free_for_the_next_module() {
    for kernel in KERNELS {
        let first_init = regions(kernel, "hello").into_iter().find(|r| r.0.starts_with("init")).unwrap();
        let (stay, _) = sizes(kernel, "hello");
        let steps = ["insmod hello", "insmod exporter", "lsmod"];
        let document = simulate(kernel, &steps, &["--json"]).exits(0).json();
        let base =
            |line: &str| u64::from_str_radix(line.split(' ').nth(5).unwrap().trim_start_matches("0x"), 16);
        let exporter = base(output(&document).lines().next().unwrap()).unwrap();
        assert_eq!(exporter, first_init.1, "LAYOUT-50, LIFE-14: {kernel}: hello keeps {stay} bytes");
        // A crash in init frees nothing.
        let steps = ["insmod hello --init=crash", "insmod exporter", "lsmod"];
        let document = simulate(kernel, &steps, &["--json"]).exits(1).json();
        let later = base(output(&document).lines().next().unwrap()).unwrap();
        assert!(later > exporter, "LAYOUT-50, LIFE-15: {kernel}: {later:#x}");
        // What is unloaded leaves its place to the next.
        let steps = ["insmod hello", "insmod sections", "rmmod hello", "insmod hello", "lsmod"];
        let document = simulate(kernel, &steps, &["--json"]).exits(0).json();
        let again = base(output(&document).lines().next().unwrap()).unwrap();
        assert_eq!(again, regions(kernel, "hello")[0].1, "LAYOUT-50, LIFE-37: {kernel}");
    }
}

#[test]
fn layout_54_percpu_areas_are_used_again() {
    let at = |steps: &[&str]| -> Option<u64> {
        let mut loader = Loader::from(common::kernel(KERNEL));
        for step in steps {
            match step.strip_prefix('-') {
                Some(name) => assert!(!loader.rmmod(name.as_bytes(), false, Exit::Returns).refused()),
                None => drop(library::keep(&mut loader, &common::read(&ko(KERNEL, step))).unwrap()),
            }
        }
        let file = common::read(&ko(KERNEL, "percpu"));
        let opened = library::open_on(&loader, &file);
        library::load(&loader, &opened).0.unwrap().module.placement.percpu
    };
    let free = at(&[]);
    assert!(free.is_some());
    assert_eq!(at(&["percpu", "-percpu"]), free, "LAYOUT-54: percpu: freed when it goes");
    assert_ne!(at(&["percpu"]), free, "LAYOUT-54: percpu: taken while it is there");
}

#[test]
fn life_16_an_init_function_on_the_blacklist_is_not_called() {
    for kernel in KERNELS {
        let steps = ["insmod hello", "lsmod"];
        let ran = simulate(kernel, &steps, &["--json", "--cmdline", "initcall_blacklist=hello_init"]);
        let document = ran.exits(1).json();
        assert_eq!(returns(&document)[0], "EPERM", "LIFE-16: {kernel}");
        assert_eq!(output(&document), "", "LIFE-16: {kernel}: it is gone");
        let events = document["steps"][0]["events"].as_array().unwrap();
        let events: Vec<_> = events.iter().map(|e| (e["event"].as_str().unwrap(), &e["value"])).collect();
        let want = [("notified", &json!("COMING")), ("notified", &json!("GOING")), ("freed", &json!(null))];
        assert_eq!(events, want, "LIFE-16: {kernel}: the fail path, without a call");
    }
}

#[test]
fn life_12_a_failed_init_leaves_nothing_but_taints() {
    for kernel in KERNELS {
        let steps = [
            "insmod exporter",
            "insmod importer --init=-ENODEV",
            "lsmod",
            "rmmod exporter",
            "rmmod importer",
        ];
        let document = simulate(kernel, &steps, &["--json"]).exits(1).json();
        let want = [json!(null), json!("ENODEV"), json!(null), json!(null), json!("ENOENT")];
        assert_eq!(returns(&document), want, "LIFE-12: {kernel}: the reference on exporter is dropped");
        let lines: Vec<&str> = document["steps"][2]["output"].as_str().unwrap().lines().collect();
        assert!(
            lines.len() == 1 && lines[0].starts_with("exporter ") && lines[0].contains(" 0 - Live "),
            "LIFE-12: {lines:?}"
        );
        assert_eq!(
            document["steps"][1]["events"],
            json!([
                {"module": "importer", "event": "notified", "value": "COMING"},
                {"module": "importer", "event": "init", "value": "-ENODEV"},
                {"module": "importer", "event": "notified", "value": "GOING"},
                {"module": "importer", "event": "freed", "value": null},
            ]),
            "LIFE-12, LIFE-45: {kernel}: exit is not called"
        );
        // Its memory is free again; the taints are not taken back, and said once.
        let steps = ["insmod hello --init=-5", "insmod hello", "lsmod"];
        let document = simulate(kernel, &steps, &["--json"]).exits(1).json();
        assert_eq!(returns(&document)[0], "EIO", "LIFE-12: {kernel}: a number");
        assert_eq!(document["steps"][1]["dmesg"], json!([]), "LIFE-12: {kernel}: tainted already");
        let alone = simulate(kernel, &["insmod hello", "lsmod"], &["--json"]).exits(0).json();
        assert_eq!(output(&document), output(&alone), "LAYOUT-50, LIFE-12: {kernel}");
    }
}

#[test]
fn life_45_events_of_loads_and_removals() {
    let events = |steps: &[&str]| -> Vec<String> {
        let document = simulate(KERNEL, steps, &["--json"]).json();
        let step = document["steps"].as_array().unwrap().last().unwrap();
        let event = |e: &Value| match e["value"].as_str() {
            Some(value) => format!("{} {value}", e["event"].as_str().unwrap()),
            None => e["event"].as_str().unwrap().to_owned(),
        };
        step["events"].as_array().unwrap().iter().map(event).collect()
    };
    let live = ["notified COMING", "init 0", "notified LIVE", "init_freed"];
    assert_eq!(events(&["insmod hello"]), live, "LIFE-14, LIFE-45: hello");
    assert_eq!(
        events(&["insmod hello", "rmmod hello"]),
        ["exit", "notified GOING", "freed"],
        "LIFE-37, LIFE-45: hello"
    );
    let refused = ["notified COMING", "notified GOING", "freed"];
    assert_eq!(events(&["insmod params an_int=x"]), refused, "LIFE-45: params: a parameter is refused");
    assert_eq!(events(&["insmod importer"]), [""; 0], "LIFE-45: importer: unknown symbols");
    let text = simulate(KERNEL, &["insmod hello", "rmmod hello", "events"], &[]).exits(0).stdout;
    let want = "hello: notified COMING\nhello: init 0\nhello: notified LIVE\nhello: init_freed\nhello: exit\n\
                hello: notified GOING\nhello: freed\nnotifiers, in the order of their calls: \
                trace_kprobe_module_callback(2) jump_label_module_notify(1) ";
    assert!(text.contains(want), "LIFE-45, LIFE-46: {text}");
}

#[test]
fn life_13_a_positive_result_is_success() {
    for kernel in AMD64 {
        let document =
            simulate(kernel, &["insmod hello", "rmmod hello", "insmod hello --init=3", "lsmod"], &["--json"]);
        let document = document.exits(0).json();
        let want = [
            "do_init_module: 'hello'->init suspiciously returned 3, it should follow 0/-E convention",
            "do_init_module: loading module anyway...",
        ];
        assert_eq!(document["steps"][2]["dmesg"], json!(want), "LIFE-13: {kernel}");
        assert!(output(&document).contains(" Live "), "LIFE-13: {kernel}");
    }
}

#[test]
fn life_21_and_36_a_module_in_use() {
    let base = ["insmod hello", "get hello", "get hello"];
    let run = |more: &[&str], options: &[&str]| {
        let document = simulate(KERNEL, &[&base[..], more].concat(), &[&["--json"], options].concat()).json();
        let last = document["steps"].as_array().unwrap().last().unwrap().clone();
        (returns(&document).split_off(3), last)
    };
    let (got, last) = run(&["put hello", "lsmod"], &[]);
    assert_eq!(got, [json!(null), json!(null)]);
    assert!(last["output"].as_str().unwrap().contains(" 1 - Live "), "LIFE-20, LIFE-21: {last}");
    let (got, _) = run(&["rmmod hello", "put hello", "rmmod hello", "put hello", "rmmod hello"], &[]);
    let busy = json!("EWOULDBLOCK");
    assert_eq!(got, [busy.clone(), json!(null), busy, json!(null), json!(null)], "LIFE-30, LIFE-36");
    // By force it goes, and the kernel is tainted.
    let (got, last) = run(&["rmmod hello -f"], &[]);
    assert_eq!(got, [json!(null)], "LIFE-36");
    assert_eq!(last["dmesg"], json!(["Disabling lock debugging due to kernel taint"]), "LIFE-36: taint R");
    let (_, last) = run(&["rmmod hello -f"], &["--tainted", "8"]);
    assert_eq!(last["dmesg"], json!([]), "LIFE-36: once");
    // One reference too few.
    let (got, last) =
        run(&["put hello", "put hello", "put hello", "put hello", "get hello", "rmmod hello"], &[]);
    assert_eq!(got[3..], [json!(null), json!("ENODEV"), json!("never")], "LIFE-21, LIFE-30: {last}");
}

#[test]
fn life_35_and_36_force_only_where_it_is_built_in() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    let text = common::text(&common::fixtures(KERNEL).join("config"));
    assert!(text.contains("CONFIG_MODULE_FORCE_UNLOAD=y\n"));
    std::fs::write(&config, text.replace("CONFIG_MODULE_FORCE_UNLOAD=y\n", "")).unwrap();
    let config = config.display().to_string();
    let steps = [
        "insmod bss_only_init",
        "insmod hello",
        "get hello",
        "rmmod bss_only_init",
        "rmmod bss_only_init -f",
        "rmmod hello -f",
    ];
    let (busy, would_block) = (json!("EBUSY"), json!("EWOULDBLOCK"));
    let with = simulate(KERNEL, &steps, &["--json"]).exits(1).json();
    assert_eq!(
        returns(&with)[3..],
        [busy.clone(), json!(null), json!(null)],
        "LIFE-35, LIFE-36: bss_only_init, hello"
    );
    let without = simulate(KERNEL, &steps, &["--json", "--config", &config]).exits(1).json();
    assert_eq!(returns(&without)[3..], [busy.clone(), busy, would_block], "LIFE-35, LIFE-36: not built in");
}

#[test]
fn life_15_and_37_what_never_returns_stays() {
    for kernel in KERNELS {
        let unknown = |errno: i32, lines: &Value| {
            let lines: Vec<&str> = lines.as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
            lines.iter().filter(|l| l.ends_with(&format!("(err {errno})"))).count()
        };
        let steps = [
            "insmod exporter --init=crash",
            "insmod importer",
            "rmmod exporter -f",
            "insmod exporter",
            "get exporter",
            "lsmod",
        ];
        let document = simulate(kernel, &steps, &["--json"]).exits(1).json();
        let want = [json!("never"), json!("EBUSY"), json!("EBUSY"), json!("EINTR"), json!(null), json!(null)];
        assert_eq!(returns(&document), want, "LIFE-1, LIFE-15, LIFE-22, LIFE-34, SYM-27: {kernel}");
        let lines = &document["steps"][1]["dmesg"];
        assert_eq!(unknown(-16, lines), 2, "SYM-27, DEP-1: {kernel}: {lines}");
        assert!(
            lines.to_string().contains("importer: gave up waiting for init of module exporter."),
            "SYM-27: {lines}"
        );
        assert!(output(&document).contains(" 2 - Loading "), "LIFE-20, LIFE-22: {kernel}");

        let steps = [
            "insmod exporter",
            "rmmod exporter --exit=crash",
            "insmod importer",
            "rmmod exporter -f",
            "insmod exporter",
            "get exporter",
        ];
        let document = simulate(kernel, &steps, &["--json"]).exits(1).json();
        let want =
            [json!(null), json!("never"), json!("ENOENT"), json!("EBUSY"), json!("EBUSY"), json!("ENODEV")];
        assert_eq!(returns(&document), want, "LIFE-2, LIFE-21, LIFE-34, LIFE-37, SYM-26: {kernel}");
        assert_eq!(unknown(-2, &document["steps"][2]["dmesg"]), 2, "SYM-26, DEP-1: {kernel}: going");
    }
}

#[test]
fn steps_that_cannot_be_taken() {
    for step in ["reboot", "insmod", "rmmod", "insmod hello --init=maybe", "lsmod now"] {
        let ran = simulate(KERNEL, &[step], &[]).exits(2);
        assert!(ran.stderr.contains(&format!("step \"{}", &step[..4])), "{step}: {ran:?}");
    }
    simulate(KERNEL, &["insmod nothing_of_that_name"], &[]).exits(3);
    let ran = simulate(
        KERNEL,
        &["# only that", "lsmod", "dmesg", "print_modules"],
        &["--with", &ko(KERNEL, "hello").display().to_string()],
    );
    assert!(ran.exits(0).stdout.contains("Modules linked in: hello(OE)\n"));
}

/// The folder of a module in /sys/module may be there already: of a built-in module.
#[test]
fn life_41_the_name_of_a_built_in_module() {
    use kmodld::kernel_source::spec_file;
    let dir = tempfile::tempdir().unwrap();
    let verdict = |records: &[(&str, &str)]| {
        let mut spec = spec_file::parse(&common::read(&common::facts(KERNEL))).unwrap();
        records.iter().for_each(|(name, text)| spec.set(name, *text));
        let path = dir.path().join("spec");
        spec_file::write(&spec, &mut std::fs::File::create(&path).unwrap()).unwrap();
        let mut args =
            vec![String::from("check"), ko(KERNEL, "hello").display().to_string(), "--jsonl".into()];
        args.extend(kernel_args(KERNEL));
        args.extend(["--kernel".into(), path.display().to_string()]);
        let at = args.iter().position(|a| a == "--kernel").unwrap();
        args.drain(at..at + 2);
        common::kmodld(args).json()
    };
    let code = |v: &Value| v["findings"].as_array().unwrap().iter().any(|f| f["code"] == "LIFE-41");
    let refused = verdict(&[("module-folders", "hello\nprintk\n")]);
    assert_eq!(
        (&refused["verdict"], &refused["errno"]),
        (&json!("refused"), &json!("EINVAL")),
        "LIFE-41: {refused}"
    );
    assert_eq!(
        refused["dmesg"].as_array().unwrap().last().unwrap(),
        "hello: module is already loaded",
        "LIFE-41"
    );
    assert!(code(&refused));
    // Built in: a driver may have made the folder.
    for records in
        [&[("built-in", "hello\n")][..], &[("built-in", "hello\n"), ("module-folders", "printk\n")]]
    {
        let open = verdict(records);
        assert_eq!(open["verdict"], "undecided", "LIFE-41: {records:?}: {open}");
        assert_eq!(open["unjudged"][0]["code"], "LIFE-41", "{records:?}: {open}");
    }
    let other = verdict(&[("built-in", "hello_world\n"), ("module-folders", "hell\n")]);
    assert_eq!(other["verdict"], "loads", "LIFE-41: names are compared exactly: {other}");
}

/// Livepatches mean the kernel itself by that name.
#[test]
fn life_58_a_module_that_is_called_vmlinux() {
    let dir = tempfile::tempdir().unwrap();
    for kernel in KERNELS {
        let mut bytes = common::read(&ko(kernel, "hello"));
        // The name in struct module.
        let name = [&b"hello"[..], &[0; 51]].concat();
        let at: Vec<usize> =
            (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(&name)).collect();
        assert_eq!(at.len(), 1, "{kernel}");
        bytes[at[0]..at[0] + 8].copy_from_slice(b"vmlinux\0");
        let file = dir.path().join(format!("{kernel}.ko"));
        std::fs::write(&file, &bytes).unwrap();
        let mut args = vec![String::from("check"), file.display().to_string(), "--jsonl".into()];
        args.extend(kernel_args(kernel));
        let verdict = common::kmodld(args).json();
        let config = common::read(&common::fixtures(kernel).join("config"));
        let livepatch = String::from_utf8(config).unwrap().contains("CONFIG_LIVEPATCH=y");
        let (word, errno) = if livepatch { ("refused", json!("EINVAL")) } else { ("loads", json!(null)) };
        assert_eq!(
            (&verdict["verdict"], &verdict["errno"]),
            (&json!(word), &errno),
            "LIFE-58: {kernel}: {verdict}"
        );
        let line = "livepatch: vmlinux.ko: invalid module name";
        let said = verdict["dmesg"].as_array().unwrap().iter().any(|l| l == line);
        assert_eq!(said, livepatch, "LIFE-58: {kernel}");
    }
}
