//! `fsd --demo`: a whole cluster on this machine, each node a child process with a configuration file of its own.
//!
//! [`run`] is one loop over signals, the children's standard errors and, until the cluster is ready, questions to
//! the nodes. A child's standard input is a pipe that only this process holds (`--exit-with-stdin`): closing it
//! is how a node is asked to end, and the kernel closes it if this process is killed, so that no node outlives it.

mod directory;
mod message;
mod node;
mod probe;
mod restarts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use fsd_wire::NodeId;
use mio::{Events, Poll, Token};
use signal_hook::consts::SIGCHLD;

use crate::clock::Clock;
use crate::signals::{self, Signals};
use directory::Directory;
use message::say;
use node::{Node, NodeEnd};
use probe::Probe;
use restarts::Verdict;

const END_TOKEN: Token = Token(0);
const CHILD_TOKEN: Token = Token(1);
/// From here on two tokens for each node: its output, and the connection to ask it.
const NODE_TOKENS: usize = 2;

/// When it is said that the cluster is not ready yet, and why.
const LATE_MS: u64 = 3000;
/// How long nodes have to end by themselves.
const END_MS: u64 = 4000;
/// How long ports of an earlier run may still be in use: its nodes end a moment after it, if it was killed.
const PORTS_FREE_MS: u64 = 3000;
/// How often ports in use are tried again.
const PORTS_TRY_MS: u64 = 50;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// How many nodes; `None` for as many as the directory has, or [`NODES_DEFAULT`].
    pub nodes: Option<u32>,
    /// Where configurations and data are.
    pub directory: PathBuf,
}

/// How many nodes a demo has unless said otherwise.
pub const NODES_DEFAULT: u32 = 5;

/// Why a demo cannot start or go on.
#[derive(Debug)]
pub enum DemoError {
    /// The command line or a configuration file is at fault.
    Configuration(String),
    /// The machine is: a port in use, a disk that cannot be written, nodes that cannot run.
    Fault(String),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Configuration(reason) | Self::Fault(reason)) = self;
        f.write_str(reason)
    }
}

impl std::error::Error for DemoError {}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Fault(error.to_string())
    }
}

/// Runs a cluster until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting, or from ever serving again.
pub fn run(request: &Request) -> Result<(), DemoError> {
    let clock = Clock::start();
    let directory = Directory::prepare(request)?;
    let mut demo = Demo::new(clock, directory)?;
    if demo.wait_for_ports()? {
        demo.start_nodes();
        while !demo.is_over() {
            demo.turn()?;
        }
    }
    demo.fault.map_or(Ok(()), Err)
}

/// What the cluster as a whole is doing.
#[derive(Debug)]
enum Phase {
    /// Not every node knows a leader yet.
    Starting { late: bool },
    /// It was ready once. What happens from then on is in the nodes' own lines.
    Serving,
    /// The nodes were asked to end.
    Ending { kill_at_ms: Option<u64> },
}

struct Demo {
    clock: Clock,
    poll: Poll,
    end_signals: Signals,
    child_signals: Signals,
    directory: Directory,
    nodes: Vec<Node>,
    probes: Vec<Probe>,
    phase: Phase,
    /// Why it ended, if nobody asked it to.
    fault: Option<DemoError>,
}

impl Demo {
    fn new(clock: Clock, directory: Directory) -> Result<Self, DemoError> {
        let poll = Poll::new()?;
        let end_signals = Signals::listen(poll.registry(), END_TOKEN, signals::END)?;
        let child_signals = Signals::listen(poll.registry(), CHILD_TOKEN, &[SIGCHLD])?;
        // The same program, wherever it is: nodes of another version would be another demo.
        let program = std::env::current_exe()?;
        let mut nodes = Vec::new();
        let mut probes = Vec::new();
        for (at, conf) in directory.confs.iter().enumerate() {
            let token = Token(NODE_TOKENS + 2 * at);
            nodes.push(Node::new(conf.node, program.clone(), conf.file.clone(), token));
            probes.push(Probe::new(conf.listen.client, Token(token.0 + 1)));
        }
        let phase = Phase::Starting { late: false };
        Ok(Self { clock, poll, end_signals, child_signals, directory, nodes, probes, phase, fault: None })
    }

    /// Whether the ports are free, so that the nodes can be started. False if a signal ended the wait.
    fn wait_for_ports(&mut self) -> Result<bool, DemoError> {
        let patience_ms = if self.directory.is_new { 0 } else { PORTS_FREE_MS };
        while let Some(reason) = self.directory.port_in_use() {
            if self.clock.now_ms() >= patience_ms {
                return Err(DemoError::Fault(reason));
            }
            self.wait(Some(self.clock.now_ms() + PORTS_TRY_MS))?;
            if self.end_signals.take() > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn start_nodes(&mut self) {
        for at in 0..self.nodes.len() {
            self.start(at);
        }
    }

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Err(error) = node.start(self.clock.now_ms(), self.poll.registry()) {
            self.ended(at, NodeEnd::NotStarted(error));
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. }) && !self.nodes.iter().any(Node::is_running)
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait(self.next_deadline_ms())?;
        let signals = self.end_signals.take();
        self.child_signals.take();
        for at in 0..self.nodes.len() {
            self.nodes[at].pass_on_output();
            if let Some(end) = self.nodes[at].take_end() {
                self.ended(at, end);
            }
        }
        if signals > 0 {
            self.end();
        }
        let now_ms = self.clock.now_ms();
        match self.phase {
            Phase::Ending { kill_at_ms } => {
                if kill_at_ms.is_some_and(|kill_at_ms| now_ms >= kill_at_ms) {
                    self.kill();
                }
            }
            Phase::Starting { .. } => {
                self.start_what_is_due(now_ms);
                self.see_whether_it_is_ready(now_ms);
            }
            Phase::Serving => self.start_what_is_due(now_ms),
        }
        Ok(())
    }

