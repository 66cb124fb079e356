//! A deterministic simulation of whole clusters: the production code of consensus, log, recovery, file store,
//! dispatch and wire codec on a simulated network, clock and disk, everything drawn from one seed. The same seed gives
//! the same run, event by event.
//!
//! [`Plan::from_seed`] says what a seed stands for, [`run`] runs it. A run makes faults for a number of steps (a step
//! is an event delivered to a node), with a check of the invariants after each, then heals the cluster and waits for
//! it to serve again. `docs/testing.md` says what is checked.
//!
//! There is no wall clock: fsd reads none.

mod client;
mod clock;
mod coverage;
mod fabric;
mod late_answers;
mod life;
mod liveness;
mod marks;
mod nemesis;
mod observer;
mod occasions;
mod plan;
mod process;
mod reborn;
mod record;
mod room;
mod runner;
mod schedule;
mod script;
mod session_client;
mod session_log;
mod simulation;
mod sockets;
mod unanswered;
mod wire;
mod witness;

pub use coverage::{Coverage, Phase};
pub use marks::Marks;
pub use plan::{ClientKind, FaultKind, FaultSet, Operations, Plan};
pub use runner::{Report, Summary, failed_once, keep_panics_quiet, run, run_all, run_and_tell, shrink};
