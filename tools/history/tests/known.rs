//! Histories of which it is known whether they are correct: each classic fault, and beside it what looks like it and
//! is none.

mod notation;

use fsd_history::{Violation, check};
use notation::history;

/// What must be refused, and why.
const BAD: &[(&str, &str)] = &[
    ("a stale read", "1 0..1 a write x = 1\n1 2..3 a write y = 2\n2 4..5 a read = x@1"),
    ("a stale read of nothing", "1 0..1 a write x = 1\n2 2..3 a read = none"),
    ("a stale refusal", "1 0..1 a write x = 1\n1 2..3 a write y = 2\n2 4..5 a cas 7 z = !1"),
    ("a lost update", "1 0..9 a write x = 1\n1 10..20 a cas 1 y = 2\n2 10..20 a cas 1 z = 3"),
    (
        "a cas that succeeds twice on a version",
        "1 0..1 a write x = 1\n1 2..3 a cas 1 y = 2\n1 4..5 a cas 1 z = 3",
    ),
    ("two who create", "1 0..9 a cas 0 x = 1\n2 0..9 a cas 0 y = 2"),
    (
        "a write lost after its acknowledgement",
        "1 0..1 a write x = 1\n1 2..3 a write y = 2\n2 4..5 a read = x@1\n2 6..7 a read = x@1",
    ),
    ("a first write lost after its acknowledgement", "1 0..1 a write x = 1\n2 2..3 a cas 0 y = 2"),
    ("a delete that comes back", "1 0..1 a write x = 1\n1 2..3 a delete = 2\n2 4..5 a read = x@1"),
    ("a delete that is lost for a cas", "1 0..1 a write x = 1\n1 2..3 a delete = 2\n2 4..5 a cas 1 y = 3"),
    ("a delete of nothing", "1 0..1 a delete = 1"),
    ("a second delete of one file", "1 0..1 a write x = 1\n1 2..3 a delete = 2\n1 4..5 a delete = 3"),
    ("a delete of another version", "1 0..1 a write x = 1\n1 2..3 a write y = 2\n1 4..5 a delete if 1 = 3"),
    ("a delete that finds nothing where there is something", "1 0..1 a write x = 1\n1 2..3 a delete = none"),
    ("a read of a failed write", "1 0..1 a write x = fail\n2 2..3 a read = x@1"),
    ("a read of a failed cas", "1 0..1 a write x = 1\n1 2..9 a cas 1 y = fail\n2 4..5 a read = y@2"),
    ("a failed delete that deletes", "1 0..1 a write x = 1\n1 2..3 a delete = fail\n2 4..5 a read = none"),
    ("a refused cas that is done", "1 0..1 a write x = 1\n1 2..3 a cas 7 y = !1\n2 4..5 a read = y@2"),
    ("a read of the future", "2 0..1 a read = x@1\n1 2..3 a write x = 1"),
    ("a refusal from the future", "2 0..1 a cas 0 y = !1\n1 2..3 a write x = 1"),
    ("a read of what nobody wrote", "1 0..1 a write x = 1\n2 2..3 a read = z@1"),
    ("a read with another version", "1 0..1 a write x = 1\n2 2..3 a read = x@2"),
    (
        "reads that go back",
        "1 0..9 a write x = 1\n1 10..99 a write y = 2\n2 20..30 a read = y@2\n3 40..50 a read = x@1",
    ),
    (
        "reads that see two writes in two orders",
        "1 0..99 a write x = 1\n2 0..99 a write y = 2\n3 1..2 a read = y@2\n3 3..4 a read = x@1",
    ),
    (
        "an unknown write seen, then not",
        "1 0..1 a write x = 1\n1 2..3 a write y = ?\n2 4..5 a read = y@2\n2 6..7 a read = x@1",
    ),
    (
        "an unknown write done twice",
        "1 0..1 a write x = ?\n1 2..3 a write y = 3\n2 4..5 a read = x@1\n2 6..7 a read = y@3\n2 8..9 a read = x@4",
    ),
    ("an unknown write in two versions", "1 0..1 a write x = ?\n2 2..3 a read = x@1\n2 4..5 a read = x@2"),
    (
        "an unknown delete that is undone",
        "1 0..1 a write x = 1\n1 2..3 a delete = ?\n2 4..5 a read = none\n2 6..7 a read = x@1",
    ),
    ("an unknown write before its call", "2 0..1 a read = x@1\n1 2..3 a write x = ?"),
    (
        "an unknown cas on a version that is gone",
        "1 0..1 a write x = 1\n1 2..3 a write y = 2\n1 4..5 a cas 1 z = ?\n2 6..7 a read = z@3",
    ),
    (
        "an unknown write under a version that was passed",
        "1 0..1 a write x = 5\n1 2..3 a write y = ?\n1 4..5 a read = y@4",
    ),
    ("a file that is gone before its end", "1 0..1 a write x ttl 100 = 1\n2 50..60 a read = none"),
    ("a file that is taken before its end", "1 0..1 a cas 0 x ttl 100 = 1\n2 50..60 a cas 0 y = 2"),
    (
        "an expired file that is seen again",
        "1 0..1 a write x ttl 10 = 1\n2 20..21 a read = none\n3 22..23 a read = x@1",
    ),
    (
        "an expired lock that its holder takes back",
        "1 0..1 a write x ttl 10 = 1\n2 20..21 a read = none\n1 22..23 a cas 1 y = 2",
    ),
    (
        "an end that an overwrite has taken back",
        "1 0..1 a write x ttl 10 = 1\n1 2..3 a write y = 2\n2 20..21 a read = none",
    ),
    (
        "an end that an overwrite has put off",
        "1 0..1 a write x ttl 10 = 1\n1 5..6 a write y ttl 10 = 2\n2 12..13 a read = none",
    ),
    (
        "an end that a failed overwrite has put off",
        "1 0..1 a write x ttl 10 = 1\n1 5..6 a cas 1 y ttl 10 = fail\n2 20..21 a read = y@2",
    ),
    (
        "a version that is used again after a delete",
        "1 0..1 a write x = 1\n1 2..3 a delete = 2\n1 4..5 a write y = 1",
    ),
    (
        "a version that is used again after an end",
        "1 0..1 a write x ttl 5 = 4\n2 10..11 a read = none\n1 14..15 a write y = 4",
    ),
    ("versions of one file that fall", "1 0..1 a write x = 2\n1 2..3 a write y = 1"),
    ("a version on two files", "1 0..9 a write x = 1\n2 0..9 b write y = 1"),
    (
        "a version that is a file's and a delete's",
        "1 0..1 b write y = 1\n1 10..19 a write x = 2\n2 10..19 b delete = 2",
    ),
    (
        "a version that is two contents'",
        "1 0..1 a write x = ?\n1 0..1 b write y = ?\n2 2..3 a read = x@1\n2 2..3 b read = y@1",
    ),
    ("versions over two files that go back", "1 0..1 a write x = 2\n2 5..6 b write y = 1"),
    (
        "an unknown write under a version that was told on another file",
        "1 0..1 a write x = 7\n2 5..6 b write y = ?\n2 8..9 b read = y@3",
    ),
    (
        "a write under a version that was only read",
        "1 0..99 a write x = 7\n3 1..2 a read = x@7\n2 5..6 b write y = 3",
    ),
    ("a refusal because of the expected version", "1 0..1 a write x = 1\n1 2..3 a cas 1 y = !1"),
];

