//! All metrics that a node has. `docs/metrics.md` says what they are good for; a test holds the two together.

use super::{Definition, Kind, Unit};

/// Microseconds: from what one flush of a fast disk takes to what a client waits at most.
const DURATION_BOUNDS: &[u64] = &[
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// Entries or requests that share one flush or one round.
const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];
/// Bytes that share one flush.
const BYTES_BOUNDS: &[u64] =
    &[256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];

const fn gauge(name: &'static str, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Gauge, help }
}

const fn counter(name: &'static str, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Counter, help }
}

const fn durations(name: &'static str, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Histogram { bounds: DURATION_BOUNDS, unit: Unit::Microseconds }, help }
}

const fn sizes(name: &'static str, bounds: &'static [u64], help: &'static str) -> Definition {
    Definition { name, kind: Kind::Histogram { bounds, unit: Unit::Whole }, help }
}

/// Which node this is.
pub static NODE_INFO: Definition =
    gauge("fsd_node_info", "Always 1; the labels name the cluster, the node and the release.");
/// Since when it runs.
pub static UPTIME: Definition = gauge("fsd_uptime_seconds", "How long the process has been running.");
/// The length of turns.
pub static TURN_DURATION: Definition = durations(
    "fsd_turn_duration_seconds",
    "Time of a turn of the loop, from the end of its wait to the beginning of the next.",
);
/// Room on the disk.
pub static DISK_FREE: Definition = gauge(
    "fsd_disk_free_bytes",
    "Bytes free for the node on the file system of its data directory; absent if it cannot be told.",
);
/// Its size.
pub static DISK_SIZE: Definition = gauge(
    "fsd_disk_size_bytes",
    "Size of the file system of the data directory; absent if it cannot be told.",
);

/// Its role.
pub static ROLE: Definition = gauge("fsd_role", "1 for the role that the node has, 0 for the others.");
/// Its term.
pub static TERM: Definition = gauge("fsd_term", "The node's Raft term.");
/// Who leads.
pub static LEADER: Definition = gauge(
    "fsd_leader",
    "The number of the node that leads, as far as this one knows; 0 while it knows none.",
);
/// How often that changed.
pub static LEADER_CHANGES: Definition = counter(
    "fsd_leader_changes_total",
    "How often this node has learned of a leader of another term, the first one included.",
);
/// How far the log is committed.
pub static COMMIT_INDEX: Definition =
    gauge("fsd_commit_index", "The last log entry that the node knows to be committed.");
/// How far it is applied.
pub static APPLIED_INDEX: Definition =
    gauge("fsd_applied_index", "The last log entry that is applied to the node's files.");
/// How far it goes.
pub static LAST_LOG_INDEX: Definition = gauge("fsd_log_last_index", "The last entry of the node's log.");
/// How far each follower is behind.
pub static PEER_LAG: Definition = gauge(
    "fsd_peer_lag_entries",
    "On the leader: entries of its log that are not known to be on this peer's disk. Absent on other nodes.",
);
/// What waits for a majority.
pub static UNCOMMITTED_BYTES: Definition = gauge(
    "fsd_uncommitted_bytes",
    "On the leader: bytes of entries of its term that are not yet committed; 0 on other nodes.",
);
/// Its bound.
pub static UNCOMMITTED_BYTES_MAX: Definition = gauge(
    "fsd_uncommitted_bytes_max",
    "The bound on fsd_uncommitted_bytes; beyond it changes are refused as busy.",
);

/// The time of a flush.
pub static FLUSH_DURATION: Definition =
    durations("fsd_flush_duration_seconds", "Time of a flush of the log, which all changes of a turn share.");
/// The bytes of a flush.
pub static FLUSH_BYTES: Definition =
    sizes("fsd_flush_bytes", BYTES_BOUNDS, "Bytes of the entries that a flush of the log made durable.");
/// The entries of a flush.
pub static FLUSH_ENTRIES: Definition =
    sizes("fsd_flush_entries", BATCH_BOUNDS, "Entries that a flush of the log made durable.");
/// The time of storing term and vote.
pub static HARD_STATE_DURATION: Definition = durations(
    "fsd_hard_state_store_duration_seconds",
    "Time of storing and flushing term, vote and what is known of the peers' disks.",
);
/// The reads of a round.
pub static READ_BATCH: Definition = sizes(
    "fsd_read_batch_requests",
    BATCH_BOUNDS,
    "Reads that share one confirmation that the leader still leads.",
);

