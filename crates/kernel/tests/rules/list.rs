//! The kernel's module list, and the edges between modules (spec 03, 08).

use std::sync::Arc;

use kernel::{Export, ExportTable, Kernel, LoadedModule, ModuleState, Owner};

use crate::common::{booted, builder, describe, symbols};

fn names(kernel: &Kernel) -> Vec<String> {
    kernel.modules().map(|m| String::from_utf8_lossy(&m.name).into_owned()).collect()
}

fn texts(names: &[Box<[u8]>]) -> Vec<String> {
    names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

/// A module that exports `shared` at this address.
fn exporter(name: &str, address: u64) -> LoadedModule {
    let export =
        Export { name: b"shared", address: Some(address), crc: None, gpl_only: false, namespace: b"" };
    LoadedModule {
        exports: ExportTable::new([export].into_iter().collect()),
        ..LoadedModule::named(name.as_bytes())
    }
}

#[test]
fn life_4_the_newest_module_comes_first() {
    let mut kernel = booted(builder());
    for (n, name) in ["one", "two", "three"].into_iter().enumerate() {
        kernel.insert_module(exporter(name, n as u64));
    }
    assert_eq!(names(&kernel), ["three", "two", "one"], "LIFE-4");
    let lines: Vec<String> =
        kernel.proc_modules().lines().map(|l| l[..l.find(' ').unwrap()].into()).collect();
    assert_eq!(lines, ["three", "two", "one"], "LIFE-4, LIFE-60: /proc/modules");
    let found = kernel.find_symbol(b"shared", true, b"").map(|(owner, _)| owner);
    assert_eq!(found, Some(Owner::Module(b"three")), "LIFE-4, SYM-30: the head of the list is asked first");
    let several = ["four", "five"].map(|name| Arc::new(exporter(name, 0)));
    kernel.state.insert_modules(several);
    assert_eq!(names(&kernel), ["five", "four", "three", "two", "one"], "LIFE-4: several, oldest first");
    assert_eq!(kernel.state.remove_module(b"three").map(|m| m.name), Some(Box::from(&b"three"[..])));
    assert_eq!(names(&kernel), ["five", "four", "two", "one"]);
}

/// One of the same name moves to the head. Its users use the new one.
#[test]
fn life_4_a_module_that_is_replaced() {
    for at_once in [false, true] {
        let mut kernel = booted(builder());
        kernel.insert_module(exporter("used", 1));
        kernel.prepare_coming_module(LoadedModule::named(b"user"), &[Box::from(&b"used"[..])]);
        let again = exporter("used", 2);
        match at_once {
            true => kernel.state.insert_modules([Arc::new(again)]),
            false => kernel.insert_module(again),
        }
        assert_eq!(names(&kernel), ["used", "user"], "LIFE-4: at once {at_once}");
        let used = kernel.module(b"used").unwrap();
        assert_eq!((used.refcount(), texts(&used.source_list)), (1, vec![String::from("user")]));
        assert_eq!(used.exports.find(b"shared", true).and_then(|e| e.address), Some(2));
    }
}

#[test]
fn dep_1_and_2_edges_to_the_modules_that_are_used() {
    let mut kernel = booted(builder());
    let going = LoadedModule { state: ModuleState::Going, ..exporter("going", 0) };
    let dead = LoadedModule { refcnt: 0, ..exporter("dead", 0) };
    let coming = LoadedModule { state: ModuleState::Coming, ..exporter("coming", 0) };
    for module in [exporter("a", 1), exporter("b", 2), going, dead, coming] {
        kernel.insert_module(module);
    }
    let depends: Vec<Box<[u8]>> =
        ["a", "b", "going", "dead", "coming", "absent"].map(|name| Box::from(name.as_bytes())).into();
    kernel.prepare_coming_module(LoadedModule::named(b"first"), &depends);
    kernel.prepare_coming_module(LoadedModule::named(b"second"), &depends[..1]);
    let users = |name: &str| {
        let module = kernel.module(name.as_bytes()).unwrap();
        (module.refcnt, texts(&module.source_list).join(" "))
    };
    assert_eq!(users("a"), (3, "second first".into()), "DEP-1, DEP-2: counted, at the head of source_list");
    assert_eq!(users("b"), (2, "first".into()), "DEP-1, DEP-2: one edge");
    assert_eq!(users("going"), (1, String::new()), "DEP-1: no reference on a module that goes");
    assert_eq!(users("dead"), (0, String::new()), "DEP-1: nor where the count is 0");
    let targets = |name: &[u8]| texts(&kernel.module(name).unwrap().target_list);
    assert_eq!(targets(b"first"), ["coming", "b", "a"], "DEP-2: at the head of target_list");
    assert_eq!(targets(b"second"), ["a"], "DEP-2");
    kernel.coming_cleanup(b"first");
    let a = kernel.module(b"a").unwrap();
    assert_eq!((a.refcnt, texts(&a.source_list).join(" ")), (2, "second".into()), "DEP-5: and dropped again");
}

#[test]
fn a_kernel_just_booted_has_the_modules_of_its_symbol_table() {
    let text = "ffff800000080000 T _text\n0000000000030010 A __per_cpu_end\nffff800000090000 T plain\n\
        ffff800001001000 t f\t[newer]\nffff800000f01000 t g\t[older]\n";
    let description = Arc::new(describe(builder().live_symbols("kallsyms", symbols(text))));
    let kernel = Kernel::booted(Arc::clone(&description));
    assert_eq!(names(&kernel), ["newer", "older"], "LIFE-50, LIFE-4");
    assert!(kernel.modules().all(|m| m.listed && m.state == ModuleState::Live && m.refcount() == 0));
    assert_eq!(kernel.proc_modules(), "", "LIFE-60: their lines are not known");
    let state = &kernel.state;
    assert_eq!((state.taints.kernel_mask(), state.history.events.len()), (0, 0));
    assert_eq!((state.cpus, &state.cpu_caps, state.errata.len(), state.live.len()), (None, &None, 0, 0));
    assert_eq!(state.space.percpu_place(8, 1), Some((0x30010, 0x30018)), "LAYOUT-54");

    // What loading changes is the state's; another kernel of the same description does not see it.
    let mut loaded = Kernel::booted(Arc::clone(&description));
    loaded.insert_module(exporter("newest", 1));
    loaded.state.remove_module(b"older");
    assert_eq!(names(&loaded), ["newest", "newer"]);
    assert_eq!((names(&kernel).len(), description.modules_listed().len()), (2, 2));
    assert!(Arc::ptr_eq(&loaded.description, &kernel.description));
}
