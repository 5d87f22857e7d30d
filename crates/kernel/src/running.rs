//! What patching reads of a kernel: symbols, memory, capabilities, types. What is not known is `None`.

use alloc::vec::Vec;

use crate::kernel::Kernel;
use crate::memory::{LinkMemory, Piece};
use crate::types::Member;

impl Kernel {
    /// Address of the kernel's own symbol of that name, the first if there are several.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.address(name)
    }

    /// Addresses of the kernel's own symbols whose names begin so, in any order; names may share one.
    pub fn symbols_with(&self, prefix: &str) -> Vec<u64> {
        let own = self.symbols.iter().filter(|s| s.module.is_none());
        own.filter(|s| s.name.starts_with(prefix.as_bytes())).map(|s| s.address).collect()
    }

    /// Fills `out` with the kernel's memory at `address`; false if not every byte of it is known. Pointers
    /// that come from a kernel image are those before KASLR: read them with [`Kernel::pointer`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> bool {
        Piece::read_any(&self.state.live, address, out) || self.read_initial(address, out)
    }

    /// The pointer at `address`.
    pub fn pointer(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        if Piece::read_any(&self.state.live, address, &mut bytes) {
            return Some(u64::from_le_bytes(bytes));
        }
        let known = self.read_initial(address, &mut bytes);
        let value = u64::from_le_bytes(bytes);
        // Only addresses of the kernel move with it; constants do not.
        known.then(|| if value >> 63 == 1 { value.wrapping_add(self.slide) } else { value })
    }

    /// Has the system the capability of that number, as the architecture counts them? From the bitmap that was
    /// given, else from the kernel's own where its architecture tells where that lies
    /// ([`elf_layout::Machine::cpu_capabilities`]).
    pub fn capability(&self, number: u32) -> Option<bool> {
        if let Some(caps) = &self.state.cpu_caps {
            let word = caps.get((number / 64) as usize).copied().unwrap_or(0);
            return Some(word >> (number % 64) & 1 != 0);
        }
        self.own_capability(number)
    }

    /// A bit of the kernel's own bitmap, which only a running kernel fills.
    fn own_capability(&self, number: u32) -> Option<bool> {
        let bitmap = self.machine?.cpu_capabilities?;
        let member = self.member(bitmap.of, bitmap.member)?;
        let word = u64::from(number / 32).checked_mul(4).filter(|at| *at < member.size)?;
        let address = self.symbol(bitmap.symbol)?.checked_add(member.offset)?.checked_add(word)?;
        let mut bits = [0; 4];
        Piece::read_any(&self.state.live, address, &mut bits)
            .then(|| u32::from_le_bytes(bits) >> (number % 32) & 1 != 0)
    }

    /// Number of CPUs found at boot.
    pub fn cpus(&self) -> Option<u32> {
        self.state.cpus
    }

    /// The kernel's command line.
    pub fn cmdline(&self) -> &str {
        &self.cmdline
    }

    /// A member of a struct by the kernel's BTF, dots between the names of `path`.
    pub fn member(&self, of: &str, path: &str) -> Option<Member> {
        self.types.member(of, path)
    }

    /// `sizeof` a struct by the kernel's BTF, in bytes.
    pub fn struct_size(&self, of: &str) -> Option<u64> {
        self.types.struct_size(of)
    }

    /// The memory that a kernel starts with: what its image holds, and zeros where it has its `.bss`.
    fn read_initial(&self, address: u64, out: &mut [u8]) -> bool {
        if self.memory.read(address.wrapping_sub(self.slide), out) {
            return true;
        }
        let bss = self.symbol("__bss_start").zip(self.symbol("__bss_stop"));
        let end = address.checked_add(out.len() as u64);
        let inside = bss.zip(end).is_some_and(|((start, stop), end)| start <= address && end <= stop);
        // Without an image nothing tells that the symbols are of a kernel that starts so.
        let known = inside && !matches!(*self.memory, LinkMemory::Unknown);
        if known {
            out.fill(0);
        }
        known
    }
}
