use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn inc(number: u64) -> Incarnation {
    Incarnation(number)
}

fn electorate(registrations: &[(u64, NodeId, u64)]) -> Electorate {
    let registrations: Vec<_> =
        registrations.iter().map(|(index, node, number)| (LogIndex(*index), *node, inc(*number))).collect();
    Electorate::new(&[A, B, C], &registrations)
}

fn met(items: &[(NodeId, u64)]) -> Met {
    items.iter().map(|(node, number)| (*node, (inc(*number), Life::new(1, 0)))).collect()
}

/// Any two quorums share a member, and no smaller number would do: every subset of up to seven nodes.
#[test]
fn two_majorities_always_meet() {
    for count in 1..=7usize {
        let sets = || 0u32..1 << count;
        let quorum = |set: &u32| set.count_ones() as usize >= majority(count);
        for a in sets().filter(quorum) {
            assert!(sets().filter(quorum).all(|b| a & b != 0), "{count} nodes: {a:b}");
        }
        let less = |set: &u32| set.count_ones() as usize + 1 >= majority(count);
        let all_meet = sets().filter(less).all(|a| sets().filter(less).all(|b| a & b != 0));
        assert!(!all_meet, "{count} nodes: a majority of {} is more than needed", majority(count));
    }
}

/// Every assignment of match indexes 0 to 3 to up to seven nodes, against the definition.
#[test]
fn what_a_quorum_holds_is_what_the_definition_says() {
    for count in 1..=7u32 {
        let members: Vec<_> = (1..=count).map(NodeId).collect();
        let genesis: Vec<_> = members.iter().map(|node| (LogIndex(1), *node, inc(9))).collect();
        let electorate = Electorate::new(&members, &genesis);
        for assignment in 0..4u32.pow(count) {
            let held = |node: NodeId| assignment / 4u32.pow(node.0 - 1) % 4;
            let expected = (0..4).rev().find(|index| {
                2 * members.iter().filter(|node| held(**node) >= *index).count() > members.len()
            });
            let values = members.iter().map(|node| (*node, inc(9), held(*node)));
            assert_eq!(electorate.held_by_quorum(values), expected, "{count} nodes, {assignment}");
        }
    }
}

/// Every choice of which of up to seven nodes count: those that do not are missing, not at zero.
#[test]
fn who_does_not_count_is_missing_from_the_quorum() {
    for count in 1..=7u32 {
        let members: Vec<_> = (1..=count).map(NodeId).collect();
        for counted in 0..1u32 << count {
            let counts = |node: NodeId| counted & 1 << (node.0 - 1) != 0;
            let genesis: Vec<_> = members
                .iter()
                .filter(|node| counts(**node))
                .map(|node| (LogIndex(1), *node, inc(9)))
                .collect();
            let electorate = Electorate::new(&members, &genesis);
            let values = members.iter().map(|node| (*node, inc(9), 5));
            let enough = 2 * counted.count_ones() > count;
            assert_eq!(electorate.held_by_quorum(values).is_some(), enough, "{counted:b} of {count}");
        }
    }
}

#[test]
fn the_subject_does_not_vouch_for_itself() {
    let electorate = electorate(&[]);
    let values = [(A, 5), (B, 7), (C, 9)];
    assert_eq!(electorate.held_by_others(C, values.into_iter()), Some(5));
    assert_eq!(electorate.held_by_others(A, values.into_iter()), Some(7));
    assert_eq!(electorate.held_by_others(A, [(A, 5), (B, 7), (NodeId(8), 9)].into_iter()), None);
}

#[test]
fn genesis_members_count_at_once() {
    let electorate = electorate(&[(1, A, 10), (1, B, 20)]);
    assert!(electorate.counts(A, inc(10)) && electorate.counts(B, inc(20)));
    assert!(!electorate.counts(A, inc(11)), "another disk");
    assert!(!electorate.counts(C, inc(30)), "not registered");
    assert!(!electorate.counts(NodeId(4), inc(10)), "no member");
}

