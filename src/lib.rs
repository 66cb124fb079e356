//! `fsd`, a replicated, strongly consistent file server. `ARCHITECTURE.md` is the map.

mod allowance;
mod clock;
pub mod config;
pub mod demo;
pub mod file_store;
pub mod limits;
pub mod mapping;
pub mod marks;
pub mod metrics;
pub mod mutants;
pub mod net;
pub mod raft;
pub mod restore;
pub mod server;
mod signals;
pub mod simulated_disk;
pub mod storage;
pub mod timer_wheel;
pub mod transfer;
