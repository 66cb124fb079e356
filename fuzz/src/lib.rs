//! What the fuzz targets share.

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// Cuts `data` into pieces as the first bytes of `data` say: what a stream's reader sees.
#[must_use]
pub fn pieces(data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    for cut in data.iter().take(16) {
        let at = usize::from(*cut).min(rest.len());
        let (piece, behind) = rest.split_at(at);
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    pieces
}

/// Some bytes, few of them.
///
/// # Errors
/// If `data` is used up.
pub fn some_bytes(data: &mut Unstructured, max: usize) -> Result<Bytes> {
    let len = data.int_in_range(0..=max)?;
    Ok(Bytes::copy_from_slice(data.bytes(len.min(data.len()))?))
}
