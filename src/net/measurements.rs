//! What the network measures: connections by who is on the other side, and why some were given up.

use std::fmt;

use fsd_wire::{DecodeError, FrameError};

use super::connection::Session;
use super::{ListenerKind, Net, PeerLink};
use crate::limits;
use crate::metrics::{Page, definitions};

/// Who is on the other side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// A peer that connected.
    Peer,
    /// A peer that this node connected to.
    Dialled,
    /// A client of the binary protocol.
    Client,
    /// A client of the text protocol.
    Text,
    /// A reader of the pages.
    Http,
}

impl Side {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Peer, "peer"),
        (Self::Dialled, "dialled"),
        (Self::Client, "client"),
        (Self::Text, "text"),
        (Self::Http, "http"),
    ];

    pub(super) fn of(session: &Session) -> Self {
        match session {
            Session::Accepted { .. } => Self::Peer,
            Session::Dialled { .. } => Self::Dialled,
            Session::Client { .. } => Self::Client,
            Session::Text(_) => Self::Text,
            Session::Http(_) => Self::Http,
            Session::Refused(kind) => (*kind).into(),
        }
    }

    /// What can be wrong with what comes from there.
    fn breaches(self) -> &'static [Breach] {
        match self {
            Self::Peer | Self::Dialled | Self::Client => Breach::FRAMED,
            Self::Text => &[Breach::TextCommand],
            Self::Http => &[Breach::HttpRequest],
        }
    }
}

impl From<ListenerKind> for Side {
    fn from(kind: ListenerKind) -> Self {
        match kind {
            ListenerKind::Peer => Self::Peer,
            ListenerKind::Client => Self::Client,
            ListenerKind::Text => Self::Text,
            ListenerKind::Http => Self::Http,
        }
    }
}

/// A class of what breaks a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    NoFrame,
    Version,
    HeaderCrc,
    TooLong,
    BodyCrc,
    UnknownKind,
    EntryCrc,
    Malformed,
    TextCommand,
    HttpRequest,
}

impl Breach {
    const COUNT: usize = Self::HttpRequest as usize + 1;
    const FRAMED: &[Self] = &[
        Self::NoFrame,
        Self::Version,
        Self::HeaderCrc,
        Self::TooLong,
        Self::BodyCrc,
        Self::UnknownKind,
        Self::EntryCrc,
        Self::Malformed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::NoFrame => "no_frame",
            Self::Version => "version",
            Self::HeaderCrc => "header_crc",
            Self::TooLong => "too_long",
            Self::BodyCrc => "body_crc",
            Self::UnknownKind => "unknown_kind",
            Self::EntryCrc => "entry_crc",
            Self::Malformed => "malformed",
            Self::TextCommand => "text_command",
            Self::HttpRequest => "http_request",
        }
    }
}

/// Why bytes from the other side were not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProtocolError {
    Frame(FrameError),
    Message(DecodeError),
}

impl ProtocolError {
    pub(super) fn breach(self) -> Breach {
        match self {
            Self::Frame(FrameError::BadMagic { .. }) => Breach::NoFrame,
            Self::Frame(FrameError::UnsupportedVersion { .. }) => Breach::Version,
            Self::Frame(FrameError::HeaderCrc) => Breach::HeaderCrc,
            Self::Frame(FrameError::BodyTooLong { .. }) => Breach::TooLong,
            Self::Frame(FrameError::BodyCrc) => Breach::BodyCrc,
            Self::Message(DecodeError::UnknownKind { .. }) => Breach::UnknownKind,
            Self::Message(DecodeError::EntryCrc { .. }) => Breach::EntryCrc,
            Self::Message(_) => Breach::Malformed,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => error.fmt(f),
            Self::Message(error) => error.fmt(f),
        }
    }
}

/// Counts since the process started.
#[derive(Debug, Default)]
pub(super) struct Measurements {
    accepted: [u64; Side::ALL.len()],
    refused: [u64; Side::ALL.len()],
    closed: [u64; Side::ALL.len()],
    broken: [[u64; Breach::COUNT]; Side::ALL.len()],
}

