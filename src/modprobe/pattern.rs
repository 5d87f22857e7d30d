//! Patterns of aliases, as fnmatch(3) without flags reads them.

/// Does a text match a pattern of `*`, `?` and `[...]`?
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0usize, 0usize);
    // Where to go on after a star that has to take one byte more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let rest = pattern.get(p..).unwrap_or_default();
        let step = match (rest.split_first(), text.get(t)) {
            (Some((b'*', _)), _) => {
                star = Some((p.saturating_add(1), t));
                p = p.saturating_add(1);
                continue;
            }
            (None, None) => return true,
            (Some((b'?', _)), Some(_)) => Some(1),
            (Some((b'[', set)), Some(byte)) => match in_set(set, *byte) {
                Some((true, len)) => Some(len.saturating_add(1)),
                Some((false, _)) => None,
                // No bracket ends it: it is a plain byte.
                None => (*byte == b'[').then_some(1),
            },
            (Some((b'\\', escaped)), Some(byte)) => (escaped.first() == Some(byte)).then_some(2),
            (Some((plain, _)), Some(byte)) => (plain == byte).then_some(1),
            _ => None,
        };
        match (step, star) {
            (Some(len), _) => (p, t) = (p.saturating_add(len), t.saturating_add(1)),
            (None, Some((after, from))) if from < text.len() => {
                let next = from.saturating_add(1);
                (p, t, star) = (after, next, Some((after, next)));
            }
            _ => return false,
        }
    }
}

/// Is a byte in the set that begins behind `[`? With how many bytes the set has, `]` included.
fn in_set(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let (first, mut found) = (at, false);
    loop {
        let from = *set.get(at)?;
        if from == b']' && at != first {
            return Some((found != negated, at.saturating_add(1)));
        }
        let to = match (set.get(at.saturating_add(1)), set.get(at.saturating_add(2))) {
            (Some(b'-'), Some(to)) if *to != b']' => {
                at = at.saturating_add(2);
                *to
            }
            _ => from,
        };
        found |= (from..=to).contains(&byte);
        at = at.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_fnmatch_says() {
        for (pattern, text, want) in [
            ("fs_ext4", "fs_ext4", true),
            ("fs_ext4", "fs_ext", false),
            ("pci:v00008086d*sv*sd*bc*sc*i*", "pci:v00008086d00001234sv1sd2bc02sc00i00", true),
            ("pci:v00008086d*sv*sd*bc*sc*i*", "pci:v00008087d00001234sv1sd2bc02sc00i00", false),
            ("usb:v*p*d*dc*dsc*dp*ic03isc*ip*in*", "usb:v1p2d3dc0dsc0dp0ic03isc1ip1in00", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("d[0-9a]x", "d7x", true),
            ("d[0-9a]x", "dax", true),
            ("d[!0-9]x", "d7x", false),
            ("d[!0-9]x", "dyx", true),
            ("d[]]x", "d]x", true),
            ("d[x", "d[x", true),
            ("*", "", true),
            ("**a", "bba", true),
            ("", "", true),
            ("", "a", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), want, "{pattern} {text}");
        }
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let pattern = "*a".repeat(2000);
        let text = "a".repeat(1500);
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
        assert!(matches(pattern.as_bytes(), "a".repeat(2000).as_bytes()));
        assert!(
            !matches(b"[", b"a") && !matches(b"[!", b"a") && !matches(b"[a-", b"a") && !matches(b"\\", b"a")
        );
    }
}
