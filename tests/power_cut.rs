//! Power cuts on a real file system. All nodes' data directories lie on one ext4 image behind a loop device; the
//! image is copied while the cluster runs, and the copy holds what a power cut would have left: what was flushed,
//! and of the rest whatever the kernel happened to have written back.
//!
//! Needs root for mounting; elsewhere it says that it did not run.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use support::{Image, Ledger, Node, PATIENCE, Settings, TestCluster, wait_until};

const NODES: u32 = 5;
const WRITERS: usize = 3;
/// Power cuts, each in the life that began with the one before.
const CUTS: usize = 4;
/// Acknowledged writes between a start and its power cut: enough to roll over segments.
const WRITES_BEFORE_A_CUT: usize = 300;
const CONTENTS_BYTES: usize = 8 * 1024;
const IMAGE_MIB: u32 = 256;

#[test]
fn all_nodes_lose_power_at_once_and_nothing_that_was_acknowledged() {
    let mut cluster = TestCluster::prepare(NODES, Settings::default());
    let directory = cluster.directory().join("disk");
    std::fs::create_dir(&directory).unwrap();
    let image = Image::make(&cluster.directory().join("image0"), IMAGE_MIB);
    let mount = image.as_ref().and_then(|image| image.mount(&directory));
    let (Some(mut image), Some(mut mount)) = (image, mount) else {
        eprintln!(
            "not tested: an ext4 image cannot be made and mounted here, which needs root and mkfs.ext4"
        );
        return;
    };
    cluster.nodes.iter_mut().for_each(|node| move_to(node, &directory));
    let everybody: Vec<usize> = (0..NODES as usize).collect();
    let mut ledger = Ledger::default();
    for cut in 1..=CUTS {
        cluster.launch(&everybody);
        cluster.wait_for_leader();
        ledger.verify(&mut cluster.client());
        let (copy, acknowledged) = cut_power(&mut cluster, &image, cut);
        ledger.merge(acknowledged);
        mount.unmount();
        image = copy;
        mount = image.mount(&directory).expect("it could be mounted before");
    }
    cluster.launch(&everybody);
    ledger.verify(&mut cluster.client());
    cluster.compare_all_nodes();
    mount.unmount();
}

/// Has a node keep its data on the file system in `directory`.
fn move_to(node: &mut Node, directory: &std::path::Path) {
    let data_dir = directory.join(format!("data{}", node.id));
    let conf = std::fs::read_to_string(&node.conf).unwrap();
    let own = node.data_dir.to_str().unwrap();
    assert!(conf.contains(own));
    node.write_conf(&conf.replace(own, data_dir.to_str().unwrap()));
    node.data_dir = data_dir;
}

/// Copies the image in the middle of a load, kills everybody, and returns the copy with all that was acknowledged
/// before it.
fn cut_power(cluster: &mut TestCluster, image: &Image, cut: usize) -> (Image, Ledger) {
    let stop = AtomicBool::new(false);
    let acknowledged = AtomicUsize::new(0);
    let ledgers: Vec<Mutex<Ledger>> = (0..WRITERS).map(|_| Mutex::new(Ledger::default())).collect();
    let copy = std::thread::scope(|scope| {
        let stop_writers = StopOnDrop(&stop);
        for (writer, ledger) in ledgers.iter().enumerate() {
            // Nobody answers once the power is gone: a writer must not wait for long.
            let mut client = cluster.client().with_timeout(std::time::Duration::from_secs(3));
            let (stop, acknowledged) = (&stop, &acknowledged);
            scope.spawn(move || {
                for n in 0_usize.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let name = format!("cut{cut}/{writer}/{}", n % 50);
                    let contents = format!("{writer} {n} ").repeat(CONTENTS_BYTES / 8);
                    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    if ledger.write(&mut client, &name, contents.as_bytes()) {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        wait_until(PATIENCE, "writes are acknowledged", || {
            acknowledged.load(Ordering::SeqCst) >= WRITES_BEFORE_A_CUT
        });
        // Stopped, so that the copy is of one moment: nothing is written but what the kernel still holds.
        cluster.nodes.iter_mut().for_each(Node::stop);
        let copy = image.copy(&cluster.directory().join(format!("image{cut}")));
        cluster.nodes.iter_mut().for_each(Node::kill_9);
        drop(stop_writers);
        copy
    });
    let mut all = Ledger::default();
    for ledger in ledgers {
        all.merge(ledger.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    (copy, all)
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
