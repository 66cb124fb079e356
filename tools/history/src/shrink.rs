//! Makes a history that cannot be explained as short as it goes, so that a person can see why.
//!
//! Every step keeps what is left unexplainable for the same reason: a part of an explainable history stays explainable
//! when its end is cut off, when calls that change nothing are left out, and when a write is left out that the next
//! write replaced before anybody met it.

use crate::history::{Call, Operation, Outcome, Version};
use crate::search::{Verdict, judge};

/// Tries after which what is left is short enough.
const TRIES_MAX: usize = 2000;
/// Calls judged in all tries together, for the sake of long histories.
const CALLS_MAX: usize = 400_000;

/// A short part of `calls`, in the order of their beginnings, that is as impossible as all of them.
pub(crate) fn shrink(calls: &[Call]) -> Vec<Call> {
    let mut calls = shortest_prefix(calls);
    calls.sort_by_key(|call| (call.invoked, call.returned));
    let mut judged = Judged::default();
    loop {
        let before = calls.len();
        leave_out(&mut calls, &mut judged, changes_nothing);
        leave_out_one_by_one(&mut calls, &mut judged, was_replaced_unmet);
        if calls.len() == before {
            return calls;
        }
    }
}

/// What the shortening has cost so far.
#[derive(Default)]
struct Judged {
    tries: usize,
    calls: usize,
}

impl Judged {
    /// Whether these calls are still impossible. Not if that would take too long to find out.
    fn fails(&mut self, calls: &[Call]) -> bool {
        self.tries += 1;
        self.calls += calls.len();
        self.tries <= TRIES_MAX && self.calls <= CALLS_MAX && fails(calls)
    }
}

fn fails(calls: &[Call]) -> bool {
    judge(calls) == Verdict::NotLinearizable
}

/// Up to the first answer that cannot be explained.
fn shortest_prefix(calls: &[Call]) -> Vec<Call> {
    let mut ends: Vec<u64> = calls.iter().filter_map(Call::end).collect();
    ends.sort_unstable();
    ends.dedup();
    let at = ends.partition_point(|end| !fails(&prefix(calls, *end)));
    match ends.get(at) {
        Some(end) => prefix(calls, *end),
        None => calls.to_vec(),
    }
}

/// What had happened by then: calls that were under way might as well have got no answer.
fn prefix(calls: &[Call], end: u64) -> Vec<Call> {
    let begun = calls.iter().filter(|call| call.invoked <= end).cloned();
    begun
        .filter_map(|mut call| {
            if call.end().is_some_and(|own| own > end) {
                call.outcome = Outcome::Unknown;
            }
            (call.outcome != Outcome::Unknown || call.operation != Operation::Read).then_some(call)
        })
        .collect()
}

fn changes_nothing(call: &Call) -> bool {
    matches!(
        call.outcome,
        Outcome::Found { .. } | Outcome::Missing | Outcome::Mismatch { .. } | Outcome::Failed
    )
}

/// Whether this is a write between two others that nobody took notice of. All changes must tell their versions, or
/// there might be one in between.
fn was_replaced_unmet(calls: &[Call], call: &Call) -> bool {
    let (Operation::Write { contents, lifetime: None }, Outcome::Changed { version: Some(version) }) =
        (call.operation, call.outcome)
    else {
        return false;
    };
    if calls.iter().any(|other| matches!(other.outcome, Outcome::Changed { version: None })) {
        return false;
    }
    let is_met = calls.iter().any(|other| {
        let told = matches!(other.outcome, Outcome::Mismatch { present } if present == version);
        let found = matches!(other.outcome, Outcome::Found { version: v, contents: c } if v == version || c == contents);
        told || found || other.operation.expected() == Some(version)
    });
    let made = |other: &Call| match other.outcome {
        Outcome::Changed { version } => version,
        _ => None,
    };
    let next = calls.iter().filter(|other| made(other) > Some(version)).min_by_key(|other| made(other));
    let replaced = next.is_some_and(|next| matches!(next.operation, Operation::Write { .. }));
    !is_met && replaced && version > Version(0)
}

/// Leaves out as many as possible of those that may be, first in large pieces.
fn leave_out(calls: &mut Vec<Call>, judged: &mut Judged, may: impl Fn(&Call) -> bool) {
    let mut piece = calls.len();
    while piece > 0 {
        let mut begin = 0;
        while begin < calls.len() {
            let end = (begin + piece).min(calls.len());
            let rest: Vec<Call> = calls
                .iter()
                .enumerate()
                .filter(|(at, call)| !(begin..end).contains(at) || !may(call))
                .map(|(_, call)| call.clone())
                .collect();
            if rest.len() < calls.len() && judged.fails(&rest) {
                *calls = rest;
            } else {
                begin = end;
            }
        }
        piece /= 2;
    }
}

/// As [`leave_out`], where what may be left out depends on what is left.
fn leave_out_one_by_one(calls: &mut Vec<Call>, judged: &mut Judged, may: impl Fn(&[Call], &Call) -> bool) {
    let mut at = 0;
    while at < calls.len() {
        let mut rest = calls.clone();
        let call = rest.remove(at);
        if may(calls, &call) && judged.fails(&rest) {
            *calls = rest;
        } else {
            at += 1;
        }
    }
}
