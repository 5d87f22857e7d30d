//! What the processor tells of itself: the model that QEMU takes where it is told of none (`qemu64`), but for what nothing here stands behind.
//!
//! Its maker and model decide which mitigations a kernel chooses: retpolines, and plain returns.

/// The vendor: AuthenticAMD, in EBX, EDX, ECX.
const VENDOR: [u32; 3] = [0x6874_7541, 0x6974_6e65, 0x444d_4163];
/// Family 15, model 107, stepping 1.
const SIGNATURE: u32 = 0x0006_0fb1;
/// The highest leaf, and the highest extended one.
const LEAVES: (u32, u32) = (1, 0x8000_0008);
/// The name of the processor: three leaves of sixteen bytes.
const NAME: &[u8; 48] = b"kmodld interpreter\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Leaf 1, EBX: CLFLUSH takes lines of 64 bytes, in units of 8.
const LINE: u32 = 8 << 8;
/// Addresses have 40 bits in memory, and 48 otherwise.
const ADDRESSES: u32 = 48 << 8 | 40;

/// Features of leaf 1 in ECX: bit, and what is executed.
const LEAF_1_ECX: &[u32] = &[
    13, // CMPXCHG16B
    23, // POPCNT
    31, // It is a guest: registers of models are not those of a real processor.
];
/// Features of leaf 1 in EDX. Of `qemu64`, these are left out: MCE and MCA (there are no machine checks), APIC (no interrupts), MTRR and PAT
/// (no kinds of memory), and MMX, whose registers are not interpreted.
const LEAF_1_EDX: &[u32] = &[
    0,  // FPU: its state is kept and saved; instructions that compute with it are not interpreted.
    2,  // Debugging extensions
    3,  // Pages of 4 MiB
    4,  // RDTSC
    5,  // RDMSR, WRMSR
    6,  // Physical addresses of more than 32 bits
    8,  // CMPXCHG8B
    11, // SYSENTER, which the machine never comes to
    13, // Global pages
    15, // CMOV
    17, // PSE36
    19, // CLFLUSH
    24, // FXSAVE, FXRSTOR
    25, // SSE
    26, // SSE2
];
/// Features of leaf 0x80000001 in ECX: LAHF and SAHF.
const EXTENDED_ECX: &[u32] = &[0];
/// Features of leaf 0x80000001 in EDX.
const EXTENDED_EDX: &[u32] = &[
    11, // SYSCALL
    20, // Pages that cannot be executed
    29, // 64 bits
];

const fn bits(features: &[u32]) -> u32 {
    let (mut rest, mut all) = (features, 0u32);
    while let [first, behind @ ..] = rest {
        all |= 1u32.wrapping_shl(*first);
        rest = behind;
    }
    all
}

/// What CPUID gives in EAX, EBX, ECX and EDX. Leaves that are not there are zero.
pub(super) fn cpuid(leaf: u32) -> [u32; 4] {
    let [b, d, c] = VENDOR;
    match leaf {
        0 => [LEAVES.0, b, c, d],
        1 => [SIGNATURE, LINE, bits(LEAF_1_ECX), bits(LEAF_1_EDX)],
        0x8000_0000 => [LEAVES.1, b, c, d],
        0x8000_0001 => [SIGNATURE, 0, bits(EXTENDED_ECX), bits(EXTENDED_EDX)],
        0x8000_0002..=0x8000_0004 => name(leaf.wrapping_sub(0x8000_0002)),
        0x8000_0008 => [ADDRESSES, 0, 0, 0],
        _ => [0; 4],
    }
}

/// A third of the name.
fn name(part: u32) -> [u32; 4] {
    let mut out = [0; 4];
    let words = NAME.chunks(4).skip((part as usize).wrapping_mul(4));
    for (word, bytes) in out.iter_mut().zip(words) {
        *word = bytes.first_chunk().copied().map_or(0, u32::from_le_bytes);
    }
    out
}
