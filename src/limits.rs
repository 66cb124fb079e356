//! Every bound of the daemon, and how they relate. `docs/limits.md` turns them into the worst-case memory.

use fsd_wire::hello::CLUSTER_NAME_BYTES_MAX;
use fsd_wire::session::SESSION_CHANGE_HEAD_BYTES;
use fsd_wire::store_stream::SESSION_ITEM_BYTES_MAX;
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
/// Clients that are too many and are being told so; further ones are closed with less ceremony.
pub const REFUSED_CONNECTIONS_MAX: usize = 16;
/// Connections to the pages: of their own, so that a scrape needs no client's place and takes no peer's.
pub const HTTP_CONNECTIONS_MAX: usize = 32;
/// Descriptors that a node needs besides its clients': for its peers, in both directions, for its pages, for the
/// segments that are written and made ready, its other files, its listeners, and for saying no to clients that are
/// too many.
pub const OWN_DESCRIPTORS: usize = PEER_CONNECTIONS_MAX + HTTP_CONNECTIONS_MAX + REFUSED_CONNECTIONS_MAX + 32;
/// Connections accepted on one listener in one turn; the rest waits for the next.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;
/// The same on the listener for peers. A new one there takes the place of the oldest that has not said who it is,
/// so that this many and no more are replaced before the others are heard.
pub const PEER_ACCEPTS_PER_TURN_MAX: usize = 16;
/// Members that a cluster may have.
pub const MEMBERS_MAX: usize = 7;

/// Unanswered requests and unsent replies of all clients together, in MiB, unless the configuration says otherwise.
pub const PENDING_MIB_DEFAULT: u64 = 256;
/// The most that the configuration may allow.
pub const PENDING_MIB_LIMIT: u64 = 64 * 1024;
/// What is small enough to use the last quarter of that bound, which large requests and replies leave free.
pub const SMALL_BYTES_MAX: usize = 64 * 1024;
/// What a request counts for beside its own bytes: what the node keeps until it is answered.
pub const REQUEST_OVERHEAD_BYTES: usize = 512;
/// What a piece of output counts for beside its own bytes.
pub const PIECE_OVERHEAD_BYTES: usize = 128;
/// Bytes of clients' requests taken in one turn, all together; the rest is read in the next. A request is in memory
/// for the turn in which it came: then its contents lie in the log.
pub const REQUEST_BYTES_PER_TURN_MAX: usize = 16 * 1024 * 1024;

/// Requests of one client connection that are not answered yet; beyond, it is not read.
pub const PIPELINED_REQUESTS_MAX: usize = 1024;
/// Replies that a client has not taken, with the memory around them; beyond, it is not read.
pub const CLIENT_OUTPUT_BYTES_PAUSE: usize = 1024 * 1024;
/// Bytes that wait to be written to one peer; beyond, messages to it are dropped, which Raft survives.
pub const PEER_OUTPUT_BYTES_MAX: usize = 2 * REPLICATION_WINDOW_BYTES + PEER_FRAME_BYTES_MAX as usize;
/// Bytes read from one socket in one turn; a socket that has more is read again in the next.
pub const READ_BYTES_PER_TURN_MAX: usize = 1024 * 1024;
/// Messages taken from one socket in one turn.
pub const MESSAGES_PER_TURN_MAX: usize = 1024;
/// Bytes written to one socket in one turn.
pub const WRITE_BYTES_PER_TURN_MAX: usize = 4 * 1024 * 1024;
/// How long a connection may take to say who it is.
pub const HELLO_MS_MAX: u64 = 5_000;
/// How long a message that has begun may take, if it does not bring [`MESSAGE_BYTES_MIN`] in this time; with them it
/// has the same time again.
pub const MESSAGE_MS: u64 = 10_000;
/// 16 KiB each second.
pub const MESSAGE_BYTES_MIN: u64 = MESSAGE_MS / 1000 * 16 * 1024;
/// How long a client may ask for nothing while it waits for nothing.
pub const CLIENT_IDLE_MS_MAX: u64 = 5 * 60_000;
/// How long a client may leave its replies, if it does not take [`REPLIES_BYTES_MIN`] of them in this time.
pub const REPLIES_MS: u64 = 30_000;
/// The same for the last replies on a connection that ends.
pub const LAST_REPLIES_MS: u64 = 10_000;
/// About 1 KiB each second.
pub const REPLIES_BYTES_MIN: u64 = 32 * 1024;
/// How long a connection on which all is said may take to hear the other side out.
pub const LINGER_MS_MAX: u64 = 1_000;
/// How long a peer may say nothing on a connection that it opened, on which it says something all the time: later
/// than it would have given up the connection itself.
pub const PEER_SILENCE_MS_MAX: u64 = 6_000;
/// The system asks a silent client's for a sign of life after so long, then so often in such distances.
pub const KEEPALIVE_IDLE_SECONDS: u64 = 60;
/// See [`KEEPALIVE_IDLE_SECONDS`].
pub const KEEPALIVE_INTERVAL_SECONDS: u64 = 15;
/// See [`KEEPALIVE_IDLE_SECONDS`].
pub const KEEPALIVE_PROBES: u32 = 4;
/// Reads that throw away what comes on a connection that is being closed, in one turn.
pub const LINGER_READS_PER_TURN_MAX: usize = 64;

