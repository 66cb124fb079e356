//! Names for the branches that are hardly ever taken, each at the first line of its branch: a simulator that never came
//! there has shown nothing of it (`fsd-sim --complete run`). They are counted only with the feature `marks`; without it
//! `mark!` is nothing, and nothing of this is in the program.

#[cfg(feature = "marks")]
pub use counted::{ALL, Mark, take};

/// This branch is taken; with a condition, if that holds.
#[cfg(feature = "marks")]
macro_rules! mark {
    ($name:literal) => {
        $crate::marks::reached(const { $crate::marks::place_of($name) })
    };
    ($name:literal, $holds:expr) => {
        if $holds {
            $crate::marks::mark!($name)
        }
    };
}

/// Nothing; the condition is not even looked at.
#[cfg(not(feature = "marks"))]
macro_rules! mark {
    ($name:literal) => {};
    ($name:literal, $holds:expr) => {};
}

pub(crate) use mark;

#[cfg(feature = "marks")]
pub(crate) use counted::{place_of, reached};

#[cfg(feature = "marks")]
mod counted {
    use std::cell::Cell;

    /// A branch that has a name.
    #[derive(Clone, Copy, Debug)]
    pub struct Mark {
        /// What it is called where it stands.
        pub name: &'static str,
        /// What happens there that hardly ever does.
        pub what: &'static str,
    }

    macro_rules! marks {
        ($($name:literal $what:literal;)*) => {
            /// All of them, room by room.
            pub const ALL: &[Mark] = &[$(Mark { name: $name, what: $what }),*];
        };
    }

