//! The text protocol's decoder: the same events in whatever pieces the bytes come, and no more held than the
//! longest line and the largest contents.

#![no_main]

use fsd::net::text_protocol::{TextDecoder, TextEvent};
use libfuzzer_sys::fuzz_target;

const FILE_BYTES_MAX: u64 = 300;

fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<TextEvent> {
    let mut decoder = TextDecoder::new(FILE_BYTES_MAX);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        while let Some(event) = decoder.next_event() {
            if let TextEvent::Error { error, .. } = &event {
                let reply = error.to_reply();
                assert!(reply.ends_with(b"\r\n") && !reply[..reply.len() - 2].contains(&b'\n'));
            }
            let closes = matches!(event, TextEvent::Error { close: true, .. });
            events.push(event);
            if closes {
                assert!(decoder.next_event().is_none());
                return events;
            }
        }
        assert!(decoder.buffered_bytes() <= 500 + 2 + FILE_BYTES_MAX as usize + 2 + piece.len());
    }
    events
}

fuzz_target!(|data: &[u8]| {
    assert_eq!(decode([data]), decode(fsd_fuzz::pieces(data)));
});
