//! What one seed stands for: the cluster, its load, and which faults are made and how often. Each seed leaves out
//! about half of the kinds of faults and of operations: bugs that hide behind one kind of fault show when it is
//! absent (Groce and others, "Swarm testing", 2012).

use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FaultKind {
    /// A connection breaks, with what was on its way.
    Loss,
    /// Bytes take longer than an election timeout.
    Delay,
    /// Bytes arrive in pieces, cut anywhere.
    Cut,
    /// A bit is flipped on its way.
    Flip,
    /// Old messages of a peer come once more.
    Replay,
    /// A connection swallows all that is sent on it.
    HalfOpen,
    /// The nodes fall into groups that do not hear each other.
    Partition,
    /// One direction between two nodes is cut.
    OneWay,
    /// A link takes long for each byte.
    SlowLink,
    /// Clients cannot reach a node.
    ClientCut,
    /// A clock changes its rate.
    Drift,
    /// A node stands still for a while.
    Pause,
    /// A flush takes long.
    SlowDisk,
    /// A machine loses power.
    PowerLoss,
    /// All machines lose power.
    PowerLossOfAll,
    /// A process is killed; its machine lives.
    Kill,
    /// Power fails at some operation of the disk.
    PowerLossInCall,
    /// Power fails at some operation of recovery.
    PowerLossInRecovery,
    /// A flush, or another call of the disk, fails once.
    FailedCall,
    /// The disk is full.
    FullDisk,
    /// The kernel writes back what was not flushed.
    WriteBack,
    /// What was being written when the power failed is garbage.
    TornGarbage,
    /// A byte of the log or the hard state rots.
    Rot,
    /// A data directory is deleted.
    Wipe,
    /// A data directory is put back from an old copy.
    OldCopy,
    /// A node is told to stop, and hands over if it leads.
    Stop,
    /// Leaders are cut off one after the other, each at the moment that matters.
    Script,
    /// A slow leader is cut off together with some clients; the others go on.
    Deposed,
    /// Answers to earlier elections, terms and lives come when they could be taken for new ones.
    LateAnswer,
    /// A sector was written to another place than it was meant for.
    Misdirect,
    /// Power that came back fails again soon.
    Relapse,
    /// The answers to changes that were passed on are lost while their leader hands over.
    Unanswered,
    /// A leader that was deposed unawares meets a node that has forgotten how it helped to depose it.
    Reborn,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::Loss,
        Self::Delay,
        Self::Cut,
        Self::Flip,
        Self::Replay,
        Self::HalfOpen,
        Self::Partition,
        Self::OneWay,
        Self::SlowLink,
        Self::ClientCut,
        Self::Drift,
        Self::Pause,
        Self::SlowDisk,
        Self::PowerLoss,
        Self::PowerLossOfAll,
        Self::Kill,
        Self::PowerLossInCall,
        Self::PowerLossInRecovery,
        Self::FailedCall,
        Self::FullDisk,
        Self::WriteBack,
        Self::TornGarbage,
        Self::Rot,
        Self::Wipe,
        Self::OldCopy,
        Self::Stop,
        Self::Script,
        Self::Deposed,
        Self::LateAnswer,
        Self::Misdirect,
        Self::Relapse,
        Self::Unanswered,
        Self::Reborn,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of kinds of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(u64);

impl FaultSet {
    /// With one more.
    pub fn insert(&mut self, kind: FaultKind) {
        self.0 |= 1 << kind as u64;
    }

    /// With one less.
    pub fn remove(&mut self, kind: FaultKind) {
        self.0 &= !(1 << kind as u64);
    }

    /// Whether it is in it.
    #[must_use]
    pub fn contains(self, kind: FaultKind) -> bool {
        self.0 & (1 << kind as u64) != 0
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }
}

/// Segments that a small disk has room for.
const DISK_SEGMENTS: std::ops::Range<u64> = 8..48;

/// How often clients do each operation, as weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operations {
    /// Write.
    pub write: u32,
    /// Compare and swap.
    pub cas: u32,
    /// Delete, with and without a version.
    pub delete: u32,
    /// Read.
    pub read: u32,
    /// Stat.
    pub stat: u32,
    /// List.
    pub list: u32,
    /// What there is to do about a session besides changes: signs of life, its end, repeating what is long decided.
    pub session: u32,
}

