//! The numbers of stories, derived again without kmodld: from what `readelf` shows of the file, from its bytes, from kallsyms and
//! Module.symvers of its kernel, and from each other. Where memory lies and what is patched, `numbers_are_those_of_booted_kernels`
//! compares with captured memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::{self, ALL_KERNELS, fixtures, hex, ko, modules};
use crate::{bytes, events, in_step, of, trace};

/// What `readelf` shows of a file.
fn readelf(option: &str, file: &Path) -> String {
    let output = Command::new("readelf").args([option, "-W"]).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn number(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// The section headers of a step, by index.
fn headers<'e>(events: &'e [Value], step: &str) -> BTreeMap<u64, &'e Value> {
    let sections = in_step(events, step).iter().find(|e| e["event"] == "sections").unwrap();
    list(&sections["sections"]).iter().map(|s| (count(&s["index"]), s)).collect()
}

/// The facts of a step: names can come twice.
fn facts<'e>(events: &'e [Value], step: &str) -> Vec<(&'e str, &'e str)> {
    let all = in_step(events, step).iter().filter(|e| e["event"] == "facts");
    all.flat_map(|e| list(&e["facts"])).map(|f| (text(&f["name"]), text(&f["value"]))).collect()
}

/// The story of a fixture, and what it is compared with.
struct Story<'s> {
    what: String,
    kernel: &'s str,
    module: &'s str,
    file: Vec<u8>,
    events: &'s [Value],
    /// The lines of `readelf -s`, by index.
    symbols: Vec<Vec<String>>,
}

