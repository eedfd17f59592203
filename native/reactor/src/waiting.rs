//! Requests whose turn has come: which of them are still worth an answer.
//!
//! Owns       the rule by which a request that waited is run, refused or forgotten.
//! Never      asks the kernel about a request that was read and run at once.
//!
//! How long a request has waited is more than the loop has seen of it: its bytes were in the socket, and the
//! socket in the listen queue, while an application call held a `sync` worker. For TCP the kernel knows when
//! the last bytes came (`Arrival`), so that time counts as well; but not the time during which the
//! connection's own requests of before were answered, which is its client's doing.

use std::os::fd::AsFd;

use bicorn_wire::RefusalKind;

use crate::application::{Application, Arrival};
use crate::connection::Connection;
use crate::core::Core;
use crate::job::Job;

/// A request that waited no longer than this is run without asking whether its client is still there.
const WAITED_NS: u64 = 100_000_000;

/// What becomes of a request whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The application answers it.
    Run,
    /// It has waited for too long.
    Refuse(RefusalKind),
    /// Its client has gone.
    Forget,
}

/// Judges a request that is about to leave the loop.
#[inline]
pub fn judge<A: Application>(connection: &Connection<A>, core: &Core<A>, job: &Job<A>) -> Turn {
    if connection.gone {
        return Turn::Forget;
    }
    let now_ns = core.clock.now_ns();
    let waited_ns = now_ns.saturating_sub(job.ready_ns);
    let is_first = connection.freed_ns == 0;
    if core.queue_ns == u64::MAX && !is_first && !connection.half_closed && waited_ns < WAITED_NS {
        return Turn::Run;
    }
    ask(connection, core, waited_ns, now_ns.saturating_sub(connection.freed_ns))
}

fn ask<A: Application>(
    connection: &Connection<A>,
    core: &Core<A>,
    waited_ns: u64,
    since_answer_ns: u64,
) -> Turn {
    let Arrival { silent_ns, left_early, gone } = core.app.arrival(connection.socket.as_fd());
    // What the client has acknowledged since is an answer, and says nothing of its patience.
    if gone || left_early && silent_ns < since_answer_ns {
        return Turn::Forget;
    }
    if waited_ns.max(silent_ns.min(since_answer_ns)) > core.queue_ns {
        return Turn::Refuse(RefusalKind::WaitedTooLong);
    }
    Turn::Run
}
