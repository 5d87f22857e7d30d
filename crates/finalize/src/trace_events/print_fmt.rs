//! Names in the formats of trace events, and the numbers that take their place.

use alloc::vec::Vec;

/// `isalpha` by the kernel's table, which holds Latin-1.
pub fn is_alpha(c: u8) -> bool {
    c.is_ascii_alphabetic() || (0xc0..=0xff).contains(&c) && !matches!(c, 0xd7 | 0xf7)
}

/// `isalnum`
pub fn is_alnum(c: u8) -> bool {
    is_alpha(c) || c.is_ascii_digit()
}

/// `isspace`: the blank of Latin-1 too.
pub fn is_space(c: u8) -> bool {
    matches!(c, 9..=13 | b' ' | 0xa0)
}

/// A format as it stands in memory: the bytes of the original string and of its NUL. What a replacement
/// leaves behind its new end is part of them.
#[derive(Debug)]
pub struct Format(pub Vec<u8>);

impl Format {
    fn at(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn is_word(&self, at: usize) -> bool {
        let c = self.at(at);
        is_alnum(c) || c == b'_'
    }

    /// `eval_replace`: `value` in place of the `len` bytes at `at`; where to go on, and how many bytes were
    /// moved. `None` if it is longer. If it is just as long, its NUL cuts the rest off.
    fn eval_replace(&mut self, at: usize, len: usize, value: &[u8]) -> Option<(usize, usize)> {
        if len < value.len() {
            return None;
        }
        let (from, to) = (at.checked_add(len)?, at.checked_add(value.len())?);
        self.0.get_mut(at..to)?.copy_from_slice(value);
        *self.0.get_mut(to)? = 0;
        let rest = self.0.get(from..)?.iter().position(|c| *c == 0)?;
        self.0.copy_within(from..from.checked_add(rest)?, to);
        *self.0.get_mut(to.checked_add(rest)?)? = 0;
        Some((to, rest))
    }

    /// `update_event_printk`: `value` in place of each word `name` outside of strings that no `.` or `->`
    /// comes before. What follows a number or a word is skipped with it, a quote as well. The bytes that
    /// were moved for it.
    pub fn update_event_printk(&mut self, name: &[u8], value: &[u8]) -> u64 {
        let mut moved = 0u64;
        let (mut at, mut quote) = (0usize, false);
        while self.at(at) != 0 {
            let c = self.at(at);
            if c == b'\\' {
                at = at.saturating_add(1);
                if self.at(at) == 0 {
                    break;
                }
            } else if c == b'"' {
                quote = !quote;
            } else if quote {
            } else if c.is_ascii_digit() {
                while is_alnum(self.at(at)) {
                    at = at.saturating_add(1);
                }
                if self.at(at) == 0 {
                    break;
                }
            } else if is_alpha(c) || c == b'_' {
                let end = at.saturating_add(name.len());
                if self.0.get(at..end) == Some(name) && !self.is_word(end) {
                    let Some((next, rest)) = self.eval_replace(at, name.len(), value) else { break };
                    moved = moved.saturating_add(rest as u64);
                    // This may be the NUL, and is skipped like any other byte that follows.
                    at = next;
                } else {
                    at = self.skip_word(at);
                    if self.at(at) == 0 {
                        break;
                    }
                }
            }
            at = at.saturating_add(1);
        }
        moved
    }

    /// The end of a word and of what hangs on it by `.` and `->`.
    fn skip_word(&self, at: usize) -> usize {
        let mut at = at;
        loop {
            at = at.saturating_add(1);
            while self.is_word(at) {
                at = at.saturating_add(1);
            }
            let more = match (self.at(at), self.at(at.saturating_add(1))) {
                (b'.', _) => 1,
                (b'-', b'>') => 2,
                _ => return at,
            };
            at = at.saturating_add(more);
            if self.at(at) == 0 {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line: format, name, value, what is left of it.
    #[test]
    fn fin_82_names_become_numbers() {
        let table: &[(&str, &str, &str, &str)] = &[
            ("\"%d\", REC->a == STATE_A", "STATE_A", "1", "\"%d\", REC->a == 1"),
            // In a string, as part of a word, behind -> or a dot: left alone.
            ("\"STATE_A\", STATE_AB, X_STATE_A", "STATE_A", "1", "\"STATE_A\", STATE_AB, X_STATE_A"),
            ("REC->STATE_A, REC.STATE_A", "STATE_A", "1", "REC->STATE_A, REC.STATE_A"),
            ("{ STATE_A, \"a\" }, { STATE_A, \"b\" }", "STATE_A", "-1", "{ -1, \"a\" }, { -1, \"b\" }"),
            // A number takes its letters with it.
            ("0xSTATE_A, 1ULL", "ULL", "1", "0xSTATE_A, 1ULL"),
            ("sizeof(struct x) * 8", "sizeof(struct x)", "64", "64 * 8"),
            // Longer than the name: nothing more is replaced.
            ("A, A", "A", "12", "A, A"),
            // A backslash hides what follows it.
            ("\"\\\"A\" A", "A_", "1", "\"\\\"A\" A"),
            ("", "A", "1", ""),
        ];
        for (format, name, value, want) in table {
            let mut text = Format([format.as_bytes(), b"\0"].concat());
            text.update_event_printk(name.as_bytes(), value.as_bytes());
            let have = text.0.split(|c| *c == 0).next().unwrap();
            assert_eq!(core::str::from_utf8(have).unwrap(), *want, "{format} with {name}={value}");
            assert_eq!(text.0.len(), format.len() + 1);
        }
    }

    #[test]
    fn fin_82_the_tail_of_a_shorter_format_stays() {
        let mut text = Format(b"x ABC yz\0".to_vec());
        text.update_event_printk(b"ABC", b"1");
        assert_eq!(text.0, b"x 1 yz\0z\0");
    }

    #[test]
    fn fin_82_a_value_as_long_as_its_name_cuts_the_format() {
        let mut text = Format(b"x ABC yz ABC\0".to_vec());
        text.update_event_printk(b"ABC", b"123");
        // The kernel goes on behind the NUL.
        assert_eq!(text.0, b"x 123\0yz 123\0");
    }
}
