//! Which instructions of the vector units are known, and in which form they are executed.

use iced_x86::{EncodingKind, Instruction, Mnemonic};

use super::super::instruction::{Decoded, Op, Operand};
use super::operation::V;

/// Is the first source the third operand, with nothing in the second?
const fn is_unary(v: V) -> bool {
    matches!(
        v,
        V::Absolute
            | V::Shuffle32
            | V::ShuffleLow
            | V::ShuffleHigh
            | V::PermuteInHalf
            | V::DuplicateLow
            | V::DuplicateHigh
            | V::AesInverse
            | V::AesKey
            | V::MoveAligned
            | V::Move
            | V::MoveLow
            | V::Extract
            | V::ExtractHalf
            | V::Permute64
            | V::Broadcast
            | V::ExtendZero
            | V::ExtendSign
            | V::Mask
            | V::Test
    )
}

/// Completes what is decoded, if the vector units execute it: the destination is its first operand, the sources are the second and the third.
/// `repeat` is 1 where the upper half is cleared (VEX), `condition` is the immediate, or the number of a fourth register.
pub fn vector(instruction: &Instruction, decoded: &mut Decoded) -> bool {
    let Some((v, element)) = of_mnemonic(instruction) else { return false };
    let is_vex = instruction.code().encoding() == EncodingKind::VEX;
    let operands = [decoded.first, decoded.second, decoded.third];
    let is_half = |number: u32| {
        number < instruction.op_count()
            && instruction.op_kind(number) == iced_x86::OpKind::Register
            && instruction.op_register(number).is_ymm()
    };
    decoded.op = Op::Vector(v);
    decoded.element = element;
    decoded.repeat = is_vex.into();
    decoded.size = if (0..instruction.op_count()).any(is_half) { 32 } else { 16 };
    decoded.source_size = u8::try_from(instruction.memory_size().size()).unwrap_or(0);
    let byte = |operand: Operand| match operand {
        Operand::Immediate(value) => value as u8,
        Operand::Vector(number) => number,
        _ => 0,
    };
    let [first, second, third] = operands;
    let shifts =
        matches!(v, V::ShiftLeft | V::ShiftRight | V::ShiftSigned | V::ShiftBytesLeft | V::ShiftBytesRight);
    let loads = matches!(v, V::MoveScalar | V::MoveToLow | V::MoveToHigh);
    (decoded.second, decoded.third, decoded.condition) = if is_unary(v) || loads && third == Operand::None {
        (Operand::None, second, byte(third))
    } else if !is_vex {
        (first, second, if shifts { 0 } else { byte(third) })
    } else if instruction.op_count() > 3 {
        let fourth = match instruction.op_kind(3) {
            iced_x86::OpKind::Register => u8::try_from(instruction.op_register(3).number()).unwrap_or(0) & 15,
            _ => instruction.immediate(3) as u8,
        };
        (second, third, fourth)
    } else {
        (second, third, 0)
    };
    true
}

