//! `test_event_printk`: which fields of an event its format prints as strings that may be gone by then
//! (since v6.13, afd2627f727b, and in 6.12's stable series). Such fields, and the event, get a flag.

use memchr::memmem;

use super::print_fmt::{is_alnum, is_space};

/// The fields of an event.
pub trait Fields {
    /// The field `name`: its number, and whether its type is an array.
    fn find(&mut self, name: &[u8]) -> Option<(u64, bool)>;

    /// `field->needs_test = 1`
    fn needs_test(&mut self, field: u64);
}

/// Walks over a format. It begins with a string, in which `%s` and some `%p` want what they print to be looked
/// at; the arguments after it follow, separated by commas.
pub fn test_event_printk(format: &[u8], fields: &mut impl Fields) {
    let at = |i: usize| format.get(i).copied().unwrap_or(0);
    let Wanted { mut dereferenced, strings, end } = match first_string(format) {
        Some(wanted) => wanted,
        None => return,
    };
    let mut check = |arg: u32, from: usize, to: usize, dereferenced: &mut u64| {
        let bit = 1u64.wrapping_shl(arg);
        if *dereferenced & bit == 0 {
            return;
        }
        let argument = Argument { format, from, to };
        let safe = if strings & bit != 0 {
            argument.process_string(fields)
        } else {
            argument.process_pointer(fields)
        };
        if safe {
            *dereferenced &= !bit;
        }
    };
    // What follows the first string.
    let (mut i, mut arg, mut parens, mut start, mut quote) = (end, 0u32, 0i64, 0usize, 0u8);
    while at(i) != 0 {
        match at(i) {
            b'\\' => {
                i = i.saturating_add(1);
                if at(i) == 0 {
                    return;
                }
            }
            c @ (b'"' | b'\'') if quote == 0 || quote == c => quote = if quote == 0 { c } else { 0 },
            b'(' if quote == 0 => parens = parens.saturating_add(1),
            b')' if quote == 0 => {
                parens = parens.saturating_sub(1);
                if parens < 0 {
                    return;
                }
            }
            b',' if quote == 0 && parens == 0 => {
                let comma = i;
                i = i.saturating_add(1);
                while is_space(at(i)) {
                    i = i.saturating_add(1);
                }
                if start != 0 {
                    check(arg, start, comma, &mut dereferenced);
                    arg = arg.wrapping_add(1);
                }
                start = i;
                continue;
            }
            _ => {}
        }
        i = i.saturating_add(1);
    }
    check(arg, start, i, &mut dereferenced);
}

/// What the first string of a format wants of the arguments.
struct Wanted {
    /// A bit for each argument that is dereferenced.
    dereferenced: u64,
    /// Those of them that are strings.
    strings: u64,
    /// Where it ends, behind its quote.
    end: usize,
}

/// Reads the first string; `None` if it wants nothing, or the kernel gives up on it.
fn first_string(format: &[u8]) -> Option<Wanted> {
    let at = |i: usize| format.get(i).copied().unwrap_or(0);
    let (mut i, mut arg, mut inside) = (0usize, 0u32, false);
    let (mut dereferenced, mut strings) = (0u64, 0u64);
    while at(i) != 0 {
        match at(i) {
            b'\\' => {
                i = i.saturating_add(1);
                if at(i) == 0 {
                    return None;
                }
            }
            b'"' if inside => {
                let end = i.saturating_add(1);
                return (dereferenced != 0).then_some(Wanted { dereferenced, strings, end });
            }
            b'"' => inside = true,
            b'%' if inside => {
                i = i.saturating_add(1);
                let mut pointer = at(i) == b'p';
                match at(i) {
                    0 => return None,
                    b'%' => {
                        i = i.saturating_add(1);
                        continue;
                    }
                    b'p' => {}
                    _ => {
                        let mut star = false;
                        let mut j = i;
                        while at(j).is_ascii_digit() || matches!(at(j), b'.' | b'*') {
                            if at(j) == b'*' {
                                star = true;
                                if j == i && at(i.saturating_add(1)) == b'p' {
                                    pointer = true;
                                    break;
                                }
                            }
                            j = j.saturating_add(1);
                        }
                        if pointer {
                            arg = arg.saturating_add(1);
                            i = i.saturating_add(1);
                        } else if at(j) == b's' {
                            arg = arg.saturating_add(u32::from(star));
                            if arg == 63 {
                                return None;
                            }
                            dereferenced |= 1u64.wrapping_shl(arg);
                            strings |= 1u64.wrapping_shl(arg);
                        }
                    }
                }
                if pointer && b"BRrbMmIiEUVNadDgtCOf".contains(&at(i.saturating_add(1))) {
                    if arg == 63 {
                        return None;
                    }
                    dereferenced |= 1u64.wrapping_shl(arg);
                }
                arg = arg.wrapping_add(1);
            }
            _ => {}
        }
        i = i.saturating_add(1);
    }
    None
}

