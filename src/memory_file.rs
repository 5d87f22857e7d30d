//! The file of `--memory`: pieces of a running kernel's memory.

use kernel::Piece;
use kernel::spec::hex_bytes;
use serde::Deserialize;

/// An element of the file of `--memory`.
#[derive(Deserialize)]
struct PieceText {
    addr: String,
    bytes: String,
}

/// Reads a JSON array of `{"addr": "0x...", "bytes": "hex"}`; the error says what is wrong with it.
pub fn parse_pieces(text: &[u8]) -> Result<Vec<Piece>, String> {
    let pieces: Vec<PieceText> =
        serde_json::from_slice(text).map_err(|e| format!("not an array of {{\"addr\", \"bytes\"}}: {e}"))?;
    let piece = |(n, piece): (usize, &PieceText)| {
        let digits = piece.addr.strip_prefix("0x").unwrap_or(&piece.addr);
        let address = u64::from_str_radix(digits, 16)
            .map_err(|_| format!("piece {n}: addr is no hexadecimal number"))?;
        let bytes = hex_bytes(&piece.bytes)
            .ok_or_else(|| format!("piece {n}: bytes are not pairs of hexadecimal digits"))?;
        Ok(Piece { address, bytes })
    };
    pieces.iter().enumerate().map(piece).collect()
}