/// How a client talks to its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Each change is one request.
    Plain,
    /// Changes are made in a session, and tried again until they are decided.
    Session,
    /// As on the text protocol: it knows no redirects, and its changes are passed on.
    Text,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What everything is drawn from.
    pub seed: u64,
    /// Events delivered to nodes before the faults end.
    pub steps: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Clients.
    pub clients: usize,
    /// Requests that a client has under way at most.
    pub pipeline: usize,
    /// Files that the clients fight for.
    pub names: usize,
    /// The largest contents that are written.
    pub contents_max: usize,
    /// What clients do.
    pub operations: Operations,
    /// Files with an expiry, of 100.
    pub expiring: u32,
    /// A client's pause between two operations, on average.
    pub think_us: u64,
    /// Which faults are made.
    pub faults: FaultSet,
    /// The time between two faults, on average.
    pub fault_every_us: u64,
    /// How often something happens to what is sent.
    pub network_rate: f64,
    /// Delays of the network.
    pub delay_us_min: u64,
    /// Delays of the network.
    pub delay_us_max: u64,
    /// How long a flush takes, at most.
    pub flush_us_max: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// See `raft::Config`.
    pub heartbeat_ms: u64,
    /// See `raft::Config`.
    pub election_timeout_ms: u64,
    /// Clients with sessions: the first ones.
    pub session_clients: usize,
    /// Clients as on the text protocol: the last ones. If there are any, the nodes pass changes on.
    pub text_clients: usize,
    /// How long a session lives without a sign of life, at most: each node draws its own bound.
    pub session_idle_ms_max: u64,
    /// How many sessions there may be.
    pub sessions_max: u32,
    /// See `raft::ReplicationBounds`.
    pub entries_max: usize,
    /// See `raft::ReplicationBounds`.
    pub messages_max: usize,
    /// Where disks may be full: how many segments a disk has room for, all along.
    pub disk_segments: Option<u64>,
    /// Some nodes stay away in the end, as many as a cluster can do without.
    pub minority_stays_away: bool,
}

