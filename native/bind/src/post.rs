//! What one thread of a `gthread` worker is doing.
//!
//! Owns       the name, the age and the deadline of its request, for others to look at.
//! Never      runs anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bicorn_reactor::clock::monotonic_ns;
use bicorn_reactor::timer::Token;
use bicorn_reactor::{Job, Socket};

use crate::deadline::Due;
use crate::front::Front;
use crate::wsgi::name;

/// What one thread is doing.
#[derive(Default)]
pub struct Post {
    /// When the request entered that it runs; 0 while it runs none.
    pub entered_ns: AtomicU64,
    /// When it has to be done.
    pub due: Arc<Due>,
    /// Its thread is there.
    pub at_work: AtomicBool,
    pub doing: Mutex<Doing>,
}

#[derive(Default)]
pub struct Doing {
    pub token: Option<Token>,
    pub socket: Option<Arc<Socket>>,
    pub request: Vec<u8>,
    /// It is too late already, and that has been said.
    pub late: bool,
}

impl Post {
    /// Whether what it is doing takes too long.
    pub fn is_late(&self, doing: &Doing, now_ns: u64) -> bool {
        let due_ns = self.due.0.load(SeqCst);
        // A connection that the application has taken over (a WebSocket) lives as long as its two ends like.
        let is_taken = doing.socket.as_ref().is_some_and(|socket| socket.gate.is_taken());
        due_ns != 0 && now_ns > due_ns && !is_taken
    }

    /// Time in which the process did not run is not the request's.
    pub fn excuse(&self, slept_ns: u64) {
        let _doing = self.doing(); // Its thread can begin or end nothing meanwhile.
        if self.due.0.load(SeqCst) != 0 {
            self.due.0.fetch_add(slept_ns, SeqCst);
        }
    }

    /// When the application asked that the patience with its request begin, if it has asked for more of it.
    pub fn extended_ns(&self, timeout: Duration) -> Option<u64> {
        let _doing = self.doing(); // Its thread can begin or end nothing meanwhile.
        let begins_ns = self.due.0.load(SeqCst).checked_sub(timeout.as_nanos() as u64)?;
        (begins_ns > self.entered_ns.load(SeqCst)).then_some(begins_ns)
    }

    /// Breaks off what its application has begun to answer, or cleans up behind; false where it has begun nothing.
    pub fn break_off(&self) -> bool {
        self.doing().socket.as_ref().is_none_or(|socket| socket.gate.break_off())
    }

    /// What it is doing; held, its thread can begin or end nothing.
    pub fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its thread is about to run a job.
    pub fn begin(&self, job: &Job<Front>, timeout: Duration) {
        let mut doing = self.doing();
        doing.token = Some(job.token);
        doing.socket.clone_from(&job.socket);
        doing.late = false;
        doing.request.clear();
        let (method, target) = name(job);
        doing.request.extend_from_slice(method);
        doing.request.push(b' ');
        doing.request.extend_from_slice(target);
        let now_ns = monotonic_ns();
        self.entered_ns.store(now_ns, SeqCst);
        self.due.0.store(if timeout.is_zero() { 0 } else { now_ns + timeout.as_nanos() as u64 }, SeqCst);
    }

    /// Its thread has run it.
    pub fn end(&self) {
        let mut doing = self.doing();
        doing.late = false;
        self.entered_ns.store(0, SeqCst);
        self.due.0.store(0, SeqCst);
        doing.socket = None;
    }
}

/// A request that takes too long.
pub struct Late {
    pub request: String,
    pub age: Duration,
    pub token: Option<Token>,
    /// There if nothing has been sent yet.
    pub socket: Option<Arc<Socket>>,
}
