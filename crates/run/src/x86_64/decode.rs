//! Instructions in the form that they are executed in.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::instruction::{Address, Decoded, KIND_FS, KIND_GS, KIND_NARROW, Op, Operand, ZERO};
use super::vector::decode::vector;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Instructions of a block at most.
pub const BLOCK_MAX: usize = 64;
/// Bytes that a block is decoded from at most: as many instructions of the longest kind.
pub const BLOCK_BYTES: usize = BLOCK_MAX * 15;

/// Instructions that are executed one after the other.
#[derive(Clone, Debug)]
pub struct Block {
    pub instructions: Box<[Decoded]>,
    /// The blocks that followed it last: one behind its last instruction, one elsewhere; their addresses and numbers.
    pub next: [(u64, u32); 2],
}

/// Decodes from `code` at `address` up to the first jump, or to an address that `stops`.
pub fn block(code: &[u8], address: u64, stops: impl Fn(u64) -> bool) -> Block {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let mut instructions = Vec::new();
    let mut instruction = Instruction::default();
    while instructions.len() < BLOCK_MAX && decoder.can_decode() {
        if !instructions.is_empty() && stops(decoder.ip()) {
            break;
        }
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() && !instructions.is_empty() {
            break;
        }
        let decoded = convert(&instruction);
        instructions.push(decoded);
        if instruction.flow_control() != FlowControl::Next || decoded.op == Op::Unknown {
            break;
        }
    }
    Block { instructions: instructions.into(), next: [(0, u32::MAX); 2] }
}

/// Bytes of the instruction at the beginning of `code`, and whether another than the next one may follow it.
pub fn extent(code: &[u8], address: u64) -> (u64, bool) {
    let instruction = Decoder::with_ip(64, code, address, DecoderOptions::NONE).decode();
    (instruction.len() as u64, instruction.flow_control() != FlowControl::Next)
}

/// The name of the instruction at the beginning of `code`; its bytes if it is none.
pub fn name(code: &[u8], address: u64) -> alloc::string::String {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        let bytes = code.iter().take(15).map(|byte| alloc::format!("{byte:02x}"));
        return bytes.collect::<Vec<_>>().join(" ");
    }
    alloc::format!("{:?}", instruction.code())
}

/// The number of a general register, by its number in the encoding.
fn number(register: Register) -> u8 {
    u8::try_from(register.full_register().number()).unwrap_or(ZERO) & 15
}

fn register(register: Register) -> Operand {
    match register {
        Register::AH => Operand::High(0),
        Register::CH => Operand::High(1),
        Register::DH => Operand::High(2),
        Register::BH => Operand::High(3),
        _ if register.is_gpr() => Operand::Register(number(register)),
        _ if register.is_xmm() || register.is_ymm() => {
            Operand::Vector(u8::try_from(register.number()).unwrap_or(0) & 15)
        }
        _ if register.is_segment_register() => {
            Operand::Segment(u8::try_from(register.number()).unwrap_or(0) & 7)
        }
        _ if register.is_cr() => Operand::System(u8::try_from(register.number()).unwrap_or(0) & 15),
        _ if register.is_dr() => Operand::System(u8::try_from(register.number()).unwrap_or(0) & 15 | 16),
        _ => Operand::None,
    }
}

fn address(instruction: &Instruction) -> Address {
    let mut kind = match instruction.memory_segment() {
        Register::FS => KIND_FS,
        Register::GS => KIND_GS,
        _ => 0,
    };
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    if instruction.is_ip_rel_memory_operand() {
        let displacement = instruction.ip_rel_memory_address();
        return Address { base: ZERO, index: ZERO, scale: 0, kind, displacement };
    }
    if base.is_gpr32() || index.is_gpr32() {
        kind |= KIND_NARROW;
    }
    let part = |register: Register| if register.is_gpr() { number(register) } else { ZERO };
    Address {
        base: part(base),
        index: part(index),
        scale: u8::try_from(instruction.memory_index_scale().trailing_zeros()).unwrap_or(0) & 3,
        kind,
        displacement: instruction.memory_displacement64(),
    }
}

