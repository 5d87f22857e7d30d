//! Instructions in words, for people.

use alloc::format;
use alloc::string::String;

use yaxpeax_arch::{Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::InstDecoder;

use super::insn::branch_target;

/// The first instruction of `code`; branches with the address that they lead to.
pub fn disassemble(code: &[u8], address: u64) -> Option<(String, usize)> {
    for (word, is_call) in [("bl", true), ("b", false)] {
        if let Some(target) = branch_target(code, address, is_call) {
            return Some((format!("{word} {target:#x}"), 4));
        }
    }
    let decoded = InstDecoder::default().decode(&mut U8Reader::new(code.get(..4)?)).ok()?;
    Some((format!("{decoded}"), 4))
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
