//! Per-cpu memory of a module that is loaded: what it is given, and what is taken back from it if it is refused.

use elf_layout::elf::Shdr;
use elf_layout::{Errno, Finding, Findings, LoadInfo, Module, Severity, needs};
use kernel::space::Room;
use kernel::{Kernel, RunningKernel};

/// The section that per-cpu memory is for, if it has bytes.
fn pcpu_section<'i>(info: &'i LoadInfo<'_>) -> Option<&'i Shdr> {
    let pcpu = info.file.index().pcpu;
    info.sechdrs.get(pcpu).filter(|s| pcpu != 0 && s.sh_size != 0)
}

/// `percpu_modalloc` (LAYOUT-60): the area has to fit beside those of the modules that are loaded. Where it goes is part of the
/// placement.
pub(crate) fn percpu_modalloc(kernel: &Kernel, info: &LoadInfo<'_>, said: &mut Findings) {
    /// PCPU_MIN_UNIT_SIZE, and the smallest unit.
    const LARGEST: u64 = 32 << 10;
    const SMALLEST: u64 = 4;
    let page = info.config.page_size;
    let Some(section) = pcpu_section(info) else { return };
    let (me, size) = (info.file.name_text(), section.sh_size);
    let subject = info.file.section_subject(info.file.index().pcpu);
    if section.sh_addralign > page {
        let align = section.sh_addralign.cast_signed();
        let line = format!("{me}: per-cpu alignment {align} > {page}");
        let why = format!("per-cpu areas are aligned to a page at most, not to {align:#x}");
        let finding = Finding::note("LAYOUT-60", Severity::Warning, why).says(line);
        said.push(finding.about(subject.clone()));
    }
    let align = section.sh_addralign.min(page);
    let space = &kernel.state.space;
    let reserve = space.percpu_reserve();
    let whole = size.checked_next_multiple_of(SMALLEST).unwrap_or(u64::MAX);
    let legal = whole <= LARGEST && align.max(SMALLEST).is_power_of_two();
    // One that is loaded has its area.
    let is_there = kernel.module(info.file.name()).is_some();
    let room = match space.percpu_room(whole, align.max(SMALLEST)) {
        _ if is_there && whole <= reserve => Room::Fits,
        // Of modules that are only listed, nobody has said what they hold.
        Room::Fits if kernel.modules().any(|m| m.listed && !space.is_held(&m.name)) => Room::Unknown,
        room => room,
    };
    match room {
        Room::Fits if legal => return,
        Room::Unknown if legal => return said.unjudged("LAYOUT-60", needs::PERCPU),
        _ => {}
    }
    let why = format!(
        "{size:#x} bytes of per-cpu data aligned to {align:#x}: the kernel has {reserve:#x} for all modules, of which others hold theirs, gives at most {LARGEST:#x} at once, and takes powers of two"
    );
    let mut finding = Finding::error("LAYOUT-60", Errno::ENOMEM, why).about(subject);
    // What is not legal is told by a warning.
    if legal {
        let align = align.max(SMALLEST);
        let line = format!(
            "percpu: allocation failed, size={whole} align={align} atomic=0, alloc from reserved chunk failed"
        );
        finding = finding.says(line);
    }
    said.refuse(finding.says(format!("{me}: Could not allocate {size} bytes percpu data")));
}

/// `mod->percpu` as the file has it. The kernel sets it only for a module with per-cpu data, and frees whatever is there when it
/// has to take a module back (LAYOUT-63).
#[derive(Debug, Default)]
pub(crate) struct PercpuOfFile {
    value: u64,
    is_set: bool,
}

impl PercpuOfFile {
    /// What the member holds before the next step, if the kernel has not stopped.
    pub(crate) fn look(&mut self, kernel: &Kernel, module: &Module<'_>, said: &Findings) {
        if said.refused() || self.is_set {
            return;
        }
        let this = module.table(module.info.file.index().module);
        let member = kernel.member("module", "percpu").filter(|m| m.size == 8);
        let value = this.zip(member).and_then(|(this, member)| {
            let inside = member.offset.saturating_add(member.size) <= this.size;
            module.u64(this.address.wrapping_add(member.offset)).filter(|_| inside)
        });
        self.value = value.unwrap_or(0);
    }

    /// `percpu_modalloc` is over: where there are per-cpu data, it has set the member.
    pub(crate) fn allocated(&mut self, info: &LoadInfo<'_>) {
        if pcpu_section(info).is_some() {
            *self = PercpuOfFile { value: 0, is_set: true };
        }
    }

    /// `module_deallocate`: `percpu_modfree` of what is no per-cpu memory looks for the chunk that it is of.
    pub(crate) fn module_deallocate(&self, said: &mut Findings) {
        if self.value != 0 {
            let needs = format!(
                "what free_percpu makes of {:#x}: struct module of the file has that as percpu, and the kernel frees it when it refuses the module",
                self.value
            );
            said.may_crash_on_the_way_back("LAYOUT-63", needs);
        }
    }
}