/// The log's files.
pub static LOG_SEGMENTS: Definition =
    gauge("fsd_log_segments", "Segments of the log, without one that is made ready.");
/// How full the last one is.
pub static LAST_SEGMENT_USED: Definition =
    gauge("fsd_log_last_segment_used_bytes", "Bytes that are used in the log's last segment.");
/// Their size.
pub static LOG_BYTES: Definition =
    gauge("fsd_log_bytes", "Bytes of the log's segments on the disk, with one that is made ready.");
/// Segments that are no part of the log.
pub static CONTENTS_SEGMENTS: Definition = gauge(
    "fsd_contents_segments",
    "Segments that are no part of the log, or not any more, and stay for the contents of files in them.",
);
/// Their size.
pub static CONTENTS_BYTES: Definition =
    gauge("fsd_contents_bytes", "Bytes of the segments that stay for the contents in them alone.");
/// What is live of all segments.
pub static LIVE_BYTES: Definition = gauge(
    "fsd_live_bytes",
    "Bytes of all segments that are still the contents of files, with their names and what records take.",
);
/// All files of the data directory.
pub static DATA_BYTES: Definition =
    gauge("fsd_data_bytes", "Bytes of all files in the data directory; absent if it cannot be told.");
/// Checkpoints.
pub static CHECKPOINTS: Definition =
    gauge("fsd_checkpoints", "Checkpoints that stand; the newest two are kept.");
/// Their size.
pub static CHECKPOINT_BYTES: Definition =
    gauge("fsd_checkpoint_bytes", "Bytes of the checkpoints that stand.");
/// How far the newest one goes.
pub static CHECKPOINT_INDEX: Definition =
    gauge("fsd_checkpoint_index", "The log entry as of which the newest checkpoint is; 0 if there is none.");
/// Its size.
pub static CHECKPOINT_NEWEST_BYTES: Definition =
    gauge("fsd_checkpoint_newest_bytes", "Bytes of the newest checkpoint; 0 if there is none.");
/// The time of a checkpoint.
pub static CHECKPOINT_DURATION: Definition = durations(
    "fsd_checkpoint_duration_seconds",
    "Time from the beginning of a checkpoint of the node's own store until it stands.",
);
/// Files.
pub static FILES: Definition = gauge("fsd_files", "Files in the node's store.");
/// The revision counter.
pub static REVISION: Definition =
    gauge("fsd_revision", "The store's revision counter: how many changes were ever made.");

/// Sessions.
pub static SESSIONS: Definition = gauge("fsd_sessions", "Sessions of clients that have not ended.");
/// Their bound.
pub static SESSIONS_MAX: Definition =
    gauge("fsd_sessions_max", "Bound on sessions; beyond, the one that was used longest ago ends.");

/// Whether room is short.
pub static DISK_LOW: Definition = gauge(
    "fsd_disk_low",
    "1 while so little room is left on the disk that what makes files grow is refused where this node leads, else 0.",
);
/// Below which that is so.
pub static DISK_RESERVE: Definition = gauge(
    "fsd_disk_reserve_bytes",
    "Bytes of the disk that are kept back for deletes, checkpoints and cleaning; with less left the node is low.",
);

/// Requests.
pub static REQUESTS: Definition = counter(
    "fsd_requests_total",
    "Requests of clients that were answered, by what they asked for and by their outcome.",
);
/// Their time.
pub static REQUEST_DURATION: Definition = durations(
    "fsd_request_duration_seconds",
    "Time from the turn in which a request came to its answer, by kind and by whether it was done, refused or is unknown.",
);
/// Requests that wait.
pub static REQUESTS_WAITING: Definition = gauge(
    "fsd_requests_waiting",
    "Requests that wait: changes for a majority, reads for their confirmation or for the log.",
);
/// Their bound.
pub static READS_WAITING_MAX: Definition =
    gauge("fsd_reads_waiting_max", "The bound on waiting reads; beyond it they are refused as busy.");

/// To whom the node can send.
pub static PEER_CONNECTED: Definition =
    gauge("fsd_peer_connected", "1 while the connection that this node opened to the peer stands, else 0.");

