//! `kmodld run --gdb`, driven by the system's gdb on the trees in `KMODLD_KERNELS`.
#![allow(clippy::restriction, reason = "a test fails by panicking, and its numbers are small")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{fixtures, has_tool, program};
use serde_json::Value;

/// A kernel 6.12 of an architecture.
fn tree(arch: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("KMODLD_KERNELS") else {
        eprintln!("skipped: KMODLD_KERNELS names no folder of kernels");
        return None;
    };
    let mut entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let tree = entries.find(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("6.12.") && name.ends_with(arch)
    });
    if tree.is_none() {
        eprintln!("skipped: no kernel 6.12.* for {arch} in {}", Path::new(&folder).display());
    }
    tree
}

/// A run that waits for a debugger: the process, where it listens, and what it says on stderr from then on.
fn waiting(tree: &Path, file: &Path) -> (Child, String, BufReader<impl Read + use<>>) {
    let mut child = program()
        .arg("run")
        .arg(file)
        .args(["--gdb", ":0", "--json", "--no-cache", "--kernel"])
        .arg(tree)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut at = String::new();
    for _ in 0..50 {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ends without waiting");
        if let Some((_, address)) = line.split_once("target remote ") {
            at = address.trim().to_owned();
            break;
        }
    }
    assert!(at.starts_with("127.0.0.1:"), "{at}");
    (child, at, said)
}

/// The document of a run that has gone on to its end, and its exit code.
fn ended(child: Child) -> (Value, i32) {
    let output = child.wait_with_output().unwrap();
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code().unwrap())
}

/// The init function and `_printk`, of a run without a debugger.
fn addresses(tree: &Path, file: &Path) -> (String, String) {
    let output = program()
        .arg("run")
        .arg(file)
        .args(["--json", "--trace=calls", "--no-cache", "--kernel"])
        .arg(tree)
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let at = |number: usize| document["init"]["trace"][number]["address"].as_str().unwrap().to_owned();
    assert_eq!(document["init"]["trace"][1]["function"], "_printk");
    (at(0), at(1))
}

#[test]
fn gdb_stops_looks_steps_and_goes_on() {
    let test = "gdb_stops_looks_steps_and_goes_on";
    // Debian's gdb knows the processor it runs on.
    if !has_tool(test, "gdb") || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let Some(tree) = tree("amd64") else { return };
    let file = fixtures("6.12-amd64").join("hello.ko");
    let (init, printk) = addresses(&tree, &file);
    let (child, at, _said) = waiting(&tree, &file);
    let commands = [
        &format!("target remote {at}"),
        "printf \"init %#lx\\n\", $pc",
        "info registers eflags cs",
        "x/1xw $pc",
        "x/1xb 0",
        "stepi",
        &format!("printf \"stepped %ld\\n\", $pc - {init}"),
        &format!("break *{printk}"),
        "continue",
        "printf \"called %#lx\\n\", $pc",
        "printf \"text %.5s\\n\", (char *)$rdi + 2",
        "set var *((char *)$rdi + 2) = 'j'",
        "set var $r11 = 0x1234",
        "printf \"r11 %#lx\\n\", $r11",
        "stepi",
        &format!("printf \"behind %ld\\n\", $pc - {printk}"),
        "finish",
        "printf \"returned %ld\\n\", $rax",
        "delete",
        "continue",
    ];
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", "set confirm off"]);
    commands.iter().for_each(|command| {
        gdb.args(["-ex", command]);
    });
    let output = gdb.stdin(Stdio::null()).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
    let (document, code) = ended(child);
    for line in [
        format!("init {init}"),
        // endbr64
        format!("{init}:\t0xfa1e0ff3"),
        "stepped 4".into(),
        format!("called {printk}"),
        "r11 0x1234".into(),
        "behind 4".into(),
        "returned 14".into(),
    ] {
        assert!(all.lines().any(|one| one == line), "no {line} in {all}");
    }
    assert!(all.contains("<unavailable>"), "no value is made up for cs: {all}");
    assert!(all.contains("Cannot access memory at address 0x0"), "{all}");
    assert!(all.contains("exited normally"), "{all}");
    assert_eq!((code, &document["init"]["result"], &document["exit"]["result"]), (0, &0.into(), &0.into()));
    // What gdb has written is what the kernel has read.
    let texts: Vec<_> = document["dmesg"].as_array().unwrap().iter().map(|one| &one["text"]).collect();
    assert_eq!(texts.last().unwrap().as_str(), Some("hello: exit"));
    assert!(texts.contains(&&Value::from("jello: init")), "{texts:?}");
}

