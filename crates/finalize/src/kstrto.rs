//! `lib/kstrtox.c`: numbers and truth values from strings, as parameters are
//! given (spec 07 §7.4). The base is always 0: the string itself tells it.

use elf_layout::{Change, Changes, Errno};

/// `_parse_integer` and `_kstrtoull`: digits, one newline, nothing else. Too many digits are
/// ERANGE even where something wrong follows them.
fn magnitude(text: &[u8]) -> Result<u64, Errno> {
    let hex = match text {
        [b'0', b'x' | b'X', digit, ..] => digit.is_ascii_hexdigit(),
        _ => false,
    };
    let (base, digits) = match text {
        [_, _, digits @ ..] if hex => (16, digits),
        // `0x` without a digit is octal 0, and then something wrong.
        [b'0', ..] => (8, text),
        _ => (10, text),
    };
    let mut value = 0u64;
    let mut overflow = false;
    let mut rest = digits;
    while let [c, tail @ ..] = rest
        && let Some(digit) = char::from(*c).to_digit(base)
    {
        let next = value.checked_mul(u64::from(base)).and_then(|v| v.checked_add(u64::from(digit)));
        overflow |= next.is_none();
        value = next.unwrap_or(0);
        rest = tail;
    }
    if overflow {
        return Err(Errno::ERANGE);
    }
    if rest.len() == digits.len() || !matches!(rest, [] | [b'\n']) {
        return Err(Errno::EINVAL);
    }
    Ok(value)
}

/// `kstrtoull`, `kstrtoul`: an optional `+` before the number.
pub fn kstrtoull(text: &[u8]) -> Result<u64, Errno> {
    magnitude(text.strip_prefix(b"+").unwrap_or(text))
}

/// `kstrtoll`, `kstrtol`: an optional sign, one of them, before the number.
pub fn kstrtoll(text: &[u8]) -> Result<i64, Errno> {
    let range = |_| Errno::ERANGE;
    match text.strip_prefix(b"-") {
        Some(text) => 0i64.checked_sub_unsigned(magnitude(text)?).ok_or(Errno::ERANGE),
        None => i64::try_from(kstrtoull(text)?).map_err(range),
    }
}

/// `kstrtou8`, `kstrtou16`, `kstrtouint`: what `T` does not hold is ERANGE.
pub fn kstrto_unsigned<T: TryFrom<u64>>(text: &[u8]) -> Result<T, Errno> {
    T::try_from(kstrtoull(text)?).map_err(|_| Errno::ERANGE)
}

/// `kstrtos16`, `kstrtoint`: what `T` does not hold is ERANGE.
pub fn kstrto_signed<T: TryFrom<i64>>(text: &[u8]) -> Result<T, Errno> {
    T::try_from(kstrtoll(text)?).map_err(|_| Errno::ERANGE)
}

