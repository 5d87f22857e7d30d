//! AES, carry-less multiplication and SHA, as the manuals of the instructions have them.

use super::operation::V;
use crate::ciphers::{
    self, MIX, MIX_BACK, bytes, mixed, shifted_rows, sigma_0, sigma_1, substituted, substituted_back,
};
use crate::cpu::Trouble;
use crate::lanes::{vector, words};

/// AESKEYGENASSIST
fn key(value: u128, constant: u8) -> u128 {
    let word = |value: u128| u128::from_le_bytes(value.to_le_bytes().map(substituted)) as u32;
    let (first, third) = (word(value >> 32 & 0xffff_ffff), word(value >> 96));
    let turned = |word: u32| word.rotate_right(8) ^ u32::from(constant);
    let words = [first, turned(first), third, turned(third)];
    words.iter().rev().fold(0, |all, word| all << 32 | u128::from(*word))
}

/// PCLMULQDQ
fn multiplied(a: u128, b: u128, chosen: u8) -> u128 {
    let half = |value: u128, high: bool| if high { value >> 64 } else { value } as u64;
    ciphers::multiplied(half(a, chosen & 1 != 0), half(b, chosen & 0x10 != 0))
}

/// SHA1RNDS4
fn sha1_rounds(state: u128, message: u128, kind: u8) -> u128 {
    let ([mut d, mut c, mut b, mut a], mut e) = (words(state), 0u32);
    let [w3, w2, w1, w0] = words(message);
    let constant: u32 = match kind & 3 {
        0 => 0x5a82_7999,
        1 => 0x6ed9_eba1,
        2 => 0x8f1b_bcdc,
        _ => 0xca62_c1d6,
    };
    // E of the first round is in its word already.
    for word in [w0, w1, w2, w3] {
        let f = match kind & 3 {
            0 => b & c ^ !b & d,
            2 => b & c ^ b & d ^ c & d,
            _ => b ^ c ^ d,
        };
        let next = f.wrapping_add(a.rotate_left(5)).wrapping_add(word).wrapping_add(e).wrapping_add(constant);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    vector([d, c, b, a])
}

/// SHA1MSG1
fn sha1_message_1(a: u128, b: u128) -> u128 {
    // Each word with the one two before it.
    a ^ (a << 64 | b >> 64)
}

/// SHA1MSG2
fn sha1_message_2(a: u128, b: u128) -> u128 {
    let ([a3, a2, a1, a0], [w15, w14, w13, _]) = (words(a), words(b));
    let w16 = (a0 ^ w13).rotate_left(1);
    let w17 = (a1 ^ w14).rotate_left(1);
    let w18 = (a2 ^ w15).rotate_left(1);
    let w19 = (a3 ^ w16).rotate_left(1);
    vector([w19, w18, w17, w16])
}

/// SHA256RNDS2
pub(super) fn sha256_rounds(first: u128, second: u128, message: u128) -> u128 {
    let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut b, mut a]) = (words(first), words(second));
    let [w0, w1, ..] = words(message);
    for word in [w0, w1] {
        let choice = e & f ^ !e & g;
        let majority = a & b ^ a & c ^ b & c;
        let sum_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let both = choice.wrapping_add(sum_1).wrapping_add(word).wrapping_add(h);
        let next = both.wrapping_add(majority).wrapping_add(sum_0);
        (h, g, f, e, d, c, b, a) = (g, f, e, both.wrapping_add(d), c, b, a, next);
    }
    vector([f, e, b, a])
}

/// SHA256MSG1
fn sha256_message_1(a: u128, b: u128) -> u128 {
    let ([w0, w1, w2, w3], [w4, ..]) = (words(a), words(b));
    let sum = |word: u32, next| word.wrapping_add(sigma_0(next));
    vector([sum(w0, w1), sum(w1, w2), sum(w2, w3), sum(w3, w4)])
}

/// SHA256MSG2
fn sha256_message_2(a: u128, b: u128) -> u128 {
    let ([a0, a1, a2, a3], [_, _, w14, w15]) = (words(a), words(b));
    let w16 = a0.wrapping_add(sigma_1(w14));
    let w17 = a1.wrapping_add(sigma_1(w15));
    vector([w16, w17, a2.wrapping_add(sigma_1(w16)), a3.wrapping_add(sigma_1(w17))])
}

/// With two sources, of which the first may be empty.
pub(super) fn binary(v: V, a: u128, b: u128, immediate: u8) -> Result<u128, Trouble> {
    Ok(match v {
        V::AesEncrypt => mixed(bytes(shifted_rows(a, 4), substituted), MIX) ^ b,
        V::AesEncryptLast => bytes(shifted_rows(a, 4), substituted) ^ b,
        V::AesDecrypt => mixed(bytes(shifted_rows(a, 12), substituted_back), MIX_BACK) ^ b,
        V::AesDecryptLast => bytes(shifted_rows(a, 12), substituted_back) ^ b,
        V::AesInverse => mixed(b, MIX_BACK),
        V::AesKey => key(b, immediate),
        V::CarrylessMultiply => multiplied(a, b, immediate),
        V::Sha1Rounds => sha1_rounds(a, b, immediate),
        V::Sha1Next => {
            let [.., e] = words(a);
            let [w0, w1, w2, w3] = words(b);
            vector([w0, w1, w2, w3.wrapping_add(e.rotate_left(30))])
        }
        V::Sha1Message1 => sha1_message_1(a, b),
        V::Sha1Message2 => sha1_message_2(a, b),
        V::Sha256Message1 => sha256_message_1(a, b),
        V::Sha256Message2 => sha256_message_2(a, b),
        _ => return Err(Trouble::Unknown),
    })
}
