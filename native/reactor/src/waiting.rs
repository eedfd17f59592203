//! Requests whose turn has come: which of them are still worth an answer.
//!
//! Owns       the rule by which a request that waited is run, refused or forgotten, here and in event loops of
//!            Python's.
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
pub const WAITED_NS: u64 = 100_000_000;

/// The kernel counts in ticks: what came after an answer may seem to be so much older.
const TICK_NS: u64 = 10_000_000;

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
    let arrival = core.app.arrival(connection.socket.as_fd());
    weigh(arrival, waited_ns, now_ns.saturating_sub(connection.freed_ns), core.queue_ns)
}

/// Judges by what the kernel knows a request that was read `waited_ns` ago; the connection's answer before it
/// had left `since_answer_ns` ago.
pub fn weigh(arrival: Arrival, waited_ns: u64, since_answer_ns: u64, queue_ns: u64) -> Turn {
    let Arrival { silent_ns, left_early, gone } = arrival;
    // What the client has acknowledged since is an answer, and says nothing of its patience.
    if gone || left_early && silent_ns < since_answer_ns.saturating_add(TICK_NS) {
        return Turn::Forget;
    }
    if waited_ns.max(silent_ns.min(since_answer_ns)) > queue_ns {
        return Turn::Refuse(RefusalKind::WaitedTooLong);
    }
    Turn::Run
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: u64 = u64::MAX;

    #[test]
    fn a_request_is_judged_by_the_longer_of_what_the_loop_and_the_kernel_saw() {
        let silent = |silent_ns| Arrival { silent_ns, ..Arrival::default() };
        let refused = Turn::Refuse(RefusalKind::WaitedTooLong);
        assert_eq!(weigh(silent(0), 10, NEVER, 10), Turn::Run);
        assert_eq!(weigh(silent(0), 11, NEVER, 10), refused);
        assert_eq!(weigh(silent(11), 0, NEVER, 10), refused);
        // The connection was being answered until 5 ago.
        assert_eq!(weigh(silent(11), 0, 5, 10), Turn::Run);
        assert_eq!(weigh(silent(11), 11, NEVER, NEVER), Turn::Run);
    }

    #[test]
    fn a_client_that_has_gone_is_forgotten() {
        let silent_ns = 20 * TICK_NS;
        let left = Arrival { silent_ns, left_early: true, gone: false };
        assert_eq!(weigh(left, 0, NEVER, 5), Turn::Forget);
        assert_eq!(weigh(left, 0, silent_ns, NEVER), Turn::Forget);
        // It is older than the answer, so it was acknowledgements of that which came so late.
        assert_eq!(weigh(left, 0, silent_ns - 2 * TICK_NS, NEVER), Turn::Run);
        assert_eq!(weigh(Arrival { gone: true, ..Arrival::default() }, 0, 0, NEVER), Turn::Forget);
    }
}