#[test]
fn a_registration_counts_when_it_is_repeated() {
    let known = met(&[(C, 30)]);
    let proposed = electorate(&[(1, A, 10), (1, B, 20), (7, C, 30)]);
    assert!(!proposed.counts(C, inc(30)));
    assert!(proposed.vote_counts(C, inc(30), &known), "the first one ever may vote meanwhile");
    assert!(!proposed.vote_counts(C, inc(30), &met(&[(C, 31)])), "unless another was met first");
    assert!(!proposed.vote_counts(C, inc(31), &met(&[])));
    let confirmed = electorate(&[(1, A, 10), (1, B, 20), (7, C, 30), (8, C, 30)]);
    assert!(confirmed.counts(C, inc(30)) && confirmed.vote_counts(C, inc(30), &met(&[(C, 31)])));
    let repeated = electorate(&[(1, A, 10), (1, B, 20), (7, C, 30), (8, C, 30), (9, C, 30)]);
    assert_eq!(repeated, confirmed);
}

#[test]
fn while_a_new_disk_is_proposed_neither_it_nor_the_old_one_counts() {
    let nobody_met = met(&[]);
    let between = electorate(&[(1, A, 10), (1, B, 20), (5, B, 21)]);
    for number in [20, 21] {
        assert!(!between.counts(B, inc(number)));
        assert!(!between.vote_counts(B, inc(number), &nobody_met));
    }
    let after = electorate(&[(1, A, 10), (1, B, 20), (5, B, 21), (6, B, 21)]);
    assert!(after.counts(B, inc(21)) && !after.counts(B, inc(20)));
    // A third one before the second was confirmed.
    let third = electorate(&[(1, A, 10), (1, B, 20), (5, B, 21), (6, B, 22)]);
    assert_eq!(
        third.standing(B),
        Standing::Proposed { incarnation: inc(22), index: LogIndex(6), first: false }
    );
}

#[test]
fn a_truncation_takes_registrations_back() {
    let mut electorate = electorate(&[(1, A, 10), (1, B, 20), (5, B, 21)]);
    electorate.recount(&[(LogIndex(1), A, inc(10)), (LogIndex(1), B, inc(20))]);
    assert!(electorate.counts(B, inc(20)));
}

#[test]
fn an_unknown_member_is_believed_to_be_who_was_met_first() {
    let empty = electorate(&[]);
    assert!(empty.vote_counts(B, inc(21), &met(&[])), "the beginning");
    assert!(empty.vote_counts(B, inc(20), &met(&[(B, 20)])));
    assert!(!empty.vote_counts(B, inc(21), &met(&[(B, 20)])));
    assert!(!empty.vote_counts(NodeId(4), inc(1), &met(&[])), "no member");
    assert!(empty.may_grant(B, inc(20), &met(&[(B, 20)])) && !empty.may_grant(B, inc(21), &met(&[(B, 20)])));
    // The log knows better than what was met.
    let log = electorate(&[(1, B, 21)]);
    assert!(log.may_grant(B, inc(21), &met(&[(B, 20)])) && !log.may_grant(B, inc(20), &met(&[(B, 20)])));
}

/// Whatever a log has registered, the last two registrations of each node say the same as all of them; the last alone
/// does not. So a log that was compacted knows who counts.
#[test]
fn standings_follow_from_the_last_two_registrations_of_each_node() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut last_would_do = true;
    for _ in 0..2000 {
        let mut all: Vec<(LogIndex, NodeId, Incarnation)> = Vec::new();
        for node in [A, B, C] {
            if random.bool() {
                all.push((LogIndex(1), node, inc(random.u64(..2))));
            }
        }
        for index in 2..random.u64(2..12) {
            all.push((LogIndex(index), random.choice([A, B, C]).unwrap(), inc(random.u64(..3))));
        }
        let compacted = |from: usize, kept: usize| {
            let later = |at: usize| all[at + 1..from].iter().filter(|item| item.1 == all[at].1).count();
            let left = (0..all.len()).filter(|at| *at >= from || later(*at) < kept);
            Electorate::new(&[A, B, C], &left.map(|at| all[at]).collect::<Vec<_>>())
        };
        let whole = Electorate::new(&[A, B, C], &all);
        for from in 0..=all.len() {
            assert_eq!(compacted(from, 2), whole, "{all:?} up to {from}");
            last_would_do &= compacted(from, 1) == whole;
        }
    }
    assert!(!last_would_do);
}