/// What a record of the log takes at most besides its entry.
pub const RECORD_OVERHEAD_BYTES: usize = 32;
/// Payloads of the entries that a node makes by itself: there is always room for one, as long as any can be made.
pub const OWN_ENTRY_BYTES_MAX: usize = 256;
/// Entries in one AppendEntries.
pub const APPEND_ENTRIES_COUNT_MAX: usize = 4096;
/// Bytes of entries in one AppendEntries, unless a single entry is larger.
pub const APPEND_ENTRIES_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of entries that are committed already and are sent in one turn to a follower that lags behind, unless a single entry
/// is larger: reading what is no longer at hand holds up those who wait for what is new.
pub const LAGGING_BYTES_PER_TURN: usize = 256 * 1024;
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

/// Bytes of the store's image that are given out at a time.
pub const IMAGE_SLICE_BYTES: usize = 64 * 1024;
/// A checkpoint is due when the log has grown by this share of what is live, or of a segment if that is more.
pub const CHECKPOINT_AT_LIVE_SHARE: u64 = 8;
/// That share of a segment. A segment that the log has left goes three checkpoints later: before half of the next one
/// is full and a third one is made ready.
pub const CHECKPOINT_AT_SEGMENT_SHARE: u64 = 8;
/// Cleaning makes room for so many times what the log grows by between two checkpoints: so long it is until
/// cleaned segments are gone, and they are more than what the log grew by.
pub const GROWTHS_AHEAD: u64 = 6;
/// Of what the log grows by between two checkpoints, cleaning copies so much at most before the next one.
pub const CLEANED_GROWTHS_MAX: u64 = 3;
/// A segment of which a larger share is live, in 1024ths, is not worth the copying.
pub const CLEANED_SHARE_MAX_OF_1024: u64 = 768;
/// Files that are looked at in one turn: are they in a segment that is cleaned.
pub const FILES_LOOKED_AT_PER_TURN: usize = 4096;
/// Files of which the place is changed in one turn.
pub const FILES_MOVED_PER_TURN: usize = 1024;
/// Bytes that are copied out of segments in one job of the helper's, behind which its other jobs wait.
pub const COPIED_BYTES: usize = 256 * 1024;
/// The same while the data directory takes more than it may: then room comes first.
pub const COPIED_BYTES_LATE: usize = 8 * 1024 * 1024;
/// Where the promise of how much the data directory takes is about to be broken, or a follower about to be left behind,
/// clients' requests are taken as fast as the log would grow by what it does between two checkpoints in this time. Where
/// there is still time, it is faster: with half of the pressure four times as fast.
pub const PACED_GROWTH_MS: u64 = 1000;
/// And so much slower where the promise is broken already.
pub const PACED_WHILE_BROKEN: u64 = 4;
/// Bytes that a turn reads from one connection meanwhile.
pub const PACED_TURN_BYTES: usize = 256 * 1024;
/// A follower that is under such pressure, and is sent more than that, waits for its helper with each turn, but no longer than
/// this, and no longer than half the time between two heartbeats.
pub const PACED_WAIT_MS_MAX: u64 = 20;
/// The log's next segment, if it breaks the promise, is made when no more than this share of the present one is left.
pub const LATE_SEGMENT_AT_SHARE: u64 = 8;
/// The log is kept for a follower that lags while that is less to send than the store. From this share of it on, clients are
/// paced.
pub const LAG_PACED_AT_SHARE: u64 = 4;
/// Whether the data directory takes too much, a node looks each [`ROOM_STEP_MS`], and more seldom the more an image of the
/// store takes: so many of its bytes are written in that time.
pub const SPACE_LOOK_BYTES: u64 = 8 * 1024 * 1024;
/// Checkpoints that are kept: should one be damaged, there is another.
pub const CHECKPOINTS_KEPT: usize = 2;