impl Plan {
    /// What a seed stands for.
    #[must_use]
    pub fn from_seed(seed: u64, steps: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5EED_0F5D_5EED_0F5D);
        let nodes = *random.choice(&[1, 3, 3, 3, 5, 5]).expect("a choice");
        let mut faults = FaultSet::default();
        // A class of runs without any fault: what breaks there is easiest to find.
        if random.u32(..20) != 0 {
            for kind in FaultKind::ALL {
                // Each from a generator of its own: a new kind leaves the other draws of all seeds as they are.
                if fastrand::Rng::with_seed(seed.rotate_left(8) ^ kind as u64).fork().bool() {
                    faults.insert(kind);
                }
            }
        }
        let some = |random: &mut fastrand::Rng, weight| if random.u32(..3) == 0 { 0 } else { weight };
        let operations = Operations {
            write: *random.choice(&[1, 4, 4]).expect("a choice"),
            cas: some(&mut random, 4),
            delete: some(&mut random, 2),
            read: *random.choice(&[1, 4, 16]).expect("a choice"),
            stat: some(&mut random, 2),
            list: some(&mut random, 1),
            session: 1,
        };
        let delay_us_min = random.u64(10..500);
        let heartbeat_ms = random.u64(20..60);
        let mut plan = Self {
            seed,
            steps,
            nodes,
            clients: random.usize(1..=6),
            pipeline: *random.choice(&[1, 1, 2, 8, 32]).expect("a choice"),
            names: *random.choice(&[1, 2, 5, 12]).expect("a choice"),
            contents_max: *random.choice(&[16, 100, 600, 3000]).expect("a choice"),
            operations,
            expiring: *random.choice(&[0, 0, 10, 50]).expect("a choice"),
            think_us: *random.choice(&[500, 2_000, 10_000, 50_000]).expect("a choice"),
            faults,
            fault_every_us: *random.choice(&[50_000, 200_000, 800_000, 3_000_000]).expect("a choice"),
            network_rate: *random.choice(&[0.0005, 0.002, 0.01]).expect("a choice"),
            delay_us_min,
            delay_us_max: delay_us_min + *random.choice(&[50, 500, 5_000, 40_000]).expect("a choice"),
            flush_us_max: *random.choice(&[1, 100, 1_000, 10_000]).expect("a choice"),
            segment_bytes: *random.choice(&[8192, 8192, 16384, 65536]).expect("a choice"),
            heartbeat_ms,
            election_timeout_ms: heartbeat_ms * random.u64(3..=8),
            minority_stays_away: random.bool(),
            entries_max: *random.choice(&[1, 1, 2, 8, 4096]).expect("a choice"),
            messages_max: *random.choice(&[1, 1, 2, 256]).expect("a choice"),
            session_clients: 0,
            text_clients: 0,
            session_idle_ms_max: *random.choice(&[1_000, 3_000, 60_000]).expect("a choice"),
            sessions_max: *random.choice(&[2, 4, 65_536, 65_536]).expect("a choice"),
            disk_segments: None,
        };
        // From a generator of its own, as well.
        let mut disks = fastrand::Rng::with_seed(seed.rotate_left(48));
        if disks.u32(..3) == 0 {
            plan.disk_segments = Some(disks.u64(DISK_SEGMENTS));
        }
        // Some are larger than what the smallest segments hold. From a generator of its own, as the kinds of faults.
        if fastrand::Rng::with_seed(seed.rotate_left(16)).u32(..16) == 0 {
            plan.contents_max = 8000;
        }
        if random.bool() {
            plan.session_clients = random.usize(1..=plan.clients);
        }
        if random.bool() {
            plan.text_clients = random.usize(0..=(plan.clients - plan.session_clients).min(plan.clients - 1));
        }
        plan
    }

    /// How the client at a place talks.
    #[must_use]
    pub fn kind_of(&self, client: usize) -> ClientKind {
        if client < self.session_clients {
            ClientKind::Session
        } else if client + self.text_clients >= self.clients {
            ClientKind::Text
        } else {
            ClientKind::Plain
        }
    }

    /// Nodes that a cluster can do without.
    #[must_use]
    pub fn minority(&self) -> usize {
        (self.nodes - 1) / 2
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(FaultKind::name).collect();
        write!(
            f,
            "seed {} steps {} nodes {} clients {} ({} with sessions, {} text) x {} names {} contents {} expiring {}% think {} us, \
             faults every {} us, network rate {}, delay {}..{} us, flush {} us, segments of {} bytes, \
             {} entries x {} messages, \
             disks of {} segments, heartbeat {} ms, election {} ms, faults: {}",
            self.seed,
            self.steps,
            self.nodes,
            self.clients,
            self.session_clients,
            self.text_clients,
            self.pipeline,
            self.names,
            self.contents_max,
            self.expiring,
            self.think_us,
            self.fault_every_us,
            self.network_rate,
            self.delay_us_min,
            self.delay_us_max,
            self.flush_us_max,
            self.segment_bytes,
            self.entries_max,
            self.messages_max,
            self.disk_segments.map_or_else(|| "any number of".to_owned(), |segments| segments.to_string()),
            self.heartbeat_ms,
            self.election_timeout_ms,
            if faults.is_empty() { "none".to_owned() } else { faults.join(" ") }
        )
    }
}
