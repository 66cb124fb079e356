use proptest::prelude::*;

use super::*;

fn advance(wheel: &mut TimerWheel<u32>, now_ms: u64) -> Vec<u32> {
    let mut due = Vec::new();
    wheel.advance(now_ms, &mut due);
    due
}

#[test]
fn timers_fire_at_their_deadline_and_not_before() {
    let mut wheel = TimerWheel::new(1000);
    assert_eq!(wheel.next_deadline(), None);
    wheel.insert(1010, 1);
    wheel.insert(1005, 2);
    assert_eq!(wheel.next_deadline(), Some(1005));
    assert_eq!(advance(&mut wheel, 1004), []);
    assert_eq!(advance(&mut wheel, 1005), [2]);
    assert_eq!(advance(&mut wheel, 1009), []);
    assert_eq!(advance(&mut wheel, 2000), [1]);
    assert!(wheel.is_empty());
    assert_eq!(wheel.next_deadline(), None);
}

#[test]
fn equal_deadlines_fire_in_the_order_of_insertion() {
    let mut wheel = TimerWheel::new(0);
    wheel.insert(5000, 1);
    wheel.insert(5000, 2);
    wheel.insert(4999, 3);
    assert_eq!(advance(&mut wheel, 4990), []);
    // From here the deadline is in a lower level than it was for the first ones.
    wheel.insert(5000, 4);
    assert_eq!(advance(&mut wheel, 9000), [3, 1, 2, 4]);
}

#[test]
fn a_deadline_that_has_passed_fires_at_the_next_advance() {
    let mut wheel = TimerWheel::new(100);
    wheel.insert(7, 1);
    assert_eq!(wheel.next_deadline(), Some(100));
    wheel.insert(100, 2);
    wheel.insert(3, 3);
    assert_eq!(advance(&mut wheel, 100), [1, 2, 3]);
    wheel.insert(100, 4);
    assert_eq!(advance(&mut wheel, 50), [4], "a clock that goes back stands still");
    wheel.insert(99, 5);
    assert_eq!(wheel.next_deadline(), Some(100));
}

#[test]
fn what_is_inserted_after_an_advance_waits_for_the_next() {
    let mut wheel = TimerWheel::new(0);
    wheel.insert(10, 1);
    let mut due = Vec::new();
    let mut rounds = 0;
    for now_ms in [10, 10, 10, 20] {
        due.clear();
        wheel.advance(now_ms, &mut due);
        assert_eq!(due, [1], "a timer that is set anew for now fires once for each advance");
        wheel.insert(now_ms, 1);
        rounds += 1;
    }
    assert_eq!((rounds, wheel.len()), (4, 1));
}

#[test]
fn cancelled_timers_do_not_fire_and_stale_ids_name_nothing() {
    let mut wheel = TimerWheel::new(0);
    let first = wheel.insert(70, 1);
    let middle = wheel.insert(70, 2);
    let last = wheel.insert(70, 3);
    assert_eq!(wheel.cancel(middle), Some(2));
    assert_eq!(wheel.cancel(middle), None);
    // The place of the cancelled timer is taken again; its id does not reach the new one.
    let newcomer = wheel.insert(70, 4);
    assert_eq!(newcomer.at, middle.at);
    assert_eq!(wheel.cancel(middle), None);
    assert_eq!(wheel.cancel(first), Some(1));
    assert_eq!(wheel.cancel(newcomer), Some(4));
    assert_eq!(advance(&mut wheel, 70), [3]);
    assert_eq!(wheel.cancel(last), None, "it has fired");
    let alone = wheel.insert(1_000_000, 5);
    assert_eq!(wheel.cancel(alone), Some(5));
    assert_eq!(wheel.next_deadline(), None);
}

/// As in the loop: sleep until the next deadline, advance to it, and so on.
fn sleep_until_fired(wheel: &mut TimerWheel<u32>) -> u64 {
    let mut due = Vec::new();
    let mut wake_ups = 0;
    let mut now_ms = 0;
    while due.is_empty() {
        now_ms = wheel.next_deadline().expect("a timer waits");
        wheel.advance(now_ms, &mut due);
        wake_ups += 1;
        assert!(wake_ups <= LEVELS, "woken {wake_ups} times, last at {now_ms}");
    }
    now_ms
}

