//! The life of modules, from their first notification to their last (spec 08). From insmod to rmmod, with files:
//! `tests/lifecycle.rs` of the root.

use elf_layout::{Errno, Findings, KernelConfig, KernelVersion};
use kernel::{
    Event, Exit, Happening, Init, Kernel, KernelDescriptionBuilder, KernelSymbols, LoadedModule, ModuleState,
};

/// A module that is not in any file.
fn module(name: &str, has_init: bool, has_exit: bool) -> LoadedModule {
    LoadedModule { has_init, has_exit, ..LoadedModule::named(name.as_bytes()) }
}

fn kernel(major: u16, minor: u16, tracking: bool) -> Kernel {
    let config = KernelConfig::new(KernelVersion::new(major, minor, 0))
        .with(|c| c.module_unload_taint_tracking = tracking);
    Kernel::unknown(config)
}

/// Loads it, and what the kernel says.
fn load(kernel: &mut Kernel, module: LoadedModule, init: Init) -> Findings {
    let (name, mut said) = (module.name.clone(), Findings::new());
    kernel.prepare_coming_module(module, &[]);
    kernel.do_init_module(&name, init, &mut said);
    said
}

/// Loads a module that uses others, and its init succeeds.
fn load_user(kernel: &mut Kernel, name: &str, uses: &[&str]) {
    let depends: Vec<Box<[u8]>> = uses.iter().map(|used| Box::from(used.as_bytes())).collect();
    kernel.prepare_coming_module(module(name, true, true), &depends);
    assert!(kernel.do_init_module(name.as_bytes(), Init::Returns(0), &mut Findings::new()));
}

/// errno of a removal; `None` if the module is gone.
fn remove(kernel: &mut Kernel, name: &str, force: bool) -> Option<Errno> {
    let mut said = Findings::new();
    let gone = kernel.delete_module(name.as_bytes(), force, Exit::Returns, &mut said);
    assert_eq!(gone, !said.refused(), "{name}: {said:?}");
    said.errno()
}

/// Name, references and users of every module, as `/proc/modules` lists them.
fn listed(kernel: &Kernel) -> Vec<String> {
    let text = kernel.proc_modules();
    let fields = text.lines().map(|line| Vec::from_iter(line.split(' ')));
    fields.map(|f| format!("{} {} {} {}", f[0], f[2], f[3], f[4])).collect()
}

#[test]
fn life_20_to_23_and_33_modules_that_use_others() {
    let mut kernel = kernel(6, 12, false);
    load_user(&mut kernel, "exporter", &[]);
    load_user(&mut kernel, "older", &["exporter"]);
    load_user(&mut kernel, "newer", &["exporter"]);
    let want = ["newer 0 - Live", "older 0 - Live", "exporter 2 newer,older, Live"];
    assert_eq!(listed(&kernel), want, "LIFE-20, LIFE-23, LIFE-60: users, newest first, and their number");
    for force in [false, true] {
        let busy = Some(Errno::EWOULDBLOCK);
        assert_eq!(remove(&mut kernel, "exporter", force), busy, "LIFE-33: used, force {force}");
    }
    assert_eq!(remove(&mut kernel, "older", false), None);
    assert_eq!(listed(&kernel)[1], "exporter 1 newer, Live", "DEP-5, LIFE-37: what goes drops its reference");
    assert_eq!(remove(&mut kernel, "newer", false), None);
    assert_eq!(remove(&mut kernel, "exporter", false), None, "LIFE-33: nobody uses it");
    assert_eq!(listed(&kernel), [""; 0]);
}

#[test]
fn dep_3_without_unloading_nothing_is_counted() {
    let config = KernelConfig::new(KernelVersion::new(6, 12, 0)).with(|c| c.module_unload = false);
    let mut kernel = Kernel::unknown(config);
    load_user(&mut kernel, "exporter", &[]);
    load_user(&mut kernel, "user", &["exporter"]);
    assert_eq!(listed(&kernel), ["user - - Live", "exporter - - Live"], "DEP-3, LIFE-60");
    assert_eq!(remove(&mut kernel, "user", false), Some(Errno::ENOSYS), "LIFE-38");
}

