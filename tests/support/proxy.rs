//! A bad network between clients and nodes: one proxy for each node, at the address that clients know it by.
//!
//! What it does to a connection is drawn from a seed:
//!
//! - The first answer to each change, wherever it comes from, is swallowed, and its connection is cut: the change was
//!   made, and its client does not know.
//! - Connections are cut at any byte of either direction.
//! - A change is held back and its connection is cut; it arrives late, behind the answer to the client's next
//!   attempt, or even behind the answer to the client's next change.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fsclient::{Connection, Operation, Outcome, Refusal, RequestId, Sequence, SessionId};
use fsd_wire::client::{ClientReply, ClientRequest};
use fsd_wire::{Frame, FrameDecoder, frame};

use super::PATIENCE;

/// The longest frame that tests send.
const FRAME_BYTES_MAX: u32 = 20 * 1024 * 1024;
/// One connection in so many is cut, and one change in so many is held back.
const CUT_ONE_IN: u32 = 4;
const HOLD_ONE_IN: u32 = 3;
/// A connection that is cut carries fewer bytes than this: a few requests.
const CUT_BYTES_MAX: usize = 600;
/// How long a node may take for what arrives late; it may just have been killed.
const LATE_PATIENCE: Duration = Duration::from_secs(5);

/// The proxies of a cluster. Their threads end with it.
pub(crate) struct Proxies {
    proxies: Vec<Arc<Proxy>>,
    network: Arc<Network>,
}

/// What the proxies did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) answers_swallowed: u64,
    pub(crate) connections_cut: u64,
    /// What was said of changes that arrived late.
    pub(crate) late: Vec<Outcome>,
}

struct Proxy {
    address: SocketAddr,
    /// The node behind it, once it is known.
    node: Mutex<Option<String>>,
}

/// What all proxies share.
struct Network {
    state: Mutex<State>,
    thread_ended: Condvar,
}

struct State {
    random: fastrand::Rng,
    closing: bool,
    threads: usize,
    links: BTreeMap<u64, Arc<Link>>,
    next_link: u64,
    /// Changes of which an answer has come, and was swallowed.
    answered: BTreeSet<ChangeKey>,
    /// Changes of which a copy has been held back: each once.
    held_back: BTreeSet<ChangeKey>,
    /// Those that have not arrived yet.
    held: Vec<Held>,
    figures: Figures,
}

type ChangeKey = (SessionId, Sequence);

/// A change on its long way.
struct Held {
    session: SessionId,
    /// It arrives behind an answer to this change of its session, or a later one.
    behind: Sequence,
    operation: Operation,
}

/// A client's connection, and the one to the node that goes with it.
struct Link {
    client: TcpStream,
    node: TcpStream,
    node_address: String,
    /// The changes that the client has sent on it.
    changes: Mutex<BTreeMap<RequestId, ChangeKey>>,
}

/// How many bytes one direction of a connection still carries.
struct Budget(Option<usize>);

