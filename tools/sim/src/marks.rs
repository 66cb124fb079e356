//! Which of the marks at rare branches of fsd (`fsd::marks`) were reached: only with the feature `marks`.

use std::fmt;

/// How often each mark was reached, in the order of their list; without the feature there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    reached: Vec<Reached>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    /// Runs that came there.
    runs: u64,
    hits: u64,
}

impl Marks {
    /// What was reached on this thread since the last call.
    pub(crate) fn take() -> Self {
        let reached = |hits| Reached { runs: u64::from(hits > 0), hits };
        Self { reached: taken().into_iter().map(reached).collect() }
    }

    /// Adds what other runs reached.
    pub fn add(&mut self, other: &Self) {
        self.reached.resize(self.reached.len().max(other.reached.len()), Reached::default());
        for (sum, more) in self.reached.iter_mut().zip(&other.reached) {
            sum.runs += more.runs;
            sum.hits += more.hits;
        }
    }

    /// What was not reached, in words.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let missed = names().into_iter().enumerate().filter(|(place, _)| self.of(*place).hits == 0);
        missed.map(|(_, (name, what))| format!("the mark `{name}` was not reached: {what}")).collect()
    }

    fn of(&self, place: usize) -> Reached {
        self.reached.get(place).copied().unwrap_or_default()
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:46}{:>8}{:>12}", "mark", "seeds", "hits")?;
        for (place, (name, _)) in names().into_iter().enumerate() {
            let Reached { runs, hits } = self.of(place);
            write!(f, "\n{name:46}{runs:>8}{hits:>12}")?;
        }
        Ok(())
    }
}

#[cfg(feature = "marks")]
fn names() -> Vec<(&'static str, &'static str)> {
    fsd::marks::ALL.iter().map(|mark| (mark.name, mark.what)).collect()
}

#[cfg(feature = "marks")]
fn taken() -> Vec<u64> {
    fsd::marks::take()
}

#[cfg(not(feature = "marks"))]
fn names() -> Vec<(&'static str, &'static str)> {
    Vec::new()
}

#[cfg(not(feature = "marks"))]
fn taken() -> Vec<u64> {
    Vec::new()
}
