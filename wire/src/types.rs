//! The numbers that travel between nodes, each a type of its own so that none is taken for another.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A term of the Raft paper (section 5.1): at most one leader each. 0 before the first election.
    Term(u64)
}
number! {
    /// The place of an entry in the log, 1-based as in the Raft paper. 0 stands for "before the first".
    LogIndex(u64)
}
number! {
    /// A member of the cluster, as its configuration numbers it; above 0.
    NodeId(u32)
}
number! {
    /// A value of the store's revision counter; above 0 for a file that exists, 0 for "no such file".
    Version(u64)
}
number! {
    /// What a client calls one of its requests; the reply carries it back.
    RequestId(u64)
}
number! {
    /// A client's session: the index of the log entry that opened it, and so never used again; above 0.
    SessionId(u64)
}
number! {
    /// What a client numbers the changes of a session with, from 1 on; 0 stands for "none yet".
    Sequence(u64)
}
number! {
    /// The cluster's own time in milliseconds, carried in log entries; it stands still without a leader.
    ClusterTimeMs(u64)
}
number! {
    /// Drawn at random by a data directory before its first hello: a directory that was deleted and made
    /// anew is another incarnation of the node.
    Incarnation(u64)
}
number! {
    /// One run of the daemon on an incarnation of its data directory: the count of starts in the upper 32 bits,
    /// and a number drawn at random for this start in the lower.
    Life(u64)
}
number! {
    /// Drawn at random by the first leader: two clusters that were begun apart never mix.
    ClusterId(u128)
}

impl Life {
    /// The `count`th start, with what was drawn for it.
    #[must_use]
    pub fn new(count: u32, drawn: u32) -> Self {
        Self(u64::from(count) << 32 | u64::from(drawn))
    }

    /// How many times the daemon was started.
    #[must_use]
    pub fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The life after this one.
    ///
    /// # Panics
    /// After as many starts as 32 bits can count, which no directory sees.
    #[must_use]
    pub fn next(self, drawn: u32) -> Self {
        Self::new(self.count().checked_add(1).expect("starts can be counted"), drawn)
    }

    /// Whether who has met `known` and now meets this one meets a copy of the directory that was made before
    /// `known`: it was started as often or less, and it is not the same start.
    #[must_use]
    pub fn is_of_an_older_copy_than(self, known: Self) -> bool {
        self != known && self.count() <= known.count()
    }
}

impl LogIndex {
    /// The index after this one.
    ///
    /// # Panics
    /// At the end of the 64-bit range, which no log reaches.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one.
    ///
    /// # Panics
    /// At 0, before which there is none.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0 - 1)
    }
}

impl Term {
    /// The term after this one.
    ///
    /// # Panics
    /// At the end of the 64-bit range, which no cluster reaches.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An entry's identity: no two different entries ever share one (the paper's Log Matching property).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the leader that made the entry. First, so that ids order as section 5.4.1 compares logs.
    pub term: Term,
    /// The entry's place.
    pub index: LogIndex,
}
