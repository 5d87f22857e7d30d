//! The kernel that runs: its memory as far as an image or the running system tells it, the layout of its
//! types, its CPUs. What of it changes the bytes of a module comes through [`reloc::RunningKernel`].

use std::collections::{BTreeMap, BTreeSet};

use elf_layout::elf::EM_X86_64;
use finalize::{MEMORY, TYPES};
use kernel_image::{Btf, KernelImage};
use reloc::{ARCHITECTURES, Member, Part, RunningKernel};
use serde::Deserialize;
use symres::kallsyms::KernelSymbols;
use symres::{Exports, Kernel};

use crate::input::hex_bytes;

/// A piece of kernel memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Address of its first byte.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An element of the file of `--memory`.
#[derive(Deserialize)]
struct PieceText {
    addr: String,
    bytes: String,
}

impl Piece {
    /// Reads a JSON array of `{"addr": "0x...", "bytes": "hex"}`; the error says what is wrong with it.
    pub fn parse_all(text: &[u8]) -> Result<Vec<Piece>, String> {
        let pieces: Vec<PieceText> = serde_json::from_slice(text)
            .map_err(|e| format!("not an array of {{\"addr\", \"bytes\"}}: {e}"))?;
        let piece = |(n, piece): (usize, &PieceText)| {
            let digits = piece.addr.strip_prefix("0x").unwrap_or(&piece.addr);
            let address = u64::from_str_radix(digits, 16)
                .map_err(|_| format!("piece {n}: addr is no hexadecimal number"))?;
            let bytes = hex_bytes(&piece.bytes)
                .ok_or_else(|| format!("piece {n}: bytes are not pairs of hexadecimal digits"))?;
            Ok(Piece { address, bytes })
        };
        pieces.iter().enumerate().map(piece).collect()
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        let from = address.checked_sub(self.address).and_then(|at| usize::try_from(at).ok());
        let bytes = from.and_then(|from| self.bytes.get(from..)?.get(..out.len()));
        bytes.map(|bytes| out.copy_from_slice(bytes)).is_some()
    }
}

fn read_pieces(pieces: &[Piece], address: u64, out: &mut [u8]) -> bool {
    pieces.iter().any(|piece| piece.read(address, out))
}

/// Members of kernel structs: what [`TYPES`] lists, out of a BTF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Types {
    members: BTreeMap<String, Member>,
    sizes: BTreeMap<String, u64>,
}

impl Types {
    /// Looks everything up in a BTF.
    pub fn of(btf: &Btf<'_>) -> Self {
        let mut types = Types::default();
        for (of, paths) in ARCHITECTURES.iter().flat_map(|arch| arch.kernel_types()).chain(TYPES) {
            let Some(id) = btf.find_struct(of) else { continue };
            types.sizes.extend(btf.size_of(id).map(|size| ((*of).to_owned(), size)));
            for path in *paths {
                let member = btf.member_of(id, path).map(|m| Member { offset: m.offset, size: m.size });
                types.members.extend(member.map(|member| (format!("{of}.{path}"), member)));
            }
        }
        types
    }

    /// A line for each: the struct, or struct and member with a dot between them; offset and size in bytes.
    pub fn to_text(&self) -> String {
        let sizes = self.sizes.iter().map(|(name, size)| format!("{name} 0 {size}\n"));
        let members = self.members.iter().map(|(name, m)| format!("{name} {} {}\n", m.offset, m.size));
        sizes.chain(members).collect()
    }

    /// Reads what [`Types::to_text`] wrote; lines of another form are none.
    pub fn parse(text: &str) -> Self {
        let mut types = Types::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(name), Some(offset), Some(size)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (Ok(offset), Ok(size)) = (offset.parse(), size.parse()) else { continue };
            if name.contains('.') {
                types.members.insert(name.to_owned(), Member { offset, size });
            } else {
                types.sizes.insert(name.to_owned(), size);
            }
        }
        types
    }
}

