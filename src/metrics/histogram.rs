//! Counts of values by size, in buckets that are fixed from the beginning.

use super::{Definition, Kind};

/// How many values were recorded up to each bound of its definition, and their sum.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One for each bound, and the last one for what is above all of them.
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// An empty one.
    ///
    /// # Panics
    /// If the definition is not that of a histogram, or its bounds do not rise.
    #[must_use]
    pub fn new(definition: &Definition) -> Self {
        let Kind::Histogram { bounds, .. } = definition.kind else {
            panic!("{} is no histogram", definition.name);
        };
        assert!(bounds.is_sorted_by(|a, b| a < b), "the bounds of {} rise", definition.name);
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0 }
    }

    /// Counts a value. One that equals a bound is within it.
    pub fn record(&mut self, value: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        // A clock that jumped must not end a node that was built to panic on overflow.
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bound with the count of values up to it.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        self.bounds.iter().zip(&self.counts).scan(0, |total, (bound, count)| {
            *total += count;
            Some((*bound, *total))
        })
    }
}
