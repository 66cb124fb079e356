//! What is measured: counters and histograms in plain integers, and the text format in which they are read.
//!
//! One thread owns everything, so nothing here is atomic, shared or registered: whoever measures something has a
//! field for it, and writes it to a [`Page`] when it is asked. [`definitions`] is the one table of all metrics.

pub mod definitions;
mod histogram;
mod page;
#[cfg(test)]
mod tests;

pub use histogram::Histogram;
pub use page::Page;

/// A metric: what it is called, what it is, and what it tells.
#[derive(Debug)]
pub struct Definition {
    /// Its name: begins with `fsd_`, has its unit in it, and ends in `_total` if it only grows.
    pub name: &'static str,
    /// What kind of value it has.
    pub kind: Kind,
    /// What it tells, in a sentence.
    pub help: &'static str,
}

/// What kind of value a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// How many values were recorded up to each of these bounds, which rise.
    Histogram {
        /// The bounds, in the unit of what is recorded.
        bounds: &'static [u64],
        /// What that unit is.
        unit: Unit,
    },
}

/// What a histogram's integers stand for. On the page all are in base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, entries, requests.
    Whole,
    /// Microseconds, shown as seconds.
    Microseconds,
}
