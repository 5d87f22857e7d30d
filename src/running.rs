//! A kernel as [`finalize::RunningKernel`] asks for it, and the file of `--memory`.

use finalize::RunningKernel;
use kernel::spec::hex_bytes;
use kernel::{Kernel, Member, Piece};
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

/// A kernel that patching reads.
#[derive(Clone, Copy, Debug)]
pub struct Running<'k> {
    /// The kernel.
    pub kernel: &'k Kernel,
}

impl RunningKernel for Running<'_> {
    fn symbol(&self, name: &str) -> Option<u64> {
        self.kernel.symbol(name)
    }

    fn symbols_with(&self, prefix: &str) -> Vec<u64> {
        self.kernel.symbols_with(prefix)
    }

    fn read(&self, address: u64, out: &mut [u8]) -> bool {
        self.kernel.read(address, out)
    }

    fn pointer(&self, address: u64) -> Option<u64> {
        self.kernel.pointer(address)
    }

    fn capability(&self, number: u32) -> Option<bool> {
        self.kernel.capability(number)
    }

    fn cpus(&self) -> Option<u32> {
        self.kernel.cpus()
    }

    fn cmdline(&self) -> &str {
        self.kernel.cmdline()
    }

    fn member(&self, of: &str, path: &str) -> Option<Member> {
        self.kernel.member(of, path)
    }

    fn struct_size(&self, of: &str) -> Option<u64> {
        self.kernel.struct_size(of)
    }
}