/// What must be accepted.
const GOOD: &[(&str, &str)] = &[
    ("nothing", ""),
    (
        "one after the other",
        "1 0..1 a write x = 1\n1 2..3 a read = x@1\n1 4..5 a delete = 2\n1 6..7 a read = none",
    ),
    ("a read during a write: before", "1 0..1 a write x = 1\n1 2..9 a write y = 2\n2 3..4 a read = x@1"),
    ("a read during a write: after", "1 0..1 a write x = 1\n1 2..9 a write y = 2\n2 3..4 a read = y@2"),
    (
        "reads during a write: before, then after",
        "1 0..1 a write x = 1\n1 2..9 a write y = 2\n2 3..4 a read = x@1\n2 5..6 a read = y@2",
    ),
    (
        "two reads at once, in either order",
        "1 0..1 a write x = 1\n1 2..9 a write y = 2\n2 3..8 a read = y@2\n3 3..8 a read = x@1",
    ),
    ("a read that ends where the write begins", "2 0..5 a read = none\n1 5..9 a write x = 1"),
    ("a read of it that ends where the write begins", "2 0..5 a read = x@1\n1 5..9 a write x = 1"),
    (
        "two writes at once, the later call first",
        "1 0..9 a write x = 2\n2 5..8 a write y = 1\n2 10..11 a read = x@2",
    ),
    ("one of two creates", "1 0..9 a cas 0 x = 1\n2 0..9 a cas 0 y = !1"),
    ("one of two updates", "1 0..1 a write x = 1\n1 2..9 a cas 1 y = 2\n2 2..9 a cas 1 z = !2"),
    ("a cas on a missing file", "1 0..1 a cas 7 x = !0"),
    ("a delete of a missing file", "1 0..1 a delete = none\n1 2..3 a delete if 3 = none"),
    ("a failed write that nobody saw", "1 0..1 a write x = 1\n1 2..3 a write y = fail\n2 4..5 a read = x@1"),
    ("an unknown write that happened", "1 0..1 a write x = ?\n2 2..3 a read = x@1"),
    ("an unknown write that did not", "1 0..1 a write x = ?\n2 2..3 a read = none"),
    (
        "an unknown write that happens late",
        "1 0..1 a write x = ?\n2 2..3 a read = none\n2 90..91 a read = x@1",
    ),
    (
        "an unknown write that makes room for a delete",
        "1 0..1 a write x = ?\n2 2..3 a delete = 2\n2 4..5 a read = none",
    ),
    ("an unknown write that only a refusal met", "1 0..1 a write x = ?\n2 2..3 a cas 0 y = !1"),
    (
        "an unknown write that only a cas met",
        "1 0..1 a write x = ?\n2 2..3 a cas 1 y = 2\n2 4..5 a read = y@2",
    ),
    ("an unknown delete that happened", "1 0..1 a write x = 1\n1 2..3 a delete = ?\n2 4..5 a read = none"),
    ("an unknown delete that did not", "1 0..1 a write x = 1\n1 2..3 a delete = ?\n2 4..5 a read = x@1"),
    (
        "an unknown delete that happens late",
        "1 0..1 a write x = 1\n1 2..3 a delete = ?\n2 4..5 a read = x@1\n2 6..7 a read = none",
    ),
    (
        "an unknown cas that lost",
        "1 0..1 a write x = 1\n1 2..3 a cas 1 y = ?\n2 4..5 a cas 1 z = 2\n2 6..7 a read = z@2",
    ),
    (
        "an unknown cas that won",
        "1 0..1 a write x = 1\n1 2..3 a cas 1 y = ?\n2 4..5 a cas 1 z = !2\n2 6..7 a read = y@2",
    ),
    ("an unknown read", "1 0..1 a write x = 1\n2 2..3 a read = ?"),
    ("a failed read", "1 0..1 a write x = 1\n2 2..3 a read = fail"),
    (
        "an unknown write between two versions",
        "1 0..1 a write x = 1\n1 2..3 a write y = ?\n1 4..5 a write z = 3\n2 6..7 a read = z@3",
    ),
    (
        "a change that does not tell its version",
        "1 0..1 a write x = 1\n1 2..3 a delete = ok\n1 4..5 a write y = 3\n2 6..7 a read = y@3",
    ),
    (
        "a file that goes at its end",
        "1 0..1 a write x ttl 10 = 1\n2 5..6 a read = x@1\n2 10..11 a read = none",
    ),
    (
        "a file that is not gone yet",
        "1 0..1 a write x ttl 10 = 1\n2 30..31 a read = x@1\n2 40..41 a read = none",
    ),
    (
        "an overwrite that takes the end back",
        "1 0..1 a write x ttl 10 = 1\n1 2..3 a write y = 2\n2 90..91 a read = y@2",
    ),
    (
        "a lock that changes hands",
        "1 0..1 a cas 0 x ttl 10 = 1\n2 5..6 a cas 0 y ttl 10 = !1\n2 12..13 a cas 0 w ttl 10 = 2\n1 14..15 a cas 1 z = !2",
    ),
    (
        "an unknown lock that goes at its end",
        "1 0..1 a cas 0 x ttl 10 = ?\n2 5..6 a read = x@1\n2 12..13 a read = none",
    ),
    (
        "a file made again after its end",
        "1 0..1 a write x ttl 10 = 1\n2 12..13 a read = none\n2 14..15 a write y = 2\n1 16..17 a read = y@2",
    ),
    (
        "versions with gaps, for the changes of other files",
        "1 0..1 a write x = 3\n2 2..3 b write y = 9\n1 4..5 a write z = 12",
    ),
    ("versions of two files at once, in either order", "1 0..9 a write x = 2\n2 5..8 b write y = 1"),
    (
        "an unknown write with a version above all that was told",
        "1 0..1 a write x = 7\n2 5..6 b write y = ?\n2 8..9 b read = y@8",
    ),
    (
        "deletes under a condition",
        "1 0..1 a write x = 1\n1 2..3 a delete if 7 = !1\n1 4..5 a delete if 1 = 2",
    ),
];

