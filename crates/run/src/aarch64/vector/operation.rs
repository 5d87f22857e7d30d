//! What instructions for vectors do with each element, or with a vector as a whole.

/// What an instruction does; the shape of its operands is its [`Op`](super::super::form::Op).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum V {
    /// None.
    Nothing,
    // Bit by bit. The last three choose by d, and by m.
    And,
    AndNot,
    Or,
    OrNot,
    Xor,
    Choose,
    ReplaceWhereSet,
    ReplaceWhereClear,
    // Of elements of n and m, and of d
    Add,
    Subtract,
    HalvingAdd,
    RoundingHalvingAdd,
    HalvingSubtract,
    Maximum,
    Minimum,
    Difference,
    DifferenceAdd,
    Multiply,
    MultiplyAdd,
    MultiplySubtract,
    MultiplyPolynomials,
    Greater,
    GreaterOrEqual,
    Equal,
    Test,
    ShiftEach,
    // Of elements of n
    LessZero,
    LessOrEqualZero,
    Absolute,
    Negate,
    Not,
    ReverseBits,
    CountBits,
    CountZeros,
    CountSigns,
    /// Elements in containers of as many bytes as the immediate says
    Reverse,
    // By a count, the immediate
    ShiftLeft,
    ShiftLeftInsert,
    ShiftRight,
    ShiftRightAdd,
    RoundingShiftRight,
    RoundingShiftRightAdd,
    ShiftRightInsert,
    // Between registers. The immediate is the number of the element, and from bit 8 on that of the one it is taken from.
    /// All elements are one of n
    Duplicate,
    /// All elements are the general register n
    DuplicateGeneral,
    InsertElement,
    InsertGeneral,
    /// To a general register, with zeros above
    Take,
    /// To a general register, with its sign
    TakeSigned,
    /// One element of n, with zeros above
    Scalar,
    /// The general register n, with zeros above
    FromGeneral,
    // Permutations
    Zip1,
    Zip2,
    Unzip1,
    Unzip2,
    Transpose1,
    Transpose2,
    /// From the byte on that the immediate says
    Extract,
    // The immediate, with n or without it
    Constant,
    OrConstant,
    ClearConstant,
    // With keys and hashes
    AesEncrypt,
    AesDecrypt,
    AesMix,
    AesMixBack,
    Sha1Choose,
    Sha1Parity,
    Sha1Majority,
    Sha1Schedule0,
    Sha1Schedule1,
    Sha1Rotate,
    Sha256Hash,
    Sha256Hash2,
    Sha256Schedule0,
    Sha256Schedule1,
    Sha512Hash,
    Sha512Hash2,
    Sha512Schedule0,
    Sha512Schedule1,
    RotateXor,
    Xor3,
    ClearXor,
    XorRotate,
}
