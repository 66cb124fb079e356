//! How often contents are copied on their way from the log to a client: what the node spends on each byte, against a loop
//! that does nothing but check bytes in memory and write them to a socket, and where a profile sees copies.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fsd_wire::client::Outcome;

use crate::Error;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::figures::{Figures, Goal};
use crate::fill::Files;
use crate::machine::{CpuTime, MIB, median, settle};

const FILES: u64 = 64;
const FILE_BYTES: usize = 1024 * 1024;
/// Files that are asked for together.
const BATCH: u64 = 4;

pub(crate) struct Copies {
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
}

/// Microseconds for each MiB.
struct Spent {
    own: f64,
    kernel: f64,
}

impl Copies {
    pub(crate) fn run(&self, dir: &Path) -> Result<(), Error> {
        let mut figures = Figures::of("copies");
        let files = Files::new("file", FILES, FILE_BYTES..=FILE_BYTES);
        let cluster = Cluster::start(1, dir, "")?;
        cluster.leader()?;
        files.fill(&cluster.clients(), 0)?;
        settle();
        let (mut served, mut plain, mut checked) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            served.push(self.serve(&cluster, &files)?);
            plain.push(self.write_plainly(&files, 0)?);
            // A node checks the record in the log, and gives the frame a CRC of its own.
            checked.push(self.write_plainly(&files, 2)?);
        }
        let own = |all: &[Spent]| median(all.iter().map(|spent| spent.own).collect());
        let all = |all: &[Spent]| median(all.iter().map(|spent| spent.own + spent.kernel).collect());
        figures.put("reads of 1 MiB files: the node's time in all", all(&served), "µs/MiB");
        figures.put("of which its own code", own(&served), "µs/MiB");
        figures.put("a loop that writes from memory: in all", all(&plain), "µs/MiB");
        figures.put("a loop that makes two CRCs, and writes: in all", all(&checked), "µs/MiB");
        figures.put("of which its own code", own(&checked), "µs/MiB");
        figures.put("the node against the plain loop", all(&served) / all(&plain), "");
        figures.put("the node against the loop with CRCs", all(&served) / all(&checked), "");
        match self.profile(dir, &cluster, &files)? {
            Some((copying, sending)) => {
                figures.put("samples of perf in which the kernel copies into the socket", sending, "%");
                figures.put("samples in which the node's own code copies", copying, "%");
                figures.judge(
                    "the node's own copying against the kernel's",
                    copying / sending,
                    "",
                    Goal::AtMost(0.1),
                );
            }
            None => println!("there is no perf here: where the copies are is not known"),
        }
        figures.print();
        Ok(())
    }

    /// Shares of the node's time while it is read from: in which its own code copies, and in which the kernel copies into
    /// the socket.
    fn profile(&self, dir: &Path, cluster: &Cluster, files: &Files) -> Result<Option<(f64, f64)>, Error> {
        let (data, process) = (dir.join("perf.data"), cluster.process_id(0)?.to_string());
        let perf = Command::new("perf")
            .args(["record", "-e", "cpu-clock", "-F", "2000", "-p", &process, "-o"])
            .arg(&data)
            .args(["--", "sleep", &self.window.as_secs_f64().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut perf) = perf else { return Ok(None) };
        self.serve(cluster, files)?;
        if !perf.wait()?.success() {
            return Ok(None);
        }
        let report = Command::new("perf")
            .args(["report", "--stdio", "--no-children", "-g", "none", "-F", "overhead,symbol", "-i"])
            .arg(&data)
            .stderr(Stdio::null())
            .output()?;
        let (mut copying, mut sending) = (0.0, 0.0);
        for line in String::from_utf8_lossy(&report.stdout).lines() {
            let Some((share, symbol)) = line.trim().split_once('%') else { continue };
            let Ok(share) = share.parse::<f64>() else { continue };
            if symbol.contains("[k]") && symbol.contains("copy_from") {
                sending += share;
            } else if symbol.contains("[.]") && (symbol.contains("memcpy") || symbol.contains("memmove")) {
                copying += share;
            }
        }
        Ok((sending > 0.0).then_some((copying, sending)))
    }

    /// What reading costs a node.
    fn serve(&self, cluster: &Cluster, files: &Files) -> Result<Spent, Error> {
        let mut connection = Connection::open(cluster.client(0))?;
        let process = cluster.process_id(0)?;
        let before = CpuTime::of_process(process)?;
        let (begin, mut bytes, mut next) = (Instant::now(), 0, 0);
        while begin.elapsed() < self.window {
            let reads = (next..next + BATCH).map(|at| files.read(at % FILES)).collect();
            next += BATCH;
            for outcome in connection.ask(reads)? {
                let Outcome::Read { contents, .. } = outcome else {
                    return Err(format!("a file was not read: {outcome:?}").into());
                };
                bytes += contents.len();
            }
        }
        Ok(Spent::of(before, CpuTime::of_process(process)?, bytes))
    }

    /// What it costs a thread to write the same bytes to somebody who asks for them in the same way, having read each of
    /// them so many times.
    fn write_plainly(&self, files: &Files, checks: usize) -> Result<Spent, Error> {
        let material: Vec<_> = (0..FILES).map(|number| files.contents(number, 0)).collect();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut reader = TcpStream::connect(listener.local_addr()?)?;
        let (mut writer, _) = listener.accept()?;
        thread::scope(|scope| {
            let writing = scope.spawn(move || -> Result<Spent, String> {
                let mut spend = || -> Result<Spent, Error> {
                    let before = CpuTime::of_this_thread()?;
                    let (mut bytes, mut asked) = (0, [0; 1]);
                    while writer.read(&mut asked)? > 0 {
                        for contents in material.iter().take(BATCH as usize) {
                            for _ in 0..checks {
                                std::hint::black_box(crc32fast::hash(std::hint::black_box(contents)));
                            }
                            writer.write_all(contents)?;
                            bytes += contents.len();
                        }
                    }
                    Ok(Spent::of(before, CpuTime::of_this_thread()?, bytes))
                };
                spend().map_err(|error| error.to_string())
            });
            let begin = Instant::now();
            let mut room = vec![0; BATCH as usize * FILE_BYTES];
            while begin.elapsed() < self.window {
                reader.write_all(&[1])?;
                reader.read_exact(&mut room)?;
            }
            drop(reader);
            Ok(writing.join().expect("the writer does not panic")?)
        })
    }
}

impl Spent {
    fn of(before: CpuTime, after: CpuTime, bytes: usize) -> Self {
        let each = |from: Duration, to: Duration| (to - from).as_secs_f64() * 1e6 / (bytes as f64 / MIB);
        Self { own: each(before.own, after.own), kernel: each(before.kernel, after.kernel) }
    }
}