fn operand(instruction: &Instruction, number: u32) -> Operand {
    if number >= instruction.op_count() {
        return Operand::None;
    }
    match instruction.op_kind(number) {
        OpKind::Register => register(instruction.op_register(number)),
        OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
            Operand::Immediate(instruction.near_branch_target())
        }
        OpKind::Memory => Operand::Memory(address(instruction)),
        OpKind::Immediate8
        | OpKind::Immediate8_2nd
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => Operand::Immediate(instruction.immediate(number)),
        _ => Operand::None,
    }
}

fn size(instruction: &Instruction, number: u32) -> u8 {
    if number >= instruction.op_count() {
        return 0;
    }
    let size = match instruction.op_kind(number) {
        OpKind::Register => instruction.op_register(number).size(),
        OpKind::Memory => instruction.memory_size().size(),
        _ => 0,
    };
    u8::try_from(size).unwrap_or(0)
}

/// Does an operand need a register that is not modelled?
fn is_foreign(instruction: &Instruction, number: u32) -> bool {
    instruction.op_kind(number) == OpKind::Register
        && register(instruction.op_register(number)) == Operand::None
}

fn convert(instruction: &Instruction) -> Decoded {
    let operands = instruction.op_count();
    let mut decoded = Decoded {
        op: Op::Invalid,
        size: size(instruction, 0),
        source_size: size(instruction, 1),
        // iced counts them from 1, in the order of the opcodes.
        condition: (instruction.condition_code() as u8).wrapping_sub(1) & 15,
        repeat: u8::from(instruction.has_rep_prefix()) | u8::from(instruction.has_repne_prefix()) << 1,
        element: 0,
        len: u8::try_from(instruction.len()).unwrap_or(0),
        first: operand(instruction, 0),
        second: operand(instruction, 1),
        third: operand(instruction, 2),
        next: instruction.next_ip(),
    };
    if instruction.is_invalid() {
        return decoded;
    }
    if vector(instruction, &mut decoded) {
        if (0..operands).any(|number| is_foreign(instruction, number)) {
            decoded.op = Op::Unknown;
        }
        return decoded;
    }
    let (op, fixed_size) = of_mnemonic(instruction, operands);
    decoded.op = op;
    if let Some(size) = fixed_size {
        decoded.size = size;
    }
    if op != Op::Nothing && (0..operands).any(|number| is_foreign(instruction, number)) {
        decoded.op = Op::Unknown;
    }
    // Stores of an immediate and the like have the size of the other operand.
    if decoded.size == 0 {
        decoded.size = decoded.source_size;
    }
    decoded.op = match (decoded.op, decoded.first, decoded.second) {
        (Op::Mov, Operand::Register(_), Operand::Register(_)) if decoded.size == 8 => Op::MoveRegister,
        (Op::Mov, Operand::Register(_), Operand::Memory(_)) if decoded.size == 8 => Op::Load,
        (Op::Mov, Operand::Memory(_), Operand::Register(_)) if decoded.size == 8 => Op::Store,
        (op, ..) => op,
    };
    // String instructions with addresses of 32 bits exist, and nobody writes them.
    let is_string = matches!(decoded.op, Op::Movs | Op::Stos | Op::Lods | Op::Scas | Op::Cmps);
    let narrow = |kind| {
        matches!(kind, OpKind::MemoryESEDI | OpKind::MemoryESDI | OpKind::MemorySegESI | OpKind::MemorySegSI)
    };
    let odd = (0..operands).any(|n| narrow(instruction.op_kind(n)))
        || matches!(instruction.memory_segment(), Register::FS | Register::GS);
    if is_string && odd {
        decoded.op = Op::Unknown;
    }
    decoded
}