#[test]
fn what_cannot_be_explained_is_refused() {
    assert!(BAD.len() >= 30, "{} histories", BAD.len());
    let accepted: Vec<&str> =
        BAD.iter().filter(|(_, text)| check(&history(text)).is_ok()).map(|(what, _)| *what).collect();
    assert_eq!(accepted, [""; 0], "of {}", BAD.len());
}

#[test]
fn what_can_be_explained_is_accepted() {
    assert!(GOOD.len() >= 30, "{} histories", GOOD.len());
    for (what, text) in GOOD {
        check(&history(text)).unwrap_or_else(|violation| panic!("{what}: {violation}"));
    }
}

/// A file's calls do not hide another's.
#[test]
fn one_bad_file_is_found_among_good_ones() {
    let mut text = String::new();
    for n in 0..50 {
        text += &format!("1 {}..{} good{n} write x = {}\n", 1000 + 10 * n, 1001 + 10 * n, 100 + n);
    }
    check(&history(&text)).unwrap();
    text += "1 0..1 a write x = 1\n1 2..3 a write y = 2\n2 4..5 a read = x@1\n";
    let violation = check(&history(&text)).unwrap_err();
    assert!(matches!(violation, Violation::NotLinearizable { file, .. } if file == "a"));
}

/// A thousand calls around it are left out of what a person is shown.
#[test]
fn a_violation_is_shown_in_few_calls() {
    let mut text = String::new();
    for n in 0..300 {
        let (at, contents, version) = (10 * n, 1000 + n, n + 1);
        text += &format!("1 {at}..{} a write {contents} = {version}\n", at + 4);
        text += &format!("2 {}..{} a read = {contents}@{version}\n", at + 5, at + 6);
    }
    check(&history(&text)).unwrap();
    // At the time of write 250 a read finds the contents of write 248.
    text += "3 2507..2508 a read = 1248@249\n";
    let violation = check(&history(&text)).unwrap_err();
    let Violation::NotLinearizable { calls, .. } = &violation else { panic!("{violation}") };
    assert_eq!(calls.len(), 3, "{violation}");
    let shown = violation.to_string();
    assert!(shown.contains("file a: no order of these 3 operations"), "{shown}");
    assert!(shown.contains("2507 .. 2508       client 3   a: read -> 1248 at version 249"), "{shown}");
}

#[test]
#[should_panic(expected = "two changes have the contents tag")]
fn contents_that_two_changes_share_are_the_callers_fault() {
    let _ = check(&history("1 0..1 a write x = 1\n1 2..3 a write x = 2"));
}