/// The headers as `readelf -S` shows them: "[ 1] .text PROGBITS 0000000000000000 000040 000000 00 AX 0 0 1".
fn compare_headers(story: &Story<'_>, path: &Path) {
    let rows = headers(story.events, "elf");
    let shown = readelf("-S", path);
    let mut seen = 0;
    for line in shown.lines().filter(|line| line.trim_start().starts_with('[') && line.contains("] ")) {
        let (index, rest) = line.trim_start()[1..].split_once(']').unwrap();
        let words: Vec<&str> = rest.split_whitespace().collect();
        let Some(index) = index.trim().parse::<u64>().ok().filter(|index| *index != 0) else { continue };
        let row = rows[&index];
        let flags = if words.len() == 10 { words[6] } else { "" };
        let ours = (text(&row["name"]), text(&row["type"]), text(&row["flags"]), count(&row["offset"]));
        assert_eq!(ours, (words[0], words[1], flags, number(words[3])), "{}: section {index}", story.what);
        let align = words.last().unwrap().parse::<u64>().unwrap();
        assert_eq!((count(&row["size"]), count(&row["align"])), (number(words[4]), align), "{}", story.what);
        assert_eq!(number(text(&row["addr"])), number(words[2]), "{}", story.what);
        seen += 1;
    }
    assert_eq!(seen, rows.len(), "{}", story.what);
    let shown = readelf("-h", path);
    let of_header = |name: &str| {
        let line = shown.lines().find(|line| line.contains(name)).unwrap();
        line.split(':').nth(1).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let index_of = |name: &str| rows.values().find(|row| row["name"] == name).map(|row| count(&row["index"]));
    for (name, value) in facts(story.events, "elf") {
        let want = match name {
            "section_headers" => format!(
                "{} at {:#x}",
                of_header("Number of section headers"),
                of_header("Start of section headers")
            ),
            "section_names" => format!("section {}", of_header("Section header string table index")),
            "name" => story.module.trim_end_matches("_signed").to_owned(),
            "index_str" => format!("{} .strtab", index_of(".strtab").unwrap()),
            _ => {
                let section = match name {
                    "index_mod" => ".gnu.linkonce.this_module",
                    "index_info" => ".modinfo",
                    "index_sym" => ".symtab",
                    "index_vers" => "__versions",
                    "index_vers_ext_crc" => "__version_ext_crcs",
                    "index_pcpu" => ".data..percpu",
                    other => panic!("{}: what is {other}?", story.what),
                };
                format!("{} {section}", index_of(section).unwrap())
            }
        };
        assert_eq!(value, want, "{}: {name}", story.what);
    }
}

/// Without its signature: the last bytes of a signed file tell how long that is.
fn unsigned_size(file: &[u8]) -> u64 {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    let Some(rest) = file.strip_suffix(MAGIC) else { return file.len() as u64 };
    let length = u32::from_be_bytes(rest[rest.len() - 4..].try_into().unwrap());
    (rest.len() - 12) as u64 - u64::from(length)
}

/// Both rewrites, the edits between them, and the memory that comes of it.
fn compare_headers_of_steps(story: &Story<'_>) {
    let (what, events) = (&story.what, story.events);
    let (elf, copy) = (headers(events, "elf"), headers(events, "rewrite"));
    for (index, row) in &copy {
        assert_eq!(text(&row["addr"]), format!("hdr+{:#x}", count(&elf[index]["offset"])), "{what}: {row}");
        let is_read_only_once = ["__versions", ".modinfo", "__version_ext_crcs", "__version_ext_names"];
        let flags = text(&elf[index]["flags"]);
        let wanted = match is_read_only_once.contains(&text(&row["name"])) {
            true => flags.replace('A', ""),
            false => flags.to_owned(),
        };
        assert_eq!(text(&row["flags"]), wanted, "{what}: {row}");
    }
    let slots = |name: &str| {
        let all = facts(events, "frob").into_iter().filter(|(fact, _)| *fact == "slots_counted");
        let mut all = all.map(|(_, value)| value.split_once(": ").unwrap());
        all.find(|(section, _)| *section == name).map(|(_, count)| count.parse::<u64>().unwrap())
    };
    let (frob, flags) = (headers(events, "frob"), headers(events, "flags"));
    for (index, row) in &frob {
        let name = text(&row["name"]);
        // A slot has three instructions; one slot more is asked for than can be used.
        let size = match slots(name) {
            Some(slots) => (slots + 1) * 12,
            None if name.contains(".ftrace_trampoline") => {
                assert_eq!(count(&row["size"]) % 12, 0, "{what}: {row}");
                count(&row["size"])
            }
            None => count(&copy[index]["size"]),
        };
        assert_eq!(count(&row["size"]), size, "{what}: {row}");
        let before = text(&row["flags"]);
        let wanted = match name {
            ".data..percpu" => before.replace('A', ""),
            ".data..ro_after_init" | "__jump_table" => format!("{before}R"),
            // Since v6.16 (LAYOUT-8).
            ".static_call_sites" if story.kernel.starts_with("7.") => format!("{before}R"),
            _ => before.to_owned(),
        };
        assert_eq!(text(&flags[index]["flags"]), wanted, "{what}: {row}");
    }
    compare_memory(story, &flags);
}

/// Regions, and where each section lies in them.
fn compare_memory(story: &Story<'_>, flags: &BTreeMap<u64, &Value>) {
    let (what, events) = (&story.what, story.events);
    let moved = headers(events, "move");
    let memory = in_step(events, "move").iter().find(|e| e["event"] == "memory").unwrap();
    let page = count(&events[0]["page_size"]);
    let mut free = BTreeMap::new();
    for region in list(&memory["regions"]) {
        let (size, allocated) = (count(&region["size"]), count(&region["allocated"]));
        assert_eq!(allocated, size.div_ceil(page) * page, "{what}: {region}");
        assert_eq!(hex(&region["base"]) % page, 0, "{what}: {region}");
        free.insert(text(&region["name"]), (hex(&region["base"]), size, BTreeMap::new()));
    }
    for (index, row) in &moved {
        let is_in_memory = !row["region"].is_null();
        // The symbol table and its names are moved with the others; per-cpu data is not.
        let is_wanted =
            text(&flags[index]["flags"]).contains('A') || row["type"] == "SYMTAB" || row["name"] == ".strtab";
        assert_eq!(is_in_memory, is_wanted, "{what}: {row}");
        assert_eq!(row["size"], flags[index]["size"], "{what}: {row}");
        if !is_in_memory {
            continue;
        }
        let offset = count(&row["region_offset"]);
        let Some((base, size, taken)) = free.get_mut(text(&row["region"])) else {
            // Nothing is allocated for a region of no bytes.
            assert_eq!((count(&row["size"]), hex(&row["addr"])), (0, offset), "{what}: {row}");
            continue;
        };
        assert_eq!(hex(&row["addr"]), *base + offset, "{what}: {row}");
        assert_eq!(offset % count(&row["align"]).max(1), 0, "{what}: {row}");
        let bytes = count(&row["size"]);
        assert!(offset + bytes <= *size, "{what}: {row}");
        if bytes != 0 {
            assert_eq!(taken.insert(offset, bytes), None, "{what}: {row}");
        }
    }
    for (name, (.., taken)) in &free {
        let starts = taken.keys().skip(1);
        for ((from, bytes), next) in taken.iter().zip(starts) {
            assert!(from + bytes <= *next, "{what}: {name}+{from:#x}");
        }
    }
    for table in of(events, "table") {
        let section = moved.values().find(|row| row["name"] == table["name"]).unwrap();
        assert_eq!((&table["addr"], &table["size"]), (&section["addr"], &section["size"]), "{what}: {table}");
    }
    // What is protected are the regions, page by page; what is freed is all that there was.
    let total: u64 = list(&memory["regions"]).iter().map(|r| count(&r["allocated"])).sum();
    let parts = in_step(events, "formation").iter().filter(|e| e["event"] == "protected");
    let parts: u64 = parts.flat_map(|e| list(&e["parts"])).map(|part| count(&part["size"])).sum();
    assert_eq!(parts, total, "{what}");
    let freed: Vec<&Value> = of(events, "freed").into_iter().flat_map(|e| list(&e["regions"])).collect();
    // A module without exit stays.
    if of(events, "asked").iter().all(|asked| asked["result"] == "done") {
        assert_eq!(freed.iter().map(|region| count(&region["allocated"])).sum::<u64>(), total, "{what}");
    }
    for region in freed {
        assert!(list(&memory["regions"]).contains(region), "{what}: {region}");
    }
}

/// Symbols, their values, and what the module calls.
fn compare_symbols(story: &Story<'_>) {
    let (what, events) = (&story.what, story.events);
    let (flags, moved) = (headers(events, "flags"), headers(events, "move"));
    let imports: BTreeMap<u64, &Value> =
        of(events, "import").into_iter().map(|import| (count(&import["index"]), import)).collect();
    let percpu = facts(events, "unformed").into_iter().find(|(name, _)| *name == "percpu");
    let percpu = percpu.map(|(_, value)| {
        let (size, at) = value.split_once(" bytes at ").unwrap();
        (size.parse::<u64>().unwrap(), at.starts_with("0x").then(|| number(at)))
    });
    let config = common::text(&fixtures(story.kernel).join("config"));
    let all_symbols = config.contains("CONFIG_KALLSYMS_ALL=y");
    let all = list(&of(events, "symbols")[0]["symbols"]);
    assert_eq!(all.len() + 1, story.symbols.len(), "{what}");
    let mut core = 1;
    for (symbol, words) in all.iter().zip(&story.symbols[1..]) {
        let index = words[0].trim_end_matches(':').parse::<u64>().unwrap();
        assert_eq!(
            (count(&symbol["index"]), count(&symbol["file_value"])),
            (index, number(&words[1])),
            "{what}"
        );
        assert_eq!(count(&symbol["size"]), words[2].parse::<u64>().unwrap(), "{what}: {symbol}");
        // What is no letter is shown in another way there.
        if let Some(name) = words.get(7).filter(|name| words[3] != "SECTION" && !name.contains('^')) {
            assert_eq!(symbol["name"], **name, "{what}: {symbol}");
        }
        let value = &symbol["value"];
        let section = words[6].parse::<u64>().ok();
        match (words[6].as_str(), section.map(|index| moved[&index])) {
            ("UND", _) => {
                let import = imports[&index];
                assert_eq!((import["weak"] == true, &import["name"]), (words[4] == "WEAK", &symbol["name"]));
                let missing = import["taken"] == false;
                assert!(missing || *value == import["addr"], "{what}: {symbol} {import}");
            }
            ("ABS", _) => assert_eq!(hex(value), number(&words[1]), "{what}: {symbol}"),
            (_, Some(row)) if !row["region"].is_null() => {
                assert_eq!(hex(value), hex(&row["addr"]) + number(&words[1]), "{what}: {symbol}");
                // With CONFIG_KALLSYMS_ALL all that stay in memory, else those of code.
                let flags = text(&flags[&section.unwrap()]["flags"]);
                let is_listed = flags.contains(if all_symbols { 'A' } else { 'X' });
                let is_init = text(&row["region"]).starts_with("init");
                core += u64::from(is_listed && !is_init && words[3] != "SECTION" && words.len() > 7);
            }
            (_, Some(row)) if row["name"] == ".data..percpu" => {
                let (size, at) = percpu.unwrap();
                assert_eq!(size, count(&row["size"]), "{what}");
                let wanted = at.map(|at| at + number(&words[1]));
                assert_eq!(value.as_str().map(number), wanted, "{what}: {symbol}");
                core += u64::from(all_symbols && words[3] != "SECTION");
            }
            _ => {}
        }
    }
    for (name, value) in facts(events, "post_relocation") {
        match name {
            "kallsyms_symbols" => assert_eq!(value, story.symbols.len().to_string(), "{what}"),
            "kallsyms_core" => assert_eq!(value, core.to_string(), "{what}: {name}"),
            other => panic!("{what}: what is {other}?"),
        }
    }
    for call in of(events, "call") {
        let name = if call["function"] == "init" { "init_module" } else { "cleanup_module" };
        let symbol = all.iter().find(|symbol| symbol["name"] == name).unwrap();
        assert_eq!(call["addr"], symbol["value"], "{what}: {call}");
    }
}

/// Exports of the kernel: CRC, licence and namespace, as Module.symvers has them.
fn exports(kernel: &str) -> BTreeMap<String, (String, bool, String)> {
    let symvers = common::text(&fixtures(kernel).join("Module.symvers"));
    let lines = symvers.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    lines.map(|f| (f[1].to_owned(), (f[0].to_owned(), f[3].ends_with("_GPL"), f[4].to_owned()))).collect()
}

/// `__versions` of the file: CRCs by name, in records of 64 bytes; since 6.14 it may have two sections instead.
fn expected_crcs(story: &Story<'_>) -> BTreeMap<String, u32> {
    let section = |name: &str| {
        let row = headers(story.events, "elf").into_values().find(|row| row["name"] == name)?;
        let from = count(&row["offset"]) as usize;
        Some(&story.file[from..from + count(&row["size"]) as usize])
    };
    let name = |bytes: &[u8]| String::from_utf8(bytes.split(|b| *b == 0).next().unwrap().to_vec()).unwrap();
    let crc = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let records = section("__versions").into_iter().flat_map(|all| all.chunks(64));
    records.map(|record| (name(&record[8..]), crc(record))).collect()
}

/// Imports: who has them, where, and on what terms. Those of other modules are where the stories of these have put them.
fn compare_imports(story: &Story<'_>) {
    let (what, kernel) = (&story.what, story.kernel);
    let kallsyms = common::text(&fixtures(kernel).join("kallsyms"));
    let of_kernel: BTreeMap<&str, u64> = kallsyms
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| (words[2], number(words[0])))
        .collect();
    let (symvers, expected) = (exports(kernel), expected_crcs(story));
    let one_table = kernel.starts_with("7.");
    let has_crcs = symvers.values().any(|(crc, ..)| crc != "0x00000000");
    let dependencies = common::dependencies(story.module);
    let mut of_modules: BTreeMap<String, u64> = BTreeMap::new();
    for dependency in dependencies {
        for symbol in list(&of(&events(&trace(kernel, dependency, &["--json"])), "symbols")[0]["symbols"]) {
            if symbol["section"] != 0 && !symbol["value"].is_null() {
                of_modules.insert(text(&symbol["name"]).to_owned(), hex(&symbol["value"]));
            }
        }
    }
    for import in of(story.events, "import") {
        let name = text(&import["name"]);
        let asked = list(&import["asked"]);
        let owners: Vec<&str> = asked.iter().map(|asked| text(&asked["owner"])).collect();
        assert_eq!(owners[0], "vmlinux", "{what}: {import}");
        if let Some(crc) = import["expected_crc"].as_str() {
            assert_eq!(number(crc), u64::from(expected[name]), "{what}: {import}");
        } else {
            assert!(!expected.contains_key(name), "{what}: {import}");
        }
        let last: Vec<&str> = list(&asked.last().unwrap()["tables"]).iter().map(text).collect();
        match import["owner"].as_str() {
            Some("vmlinux") => {
                let (crc, gpl, namespace) = &symvers[name];
                let addr = import["addr"].as_str().map(number);
                assert_eq!(addr, of_kernel.get(name).copied(), "{what}: {import}");
                assert_eq!(import["gpl_only"], *gpl, "{what}: {import}");
                assert_eq!(import["namespace"].as_str().unwrap_or_default(), namespace, "{what}: {import}");
                if has_crcs {
                    assert_eq!(number(text(&import["crc"])), number(crc), "{what}: {import}");
                }
                assert_eq!(owners.len(), 1, "{what}: {import}");
                let tables: &[&str] = match (one_table, gpl) {
                    (false, true) => &["__ksymtab", "__ksymtab_gpl"],
                    _ => &["__ksymtab"],
                };
                assert_eq!((last.as_slice(), import["table"].as_str()), (tables, tables.last().copied()));
            }
            Some(owner) => {
                assert!(dependencies.contains(&owner) && !of_kernel.contains_key(name), "{what}: {import}");
                assert_eq!(owners.last(), Some(&owner), "{what}: {import}");
                assert_eq!(hex(&import["addr"]), of_modules[name], "{what}: {import}");
                assert_eq!(import["table"].as_str(), last.last().copied(), "{what}: {import}");
            }
            None => {
                assert!(!symvers.contains_key(name) || import["taken"] == false, "{what}: {import}");
                assert_eq!(owners.len(), dependencies.len() + 1, "{what}: {import}");
            }
        }
    }
    for (name, value) in facts(story.events, "versions") {
        match name {
            "module_layout_kernel" => {
                assert_eq!(number(value), number(&symvers["module_layout"].0), "{what}")
            }
            "module_layout_module" => {
                assert_eq!(number(value), u64::from(expected["module_layout"]), "{what}");
            }
            _ => {}
        }
    }
}

