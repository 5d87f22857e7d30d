//! `next_arg`: one parameter after the other from a command line (PARAM-10 to PARAM-13).

/// One `param` or `param=val`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What stands before the `=`.
    pub param: &'a [u8],
    /// What stands behind it; `None` if there is none.
    pub val: Option<&'a [u8]>,
}

/// `isspace` of the kernel's Latin-1 table.
fn is_space(c: u8) -> bool {
    matches!(c, b' ' | b'\t'..=b'\r' | 0xa0)
}

/// `skip_spaces` (PARAM-10).
pub fn skip_spaces(args: &[u8]) -> &[u8] {
    let spaces = args.iter().take_while(|c| is_space(**c)).count();
    args.get(spaces..).unwrap_or(&[])
}

/// The first token of `args`, and what follows it and the white space behind it.
pub fn next_arg(args: &[u8]) -> (Token<'_>, &[u8]) {
    // PARAM-11: a quote in front is skipped, white space counts outside quotes only, an = in
    // front is none.
    let unquoted = args.strip_prefix(b"\"");
    let quoted = unquoted.is_some();
    let text = unquoted.unwrap_or(args);
    let mut in_quote = quoted;
    let mut equals = None;
    let mut end = text.len();
    for (i, &c) in text.iter().enumerate() {
        if is_space(c) && !in_quote {
            end = i;
            break;
        }
        if c == b'=' && i > 0 && equals.is_none() {
            equals = Some(i);
        }
        if c == b'"' {
            in_quote = !in_quote;
        }
    }
    let (token, rest) = text.split_at_checked(end).unwrap_or((text, &[]));

    // PARAM-12: quotes around the value, or around the token, are dropped.
    let without_last = |t| <[u8]>::strip_suffix(t, b"\"").unwrap_or(t);
    let split = equals.and_then(|at| token.split_at_checked(at));
    let token = match split {
        Some((param, val)) => {
            let val = val.strip_prefix(b"=").unwrap_or(val);
            let val = match val.strip_prefix(b"\"") {
                Some(val) => without_last(val),
                None if quoted => without_last(val),
                None => val,
            };
            Token { param, val: Some(val) }
        }
        None => Token { param: if quoted { without_last(token) } else { token }, val: None },
    };
    (token, skip_spaces(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    /// All tokens of a command line as `param|val`, `param` alone where there is no value.
    fn tokens(args: &[u8]) -> Vec<String> {
        let mut rest = skip_spaces(args);
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (token, next) = next_arg(rest);
            assert!(next.len() < rest.len(), "every step consumes something");
            let text = |t| String::from_utf8_lossy(t).to_string();
            all.push(token.val.map_or(text(token.param), |v| text(token.param) + "|" + &text(v)));
            rest = next;
        }
        all
    }

    #[test]
    fn param_10_to_13_grammar() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("PARAM-10", "", &[]),
            ("PARAM-10", " \t\n\x0b\x0c\r", &[]),
            ("PARAM-10", "  a=1 \t\n b\r", &["a|1", "b"]),
            ("PARAM-11", "a=1  b=2", &["a|1", "b|2"]),
            ("PARAM-11", "a=b=c", &["a|b=c"]),
            ("PARAM-11", "=a", &["=a"]),
            ("PARAM-11", "=a=b", &["=a|b"]),
            ("PARAM-11", "==", &["=|"]),
            ("PARAM-11", "\"=a\"", &["=a"]),
            ("PARAM-11", "a\"b c\"d=e", &["a\"b c\"d|e"]),
            ("PARAM-12", "a", &["a"]),
            ("PARAM-12", "a=", &["a|"]),
            ("PARAM-12", "a=\"\"", &["a|"]),
            ("PARAM-12", "a=\"", &["a|"]),
            ("PARAM-12", "\"a\"", &["a"]),
            ("PARAM-12", "\"a b\" c", &["a b", "c"]),
            ("PARAM-12", "\"\"", &[""]),
            ("PARAM-12", "\"", &[""]),
            ("PARAM-12", "\" a", &[" a"]),
            ("PARAM-13", "a=\"x y\" b", &["a|x y", "b"]),
            ("PARAM-13", "\"a=x y\" b", &["a|x y", "b"]),
            ("PARAM-13", "a=x\" \"y b", &["a|x\" \"y", "b"]),
            ("PARAM-13", "a=x\"y\"", &["a|x\"y\""]),
            ("PARAM-13", "a=\"x\"y\" b", &["a|x\"y\" b"]),
            ("PARAM-13", "a=\"x y", &["a|x y"]),
            ("PARAM-13", "\"a=x y", &["a|x y"]),
            ("PARAM-13", "a=x\\\" y\"", &["a|x\\\" y\""]),
            ("PARAM-13", "\"a=\"b\"\"", &["a|b\""]),
            ("PARAM-13", "\"a=\"", &["a|"]),
            ("PARAM-14", "a -- b", &["a", "--", "b"]),
            ("PARAM-14", "--=", &["--|"]),
        ];
        for (rule, args, want) in cases {
            assert_eq!(tokens(args.as_bytes()), *want, "{rule}: {args:?}");
        }
        assert_eq!(tokens(b"a=1\xa0b=2"), ["a|1", "b|2"], "PARAM-10: 0xa0 is white space");
        assert_eq!(tokens(b"a\x1cb\x85c"), ["a\x1cb\u{fffd}c"], "PARAM-10: 0x1c and 0x85 are not");
    }

    /// The same as the kernel does it, on a writable string that ends with NUL.
    fn next_arg_in_place(memory: &mut [u8], at: usize) -> (usize, Option<usize>, usize) {
        let (mut args, mut in_quote, mut quoted, mut equals) = (at, false, false, 0);
        if memory[args] == b'"' {
            args += 1;
            in_quote = true;
            quoted = true;
        }
        let mut i = 0;
        while memory[args + i] != 0 {
            let c = memory[args + i];
            if is_space(c) && !in_quote {
                break;
            }
            if equals == 0 && c == b'=' {
                equals = i;
            }
            if c == b'"' {
                in_quote = !in_quote;
            }
            i += 1;
        }
        let mut val = None;
        if equals != 0 {
            memory[args + equals] = 0;
            let mut v = args + equals + 1;
            if memory[v] == b'"' {
                v += 1;
                if memory[args + i - 1] == b'"' {
                    memory[args + i - 1] = 0;
                }
            }
            val = Some(v);
        }
        if quoted && i > 0 && memory[args + i - 1] == b'"' {
            memory[args + i - 1] = 0;
        }
        let mut next = args + i;
        if memory[next] != 0 {
            memory[next] = 0;
            next += 1;
        }
        while is_space(memory[next]) {
            next += 1;
        }
        (args, val, next)
    }

    #[test]
    fn param_13_every_short_line_splits_as_in_place() {
        const LETTERS: &[u8] = b"a=\" -\"=";
        for n in 0..7usize.pow(6) {
            let line: Vec<u8> = (0..6).map(|i| LETTERS[n / 7usize.pow(i) % 7]).collect();
            let mut memory = line.clone();
            memory.push(0);
            let mut rest = skip_spaces(&line);
            let mut at = line.len() - rest.len();
            while !rest.is_empty() {
                let (token, next) = next_arg(rest);
                let (param, val, next_at) = next_arg_in_place(&mut memory, at);
                let cstr = |at: usize| memory[at..].split(|c| *c == 0).next().unwrap();
                let kernel = Token { param: cstr(param), val: val.map(cstr) };
                assert_eq!(
                    token,
                    kernel,
                    "PARAM-11, PARAM-12, PARAM-13: {:?}",
                    String::from_utf8_lossy(&line)
                );
                (rest, at) = (next, next_at);
                assert_eq!(rest, &line[at..], "PARAM-11");
            }
            assert_eq!(memory[at], 0);
        }
    }
}
