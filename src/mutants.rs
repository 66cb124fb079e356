//! Classic bugs that can be planted while the program runs, one at a time, each at the one line that matters: what
//! the simulator must find (`fsd-sim mutants`). They exist only with the feature `mutants`; without it `mutant!` is
//! `false`, and nothing of this is in the program.

#[cfg(feature = "mutants")]
pub use planted::{ALL, Mutant, switch_off, switch_on};

/// Whether the bug of this name is planted.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::is_on($name)
    };
}

/// Whether the bug of this name is planted: never.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::none_is_planted()
    };
}

/// A constant would do, but the lints would call what depends on it a mistake.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) fn none_is_planted() -> bool {
    false
}

pub(crate) use mutant;

#[cfg(feature = "mutants")]
pub(crate) use planted::is_on;

#[cfg(feature = "mutants")]
mod planted {
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A bug that can be planted.
    #[derive(Clone, Copy, Debug)]
    pub struct Mutant {
        /// What it is called where it is planted.
        pub name: &'static str,
        /// Which of the classic bugs it is: to 48 as `docs/testing.md` numbers them, behind that our own.
        pub bug: u32,
        /// What it does.
        pub what: &'static str,
    }

    macro_rules! mutants {
        ($($bug:literal $name:literal $what:literal;)*) => {
            /// All of them, in the order of the classic bugs that they are.
            pub const ALL: &[Mutant] = &[$(Mutant { name: $name, bug: $bug, what: $what }),*];
        };
    }

