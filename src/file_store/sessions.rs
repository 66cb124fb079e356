//! The sessions of clients: what makes a repeated change take effect once.
//!
//! A session is named after the index of the entry that opened it. It keeps the first reply to each of its
//! changes until its client acknowledges it, and answers a repetition with that. So it does not matter which
//! leader, and which run of a node, meets the repetition. A session whose opening was lost together with its
//! leader never had a name that a client knows.
//!
//! Sessions end by their clients' wish, when they gave no sign of life for long enough by the stamps of the log,
//! and when there are too many of them or of their replies: then the one that was used longest ago goes. All of it
//! is a function of the entries alone.

use std::collections::{BTreeMap, BTreeSet};

use fsd_wire::client::Refusal;
use fsd_wire::{ClusterTimeMs, LogIndex, Sequence, SessionId, Version};

use super::Applied;
use super::imaged_map::ImagedMap;
use crate::limits::{SESSION_REPLIES_BYTES_MAX, SESSION_REPLY_BYTES, SESSION_WINDOW};
use crate::marks::mark;
use crate::mutants::mutant;

/// The first reply to a change, as small as it can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Changed(Version),
    NotFound,
    VersionMismatch(Version),
    Conflict(Box<str>),
}

impl Reply {
    fn of(applied: &Applied) -> Self {
        match applied {
            Applied::Changed { version } => Self::Changed(*version),
            Applied::Refused(Refusal::NotFound) => Self::NotFound,
            Applied::Refused(Refusal::VersionMismatch { present }) => Self::VersionMismatch(*present),
            Applied::Refused(Refusal::Conflict { with }) => Self::Conflict(with.as_str().into()),
            other => unreachable!("no command comes to {other:?}"),
        }
    }

    fn to_applied(&self) -> Applied {
        match self {
            Self::Changed(version) => Applied::Changed { version: *version },
            Self::NotFound => Applied::Refused(Refusal::NotFound),
            Self::VersionMismatch(present) => {
                Applied::Refused(Refusal::VersionMismatch { present: *present })
            }
            Self::Conflict(with) => Applied::Refused(Refusal::Conflict { with: with.to_string() }),
        }
    }

    /// What it counts against [`SESSION_REPLIES_BYTES_MAX`].
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Conflict(with) => SESSION_REPLY_BYTES + with.len(),
            _ => SESSION_REPLY_BYTES,
        }
    }

    /// A code, a version and a text: all that tells one reply from another.
    pub(super) fn parts(&self) -> (u8, Version, &str) {
        match self {
            Self::Changed(version) => (1, *version, ""),
            Self::NotFound => (2, Version(0), ""),
            Self::VersionMismatch(present) => (3, *present, ""),
            Self::Conflict(with) => (4, Version(0), with),
        }
    }

    fn update_digest(&self, crc: &mut crc32fast::Hasher) {
        let (code, version, with) = self.parts();
        for number in [u64::from(code), version.0, with.len() as u64] {
            crc.update(&number.to_le_bytes());
        }
        crc.update(with.as_bytes());
    }
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) idle_ms: u64,
    pub(super) due: ClusterTimeMs,
    /// The last entry that was of this session.
    pub(super) used: LogIndex,
    /// Up to here the client needs no reply.
    pub(super) acknowledged: Sequence,
    /// The replies behind that.
    pub(super) replies: BTreeMap<Sequence, Reply>,
}

/// Whether a change is to be made.
#[derive(Debug)]
pub(super) enum Admission {
    /// It is: its result must be given to [`Sessions::keep`].
    New,
    /// It is not: this answers it.
    Answered(Applied),
}

/// All sessions as of one index of the log.
#[derive(Clone, Debug)]
pub(super) struct Sessions {
    pub(super) sessions: ImagedMap<SessionId, Session>,
    /// Which session ends when.
    due: BTreeSet<(ClusterTimeMs, SessionId)>,
    /// In the order in which they were used.
    used: BTreeSet<(LogIndex, SessionId)>,
    /// How many replies all sessions keep.
    pub(super) replies: usize,
    /// What they count.
    pub(super) replies_bytes: usize,
    /// What they may count: the same at every node.
    pub(super) replies_bytes_max: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            sessions: ImagedMap::default(),
            due: BTreeSet::new(),
            used: BTreeSet::new(),
            replies: 0,
            replies_bytes: 0,
            replies_bytes_max: SESSION_REPLIES_BYTES_MAX,
        }
    }
}

impl FromIterator<(SessionId, Session)> for Sessions {
    /// Makes them out of sessions that were kept elsewhere.
    fn from_iter<I: IntoIterator<Item = (SessionId, Session)>>(sessions: I) -> Self {
        let sessions: ImagedMap<_, _> = sessions.into_iter().collect();
        let replies = || sessions.values().flat_map(|session| session.replies.values());
        Self {
            due: sessions.iter().map(|(id, session)| (session.due, *id)).collect(),
            used: sessions.iter().map(|(id, session)| (session.used, *id)).collect(),
            replies: replies().count(),
            replies_bytes: replies().map(Reply::bytes).sum(),
            sessions,
            ..Self::default()
        }
    }
}

impl Sessions {
    /// Ends what is due.
    pub(super) fn expire(&mut self, now: ClusterTimeMs) {
        while let Some((due, session)) = self.due.first().copied()
            && (due < now || due == now && !mutant!("session-stays-at-its-moment"))
        {
            mark!("session-lies-idle-for-too-long");
            self.end(session);
        }
    }

