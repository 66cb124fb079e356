mod cluster;
mod compaction;
mod elections;
mod follower_reads;
mod fresh_disks;
mod memory_log;
mod random;
mod reads;
mod replication;
mod room;
mod single;

use crate::raft;