    mutants! {
        1 "granted-vote-not-stored" "a granted vote is not stored";
        1 "hard-state-not-flushed" "term and vote are stored without a flush";
        2 "own-vote-not-stored" "a candidate's own vote is not stored";
        3 "term-reset-at-start" "the term begins at that of the last entry, and the vote is forgotten";
        4 "vote-kept-in-new-term" "a higher term does not clear the vote";
        4 "second-vote-in-term" "a second vote is granted in a term";
        5 "log-compared-by-index-alone" "a longer log of an older term gets a vote";
        5 "log-compared-by-term-alone" "a shorter log of the same term gets a vote";
        5 "log-never-compared" "a voter does not compare logs";
        6 "heartbeat-resets-no-timer" "no election alarm is set behind a heartbeat";
        7 "prevote-term-ignored" "a pre-candidate ignores the higher term of a refusal";
        8 "prevote-keeps-leader" "a node that asks for votes refuses its own for the sake of a leader";
        9 "late-vote-counts" "a vote of another term counts";
        9 "prevote-counts-as-vote" "a granted PreVote counts as a vote";
        11 "commit-of-old-term" "an entry of an earlier term is committed by counting";
        12 "truncate-always" "a follower truncates what it has already";
        12 "truncate-never" "a follower keeps what conflicts";
        14 "stale-reply-counts" "a reply of an earlier term counts";
        15 "match-is-last-sent" "a follower is taken to hold all that was sent to it";
        15 "match-is-own-last" "a follower is taken to hold all that the leader has";
        16 "conflict-hint-off-by-one" "the leader probes one entry too far at a conflict";
        16 "conflict-hint-is-last" "the leader probes again where it was refused";
        17 "prev-not-checked" "a follower does not compare the entry before";
        18 "commit-beyond-match" "a follower commits as far as the leader has, whatever it holds";
        19 "base-is-a-conflict" "a follower refuses what begins before its base";
        20 "ack-before-flush" "an AppendEntries is answered before the flush";
        20 "no-flush" "the log is never flushed";
        21 "quorum-is-half" "half of the members are a quorum";
        23 "read-before-noop" "a read is answered before the term's first entry is committed";
        24 "read-without-round" "a read is answered without a round of heartbeats";
        24 "read-of-old-round" "a round that was under way confirms a read";
        24 "late-read-index" "an answer of the leader is good for reads that came after its question";
        24 "answer-to-earlier-life" "an answer to a question of an earlier life is taken";
        26 "read-before-apply" "a read is answered before the store has come to its index";
        26 "apply-uncommitted" "entries are applied before they are committed";
        29 "confirmation-compacted-away" "of a node's registrations, only the last outlives a compaction";
        30 "confirmed-at-once" "a newcomer is confirmed before its registration is committed";
        33 "log-discarded-though-it-has-the-entry" "a snapshot is installed over a log that has its entry";
        33 "tail-survives-install" "what conflicted stays in the log behind a snapshot";
        34 "install-goes-backwards" "a snapshot is installed over a store that is newer";
        35 "commit-begins-at-zero" "a start forgets what the checkpoint proves to be committed";
        36 "compacted-leader-is-silent" "a leader that has nothing to replicate sends nobody a snapshot";
        36 "hint-clamped-to-base" "a leader probes at its base again where it was refused";
        37 "change-answered-early" "a change is answered when it is proposed";
        38 "unknown-is-refused" "a change whose time is up is called refused";
        38 "other-entry-is-done" "a change is done when any entry is committed at its index";
        39 "due-stays-at-its-moment" "a file that is due at this very moment stays";
        39 "stamp-goes-back" "a new leader's time begins at zero";
        41 "directory-not-flushed" "a new segment's name is not flushed";
        42 "roll-without-flush" "the log goes on in a new segment before the old one is flushed";
        44 "torn-tail-written-over" "the log goes on over a torn tail";
        44 "durable-mark-ahead" "a record says of itself that it was flushed";
        46 "superseded-come-back" "recovery keeps what a later record superseded";
        48 "delete-takes-no-version" "a delete takes no version of its own";
        49 "hard-state-one-slot" "a hard state is stored in one slot always";
        50 "damage-is-torn-tail" "damage below what was flushed is cut like a torn tail";
        51 "wiped-node-counts" "a new incarnation counts without being registered";
        51 "wiped-node-votes" "the vote of any incarnation counts";
        51 "reply-of-other-disk-counts" "a reply of another incarnation counts for the one before";
        51 "old-copy-is-welcome" "a directory that was put back from an old copy goes on as it was";
        52 "memory-not-stored-again" "recovery trusts what a failed flush left in memory";
        53 "failed-flush-ignored" "a failed flush of the log is survived";
        53 "failed-hard-state-ignored" "a failed flush of the hard state is survived";
        54 "no-check-quorum" "a leader that nobody follows goes on";
        55 "repeated-change-made-again" "a change of a session that comes again is made again";
        55 "reply-not-kept" "the reply to a change of a session is not kept";
        55 "acknowledged-floor-ignored" "a change whose number is acknowledged is made when it comes again";
        56 "session-stays-at-its-moment" "a session that is due at this very moment stays";
        56 "sessions-outlive-their-time" "no session ends because it lies idle";
        56 "session-ends-by-clock" "a node calls sessions gone by its own clock, before the log ends them";
        56 "change-is-no-sign-of-life" "a session ends so long after its opening, whatever it does";
        56 "unknown-session-is-gone" "a node calls a session gone of which it has not heard yet";
        57 "newest-session-evicted" "where there are too many sessions, the one used last goes";
        57 "one-session-more" "there is one session more than the bound in its entry allows";
        58 "not-leader-is-the-whole" "a node that passes a change on takes one attempt's NotLeader for the answer";
        58 "busy-is-the-whole" "it takes one attempt's Busy for the answer while others are open";
        58 "session-gone-is-the-whole" "it begins anew in another session while attempts are open";
        59 "forwarded-unknown-is-refused" "it calls a change refused when its time is up";
        59 "retry-takes-a-new-number" "it gives each attempt a number of its own";
        59 "tickets-repeat" "its requests are called the same in each life";
        60 "image-shows-later-changes" "a checkpoint holds some files as they were only later";
        60 "checkpoint-is-not-flushed" "a checkpoint gets its name before it is flushed";
        61 "kept-segment-is-not-flushed" "what is copied out of a segment gets its name before it is flushed";
        61 "move-takes-newer-contents-back" "a file that changed while it was copied is what it was";
        61 "segment-goes-before-its-checkpoints" "a segment goes when the copies are there, though checkpoints refer to it";
        62 "full-follower-acknowledges" "a follower acknowledges entries for which it had no room";
        62 "low-leader-stays" "a leader without room keeps its place, although others have some";
        62 "reserve-is-used-by-writes" "what makes files grow is taken until nothing is left";
    }

    /// One more than the place of the one that is planted; 0 for none.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);

    /// Plants the bug of this name in place of the one before.
    ///
    /// # Panics
    /// If there is none.
    pub fn switch_on(name: &str) {
        let place = ALL.iter().position(|mutant| mutant.name == name);
        PLANTED.store(place.expect("a mutant of this name") + 1, Ordering::Relaxed);
    }

    /// Takes away the one that is planted.
    pub fn switch_off() {
        PLANTED.store(0, Ordering::Relaxed);
    }

    pub(crate) fn is_on(name: &str) -> bool {
        match PLANTED.load(Ordering::Relaxed) {
            0 => false,
            place => ALL[place - 1].name == name,
        }
    }
}
