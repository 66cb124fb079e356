//! The frame decoder: whatever comes, in whatever pieces, gives the same frames and then the same end; what it
//! accepts encodes to the bytes that it came from; and it holds no more than what arrived.

#![no_main]

use std::mem::discriminant;

use fsd_wire::frame::seal;
use fsd_wire::{Frame, FrameDecoder, FrameError};
use libfuzzer_sys::fuzz_target;

const BODY_BYTES_MAX: u32 = 64 * 1024;

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let (mut frames, mut fed) = (Vec::new(), 0);
    for piece in pieces {
        decoder.feed(piece);
        fed += piece.len();
        assert!(decoder.buffered_bytes() <= fed);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|data: &[u8]| {
    let whole = decode([data]);
    let in_pieces = decode(fsd_fuzz::pieces(data));
    assert_eq!(whole.0.len(), in_pieces.0.len());
    let mut at = 0;
    for (one, other) in whole.0.iter().zip(&in_pieces.0) {
        assert_eq!((one.kind, &one.body), (other.kind, &other.body));
        let again = seal(one.kind, vec![one.body.clone()]).concat();
        assert_eq!(again, data[at..at + again.len()]);
        at += again.len();
    }
    // A bad beginning is told from its first bytes: what is said of it depends on how many there were.
    assert_eq!(whole.1.as_ref().map(discriminant), in_pieces.1.as_ref().map(discriminant));
});