/// What it does, and the bytes of an element.
fn of_mnemonic(instruction: &Instruction) -> Option<(V, u8)> {
    use Mnemonic as M;
    let has_immediate = || {
        let last = instruction.op_count().saturating_sub(1);
        !matches!(instruction.op_kind(last), iced_x86::OpKind::Register | iced_x86::OpKind::Memory)
    };
    Some(match instruction.mnemonic() {
        M::Pand | M::Vpand | M::Andps | M::Vandps | M::Andpd | M::Vandpd => (V::And, 8),
        M::Pandn | M::Vpandn | M::Andnps | M::Vandnps | M::Andnpd | M::Vandnpd => (V::AndNot, 8),
        M::Por | M::Vpor | M::Orps | M::Vorps | M::Orpd | M::Vorpd => (V::Or, 8),
        M::Pxor | M::Vpxor | M::Xorps | M::Vxorps | M::Xorpd | M::Vxorpd => (V::Xor, 8),
        M::Paddb | M::Vpaddb => (V::Add, 1),
        M::Paddw | M::Vpaddw => (V::Add, 2),
        M::Paddd | M::Vpaddd => (V::Add, 4),
        M::Paddq | M::Vpaddq => (V::Add, 8),
        M::Paddsb | M::Vpaddsb => (V::AddSigned, 1),
        M::Paddsw | M::Vpaddsw => (V::AddSigned, 2),
        M::Paddusb | M::Vpaddusb => (V::AddUnsigned, 1),
        M::Paddusw | M::Vpaddusw => (V::AddUnsigned, 2),
        M::Psubb | M::Vpsubb => (V::Subtract, 1),
        M::Psubw | M::Vpsubw => (V::Subtract, 2),
        M::Psubd | M::Vpsubd => (V::Subtract, 4),
        M::Psubq | M::Vpsubq => (V::Subtract, 8),
        M::Psubsb | M::Vpsubsb => (V::SubtractSigned, 1),
        M::Psubsw | M::Vpsubsw => (V::SubtractSigned, 2),
        M::Psubusb | M::Vpsubusb => (V::SubtractUnsigned, 1),
        M::Psubusw | M::Vpsubusw => (V::SubtractUnsigned, 2),
        M::Pcmpeqb | M::Vpcmpeqb => (V::Equal, 1),
        M::Pcmpeqw | M::Vpcmpeqw => (V::Equal, 2),
        M::Pcmpeqd | M::Vpcmpeqd => (V::Equal, 4),
        M::Pcmpeqq | M::Vpcmpeqq => (V::Equal, 8),
        M::Pcmpgtb | M::Vpcmpgtb => (V::Greater, 1),
        M::Pcmpgtw | M::Vpcmpgtw => (V::Greater, 2),
        M::Pcmpgtd | M::Vpcmpgtd => (V::Greater, 4),
        M::Pcmpgtq | M::Vpcmpgtq => (V::Greater, 8),
        M::Pminsb | M::Vpminsb => (V::MinimumSigned, 1),
        M::Pminsw | M::Vpminsw => (V::MinimumSigned, 2),
        M::Pminsd | M::Vpminsd => (V::MinimumSigned, 4),
        M::Pminub | M::Vpminub => (V::MinimumUnsigned, 1),
        M::Pminuw | M::Vpminuw => (V::MinimumUnsigned, 2),
        M::Pminud | M::Vpminud => (V::MinimumUnsigned, 4),
        M::Pmaxsb | M::Vpmaxsb => (V::MaximumSigned, 1),
        M::Pmaxsw | M::Vpmaxsw => (V::MaximumSigned, 2),
        M::Pmaxsd | M::Vpmaxsd => (V::MaximumSigned, 4),
        M::Pmaxub | M::Vpmaxub => (V::MaximumUnsigned, 1),
        M::Pmaxuw | M::Vpmaxuw => (V::MaximumUnsigned, 2),
        M::Pmaxud | M::Vpmaxud => (V::MaximumUnsigned, 4),
        M::Pavgb | M::Vpavgb => (V::Average, 1),
        M::Pavgw | M::Vpavgw => (V::Average, 2),
        M::Psignb | M::Vpsignb => (V::Sign, 1),
        M::Psignw | M::Vpsignw => (V::Sign, 2),
        M::Psignd | M::Vpsignd => (V::Sign, 4),
        M::Pabsb | M::Vpabsb => (V::Absolute, 1),
        M::Pabsw | M::Vpabsw => (V::Absolute, 2),
        M::Pabsd | M::Vpabsd => (V::Absolute, 4),
        M::Pmullw | M::Vpmullw => (V::MultiplyLow, 2),
        M::Pmulld | M::Vpmulld => (V::MultiplyLow, 4),
        M::Pmulhw | M::Vpmulhw => (V::MultiplyHighSigned, 2),
        M::Pmulhuw | M::Vpmulhuw => (V::MultiplyHighUnsigned, 2),
        M::Pmulhrsw | M::Vpmulhrsw => (V::MultiplyRounded, 2),
        M::Pmuldq | M::Vpmuldq => (V::MultiplyWideSigned, 8),
        M::Pmuludq | M::Vpmuludq => (V::MultiplyWideUnsigned, 8),
        M::Pmaddwd | M::Vpmaddwd => (V::MultiplyAdd, 4),
        M::Pmaddubsw | M::Vpmaddubsw => (V::MultiplyAddBytes, 2),
        M::Psadbw | M::Vpsadbw => (V::Differences, 8),
        M::Phaddw | M::Vphaddw => (V::HorizontalAdd, 2),
        M::Phaddd | M::Vphaddd => (V::HorizontalAdd, 4),
        M::Phaddsw | M::Vphaddsw => (V::HorizontalAddSigned, 2),
        M::Phsubw | M::Vphsubw => (V::HorizontalSubtract, 2),
        M::Phsubd | M::Vphsubd => (V::HorizontalSubtract, 4),
        M::Phsubsw | M::Vphsubsw => (V::HorizontalSubtractSigned, 2),
        M::Vpsllvd => (V::ShiftLeftEach, 4),
        M::Vpsllvq => (V::ShiftLeftEach, 8),
        M::Vpsrlvd => (V::ShiftRightEach, 4),
        M::Vpsrlvq => (V::ShiftRightEach, 8),
        M::Vpsravd => (V::ShiftSignedEach, 4),
        M::Psllw | M::Vpsllw => (V::ShiftLeft, 2),
        M::Pslld | M::Vpslld => (V::ShiftLeft, 4),
        M::Psllq | M::Vpsllq => (V::ShiftLeft, 8),
        M::Psrlw | M::Vpsrlw => (V::ShiftRight, 2),
        M::Psrld | M::Vpsrld => (V::ShiftRight, 4),
        M::Psrlq | M::Vpsrlq => (V::ShiftRight, 8),
        M::Psraw | M::Vpsraw => (V::ShiftSigned, 2),
        M::Psrad | M::Vpsrad => (V::ShiftSigned, 4),
        M::Pslldq | M::Vpslldq => (V::ShiftBytesLeft, 16),
        M::Psrldq | M::Vpsrldq => (V::ShiftBytesRight, 16),
        M::Packsswb | M::Vpacksswb => (V::PackSigned, 2),
        M::Packssdw | M::Vpackssdw => (V::PackSigned, 4),
        M::Packuswb | M::Vpackuswb => (V::PackUnsigned, 2),
        M::Packusdw | M::Vpackusdw => (V::PackUnsigned, 4),
        M::Punpcklbw | M::Vpunpcklbw => (V::UnpackLow, 1),
        M::Punpcklwd | M::Vpunpcklwd => (V::UnpackLow, 2),
        M::Punpckldq | M::Vpunpckldq | M::Unpcklps | M::Vunpcklps => (V::UnpackLow, 4),
        M::Punpcklqdq | M::Vpunpcklqdq | M::Unpcklpd | M::Vunpcklpd => (V::UnpackLow, 8),
        M::Punpckhbw | M::Vpunpckhbw => (V::UnpackHigh, 1),
        M::Punpckhwd | M::Vpunpckhwd => (V::UnpackHigh, 2),
        M::Punpckhdq | M::Vpunpckhdq | M::Unpckhps | M::Vunpckhps => (V::UnpackHigh, 4),
        M::Punpckhqdq | M::Vpunpckhqdq | M::Unpckhpd | M::Vunpckhpd => (V::UnpackHigh, 8),
        M::Pshufb | M::Vpshufb => (V::ShuffleBytes, 1),
        M::Palignr | M::Vpalignr => (V::Align, 1),
        M::Pshufd | M::Vpshufd => (V::Shuffle32, 4),
        M::Pshuflw | M::Vpshuflw => (V::ShuffleLow, 2),
        M::Pshufhw | M::Vpshufhw => (V::ShuffleHigh, 2),
        M::Shufps | M::Vshufps => (V::ShufflePair, 4),
        M::Shufpd | M::Vshufpd => (V::ShufflePair, 8),
        M::Vpermilps if has_immediate() => (V::PermuteInHalf, 4),
        M::Vpermilpd if has_immediate() => (V::PermuteInHalf, 8),
        M::Movsldup | M::Vmovsldup => (V::DuplicateLow, 4),
        M::Movshdup | M::Vmovshdup => (V::DuplicateHigh, 4),
        M::Movddup | M::Vmovddup => (V::DuplicateLow, 8),
        M::Pblendw | M::Vpblendw => (V::Blend, 2),
        M::Blendps | M::Vblendps | M::Vpblendd => (V::Blend, 4),
        M::Blendpd | M::Vblendpd => (V::Blend, 8),
        M::Pblendvb | M::Vpblendvb => (V::BlendBy, 1),
        M::Blendvps | M::Vblendvps => (V::BlendBy, 4),
        M::Blendvpd | M::Vblendvpd => (V::BlendBy, 8),
        M::Aesenc | M::Vaesenc => (V::AesEncrypt, 1),
        M::Aesenclast | M::Vaesenclast => (V::AesEncryptLast, 1),
        M::Aesdec | M::Vaesdec => (V::AesDecrypt, 1),
        M::Aesdeclast | M::Vaesdeclast => (V::AesDecryptLast, 1),
        M::Aesimc | M::Vaesimc => (V::AesInverse, 1),
        M::Aeskeygenassist | M::Vaeskeygenassist => (V::AesKey, 1),
        M::Pclmulqdq | M::Vpclmulqdq => (V::CarrylessMultiply, 8),
        M::Sha1rnds4 => (V::Sha1Rounds, 4),
        M::Sha1nexte => (V::Sha1Next, 4),
        M::Sha1msg1 => (V::Sha1Message1, 4),
        M::Sha1msg2 => (V::Sha1Message2, 4),
        M::Sha256msg1 => (V::Sha256Message1, 4),
        M::Sha256msg2 => (V::Sha256Message2, 4),
        M::Sha256rnds2 => (V::Sha256Rounds, 4),
        M::Movdqa | M::Vmovdqa | M::Movaps | M::Vmovaps | M::Movapd | M::Vmovapd => (V::MoveAligned, 16),
        M::Movntdq | M::Vmovntdq | M::Movntps | M::Vmovntps | M::Movntpd | M::Vmovntpd => {
            (V::MoveAligned, 16)
        }
        M::Movntdqa | M::Vmovntdqa => (V::MoveAligned, 16),
        M::Movdqu | M::Vmovdqu | M::Movups | M::Vmovups | M::Movupd | M::Vmovupd => (V::Move, 16),
        M::Lddqu | M::Vlddqu => (V::Move, 16),
        M::Movd | M::Vmovd => (V::MoveLow, 4),
        M::Movq | M::Vmovq => (V::MoveLow, 8),
        M::Movss | M::Vmovss => (V::MoveScalar, 4),
        M::Movsd if instruction.is_string_instruction() => return None,
        M::Movsd | M::Vmovsd => (V::MoveScalar, 8),
        M::Movlps | M::Vmovlps | M::Movlpd | M::Vmovlpd => (V::MoveToLow, 8),
        M::Movhps | M::Vmovhps | M::Movhpd | M::Vmovhpd => (V::MoveToHigh, 8),
        M::Movhlps | M::Vmovhlps => (V::MoveHighToLow, 8),
        M::Movlhps | M::Vmovlhps => (V::MoveLowToHigh, 8),
        M::Pinsrb | M::Vpinsrb => (V::Insert, 1),
        M::Pinsrw | M::Vpinsrw => (V::Insert, 2),
        M::Pinsrd | M::Vpinsrd => (V::Insert, 4),
        M::Pinsrq | M::Vpinsrq => (V::Insert, 8),
        M::Pextrb | M::Vpextrb => (V::Extract, 1),
        M::Pextrw | M::Vpextrw => (V::Extract, 2),
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => (V::Extract, 4),
        M::Pextrq | M::Vpextrq => (V::Extract, 8),
        M::Vinserti128 | M::Vinsertf128 => (V::InsertHalf, 16),
        M::Vextracti128 | M::Vextractf128 => (V::ExtractHalf, 16),
        M::Vperm2i128 | M::Vperm2f128 => (V::PermuteHalves, 16),
        M::Vpermq | M::Vpermpd => (V::Permute64, 8),
        M::Vpermd | M::Vpermps => (V::Permute32, 4),
        M::Vpbroadcastb => (V::Broadcast, 1),
        M::Vpbroadcastw => (V::Broadcast, 2),
        M::Vpbroadcastd | M::Vbroadcastss => (V::Broadcast, 4),
        M::Vpbroadcastq | M::Vbroadcastsd => (V::Broadcast, 8),
        M::Vbroadcasti128 | M::Vbroadcastf128 => (V::Broadcast, 16),
        // The element of the source in the lower half of the byte, that of the destination in the upper one.
        M::Pmovzxbw | M::Vpmovzxbw => (V::ExtendZero, 0x21),
        M::Pmovzxbd | M::Vpmovzxbd => (V::ExtendZero, 0x41),
        M::Pmovzxbq | M::Vpmovzxbq => (V::ExtendZero, 0x81),
        M::Pmovzxwd | M::Vpmovzxwd => (V::ExtendZero, 0x42),
        M::Pmovzxwq | M::Vpmovzxwq => (V::ExtendZero, 0x82),
        M::Pmovzxdq | M::Vpmovzxdq => (V::ExtendZero, 0x84),
        M::Pmovsxbw | M::Vpmovsxbw => (V::ExtendSign, 0x21),
        M::Pmovsxbd | M::Vpmovsxbd => (V::ExtendSign, 0x41),
        M::Pmovsxbq | M::Vpmovsxbq => (V::ExtendSign, 0x81),
        M::Pmovsxwd | M::Vpmovsxwd => (V::ExtendSign, 0x42),
        M::Pmovsxwq | M::Vpmovsxwq => (V::ExtendSign, 0x82),
        M::Pmovsxdq | M::Vpmovsxdq => (V::ExtendSign, 0x84),
        M::Pmovmskb | M::Vpmovmskb => (V::Mask, 1),
        M::Movmskps | M::Vmovmskps => (V::Mask, 4),
        M::Movmskpd | M::Vmovmskpd => (V::Mask, 8),
        M::Ptest | M::Vptest => (V::Test, 16),
        M::Vpmaskmovd | M::Vmaskmovps => (V::LoadMasked, 4),
        M::Vpmaskmovq | M::Vmaskmovpd => (V::LoadMasked, 8),
        M::Vzeroupper => (V::ZeroUpper, 16),
        M::Vzeroall => (V::ZeroAll, 16),
        _ => return None,
    })
}