/// Segments that are kept back when room is short, for deletes and for making room again; with them
/// [`RESERVE_CHECKPOINTS`].
pub const RESERVE_SEGMENTS: u64 = 2;
/// Times the length of the next checkpoint that is kept back: the newest two stay until a third one stands.
pub const RESERVE_CHECKPOINTS: u64 = 2;
/// Segments of the reserve that the log never gets: contents that live are copied into them before others can go.
pub const HOUSEKEEPING_SEGMENTS: u64 = 1;
/// While room is short, a checkpoint is due after this share of the growth that it takes otherwise.
pub const CHECKPOINT_WHILE_LOW_SHARE: u64 = 8;
/// How often a node that has little room asks how much, and tells the others.
pub const ROOM_STEP_MS: u64 = 1000;
/// And how many times less often one that has enough.
pub const ROOM_STEPS_WHILE_ENOUGH: u64 = 10;

/// Bytes of a chunk of a store that is sent to a node: the fewest, on a slow connection.
pub const CHUNK_BYTES_MIN: usize = 8 * 1024;
/// The most: sending one takes no turn for long.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Chunks that are under way to a node: one is written there while the next one travels.
pub const CHUNKS_UNDER_WAY: usize = 2;
/// Chunks that are read ahead of those.
pub const CHUNKS_READ_AHEAD: usize = 2;

/// Backups that are fetched from a node at a time; beyond, one is refused as busy.
pub const BACKUPS_MAX: usize = 4;
/// Bytes of a piece of a backup.
pub const BACKUP_CHUNK_BYTES: usize = 1024 * 1024;
/// How long a client may ask for nothing of its backup.
pub const BACKUP_IDLE_MS_MAX: u64 = 60_000;
/// How often is looked for backups whose clients are gone.
pub const BACKUP_WATCH_MS: u64 = 1000;

/// Entries applied in one turn; the rest follows in the next, so that a long replay does not stall heartbeats.
pub const APPLY_ENTRIES_PER_TURN_MAX: usize = 2048;

/// The body of the first frame on a connection: who is not known yet may send no more than a hello.
pub const HELLO_FRAME_BYTES_MAX: u32 = 1024;
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

/// Changes that a node has passed on to the leader and that are not answered yet; the rest waits its turn.
pub const FORWARDED_CHANGES_MAX: usize = 512;
/// Bytes of those, unless a single one is larger.
pub const FORWARDED_BYTES_MAX: usize = 1024 * 1024;
/// What was under way for the whole of such a round without an answer is passed on again, then after two more rounds, after four,
/// and so on.
pub const FORWARD_ROUND_MS: u64 = 1000;

/// How long a request may wait, whatever its client says.
pub const REQUEST_TIMEOUT_MS_MAX: u64 = 10_000;
/// Files in one reply to a list request.
pub const LIST_FILES_MAX: usize = 1000;
/// Bytes of names in one reply to a list request, unless a single one is longer.
pub const LIST_NAME_BYTES_MAX: usize = 64 * 1024;