/// What a type computes, by the ABI documents.
fn formula(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "R_X86_64_NONE" | "R_AARCH64_NONE" => return None,
        "R_X86_64_64" | "R_X86_64_32" | "R_X86_64_32S" => "S + A",
        _ if kind.starts_with("R_X86_64_") => "S + A - P",
        _ if kind.contains("_ADR_PREL_PG") => "Page(S + A) - Page(P)",
        _ if ["_ABS", "_UABS", "_SABS"].iter().any(|part| kind.contains(part)) => "S + A",
        _ => "S + A - P",
    })
}

/// Records as `readelf -r` shows them: "0000000000000017  0000001c00000002 R_X86_64_PC32 0000000000000000 name - 5".
fn compare_relocations(story: &Story<'_>, path: &Path) {
    let (what, events) = (&story.what, story.events);
    let mut all: BTreeMap<String, BTreeMap<(u64, u64, i64), String>> = BTreeMap::new();
    let mut section = String::new();
    for line in readelf("-r", path).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&"Relocation") {
            section = words[2].trim_matches('\'').to_owned();
        } else if words.len() >= 3 && words[0].len() == 16 && words[1].len() == 16 {
            let (sign, last) = (words.get(words.len() - 2), words.last().unwrap());
            let addend = number(last).cast_signed() * if sign == Some(&"-") { -1 } else { 1 };
            let record = (number(words[0]), number(words[1]) >> 32, addend);
            all.entry(section.clone()).or_default().insert(record, words[2].to_owned());
        }
    }
    let moved = headers(events, "move");
    let symbols = list(&of(events, "symbols")[0]["symbols"]);
    let mut seen = 0;
    for table in of(events, "relocations") {
        let target = moved[&count(&table["target"])];
        assert_eq!((&table["target_addr"], &table["target_name"]), (&target["addr"], &target["name"]));
        let theirs = &all[text(&table["name"])];
        for record in list(&table["records"]) {
            let (offset, index) = (count(&record["offset"]), count(&record["symbol"]));
            let kind = text(&record["type"]);
            let shown = &theirs[&(offset, index, record["a"].as_i64().unwrap())];
            // readelf cuts long names of types.
            assert!(kind == shown || shown.len() >= 22 && kind.starts_with(shown), "{what}: {record}");
            assert_eq!(record["formula"].as_str(), formula(kind), "{what}: {record}");
            assert_eq!(hex(&record["p"]), hex(&target["addr"]) + offset, "{what}: {record}");
            if index != 0 {
                assert_eq!(record["s"], symbols[index as usize - 1]["value"], "{what}: {record}");
            }
            let from = (count(&target["offset"]) + offset) as usize;
            let before = bytes(&record["before"]);
            assert_eq!(before, story.file[from..from + before.len()], "{what}: {record}");
            seen += 1;
        }
    }
    let moved_names = |name: &String| of(events, "relocations").iter().any(|table| table["name"] == **name);
    let theirs: usize = all.iter().filter(|(name, _)| moved_names(name)).map(|(_, all)| all.len()).sum();
    assert_eq!(seen, theirs, "{what}");
    assert!(seen > 0, "{what}: no relocations");
}