/// Kernel memory at link addresses.
#[derive(Clone, Debug, Default)]
pub enum LinkMemory {
    /// None is known.
    #[default]
    Unknown,
    /// All that an image holds.
    Image(Box<KernelImage<'static>>),
    /// Pieces that a SPEC kept, by address.
    Pieces(BTreeMap<u64, Vec<u8>>),
}

impl LinkMemory {
    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        match self {
            LinkMemory::Unknown => false,
            LinkMemory::Image(image) => {
                let bytes = image.read_relocated(address, out.len());
                bytes.map(|bytes| out.copy_from_slice(&bytes)).is_some()
            }
            LinkMemory::Pieces(pieces) => {
                let piece = pieces.range(..=address).next_back();
                let read = piece.map(|(start, bytes)| {
                    let from = usize::try_from(address.wrapping_sub(*start)).ok()?;
                    let end = from.checked_add(out.len())?;
                    out.copy_from_slice(bytes.get(from..end)?);
                    Some(())
                });
                read.flatten().is_some()
            }
        }
    }

    /// What [`MEMORY`] lists: the pieces that a SPEC keeps of an image, joined where they touch.
    pub fn pieces(&self, symbols: &KernelSymbols, exports: &Exports) -> BTreeMap<u64, Vec<u8>> {
        let image = match self {
            LinkMemory::Unknown => return BTreeMap::new(),
            LinkMemory::Pieces(pieces) => return pieces.clone(),
            LinkMemory::Image(image) => image,
        };
        let len = |start: u64, end: u64| usize::try_from(end.checked_sub(start)?).ok();
        let parts = ARCHITECTURES
            .iter()
            .flat_map(|arch| arch.kernel_memory())
            .chain(MEMORY)
            .flat_map(|part| part_of(*part, symbols, exports));
        let in_image =
            |(start, end): &(u64, u64)| len(*start, *end).is_some_and(|n| image.read(*start, n).is_some());
        let mut extents: Vec<(u64, u64)> = parts.filter(in_image).collect();
        extents.sort_unstable();
        extents.dedup_by(|next, last| {
            let touches = next.0 <= last.1;
            if touches {
                last.1 = last.1.max(next.1);
            }
            touches
        });
        let read = |(start, end): (u64, u64)| {
            Some((start, image.read_relocated(start, len(start, end)?)?.into_owned()))
        };
        extents.into_iter().filter_map(read).collect()
    }
}

/// Start and end of all that belongs to a part.
fn part_of(part: Part, symbols: &KernelSymbols, exports: &Exports) -> Vec<(u64, u64)> {
    /// No table that is read is larger.
    const LONGEST: u64 = 1 << 20;
    let sized = |at: u64, len: u64| (at, at.saturating_add(len));
    match part {
        Part::Between(start, stop) => {
            let ends = symbols.address(start).zip(symbols.address(stop));
            ends.filter(|(start, stop)| start < stop && stop.wrapping_sub(*start) <= LONGEST)
                .into_iter()
                .collect()
        }
        Part::Object(name) => {
            let Some(start) = symbols.address(name) else { return Vec::new() };
            let after = symbols.iter().map(|s| s.address).filter(|address| *address > start).min();
            let end = after.filter(|end| end.wrapping_sub(start) <= LONGEST);
            end.map(|end| (start, end)).into_iter().collect()
        }
        Part::Prefix(prefix, len) => {
            let named = symbols.iter().filter(|s| s.name.starts_with(prefix.as_bytes()));
            named.map(|s| sized(s.address, len)).collect()
        }
        Part::ExportedData(len) => {
            let code = |kind: u8| matches!(kind, b't' | b'T' | b'w' | b'W');
            let functions: BTreeSet<u64> =
                symbols.iter().filter(|s| code(s.kind)).map(|s| s.address).collect();
            let data = exports.iter().filter_map(|e| e.address).filter(|at| !functions.contains(at));
            data.map(|at| sized(at, len)).collect()
        }
    }
}

