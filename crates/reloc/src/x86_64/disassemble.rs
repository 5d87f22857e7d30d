//! Instructions in words, for people.

use alloc::string::String;

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

/// The first instruction of `code`, in the syntax of the GNU assembler.
pub fn disassemble(code: &[u8], address: u64) -> Option<(String, usize)> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_uppercase_hex(false);
    formatter.format(&instruction, &mut text);
    (!instruction.is_invalid()).then(|| (text, instruction.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions() {
        let text = |code: &[u8]| disassemble(code, 0xffff_ffff_c000_0000);
        assert_eq!(text(&[0xe8, 0xfb, 0, 0, 0]), Some(("call 0xffffffffc0000100".into(), 5)));
        assert_eq!(text(&[0x06]), None);
        assert_eq!(text(&[]), None);
    }
}
