//! A decoded instruction, in the form that it is executed in.

use super::vector::operation::V;

/// The register that is always zero: base or index of an address that has none.
pub const ZERO: u8 = 16;

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// No register for 64 bits is wider, so these three need no size: the most frequent instructions.
    MoveRegister,
    Load,
    Store,
    Mov,
    Lea,
    Movzx,
    Movsx,
    Add,
    Adc,
    Sub,
    Sbb,
    Cmp,
    Test,
    And,
    Or,
    Xor,
    Not,
    Neg,
    Inc,
    Dec,
    Push,
    Pop,
    Pushf,
    Popf,
    Leave,
    Call,
    Jmp,
    Ret,
    Jcc,
    Setcc,
    Cmovcc,
    Jrcxz,
    Loop,
    Shl,
    Shr,
    Sar,
    Rol,
    Ror,
    Rcl,
    Rcr,
    Shld,
    Shrd,
    /// One operand: the product goes to rdx:rax.
    ImulWide,
    Imul,
    Mul,
    Div,
    Idiv,
    /// CBW, CWDE, CDQE, by size of the result.
    ExtendA,
    /// CWD, CDQ, CQO, by size of the operand.
    ExtendAToD,
    Xchg,
    Xadd,
    Cmpxchg,
    /// CMPXCHG8B and 16B, by size of one half.
    CmpxchgPair,
    Bt,
    Bts,
    Btr,
    Btc,
    Bsf,
    Bsr,
    Tzcnt,
    Lzcnt,
    Bswap,
    Popcnt,
    Movs,
    Stos,
    Lods,
    Scas,
    Cmps,
    Cli,
    Sti,
    Cld,
    Std,
    Clc,
    Stc,
    Cmc,
    Lahf,
    Sahf,
    Rdtsc,
    Cpuid,
    In,
    /// What has no effect here: nothing listens at ports.
    Nothing,
    Rdmsr,
    Wrmsr,
    Swapgs,
    Hlt,
    Breakpoint,
    Undefined,
    /// FXSAVE
    SaveState,
    /// FXRSTOR
    RestoreState,
    /// XSAVE
    SaveComponents,
    /// XRSTOR
    RestoreComponents,
    /// XGETBV
    GetComponents,
    /// XSETBV
    SetComponents,
    /// FNINIT
    ResetFloat,
    /// STMXCSR
    SaveControl,
    /// LDMXCSR
    LoadControl,
    Andn,
    Bextr,
    Blsr,
    Blsmsk,
    Blsi,
    Bzhi,
    Mulx,
    Pdep,
    Pext,
    Rorx,
    Shlx,
    Shrx,
    Sarx,
    Adcx,
    Adox,
    Movbe,
    Crc32,
    /// Of the vector units.
    Vector(V),
    /// Known to the decoder, not to the interpreter.
    Unknown,
    /// No instruction.
    Invalid,
}

/// An operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    None,
    Register(u8),
    /// AH, CH, DH, BH.
    High(u8),
    Immediate(u64),
    Memory(Address),
    /// CR0 to CR15, DR0 to DR15 behind them.
    System(u8),
    /// ES, CS, SS, DS, FS, GS.
    Segment(u8),
    /// XMM0 to XMM15, or YMM0 to YMM15.
    Vector(u8),
}

/// An address: base + index << scale + displacement + the base of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub base: u8,
    pub index: u8,
    /// 0 to 3.
    pub scale: u8,
    /// 0 none, 1 FS, 2 GS; and 4 for addresses of 32 bits.
    pub kind: u8,
    pub displacement: u64,
}

/// FS gives the base of an address.
pub const KIND_FS: u8 = 1;
/// GS gives the base of an address.
pub const KIND_GS: u8 = 2;
/// An address of 32 bits.
pub const KIND_NARROW: u8 = 4;

/// A decoded instruction.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    pub op: Op,
    /// Bytes of the first operand; of the elements of a string instruction.
    pub size: u8,
    /// Bytes of the second operand.
    pub source_size: u8,
    /// Number of its condition; of a vector instruction its immediate, or the number of a fourth register.
    pub condition: u8,
    /// 0 none, 1 REP or REPE, 2 REPNE; of a vector instruction 1 if it clears the upper half of its destination.
    pub repeat: u8,
    /// Bytes of an element of a vector.
    pub element: u8,
    pub len: u8,
    pub first: Operand,
    pub second: Operand,
    pub third: Operand,
    /// The address of the next instruction.
    pub next: u64,
}

impl Decoded {
    /// Its address.
    pub fn address(&self) -> u64 {
        self.next.wrapping_sub(u64::from(self.len))
    }
}