/// The immediate of an A64 instruction that a type writes: where its bits stand is from the Arm manual.
fn immediate(kind: &str, word: u32) -> u64 {
    let bits = |from: u32, count: u32| u64::from(word >> from) & ((1 << count) - 1);
    match kind {
        _ if kind.contains("_MOVW_") => bits(5, 16),
        _ if kind.contains("_ADR_PREL_") => bits(5, 19) << 2 | bits(29, 2),
        _ if kind.ends_with("BR19") || kind.ends_with("LO19") => bits(5, 19),
        _ if kind.ends_with("TSTBR14") => bits(5, 14),
        _ if kind.ends_with("26") => bits(0, 26),
        _ if kind.contains("_LO12") => bits(10, 12),
        _ => panic!("which bits has {kind}?"),
    }
}

/// The arithmetic of each relocation, by its own numbers, down to the bytes that it leaves.
pub fn compute_again(what: &str, events: &[Value]) {
    let mut stored = 0;
    let slots: BTreeMap<u64, u64> =
        of(events, "slot").iter().map(|slot| (hex(&slot["addr"]), hex(&slot["target"]))).collect();
    for record in of(events, "relocations").into_iter().flat_map(|t| list(&t["records"])) {
        let Some(formula) = record["formula"].as_str().filter(|_| !record["s"].is_null()) else { continue };
        let (s, p) = (hex(&record["s"]), hex(&record["p"]));
        let value = s.wrapping_add_signed(record["a"].as_i64().unwrap());
        let page = |address: u64| address >> 12 << 12;
        let mut result = match formula {
            "S + A" => value,
            "S + A - P" => value.wrapping_sub(p),
            _ => page(value).wrapping_sub(page(p)),
        };
        assert_eq!(hex(&record["result"]), result, "{what}: {record}");
        if !record["slot"].is_null() {
            let slot = hex(&record["slot"]);
            assert_eq!(slots[&slot], value, "{what}: {record}");
            result = slot.wrapping_sub(p);
        }
        let after = bytes(&record["after"]);
        if record["shared"] == true {
            continue;
        }
        stored += 1;
        let entered = &record["entered"];
        if entered.is_null() {
            let is_instruction = record["type"].as_str().unwrap().contains("_ADR_PREL_PG");
            assert!(is_instruction || after == result.to_le_bytes()[..after.len()], "{what}: {record}");
            continue;
        }
        let inverted = entered["inverted"] == true;
        let bits = if inverted { !result } else { result };
        let (from, to) = (count(&entered["from"]), count(&entered["to"]));
        let wanted = bits >> from & ((1 << (to + 1 - from)) - 1);
        assert_eq!(count(&entered["value"]), wanted, "{what}: {record}");
        let word = u32::from_le_bytes(after.try_into().unwrap());
        assert_eq!(immediate(text(&record["type"]), word), wanted, "{what}: {record}");
    }
    assert!(stored > 0, "{what}: nothing stored");
}