/// What any node needs: its code, its tables while they are empty, its poll, the buffers of its log.
const OWN_MEMORY_BYTES: u64 = 64 * MIB;
/// What another node may have on its way to and from this one: what waits to be written to it, and a frame that has
/// begun, in a buffer that may be twice as large.
const PEER_MEMORY_BYTES: u64 = PEER_OUTPUT_BYTES_MAX as u64 + 3 * PEER_FRAME_BYTES_MAX as u64;
/// A connection on which nothing is held: its own state, its place in tables, and the smallest buffer.
const CONNECTION_MEMORY_BYTES: u64 = 8 * 1024;
/// The requests of a turn, each of which may keep a buffer of eight times its size, and the one that ends the turn,
/// in a buffer that may be twice as large.
const TURN_MEMORY_BYTES: u64 = 8 * REQUEST_BYTES_PER_TURN_MAX as u64 + 2 * CLIENT_FRAME_BYTES_MAX as u64;
/// A backup that is fetched: the piece that was asked for last, in a buffer that may be twice as large, and what is read
/// of the checkpoint at a time. (The contents are mapped.)
const BACKUP_MEMORY_BYTES: u64 = 2 * (BACKUP_CHUNK_BYTES as u64 + SESSION_ITEM_BYTES_MAX as u64);
const MIB: u64 = 1024 * 1024;

/// The least that the bound on what is pending may be where files may be so large.
#[must_use]
pub const fn pending_bytes_min(max_file_bytes: u64) -> u64 {
    4 * max_file_bytes + MIB
}

/// The memory that a node needs at most, in bytes, beside its index of the files, the positions of its log's entries, and
/// the mapped log, which is the page cache's. What is pending counts for half as much again, which is what an allocator
/// may lose between pieces.
#[must_use]
pub const fn memory_bytes_max(members: u64, max_clients: u64, max_pending_bytes: u64) -> u64 {
    OWN_MEMORY_BYTES
        + (members - 1) * PEER_MEMORY_BYTES
        + max_clients * CONNECTION_MEMORY_BYTES
        + TURN_MEMORY_BYTES
        + BACKUPS_MAX as u64 * BACKUP_MEMORY_BYTES
        + max_pending_bytes * 3 / 2
}

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
/// Whoever replaces another at the peers' port leaves room for all that were heard, and for those of this turn.
const _: () = assert!(2 * MEMBERS_MAX + 2 * PEER_ACCEPTS_PER_TURN_MAX <= PEER_CONNECTIONS_MAX);
const _: () = assert!(SMALL_BYTES_MAX > 2 * NAME_BYTES_MAX + REQUEST_OVERHEAD_BYTES);
const _: () = assert!(HELLO_FRAME_BYTES_MAX as usize >= CLUSTER_NAME_BYTES_MAX + 64);
/// Any request may be taken on an otherwise idle node, in a buffer twice as large as it, also under the smallest bound
/// that [`pending_bytes_min`] allows: large things may use three quarters of it.
const _: () =
    assert!(pending_bytes_min(FILE_BYTES_MAX_LIMIT) / 4 * 3 >= 2 * (PAYLOAD_BYTES_MAX as u64 + 256 * 1024));
/// Deletes can use a part of the reserve.
const _: () = assert!(HOUSEKEEPING_SEGMENTS < RESERVE_SEGMENTS);
/// What a node has passed on fits into its session.
const _: () = assert!((FORWARDED_CHANGES_MAX as u64) < SESSION_WINDOW);
/// A change that is passed on, and the reply to it, fit into a frame between peers.
const _: () = assert!(PEER_FRAME_BYTES_MAX as usize >= CLIENT_FRAME_BYTES_MAX as usize + 2);
/// A piece of a backup fits into a frame, and may be sent on an otherwise idle node under the smallest bound on what is
/// pending that a configuration in whole MiB can have.
const _: () = assert!(BACKUP_CHUNK_BYTES + 1024 <= CLIENT_FRAME_BYTES_MAX as usize);
const _: () = assert!(pending_bytes_min(1).next_multiple_of(MIB) / 4 * 3 >= BACKUP_CHUNK_BYTES as u64 + 1024);
/// A client that waits for a piece and asks again is never idle.
const _: () = assert!(BACKUP_IDLE_MS_MAX > 2 * REQUEST_TIMEOUT_MS_MAX);
