//! What only the decoder's own fields show: how much memory it holds. The rest is in `tests/`.

use super::*;

const BODY_BYTES_MAX: u32 = 17 * 1024 * 1024;

fn frame(kind: u16, body_bytes: usize) -> Vec<u8> {
    seal(kind, vec![vec![7; body_bytes].into()]).concat()
}

fn take(decoder: &mut FrameDecoder) -> Frame {
    decoder.next_frame().expect("good bytes").expect("a whole frame")
}

fn feed_in_chunks(decoder: &mut FrameDecoder, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        decoder
            .feed_from(|room| {
                let count = room.len().min(bytes.len());
                room[..count].copy_from_slice(&bytes[..count]);
                bytes = &bytes[count..];
                Ok::<_, ()>(count)
            })
            .expect("memory does not fail");
    }
}

#[test]
fn an_idle_connection_holds_no_memory() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    for body_bytes in [0, 60, 5000, 3 * 1024 * 1024] {
        feed_in_chunks(&mut decoder, &frame(3, body_bytes));
        take(&mut decoder);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.buffer.allocated_bytes(), 0, "after a body of {body_bytes} bytes");
        // A spurious wake-up reads nothing and leaves nothing.
        assert_eq!(decoder.feed_from(|_| Err("would block")), Err("would block"));
        assert_eq!(decoder.buffer.allocated_bytes(), 0);
    }
}

#[test]
fn the_beginning_of_a_frame_does_not_keep_the_frame_before_it_alive() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let mut bytes = frame(3, 3 * 1024 * 1024);
    bytes.extend_from_slice(&frame(3, 60)[..10]);
    feed_in_chunks(&mut decoder, &bytes);
    let large = take(&mut decoder);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert_eq!(decoder.buffered_bytes(), 10);
    assert!(decoder.buffer.allocated_bytes() <= 4096);
    // Nobody else refers to the large buffer any more: it can be taken back whole.
    assert!(large.body.is_unique());
    feed_in_chunks(&mut decoder, &frame(3, 60)[10..]);
    assert_eq!(take(&mut decoder).body, vec![7; 60]);
}

#[test]
fn a_small_body_does_not_keep_a_large_buffer_alive() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let mut bytes = frame(3, 60);
    for _ in 0..1000 {
        bytes.extend_from_slice(&frame(3, 200));
    }
    feed_in_chunks(&mut decoder, &bytes);
    let first = take(&mut decoder);
    assert!(
        first.body.is_unique(),
        "a body of 60 bytes shares a buffer of {}",
        decoder.buffer.allocated_bytes()
    );
    for _ in 0..1000 {
        assert_eq!(take(&mut decoder).body, vec![7; 200]);
    }
}

#[test]
fn large_contents_are_not_copied() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    feed_in_chunks(&mut decoder, &frame(3, 1024 * 1024));
    let body_at = decoder.buffer[HEADER_BYTES..].as_ptr();
    assert_eq!(take(&mut decoder).body.as_ptr(), body_at);
}

#[test]
fn memory_grows_with_what_has_arrived_not_with_a_length() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let bytes = frame(3, BODY_BYTES_MAX as usize);
    let (header, mut body) = bytes.split_at(HEADER_BYTES);
    feed_in_chunks(&mut decoder, header);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.buffer.allocated_bytes() <= 4096, "{}", decoder.buffer.allocated_bytes());
    while !body.is_empty() {
        let (chunk, rest) = body.split_at(body.len().min(100_000));
        body = rest;
        assert_eq!(decoder.next_frame(), Ok(None));
        feed_in_chunks(&mut decoder, chunk);
        let bound = 2 * (decoder.buffered_bytes() + 256 * 1024);
        assert!(decoder.buffer.allocated_bytes() <= bound, "{}", decoder.buffer.allocated_bytes());
    }
    assert_eq!(take(&mut decoder).body.len(), BODY_BYTES_MAX as usize);
}

#[test]
fn an_error_is_final_and_holds_no_memory() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    decoder.feed(b"GET / HTTP/1.1\r\n");
    let error = decoder.next_frame().expect_err("not a frame");
    assert_eq!(error, FrameError::BadMagic { found: u32::from_le_bytes(*b"GET ") });
    for _ in 0..3 {
        decoder.feed(&frame(3, 100_000));
        feed_in_chunks(&mut decoder, &frame(3, 100_000));
        assert_eq!(decoder.next_frame(), Err(error));
        assert_eq!((decoder.buffered_bytes(), decoder.buffer.allocated_bytes()), (0, 0));
    }
}

#[test]
fn a_frame_leaves_in_few_pieces_and_shares_what_is_large() {
    let fields = Bytes::from(vec![1; 30]);
    let contents = Bytes::from(vec![2; 100_000]);
    let pieces = seal(34, vec![fields, contents.clone()]);
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0].len(), HEADER_BYTES + 30);
    assert_eq!(pieces[1].as_ptr(), contents.as_ptr());

    let pieces = seal(34, vec![contents.clone()]);
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[1].as_ptr(), contents.as_ptr());

    assert_eq!(seal(3, Vec::new()).len(), 1);
}

#[test]
fn the_frame_crc_ties_the_body_to_its_header() {
    // The header of one good frame before the body of another of the same length.
    let mut mixed = frame(3, 60);
    mixed[..FRAME_CRC_AT].copy_from_slice(&frame(4, 60)[..FRAME_CRC_AT]);
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    decoder.feed(&mixed);
    assert_eq!(decoder.next_frame(), Err(FrameError::BodyCrc));
}

#[test]
fn a_frame_that_is_given_up_gives_its_memory_back_and_hides_nothing_behind_it() {
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let given_up = seal(3, vec![body.into()]).concat();
    let behind = frame(4, 60);
    let bytes = [&given_up[..], &behind[..]].concat();
    for begun in [HEADER_BYTES + 8, HEADER_BYTES + 9, 50_000, given_up.len() - 1] {
        let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
        decoder.feed(&bytes[..HEADER_BYTES + 7]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.skip_frame::<8>(), None, "its first bytes are not there yet");
        decoder.feed(&bytes[HEADER_BYTES + 7..begun]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert_eq!(decoder.skip_frame(), Some([0, 1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(decoder.allocated_bytes(), 0);
        assert_eq!(decoder.skip_frame::<8>(), None, "it is given up once");
        for chunk in bytes[begun..].chunks(30_000) {
            assert!(decoder.is_amid_frame());
            assert_eq!(decoder.next_frame(), Ok(None));
            decoder.feed(chunk);
        }
        assert_eq!(take(&mut decoder), Frame { kind: 4, body: vec![7; 60].into() });
        assert!(!decoder.is_amid_frame());
    }
}
