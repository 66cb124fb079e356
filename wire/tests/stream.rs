//! A stream of frames gives the same frames however it is cut into pieces.

mod common;

use common::{BODY_BYTES_MAX, messages};
use fsd_wire::{Frame, FrameDecoder, FrameError, frame};
use proptest::prelude::*;

fn drain(decoder: &mut FrameDecoder, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(())
}

/// Lets the decoder read `piece` in as many reads as it makes room for.
fn read_into(decoder: &mut FrameDecoder, mut piece: &[u8]) {
    while !piece.is_empty() {
        let count = decoder
            .feed_from(|room| {
                let count = room.len().min(piece.len());
                room[..count].copy_from_slice(&piece[..count]);
                Ok::<_, ()>(count)
            })
            .expect("memory does not fail");
        piece = &piece[count..];
    }
}

fn all_messages() -> (Vec<u8>, Vec<Frame>) {
    let mut stream = Vec::new();
    let mut frames = Vec::new();
    for (_, message) in messages() {
        let bytes = message.encode();
        let body = bytes[frame::HEADER_BYTES..].to_vec().into();
        frames.push(Frame { kind: message.kind(), body });
        stream.extend_from_slice(&bytes);
    }
    (stream, frames)
}

#[test]
fn several_frames_in_one_feed_come_in_their_order() {
    let (stream, expected) = all_messages();
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    decoder.feed(&stream);
    let mut frames = Vec::new();
    assert_eq!(drain(&mut decoder, &mut frames), Ok(()));
    assert_eq!(frames, expected);
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn single_bytes_give_the_same_frames() {
    let (stream, expected) = all_messages();
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    let mut frames = Vec::new();
    for byte in &stream {
        decoder.feed(std::slice::from_ref(byte));
        assert_eq!(drain(&mut decoder, &mut frames), Ok(()));
    }
    assert_eq!(frames, expected);
}

#[test]
fn frames_before_a_broken_one_are_still_given_out() {
    let (mut stream, expected) = all_messages();
    stream.extend_from_slice(b"fsd1 but no more");
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    decoder.feed(&stream);
    let mut frames = Vec::new();
    assert_eq!(drain(&mut decoder, &mut frames), Err(FrameError::HeaderCrc));
    assert_eq!(frames, expected);
    assert_eq!(decoder.next_frame(), Err(FrameError::HeaderCrc));
}

#[test]
fn the_end_of_a_stream_is_zero_bytes() {
    let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
    assert_eq!(decoder.feed_from(|_| Ok::<_, ()>(0)), Ok(0));
    assert_eq!(decoder.feed_from(|_| Err("reset")), Err("reset"));
    assert_eq!(decoder.next_frame(), Ok(None));
}

proptest! {
    #[test]
    fn any_cuts_give_the_same_frames(
        bodies in prop::collection::vec((any::<u16>(), prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (any::<u8>(), 0usize..100_000).prop_map(|(byte, len)| vec![byte; len]),
        ]), 0..12),
        pieces in prop::collection::vec((prop_oneof![1usize..40, 1usize..70_000], any::<bool>(), any::<bool>()), 1..40),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (kind, body) in bodies {
            stream.extend_from_slice(&frame::seal(kind, vec![body.clone().into()]).concat());
            expected.push(Frame { kind, body: body.into() });
        }
        let mut decoder = FrameDecoder::new(BODY_BYTES_MAX);
        let mut frames = Vec::new();
        let mut rest = &stream[..];
        for (len, copies, drains) in pieces.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*len));
            rest = behind;
            if *copies { decoder.feed(piece) } else { read_into(&mut decoder, piece) }
            if *drains || rest.is_empty() {
                prop_assert_eq!(drain(&mut decoder, &mut frames), Ok(()));
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(frames, expected);
        prop_assert_eq!(decoder.buffered_bytes(), 0);
    }
}