/// One argument of a format.
struct Argument<'f> {
    format: &'f [u8],
    from: usize,
    to: usize,
}

impl Argument<'_> {
    /// Where `what` begins in the argument, from `from` on; it may end behind it.
    fn find(&self, from: usize, what: &str) -> Option<usize> {
        let end = self.to.checked_add(what.len())?.checked_sub(1)?.min(self.format.len());
        memmem::find(self.format.get(from..end)?, what.as_bytes())?.checked_add(from)
    }

    /// `find_event_field`: the field that `REC->` at `at` takes.
    fn field(&self, at: usize, fields: &mut impl Fields) -> Option<(u64, bool)> {
        let name = self.format.get(at..)?.strip_prefix(b"REC->")?;
        let end = name.iter().position(|c| !is_alnum(*c) && *c != b'_').unwrap_or(name.len());
        fields.find(name.get(..end)?)
    }

    /// `process_pointer`: is what the pointer leads to still there when the event is printed?
    fn process_pointer(&self, fields: &mut impl Fields) -> bool {
        const SAFE: [&str; 6] = [
            "__get_dynamic_array(",
            "__get_rel_dynamic_array(",
            "__get_dynamic_array_len(",
            "__get_rel_dynamic_array_len(",
            "__get_sockaddr(",
            "__get_rel_sockaddr(",
        ];
        match self.find(self.from, "REC->") {
            Some(at) => {
                self.format.get(self.from..at).is_some_and(|before| before.contains(&b'&'))
                    || self.field(at, fields).is_some_and(|(_, array)| array)
            }
            None => SAFE.iter().any(|name| self.find(self.from, name).is_some()),
        }
    }

    /// `process_string`: the same of a string; a field that is neither safe nor unknown is to be tested.
    fn process_string(&self, fields: &mut impl Fields) -> bool {
        // A function call is taken for safe.
        let mut s = self.from;
        while let Some(paren) = self.find(s, "(") {
            let before = self.format.get(s..paren).unwrap_or(&[]);
            let last = before.iter().rev().find(|c| !is_space(**c));
            if last.is_some_and(|c| is_alnum(*c) || *c == b'_') {
                return true;
            }
            s = paren.saturating_add(1);
            if s >= self.to {
                break;
            }
        }
        if let Some(bracket) = self.find(s, "[")
            && self.find(bracket, "REC->").is_some()
        {
            return true;
        }
        if self.find(self.from, "\"").is_some() || self.process_pointer(fields) {
            return true;
        }
        let Some((field, _)) = self.field(self.from, fields) else { return false };
        fields.needs_test(field);
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    struct Names(Vec<u64>);

    impl Fields for Names {
        fn find(&mut self, name: &[u8]) -> Option<(u64, bool)> {
            [(&b"name"[..], false), (b"comm", true), (b"n", false)]
                .iter()
                .position(|(n, _)| *n == name)
                .map(|at| (at as u64, at == 1))
        }

        fn needs_test(&mut self, field: u64) {
            self.0.push(field);
        }
    }

    /// Each line: format, fields that are to be tested.
    #[test]
    fn fin_81_strings_that_may_be_gone() {
        let table: &[(&str, &[u64])] = &[
            ("\"%s\", REC->name", &[0]),
            ("\"%d %s\", REC->n, REC->name", &[0]),
            ("\"%d %s\", REC->name, REC->n", &[2]),
            // An array is in the event itself, a function makes its string.
            ("\"%s\", REC->comm", &[]),
            ("\"%s\", __get_str(name)", &[]),
            ("\"%s\", REC->n ? \"a\" : \"b\"", &[]),
            ("\"%s\", names[REC->n]", &[]),
            ("\"%s\", &REC->name", &[]),
            // A star takes an argument of its own.
            ("\"%*s\", REC->n, REC->name", &[0]),
            ("\"%*pbl %s\", REC->n, __get_bitmask(x), REC->name", &[0]),
            ("\"%%s %-5s\", REC->name", &[]),
            ("\"%5.3s\", REC->name", &[0]),
            ("\"%p %pI4 %s\", REC->n, REC->comm, REC->name", &[0]),
            ("\"no argument\"", &[]),
            ("\"%s", &[]),
            ("\"%s\", REC->other", &[]),
        ];
        for (format, want) in table {
            let mut names = Names(Vec::new());
            test_event_printk(format.as_bytes(), &mut names);
            assert_eq!(names.0, *want, "{format}");
        }
    }
}