    marks! {
        // Elections.
        "candidate-elects-nobody" "a candidate's time is up without a winner";
        "candidate-may-not-stand" "a node that could not count its own vote waits for others";
        "candidate-learns-term" "a refused PreVote tells of a later term";
        "candidate-gets-late-vote" "a vote comes that was given in another election";
        "candidate-gets-vote-that-does-not-count" "the voter's disk is another than the one that counts";
        "electorate-registers-late-member" "a member joins that the first leader had not met";
        "electorate-confirms" "a second registration makes a disk count";
        "electorate-replaces-proposed" "a disk is lost again before it was confirmed";
        "electorate-replaces-confirmed" "a disk that counted is replaced by another";
        "electorate-elects-by-one-more" "members that are not confirmed make up for one that is";
        // Followers and voters.
        "follower-refuses-leader-of-earlier-term" "a deposed leader still sends";
        "follower-gives-candidacy-up" "a candidate hears from the winner of its term";
        "follower-has-other-term" "the entry before is of another term";
        "follower-has-other-term-at-its-beginning" "and is the first one of that term";
        "follower-is-sent-what-it-trimmed" "what a message begins behind is in the snapshot";
        "follower-log-ends-before" "the entry before is missing";
        "follower-has-entry-already" "an entry comes a second time";
        "follower-truncates" "an entry of another leader gives way";
        "follower-has-more-than-message" "a short message comes behind a long one, or meets another leader's entries";
        "follower-commits-less-than-leader" "the leader has committed more than this message proves";
        "voter-hears-leader" "a vote is refused for the sake of a leader that lives";
        "voter-hears-leader-at-prevote" "and so is a PreVote";
        "voter-helps-successor" "a leader that lives wants to be replaced";
        "voter-votes-again" "the same candidate asks twice";
        "voter-is-in-later-term" "a candidate's term is over";
        "voter-has-voted-otherwise" "the vote of this term is given";
        "voter-has-later-term-in-log" "the candidate's log ends in an earlier term";
        "voter-has-longer-log" "the candidate's log is shorter, in the same term";
        "voter-expects-other-incarnation" "the candidate has another disk than the one that is known";
        "voter-waits-for-its-cluster" "an empty node refuses another, as there is a cluster already";
        "successor-is-told-late" "an order to stand comes from an earlier term";
        "successor-stands" "a node stands at its leader's word";
        // Leaders.
        "leader-meets-other-disk" "a follower comes back with another disk";
        "leader-restarts-pipeline" "a connection is lost with entries on their way";
        "leader-hands-over-and-takes-nothing" "a proposal comes while leadership is handed over";
        "leader-deposed-by-reply" "a follower's answer is of a later term";
        "leader-gets-reply-of-earlier-term" "an answer to an earlier leadership of the same node";
        "leader-gets-reply-of-other-disk" "an answer from a disk that the leader has not met";
        "leader-gets-late-conflict" "a conflict that was answered already";
        "leader-finds-term-of-conflict" "the leader has entries of the term in which the follower's log differs";
        "leader-spares-turn-for-lagging-follower" "a follower that lacks what is committed gets one message of it in a turn";
        "leader-passes-over-term" "the leader has none: all of the follower's are passed over";
        "leader-counts-entry-of-earlier-term" "a majority holds an entry that only one of this term commits";
        "leader-is-followed-by-nobody" "CheckQuorum ends a leadership";
        "leader-gets-late-match" "a follower holds more than its late answer says";
        // Terms, peers and registrations.
        "raft-recognises-old-copy" "a peer's directory was put back from a copy";
        "raft-takes-part-as-other-incarnation" "this node's was";
        "raft-hears-of-its-cluster" "a hello tells the cluster's id before the log does";
        "raft-meets-confirmed-newcomer" "a hello comes from a disk that replaced another";
        "raft-meets-newcomer-that-does-not-count" "a hello comes from a disk that nobody vouches for yet";
        "raft-deposed-with-reads" "a leader loses its place while reads wait";
        "raft-deposed-while-handing-over" "or while it hands over";
        "log-truncates-registration" "a member's registration is taken back";
        "log-truncates-what-was-flushed" "what is taken back was on the disk";
        "log-truncates-whole-terms" "more than one term is taken back";
        "log-truncates-genesis" "another first leader's log is taken back from its beginning";
        "registration-waits-for-transfer" "nobody is registered while leadership is handed over";
        "registration-waits-for-commit" "a proposed disk holds its registration before a majority does";
        "transfer-has-no-successor" "nobody answers who could take over";
        "transfer-waits-for-successor" "the successor is to catch up first";
        "transfer-takes-too-long" "a leader that wanted to go has to stay";
        "leader-has-no-room" "a proposal finds no room in the leader's log";
        "leader-is-stuck-with-follower" "a follower takes nothing of what it is sent";
        "leader-lets-full-follower-be" "a follower says that it takes no entries";
        // Room.
        "follower-takes-part-of-message" "room ends within what a leader sent";
        "follower-takes-nothing" "there was none to begin with";
        "candidate-has-no-room" "a node could not append a leader's first entry";
        "room-becomes-low" "no more than the reserve is left on a disk";
        "room-comes-back" "there is more again";
        "room-is-made-in-a-turn" "the helper was not quick enough with a segment";
        "room-is-found-gone-in-a-turn" "and now there is no room for one";
        "room-is-not-made-out-of-reserve" "what is left is for checkpoints and cleaning";
        "room-is-less-than-was-told" "a segment cannot be made, although the system told of room";
        "room-of-majority-is-low" "a leader with room refuses for the sake of the others";
        "dispatch-refuses-for-want-of-room" "a change that makes a file grow comes when room is short";
        "leader-hands-over-for-want-of-room" "another node has room";
        // Reads.
        "asked-read-finds-no-leader" "a read comes between two leaders";
        "asked-read-joins-question" "two reads of one turn ask with one question";
        "asked-read-is-too-old" "a read has waited for longer than any client does";
        "asked-read-is-asked-again" "a sign of life shows that the question may be lost";
        "asked-read-answered-to-earlier-life" "the answer was for this node before it was started again";
        "asked-read-answered-in-other-term" "the answer is of another leader";
        "asked-reads-are-lost" "no leader was found for reads that wait";
        "asked-reads-are-adopted" "a node with reads that wait is elected itself";
        "read-index-asked-twice" "a follower asks twice in a round";
        "read-index-asked-in-other-term" "a follower asks in a term that is not the leader's";
        "read-index-asked-of-deposed" "a node is asked that leads no more, or not yet, in that very term";
        "read-waits-for-beginning-of-term" "a read comes before the term's first entry is committed";
        "read-confirmed-and-then-deposed" "a follower's read was confirmed, and its leader fell before it was answered";
        // Files and sessions.
        "store-file-expires" "a file goes";
        "store-file-expires-at-its-moment" "a stamp is the very millisecond at which a file goes";
        "store-file-is-in-the-way-above" "a file would have to be a directory";
        "store-file-is-in-the-way-below" "a directory would have to be a file";
        "store-file-goes-before-it-is-due" "a file with an expiry is overwritten or deleted";
        "session-lies-idle-for-too-long" "a session ends by time";
        "session-makes-room" "a session ends because there are too many";
        "session-acknowledges-less-than-before" "an attempt comes behind a later one";
        "session-is-closed-twice" "a session is closed that is gone";
        "session-is-gone-when-its-change-comes" "a session ends while its change is in the log";
        "session-change-is-acknowledged-already" "an attempt comes whose answer was acknowledged";
        "session-change-comes-again" "a change is answered with its first reply";
        "session-refused-change-comes-again" "and that was a refusal";
        // Recovery and the disk.
        "recovery-removes-hard-state-in-the-making" "the very first start was interrupted";
        "recovery-stores-whole-segment-again" "nothing proves that the last segment was flushed";
        "recovery-stores-again-behind-proven" "a part of it was";
        "recovery-finds-superseded" "a record takes the place of an earlier one";
        "hard-state-first-slot-is-torn" "the second one counts alone";
        "hard-state-second-slot-is-torn" "the first one counts alone";
        "hard-state-first-slot-counts" "the last store was interrupted between its slots";
        "hard-state-flush-fails" "the process has to end";
        "log-append-fails" "no new segment can be had";
        "log-truncates-across-segments" "what is superseded begins in an earlier segment";
        "log-rolls-at-torn-tail" "the log goes on elsewhere because of what lies behind its end";
        "log-rolls-to-truncate" "the first record of a segment supersedes entries";
        "spare-is-too-short" "an entry is larger than the segment that was made ready";
        "spare-comes-too-late" "the log has gone on without it";
        "spare-cannot-be-made" "the disk is full, or fails";
        "log-flush-fails" "the process has to end";
        "log-reads-damage" "an entry has rotted since it was stored";
        "survey-finds-segment-in-the-making" "a start finds a segment without its name";
        "survey-finds-damaged-header" "a segment's header has rotted";
        "survey-finds-damaged-activation" "a segment's activation has rotted";
        "survey-finds-unused-segment" "a start finds a segment that was made ready";
        "survey-finds-torn-activation" "power failed while the log rolled";
        "survey-finds-damage-in-sealed-segment" "a record below another segment has rotted";
        "survey-finds-damage-in-last-segment" "a record that a later one proves has rotted";
        "survey-finds-torn-tail" "power failed while a record was written";
        "survey-finds-record-behind-torn-tail" "a later record was written, an earlier one was not";
        "survey-drops-segment-without-records" "power failed in the first flush of a segment";
        "survey-finds-earlier-torn-tail" "and the one before it ends in a torn tail";
        // Requests.
        "dispatch-knows-session-is-gone" "a client comes back to a session that has ended";
        "dispatch-refuses-while-handing-over" "a change comes to a leader that is about to go";
        "dispatch-refuses-read-without-leader" "a read comes while there is no leader";
        "expiry-is-on-its-way" "what is due is being removed already";
        "expiry-was-of-earlier-term" "an earlier removal may be gone from the log";
        "expiry-is-refused" "what is due cannot be removed now";
        "expiry-stamps-idle-log" "nothing was written for a while, and a file is to fall due";
        "expiry-holds-read-back" "something fell due after a read was confirmed";
        "expiry-holds-read-of-follower-back" "and after a follower's read was";
        "pending-change-of-earlier-term" "a term's first entry ends the hope for a change";
        "pending-read-is-lost" "a read can no longer be confirmed";
        "pending-change-takes-too-long" "a change's time is up";
        "pending-read-takes-too-long" "a read's time is up";
        "forwarder-goes-another-way" "the leader or the connection changes with changes on their way";
        "forwarder-loses-its-way" "there is no leader, with changes on their way";
        "forwarder-gets-no-session" "the opening of a session is refused";
        "forwarder-gets-late-answer" "an answer comes to what is over";
        "forwarder-learns-nothing" "the leader does not know either";
        "forwarder-asks-who-does-not-lead" "the only attempt went to a node that does not lead";
        "forwarder-asks-who-does-not-lead-again" "one of several did";
        "forwarder-is-refused-as-busy" "the only attempt met a leader that was about to go";
        "forwarder-is-refused-as-busy-once" "one of several did";
        "forwarder-gives-up-what-nobody-took" "a client's time is up before its change was sent";
        "forwarder-gives-up-what-is-open" "or while nobody knows what became of it";
        "forwarder-loses-session-of-only-attempt" "its session is gone before its only attempt was made";
        "forwarder-loses-session-with-open-attempts" "or while others are open";
        "forwarder-leads-itself" "a node passes changes on to itself";
        "forwarder-hears-nothing" "nothing came back for a second";
        "hello-tells-old-copy-twice" "a second peer recognises an old copy";
        "node-is-told-to-stop-twice" "the second time it does not wait";
        "node-hands-over-for-too-long" "a leader that could not hand over stops all the same";
        "node-applies-another-entry-instead" "another leader's entry took the place of a client's";
        "node-stops-with-changes" "clients are told that nobody knows";
        "node-stops-with-changes-passed-on" "and so are those whose changes were passed on";

        // Housekeeping.
        "alarm-is-set-anew-when-it-goes-off" "a leader is heard in the turn in which the election is due";
        "election-waits-for-who-was-held-up" "an election is due for so long that the node itself was held up";
        "cleaning-begins" "little is live of some segments: that is copied";
        "cleaning-copied-what-is-gone" "a file changed while it was copied";
        "cleaning-finds-no-room" "the disk has no room for what is copied";
        "space-comes-back-to-idle-log" "the leader makes an entry for a checkpoint to be taken";
        "log-stays-for-a-stream" "a store is on its way, and who gets it needs the log behind it";
        "log-stays-for-a-follower" "a follower is about to get what no checkpoint needs";
    }

    thread_local! {
        // A simulated cluster runs on one thread.
        static HITS: [Cell<u64>; ALL.len()] = const { [const { Cell::new(0) }; ALL.len()] };
    }

    /// How often each mark was reached on this thread since the last call, in the order of [`ALL`].
    #[must_use]
    pub fn take() -> Vec<u64> {
        HITS.with(|hits| hits.iter().map(Cell::take).collect())
    }

    pub(crate) fn reached(place: usize) {
        HITS.with(|hits| hits[place].set(hits[place].get() + 1));
    }

    /// Where a name stands in the list; a name that does not ends the compilation.
    pub(crate) const fn place_of(name: &str) -> usize {
        let mut place = 0;
        while place < ALL.len() {
            if is_same(ALL[place].name.as_bytes(), name.as_bytes()) {
                return place;
            }
            place += 1;
        }
        panic!("no mark has this name")
    }

    const fn is_same(a: &[u8], b: &[u8]) -> bool {
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }
}
