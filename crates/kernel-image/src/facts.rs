//! What a kernel says about itself in strings (spec 09 §9.5).

use memchr::memmem;

use crate::bytes::{cstr, slice};

/// Longest string that is believed.
const MAX: usize = 1024;
/// Places of a string that are looked at.
const PLACES: usize = 1 << 16;
const BANNER: &[u8] = b"Linux version ";

/// `linux_banner`, without its newline: `Linux version RELEASE (BUILDER) (COMPILER) #...`.
///
/// Since v6.1 (2df8220cc511) version.o has one of its own, without the number behind `#`, which the linker leaves in the image
/// before the one that counts.
pub(crate) fn banner(data: &[u8]) -> Option<&[u8]> {
    let all = || {
        memmem::find_iter(data, BANNER).take(PLACES).filter_map(|at| {
            let text = cstr(data.get(at..)?, MAX)?;
            release_of(text)?;
            Some(text.strip_suffix(b"\n").unwrap_or(text))
        })
    };
    let first = all().next()?;
    all().find(|text| release_of(text) == release_of(first) && is_numbered(text)).or(Some(first))
}

/// Has it the number of the build, `#1 SMP ...`?
fn is_numbered(banner: &[u8]) -> bool {
    let number = memmem::find(banner, b" #").and_then(|at| banner.get(at.saturating_add(2)..));
    number.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

/// The release in a banner.
pub(crate) fn release_of(banner: &[u8]) -> Option<&[u8]> {
    let rest = banner.strip_prefix(BANNER)?;
    let release = rest.get(..memchr::memchr(b' ', rest)?)?;
    let follows = rest.get(release.len()..)?.starts_with(b" (");
    (follows && release.first()?.is_ascii_digit() && release.iter().all(u8::is_ascii_graphic))
        .then_some(release)
}

/// The vermagic: the string that begins with the release and a blank, and goes
/// on with nothing but what VERMAGIC_STRING is made of. `machine_word` is MODULE_ARCH_VERMAGIC.
pub(crate) fn vermagic<'d>(data: &'d [u8], release: &[u8], machine_word: &str) -> Option<&'d [u8]> {
    let known = |word: &[u8]| word.is_empty() || word == machine_word.as_bytes() || is_vermagic_word(word);
    memmem::find_iter(data, release).take(PLACES).find_map(|at| {
        let text = cstr(data.get(at..)?, MAX)?;
        let words = text.get(release.len()..)?.strip_prefix(b" ")?;
        words.split(|b| *b == b' ').all(known).then_some(text)
    })
}

fn is_vermagic_word(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] = [b"SMP", b"preempt", b"preempt_rt", b"mod_unload", b"modversions"];
    WORDS.contains(&word) || word.starts_with(b"RANDSTRUCT")
}

/// The gzip stream of CONFIG_IKCONFIG, between its two marks.
pub(crate) fn ikconfig(data: &[u8]) -> Option<&[u8]> {
    const START: &[u8] = b"IKCFG_ST\x1f\x8b";
    let at = memmem::find(data, START)?.checked_add(8)?;
    let rest = data.get(at..)?;
    slice(rest, 0, memmem::find(rest, b"IKCFG_ED")?)
}
