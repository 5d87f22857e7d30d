//! What a module's memory must hold, computed a second time: from the file, from the addresses of
//! layout.json and from nothing else. It shares no code with the loader.

use std::collections::BTreeMap;

use serde_json::Value;

use super::elf::{ABS, COMMON, Elf, NOBITS, RELA, Sh, UNDEF};
use super::hex;

/// Sections of aarch64 whose bytes the loader makes itself (PLT-12, PLT-13).
const MADE_BY_THE_LOADER: [&str; 4] =
    [".plt", ".init.plt", ".text.ftrace_trampoline", ".init.text.ftrace_trampoline"];

/// Base address and bytes of every region, by name.
pub type Regions = BTreeMap<String, (u64, Vec<u8>)>;

/// The regions that a raw output holds.
pub fn read_regions(dir: &std::path::Path, layout: &Value) -> Regions {
    let region = |r: &Value| {
        let bytes = super::read(&dir.join(r["file"].as_str().unwrap()));
        assert_eq!(Some(bytes.len() as u64), r["size"].as_u64(), "size of region {}", r["name"]);
        (r["name"].as_str().unwrap().to_owned(), (hex(&r["base"]), bytes))
    };
    layout["regions"].as_array().unwrap().iter().map(region).collect()
}

/// Recomputes all regions and tells where they differ; also how many relocations that took.
/// `import` gives the address of an undefined symbol, `None` for one that stays as it is.
pub fn differences(
    elf: &Elf,
    layout: &Value,
    actual: &Regions,
    import: &dyn Fn(&str) -> Option<u64>,
) -> (Vec<String>, usize) {
    let mut model = Model::new(elf, layout, actual, import);
    model.copy_sections();
    model.write_symbols();
    let relocations = model.relocate();
    (model.compare(actual), relocations)
}

struct Model<'a> {
    elf: &'a Elf,
    x86: bool,
    /// Address and region of every section that was placed.
    placed: BTreeMap<usize, (u64, String)>,
    values: Vec<u64>,
    memory: Regions,
    actual: &'a Regions,
    said: Vec<String>,
}

impl<'a> Model<'a> {
    fn new(elf: &'a Elf, layout: &Value, actual: &'a Regions, import: &dyn Fn(&str) -> Option<u64>) -> Self {
        let sections = layout["sections"].as_array().unwrap();
        let placed: BTreeMap<usize, (u64, String)> = sections
            .iter()
            .filter(|s| !s["addr"].is_null())
            .map(|s| {
                let region = s["region"].as_str().unwrap().to_owned();
                (s["index"].as_u64().unwrap() as usize, (hex(&s["addr"]), region))
            })
            .collect();
        let percpu = elf.find(".data..percpu").unwrap_or(0);
        let value = |(i, s): (usize, super::elf::Symbol)| match s.shndx {
            _ if i == 0 => s.value,
            UNDEF => import(&s.name).unwrap_or(s.value),
            ABS | COMMON.. => s.value,
            shndx if usize::from(shndx) == percpu && percpu != 0 => {
                s.value.wrapping_add(hex(&layout["percpu"]["addr"]))
            }
            shndx => s.value.wrapping_add(placed.get(&usize::from(shndx)).map_or(0, |(at, _)| *at)),
        };
        let values = elf.symbols().into_iter().enumerate().map(value).collect();
        let memory = actual.iter().map(|(n, (base, b))| (n.clone(), (*base, vec![0; b.len()]))).collect();
        Model { elf, x86: elf.number(18, 2) == 62, placed, values, memory, actual, said: Vec::new() }
    }

    /// The memory of section `index` from its first byte on.
    fn bytes(&mut self, index: usize) -> &mut [u8] {
        let (at, region) = &self.placed[&index];
        let (base, bytes) = self.memory.get_mut(region).unwrap();
        &mut bytes[(at - *base) as usize..]
    }

    fn copy_sections(&mut self) {
        for index in self.placed.keys().copied().collect::<Vec<_>>() {
            // An empty section can lie in a region that is not there (LAYOUT-40).
            if self.elf.get(index, Sh::Size) == 0 {
                continue;
            }
            if !MADE_BY_THE_LOADER.contains(&self.elf.name(index).as_str()) {
                let data = self.elf.data(index).to_vec();
                self.bytes(index)[..data.len()].copy_from_slice(&data);
            }
        }
    }

