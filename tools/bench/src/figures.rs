//! What a benchmark found: figures, of which those that matter are ratios of two that were measured in the same run.

use std::fmt::Write;

use serde_json::json;

/// What a ratio should be.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::AtMost(bound) => format!("at most {}", short(bound)),
            Self::AtLeast(bound) => format!("at least {}", short(bound)),
        }
    }
}

/// The figures of one run.
pub(crate) struct Figures {
    mode: &'static str,
    figures: Vec<Figure>,
}

struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<Goal>,
}

impl Figures {
    pub(crate) fn of(mode: &'static str) -> Self {
        Self { mode, figures: Vec::new() }
    }

    /// A figure that only tells what a ratio is made of.
    pub(crate) fn put(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.push(what.into(), value, unit, None);
    }

    /// A figure that is to reach something.
    pub(crate) fn judge(&mut self, what: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.push(what.into(), value, unit, Some(goal));
    }

    fn push(&mut self, what: String, value: f64, unit: &'static str, goal: Option<Goal>) {
        // Whoever waits for a long run sees how far it is.
        eprintln!("{}: {what}: {} {unit}", self.mode, short(value));
        self.figures.push(Figure { what, value, unit, goal });
    }

    /// All of them as rows of a table, and as one line of JSON each.
    pub(crate) fn print(&self) {
        let mut lines = String::from("| what | figure | goal |\n| --- | --- | --- |\n");
        for Figure { what, value, unit, goal } in &self.figures {
            let goal = goal.map_or(String::new(), |goal| {
                let met = if goal.is_met(*value) { "met" } else { "missed" };
                format!("{}: {met}", goal.describe())
            });
            let _ = writeln!(lines, "| {what} | {} {unit} | {goal} |", short(*value));
        }
        println!("{lines}");
        for Figure { what, value, unit, goal } in &self.figures {
            let mut line = json!({ "mode": self.mode, "what": what, "value": value, "unit": unit });
            if let Some(goal) = goal {
                line["goal"] = json!(goal.describe());
                line["met"] = json!(goal.is_met(*value));
            }
            println!("{line}");
        }
    }
}

/// Three digits that count, or all before the point.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