/// What is known of a kernel besides its symbols and exports.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its memory at link addresses.
    pub link: LinkMemory,
    /// How far it runs from its link addresses, in bytes (KSYM-30).
    pub slide: u64,
    /// The layout of its types.
    pub types: Types,
    /// Pieces of its memory as it runs; they come before everything else.
    pub live: Vec<Piece>,
    /// The capability bitmap of its CPUs, low word first.
    pub cpu_caps: Option<Vec<u64>>,
    /// The errata of its CPUs that somebody named.
    pub errata: Vec<String>,
    /// Number of CPUs found at boot.
    pub cpus: Option<u32>,
    /// Its command line.
    pub cmdline: String,
}

/// A kernel and what is known of how it runs.
#[derive(Clone, Copy, Debug)]
pub struct Running<'k> {
    /// Its symbols and exports.
    pub kernel: &'k Kernel,
    /// The rest.
    pub machine: &'k Machine,
}

impl Running<'_> {
    /// The bitmap of `boot_cpu_data.x86_capability`, which only a running kernel fills.
    fn boot_cpu_has(&self, number: u32) -> Option<bool> {
        let member = self.member("cpuinfo_x86", "x86_capability")?;
        let word = u64::from(number / 32).checked_mul(4).filter(|at| *at < member.size)?;
        let address = self.symbol("boot_cpu_data")?.checked_add(member.offset)?.checked_add(word)?;
        let mut bits = [0; 4];
        read_pieces(&self.machine.live, address, &mut bits)
            .then(|| u32::from_le_bytes(bits) >> (number % 32) & 1 != 0)
    }

    /// The memory that a kernel starts with: what its image holds, and zeros where it has its `.bss`.
    fn read_initial(&self, address: u64, out: &mut [u8]) -> bool {
        if self.machine.link.read(address.wrapping_sub(self.machine.slide), out) {
            return true;
        }
        let bss = self.symbol("__bss_start").zip(self.symbol("__bss_stop"));
        let end = address.checked_add(out.len() as u64);
        let inside = bss.zip(end).is_some_and(|((start, stop), end)| start <= address && end <= stop);
        // Without an image nothing tells that the symbols are of a kernel that starts so.
        let known = inside && !matches!(self.machine.link, LinkMemory::Unknown);
        if known {
            out.fill(0);
        }
        known
    }
}

impl RunningKernel for Running<'_> {
    fn symbol(&self, name: &str) -> Option<u64> {
        self.kernel.symbols.address(name)
    }

    fn symbols_with(&self, prefix: &str) -> Vec<u64> {
        let own = self.kernel.symbols.iter().filter(|s| s.module.is_none());
        own.filter(|s| s.name.starts_with(prefix.as_bytes())).map(|s| s.address).collect()
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        read_pieces(&self.machine.live, address, out) || self.read_initial(address, out)
    }

    fn pointer(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        if read_pieces(&self.machine.live, address, &mut bytes) {
            return Some(u64::from_le_bytes(bytes));
        }
        let known = self.read_initial(address, &mut bytes);
        let value = u64::from_le_bytes(bytes);
        // Only addresses of the kernel move with it; constants do not.
        known.then(|| if value >> 63 == 1 { value.wrapping_add(self.machine.slide) } else { value })
    }

    fn capability(&self, number: u32) -> Option<bool> {
        if let Some(caps) = &self.machine.cpu_caps {
            let word = caps.get((number / 64) as usize).copied().unwrap_or(0);
            return Some(word >> (number % 64) & 1 != 0);
        }
        (self.kernel.machine == Some(EM_X86_64)).then(|| self.boot_cpu_has(number))?
    }

    fn errata(&self) -> &[String] {
        &self.machine.errata
    }

    fn cpus(&self) -> Option<u32> {
        self.machine.cpus
    }

    fn cmdline(&self) -> &str {
        &self.machine.cmdline
    }

    fn member(&self, of: &str, path: &str) -> Option<Member> {
        self.machine.types.members.get(&format!("{of}.{path}")).copied()
    }

    fn struct_size(&self, of: &str) -> Option<u64> {
        self.machine.types.sizes.get(of).copied()
    }
}