    /// The moved symbol table holds the final values (LAYOUT-30).
    fn write_symbols(&mut self) {
        let table = self.elf.of_type(super::elf::SYMTAB).unwrap();
        if self.placed.contains_key(&table) {
            let values = self.values.clone();
            let bytes = self.bytes(table);
            for (i, value) in values.iter().enumerate() {
                bytes[24 * i + 8..24 * i + 16].copy_from_slice(&value.to_le_bytes());
            }
        }
    }

    fn relocate(&mut self) -> usize {
        let mut count = 0;
        for table in 1..self.elf.shnum() {
            let target = self.elf.get(table, Sh::Info) as usize;
            if self.elf.get(table, Sh::Type) != u64::from(RELA) || !self.placed.contains_key(&target) {
                continue;
            }
            let base = self.placed[&target].0;
            for r in self.elf.relocations(table) {
                let value = self.values[r.symbol as usize].wrapping_add(r.addend as u64);
                let place = base.wrapping_add(r.offset);
                let what = format!("{}+{:#x} (type {})", self.elf.name(target), r.offset, r.kind);
                let (x86, values) = (self.x86, (value, place));
                let actual = self.actual_at(place);
                let room = &mut self.bytes(target)[r.offset as usize..];
                let done = if x86 { x86_64(r.kind, values, room) } else { aarch64(r.kind, values, room) };
                match done {
                    Ok(()) => {}
                    Err(Why::Far) => self.through_plt(&what, value, place, actual),
                    Err(Why::Unknown) => self.said.push(format!("{what}: the model does not know this type")),
                }
                count += 1;
            }
        }
        count
    }

    /// Up to 12 bytes of the actual memory at an address.
    fn actual_at(&self, at: u64) -> [u8; 12] {
        let mut out = [0; 12];
        for (base, bytes) in self.actual.values() {
            if (*base..*base + bytes.len() as u64).contains(&at) {
                let tail = &bytes[(at - base) as usize..];
                let len = tail.len().min(12);
                out[..len].copy_from_slice(&tail[..len]);
            }
        }
        out
    }

