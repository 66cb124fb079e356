//! What holds in every state of a node, and between one state and the next, whatever the network does. For
//! tests and the simulator: [`check`] after every step, [`check_step`] with the state before it.

use fsd_wire::{LogIndex, Term};

use super::candidate::CandidateState;
use super::electorate::Electorate;
use super::progress::{Mode, Progress};
use super::raft_log::RaftLog;
use super::{LeaderState, Raft, Role};

/// Requires `$holds`, or says what does not hold.
macro_rules! require {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// Checks one state.
///
/// # Errors
/// The first invariant that does not hold, in words.
pub fn check(raft: &Raft) -> Result<(), String> {
    let log = &raft.log;
    let (base, last, commit) = (log.base(), log.last_index(), raft.commit_index);
    require!(base.index <= commit, "the log was compacted to {base:?}, committed is {commit}");
    require!(base.index <= log.durable_index(), "base {base:?}, durable up to {}", log.durable_index());
    require!(commit <= last, "commit index {commit} is behind the last index {last}");
    require!(log.durable_index() <= last, "durable up to {}, last {last}", log.durable_index());
    require!(
        log.runs().is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
        "runs of terms do not rise: {:?}",
        log.runs()
    );
    require!(log.runs().last().is_none_or(|run| run.0 <= last), "a term begins behind the log's end {last}");
    require!(
        log.runs().first().map(|run| run.0) == (last > base.index).then(|| base.index.next()),
        "the log from {base:?} to {last} has the terms {:?}",
        log.runs()
    );
    let (term, last_term) = (raft.state.term, log.last_id().term);
    require!(last_term <= term, "the last entry's term {last_term} is after the current one {term}");
    let recounted = Electorate::new(&raft.config.members, log.registrations());
    require!(recounted == raft.electorate, "standings {:?} are not the log's", raft.electorate);
    require!(raft.actions.alarms.len() <= 2, "two changes of one alarm");
    require!(raft.asked_reads.is_in_order(), "reads out of order: {:?}", raft.asked_reads);
    let elected =
        |candidate: &CandidateState| raft.electorate.elects(&candidate.granted, raft.log.is_empty());
    match &raft.role {
        Role::Follower(follower) => {
            require!(follower.leader_id != Some(raft.config.node), "it follows itself");
        }
        Role::PreCandidate(candidate) => {
            require!(!elected(candidate), "a won PreVote was not acted on");
        }
        Role::Candidate(candidate) => {
            require!(!elected(candidate), "a won election was not acted on");
            require!(raft.state.voted_for == Some(raft.config.node), "a candidate did not vote for itself");
        }
        Role::Leader(leader) => check_leader(raft, leader)?,
    }
    Ok(())
}

fn check_leader(raft: &Raft, leader: &LeaderState) -> Result<(), String> {
    let (term, last) = (raft.state.term, raft.log.last_index());
    require!(raft.asked_reads.len() == 0, "a leader asks nobody: {:?}", raft.asked_reads);
    require!(raft.state.voted_for == Some(raft.config.node), "a leader did not vote for itself");
    require!(
        leader.term_first_index < raft.log.first_index()
            || raft.log.first_index_of_term_at(leader.term_first_index) == Some(leader.term_first_index)
                && raft.log.term_at(leader.term_first_index) == Some(term),
        "the entry at {} does not begin term {term}",
        leader.term_first_index
    );
    require!(raft.log.last_id().term == term, "a leader's last entry is of another term");
    require!(
        raft.electorate.vote_counts(raft.config.node, raft.state.incarnation, &raft.state.met),
        "a leader's own disk does not count"
    );
    require!(leader.progress.len() + 1 == raft.config.members.len(), "progress of each other member");
    for (node, progress) in &leader.progress {
        check_progress(progress, raft.log.base().index, last)
            .map_err(|what| format!("node {node}: {what}"))?;
        require!(progress.round_answered <= leader.round, "node {node} answered a round to come");
    }
    Ok(())
}

fn check_progress(progress: &Progress, base: LogIndex, last: LogIndex) -> Result<(), String> {
    let (matched, next) = (progress.match_index, progress.next_index);
    require!(
        (progress.mode == Mode::Snapshot) == (next <= base),
        "next index {next}, the log begins behind {base}: {:?}",
        progress.mode
    );
    require!(matched <= last, "match index {matched} is behind the last index {last}");
    require!(matched < next, "match index {matched}, next index {next}");
    require!(next <= last.next(), "next index {next} leaves a gap behind {last}");
    if let Mode::Replicate { in_flight, in_flight_bytes } = &progress.mode {
        let bytes: usize = in_flight.iter().map(|sent| sent.bytes).sum();
        require!(bytes == *in_flight_bytes, "{bytes} bytes in flight, counted {in_flight_bytes}");
        require!(
            in_flight.iter().is_sorted_by(|a, b| a.last_index < b.last_index),
            "in flight: {in_flight:?}"
        );
        require!(
            in_flight.back().is_none_or(|sent| sent.last_index < next && sent.last_index > matched),
            "in flight: {in_flight:?}, match {matched}, next {next}"
        );
    }
    Ok(())
}

/// Checks two successive states of one node that was not restarted in between.
///
/// # Errors
/// The first invariant that does not hold, in words.
pub fn check_step(before: &Raft, after: &Raft) -> Result<(), String> {
    let (old, new) = (&before.state, &after.state);
    require!(new.term >= old.term, "term {} after {}", new.term, old.term);
    if new.term == old.term && new.incarnation == old.incarnation {
        require!(
            old.voted_for.is_none() || new.voted_for == old.voted_for,
            "vote for {:?} after {:?} in term {}",
            new.voted_for,
            old.voted_for,
            new.term
        );
    }
    require!(
        old.cluster_id.is_none() || new.cluster_id == old.cluster_id,
        "cluster id {:?} after {:?}",
        new.cluster_id,
        old.cluster_id
    );
    for (node, (incarnation, life)) in &old.met {
        let now = new.met.get(node);
        let kept = now.is_some_and(|(other, later)| {
            if other == incarnation { later >= life } else { after.electorate.counts(*node, *other) }
        });
        require!(kept, "met node {node} as {incarnation:?}, now as {now:?}");
    }
    require!(after.commit_index >= before.commit_index, "the commit index went back");
    let (was, is) = (before.log.base(), after.log.base());
    require!(is.index >= was.index, "base {is:?} after {was:?}");
    // A snapshot that was installed reaches further than anything that was known to be committed.
    if is.index <= before.commit_index {
        require!(before.term_at(is.index) == Some(is.term), "the base {is:?} was another entry before");
        let committed = |raft: &Raft| runs_between(&raft.log, is.index, before.commit_index);
        require!(committed(before) == committed(after), "committed entries changed");
    }
    if let (Role::Leader(was), Role::Leader(is)) = (&before.role, &after.role)
        && old.term == new.term
    {
        check_leader_step(before, after, was, is)?;
    }
    Ok(())
}

/// A leader never changes or removes what is in its log (Leader Append-Only), and what it knows only grows.
fn check_leader_step(before: &Raft, after: &Raft, was: &LeaderState, is: &LeaderState) -> Result<(), String> {
    require!(after.log.last_index() >= before.log.last_index(), "a leader's log became shorter");
    let (from, to) = (after.log.base().index, before.log.last_index());
    let kept = runs_between(&before.log, from, to) == runs_between(&after.log, from, to);
    require!(kept, "a leader's log has other terms");
    require!(is.term_first_index == was.term_first_index, "a term began twice");
    require!(is.round >= was.round, "round {} after {}", is.round, was.round);
    for (node, progress) in &is.progress {
        let Some(earlier) = was.progress.get(node) else { continue };
        if earlier.incarnation == progress.incarnation {
            // Between the two states it may have been another one for a moment: two connections of two lives.
            let began_anew = progress.round_valid_from > was.round;
            let kept = progress.match_index >= earlier.match_index || began_anew;
            require!(kept, "node {node}: the match index went back");
        }
    }
    Ok(())
}

/// The runs of terms behind `from`, up to `to`: what two logs know of the same entries.
fn runs_between(log: &RaftLog, from: LogIndex, to: LogIndex) -> Vec<(LogIndex, Term)> {
    let mut runs: Vec<(LogIndex, Term)> = Vec::new();
    for (start, term) in log.runs().iter().filter(|run| run.0 <= to) {
        if *start <= from.next() {
            runs.clear();
        }
        runs.push(((*start).max(from.next()), *term));
    }
    runs.retain(|run| run.0 <= to);
    runs
}