    /// Waits for anything at all. What it was is not looked at: each turn asks everything, of which there is little.
    fn wait(&mut self, deadline_ms: Option<u64>) -> io::Result<()> {
        let now = self.nodes.iter().any(Node::has_more_output).then_some(Duration::ZERO);
        match self.poll.poll(&mut Events::with_capacity(64), now.or(self.clock.until(deadline_ms))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let starts = self.nodes.iter().filter_map(Node::start_at_ms);
        match self.phase {
            Phase::Ending { kill_at_ms } => kill_at_ms,
            Phase::Serving => starts.min(),
            Phase::Starting { late } => {
                let asks = self.probes.iter().map(Probe::next_ms);
                starts.chain(asks).chain((!late).then_some(LATE_MS)).min()
            }
        }
    }

    fn start_what_is_due(&mut self, now_ms: u64) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].start_at_ms().is_some_and(|start_at_ms| now_ms >= start_at_ms) {
                self.start(at);
                if let Some(process_id) = self.nodes[at].process_id() {
                    say(&format!("node {} was started again as process {process_id}", self.nodes[at].id));
                }
            }
        }
    }

    /// A node's process ended, or could not be made.
    fn ended(&mut self, at: usize, end: NodeEnd) {
        if matches!(self.phase, Phase::Ending { .. }) {
            return;
        }
        let now_ms = self.clock.now_ms();
        let id = self.nodes[at].id;
        self.probes[at].forget(now_ms);
        match self.nodes[at].judge(now_ms, &end) {
            Verdict::StartAfter { pause_ms } => {
                let seconds = pause_ms as f64 / 1000.0;
                say(&format!("node {id} {end}; it is started again in {seconds:.1} s"));
            }
            Verdict::GiveUp => {
                let file = self.directory.confs[at].file.display();
                say(&format!("node {id} {end}; it is not started again: its last lines say why ({file})"));
                self.give_up_without_majority(&end);
            }
        }
    }

    fn give_up_without_majority(&mut self, end: &NodeEnd) {
        let given_up = self.nodes.iter().filter(|node| node.is_given_up()).count();
        if given_up * 2 > self.nodes.len() {
            let reason = format!("{given_up} of {} nodes cannot run: no majority is left", self.nodes.len());
            let is_configuration = end.is_configuration();
            self.fault = Some(if is_configuration {
                DemoError::Configuration(reason)
            } else {
                DemoError::Fault(reason)
            });
            self.end();
        }
    }

    fn see_whether_it_is_ready(&mut self, now_ms: u64) {
        for (node, probe) in self.nodes.iter().zip(&mut self.probes) {
            if node.is_running() {
                probe.turn(now_ms, self.poll.registry());
            }
        }
        if let Some(leader) = self.leader_known_to_all() {
            let processes: Vec<_> = self.nodes.iter().map(|node| (node.id, node.process_id())).collect();
            message::say_ready(self.clock.now_ms(), leader, &self.directory, &processes);
            self.probes.iter_mut().for_each(|probe| probe.forget(now_ms));
            self.phase = Phase::Serving;
        } else if let Phase::Starting { late } = &mut self.phase
            && !*late
            && now_ms >= LATE_MS
        {
            *late = true;
            let silent = self.nodes.iter().zip(&self.probes).filter(|(_, probe)| probe.leader().is_none());
            let silent: Vec<String> = silent.map(|(node, _)| node.id.to_string()).collect();
            say(&format!(
                "not ready after {} s: a leader is not known yet to node {}; still waiting",
                LATE_MS / 1000,
                silent.join(", ")
            ));
        }
    }

    /// The leader, if all nodes but those that cannot run agree on it.
    fn leader_known_to_all(&self) -> Option<NodeId> {
        let asked = self.nodes.iter().zip(&self.probes).filter(|(node, _)| !node.is_given_up());
        let mut leaders = asked.map(|(_, probe)| probe.leader());
        let first = leaders.next()??;
        let (_, leader) = first;
        leaders.all(|other| other == Some(first)).then_some(leader)
    }

    /// Asks the nodes to end; asked a second time, it does not wait for them.
    fn end(&mut self) {
        if matches!(self.phase, Phase::Ending { .. }) {
            return self.kill();
        }
        say("all nodes end");
        self.nodes.iter_mut().for_each(Node::request_end);
        self.phase = Phase::Ending { kill_at_ms: Some(self.clock.now_ms() + END_MS) };
    }

    fn kill(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.is_running()) {
            say(&format!("node {} does not end and is killed", node.id));
            node.kill();
        }
        self.phase = Phase::Ending { kill_at_ms: None };
    }
}
