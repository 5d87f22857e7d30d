//! Which registers an instruction takes values from, and which ones it gives them to.

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, Register};

use crate::machine::Flow;

/// A general register, or one of vectors, as a bit.
fn bit(register: Register) -> u64 {
    let register = register.full_register();
    let number = register.number() as u32;
    if register.is_gpr() {
        1u64.wrapping_shl(number & 15)
    } else if register.is_vector_register() {
        1u64.wrapping_shl(16u32.saturating_add(number & 31))
    } else {
        0
    }
}

/// Of the instruction at the beginning of `code`.
pub(super) fn flow(code: &[u8]) -> Flow {
    let instruction = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&instruction);
    let mut flow = Flow::default();
    for used in info.used_registers() {
        let bit = bit(used.register());
        let (reads, writes) = match used.access() {
            OpAccess::Read | OpAccess::CondRead => (true, false),
            OpAccess::Write | OpAccess::CondWrite => (false, true),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (true, true),
            _ => (false, false),
        };
        flow.reads |= if reads { bit } else { 0 };
        // Those of strings go on by themselves, and have no values.
        flow.writes |= if writes && !instruction.is_string_instruction() { bit } else { 0 };
    }
    let is_address = instruction.mnemonic() == Mnemonic::Lea;
    for used in info.used_memory().iter().filter(|_| !is_address) {
        flow.uses |= bit(used.base()) | bit(used.index());
    }
    let writes_memory = info.used_memory().iter().any(|used| {
        matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        )
    });
    // What only sets flags is there for who asks for them.
    let leads = !matches!(instruction.flow_control(), FlowControl::Next | FlowControl::Return);
    flow.compares = instruction.rflags_modified() != 0 && flow.writes == 0 && !writes_memory;
    flow.compares |= matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv);
    if flow.compares || leads {
        flow.uses |= flow.reads;
    }
    flow.stores = writes_memory && flow.writes == 0;
    // The stack pointer is nobody's value.
    let sp = !bit(Register::RSP);
    Flow { uses: flow.uses & sp, reads: flow.reads & sp, writes: flow.writes & sp, ..flow }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAX: u64 = 1;
    const RCX: u64 = 2;

    #[test]
    fn values_go_where_they_go() {
        // mov rax, [rcx]
        let flow_of = |code: &[u8]| flow(code);
        let load = flow_of(&[0x48, 0x8b, 0x01]);
        assert_eq!((load.uses, load.writes, load.compares, load.stores), (RCX, RAX, false, false));
        // mov [rcx], rax
        let store = flow_of(&[0x48, 0x89, 0x01]);
        assert_eq!((store.uses, store.reads & RAX, store.writes, store.stores), (RCX, RAX, 0, true));
        // cmp rax, [rcx]; test al, 1
        assert!(flow_of(&[0x48, 0x3b, 0x01]).compares);
        let test = flow_of(&[0xa8, 1]);
        assert!(test.compares && test.uses == RAX);
        // and byte [rcx], 0xfe
        let and = flow_of(&[0x80, 0x21, 0xfe]);
        assert!(!and.compares && and.stores && and.uses == RCX);
        // add rax, rcx; xor eax, eax
        let add = flow_of(&[0x48, 0x01, 0xc8]);
        assert_eq!((add.uses, add.reads, add.writes), (0, RAX | RCX, RAX));
        assert_eq!((flow_of(&[0x31, 0xc0]).reads, flow_of(&[0x31, 0xc0]).writes), (0, RAX));
        // mov rax, [rax]; rep movsb
        let load = flow_of(&[0x48, 0x8b, 0x00]);
        assert_eq!((load.uses, load.writes), (RAX, RAX));
        let copy = flow_of(&[0xf3, 0xa4]);
        assert_eq!((copy.writes, copy.compares, copy.stores), (0, false, true));
        // jmp rax
        assert_eq!(flow_of(&[0xff, 0xe0]).uses, RAX);
    }
}
