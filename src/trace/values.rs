//! Numbers and bytes as events show them.

use serde::{Serialize, Serializer};

/// An address, or another number of 64 bits that is read as one: `0x` and 16 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:#018x}", self.0))
    }
}

/// Bytes as hex digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Bytes {
    /// Two digits a byte.
    pub fn hex(&self) -> String {
        const DIGITS: [char; 16] =
            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
        let digit = |n: u8| DIGITS.get(usize::from(n & 15)).copied().unwrap_or('?');
        self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.hex())
    }
}

#[cfg(feature = "schema")]
mod as_text {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator};

    macro_rules! is_text {
        ($($of:ident)*) => {
            $(impl JsonSchema for super::$of {
                fn inline_schema() -> bool {
                    true
                }

                fn schema_name() -> Cow<'static, str> {
                    stringify!($of).into()
                }

                fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                    String::json_schema(generator)
                }
            })*
        };
    }

    is_text!(Address Bytes);
}
