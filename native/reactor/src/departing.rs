//! Jobs that leave the loop for the application, and come back.
//!
//! Owns       which job is next, which of them is not run any more, and what a job that is back has changed.
//! Never      runs one.
//! Invariant  a job that leaves is counted until it is back, whatever has become of its connection.

use crate::application::Application;
use crate::connection::{Stage, Then};
use crate::core::Verdict;
use crate::exchange;
use crate::job::{Fate, Job, Task};
use crate::server::Server;
use crate::waiting::{Turn, judge};

impl<A: Application> Server<A> {
    /// The next job, with its request named on the scoreboard.
    #[inline]
    pub(crate) fn depart(&mut self) -> Option<Box<Job<A>>> {
        while let Some(mut job) = self.core.ready.pop_front() {
            let connection = self.connections.get(job.token.key as usize);
            // None: the loop was stopped while the job waited.
            let connection = connection.filter(|connection| connection.token == job.token);
            match job.task {
                Task::Call => {
                    let turn =
                        connection.map_or(Turn::Forget, |connection| judge(connection, &self.core, &job));
                    if turn != Turn::Run {
                        self.turn_away(job, turn);
                        continue;
                    }
                    let Job { request, .. } = &*job;
                    let (method, target) =
                        (request.head.method.of(&request.bytes), request.head.target.of(&request.bytes));
                    self.core.app.slot().request_entered(self.core.clock.now_ns(), method, target);
                }
                Task::Pull if connection.is_none_or(|connection| connection.gone) => {
                    self.close_if_open(job.token);
                    job.task = Task::Abandon;
                }
                Task::Pull | Task::Abandon => {}
            }
            self.core.app.slot().job_left();
            self.out += 1;
            return Some(job);
        }
        None
    }

    /// A request is not run: nobody would see the answer, or it would come too late.
    #[cold]
    fn turn_away(&mut self, mut job: Box<Job<A>>, turn: Turn) {
        let token = job.token;
        self.core.concurrency -= 1;
        if let Turn::Refuse(kind) = turn
            && let Some(connection) = self.connections.get_mut(token.key as usize)
        {
            job.fate = Fate::Refused(job.request.refused(kind));
            let verdict = exchange::complete(connection, &mut self.core, &mut job);
            self.settle(token, verdict);
        } else {
            self.close_if_open(token);
        }
        self.core.keep_job(job);
    }

    /// Takes a job back that has run.
    #[inline]
    pub fn complete(&mut self, mut job: Box<Job<A>>) {
        self.out -= 1;
        let slot = self.core.app.slot();
        slot.job_came_back();
        slot.sent(job.sent);
        self.core.concurrency -= usize::from(job.task == Task::Call);
        if let Some(left) = job.left {
            slot.request_waited(left.entered_ns.saturating_sub(job.ready_ns));
            slot.request_left(left.entered_ns, left.left_ns, left.status);
            self.core.clock.advance(left.left_ns);
            self.answered += 1;
            if self.answered == self.core.calls_max {
                self.core.app.recycle();
            }
        } else if matches!(job.fate, Fate::Refused(_)) {
            slot.request_withdrawn();
        }
        let token = job.token;
        if job.task != Task::Abandon
            && let Some(connection) = self.connections.get_mut(token.key as usize)
            && connection.token == token
        {
            if std::mem::take(&mut connection.written_off) {
                // It came back after all, too late for another request on this connection.
                self.written_off -= 1;
                connection.gone = false;
                if matches!(job.fate, Fate::Answered(Then::KeepAlive)) {
                    job.fate = Fate::Answered(Then::Linger);
                }
            }
            let verdict = exchange::complete(connection, &mut self.core, &mut job);
            let gone = connection.gone && matches!(connection.stage, Stage::Responding(_));
            self.settle(token, if gone { Verdict::Close } else { verdict });
        }
        if job.stream.is_some() {
            self.abandon(job); // The loop was stopped while the job was out.
        } else {
            self.core.keep_job(job);
        }
    }

    /// Lets the application clean up behind an answer that nobody reads.
    pub(crate) fn abandon(&mut self, mut job: Box<Job<A>>) {
        job.task = Task::Abandon;
        job.socket = None;
        self.core.ready.push_back(job);
    }
}
