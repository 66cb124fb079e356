//! Whether this node is ready: it knows a leader and has applied what was committed when it was asked.
//!
//! That takes what a linearizable read takes, and goes the same way: a read index, confirmed by a leader that still
//! leads, and a store that has come that far. A node that is cut off, or still replays its log, cannot say that it is
//! ready, whatever it believes.

use fsd_wire::{LogIndex, NodeId};

use super::Network;
use super::node::{Node, Timer};
use crate::limits;
use crate::mapping::Disk;
use crate::net::{ConnectionId, HttpReply};
use crate::raft::ReadReady;
use crate::timer_wheel::TimerId;

const STOPPING: &str = "not ready: the node stops";
const NO_LEADER: &str = "not ready: the node knows no leader";

/// The questions that are not answered yet: at most one for each connection to the pages.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    questions: Vec<Question>,
    next_number: u64,
}

#[derive(Debug)]
struct Question {
    number: u64,
    connection: ConnectionId,
    /// The batch of reads that it belongs to.
    batch: u64,
    /// Who was to confirm it.
    leader: NodeId,
    /// What was committed when it came, once that is confirmed.
    index: Option<LogIndex>,
    deadline: TimerId,
}

impl Readiness {
    fn take(&mut self, wanted: impl Fn(&Question) -> bool) -> Vec<Question> {
        self.questions.extract_if(.., |question| wanted(question)).collect()
    }

    /// The round of a batch came back.
    pub(super) fn confirm(&mut self, ready: &ReadReady) {
        for question in self.questions.iter_mut().filter(|question| question.batch == ready.id) {
            question.index = Some(ready.index);
        }
    }
}

impl<D: Disk> Node<D> {
    /// Somebody asks whether this node is ready: it is answered now, or waits.
    pub(super) fn ask_readiness(&mut self, now_ms: u64, connection: ConnectionId, net: &mut impl Network) {
        if self.is_stopping() {
            net.reply_page(connection, &HttpReply::plain(false, STOPPING));
            return;
        }
        let Some(leader) = self.raft.leader_id() else {
            net.reply_page(connection, &HttpReply::plain(false, NO_LEADER));
            return;
        };
        let number = self.readiness.next_number;
        self.readiness.next_number += 1;
        let deadline = self.wheel.insert(now_ms + limits::READINESS_MS_MAX, Timer::Readiness(number));
        let batch = self.join_read_batch();
        self.readiness.questions.push(Question { number, connection, batch, leader, index: None, deadline });
    }

    /// Answers whoever asked and can be told by now.
    pub(super) fn answer_readiness(&mut self, net: &mut impl Network) {
        if self.is_stopping() {
            let all = self.readiness.take(|_| true);
            self.tell(all, &HttpReply::plain(false, STOPPING), net);
        }
        let applied = self.store.last_applied();
        let ready = self.readiness.take(|question| question.index.is_some_and(|index| index <= applied));
        self.tell(ready, &HttpReply::plain(true, "ready"), net);
    }

    /// A batch can no longer be confirmed.
    pub(super) fn lose_readiness(&mut self, batch: u64, net: &mut impl Network) {
        let lost = self.readiness.take(|question| question.batch == batch && question.index.is_none());
        let words = match self.raft.leader_id() {
            None => NO_LEADER.to_owned(),
            Some(leader) => format!("not ready: leadership changed hands just now, node {leader} leads"),
        };
        self.tell(lost, &HttpReply::plain(false, &words), net);
    }

    /// A question has waited long enough.
    pub(super) fn give_up_readiness(&mut self, number: u64, net: &mut impl Network) {
        for question in self.readiness.take(|question| question.number == number) {
            let words = match question.index {
                Some(index) => {
                    format!("not ready: behind, applied {} of {index} log entries", self.store.last_applied())
                }
                None => {
                    let (leader, waited_ms) = (question.leader, limits::READINESS_MS_MAX);
                    format!("not ready: node {leader} did not confirm within {waited_ms} ms that it leads")
                }
            };
            net.reply_page(question.connection, &HttpReply::plain(false, &words));
        }
    }

    fn tell(&mut self, questions: Vec<Question>, reply: &HttpReply, net: &mut impl Network) {
        for question in questions {
            self.wheel.cancel(question.deadline);
            net.reply_page(question.connection, reply);
        }
    }
}
