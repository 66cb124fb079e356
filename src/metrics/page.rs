//! The Prometheus text format, version 0.0.4.

use std::fmt::Write as _;

use super::{Definition, Histogram, Kind, Unit};

const MICROSECONDS_PER_SECOND: u64 = 1_000_000;

/// A page that is being written: one family after the other, each with its help, its type and its samples.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// The family that is being written.
    family: Option<&'static Definition>,
}

impl Page {
    /// The media type of the format.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Writes a metric that has one value.
    pub fn value(&mut self, definition: &'static Definition, value: u64) {
        self.family(definition);
        self.sample(&[], value);
    }

    /// Writes a histogram that has no labels.
    pub fn histogram(&mut self, definition: &'static Definition, histogram: &Histogram) {
        self.family(definition);
        self.buckets(&[], histogram);
    }

    /// Begins a metric that has a value for each combination of some labels: [`Self::sample`] or
    /// [`Self::buckets`] follow.
    pub fn family(&mut self, definition: &'static Definition) {
        let Definition { name, kind, help } = definition;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram { .. } => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        push_escaped(&mut self.text, help, false);
        let _ = writeln!(self.text, "\n# TYPE {name} {kind}");
        self.family = Some(definition);
    }

    /// Writes a value of the family.
    ///
    /// # Panics
    /// If no family was begun.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let name = self.current().name;
        self.line(name, "", labels, None, &value.to_string());
    }

    /// Writes a histogram of the family.
    ///
    /// # Panics
    /// If no family was begun, or one of another kind.
    pub fn buckets(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let definition = self.current();
        let Kind::Histogram { unit, .. } = definition.kind else {
            panic!("{} is no histogram", definition.name);
        };
        let count = histogram.count().to_string();
        for (bound, within) in histogram.cumulative() {
            self.line(definition.name, "_bucket", labels, Some(&in_unit(bound, unit)), &within.to_string());
        }
        self.line(definition.name, "_bucket", labels, Some("+Inf"), &count);
        self.line(definition.name, "_sum", labels, None, &in_unit(histogram.sum(), unit));
        self.line(definition.name, "_count", labels, None, &count);
    }

    /// The finished text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn current(&self) -> &'static Definition {
        self.family.expect("a family was begun")
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: &str) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (label, text) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            self.text.push(separator);
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, text, true);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        self.text.push(' ');
        self.text.push_str(value);
        self.text.push('\n');
    }
}

/// A help text may hold quotes as they are; the value of a label may not.
fn push_escaped(out: &mut String, text: &str, in_quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if in_quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

fn in_unit(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Whole => value.to_string(),
        Unit::Microseconds => {
            let (seconds, rest) = (value / MICROSECONDS_PER_SECOND, value % MICROSECONDS_PER_SECOND);
            let text = format!("{seconds}.{rest:06}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}