impl Measurements {
    pub(super) fn accepted(&mut self, side: Side) {
        self.accepted[side as usize] += 1;
    }

    pub(super) fn refused(&mut self, side: Side) {
        self.refused[side as usize] += 1;
    }

    pub(super) fn closed(&mut self, side: Side) {
        self.closed[side as usize] += 1;
    }

    pub(super) fn broken(&mut self, side: Side, breach: Breach) {
        self.broken[side as usize][breach as usize] += 1;
    }
}

impl Net {
    /// Writes what the network knows of its connections.
    pub fn write_metrics(&self, page: &mut Page) {
        page.family(&definitions::PEER_CONNECTED);
        for (node, link) in &self.links {
            let connected = PeerLink::open_connection(link).is_some();
            page.sample(&[("node", &node.to_string())], u64::from(connected));
        }
        let mut open = [0; Side::ALL.len()];
        let mut unsent_bytes = [0; Side::ALL.len()];
        for (_, connection) in &self.connections {
            if matches!(connection.session, Session::Refused(_)) {
                continue;
            }
            let side = Side::of(&connection.session) as usize;
            open[side] += 1;
            unsent_bytes[side] += connection.output.bytes() as u64;
        }
        by_side(page, &definitions::CONNECTIONS, |side| open[side as usize]);
        self.write_connection_bounds(page);
        // This node is the one that opens those to its peers.
        let incoming = |side| side != Side::Dialled;
        let Measurements { accepted, refused, closed, .. } = &self.measurements;
        page.family(&definitions::CONNECTIONS_ACCEPTED);
        samples(page, incoming, |side| accepted[side as usize]);
        page.family(&definitions::CONNECTIONS_REFUSED);
        samples(page, incoming, |side| refused[side as usize]);
        by_side(page, &definitions::CONNECTIONS_CLOSED, |side| closed[side as usize]);
        page.family(&definitions::PROTOCOL_ERRORS);
        for (side, name) in Side::ALL {
            for breach in side.breaches() {
                let count = self.measurements.broken[side as usize][*breach as usize];
                page.sample(&[("side", name), ("reason", breach.name())], count);
            }
        }
        by_side(page, &definitions::UNSENT_BYTES, |side| unsent_bytes[side as usize]);
        page.family(&definitions::UNSENT_BYTES_MAX);
        for (name, bytes) in [
            ("dialled", limits::PEER_OUTPUT_BYTES_MAX),
            ("client", limits::CLIENT_OUTPUT_BYTES_PAUSE),
            ("text", limits::CLIENT_OUTPUT_BYTES_PAUSE),
        ] {
            page.sample(&[("side", name)], bytes as u64);
        }
        page.value(&definitions::PENDING_BYTES, self.budget.held_bytes() as u64);
        page.value(&definitions::PACED_TURNS, self.pacer.turns);
        page.value(&definitions::PENDING_BYTES_MAX, self.settings.max_pending_bytes as u64);
    }

    fn write_connection_bounds(&self, page: &mut Page) {
        page.family(&definitions::CONNECTIONS_MAX);
        for (name, count) in [
            ("peer", limits::PEER_CONNECTIONS_MAX),
            ("client", self.settings.max_clients),
            ("text", self.settings.max_clients),
            ("http", limits::HTTP_CONNECTIONS_MAX),
        ] {
            page.sample(&[("side", name)], count as u64);
        }
    }
}

fn by_side(page: &mut Page, definition: &'static crate::metrics::Definition, value: impl Fn(Side) -> u64) {
    page.family(definition);
    samples(page, |_| true, value);
}

fn samples(page: &mut Page, wanted: impl Fn(Side) -> bool, value: impl Fn(Side) -> u64) {
    for (side, name) in Side::ALL.into_iter().filter(|(side, _)| wanted(*side)) {
        page.sample(&[("side", name)], value(side));
    }
}
