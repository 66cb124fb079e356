//! The bytes that `fsd` nodes and their clients exchange, and that its log consists of.
//!
//! This crate performs no I/O and reads no clock. `docs/wire-format.md` describes the formats to the byte;
//! golden vectors under `tests/` pin them.

pub mod client;
pub mod codec;
pub mod command;
mod description;
pub mod entry;
pub mod error;
pub mod frame;
pub mod hello;
pub mod peer;
pub mod receive_buffer;
pub mod session;
pub mod snapshot;
mod status;
pub mod store_stream;
pub mod stream_check;
pub mod types;

pub use command::{Command, NAME_BYTES_MAX, Operation};
pub use entry::{ENTRY_HEADER_BYTES, Entry, EntryKind, Genesis, PAYLOAD_BYTES_MAX, Payload, Register};
pub use error::{DecodeError, FrameError};
pub use frame::{Frame, FrameDecoder};
pub use receive_buffer::ReceiveBuffer;
pub use session::SessionCommand;
pub use types::{
    ClusterId, ClusterTimeMs, EntryId, Incarnation, Life, LogIndex, NodeId, RequestId, Sequence, SessionId,
    Term, Version,
};

/// A message that can be put into a frame.
pub trait Message {
    /// Its number in the frame's header.
    fn kind(&self) -> u16;

    /// Appends its body.
    fn encode_body(&self, out: &mut codec::Writer);

    /// The whole frame, in pieces for a gathering write: the header first, large contents shared.
    fn to_frame(&self) -> Vec<bytes::Bytes> {
        let mut body = codec::Writer::new();
        self.encode_body(&mut body);
        frame::seal(self.kind(), body.into_pieces())
    }
}
