//! Every bound of the daemon, and how they relate. `docs/limits.md` turns them into the worst-case memory.

use fsd_wire::session::SESSION_CHANGE_HEAD_BYTES;
use fsd_wire::{ENTRY_HEADER_BYTES, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX};

/// Bytes of a command before its name.
const COMMAND_HEAD_BYTES: usize = 19;
/// Contents that a file may have unless the configuration says otherwise.
pub const FILE_BYTES_MAX_DEFAULT: u64 = 1024 * 1024;
/// The most that the configuration may allow: an entry with such contents still is one frame and one record.
pub const FILE_BYTES_MAX_LIMIT: u64 = 16 * 1024 * 1024;

/// What a segment needs besides the largest contents: its header, and the record around them.
pub const SEGMENT_OVERHEAD_BYTES: u64 = 16 * 1024;

/// Connections of clients unless the configuration says otherwise.
pub const CLIENTS_MAX_DEFAULT: usize = 10_000;
/// The most that the configuration may allow.
pub const CLIENTS_MAX_LIMIT: usize = 1_000_000;
/// Connections that other nodes may have to this one: one each, and some that are on their way out.
pub const PEER_CONNECTIONS_MAX: usize = 64;
/// Connections to the pages: of their own, so that a scrape needs no client's place and takes no peer's.
pub const HTTP_CONNECTIONS_MAX: usize = 32;
/// Descriptors that a node needs besides its clients': for its peers, in both directions, for its pages, for the
/// segments that are written and made ready, its other files, its listeners, and for saying no to a client that is
/// too many.
pub const OWN_DESCRIPTORS: usize = PEER_CONNECTIONS_MAX + HTTP_CONNECTIONS_MAX + 32;
/// Connections accepted on one listener in one turn; the rest waits for the next.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Requests of one client connection that are not answered yet; beyond, it is not read.
pub const PIPELINED_REQUESTS_MAX: usize = 1024;
/// Bytes of replies that a client has not taken; beyond, it is not read.
pub const CLIENT_OUTPUT_BYTES_PAUSE: usize = 1024 * 1024;
/// Bytes that wait to be written to one peer; beyond, messages to it are dropped, which Raft survives.
pub const PEER_OUTPUT_BYTES_MAX: usize = 2 * REPLICATION_WINDOW_BYTES + PEER_FRAME_BYTES_MAX as usize;
/// Bytes read from one socket in one turn; a socket that has more is read again in the next.
pub const READ_BYTES_PER_TURN_MAX: usize = 1024 * 1024;
/// Messages taken from one socket in one turn.
pub const MESSAGES_PER_TURN_MAX: usize = 1024;
/// Bytes written to one socket in one turn.
pub const WRITE_BYTES_PER_TURN_MAX: usize = 4 * 1024 * 1024;
/// Reads that throw away what comes on a connection that is being closed, in one turn.
pub const LINGER_READS_PER_TURN_MAX: usize = 64;

/// Entries in one AppendEntries.
pub const APPEND_ENTRIES_COUNT_MAX: usize = 4096;
/// Bytes of entries in one AppendEntries, unless a single entry is larger.
pub const APPEND_ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of entries sent to a follower and not yet answered, unless a single entry is larger.
pub const REPLICATION_WINDOW_BYTES: usize = 4 * APPEND_ENTRIES_BYTES_MAX;
/// AppendEntries with entries sent to a follower and not yet answered.
pub const REPLICATION_WINDOW_MESSAGES: usize = 256;
/// Bytes of entries in a leader's log that are not yet committed; beyond, proposals are refused as busy.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Reads that wait for their round of heartbeats, their leader, or the store.
pub const READS_WAITING_MAX: usize = 65_536;
/// Batches of followers' reads that wait at a leader for its store; beyond, one is dropped and asked for again.
pub const PEER_READS_WAITING_MAX: usize = 4096;

/// Entries applied in one turn; the rest follows in the next, so that a long replay does not stall heartbeats.
pub const APPLY_ENTRIES_PER_TURN_MAX: usize = 8192;