/// Connections.
pub static CONNECTIONS: Definition = gauge(
    "fsd_connections",
    "Open connections, by who is on the other side; \"dialled\" are those that this node opened to its peers.",
);
/// Their bounds.
pub static CONNECTIONS_MAX: Definition =
    gauge("fsd_connections_max", "The bound on connections; client and text connections share one.");
/// Connections that came.
pub static CONNECTIONS_ACCEPTED: Definition =
    counter("fsd_connections_accepted_total", "Connections that were accepted and served.");
/// Connections that were too many.
pub static CONNECTIONS_REFUSED: Definition =
    counter("fsd_connections_refused_total", "Connections that were closed at once, being too many.");
/// Connections that ended.
pub static CONNECTIONS_CLOSED: Definition =
    counter("fsd_connections_closed_total", "Connections that ended, from whichever side.");
/// Broken rules.
pub static PROTOCOL_ERRORS: Definition = counter(
    "fsd_protocol_errors_total",
    "Connections that were given up because what came on them broke the protocol, by what was wrong.",
);
/// What is not written yet.
pub static UNSENT_BYTES: Definition =
    gauge("fsd_unsent_bytes", "Bytes that wait to be written to sockets, by who is on the other side.");
/// The bound for a single one.
pub static UNSENT_BYTES_MAX: Definition = gauge(
    "fsd_unsent_connection_bytes_max",
    "Unsent bytes of one connection beyond which a client is not read, and messages to a peer are dropped.",
);

/// Changes that were passed on.
pub static FORWARDED_CHANGES: Definition = gauge(
    "fsd_forwarded_changes",
    "Changes of text clients that are passed on to the leader and not answered yet.",
);
/// What all clients together make the node hold.
pub static PENDING_BYTES: Definition =
    gauge("fsd_pending_bytes", "Unanswered requests and unsent replies of all clients.");
/// Turns at a pace.
pub static PACED_TURNS: Definition = counter(
    "fsd_paced_turns_total",
    "Turns in which clients' requests were not taken as fast as they came, for disk and followers to keep up.",
);
/// Its bound.
pub static PENDING_BYTES_MAX: Definition = gauge(
    "fsd_pending_bytes_max",
    "Bound on them, limits.max_pending_mib; beyond, requests are refused as busy.",
);
/// All of them, in the order of a page.
pub static ALL: &[&Definition] = &[
    &NODE_INFO,
    &UPTIME,
    &TURN_DURATION,
    &DISK_FREE,
    &DISK_SIZE,
    &ROLE,
    &TERM,
    &LEADER,
    &LEADER_CHANGES,
    &COMMIT_INDEX,
    &APPLIED_INDEX,
    &LAST_LOG_INDEX,
    &PEER_LAG,
    &UNCOMMITTED_BYTES,
    &UNCOMMITTED_BYTES_MAX,
    &FLUSH_DURATION,
    &FLUSH_BYTES,
    &FLUSH_ENTRIES,
    &HARD_STATE_DURATION,
    &READ_BATCH,
    &LOG_SEGMENTS,
    &LAST_SEGMENT_USED,
    &LOG_BYTES,
    &CONTENTS_SEGMENTS,
    &CONTENTS_BYTES,
    &LIVE_BYTES,
    &DATA_BYTES,
    &CHECKPOINTS,
    &CHECKPOINT_BYTES,
    &CHECKPOINT_INDEX,
    &CHECKPOINT_NEWEST_BYTES,
    &CHECKPOINT_DURATION,
    &FILES,
    &REVISION,
    &SESSIONS,
    &SESSIONS_MAX,
    &DISK_LOW,
    &DISK_RESERVE,
    &REQUESTS,
    &REQUEST_DURATION,
    &REQUESTS_WAITING,
    &READS_WAITING_MAX,
    &FORWARDED_CHANGES,
    &PEER_CONNECTED,
    &CONNECTIONS,
    &CONNECTIONS_MAX,
    &CONNECTIONS_ACCEPTED,
    &CONNECTIONS_REFUSED,
    &CONNECTIONS_CLOSED,
    &PROTOCOL_ERRORS,
    &UNSENT_BYTES,
    &UNSENT_BYTES_MAX,
    &PENDING_BYTES,
    &PACED_TURNS,
    &PENDING_BYTES_MAX,
];