/// Sends a packet, and returns the answer without its frame.
fn ask(stream: &mut TcpStream, packet: &str) -> String {
    let sum = packet.bytes().fold(0u8, u8::wrapping_add);
    stream.write_all(format!("${packet}#{sum:02x}").as_bytes()).unwrap();
    let (mut answer, mut byte) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut byte).unwrap();
        match byte[0] {
            b'+' if answer.is_empty() => {}
            b'$' => answer.clear(),
            b'#' => break,
            // The character before is there so many times more.
            b'*' => {
                stream.read_exact(&mut byte).unwrap();
                let again = answer.chars().last().unwrap();
                answer.extend(std::iter::repeat_n(again, usize::from(byte[0]) - 29));
            }
            other => answer.push(other.into()),
        }
    }
    stream.read_exact(&mut [0; 2]).unwrap();
    stream.write_all(b"+").unwrap();
    answer
}

#[test]
fn every_architecture_describes_its_registers() {
    for (arch, pc, len) in [("amd64", 16, 17 * 8), ("arm64", 32, 33 * 8)] {
        let Some(tree) = tree(arch) else { continue };
        let file = fixtures(&format!("6.12-{arch}")).join("hello.ko");
        let (init, printk) = addresses(&tree, &file);
        let (child, at, _said) = waiting(&tree, &file);
        let mut stream = TcpStream::connect(&at).unwrap();
        assert!(ask(&mut stream, "qSupported:xmlRegisters=i386").contains("qXfer:features:read+"));
        let description = ask(&mut stream, "qXfer:features:read:target.xml:0,3000");
        assert!(description.contains("<feature name="), "{description}");
        let number = |registers: &str, number: usize| {
            let text = &registers[number * 16..][..16];
            format!("{:#x}", u64::from_str_radix(text, 16).unwrap().swap_bytes())
        };
        let registers = ask(&mut stream, "g");
        assert!(registers.len() > len * 2);
        assert_eq!(number(&registers, pc), init, "{arch}");
        let printk = printk.trim_start_matches("0x").to_owned();
        assert_eq!(ask(&mut stream, &format!("Z0,{printk},4")), "OK");
        assert!(ask(&mut stream, "c").starts_with('T'));
        assert_eq!(number(&ask(&mut stream, "g"), pc), format!("0x{printk}"), "{arch}");
        assert_eq!(ask(&mut stream, &format!("z0,{printk},4")), "OK");
        // Without the debugger the run goes on to its end.
        assert_eq!(ask(&mut stream, "D"), "OK");
        let (document, code) = ended(child);
        assert_eq!((code, &document["exit"]["result"]), (0, &0.into()), "{arch}");
    }
}

#[test]
fn who_kills_it_ends_the_run_and_no_other_machine_is_let_in() {
    let refused = program().args(["run", "hello.ko", "--gdb", "0.0.0.0:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("only addresses of this machine"));
    let Some(tree) = tree("amd64") else { return };
    let (child, at, _said) = waiting(&tree, &fixtures("6.12-amd64").join("hello.ko"));
    let mut stream = TcpStream::connect(&at).unwrap();
    ask(&mut stream, "qSupported:xmlRegisters=i386");
    stream.write_all(b"$k#6b").unwrap();
    let (document, code) = ended(child);
    assert_eq!(code, 4);
    assert_eq!(document["init"]["stopped"]["reason"], "the debugger has ended the run");
}
