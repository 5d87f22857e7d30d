//! Sites of the function tracer and of jump labels (FIN-42, FIN-53, FIN-54).

use alloc::vec::Vec;

use elf_layout::Change;

use super::X86_64;
use super::insn::text_gen_insn;
use super::nops::{NOP2, NOP5, Nops};
use super::text::{CALL, JMP32};
use crate::FtraceBug;
use crate::finalizer::Finalizer;
use crate::reach::{Reach, reach};
use crate::record::Step;

/// `ftrace_make_nop` (FIN-42): the call of `__fentry__` at `site` becomes a nop. Kernels with nops from the
/// compiler or objtool leave what is one already.
pub fn ftrace_init_nop(module: &mut Finalizer<'_, '_>, site: u64) -> Result<(), FtraceBug> {
    let call = module.kernel.symbol("__fentry__").map(|fentry| text_gen_insn(CALL, site, fentry));
    let unexpected = FtraceBug::Unexpected { at: site, shown: 5, expected: call.map(|call| call.to_vec()) };
    let Some(now) = module.bytes::<5>(site) else {
        // What is there in the kernel or in another module is no call of it any more.
        let readable = reach(module, module.kernel, &X86_64, site) == Reach::Image;
        return Err(if readable { unexpected } else { FtraceBug::Faulted(site) });
    };
    if now == NOP5 && compiled_as_nops(module) != Some(false) {
        return Ok(());
    }
    let is_call = call.map_or(now[0] == CALL, |call| now == call);
    let Some(nops) = Nops::of(module).filter(|_| is_call) else {
        return if is_call { Ok(()) } else { Err(unexpected) };
    };
    if module.write(site, &nops.five(), Step::FtraceSite, 0) { Ok(()) } else { Err(unexpected) }
}

/// Has the kernel been compiled with nops for sites (CC_USING_NOP_MCOUNT)? Its modules are then too, and nothing is verified. The first
/// site of its image shows it.
fn compiled_as_nops(module: &Finalizer<'_, '_>) -> Option<bool> {
    let kernel = module.kernel;
    let site = kernel.pointer(kernel.symbol("__start_mcount_loc")?)?;
    let mut code = NOP5;
    kernel.read(site, &mut code).then_some(code == NOP5)
}

/// `__jump_label_patch` (FIN-53): a jump to `target` or a nop, as long as the instruction at `code`.
pub fn jump_label_insn(module: &Finalizer<'_, '_>, code: u64, target: u64, jump: bool) -> Option<Vec<u8>> {
    // Since v5.14 (ab3257042c26) the instruction tells its size (FIN-54); before that all have five bytes.
    let size = if module.has(Change::ShortJumpLabels) { module.insn(code)?.length } else { 5 };
    let distance = target.wrapping_sub(code.wrapping_add(2)) as u8;
    match (size, jump) {
        (2, false) => Some(NOP2.to_vec()),
        (2, true) => Some([0xeb, distance].to_vec()),
        (5, false) => Some(Nops::known(module.kernel, module.changes())?.five().to_vec()),
        (5, true) => Some(text_gen_insn(JMP32, code, target).to_vec()),
        // The kernel crashes (BUG).
        _ => None,
    }
}

/// Bytes of `struct jump_entry`: s32 code, s32 target, s64 key.
const JUMP_ENTRY: u64 = 16;

/// `jump_label_apply_nops`, before v5.13 (a89dfde3dc3c): where the CPU has other nops than the compiler takes, sites that
/// are nops get these.
pub fn jump_label_apply_nops(module: &mut Finalizer<'_, '_>) {
    if module.has(Change::SameNopsForAll) {
        return;
    }
    let Some(table) = module.section("__jump_table").filter(|table| table.size >= JUMP_ENTRY) else { return };
    let Some(nops) = Nops::of(module).filter(|nops| nops.five() != NOP5) else { return };
    for at in table.records(JUMP_ENTRY) {
        let code = module.relative(at);
        if let Some(code) = code.filter(|code| module.bytes(*code) == Some(NOP5)) {
            module.write(code, &nops.five(), Step::JumpLabel, 0);
        }
    }
}
