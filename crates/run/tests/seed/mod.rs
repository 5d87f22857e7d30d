//! States before recorded instructions.

/// The generator of the state before: splitmix64, and values at edges.
pub struct Seed(pub u64);

impl Seed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    pub fn word(&mut self) -> u64 {
        let (kind, value) = (self.next(), self.next());
        match kind >> 60 {
            0 => 0,
            1 => u64::MAX,
            2 => 0x8000_8000_8000_8000,
            3 => 0x7fff_7fff_7fff_7fff,
            4 => value & 0x3f,
            5 => value & 0x7f7f_7f7f_7f7f_7f7f,
            6 => value | 0x8080_8080_8080_8080,
            7 => 1 << (value & 63),
            _ => value,
        }
    }

    pub fn half(&mut self) -> u128 {
        let low = self.word();
        u128::from(self.word()) << 64 | u128::from(low)
    }
}
