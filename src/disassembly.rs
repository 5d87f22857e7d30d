//! Machine code as text, for people. What an instruction is, its architecture knows ([`Architecture::disassemble`]).

use reloc::Architecture;

/// What stands for bytes that are no instruction.
pub const BAD: &str = "(bad)";

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: u64,
    /// How many bytes.
    pub size: usize,
}

/// The instruction that holds the byte at `wanted`. It is looked for from the instruction at `from` on, of which `code` are the
/// bytes and those behind it. `None` if the code ends before, or if what stands there is no instruction.
pub fn holding(arch: &dyn Architecture, code: &[u8], from: u64, wanted: u64) -> Option<Place> {
    let (mut address, mut rest) = (from, code);
    while !rest.is_empty() {
        let found = arch.instruction_len(rest);
        let size = found.unwrap_or(1);
        let next = address.wrapping_add(size as u64);
        if next > wanted {
            return found.map(|size| Place { address, size });
        }
        (address, rest) = (next, rest.get(size..)?);
    }
    None
}

/// The instructions of some code with their addresses; bytes that are none as one `(bad)`.
pub fn instructions<'c>(
    arch: &'c dyn Architecture,
    code: &'c [u8],
    address: u64,
) -> impl Iterator<Item = (u64, String)> + use<'c> {
    let (mut here, mut rest, mut is_bad) = (address, code, false);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let decoded = arch.disassemble(rest, here);
            let at = here;
            let size = decoded.as_ref().map_or(1, |(_, size)| (*size).max(1));
            (here, rest) = (here.wrapping_add(size as u64), rest.get(size..).unwrap_or_default());
            let was_bad = std::mem::replace(&mut is_bad, decoded.is_none());
            match decoded {
                Some((text, _)) => return Some((at, text)),
                None if !was_bad => return Some((at, String::from(BAD))),
                None => {}
            }
        }
        None
    })
}

/// The instructions of some code, with `; ` between them.
pub fn text(arch: &dyn Architecture, code: &[u8], address: u64) -> String {
    instructions(arch, code, address).map(|(_, text)| text).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use reloc::ARCHITECTURES;

    #[test]
    fn instructions_as_text() {
        let arch = |name: &str| *ARCHITECTURES.iter().find(|arch| arch.name() == name).unwrap();
        let x86 = arch("x86_64");
        let code = [0xe8, 0x0b, 0, 0, 0, 0x48, 0x89, 0xe5, 0xc3, 0x06, 0x06];
        assert_eq!(text(x86, &code, 0x1000), "call 0x1010; mov %rsp,%rbp; ret; (bad)");
        assert_eq!(holding(x86, &code, 0x1000, 0x1001), Some(Place { address: 0x1000, size: 5 }));
        assert_eq!(holding(x86, &code, 0x1000, 0x1006), Some(Place { address: 0x1005, size: 3 }));
        assert_eq!(holding(x86, &code, 0x1000, 0x1009), None);
        assert_eq!(holding(x86, &code, 0x1000, 0x1100), None);
        let arm = arch("aarch64");
        let code: Vec<u8> = [0x9400_0004u32, 0xb000_0000, 0xd65f_03c0, 0xffff_ffff]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(text(arm, &code, 0x1ff8), "bl 0x2008; adrp x0, 0x2000; ret; (bad)");
        assert_eq!(holding(arm, &code, 0x1ff8, 0x1ffe), Some(Place { address: 0x1ffc, size: 4 }));
        assert_eq!(holding(arm, &code, 0x1ff8, 0x2008), None);
    }
}