    fn store(&mut self, at: u64, bytes: &[u8]) {
        for (base, memory) in self.memory.values_mut() {
            if (*base..*base + memory.len() as u64).contains(&at) {
                memory[(at - *base) as usize..][..bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// A branch that does not reach: it must go to a slot of a PLT that jumps to the value (PLT-21).
    fn through_plt(&mut self, what: &str, value: u64, place: u64, actual: [u8; 12]) {
        let branch = word(&actual, 0);
        let slot = place.wrapping_add((i64::from(branch as i32) << 38 >> 36) as u64);
        let entry = self.actual_at(slot);
        // The kernel counts the pages in 32 bits, and puts a BRK where they do not fit into 21 (PLT-25).
        let pages = ((value & !0xfff).wrapping_sub(slot & !0xfff) >> 12) as i32;
        let adrp = match pages {
            -0x10_0000..0x10_0000 => {
                0x9000_0010 | (pages as u32 & 3) << 29 | (pages as u32 >> 2 & 0x7_ffff) << 5
            }
            _ => 0xd420_2000,
        };
        let wanted = [adrp, 0x9100_0210 | (value as u32 & 0xfff) << 10, 0xd61f_0200];
        let found = [word(&entry, 0), word(&entry, 4), word(&entry, 8)];
        let in_plt = self.placed.iter().any(|(i, (at, _))| {
            MADE_BY_THE_LOADER[..2].contains(&self.elf.name(*i).as_str())
                && slot >= *at
                && slot < *at + 0x10_0000
        });
        if found != wanted || !in_plt {
            self.said
                .push(format!("{what}: branches to {slot:#x}, where {found:x?} stands, not {wanted:x?}"));
        }
        self.store(slot, &entry);
        self.store(place, &actual[..4]);
    }

    fn compare(mut self, actual: &Regions) -> Vec<String> {
        for (name, (base, want)) in &self.memory {
            let have = &actual[name].1;
            let Some(at) = want.iter().zip(have).position(|(w, h)| w != h) else { continue };
            let address = base + at as u64;
            let owner =
                self.placed.iter().filter(|(_, (a, r))| r == name && *a <= address).max_by_key(|(_, p)| p.0);
            let owner = owner.map_or(String::from("no section"), |(i, (a, _))| {
                format!("{}+{:#x}", self.elf.name(*i), address - a)
            });
            let count = want.iter().zip(have).filter(|(w, h)| w != h).count();
            self.said.push(format!(
                "region {name}: {count} bytes differ, first at {address:#x} ({owner}): {:#04x}, not {:#04x}",
                have[at], want[at]
            ));
        }
        self.said
    }
}

/// Why a relocation was not computed.
enum Why {
    Unknown,
    Far,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn x86_64(kind: u32, (value, place): (u64, u64), room: &mut [u8]) -> Result<(), Why> {
    let (value, bytes) = match kind {
        0 => return Ok(()),
        1 => (value, 8),
        10 | 11 => (value, 4),
        2 | 4 => (value.wrapping_sub(place), 4),
        24 => (value.wrapping_sub(place), 8),
        _ => return Err(Why::Unknown),
    };
    room[..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    Ok(())
}

/// The types of Linux's loader for aarch64 (ELF for the Arm 64-bit architecture, 5.7).
fn aarch64(kind: u32, (value, place): (u64, u64), room: &mut [u8]) -> Result<(), Why> {
    let relative = value.wrapping_sub(place);
    let pages = (value & !0xfff).wrapping_sub(place & !0xfff);
    let data = match kind {
        0 | 256 => return Ok(()),
        257..=259 => Some((value, 8 >> (kind - 257))),
        260..=262 => Some((relative, 8 >> (kind - 260))),
        _ => None,
    };
    if let Some((value, bytes)) = data {
        room[..bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        return Ok(());
    }
    let old = word(room, 0);
    let field = |value: u64, at: u32, bits: u32| {
        let mask = ((1u64 << bits) - 1) as u32;
        old & !(mask << at) | (value as u32 & mask) << at
    };
    // 12-bit fields of loads and stores hold the low bits of the address, scaled.
    let low = |scale: u32| field((value & 0xfff) >> scale, 10, 12);
    let adr =
        |value: u64| old & 0x9f00_001f | ((value & 3) as u32) << 29 | ((value >> 2 & 0x7_ffff) as u32) << 5;
    let movw = |value: u64, group: u32| field(value >> (16 * group), 5, 16);
    // Signed ones become MOVZ or MOVN.
    let movnz = |value: u64, group: u32| {
        let shifted = ((value as i64) >> (16 * group)) as u64;
        let (opcode, shifted) = if shifted as i64 >= 0 { (2, shifted) } else { (0, !shifted) };
        old & !(3 << 29 | 0xffff << 5) | opcode << 29 | (shifted as u32 & 0xffff) << 5
    };
    let new = match kind {
        263..=269 => movw(value, (kind - 263) / 2),
        270..=272 => movnz(value, kind - 270),
        273 | 280 => field(relative >> 2, 5, 19),
        274 => adr(relative),
        275 | 276 => adr(pages >> 12),
        277 | 278 => low(0),
        279 => field(relative >> 2, 5, 14),
        282 | 283 if !(-(1 << 27)..1 << 27).contains(&(relative as i64)) => return Err(Why::Far),
        282 | 283 => field(relative >> 2, 0, 26),
        284..=286 => low(kind - 283),
        299 => low(4),
        287 | 289 | 291 | 293 => movnz(relative, (kind - 287) / 2),
        288 | 290 | 292 => movw(relative, (kind - 288) / 2),
        _ => return Err(Why::Unknown),
    };
    room[..4].copy_from_slice(&new.to_le_bytes());
    Ok(())
}

/// A section that takes memory but has no bytes in the file.
pub fn is_nobits(elf: &Elf, section: usize) -> bool {
    elf.get(section, Sh::Type) == u64::from(NOBITS)
}
