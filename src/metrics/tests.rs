use std::collections::BTreeSet;

use super::definitions::ALL;
use super::*;

static BYTES: Definition = Definition {
    name: "fsd_test_bytes",
    kind: Kind::Histogram { bounds: &[10, 100], unit: Unit::Whole },
    help: "One \\ and\ntwo \"lines\".",
};
static TIME: Definition = Definition {
    name: "fsd_test_seconds",
    kind: Kind::Histogram { bounds: &[100, 2_500_000], unit: Unit::Microseconds },
    help: "Time.",
};
static GAUGE: Definition = Definition { name: "fsd_test", kind: Kind::Gauge, help: "A gauge." };

fn page(write: impl FnOnce(&mut Page)) -> String {
    let mut page = Page::default();
    write(&mut page);
    page.into_text()
}

#[test]
fn a_value_has_help_and_type_and_its_labels_are_escaped() {
    assert_eq!(
        page(|page| page.value(&GAUGE, u64::MAX)),
        "# HELP fsd_test A gauge.\n# TYPE fsd_test gauge\nfsd_test 18446744073709551615\n"
    );
    let text = page(|page| {
        page.family(&GAUGE);
        page.sample(&[("a", "x"), ("b", "\"\\\n")], 1);
    });
    assert!(text.ends_with("\nfsd_test{a=\"x\",b=\"\\\"\\\\\\n\"} 1\n"), "{text}");
}

#[test]
fn a_histogram_is_cumulative_and_a_value_on_a_bound_is_within_it() {
    let mut histogram = Histogram::new(&BYTES);
    for value in [0, 10, 11, 100, 101, 1000] {
        histogram.record(value);
    }
    assert_eq!((histogram.count(), histogram.sum()), (6, 1222));
    assert_eq!(
        page(|page| page.histogram(&BYTES, &histogram)),
        "# HELP fsd_test_bytes One \\\\ and\\ntwo \"lines\".\n# TYPE fsd_test_bytes histogram\n\
         fsd_test_bytes_bucket{le=\"10\"} 2\nfsd_test_bytes_bucket{le=\"100\"} 4\n\
         fsd_test_bytes_bucket{le=\"+Inf\"} 6\nfsd_test_bytes_sum 1222\nfsd_test_bytes_count 6\n"
    );
}

#[test]
fn microseconds_are_shown_as_seconds() {
    let mut histogram = Histogram::new(&TIME);
    histogram.record(1);
    histogram.record(3_000_000);
    let text = page(|page| {
        page.family(&TIME);
        page.buckets(&[("kind", "read")], &histogram);
    });
    for line in [
        "fsd_test_seconds_bucket{kind=\"read\",le=\"0.0001\"} 1",
        "fsd_test_seconds_bucket{kind=\"read\",le=\"2.5\"} 1",
        "fsd_test_seconds_bucket{kind=\"read\",le=\"+Inf\"} 2",
        "fsd_test_seconds_sum{kind=\"read\"} 3.000001",
        "fsd_test_seconds_count{kind=\"read\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[test]
fn a_sum_that_is_full_stays_full() {
    let mut histogram = Histogram::new(&BYTES);
    histogram.record(u64::MAX);
    histogram.record(1);
    assert_eq!(histogram.sum(), u64::MAX);
}

#[test]
fn definitions_keep_the_rules_for_names_and_help() {
    let mut names = BTreeSet::new();
    for Definition { name, kind, help } in ALL.iter().copied() {
        assert!(names.insert(name), "{name} is defined twice");
        assert!(name.starts_with("fsd_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.') && help.len() > 10, "{name} has no help");
        if let Kind::Histogram { bounds, unit } = kind {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == Unit::Microseconds, "{name}");
        }
    }
}

/// The rows of the document's tables, by their first column: each begins with a metric's name in backquotes.
#[test]
fn the_document_tells_of_each_metric_and_of_no_other() {
    let document = include_str!("../../docs/metrics.md");
    let documented: Vec<(&str, &str)> =
        document.lines().filter_map(|line| line.strip_prefix("| `fsd_")?.split_once('`')).collect();
    let of = |definition: &Definition| match definition.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram { .. } => "histogram",
    };
    for definition in ALL {
        let rows: Vec<_> = documented
            .iter()
            .filter(|(name, _)| definition.name.strip_prefix("fsd_") == Some(name))
            .collect();
        assert_eq!(rows.len(), 1, "rows about {}", definition.name);
        let kind = rows[0].1.trim_start_matches([' ', '|']);
        assert!(kind.starts_with(of(definition)), "{} is a {}", definition.name, of(definition));
    }
    assert_eq!(documented.len(), ALL.len(), "the document tells of metrics that there are not");
}
