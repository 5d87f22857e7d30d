//! AES and SHA, as the manual of the instructions has them.

use super::operation::V;
use crate::ciphers::{
    MIX, MIX_BACK, bytes, mixed, shifted_rows, sigma_0, sigma_1, substituted, substituted_back,
};
use crate::lanes::{each, vector, words};

fn choice(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

/// SHA1C, SHA1P and SHA1M: four rounds.
fn sha1(state: u128, e: u128, message: u128, of: fn(u32, u32, u32) -> u32) -> u128 {
    let ([mut a, mut b, mut c, mut d], mut e) = (words(state), e as u32);
    for word in words(message) {
        let next = e.wrapping_add(a.rotate_left(5)).wrapping_add(of(b, c, d)).wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    vector([a, b, c, d])
}

/// SHA256H and SHA256H2: four rounds, of which one half of the state is the result.
fn sha256(first: u128, second: u128, message: u128, upper: bool) -> u128 {
    let ([mut a, mut b, mut c, mut d], [mut e, mut f, mut g, mut h]) = (words(first), words(second));
    for word in words(message) {
        let sum_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let one = h.wrapping_add(sum_1).wrapping_add(choice(e, f, g)).wrapping_add(word);
        let two = one.wrapping_add(sum_0).wrapping_add(majority(a, b, c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(one), c, b, a, two);
    }
    if upper { vector([e, f, g, h]) } else { vector([a, b, c, d]) }
}

/// SHA1SU1
fn sha1_schedule_1(before: u128, n: u128) -> u128 {
    let [t0, t1, t2, t3] = words(before ^ n >> 32).map(|word| word.rotate_left(1));
    vector([t0, t1, t2, t3 ^ t0.rotate_left(1)])
}

/// SHA256SU0
fn sha256_schedule_0(before: u128, n: u128) -> u128 {
    let ([d0, d1, d2, d3], [n0, ..]) = (words(before), words(n));
    let sum = |word: u32, next| word.wrapping_add(sigma_0(next));
    vector([sum(d0, d1), sum(d1, d2), sum(d2, d3), sum(d3, n0)])
}

/// SHA256SU1
fn sha256_schedule_1(before: u128, n: u128, m: u128) -> u128 {
    let ([d0, d1, d2, d3], [_, n1, n2, n3], [m0, _, m2, m3]) = (words(before), words(n), words(m));
    let sum = |word: u32, before: u32, other: u32| sigma_1(word).wrapping_add(before).wrapping_add(other);
    let (r0, r1) = (sum(m2, d0, n1), sum(m3, d1, n2));
    vector([r0, r1, sum(r0, d2, n3), sum(r1, d3, m0)])
}

fn halves(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

fn of_halves(low: u64, high: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

fn turned(value: u64, by: [u32; 3]) -> u64 {
    by.into_iter().fold(0, |all, by| all ^ value.rotate_right(by))
}

/// SHA512H
fn sha512(before: u128, n: u128, m: u128) -> u128 {
    let ((d0, d1), (x0, x1), (y0, y1)) = (halves(before), halves(n), halves(m));
    let sum = |value| turned(value, [14, 18, 41]);
    let high = (y1 & x0 ^ !y1 & x1).wrapping_add(sum(y1)).wrapping_add(d1);
    let next = high.wrapping_add(y0);
    of_halves((next & y1 ^ !next & x0).wrapping_add(sum(next)).wrapping_add(d0), high)
}

/// SHA512H2
fn sha512_2(before: u128, n: u128, m: u128) -> u128 {
    let ((d0, d1), (x0, _), (y0, y1)) = (halves(before), halves(n), halves(m));
    let sum = |value| turned(value, [28, 34, 39]);
    let high = (x0 & y1 ^ x0 & y0 ^ y1 & y0).wrapping_add(sum(y0)).wrapping_add(d1);
    of_halves((high & y0 ^ high & y1 ^ y1 & y0).wrapping_add(sum(high)).wrapping_add(d0), high)
}

/// SHA512SU0
fn sha512_schedule_0(before: u128, n: u128) -> u128 {
    let sigma = |value: u64| value.rotate_right(1) ^ value.rotate_right(8) ^ value >> 7;
    let ((d0, d1), (x0, _)) = (halves(before), halves(n));
    of_halves(d0.wrapping_add(sigma(d1)), d1.wrapping_add(sigma(x0)))
}

/// SHA512SU1
fn sha512_schedule_1(before: u128, n: u128, m: u128) -> u128 {
    let sigma = |value: u64| value.rotate_right(19) ^ value.rotate_right(61) ^ value >> 6;
    let ((d0, d1), (x0, x1), (y0, y1)) = (halves(before), halves(n), halves(m));
    let sum = |before: u64, x, y| before.wrapping_add(sigma(x)).wrapping_add(y);
    of_halves(sum(d0, x0, y0), sum(d1, x1, y1))
}

/// With what was in the target, two sources, and a third one or a count.
pub(super) fn ciphered(v: V, [before, n, m, a]: [u128; 4], by: u64) -> u128 {
    match v {
        V::AesEncrypt => bytes(shifted_rows(before ^ n, 4), substituted),
        V::AesDecrypt => bytes(shifted_rows(before ^ n, 12), substituted_back),
        V::AesMix => mixed(n, MIX),
        V::AesMixBack => mixed(n, MIX_BACK),
        V::Sha1Choose => sha1(before, n, m, choice),
        V::Sha1Parity => sha1(before, n, m, |x, y, z| x ^ y ^ z),
        V::Sha1Majority => sha1(before, n, m, majority),
        V::Sha1Schedule0 => (n << 64 | before >> 64) ^ before ^ m,
        V::Sha1Schedule1 => sha1_schedule_1(before, n),
        V::Sha1Rotate => (n as u32).rotate_left(30).into(),
        V::Sha256Hash => sha256(before, n, m, false),
        V::Sha256Hash2 => sha256(n, before, m, true),
        V::Sha256Schedule0 => sha256_schedule_0(before, n),
        V::Sha256Schedule1 => sha256_schedule_1(before, n, m),
        V::Sha512Hash => sha512(before, n, m),
        V::Sha512Hash2 => sha512_2(before, n, m),
        V::Sha512Schedule0 => sha512_schedule_0(before, n),
        V::Sha512Schedule1 => sha512_schedule_1(before, n, m),
        V::RotateXor => each(8, n, m, |n, m| n ^ m.rotate_left(1)),
        V::Xor3 => n ^ m ^ a,
        V::ClearXor => n ^ m & !a,
        V::XorRotate => each(8, n, m, |n, m| (n ^ m).rotate_right(by as u32)),
        _ => 0,
    }
}