/// The body of a frame between peers.
pub const PEER_FRAME_BYTES_MAX: u32 = 20 * 1024 * 1024;
/// The body of a frame from a client.
pub const CLIENT_FRAME_BYTES_MAX: u32 = 17 * 1024 * 1024;
/// The first line of a text command, without its line end.
pub const TEXT_LINE_BYTES_MAX: usize = 500;

/// How long a session lives without a sign of life, in cluster time. In the log with each session that is opened.
pub const SESSION_IDLE_MS: u64 = 60_000;
/// Sessions that there may be; then the one that was used longest ago ends. In the log as well.
pub const SESSIONS_MAX: u32 = 65_536;
/// How far the changes of a session may be ahead of what its client has acknowledged. Not in the log, but part of
/// its format: nodes that differ here would come to different stores.
pub const SESSION_WINDOW: u64 = 1024;
/// What the kept replies of all sessions may count; then the session that was used longest ago ends. Part of the
/// log's format as well.
pub const SESSION_REPLIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a kept reply counts, besides the name in one that tells of a conflict: its place in its session's map, which
/// may be half empty. Part of the log's format as well.
pub const SESSION_REPLY_BYTES: usize = 64;
/// A leader has sessions end at full multiples of this, so that many that are due at about the same time share an entry.
pub const SESSION_END_STEP_MS: u64 = 1000;

/// Bytes of a request for a page, up to the empty line that ends it.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines of a request for a page.
pub const HTTP_HEADERS_MAX: usize = 64;
/// How long the request for a page may take to arrive.
pub const HTTP_REQUEST_MS_MAX: u64 = 10_000;
/// How long a connection to the pages may be silent.
pub const HTTP_IDLE_MS_MAX: u64 = 60_000;
/// How long a node that is asked whether it is ready may take to find out.
pub const READINESS_MS_MAX: u64 = 2_000;
/// While something is to fall due, the log has a stamp at least so often: what all nodes forget if they fail at once.
pub const STAMP_INTERVAL_MS: u64 = 1000;

/// How long a request may wait, whatever its client says.
pub const REQUEST_TIMEOUT_MS_MAX: u64 = 10_000;
/// Files in one reply to a list request.
pub const LIST_FILES_MAX: usize = 1000;
/// Bytes of names in one reply to a list request, unless a single one is longer.
pub const LIST_NAME_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(
    PAYLOAD_BYTES_MAX
        >= SESSION_CHANGE_HEAD_BYTES + COMMAND_HEAD_BYTES + NAME_BYTES_MAX + FILE_BYTES_MAX_LIMIT as usize
);
/// No session ends because of its own replies.
const _: () =
    assert!(SESSION_WINDOW as usize * (SESSION_REPLY_BYTES + NAME_BYTES_MAX) < SESSION_REPLIES_BYTES_MAX);
/// A client that uses all of a connection's requests for changes of one session is not out of its window by that.
const _: () = assert!(SESSION_WINDOW as usize >= PIPELINED_REQUESTS_MAX);
/// A client whose request took as long as one may still has its session.
const _: () = assert!(SESSION_IDLE_MS > 2 * REQUEST_TIMEOUT_MS_MAX);
const _: () = assert!(
    PEER_FRAME_BYTES_MAX as usize >= 1024 + APPEND_ENTRIES_BYTES_MAX + ENTRY_HEADER_BYTES + PAYLOAD_BYTES_MAX
);
const _: () = assert!(CLIENT_FRAME_BYTES_MAX as usize >= 64 + PAYLOAD_BYTES_MAX);
const _: () = assert!(REPLICATION_WINDOW_BYTES >= 2 * APPEND_ENTRIES_BYTES_MAX);
const _: () = assert!(UNCOMMITTED_BYTES_MAX >= 2 * PAYLOAD_BYTES_MAX);
/// A full page fits into a frame, and holds at least one file.
const _: () = assert!(LIST_FILES_MAX * 26 + LIST_NAME_BYTES_MAX + 64 <= CLIENT_FRAME_BYTES_MAX as usize);
const _: () = assert!(LIST_NAME_BYTES_MAX >= NAME_BYTES_MAX);
