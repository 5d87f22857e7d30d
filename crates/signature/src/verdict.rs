//! What becomes of a signature.

/// What the kernel makes of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A certificate's key made it for these bytes.
    Good,
    /// None of the certificates is the signer's (ENOKEY).
    UnknownKey,
    /// An algorithm that is not supported (ENOPKG).
    Unsupported,
    /// Not for these bytes (EKEYREJECTED).
    Rejected,
    /// Not a PKCS#7 message (EBADMSG).
    Malformed,
}