#[test]
fn numbers_are_those_of_readelf() {
    if !common::has_tool("numbers_are_those_of_readelf", "readelf") {
        return;
    }
    for kernel in ALL_KERNELS {
        common::in_parallel(&modules(kernel), |module| {
            let path = ko(kernel, module);
            let told = events(&trace(kernel, module, &["--json", "--unload"]));
            let lines = readelf("-s", &path);
            let lines =
                lines.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
            let is_symbol = |words: &Vec<String>| words.len() >= 7 && words[0].ends_with(':');
            let symbols = lines.filter(|words| is_symbol(words) && words[0] != "Num:").collect();
            let (what, file) = (format!("{kernel}/{module}"), common::read(&path));
            let story = Story { what, kernel, module, file, events: &told, symbols };
            assert_eq!(told[0]["size"], unsigned_size(&story.file), "{}", story.what);
            let size = facts(&told, "signature").into_iter().find(|(name, _)| *name == "module_bytes");
            assert_eq!(size.unwrap().1, told[0]["size"].to_string(), "{}", story.what);
            compare_headers(&story, &path);
            if !in_step(&told, "move").iter().any(|event| event["event"] == "memory") {
                // Refused before there is a layout.
                assert_eq!(
                    (module.as_str(), &of(&told, "stop")[0]["step"]),
                    ("bss_only_init", &"elf".into())
                );
                return;
            }
            compare_headers_of_steps(&story);
            compare_symbols(&story);
            compare_imports(&story);
            compare_relocations(&story, &path);
            compute_again(&story.what, &told);
        });
    }
}