/// `kstrtobool`: looks at the first character only, of `on` and `off` at two.
pub fn kstrtobool(text: &[u8], changes: Changes) -> Result<bool, Errno> {
    // Since v5.19 (0d6ea3ac94ca) true and false; since v6.16 (ae5b3500856f) enabled and disabled.
    let (true_false, enabled_disabled) =
        (changes.has(Change::BoolTakesTrue), changes.has(Change::BoolTakesEnabled));
    match text {
        [b'y' | b'Y' | b'1', ..] => Ok(true),
        [b'n' | b'N' | b'0', ..] => Ok(false),
        [b't' | b'T', ..] if true_false => Ok(true),
        [b'f' | b'F', ..] if true_false => Ok(false),
        [b'e' | b'E', ..] if enabled_disabled => Ok(true),
        [b'd' | b'D', ..] if enabled_disabled => Ok(false),
        [b'o' | b'O', b'n' | b'N', ..] => Ok(true),
        [b'o' | b'O', b'f' | b'F', ..] => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use elf_layout::KernelVersion;

    const EINVAL: Errno = Errno::EINVAL;
    const ERANGE: Errno = Errno::ERANGE;

    #[test]
    fn param_20_syntax_of_numbers() {
        for (text, want) in [
            ("0", Ok(0)),
            ("+0", Ok(0)),
            ("00", Ok(0)),
            ("42", Ok(42)),
            ("+42\n", Ok(42)),
            ("042", Ok(34)),
            ("0x2a", Ok(42)),
            ("0X2A", Ok(42)),
            ("+0x2a\n", Ok(42)),
            ("0x0", Ok(0)),
            ("0000000000000000000000000000017", Ok(15)),
            ("0x00000000000000000000000000000f", Ok(15)),
            ("", Err(EINVAL)),
            ("+", Err(EINVAL)),
            ("\n", Err(EINVAL)),
            ("+\n", Err(EINVAL)),
            ("0x", Err(EINVAL)),
            ("0x\n", Err(EINVAL)),
            ("0xg", Err(EINVAL)),
            ("x", Err(EINVAL)),
            ("08", Err(EINVAL)),
            ("019", Err(EINVAL)),
            ("1a", Err(EINVAL)),
            ("1 ", Err(EINVAL)),
            (" 1", Err(EINVAL)),
            ("1\n\n", Err(EINVAL)),
            ("1\n1", Err(EINVAL)),
            ("++1", Err(EINVAL)),
            ("-1", Err(EINVAL)),
            ("-0", Err(EINVAL)),
            ("+-1", Err(EINVAL)),
            ("0b1", Err(EINVAL)),
            ("1_0", Err(EINVAL)),
            ("18446744073709551615", Ok(u64::MAX)),
            ("18446744073709551616", Err(ERANGE)),
            ("0xffffffffffffffff", Ok(u64::MAX)),
            ("0x10000000000000000", Err(ERANGE)),
            ("01777777777777777777777", Ok(u64::MAX)),
            ("02000000000000000000000", Err(ERANGE)),
            // The overflow is looked at before what follows the digits.
            ("18446744073709551616x", Err(ERANGE)),
            ("99999999999999999999999999999999", Err(ERANGE)),
            ("18446744073709551615x", Err(EINVAL)),
        ] {
            assert_eq!(kstrtoull(text.as_bytes()), want, "PARAM-20, 7.4: kstrtoull({text:?})");
        }
    }

    #[test]
    fn param_20_signs() {
        for (text, want) in [
            ("-0", Ok(0)),
            ("-1", Ok(-1)),
            ("-0x10", Ok(-16)),
            ("-010\n", Ok(-8)),
            ("+5", Ok(5)),
            ("-+5", Err(EINVAL)),
            ("+-5", Err(EINVAL)),
            ("--5", Err(EINVAL)),
            ("-", Err(EINVAL)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("9223372036854775808", Err(ERANGE)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("-0x8000000000000000", Ok(i64::MIN)),
            ("-9223372036854775809", Err(ERANGE)),
            ("-18446744073709551615", Err(ERANGE)),
            ("-18446744073709551616", Err(ERANGE)),
            ("18446744073709551615", Err(ERANGE)),
        ] {
            assert_eq!(kstrtoll(text.as_bytes()), want, "PARAM-20, 7.4: kstrtoll({text:?})");
        }
    }

    #[test]
    fn param_20_boundaries_of_every_type() {
        fn check(min: i128, max: i128, parse: impl Fn(&[u8]) -> Result<i128, Errno>) {
            for (value, fits) in [(min, true), (min - 1, false), (max, true), (max + 1, false), (0, true)] {
                let want = match (fits, min) {
                    (true, _) => Ok(value),
                    // An unsigned type takes no minus sign at all.
                    (false, 0) if value < 0 => Err(EINVAL),
                    (false, _) => Err(ERANGE),
                };
                let sign = if value < 0 { "-" } else { "" };
                let size = value.unsigned_abs();
                for text in
                    [format!("{sign}{size}"), format!("{sign}{size:#x}"), format!("{sign}0{size:o}\n")]
                {
                    assert_eq!(parse(text.as_bytes()), want, "PARAM-20, 7.4: {text:?} in {min}..={max}");
                }
            }
        }
        check(0, u8::MAX.into(), |t| kstrto_unsigned::<u8>(t).map(i128::from));
        check(0, u16::MAX.into(), |t| kstrto_unsigned::<u16>(t).map(i128::from));
        check(0, u32::MAX.into(), |t| kstrto_unsigned::<u32>(t).map(i128::from));
        check(0, u64::MAX.into(), |t| kstrtoull(t).map(i128::from));
        check(i16::MIN.into(), i16::MAX.into(), |t| kstrto_signed::<i16>(t).map(i128::from));
        check(i32::MIN.into(), i32::MAX.into(), |t| kstrto_signed::<i32>(t).map(i128::from));
        check(i64::MIN.into(), i64::MAX.into(), |t| kstrtoll(t).map(i128::from));
    }

    #[test]
    fn param_44_truth_values() {
        let now = Changes::of(KernelVersion::new(6, 12, 0));
        for (texts, want) in [
            (
                &["y", "Y", "yes", "Yo", "1", "1abc", "10", "t", "T", "true", "tail", "on", "oN", "Only"][..],
                Ok(true),
            ),
            (&["n", "N", "no", "0", "0xff", "f", "F", "false", "of", "off", "OFFline", "oFx"][..], Ok(false)),
            (
                &["", "o", "O", "ok", "2", "-1", "+1", " y", "\n", "maybe", "enable", "disable"][..],
                Err(EINVAL),
            ),
        ] {
            for text in texts {
                assert_eq!(kstrtobool(text.as_bytes(), now), want, "PARAM-44, 7.4: kstrtobool({text:?})");
            }
        }
        let first_of = |version: KernelVersion| {
            let known = |c: &u8| kstrtobool(&[*c], Changes::of(version)).is_ok();
            (0u8..=255).filter(known).map(char::from).collect::<Vec<_>>()
        };
        let first =
            |minor| first_of(KernelVersion::new(6, minor, 0)).into_iter().collect::<alloc::string::String>();
        assert_eq!(first(1), "01FNTYfnty", "PARAM-44: 6.1");
        assert_eq!(first(12), "01FNTYfnty", "PARAM-44: 6.12");
        assert_eq!(first(16), "01DEFNTYdefnty", "PARAM-44: 6.16");
        assert_eq!(first_of(KernelVersion::new(5, 18, 0)).len(), 6, "PARAM-44: 5.18");
    }
}
