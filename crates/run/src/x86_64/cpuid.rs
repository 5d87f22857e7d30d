//! What the processor tells of itself: the model that QEMU takes where it is told of none (`qemu64`), without what nothing here stands behind, and
//! with the instructions for vectors that are interpreted.
//!
//! Its maker and model decide which mitigations a kernel chooses: retpolines, and plain returns.

/// The vendor: AuthenticAMD, in EBX, EDX, ECX.
const VENDOR: [u32; 3] = [0x6874_7541, 0x6974_6e65, 0x444d_4163];
/// Family 15, model 107, stepping 1.
const SIGNATURE: u32 = 0x0006_0fb1;
/// The highest leaf, and the highest extended one.
const LEAVES: (u32, u32) = (13, 0x8000_0008);
/// The name of the processor: three leaves of sixteen bytes.
const NAME: &[u8; 48] = b"kmodld interpreter\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Leaf 1, EBX: CLFLUSH takes lines of 64 bytes, in units of 8.
const LINE: u32 = 8 << 8;
/// Addresses have 40 bits in memory, and 48 otherwise.
const ADDRESSES: u32 = 48 << 8 | 40;

/// State components that XSAVE has: floating point, XMM registers, upper halves of YMM registers.
pub(super) const FEATURES: u64 = 7;
/// Where XSAVE has the upper halves, and how many bytes they take.
pub(super) const HALVES_AT: u64 = 576;
const HALVES: u64 = 256;

/// Features of leaf 1 in ECX. Of those for vectors arithmetic on floating-point numbers is not interpreted: it stops by name.
const LEAF_1_ECX: &[u32] = &[
    0,  // SSE3
    1,  // PCLMULQDQ
    9,  // SSSE3
    13, // CMPXCHG16B
    19, // SSE4.1
    20, // SSE4.2; comparisons of strings stop by name
    22, // MOVBE
    23, // POPCNT
    25, // AES
    26, // XSAVE
    28, // AVX
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
/// OSXSAVE in it: the kernel uses XSAVE.
const IN_USE: u32 = 1 << 27;
/// Features of leaf 7 in EBX.
const LEAF_7_EBX: &[u32] = &[
    3,  // BMI1
    5,  // AVX2
    8,  // BMI2
    19, // ADX
    29, // SHA
];
/// Features of leaf 0x80000001 in ECX.
const EXTENDED_ECX: &[u32] = &[
    0, // LAHF, SAHF
    5, // LZCNT
];
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

/// What CPUID gives in EAX, EBX, ECX and EDX. Leaves that are not there are zero. `in_use` are the state components that the kernel has
/// enabled, if it uses XSAVE.
pub(super) fn cpuid(leaf: u32, part: u32, in_use: Option<u64>) -> [u32; 4] {
    let [b, d, c] = VENDOR;
    match leaf {
        0 => [LEAVES.0, b, c, d],
        1 => {
            let in_use = if in_use.is_some() { IN_USE } else { 0 };
            [SIGNATURE, LINE, bits(LEAF_1_ECX) | in_use, bits(LEAF_1_EDX)]
        }
        7 if part == 0 => [0, bits(LEAF_7_EBX), 0, 0],
        13 => components(part, in_use.unwrap_or(1)),
        0x8000_0000 => [LEAVES.1, b, c, d],
        0x8000_0001 => [SIGNATURE, 0, bits(EXTENDED_ECX), bits(EXTENDED_EDX)],
        0x8000_0002..=0x8000_0004 => name(leaf.wrapping_sub(0x8000_0002)),
        0x8000_0008 => [ADDRESSES, 0, 0, 0],
        _ => [0; 4],
    }
}

/// The state components of XSAVE: which there are, and how many bytes they take at which place.
fn components(part: u32, in_use: u64) -> [u32; 4] {
    let all = HALVES_AT.wrapping_add(HALVES);
    let now = if in_use & 4 != 0 { all } else { HALVES_AT };
    match part {
        0 => [FEATURES as u32, now as u32, all as u32, 0],
        2 => [HALVES as u32, HALVES_AT as u32, 0, 0],
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
