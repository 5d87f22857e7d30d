//! What keeps the kernel from calling the init function that a module has.

use alloc::format;

use elf_layout::bytes::printed;
use elf_layout::{Errno, Finding, Findings, Module};

/// `init/main.c: initcall_blacklisted`, which `do_one_initcall` asks (LIFE-16): is the function on one of `blacklist`? Its
/// name is that of the kernel's log: `init_module` is another name of what the source calls `hello_init`, and comes later in
/// the symbol table. Without CONFIG_KALLSYMS the kernel knows no such name. True if it is.
pub fn initcall_blacklisted(
    module: &Module<'_>,
    blacklist: &[alloc::vec::Vec<u8>],
    said: &mut Findings,
) -> bool {
    if blacklist.is_empty() || !module.info.config.kallsyms {
        return false;
    }
    let Some(name) = module.init().and_then(|init| module.symbol_at(init)) else { return false };
    // What follows a space would be the module's name.
    let name = name.split(|byte| *byte == b' ').next().unwrap_or_default();
    if !blacklist.iter().any(|entry| entry == name) {
        return false;
    }
    let (me, name) = (module.info.file.name_text(), printed(name));
    let why = format!(
        "{name}, the init function of {me}, is on initcall_blacklist= of the kernel's command line: it is not called"
    );
    let finding = Finding::error("LIFE-16", Errno::EPERM, why);
    said.refuse(finding.hint(format!("remove {name} from initcall_blacklist= and boot again")));
    true
}