#[test]
fn life_21_30_and_36_references() {
    let mut kernel = kernel(6, 12, false);
    load_user(&mut kernel, "m", &[]);
    assert!(!kernel.get(b"m").refused());
    assert!(!kernel.get(b"m").refused());
    assert!(!kernel.put(b"m").refused());
    assert_eq!(listed(&kernel), ["m 1 - Live"], "LIFE-20, LIFE-21");
    assert_eq!(remove(&mut kernel, "m", false), Some(Errno::EWOULDBLOCK), "LIFE-30, LIFE-36");
    assert!(!kernel.put(b"m").refused());
    assert_eq!(kernel.put(b"m").iter().next().map(|f| f.code), None, "LIFE-21: the one of the list itself");
    assert_eq!(kernel.put(b"m").iter().next().map(|f| f.code), Some("LIFE-21"), "LIFE-21: one too few");
    assert_eq!(kernel.get(b"m").errno(), Some(Errno::ENODEV), "LIFE-21: no reference of such a module");
    for (built_in, forced) in [(true, None), (false, Some(Errno::EWOULDBLOCK))] {
        let config =
            KernelConfig::new(KernelVersion::new(6, 12, 0)).with(|c| c.module_force_unload = built_in);
        let mut kernel = Kernel::unknown(config);
        load_user(&mut kernel, "used", &[]);
        kernel.get(b"used");
        load(&mut kernel, module("permanent", true, false), Init::Returns(0));
        assert_eq!(listed(&kernel)[0], "permanent 0 [permanent], Live", "LIFE-60");
        assert_eq!(remove(&mut kernel, "permanent", false), Some(Errno::EBUSY), "LIFE-35");
        let permanent = forced.map(|_| Errno::EBUSY);
        assert_eq!(remove(&mut kernel, "permanent", true), permanent, "LIFE-35: force built in: {built_in}");
        assert_eq!(remove(&mut kernel, "used", true), forced, "LIFE-36: force built in: {built_in}");
    }
}

#[test]
fn life_15_22_and_34_what_never_returns_stays() {
    let mut kernel = kernel(6, 12, false);
    let said = load(&mut kernel, module("m", true, true), Init::Crashes);
    assert_eq!(said.iter().map(|f| f.code).collect::<Vec<_>>(), ["LIFE-15"]);
    assert_eq!(listed(&kernel), ["m 1 - Loading"], "LIFE-15, LIFE-20: its load holds a reference");
    assert!(!kernel.get(b"m").refused(), "LIFE-22: a module that is being loaded can be used");
    assert_eq!(remove(&mut kernel, "m", true), Some(Errno::EBUSY), "LIFE-34: it is not live");

    let mut kernel = self::kernel(6, 12, false);
    load_user(&mut kernel, "m", &[]);
    kernel.delete_module(b"m", false, Exit::Crashes, &mut Findings::new());
    assert_eq!(listed(&kernel), ["m -1 - Unloading"], "LIFE-20, LIFE-37");
    assert_eq!(kernel.get(b"m").errno(), Some(Errno::ENODEV), "LIFE-21: it is going");
    assert_eq!(remove(&mut kernel, "m", true), Some(Errno::EBUSY), "LIFE-34: it is not live");
}

#[test]
fn life_45_what_others_see() {
    use Happening::{ExitCalled, Freed, InitCalled, InitFreed, Notified};
    use ModuleState::{Coming, Going, Live};
    let seen = |kernel: &Kernel| kernel.state.history.events.iter().map(|e| e.happening).collect::<Vec<_>>();
    let mut on = kernel(6, 12, false);
    load_user(&mut on, "m", &[]);
    let live = [Notified(Coming), InitCalled(Init::Returns(0)), Notified(Live), InitFreed];
    assert_eq!(seen(&on), live, "LIFE-14, LIFE-45: loaded");
    remove(&mut on, "m", false);
    let gone = [ExitCalled(Exit::Returns), Notified(Going), Freed];
    assert_eq!(seen(&on)[4..], gone, "LIFE-37, LIFE-45: removed");
    let mut on = kernel(6, 12, false);
    let init = Init::Fails(Errno::ENODEV);
    load(&mut on, module("m", true, true), init);
    let failed = [Notified(Coming), InitCalled(init), Notified(Going), Freed];
    assert_eq!(seen(&on), failed, "LIFE-12, LIFE-45: exit is not called");
    let mut on = kernel(6, 12, false);
    on.prepare_coming_module(module("m", true, true), &[]);
    on.coming_cleanup(b"m");
    assert_eq!(seen(&on), [Notified(Coming), Notified(Going), Freed], "LIFE-45: a parameter is refused");
}

#[test]
fn life_10_and_31_init_and_exit_or_neither() {
    for (has_init, has_exit, init, removed) in [
        (true, true, true, None),
        (true, false, true, Some(Errno::EBUSY)),
        (false, true, false, None),
        (false, false, false, None),
    ] {
        let mut kernel = kernel(6, 12, false);
        // Without an init function there is none to fail.
        let said = load(
            &mut kernel,
            module("m", has_init, has_exit),
            if init { Init::Returns(0) } else { Init::Fails(Errno::EIO) },
        );
        assert!(!said.refused(), "LIFE-10: init {has_init}, exit {has_exit}");
        assert_eq!(kernel.module(b"m").unwrap().state, ModuleState::Live, "LIFE-10");
        let called =
            |kernel: &Kernel, what| kernel.state.history.events.iter().any(|e: &Event| e.happening == what);
        assert_eq!(called(&kernel, Happening::InitCalled(Init::Returns(0))), has_init, "LIFE-10");
        let mut said = Findings::new();
        kernel.delete_module(b"m", false, Exit::Returns, &mut said);
        assert_eq!(said.errno(), removed, "LIFE-31: init {has_init}, exit {has_exit}");
        assert_eq!(
            called(&kernel, Happening::ExitCalled(Exit::Returns)),
            has_exit && removed.is_none(),
            "LIFE-31"
        );
    }
}

