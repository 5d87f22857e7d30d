//! Instructions in words, for people.

use alloc::format;
use alloc::string::String;

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

/// Bytes of an instruction.
pub const SIZE: usize = 4;

/// The first instruction of `code`, in the aliases that `objdump` takes; targets are addresses.
pub fn disassemble(code: &[u8], address: u64) -> Option<(String, usize)> {
    let decoded = InstDecoder::default().decode(&mut U8Reader::new(code.get(..SIZE)?)).ok()?;
    let text = format!("{decoded}");
    // A distance from the instruction, or from its page.
    let Some((before, distance)) = text.split_once('$') else { return Some((text, SIZE)) };
    let base = if before.starts_with("adrp") { address & !0xfff } else { address };
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let target = match (distance.strip_prefix("+0x"), distance.strip_prefix("-0x")) {
        (Some(digits), _) => number(digits).map(|distance| base.wrapping_add(distance)),
        (_, Some(digits)) => number(digits).map(|distance| base.wrapping_sub(distance)),
        _ => None,
    };
    Some((target.map_or(text.clone(), |target| format!("{before}{target:#x}")), SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions() {
        let text = |word: u32| disassemble(&word.to_le_bytes(), 0xffff_8000_0000_0000);
        assert_eq!(text(0x9400_0004), Some(("bl 0xffff800000000010".into(), 4)));
        assert_eq!(text(0xd503_201f), Some(("nop".into(), 4)));
        assert_eq!(text(0), Some(("udf #0x0".into(), 4)));
        assert_eq!(disassemble(&[0x1f, 0x20, 3], 0), None);
    }
}
