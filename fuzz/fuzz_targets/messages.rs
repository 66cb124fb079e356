//! Every decoder of messages and payloads: the first byte chooses, the rest is the body. What decodes encodes to
//! the same bytes.

#![no_main]

use bytes::Bytes;
use fsd_wire::client::{ClientReply, ClientRequest};
use fsd_wire::hello::{Hello, HelloReply};
use fsd_wire::peer::PeerMessage;
use fsd_wire::{Command, Entry, Frame, Genesis, Message, Payload, Register};
use libfuzzer_sys::fuzz_target;

fn check<M: Message, E>(decoded: Result<M, E>, frame: &Frame) {
    if let Ok(message) = decoded {
        assert_eq!(message.kind(), frame.kind);
        let again = message.to_frame().concat();
        assert_eq!(again[fsd_wire::frame::HEADER_BYTES..], frame.body);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    // All kinds there are lie below.
    let frame = Frame { kind: u16::from(*kind % 64), body: body.clone() };
    check(Hello::decode(&frame), &frame);
    check(HelloReply::decode(&frame), &frame);
    check(PeerMessage::decode(&frame), &frame);
    check(ClientRequest::decode(&frame), &frame);
    check(ClientReply::decode(&frame), &frame);
    let payload = Payload::from(body.clone());
    if let Ok(command) = Command::decode(&payload) {
        assert_eq!(command.encode().to_bytes(), body);
    }
    if let Ok(genesis) = Genesis::decode(&payload) {
        assert_eq!(genesis.encode().to_bytes(), body);
    }
    if let Ok(register) = Register::decode(&payload) {
        assert_eq!(register.encode().to_bytes(), body);
    }
    if let Ok(entry) = Entry::decode(&mut fsd_wire::codec::Reader::new(body.clone())) {
        let mut out = fsd_wire::codec::Writer::new();
        entry.encode(&mut out);
        assert!(body.starts_with(&out.into_pieces().concat()));
    }
});
