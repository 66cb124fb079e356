//! What the machine itself does, and what it says of processes.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::fill::mixed;
use crate::{Error, Measured};

pub(crate) const MIB: f64 = 1024.0 * 1024.0;
const PIECE_BYTES: usize = 1024 * 1024;

/// A file that was filled before, of which a page at a time is overwritten and flushed.
pub(crate) struct FlushTest {
    path: PathBuf,
    file: File,
    page: u64,
}

impl FlushTest {
    const PAGES: u64 = 4096;

    pub(crate) fn new(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("flush-test");
        let mut file = File::create(&path)?;
        for _ in 0..Self::PAGES {
            file.write_all(&[0; 4096])?;
        }
        file.sync_all()?;
        Ok(Self { path, file, page: 0 })
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.file.seek(SeekFrom::Start(self.page % Self::PAGES * 4096))?;
        self.file.write_all(&[7; 4096])?;
        self.page += 1;
        Ok(self.file.sync_data()?)
    }
}

impl Drop for FlushTest {
    fn drop(&mut self) {
        // Its directory goes, too.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Flushes one behind the other.
pub(crate) fn measure_flush(dir: &Path, window: Duration) -> Result<Measured, Error> {
    let mut test = FlushTest::new(dir)?;
    let mut latencies_us = Histogram::new(3)?;
    let begin = Instant::now();
    while begin.elapsed() < window {
        let start = Instant::now();
        test.flush()?;
        latencies_us.record(start.elapsed().as_micros() as u64)?;
    }
    Ok(Measured { latencies_us, elapsed: begin.elapsed() })
}

/// Bytes per second of one writer that writes a new file from its beginning to its end and flushes it, as `dd
/// bs=1M conv=fdatasync` does. The bytes are random: a disk may have its ways with zeros.
pub(crate) fn sequential_write(dir: &Path, bytes: u64) -> Result<f64, Error> {
    let mut piece: Vec<u8> = (0..PIECE_BYTES as u64 / 8).flat_map(|at| mixed(!at).to_le_bytes()).collect();
    let path = dir.join("sequential-test");
    let mut file = File::create(&path)?;
    let begin = Instant::now();
    for number in 0..bytes.div_ceil(PIECE_BYTES as u64) {
        // No two pieces are the same.
        for page in piece.chunks_mut(4096) {
            page[..8].copy_from_slice(&number.to_le_bytes());
        }
        file.write_all(&piece)?;
    }
    file.sync_data()?;
    let elapsed = begin.elapsed();
    std::fs::remove_file(&path)?;
    Ok(bytes as f64 / elapsed.as_secs_f64())
}

/// Lets the disk finish what it was given before.
pub(crate) fn settle() {
    rustix::fs::sync();
    std::thread::sleep(Duration::from_secs(2));
    rustix::fs::sync();
}

/// A figure that the kernel has of a process, in bytes.
pub(crate) fn memory_bytes(process_id: u32, key: &str) -> Result<u64, Error> {
    let status = std::fs::read_to_string(format!("/proc/{process_id}/status"))?;
    let of_key = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    let line = status.lines().find(of_key).ok_or_else(|| format!("no {key}"))?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kib * 1024)
}

/// The room that the files of a directory take.
pub(crate) fn directory_bytes(dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for item in std::fs::read_dir(dir)? {
        // A file may be gone by the time that it is looked at.
        if let Ok(metadata) = item?.metadata() {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { values[values.len() / 2] }
}

/// Time that was spent on a CPU.
#[derive(Clone, Copy)]
pub(crate) struct CpuTime {
    /// In its own code.
    pub(crate) own: Duration,
    /// In the kernel's, for it.
    pub(crate) kernel: Duration,
}

impl CpuTime {
    pub(crate) fn of_process(process_id: u32) -> Result<Self, Error> {
        Self::read(&format!("/proc/{process_id}/stat"))
    }

    pub(crate) fn of_this_thread() -> Result<Self, Error> {
        Self::read("/proc/thread-self/stat")
    }

    fn read(path: &str) -> Result<Self, Error> {
        let stat = std::fs::read_to_string(path)?;
        // The fields follow the program's name, which is in parentheses; the state is the third of all.
        let (_, rest) = stat.rsplit_once(") ").ok_or("no name in parentheses")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |field: usize| -> Result<Duration, Error> {
            let ticks: u64 = fields.get(field - 3).ok_or("too few fields")?.parse()?;
            Ok(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32)
        };
        Ok(Self { own: ticks(14)?, kernel: ticks(15)? })
    }
}
