//! The bodies of the targets: each gives a parser an input and checks what must hold for any input.

pub mod dump;
pub mod kernel;
pub mod module;
pub mod texts;

/// A number that depends on all bytes of an input: what a body leaves to chance depends on its input alone.
pub(crate) fn checksum(data: &[u8]) -> u64 {
    data.iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Asks, and for some inputs asks again: the same input has the same answer.
pub(crate) fn same_twice(data: &[u8], answer: impl Fn() -> String) {
    let first = answer();
    if checksum(data).is_multiple_of(4) {
        let second = answer();
        if first != second {
            let at = first.bytes().zip(second.bytes()).position(|(a, b)| a != b).unwrap_or(0);
            let near = |text: &str| {
                String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(40)..(at + 80).min(text.len())])
                    .into_owned()
            };
            panic!("the same input has two answers: ...{}... and ...{}...", near(&first), near(&second));
        }
    }
}
