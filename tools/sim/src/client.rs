//! A client: it speaks to one node at a time on a connection of its own, in the binary protocol (one that stands for a
//! client of the text protocol, too: the node is told which it is), has several requests under way, gives up on what takes too long, and follows redirects. It remembers what it asked, so that
//! each answer can be judged.

use std::collections::BTreeMap;

use bytes::Bytes;
use fsd::limits;
use fsd_history::CallId;
use fsd_wire::client::{ClientReply, ClientRequest, Operation as Request, Outcome, Refusal};
use fsd_wire::frame::PROTOCOL_VERSION;
use fsd_wire::hello::{Hello, HelloReply, HelloStatus, Role};
use fsd_wire::{Command, FrameDecoder, Message, Operation, RequestId, Version};

use crate::fabric::{Fabric, Party, Side};
use crate::plan::{ClientKind, Plan};
use crate::schedule::Schedule;
use crate::session_client::{Fate, SessionClient};
use crate::simulation::Checked;
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
    kind: ClientKind,
    session: SessionClient,
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
    pub(crate) fn new(place: usize, kind: ClientKind, seed: u64) -> Self {
        Self {
            place,
            kind,
            session: SessionClient::new(seed ^ 1),
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
        witness: &mut Witness,
    ) -> Result<u64, String> {
        self.give_up_what_is_late(fabric, schedule, now_us);
        match self.connection {
            None => self.connect(plan, fabric, schedule, now_us),
            Some(_) if self.session.is_idle(now_us) => {}
            Some(key) if self.greeted && self.under_way.len() < plan.pipeline => {
                let burst = self.random.usize(1..=plan.pipeline - self.under_way.len());
                for _ in 0..burst.min(8) {
                    self.ask(plan, fabric, key, now_us, witness)?;
                }
                fabric.depart(schedule, now_us, key, Side::Opener);
            }
            Some(_) => {}
        }
        Ok(self.random.u64(1..=2 * plan.think_us))
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
        for (_, late) in self.under_way.extract_if(.., |_, request| request.until_us <= now_us) {
            forget(&mut self.session, &late);
        }
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
        self.session.wake();
        if let Some(key) = self.connection {
            self.closed(fabric, schedule, now_us, key);
        }
    }

    fn lose_connection(&mut self) {
        self.leave();
        self.target = usize::MAX;
    }

    /// What became of the requests nobody will tell.
    fn leave(&mut self) {
        for (_, request) in std::mem::take(&mut self.under_way) {
            forget(&mut self.session, &request);
        }
        self.connection = None;
        self.greeted = false;
    }

    fn ask(
        &mut self,
        plan: &Plan,
        fabric: &mut Fabric,
        key: u32,
        now_us: u64,
        witness: &mut Witness,
    ) -> Checked {
        if self.kind == ClientKind::Session
            && let Some((operation, what)) = self.session.next_attempt(witness, now_us)?
        {
            self.send(fabric, key, now_us, operation, what, None, witness);
            return Ok(());
        }
        let what = self.draw(plan);
        let is_change = matches!(what, Some(Question::Change(_)));
        if self.kind == ClientKind::Session && is_change && !self.session.can_begin() {
            return Ok(());
        }
        let call = what.as_ref().and_then(|what| witness.record.invoke(self.place, what, now_us));
        let mut of_attempt = call;
        let asked = match what {
            None => self.session.manage(now_us, plan.session_idle_ms_max),
            Some(Question::Change(command)) if self.kind == ClientKind::Session => {
                // The call is over when the change is decided, not when one attempt is answered.
                of_attempt = None;
                self.session.begin(command, call)
            }
            Some(what) => {
                let operation = match &what {
                    Question::Change(command) => Request::Change { command: command.encode() },
                    Question::Read(name) => Request::Read { name: name.clone() },
                    Question::Stat(name) => Request::Stat { name: name.clone() },
                    Question::List => {
                        Request::List { prefix: String::new(), after: String::new(), limit: 1000 }
                    }
                    Question::Session(_) => unreachable!("it is asked elsewhere"),
                };
                Some((operation, what))
            }
        };
        if let Some((operation, what)) = asked {
            self.send(fabric, key, now_us, operation, what, of_attempt, witness);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // They are all of one request.
    fn send(
        &mut self,
        fabric: &mut Fabric,
        key: u32,
        now_us: u64,
        operation: Request,
        what: Question,
        call: Option<CallId>,
        witness: &Witness,
    ) {
        let id = self.next_request;
        self.next_request += 1;
        let timeout_ms = self.random.u32(50..3000);
        let request = ClientRequest { id: RequestId(id), timeout_ms, operation };
        fabric.write(key, Side::Opener, &request.to_frame());
        let until_us = now_us + 1000 * u64::from(timeout_ms) + self.random.u64(..1_000_000);
        let asked = Asked { what, committed: witness.committed(), call };
        self.under_way.insert(id, UnderWay { asked, until_us });
    }

    /// What it wants next; nothing that a client without a session can want, if `None`.
    fn draw(&mut self, plan: &Plan) -> Option<Question> {
        let name = self.draw_name(plan);
        let kinds = &plan.operations;
        let session = if self.kind == ClientKind::Session { kinds.session } else { 0 };
        let total = kinds.write + kinds.cas + kinds.delete + kinds.read + kinds.stat + kinds.list + session;
        let mut at = self.random.u32(..total);
        let mut is = |weight: u32| {
            let hit = at < weight;
            at = at.wrapping_sub(weight);
            hit
        };
        if is(kinds.read) {
            return Some(Question::Read(name));
        }
        if is(kinds.stat) {
            return Some(Question::Stat(name));
        }
        if is(kinds.list) {
            return Some(Question::List);
        }
        if is(session) {
            return None;
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
        let contents = if is_write || is_cas { self.contents(plan) } else { Bytes::new() };
        Some(Question::Change(Command { operation, name, contents }))
    }

    /// Some names are below others, so that they are in each other's way.
    fn draw_name(&mut self, plan: &Plan) -> String {
        let n = self.random.usize(..plan.names);
        if n % 4 == 3 { format!("f{}/below", n - 1) } else { format!("f{n}") }
    }

    /// Contents that nobody else writes.
    fn contents(&mut self, plan: &Plan) -> Bytes {
        let id = self.next_request;
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
                self.judge(reply, now_us, witness)?;
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

    fn judge(&mut self, reply: ClientReply, now_us: u64, witness: &mut Witness) -> Checked {
        // An answer that comes too late is none: its question is as good as unknown.
        let Some(UnderWay { asked, .. }) = self.under_way.remove(&reply.id.0) else { return Ok(()) };
        let outcome = &reply.outcome;
        witness.check_answer(&asked, outcome)?;
        witness.record.answer(asked.call, outcome, now_us);
        match &asked.what {
            Question::Session(question) => {
                if let Fate::Decided(command) = self.session.answered(question, outcome, witness, now_us)? {
                    self.changed(&command.name, outcome);
                }
            }
            Question::Change(command) => self.changed(&command.name, outcome),
            Question::Read(_) | Question::Stat(_) | Question::List => {
                if !matches!(outcome, Outcome::Refused(Refusal::NotLeader { .. } | Refusal::NoLeader)) {
                    self.reads_done += 1;
                }
                if let (Question::Read(name), Outcome::Read { version, .. }) = (&asked.what, outcome) {
                    self.seen.insert(name.clone(), *version);
                }
            }
        }
        match outcome {
            Outcome::Refused(Refusal::NotLeader { .. }) if self.kind == ClientKind::Text => {
                Err(format!("{asked:?} was answered {outcome:?} to one that knows no redirects"))
            }
            Outcome::Refused(Refusal::NotLeader { leader, .. }) => {
                let leader = place_of(*leader);
                if leader != self.target {
                    self.leave();
                    self.target = leader;
                }
                Ok(())
            }
            Outcome::Refused(Refusal::NoLeader) => {
                if self.random.u32(..4) == 0 {
                    self.lose_connection();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn changed(&mut self, name: &str, outcome: &Outcome) {
        if let Outcome::Changed { version }
        | Outcome::Refused(Refusal::VersionMismatch { present: version }) = outcome
        {
            self.changes_done += 1;
            self.seen.insert(name.to_owned(), *version);
        }
    }
}

/// No answer to a request counts any more.
fn forget(session: &mut SessionClient, request: &UnderWay) {
    if let Question::Session(question) = &request.asked.what {
        session.forget_request(question);
    }
}
