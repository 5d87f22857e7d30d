//! Machine code as text: the one place that knows disassemblers.
//!
//! iced-x86 writes as `objdump` does (AT&T syntax), yaxpeax-arm in the aliases that `objdump` takes; targets of branches are
//! addresses.

use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, Instruction};
use yaxpeax_arch::{Decoder as _, U8Reader};

/// An instruction set that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disassembly {
    /// Of x86_64.
    X86_64,
    /// Of aarch64.
    Aarch64,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: u64,
    /// How many bytes.
    pub size: usize,
}

impl Disassembly {
    /// That of a machine by its name (`uname -m`); `None` if nothing here knows it.
    pub fn of(machine: &str) -> Option<Self> {
        match machine {
            "x86_64" => Some(Disassembly::X86_64),
            "aarch64" => Some(Disassembly::Aarch64),
            _ => None,
        }
    }

    /// The instruction that holds the byte at `wanted`. It is looked for from the instruction at `from` on, of which `code` are the
    /// bytes and those behind it. `None` if the code ends before, or if what stands there is no instruction.
    pub fn holding(self, code: &[u8], from: u64, wanted: u64) -> Option<Place> {
        match self {
            Disassembly::X86_64 => {
                let mut decoder = Decoder::with_ip(64, code, from, DecoderOptions::NONE);
                let mut instruction = Instruction::default();
                while decoder.can_decode() {
                    decoder.decode_out(&mut instruction);
                    if instruction.next_ip() > wanted {
                        let place = Place { address: instruction.ip(), size: instruction.len() };
                        return Some(place).filter(|_| !instruction.is_invalid());
                    }
                }
                None
            }
            Disassembly::Aarch64 => {
                let address = wanted & !3;
                let end = address.checked_sub(from)?.checked_add(4)?;
                (end <= code.len() as u64).then_some(Place { address, size: 4 })
            }
        }
    }

    /// The instructions of some code, with `; ` between them; bytes that are none as `(bad)`.
    pub fn text(self, code: &[u8], address: u64) -> String {
        match self {
            Disassembly::X86_64 => {
                let mut formatter = GasFormatter::new();
                let options = formatter.options_mut();
                options.set_uppercase_hex(false);
                options.set_branch_leading_zeros(false);
                options.set_small_hex_numbers_in_decimal(false);
                options.set_space_after_operand_separator(false);
                let mut out = String::new();
                for instruction in Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
                    if !out.is_empty() {
                        out.push_str("; ");
                    }
                    formatter.format(&instruction, &mut out);
                }
                out
            }
            Disassembly::Aarch64 => {
                let words = code.chunks(4).zip((0u64..).step_by(4));
                let each = words.map(|(word, at)| aarch64(word, address.wrapping_add(at)));
                each.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

/// One instruction of aarch64.
fn aarch64(word: &[u8], address: u64) -> String {
    let decoded = yaxpeax_arm::armv8::a64::InstDecoder::default().decode(&mut U8Reader::new(word));
    let Ok(instruction) = decoded else { return String::from("(bad)") };
    let text = instruction.to_string();
    // A distance from the instruction, or from its page.
    let Some((before, distance)) = text.split_once('$') else { return text };
    let base = if before.starts_with("adrp") { address & !0xfff } else { address };
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let target = match (distance.strip_prefix("+0x"), distance.strip_prefix("-0x")) {
        (Some(digits), _) => number(digits).map(|distance| base.wrapping_add(distance)),
        (_, Some(digits)) => number(digits).map(|distance| base.wrapping_sub(distance)),
        _ => None,
    };
    target.map_or(text.clone(), |target| format!("{before}{target:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_as_text() {
        let x86 = Disassembly::of("x86_64").unwrap();
        let code = [0xe8, 0x0b, 0, 0, 0, 0x48, 0x89, 0xe5, 0xc3];
        assert_eq!(
            x86.text(&code, 0x1000),
            "callq 0x1010; mov %rsp,%rbp; retq".replace("callq", "call").replace("retq", "ret")
        );
        assert_eq!(x86.holding(&code, 0x1000, 0x1001), Some(Place { address: 0x1000, size: 5 }));
        assert_eq!(x86.holding(&code, 0x1000, 0x1006), Some(Place { address: 0x1005, size: 3 }));
        assert_eq!(x86.holding(&code, 0x1000, 0x1009), None);
        let arm = Disassembly::of("aarch64").unwrap();
        let code: Vec<u8> = [0x9400_0004u32, 0xb000_0000, 0xd65f_03c0, 0xffff_ffff]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(arm.text(&code, 0x1ff8), "bl 0x2008; adrp x0, 0x2000; ret; (bad)");
        assert_eq!(arm.holding(&code, 0x1ff8, 0x1ffe), Some(Place { address: 0x1ffc, size: 4 }));
        assert_eq!(arm.holding(&code, 0x1ff8, 0x2008), None);
        assert_eq!(Disassembly::of("riscv64"), None);
    }
}
