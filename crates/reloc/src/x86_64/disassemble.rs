//! Instructions in words, for people.

use alloc::string::String;

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

/// How many bytes the first instruction of `code` has.
pub fn instruction_len(code: &[u8]) -> Option<usize> {
    let instruction = Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then(|| instruction.len())
}

/// The first instruction of `code`, as `objdump` writes it (AT&T syntax); branches with the address that they lead to.
pub fn disassemble(code: &[u8], address: u64) -> Option<(String, usize)> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let mut text = String::new();
    let mut formatter = GasFormatter::new();
    let options = formatter.options_mut();
    options.set_branch_leading_zeros(false);
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_space_after_operand_separator(false);
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