#[test]
fn life_12_and_13_since_7_1() {
    for (major, minor, errno, lines) in [(7, 0, Errno::EEXIST, 2), (7, 1, Errno::EBUSY, 1)] {
        let said =
            load(&mut kernel(major, minor, false), module("m", true, true), Init::Fails(Errno::EEXIST));
        assert_eq!(said.errno(), Some(errno), "LIFE-12: {major}.{minor}");
        let said = load(&mut kernel(major, minor, false), module("m", true, true), Init::Returns(5));
        assert_eq!(said.dmesg().count(), lines, "LIFE-13: {major}.{minor}");
        assert!(
            said.dmesg().next().unwrap().contains("init suspiciously returned 5, it should follow 0/-E"),
            "LIFE-13"
        );
    }
}

#[test]
fn life_32_names_that_no_module_can_have() {
    let mut kernel = kernel(6, 12, false);
    for name in ["", "absent", &"x".repeat(56), &"x".repeat(5000)] {
        let mut said = Findings::new();
        assert!(!kernel.delete_module(name.as_bytes(), true, Exit::Returns, &mut said));
        assert_eq!(said.errno(), Some(Errno::ENOENT), "LIFE-32: {name}");
    }
}

#[test]
fn life_39_and_61_modules_that_were_there() {
    let tainted = |name| LoadedModule { taints: 1 << 12 | 1 << 13, ..module(name, true, true) };
    let run = |minor, tracking| {
        let mut kernel = kernel(6, minor, tracking);
        for (name, init) in [("a", Init::Returns(0)), ("a", Init::Fails(Errno::EIO)), ("b", Init::Returns(0))]
        {
            load(&mut kernel, tainted(name), init);
            kernel.delete_module(name.as_bytes(), false, Exit::Returns, &mut Findings::new());
        }
        load(&mut kernel, module("clean", true, true), Init::Returns(0));
        load(&mut kernel, module("loading", true, true), Init::Crashes);
        kernel.print_modules()
    };
    let linked = "Modules linked in: loading(+) clean";
    assert_eq!(run(12, false), format!("{linked} [last unloaded: b(OE)]\n"), "LIFE-61");
    assert_eq!(
        run(12, true),
        format!("{linked}\nUnloaded tainted modules: b(OE):1 a(OE):2 [last unloaded: b(OE)]\n"),
        "LIFE-39, LIFE-61: a failed init counts"
    );
    assert_eq!(run(0, false), format!("{linked} [last unloaded: b]\n"), "LIFE-61: before 6.1");
}

#[test]
fn life_46_the_chain_by_version_and_symbols() {
    let chain = |minor, machine, symbols: Option<&str>| -> Vec<(&'static str, i32)> {
        let config = KernelConfig::new(KernelVersion::new(6, minor, 0));
        let builder = KernelDescriptionBuilder::new().config("test", config).e_machine("test", machine);
        let builder = match symbols {
            Some(text) => builder.symbols("test", KernelSymbols::parse(text.as_bytes()).unwrap()),
            None => builder,
        };
        let kernel = Kernel::booted(builder.build(reloc::MACHINES).unwrap());
        kernel.notifiers().iter().map(|n| (n.function, n.priority)).collect()
    };
    let has = |chain: &[(&str, i32)], function| chain.iter().any(|(f, _)| *f == function);
    let new = chain(12, 62, None);
    assert_eq!(new[0], ("trace_kprobe_module_callback", 2), "LIFE-46");
    assert!(new.windows(2).all(|pair| pair[0].1 >= pair[1].1), "LIFE-46: by priority: {new:?}");
    assert!(has(&new, "ddebug_module_notify") && has(&new, "static_call_module_notify"), "LIFE-46: 6.12");
    assert!(!has(&chain(1, 62, None), "ddebug_module_notify"), "LIFE-46: 6.1");
    assert!(!has(&chain(12, 183, None), "static_call_module_notify"), "LIFE-46: aarch64");
    let some = "ffffffff81000000 t btf_module_notify\nffffffff81000010 t jump_label_module_notify\n";
    let want = [("jump_label_module_notify", 1), ("btf_module_notify", 0)];
    assert_eq!(chain(12, 62, Some(some)), want, "LIFE-46: what is built in");
}