#[test]
fn a_far_deadline_costs_a_few_early_wake_ups() {
    for deadline_ms in [0, 63, 64, 4095, 4096, 1_000_000, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
        let mut wheel = TimerWheel::new(0);
        wheel.insert(deadline_ms, 1);
        assert_eq!(sleep_until_fired(&mut wheel), deadline_ms);
        // And in one jump.
        let mut wheel = TimerWheel::new(0);
        wheel.insert(deadline_ms, 1);
        if deadline_ms > 0 {
            assert_eq!(advance(&mut wheel, deadline_ms - 1), []);
        }
        assert_eq!(advance(&mut wheel, u64::MAX), [1]);
    }
}

#[test]
fn a_jump_over_ages_is_not_walked_in_ticks() {
    // Stepping through each millisecond would not end in this test's lifetime.
    let mut wheel = TimerWheel::new(3);
    for key in 0..100 {
        wheel.insert(1 << (key % 63), key);
    }
    assert_eq!(advance(&mut wheel, u64::MAX - 5).len(), 100);
    wheel.insert(u64::MAX, 1);
    assert_eq!(advance(&mut wheel, u64::MAX), [1]);
    wheel.insert(5, 2);
    assert_eq!(wheel.next_deadline(), Some(u64::MAX));
    assert_eq!(advance(&mut wheel, u64::MAX), [2]);
}

#[derive(Clone, Debug)]
enum Step {
    Insert { after_ms: u64 },
    InsertPast { before_ms: u64 },
    Cancel { which: prop::sample::Index },
    Advance { by_ms: u64 },
    AdvanceToNext,
}

fn step() -> impl Strategy<Value = Step> {
    // Spans of every magnitude, and the edges of slots and levels.
    let span = || {
        prop_oneof![
            0u64..70,
            60u64..70,
            4090u64..4100,
            0u64..10_000,
            Just(3_600_000),
            (0u32..50).prop_map(|bit| 1 << bit),
            (0u32..50, 0u64..3).prop_map(|(bit, less)| (1u64 << bit).saturating_sub(less)),
        ]
    };
    prop_oneof![
        5 => span().prop_map(|after_ms| Step::Insert { after_ms }),
        1 => span().prop_map(|before_ms| Step::InsertPast { before_ms }),
        2 => any::<prop::sample::Index>().prop_map(|which| Step::Cancel { which }),
        2 => span().prop_map(|by_ms| Step::Advance { by_ms }),
        3 => Just(Step::AdvanceToNext),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// The model is a list, sorted by deadline and insertion.
    #[test]
    fn the_wheel_does_what_a_sorted_list_does(
        begin_ms in prop_oneof![Just(0u64), 0u64..5000, 0u64..1 << 60],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut now_ms = begin_ms;
        let mut wheel = TimerWheel::new(now_ms);
        let mut model: Vec<(u64, u32)> = Vec::new();
        let mut ids = Vec::new();
        for step in steps {
            let key = ids.len() as u32;
            let mut target_ms = None;
            match step {
                Step::Insert { after_ms } => {
                    ids.push(wheel.insert(now_ms + after_ms, key));
                    model.push((now_ms + after_ms, key));
                }
                Step::InsertPast { before_ms } => {
                    ids.push(wheel.insert(now_ms.saturating_sub(before_ms), key));
                    model.push((now_ms, key));
                }
                Step::Cancel { which } if !ids.is_empty() => {
                    // Any id ever given out, of timers that wait, fired, or were cancelled.
                    let which = which.index(ids.len());
                    let expected = model.iter().position(|(_, key)| *key == which as u32);
                    prop_assert_eq!(wheel.cancel(ids[which]), expected.map(|at| model.remove(at).1));
                }
                Step::Cancel { .. } => {}
                Step::Advance { by_ms } => target_ms = Some(now_ms + by_ms),
                Step::AdvanceToNext => target_ms = wheel.next_deadline(),
            }
            if let Some(target_ms) = target_ms {
                prop_assert!(target_ms >= now_ms);
                now_ms = target_ms;
                let due = advance(&mut wheel, now_ms);
                model.sort();
                let count = model.partition_point(|(deadline_ms, _)| *deadline_ms <= now_ms);
                let expected: Vec<u32> = model.drain(..count).map(|(_, key)| key).collect();
                prop_assert_eq!(due, expected);
            }
            prop_assert_eq!(wheel.len(), model.len());
            let earliest = model.iter().map(|(deadline_ms, _)| *deadline_ms).min();
            prop_assert_eq!(wheel.next_deadline().is_some(), earliest.is_some());
            if let (Some(next_ms), Some(earliest_ms)) = (wheel.next_deadline(), earliest) {
                prop_assert!(next_ms <= earliest_ms, "never late");
                prop_assert!(next_ms > now_ms || earliest_ms == now_ms, "no wake-up without progress");
            }
        }
    }
}
