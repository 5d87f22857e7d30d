//! What `module_finalize` refuses modules for.

use alloc::format;

use elf_layout::elf::EM_AARCH64;
use elf_layout::{Change, Errno, Finding, Findings, LoadInfo};

/// arm64's `module_init_ftrace_plt` wants sections to put the ways to the tracer into (FIN-30).
pub fn refuse_without_ftrace_plt(info: &LoadInfo<'_>, said: &mut Findings) {
    let mark = said.mark();
    let config = info.config;
    let wants = info.file.e_machine() == EM_AARCH64 && config.dynamic_ftrace;
    // Since v5.5 (bd8b21d3dd66). The second one since v6.17 (a7ed7b9d0ebb); which stable kernel before has that
    // change does not show.
    for (section, change) in [
        (".text.ftrace_trampoline", Change::FtracePltRequired),
        (".init.text.ftrace_trampoline", Change::InitFtracePltRequired),
    ] {
        if wants && config.has(change) && info.file.find_any_sec(section) == 0 {
            let why = format!(
                "the module has no section {section}, which a kernel with CONFIG_DYNAMIC_FTRACE needs"
            );
            let finding = Finding::error("FIN-30", Errno::ENOEXEC, why);
            said.push(finding.hint("link the module with the kernel's module.lds, as kbuild does"));
        }
    }
    said.end_stage_at_first(mark);
}