impl Proxies {
    /// Opens the addresses for so many nodes; there is nothing behind them yet.
    pub(crate) fn start(count: usize, seed: u64) -> Self {
        let network = Arc::new(Network {
            state: Mutex::new(State {
                random: fastrand::Rng::with_seed(seed),
                closing: false,
                threads: 0,
                links: BTreeMap::new(),
                next_link: 0,
                answered: BTreeSet::new(),
                held_back: BTreeSet::new(),
                held: Vec::new(),
                figures: Figures::default(),
            }),
            thread_ended: Condvar::new(),
        });
        let proxies = (0..count)
            .map(|_| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let proxy = Arc::new(Proxy { address, node: Mutex::new(None) });
                let (accepting, its_network) = (Arc::clone(&proxy), Arc::clone(&network));
                network.spawn(move || accepting.accept(&listener, &its_network));
                proxy
            })
            .collect();
        Self { proxies, network }
    }

    /// The addresses for clients.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.proxies.iter().map(|proxy| proxy.address.to_string()).collect()
    }

    /// Puts the nodes behind them.
    pub(crate) fn lead_to<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) {
        for (proxy, node) in self.proxies.iter().zip(nodes) {
            *proxy.node.lock().unwrap() = Some(node.to_owned());
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        self.network.state().figures.clone()
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        let links = {
            let mut state = self.network.state();
            state.closing = true;
            std::mem::take(&mut state.links)
        };
        links.values().for_each(|link| link.cut());
        for proxy in &self.proxies {
            // It wakes the thread that accepts; whether it is accepted does not matter.
            let _ = TcpStream::connect(proxy.address);
        }
        let state = self.network.state();
        let some_run = |state: &mut State| state.threads > 0;
        let (state, _) = self.network.thread_ended.wait_timeout_while(state, PATIENCE, some_run).unwrap();
        if state.threads > 0 && !std::thread::panicking() {
            panic!("{} threads of the proxies do not end", state.threads);
        }
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn spawn(self: &Arc<Self>, work: impl FnOnce() + Send + 'static) {
        self.state().threads += 1;
        let network = Arc::clone(self);
        std::thread::spawn(move || {
            work();
            network.state().threads -= 1;
            network.thread_ended.notify_all();
        });
    }

    /// Registers a connection; `None` if all is about to end. With it, how far either direction carries.
    fn open(&self, link: &Arc<Link>) -> Option<(u64, Budget, Budget)> {
        let mut state = self.state();
        if state.closing {
            return None;
        }
        let number = state.next_link;
        state.next_link += 1;
        state.links.insert(number, Arc::clone(link));
        let bytes = (state.random.u32(..CUT_ONE_IN) == 0).then(|| state.random.usize(..CUT_BYTES_MAX));
        let (requests, replies) = if state.random.bool() { (bytes, None) } else { (None, bytes) };
        Some((number, Budget(requests), Budget(replies)))
    }

    fn close(&self, number: u64) {
        self.state().links.remove(&number);
    }

    fn count_cut(&self) {
        self.state().figures.connections_cut += 1;
    }

    /// Whether this change is held back. It is not when it is sent again.
    fn holds(&self, key: ChangeKey, operation: &Operation) -> bool {
        let mut state = self.state();
        if !state.held_back.insert(key) || state.random.u32(..HOLD_ONE_IN) != 0 {
            return false;
        }
        let (session, sequence) = key;
        let behind = Sequence(sequence.0 + u64::from(state.random.bool()));
        state.held.push(Held { session, behind, operation: operation.clone() });
        true
    }

    /// The changes that arrive now that this one is answered.
    fn take_late(&self, (session, sequence): ChangeKey) -> Vec<Operation> {
        let mut state = self.state();
        let is_due = |held: &mut Held| held.session == session && held.behind <= sequence;
        state.held.extract_if(.., is_due).map(|held| held.operation).collect()
    }

    /// Whether this is the first answer to a change.
    fn swallows(&self, key: ChangeKey) -> bool {
        let mut state = self.state();
        let first = state.answered.insert(key);
        state.figures.answers_swallowed += u64::from(first);
        first
    }
}

impl Proxy {
    fn accept(&self, listener: &TcpListener, network: &Arc<Network>) {
        for client in listener.incoming() {
            if network.state().closing {
                return;
            }
            let Some(node_address) = self.node.lock().unwrap().clone() else { continue };
            let its_network = Arc::clone(network);
            let client = client.unwrap();
            network.spawn(move || {
                // A node that is down accepts nothing: then the client's connection is closed too.
                if let Ok(node) = TcpStream::connect(&node_address) {
                    serve(
                        Arc::new(Link { client, node, node_address, changes: Mutex::default() }),
                        &its_network,
                    );
                }
            });
        }
    }
}

/// Carries what both sides say until one of them closes, or the connection is cut.
fn serve(link: Arc<Link>, network: &Arc<Network>) {
    let Some((number, requests, replies)) = network.open(&link) else { return };
    for stream in [&link.client, &link.node] {
        stream.set_nodelay(true).unwrap();
    }
    let (its_link, its_network) = (Arc::clone(&link), Arc::clone(network));
    network.spawn(move || {
        its_link.carry(&its_link.node, &its_link.client, replies, &its_network, |frame| {
            its_link.passes_reply(frame, &its_network)
        });
    });
    link.carry(&link.client, &link.node, requests, network, |frame| link.passes_request(frame, network));
    network.close(number);
}

impl Link {
    /// Carries frames from one side to the other until `passes` says no.
    fn carry(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        mut budget: Budget,
        network: &Network,
        passes: impl Fn(&Frame) -> bool,
    ) {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        'frames: while matches!(decoder.feed_from(|buffer| from.read(buffer)), Ok(1..)) {
            while let Some(frame) = decoder.next_frame().expect("both sides speak the protocol") {
                if !passes(&frame) {
                    break 'frames;
                }
                let bytes = frame::seal(frame.kind, vec![frame.body]).concat();
                let part = budget.take(&bytes);
                if part.len() < bytes.len() {
                    network.count_cut();
                }
                // One side may be gone already; that is for the other to hear.
                if to.write_all(part).is_err() || part.len() < bytes.len() {
                    break 'frames;
                }
            }
        }
        self.cut();
    }

    fn cut(&self) {
        for stream in [&self.client, &self.node] {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether what a client says goes on to the node now.
    fn passes_request(&self, frame: &Frame, network: &Network) -> bool {
        let Ok(ClientRequest { id, operation, .. }) = ClientRequest::decode(frame) else { return true };
        let Operation::SessionChange { session, sequence, .. } = operation else { return true };
        let key = (session, sequence);
        self.changes.lock().unwrap().insert(id, key);
        !network.holds(key, &operation)
    }

    /// Whether what a node says goes on to the client.
    fn passes_reply(&self, frame: &Frame, network: &Network) -> bool {
        let Ok(ClientReply { id, outcome }) = ClientReply::decode(frame) else { return true };
        let Some(key) = self.changes.lock().unwrap().get(&id).copied() else { return true };
        if !is_decided(&outcome) {
            return true;
        }
        for operation in network.take_late(key) {
            if let Some(outcome) = self.arrive_late(operation) {
                network.state().figures.late.push(outcome);
            }
        }
        !network.swallows(key)
    }

    /// Has a change arrive at the node, on a connection of its own. `None` if the node does not answer.
    fn arrive_late(&self, operation: Operation) -> Option<Outcome> {
        let deadline = Instant::now() + LATE_PATIENCE;
        let mut connection = Connection::open(&self.node_address, "", deadline).ok()?;
        connection.submit(operation, deadline);
        connection.flush(deadline).ok()?;
        connection.receive(deadline).ok().map(|reply| reply.outcome)
    }
}

/// Whether the change was decided in the log, so that this answer must never be another.
fn is_decided(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Changed { .. } | Outcome::Refused(Refusal::VersionMismatch { .. }))
}

impl Budget {
    /// As many of these bytes as still go through.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(left) = &mut self.0 else { return bytes };
        let part = &bytes[..bytes.len().min(*left)];
        *left -= part.len();
        part
    }
}
