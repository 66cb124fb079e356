//! A client: it speaks to one node at a time on a connection of its own, in the binary protocol, has several
//! requests under way, gives up on what takes too long, and follows redirects. It remembers what it asked, so that
//! each answer can be judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use fsd::limits;
use fsd_wire::client::{ClientReply, ClientRequest, Operation as Request, Outcome, Refusal};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Role};
use fsd_wire::{Command, FrameDecoder, LogIndex, Message, Operation, RequestId, Version};

use crate::fabric::{Fabric, Party, Side};
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::sockets::{CLUSTER, place_of};
use crate::witness::{Asked, Question, Witness};

#[derive(Debug)]
struct UnderWay {
    asked: Asked,
    until_us: u64,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    place: usize,
    target: usize,
    connection: Option<u32>,
    decoder: FrameDecoder,
    greeted: bool,
    /// When it gives a connection up that was not answered.
    patience_until_us: u64,
    under_way: BTreeMap<u64, UnderWay>,
    next_request: u64,
    /// The last version seen of each file, for comparisons.
    seen: BTreeMap<String, Version>,
    random: fastrand::Rng,
    /// Definite answers to changes and to reads.
    pub(crate) changes_done: u64,
    pub(crate) reads_done: u64,
}

impl Client {
    pub(crate) fn new(place: usize, seed: u64) -> Self {
        Self {
            place,
            target: 0,
            connection: None,
            decoder: FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX),
            greeted: false,
            patience_until_us: 0,
            under_way: BTreeMap::new(),
            next_request: 1,
            seen: BTreeMap::new(),
            random: fastrand::Rng::with_seed(seed),
            changes_done: 0,
            reads_done: 0,
        }
    }

    /// Its next turn; returns the pause until the one after.
    pub(crate) fn act(
        &mut self,
        plan: &Plan,
        fabric: &mut Fabric,
        schedule: &mut Schedule,
        now_us: u64,
        committed: LogIndex,
    ) -> u64 {
        self.give_up_what_is_late(fabric, schedule, now_us);
        match self.connection {
            None => self.connect(plan, fabric, schedule, now_us),
            Some(key) if self.greeted && self.under_way.len() < plan.pipeline => {
                let burst = self.random.usize(1..=plan.pipeline - self.under_way.len());
                for _ in 0..burst.min(8) {
                    self.ask(plan, fabric, key, now_us, committed);
                }
                fabric.depart(schedule, now_us, key, Side::Opener);
            }
            Some(_) => {}
        }
        self.random.u64(1..=2 * plan.think_us)
    }

    fn connect(&mut self, plan: &Plan, fabric: &mut Fabric, schedule: &mut Schedule, now_us: u64) {
        if self.target >= plan.nodes {
            self.target = self.random.usize(..plan.nodes);
        }
        let key = fabric.open(schedule, now_us, Party::Client(self.place), self.target);
        let hello = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            cluster: CLUSTER.into(),
            role: Role::Client,
        };
        fabric.write(key, Side::Opener, &hello.to_frame());
        fabric.depart(schedule, now_us, key, Side::Opener);
        self.connection = Some(key);
        self.greeted = false;
        self.decoder = FrameDecoder::new(limits::CLIENT_FRAME_BYTES_MAX);
        self.patience_until_us = now_us + 500_000;
    }

    fn give_up_what_is_late(&mut self, fabric: &mut Fabric, schedule: &mut Schedule, now_us: u64) {
        let before = self.under_way.len();
        self.under_way.retain(|_, request| request.until_us > now_us);
        let gave_up = self.under_way.len() < before || !self.greeted && now_us > self.patience_until_us;
        if gave_up
            && self.random.bool()
            && let Some(key) = self.connection
        {
            fabric.close(schedule, now_us, key, Side::Opener, false);
            self.lose_connection();
        }
    }

    /// Gives its connection up, whatever it is good for.
    pub(crate) fn begin_anew(&mut self, fabric: &mut Fabric, schedule: &mut Schedule, now_us: u64) {
        if let Some(key) = self.connection {
            self.closed(fabric, schedule, now_us, key);
        }
    }

    fn lose_connection(&mut self) {
        // What became of the requests nobody will tell.
        self.under_way.clear();
        self.connection = None;
        self.greeted = false;
        self.target = usize::MAX;
    }

    fn ask(&mut self, plan: &Plan, fabric: &mut Fabric, key: u32, now_us: u64, committed: LogIndex) {
        let id = self.next_request;
        self.next_request += 1;
        let what = self.draw(plan, id);
        let operation = match &what {
            Question::Change(command) => Request::Change { command: command.encode() },
            Question::Read(name) => Request::Read { name: name.clone() },
            Question::Stat(name) => Request::Stat { name: name.clone() },
            Question::List => Request::List { prefix: String::new(), after: String::new(), limit: 1000 },
        };
        let timeout_ms = self.random.u32(50..3000);
        let request = ClientRequest { id: RequestId(id), timeout_ms, operation };
        fabric.write(key, Side::Opener, &request.to_frame());
        let until_us = now_us + 1000 * u64::from(timeout_ms) + self.random.u64(..1_000_000);
        self.under_way.insert(id, UnderWay { asked: Asked { what, committed }, until_us });
    }

    fn draw(&mut self, plan: &Plan, id: u64) -> Question {
        let name = self.draw_name(plan);
        let kinds = &plan.operations;
        let total = kinds.write + kinds.cas + kinds.delete + kinds.read + kinds.stat + kinds.list;
        let mut at = self.random.u32(..total);
        let mut is = |weight: u32| {
            let hit = at < weight;
            at = at.wrapping_sub(weight);
            hit
        };
        if is(kinds.read) {
            return Question::Read(name);
        }
        if is(kinds.stat) {
            return Question::Stat(name);
        }
        if is(kinds.list) {
            return Question::List;
        }
        let is_write = is(kinds.write);
        let is_cas = !is_write && is(kinds.cas);
        let expiry_seconds = if self.random.u32(..100) < plan.expiring { self.random.u64(1..5) } else { 0 };
        let seen = self.seen.get(&name).copied().unwrap_or(Version(0));
        let expected = if self.random.u32(..4) == 0 { Version(0) } else { seen };
        let operation = if is_write {
            Operation::Write { expiry_seconds }
        } else if is_cas {
            Operation::Cas { expected, expiry_seconds }
        } else if self.random.bool() {
            Operation::Delete
        } else {
            Operation::DeleteIf { expected }
        };
        let contents = if is_write || is_cas { self.contents(plan, id) } else { Bytes::new() };
        Question::Change(Command { operation, name, contents })
    }

    /// Some names are below others, so that they are in each other's way.
    fn draw_name(&mut self, plan: &Plan) -> String {
        let n = self.random.usize(..plan.names);
        if n % 4 == 3 { format!("f{}/below", n - 1) } else { format!("f{n}") }
    }

    /// Contents that nobody else writes.
    fn contents(&mut self, plan: &Plan, id: u64) -> Bytes {
        // Where they are short they are all of one length: records then lie where others lay before.
        let len = if plan.contents_max > 16 { self.random.usize(..plan.contents_max) } else { 0 };
        let mut contents = (id << 8 | self.place as u64).to_le_bytes().to_vec();
        contents.resize(8 + len, self.random.u8(..));
        contents.into()
    }

    /// Its connection broke.
    pub(crate) fn closed(&mut self, fabric: &mut Fabric, schedule: &mut Schedule, now_us: u64, key: u32) {
        fabric.close(schedule, now_us, key, Side::Opener, false);
        if self.connection == Some(key) {
            self.lose_connection();
        }
    }

    /// Bytes came; each answer in them is judged.
    pub(crate) fn received(
        &mut self,
        fabric: &mut Fabric,
        schedule: &mut Schedule,
        now_us: u64,
        key: u32,
        bytes: &[u8],
        witness: &mut Witness,
    ) -> Result<(), String> {
        if self.connection != Some(key) {
            return Ok(());
        }
        self.decoder.feed(bytes);
        loop {
            let frame = match self.decoder.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(_) => break,
            };
            if self.greeted {
                let Ok(reply) = ClientReply::decode(&frame) else { break };
                self.judge(reply, witness)?;
                if self.connection.is_none() {
                    break;
                }
            } else {
                let Ok(reply) = HelloReply::decode(&frame) else { break };
                self.greeted = reply.status == HelloStatus::Welcome;
            }
        }
        self.closed(fabric, schedule, now_us, key);
        Ok(())
    }

    fn judge(&mut self, reply: ClientReply, witness: &mut Witness) -> Result<(), String> {
        // An answer that comes too late is none: its question is as good as unknown.
        let Some(UnderWay { asked, .. }) = self.under_way.remove(&reply.id.0) else { return Ok(()) };
        witness.check_answer(&asked, &reply.outcome)?;
        match (&asked.what, &reply.outcome) {
            (_, Outcome::Refused(Refusal::NotLeader { leader, .. })) => {
                let leader = place_of(*leader);
                if leader != self.target {
                    self.under_way.clear();
                    self.connection = None;
                    self.greeted = false;
                    self.target = leader;
                }
            }
            (_, Outcome::Refused(Refusal::NoLeader)) => {
                if self.random.u32(..4) == 0 {
                    self.lose_connection();
                }
            }
            (Question::Change(command), Outcome::Changed { version }) => {
                self.changes_done += 1;
                self.seen.insert(command.name.clone(), *version);
            }
            (Question::Change(command), Outcome::Refused(Refusal::VersionMismatch { present })) => {
                self.changes_done += 1;
                self.seen.insert(command.name.clone(), *present);
            }
            (Question::Read(name), Outcome::Read { version, .. }) => {
                self.reads_done += 1;
                self.seen.insert(name.clone(), *version);
            }
            (Question::Read(_) | Question::Stat(_) | Question::List, _) => self.reads_done += 1,
            (Question::Change(_), _) => {}
        }
        Ok(())
    }
}