    /// Begins the session of the entry at `index`; others end until there are no more than `sessions_max`.
    pub(super) fn open(&mut self, now: ClusterTimeMs, index: LogIndex, idle_ms: u64, sessions_max: u32) {
        let sessions_max = sessions_max as usize + usize::from(mutant!("one-session-more"));
        while self.sessions.len() >= sessions_max && self.evict() {
            mark!("session-makes-room");
        }
        let id = SessionId(index.0);
        let due = ClusterTimeMs(now.0.saturating_add(idle_ms));
        let acknowledged = Sequence(0);
        let session = Session { idle_ms, due, used: index, acknowledged, replies: BTreeMap::new() };
        self.sessions.insert(id, session);
        self.due.insert((due, id));
        self.used.insert((index, id));
    }

    /// A sign of life. Whether the session exists.
    pub(super) fn keep_alive(
        &mut self,
        now: ClusterTimeMs,
        index: LogIndex,
        id: SessionId,
        acknowledged: Sequence,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        self.due.remove(&(session.due, id));
        self.used.remove(&(session.used, id));
        if !mutant!("change-is-no-sign-of-life") {
            session.due = ClusterTimeMs(now.0.saturating_add(session.idle_ms));
        }
        session.used = index;
        self.due.insert((session.due, id));
        self.used.insert((session.used, id));
        while let Some(reply) = session.replies.first_entry().filter(|reply| *reply.key() <= acknowledged) {
            self.replies_bytes -= reply.remove().bytes();
            self.replies -= 1;
        }
        mark!("session-acknowledges-less-than-before", acknowledged < session.acknowledged);
        session.acknowledged = session.acknowledged.max(acknowledged);
        true
    }

    /// Ends a session. Whether it existed.
    pub(super) fn close(&mut self, id: SessionId) -> bool {
        let existed = self.sessions.contains_key(&id);
        mark!("session-is-closed-twice", !existed);
        if existed {
            self.end(id);
        }
        existed
    }

    /// A change of a session comes by: is it made, or answered without?
    pub(super) fn admit(
        &mut self,
        now: ClusterTimeMs,
        index: LogIndex,
        id: SessionId,
        sequence: Sequence,
        acknowledged: Sequence,
    ) -> Admission {
        let refused = |refusal| Admission::Answered(Applied::Refused(refusal));
        if !self.keep_alive(now, index, id, acknowledged) {
            mark!("session-is-gone-when-its-change-comes");
            return refused(Refusal::SessionGone);
        }
        let session = &self.sessions[&id];
        if sequence <= session.acknowledged && mutant!("acknowledged-floor-ignored") {
            return Admission::New;
        }
        if sequence <= session.acknowledged {
            mark!("session-change-is-acknowledged-already");
            let reason = format!("change {sequence} of session {id} is already acknowledged");
            return refused(Refusal::BadRequest { reason });
        }
        if let Some(first) = session.replies.get(&sequence).filter(|_| !mutant!("repeated-change-made-again"))
        {
            mark!("session-change-comes-again");
            mark!("session-refused-change-comes-again", !matches!(first, Reply::Changed(_)));
            return Admission::Answered(first.to_applied());
        }
        if sequence.0 - session.acknowledged.0 > SESSION_WINDOW {
            return refused(Refusal::Busy);
        }
        Admission::New
    }

    /// Keeps the first reply to a change that was admitted; others end while there are too many replies.
    pub(super) fn keep(&mut self, id: SessionId, sequence: Sequence, applied: &Applied) {
        if mutant!("reply-not-kept") {
            return;
        }
        let reply = Reply::of(applied);
        self.replies_bytes += reply.bytes();
        self.replies += 1;
        let session = self.sessions.get_mut(&id).expect("its change was admitted");
        let earlier = session.replies.insert(sequence, reply);
        assert!(earlier.is_none(), "change {sequence} of session {id} was made twice");
        while self.replies_bytes > self.replies_bytes_max && self.evict() {}
    }

    /// Whether there is a session of this name.
    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The cluster time at which the next one ends.
    pub(super) fn next_due(&self) -> Option<ClusterTimeMs> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Everything that must be equal on all nodes.
    pub(super) fn update_digest(&self, crc: &mut crc32fast::Hasher) {
        crc.update(&(self.sessions.len() as u64).to_le_bytes());
        for (id, session) in self.sessions.iter() {
            let Session { idle_ms, due, used, acknowledged, replies } = session;
            for number in [id.0, *idle_ms, due.0, used.0, acknowledged.0, replies.len() as u64] {
                crc.update(&number.to_le_bytes());
            }
            for (sequence, reply) in replies {
                crc.update(&sequence.0.to_le_bytes());
                reply.update_digest(crc);
            }
        }
    }

    /// Ends the session that was used longest ago. Whether there was one.
    fn evict(&mut self) -> bool {
        let last = self.used.last().filter(|_| mutant!("newest-session-evicted"));
        let longest_ago = last.or(self.used.first()).map(|(_, id)| *id);
        longest_ago.inspect(|id| self.end(*id)).is_some()
    }

    fn end(&mut self, id: SessionId) {
        let (_, session) = self.sessions.remove_entry(&id).expect("an existing session ends");
        let was_there = self.due.remove(&(session.due, id)) && self.used.remove(&(session.used, id));
        assert!(was_there, "session {id} is in all three lists");
        self.replies_bytes -= session.replies.values().map(Reply::bytes).sum::<usize>();
        self.replies -= session.replies.len();
    }
}
