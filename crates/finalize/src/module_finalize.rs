//! What `module_finalize` refuses modules for.

use alloc::format;

use elf_layout::elf::EM_AARCH64;
use elf_layout::{Errno, Finding, Findings, LoadInfo};

/// arm64's `module_init_ftrace_plt` wants a section to put the way to the tracer into (FIN-30).
pub fn refuse_without_ftrace_plt(info: &LoadInfo<'_>, said: &mut Findings) {
    let mark = said.mark();
    let trampoline = ".text.ftrace_trampoline";
    let arm64 = info.file.e_machine() == EM_AARCH64;
    if arm64 && info.config.dynamic_ftrace && info.file.find_any_sec(trampoline) == 0 {
        let why = format!(
            "the module has no section {trampoline}, which a kernel with CONFIG_DYNAMIC_FTRACE needs"
        );
        let finding = Finding::error("FIN-30", Errno::ENOEXEC, why);
        said.push(finding.hint("link the module with the kernel's module.lds, as kbuild does"));
    }
    said.end_stage(mark);
}
