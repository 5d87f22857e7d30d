//! The registers for vectors.

use crate::kept::kept;

/// Registers.
const COUNT: usize = 32;

/// Their contents.
#[derive(Clone, Debug, Default)]
pub struct Vectors {
    /// V0 to V31.
    all: [u128; COUNT],
}

kept!(Vectors { all });

impl Vectors {
    /// A register.
    #[inline(always)]
    pub fn get(&self, number: u8) -> u128 {
        self.all.get(usize::from(number & 31)).copied().unwrap_or(0)
    }

    /// Sets a register.
    #[inline(always)]
    pub fn set(&mut self, number: u8, value: u128) {
        if let Some(register) = self.all.get_mut(usize::from(number & 31)) {
            *register = value;
        }
    }
}