/// What an instruction does, and its size where the operands do not say it.
fn of_mnemonic(instruction: &Instruction, operands: u32) -> (Op, Option<u8>) {
    use Mnemonic as M;
    let op = match instruction.mnemonic() {
        M::Mov | M::Movnti => Op::Mov,
        M::Lea => Op::Lea,
        M::Movzx => Op::Movzx,
        M::Movsx | M::Movsxd => Op::Movsx,
        M::Add => Op::Add,
        M::Adc => Op::Adc,
        M::Sub => Op::Sub,
        M::Sbb => Op::Sbb,
        M::Cmp => Op::Cmp,
        M::Test => Op::Test,
        M::And => Op::And,
        M::Or => Op::Or,
        M::Xor => Op::Xor,
        M::Not => Op::Not,
        M::Neg => Op::Neg,
        M::Inc => Op::Inc,
        M::Dec => Op::Dec,
        M::Push => {
            let narrow = matches!(
                instruction.code(),
                iced_x86::Code::Push_r16 | iced_x86::Code::Push_rm16 | iced_x86::Code::Push_imm16 | iced_x86::Code::Pushw_imm8
            );
            return (if narrow { Op::Unknown } else { Op::Push }, Some(8));
        }
        M::Pop => {
            let narrow =
                matches!(instruction.code(), iced_x86::Code::Pop_r16 | iced_x86::Code::Pop_rm16);
            return (if narrow { Op::Unknown } else { Op::Pop }, Some(8));
        }
        M::Pushfq => return (Op::Pushf, Some(8)),
        M::Popfq => return (Op::Popf, Some(8)),
        M::Leave if instruction.code() == iced_x86::Code::Leaveq => Op::Leave,
        M::Call if instruction.is_call_near() || instruction.is_call_near_indirect() => return (Op::Call, Some(8)),
        M::Jmp if instruction.is_jmp_short_or_near() || instruction.is_jmp_near_indirect() => {
            return (Op::Jmp, Some(8));
        }
        M::Ret if matches!(instruction.code(), iced_x86::Code::Retnq | iced_x86::Code::Retnq_imm16) => Op::Ret,
        M::Shl | M::Sal => Op::Shl,
        M::Shr => Op::Shr,
        M::Sar => Op::Sar,
        M::Rol => Op::Rol,
        M::Ror => Op::Ror,
        M::Rcl => Op::Rcl,
        M::Rcr => Op::Rcr,
        M::Shld => Op::Shld,
        M::Shrd => Op::Shrd,
        M::Imul if operands == 1 => Op::ImulWide,
        M::Imul => Op::Imul,
        M::Mul => Op::Mul,
        M::Div => Op::Div,
        M::Idiv => Op::Idiv,
        M::Cbw => return (Op::ExtendA, Some(2)),
        M::Cwde => return (Op::ExtendA, Some(4)),
        M::Cdqe => return (Op::ExtendA, Some(8)),
        M::Cwd => return (Op::ExtendAToD, Some(2)),
        M::Cdq => return (Op::ExtendAToD, Some(4)),
        M::Cqo => return (Op::ExtendAToD, Some(8)),
        M::Xchg => Op::Xchg,
        M::Xadd => Op::Xadd,
        M::Cmpxchg => Op::Cmpxchg,
        M::Cmpxchg8b => return (Op::CmpxchgPair, Some(4)),
        M::Cmpxchg16b => return (Op::CmpxchgPair, Some(8)),
        M::Bt => Op::Bt,
        M::Bts => Op::Bts,
        M::Btr => Op::Btr,
        M::Btc => Op::Btc,
        M::Bsf => Op::Bsf,
        M::Bsr => Op::Bsr,
        M::Tzcnt => Op::Tzcnt,
        M::Lzcnt => Op::Lzcnt,
        M::Bswap => Op::Bswap,
        M::Popcnt => Op::Popcnt,
        M::Movsb => return (Op::Movs, Some(1)),
        M::Movsw => return (Op::Movs, Some(2)),
        M::Movsd if instruction.is_string_instruction() => return (Op::Movs, Some(4)),
        M::Movsq => return (Op::Movs, Some(8)),
        M::Stosb => return (Op::Stos, Some(1)),
        M::Stosw => return (Op::Stos, Some(2)),
        M::Stosd => return (Op::Stos, Some(4)),
        M::Stosq => return (Op::Stos, Some(8)),
        M::Lodsb => return (Op::Lods, Some(1)),
        M::Lodsw => return (Op::Lods, Some(2)),
        M::Lodsd => return (Op::Lods, Some(4)),
        M::Lodsq => return (Op::Lods, Some(8)),
        M::Scasb => return (Op::Scas, Some(1)),
        M::Scasw => return (Op::Scas, Some(2)),
        M::Scasd => return (Op::Scas, Some(4)),
        M::Scasq => return (Op::Scas, Some(8)),
        M::Cmpsb => return (Op::Cmps, Some(1)),
        M::Cmpsw => return (Op::Cmps, Some(2)),
        M::Cmpsd if instruction.is_string_instruction() => return (Op::Cmps, Some(4)),
        M::Cmpsq => return (Op::Cmps, Some(8)),
        M::Cli => Op::Cli,
        M::Sti => Op::Sti,
        M::Cld => Op::Cld,
        M::Std => Op::Std,
        M::Clc => Op::Clc,
        M::Stc => Op::Stc,
        M::Cmc => Op::Cmc,
        M::Lahf => Op::Lahf,
        M::Sahf => Op::Sahf,
        M::Rdtsc | M::Rdtscp => Op::Rdtsc,
        M::Cpuid => Op::Cpuid,
        M::In => Op::In,
        M::Rdmsr => Op::Rdmsr,
        M::Wrmsr => Op::Wrmsr,
        M::Swapgs => Op::Swapgs,
        M::Hlt => Op::Hlt,
        M::Int3 => Op::Breakpoint,
        M::Ud0 | M::Ud1 | M::Ud2 => Op::Undefined,
        M::Fxsave | M::Fxsave64 => Op::SaveState,
        M::Fxrstor | M::Fxrstor64 => Op::RestoreState,
        M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 => Op::SaveComponents,
        M::Xrstor | M::Xrstor64 => Op::RestoreComponents,
        M::Xgetbv => Op::GetComponents,
        M::Xsetbv => Op::SetComponents,
        M::Fninit => Op::ResetFloat,
        M::Stmxcsr | M::Vstmxcsr => Op::SaveControl,
        M::Ldmxcsr | M::Vldmxcsr => Op::LoadControl,
        M::Andn => Op::Andn,
        M::Bextr => Op::Bextr,
        M::Blsr => Op::Blsr,
        M::Blsmsk => Op::Blsmsk,
        M::Blsi => Op::Blsi,
        M::Bzhi => Op::Bzhi,
        M::Mulx => Op::Mulx,
        M::Pdep => Op::Pdep,
        M::Pext => Op::Pext,
        M::Rorx => Op::Rorx,
        M::Shlx => Op::Shlx,
        M::Shrx => Op::Shrx,
        M::Sarx => Op::Sarx,
        M::Adcx => Op::Adcx,
        M::Adox => Op::Adox,
        M::Movbe => Op::Movbe,
        M::Crc32 => Op::Crc32,
        M::Loop if instruction.code() == iced_x86::Code::Loop_rel8_64_RCX => Op::Loop,
        M::Jrcxz if instruction.code() == iced_x86::Code::Jrcxz_rel8_64 => Op::Jrcxz,
        M::Nop
        | M::Endbr64
        | M::Pause
        | M::Lfence
        | M::Mfence
        | M::Sfence
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchnta
        | M::Prefetchw
        | M::Clflush
        | M::Clflushopt
        | M::Clwb
        | M::Wbinvd
        | M::Invlpg
        | M::Stac
        | M::Clac
        | M::Verw
        | M::Out
        // No exception of the floating-point unit waits.
        | M::Wait => Op::Nothing,
        _ if instruction.is_jcc_short_or_near() => Op::Jcc,
        _ if instruction.condition_code() == iced_x86::ConditionCode::None => Op::Unknown,
        _ if operands == 1 && instruction.op_kind(0) != OpKind::NearBranch64 => Op::Setcc,
        _ if operands == 2 => Op::Cmovcc,
        _ => Op::Unknown,
    };
    (op, None)
}
