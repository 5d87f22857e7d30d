//! What the loader leaves to a machine architecture, in one trait.

use alloc::string::String;
use alloc::vec::Vec;

use elf_layout::place::Windows;
use elf_layout::{Findings, KernelConfig, LoadInfo, SectionPlace};
use kernel_image::ImageArch;

use crate::finalizer::Finalizer;
use crate::mod_arch::{Cpu, ModArch};
use crate::numbers::{self, Howto};
use crate::{Records, RelaSection};
use kernel::types::StructPaths;
use kernel::{Part, RunningKernel};

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Memory of the module.
    Own(SectionPlace),
    /// Memory of the kernel's image that stays.
    Image,
    /// Nothing: who touches it crashes.
    Nothing,
    /// Nothing, unless another module is there.
    Free,
    /// Memory that may be anything, or nothing.
    Unknown,
}

/// A site at which the function tracer turns itself off (FIN-47).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FtraceBug {
    /// There is nothing that could be read: EFAULT. With the address that the kernel tells.
    Faulted(u64),
    /// Something else is there: EINVAL.
    Unexpected {
        /// The address that the kernel tells.
        at: u64,
        /// How many bytes of what is there it shows.
        shown: u64,
        /// What it expects, if it tells that.
        expected: Option<Vec<u8>>,
    },
    /// The kernel crashes: why.
    Crash(&'static str),
}

