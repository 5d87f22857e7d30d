//! What patching reads of a kernel: symbols, memory, capabilities, types. What is not known is `None`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::built_in::Folder;
use crate::kernel::Kernel;
use crate::memory::LinkMemory;
use crate::types::Member;

/// The running kernel, as far as patching reads it. What it does not know is `None`; a step then leaves
/// the site as it was compiled and says so (`Record::unknown`).
pub trait RunningKernel: Debug + Sync {
    /// Address of the kernel's own symbol of that name, the first if several have it.
    fn symbol(&self, name: &str) -> Option<u64>;

    /// Addresses of the kernel's own symbols whose names begin so, in any order; names may share one.
    fn symbols_with(&self, prefix: &str) -> Vec<u64>;

    /// Fills `out` with the kernel's memory at `address`; false if not every byte of it is known. Pointers
    /// that come from a kernel image are those before KASLR: read them with [`RunningKernel::pointer`].
    fn read(&self, address: u64, out: &mut [u8]) -> bool;

    /// The pointer at `address`.
    fn pointer(&self, address: u64) -> Option<u64>;

    /// Has the system the capability of that number? The architecture gives the number its meaning: a bit of
    /// `boot_cpu_data`, or a line of cpucaps.
    fn capability(&self, number: u32) -> Option<bool>;

    /// The errata of its CPUs that were given.
    fn errata(&self) -> &[String] {
        &[]
    }

    /// Number of CPUs found at boot.
    fn cpus(&self) -> Option<u32>;

    /// The kernel's command line.
    fn cmdline(&self) -> &str;

    /// Has it modules, whose memory may be anywhere in the module area?
    fn has_modules(&self) -> bool {
        false
    }

    /// Does an address lie in the code or the constants of a module, which nobody can write once it is formed (FIN-87)?
    fn in_constants_of_modules(&self, _address: u64) -> bool {
        false
    }

    /// The folder in /sys/module of a module that is built in (LIFE-41); `None` if there is none.
    fn folder(&self, _module: &[u8]) -> Option<Folder> {
        None
    }

    /// A member of a struct by the kernel's BTF, dots between the names of `path`. Only what is
    /// listed can be asked for (`Architecture::kernel_types`), so that it can be kept apart from the BTF.
    fn member(&self, of: &str, path: &str) -> Option<Member>;

    /// `sizeof` a struct by the kernel's BTF; it is listed likewise.
    fn struct_size(&self, of: &str) -> Option<u64>;
}

/// A kernel of which nothing is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unknown;

impl RunningKernel for Unknown {
    fn symbol(&self, _: &str) -> Option<u64> {
        None
    }

    fn symbols_with(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }

    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn pointer(&self, _: u64) -> Option<u64> {
        None
    }

    fn capability(&self, _: u32) -> Option<bool> {
        None
    }

    fn cpus(&self) -> Option<u32> {
        None
    }

    fn cmdline(&self) -> &str {
        ""
    }

    fn member(&self, _: &str, _: &str) -> Option<Member> {
        None
    }

    fn struct_size(&self, _: &str) -> Option<u64> {
        None
    }
}

impl RunningKernel for Kernel {
    fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.address(name)
    }

    fn symbols_with(&self, prefix: &str) -> Vec<u64> {
        let own = self.symbols.iter().filter(|s| s.module.is_none());
        own.filter(|s| s.name.starts_with(prefix.as_bytes())).map(|s| s.address).collect()
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        self.state.read_live(address, out) || self.read_initial(address, out)
    }

    fn pointer(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        if self.state.read_live(address, &mut bytes) {
            return Some(u64::from_le_bytes(bytes));
        }
        let known = self.read_initial(address, &mut bytes);
        let value = u64::from_le_bytes(bytes);
        // Only addresses of the kernel move with it; constants do not.
        known.then(|| if value >> 63 == 1 { value.wrapping_add(self.slide) } else { value })
    }

    fn capability(&self, number: u32) -> Option<bool> {
        if let Some(caps) = &self.state.cpu_caps {
            let word = caps.get((number / 64) as usize).copied().unwrap_or(0);
            return Some(word >> (number % 64) & 1 != 0);
        }
        self.own_capability(number)
    }

    fn errata(&self) -> &[String] {
        &self.state.errata
    }

    fn cpus(&self) -> Option<u32> {
        self.state.cpus
    }

    fn cmdline(&self) -> &str {
        &self.cmdline
    }

    fn has_modules(&self) -> bool {
        self.modules().next().is_some()
    }

    fn in_constants_of_modules(&self, address: u64) -> bool {
        self.modules().any(|module| module.read_only.iter().any(|range| range.contains(&address)))
    }

    fn folder(&self, module: &[u8]) -> Option<Folder> {
        self.built_in.folder(module)
    }

    fn member(&self, of: &str, path: &str) -> Option<Member> {
        self.types.member(of, path)
    }

    fn struct_size(&self, of: &str) -> Option<u64> {
        self.types.struct_size(of)
    }
}

impl Kernel {
    /// A bit of the kernel's own bitmap, which only a running kernel fills.
    fn own_capability(&self, number: u32) -> Option<bool> {
        let (address, size) = self.cpu_capabilities()?;
        let word = u64::from(number / 32).checked_mul(4).filter(|at| *at < size)?;
        let address = address.checked_add(word)?;
        let mut bits = [0; 4];
        self.state.read_live(address, &mut bits).then(|| u32::from_le_bytes(bits) >> (number % 32) & 1 != 0)
    }

    /// The memory that a kernel starts with: what its image holds, and zeros where it has its `.bss`.
    fn read_initial(&self, address: u64, out: &mut [u8]) -> bool {
        if self.memory.read(address.wrapping_sub(self.slide), out) {
            return true;
        }
        let bss = self.symbol("__bss_start").zip(self.symbol("__bss_stop"));
        let end = address.checked_add(out.len() as u64);
        let inside = bss.zip(end).is_some_and(|((start, stop), end)| start <= address && end <= stop);
        // Without an image it is not known whether .bss of this kernel is zero when it starts.
        let known = inside && !matches!(*self.memory, LinkMemory::Unknown);
        if known {
            out.fill(0);
        }
        known
    }
}
