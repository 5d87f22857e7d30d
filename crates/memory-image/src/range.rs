//! Where memory lies in a file.

/// Memory that lies in the file as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Address of its first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Where it is in the file.
    pub at: u64,
}