/// A machine architecture. This is the list of what a port consists of, in tiers; each tier is of use without the next.
///
/// 1. **Facts.** The supertrait [`ImageArch`], with [`machine`](ImageArch::machine): modules and kernel images of it are
///    recognised, read, and named in messages.
/// 2. **Layout.** [`module_area`](Architecture::module_area), and where the kernel has it
///    [`module_frob_arch_sections`](Architecture::module_frob_arch_sections) and [`cpu`](Architecture::cpu): modules get their
///    place and size.
/// 3. **Relocation.** [`howto`](Architecture::howto),
///    [`ignores_undefined`](Architecture::ignores_undefined), and [`apply_relocate_add`](Architecture::apply_relocate_add) where
///    types store more than plain numbers: stages `relocated` and `kallsyms`.
/// 4. **Patching.** [`module_finalize`](Architecture::module_finalize) and all that follows it here: stage `final`.
/// 5. **What patching reads of the kernel.** [`kernel_memory`](Architecture::kernel_memory) and
///    [`kernel_types`](Architecture::kernel_types): SPEC files keep it.
///
/// An architecture is one directory of this crate and one line in [`ARCHITECTURES`](crate::ARCHITECTURES), or lives outside
/// of the workspace and is handed to the loader. Methods with a body are right for an architecture that has nothing of the kind.
pub trait Architecture: ImageArch {
    /// Its name in JSON (`uname -m`).
    fn name(&self) -> &'static str {
        self.machine().name
    }

    /// `e_machine` of its modules.
    fn e_machine(&self) -> u16 {
        self.machine().e_machine
    }

    /// Where a kernel of this version puts its modules when nothing is randomised, from its first
    /// free page on (LAYOUT-50 to LAYOUT-52). `symbol` gives addresses of the kernel's symbols, where known.
    fn module_area(&self, config: &KernelConfig, symbol: &dyn Fn(&str) -> Option<u64>) -> Windows;

    /// What of the CPUs of a running kernel changes layout and relocation.
    fn cpu(&self, _config: &KernelConfig, _kernel: &dyn RunningKernel) -> Cpu {
        Cpu::default()
    }

    /// `module_frob_arch_sections` (LAYOUT-3): sizes of sections that the loader fills, order of relocations.
    fn module_frob_arch_sections(
        &self,
        _info: &mut LoadInfo<'_>,
        _cpu: Cpu,
        _said: &mut Findings,
    ) -> ModArch {
        ModArch::default()
    }

    /// Undefined symbols that it does without (SYM-5).
    fn ignores_undefined(&self, _name: &[u8]) -> bool {
        false
    }

    /// `apply_relocate_add`: the records of one RELA section, in this order.
    /// The kernel stops at the first failure; this goes on to find all.
    ///
    /// Unless overridden: each type stores what its [`Howto`] computes as a little-endian number of so many bytes, and one
    /// that is not known, or a number that does not fit, is refused with ENOEXEC.
    fn apply_relocate_add(
        &self,
        section: &mut RelaSection<'_>,
        records: Records<'_>,
        _arch: &mut ModArch,
        said: &mut Findings,
    ) {
        numbers::apply_relocate_add(section, records, &|r_type| self.howto(r_type), said);
    }

    /// An entry of the exception table (FIN-1).
    fn extable(&self, _config: &KernelConfig) -> ExtableEntry {
        ExtableEntry { size: 12, addresses: 2 }
    }

    /// Does it refuse to relocate a place that is not zero (X86REL-3)?
    fn relocates_only_zeros(&self) -> bool {
        false
    }

    /// What a relocation of this type does; `None` if the loader does not know the type.
    fn howto(&self, r_type: u32) -> Option<Howto>;

    /// How many bytes a relocation of this type writes; 0 if the loader does not know the type.
    fn relocation_width(&self, r_type: u32) -> u64 {
        self.howto(r_type).map_or(0, |howto| howto.width)
    }

    /// Does a relocation of this type fit wherever the kernel puts modules, whichever symbol of the kernel or of a module it
    /// asks for (RELOC-GEN-17)?
    fn reaches_every_symbol(&self, _r_type: u32) -> bool {
        false
    }

    /// Does a relative relocation of 32 bits reach the temporary copy of the file (A64REL-40, X86REL-10)? Only where vmalloc
    /// space lies near the module area.
    fn reaches_temporary_copy(&self) -> bool {
        false
    }

    /// `module_finalize`: what it patches itself.
    fn module_finalize(&self, _module: &mut Finalizer<'_, '_>) {}

    /// What is at an address that is none of the module's (FIN-78).
    fn reach(&self, _config: &KernelConfig, _kernel: &dyn RunningKernel, _address: u64) -> Reach {
        Reach::Unknown
    }

    /// What it refuses modules for in `module_finalize`, whether they are patched here or not.
    fn refuse_in_module_finalize(&self, _info: &LoadInfo<'_>, _said: &mut Findings) {}

    /// The section that lists the sites of the function tracer (FIN-40).
    fn ftrace_callsites(&self, _config: &KernelConfig) -> &'static str {
        "__mcount_loc"
    }

    /// `ftrace_init_nop` and what goes before it (`ftrace_call_adjust`), for one site of the list (FIN-42 to
    /// FIN-44).
    fn ftrace_init_nop(&self, module: &mut Finalizer<'_, '_>, _site: u64) -> Result<(), FtraceBug> {
        module.record.not_known("what the function tracer puts at its sites on this architecture");
        Ok(())
    }

    /// The bits of an address in the kernel's half that processors of kernels like this one may ignore (RELOC-GEN-11).
    fn ignored_of_addresses(&self, _config: &KernelConfig) -> u64 {
        0
    }

    /// Would a site be initialised without a word that lies in the temporary copy of the file, and is listed at `at` in section
    /// `index` (FIN-47)? Where the copy lies nobody knows, so that what the kernel would say of it cannot be told.
    fn ftrace_site_in_copy(&self, _module: &Finalizer<'_, '_>, _index: usize, _at: u64) -> bool {
        false
    }

    /// Does it look up the name of each site when a module comes?
    fn ftrace_looks_up_sites(&self, _config: &KernelConfig) -> bool {
        false
    }

    /// What `arch_jump_label_transform` puts at `code`: a jump to `target`, or a nop (FIN-53). `None` if
    /// there is nothing that could be patched.
    fn jump_label_insn(
        &self,
        _module: &Finalizer<'_, '_>,
        _code: u64,
        _target: u64,
        _jump: bool,
    ) -> Option<Vec<u8>> {
        None
    }

    /// Does the patching of a jump label compare what is there with what should be, and crash if they differ (FIN-52)?
    fn jump_label_looks_at_code(&self) -> bool {
        false
    }

    /// `static_call_module_notify`, where the architecture has static calls (FIN-60 to FIN-63).
    fn static_calls(&self, _module: &mut Finalizer<'_, '_>) {}

    /// Trampolines of static calls that the module has itself, brought to what their keys say now (`arch_static_call_transform`
    /// without a site). A trampoline that nothing was put into may be as it was compiled.
    fn static_call_trampolines(&self, _module: &mut Finalizer<'_, '_>) {}

    /// Where the tracer puts its call for a site of the list, with the bytes that it has there; of a module whose sites are nops.
    /// `None` if nothing can be traced there.
    fn ftrace_call_site(&self, _module: &Finalizer<'_, '_>, _site: u64) -> Option<(u64, u64)> {
        None
    }

    /// Bytes in code, each with its address, that tell the tracer's operations by their pointer (`ftrace_rec_update_ops`) for a
    /// site of the list.
    fn ftrace_ops_pointer(&self, _config: &KernelConfig, _site: u64) -> Option<u64> {
        None
    }

    /// Where the call that begins `code` leads, if it is one with a fixed target.
    fn call_target(&self, _code: &[u8], _address: u64) -> Option<u64> {
        None
    }

    /// Where the jump that begins `code` leads, if it is one with a fixed target and no condition.
    fn jump_target(&self, _code: &[u8], _address: u64) -> Option<u64> {
        None
    }

    /// What a kprobe puts at its place; empty if that is not known.
    fn breakpoint(&self) -> &'static [u8] {
        &[]
    }

    /// The instruction that begins `code`, in words, and its length.
    #[cfg(feature = "disassemble")]
    fn disassemble(&self, _code: &[u8], _address: u64) -> Option<(String, usize)> {
        None
    }

    /// How many bytes the instruction has that begins `code`; `None` if it is none.
    #[cfg(feature = "disassemble")]
    fn instruction_len(&self, code: &[u8]) -> Option<usize> {
        self.disassemble(code, 0).map(|(_, len)| len)
    }

    /// The members of `struct mod_arch_specific` that follow from the module, each as a path in `struct module`, and its
    /// value (FIN-86).
    fn mod_arch_specific(&self, _module: &Finalizer<'_, '_>) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Words for the number of a capability, as alternatives name them.
    fn capability_text(&self, number: u64) -> String {
        alloc::format!("capability {number}")
    }

    /// What of the kernel's memory its steps read ([`RunningKernel::read`], [`RunningKernel::pointer`]).
    fn kernel_memory(&self) -> &'static [Part] {
        &[]
    }

    /// The structs of which its steps need members or sizes, with the paths of those members
    /// ([`RunningKernel::member`], [`RunningKernel::struct_size`]).
    fn kernel_types(&self) -> &'static StructPaths {
        &[]
    }
}

/// `struct exception_table_entry`, as far as sorting it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtableEntry {
    /// Its bytes.
    pub size: usize,
    /// So many fields of four bytes at its start are addresses relative to themselves, that of the instruction first.
    pub addresses: usize,
}
