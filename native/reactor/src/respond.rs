//! Answers on their way out, and how a connection ends.
//!
//! Owns       sending, refusing, lingering.
//! Never      reads a request: what came early is given back to `exchange`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bicorn_wire::{Refusal, RefusalKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use crate::application::{Application, Incident};
use crate::connection::{Connection, Responding, Stage, Then};
use crate::core::{
    Core,
    Verdict::{self, Close, Keep},
};
use crate::exchange::pull;
use crate::outbox::{Flush, Outbox};

/// Reads of what a lingering peer still sends, before the other connections get their turn.
const DISCARDS_PER_TURN: usize = 16;

/// Keeps an answer that the socket would not take, or whose turn is over, with its connection.
pub fn respond_later<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    responding: Responding<A>,
) {
    connection.stage = Stage::Responding(Box::new(responding));
    core.patience(connection, core.timeouts.write_ms);
}

/// Makes the close that follows a reset: it frees what the kernel has not sent, and it is the only sign
/// of a break that an answer without a length can give.
pub fn reset_at_close(socket: BorrowedFd<'_>) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Sends the shared outbox.
#[inline]
pub fn flush<A: Application>(connection: &Connection<A>, core: &mut Core<A>) -> Result<Flush, Errno> {
    let slot = core.app.slot();
    let result = core.outbox.flush((*connection.socket).as_fd(), |count| slot.sent(count));
    if result.is_err() {
        core.outbox = Outbox::default();
    }
    result
}

/// An answer has left completely.
#[inline]
pub fn finished<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    then: Then,
) -> Result<(), Verdict> {
    match then {
        Then::KeepAlive => {
            connection.stage = Stage::Idle;
            connection.freed_ns = core.clock.now_ns();
            let idle_ms =
                if core.draining { core.timeouts.drain_idle_ms } else { core.timeouts.keepalive_ms };
            core.patience(connection, idle_ms);
            Ok(())
        }
        // Nothing can be left unread that a close would answer with a reset.
        Then::Close if !connection.readable => Err(Close),
        Then::Close | Then::Linger => Err(linger(connection, core)),
    }
}

/// Closes our side, and leaves the peer time to read: a close with unread input behind it would
/// reset the connection and take the answer with it (RFC 9112, 9.6).
fn linger<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    if shutdown(&connection.socket, Shutdown::Write).is_err() {
        return Close;
    }
    connection.stage = Stage::Lingering;
    connection.readable = true;
    // A worker on its way out does not wait long for peers that never close.
    let t = &core.timeouts;
    let linger_ms = if core.draining { t.linger_ms.min(t.drain_idle_ms) } else { t.linger_ms };
    core.patience(connection, linger_ms);
    discard(connection, core)
}

/// Reads what a lingering peer still sends, and forgets it.
pub fn discard<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    let mut scratch = [0; 8192];
    for _ in 0..DISCARDS_PER_TURN {
        match recv(&connection.socket, &mut scratch[..], RecvFlags::empty()) {
            Ok((_, 0)) => return Close,
            Ok((_, count)) => core.app.slot().received(count),
            Err(Errno::AGAIN) => {
                connection.readable = false;
                return Keep;
            }
            Err(Errno::INTR) => {}
            Err(_) => return Close,
        }
    }
    core.unfinished.push(connection.token);
    Keep
}

/// Answers a request that broke a rule, and ends the connection.
pub fn refuse<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    refusal: &Refusal,
) -> Verdict {
    core.app.slot().request_refused(refusal.status);
    let peer = connection.peer.as_mut().expect("no job is out while a request is read");
    core.app.refuse(refusal, peer, &mut core.outbox);
    match flush(connection, core) {
        Ok(Flush::Done) => linger(connection, core),
        Ok(_) => {
            let outbox = std::mem::take(&mut core.outbox);
            respond_later(connection, core, Responding::of(outbox, Then::Linger, Vec::new()));
            Keep
        }
        Err(_) => Close,
    }
}

/// Answers a request whose body the disk would not take.
pub fn refuse_unstored<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    error: std::io::Error,
) -> Verdict {
    core.app.incident(Incident::Spool(error));
    refuse(connection, core, &RefusalKind::BodyNotStored.into())
}

/// Sends what waits, as long as the socket takes it; what the application has more comes by a job.
///
/// Gives the bytes that came early once the answer has left and the connection goes on.
pub fn pump<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
) -> Result<Option<Vec<u8>>, Verdict> {
    let Stage::Responding(responding) = &mut connection.stage else { return Ok(None) };
    let slot = core.app.slot();
    let mut progress = false;
    let flushed = responding.outbox.flush((*connection.socket).as_fd(), |count| {
        slot.sent(count);
        progress = true;
    });
    match flushed {
        Ok(Flush::Done) if responding.stream.is_none() => respond_finished(connection, core).map(Some),
        Ok(Flush::Done) => {
            pull(connection, core);
            Ok(None)
        }
        Ok(unsent) => {
            if progress {
                core.patience(connection, core.timeouts.write_ms);
            }
            if unsent == Flush::Yielded {
                core.unfinished.push(connection.token);
            }
            Ok(None)
        }
        Err(_) => Err(Close),
    }
}

fn respond_finished<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
) -> Result<Vec<u8>, Verdict> {
    let Stage::Responding(responding) = std::mem::replace(&mut connection.stage, Stage::Idle) else {
        unreachable!("called for a connection that responds");
    };
    finished(connection, core, responding.then)?;
    Ok(responding.pending)
}
