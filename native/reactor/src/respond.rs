//! Answers on their way out, and how a connection ends.
//!
//! Owns       sending, pulling, refusing, lingering.
//! Never      reads a request: what came early is given back to `exchange`.

use std::os::fd::AsFd;

use bicorn_wire::{Refusal, RefusalKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use crate::application::{Application, Incident, Pull};
use crate::connection::{Connection, Responding, Stage, Then};
use crate::core::{
    Core,
    Verdict::{self, Close, Keep},
};
use crate::outbox::{Flush, Outbox};

/// Pulls of one streamed answer before the other connections get their turn.
const PULLS_PER_TURN: usize = 16;

/// Sends a streamed answer as far as the socket takes it: usually to its end, without storing it.
pub fn stream_out<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    stream: A::Stream,
    client_keeps_alive: bool,
) -> Result<(), Verdict> {
    let mut stream = Some(stream);
    let mut then = Then::after(false, client_keeps_alive);
    for _ in 0..PULLS_PER_TURN {
        match flush(connection, core) {
            Ok(Flush::Done) if stream.is_none() => return finished(connection, core, then),
            Ok(Flush::Done) => {}
            Ok(Flush::Blocked) => {
                respond_later(connection, core, stream, then);
                return Ok(());
            }
            Err(_) => {
                if let Some(stream) = stream {
                    core.app.abandon(stream, &mut core.clock);
                }
                return Err(Close);
            }
        }
        let pull = core.app.pull(&mut stream, connection.socket.as_fd(), &mut core.outbox, &mut core.clock);
        core.app.slot().beat(core.clock.read());
        match pull {
            Pull::More => {}
            Pull::Done { keep_alive } => then = Then::after(keep_alive, client_keeps_alive),
            Pull::Aborted => {
                let _ = flush(connection, core);
                core.outbox = Outbox::default();
                return Err(Close);
            }
        }
    }
    respond_later(connection, core, stream, then);
    core.unfinished.push(connection.token);
    Ok(())
}

/// Keeps an answer that the socket would not take, or whose turn is over, with its connection.
pub fn respond_later<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    stream: Option<A::Stream>,
    then: Then,
) {
    let outbox = std::mem::take(&mut core.outbox);
    connection.stage = Stage::Responding(Box::new(Responding { outbox, stream, then, pending: Vec::new() }));
    core.patience(connection, core.timeouts.write_ms);
}

/// Sends the shared outbox.
#[inline]
pub fn flush<A: Application>(connection: &Connection<A>, core: &mut Core<A>) -> Result<Flush, Errno> {
    let slot = core.app.slot();
    let result = core.outbox.flush(connection.socket.as_fd(), |count| slot.sent(count));
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
    for _ in 0..PULLS_PER_TURN {
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
    core.app.refuse(refusal, &mut connection.peer, &mut core.outbox);
    match flush(connection, core) {
        Ok(Flush::Done) => linger(connection, core),
        Ok(Flush::Blocked) => {
            respond_later(connection, core, None, Then::Linger);
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

/// Sends what waits, pulls what follows, as long as the socket takes it and others need not wait.
///
/// Gives the bytes that came early once the answer has left and the connection goes on.
pub fn pump<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
) -> Result<Option<Vec<u8>>, Verdict> {
    for _ in 0..PULLS_PER_TURN {
        let Stage::Responding(responding) = &mut connection.stage else { return Ok(None) };
        let socket = connection.socket.as_fd();
        let slot = core.app.slot();
        let mut progress = false;
        let flushed = responding.outbox.flush(socket, |count| {
            slot.sent(count);
            progress = true;
        });
        match flushed {
            Ok(Flush::Done) => {}
            Ok(Flush::Blocked) => {
                if progress {
                    core.patience(connection, core.timeouts.write_ms);
                }
                return Ok(None);
            }
            Err(_) => return Err(Close),
        }
        if responding.stream.is_none() {
            return respond_finished(connection, core).map(Some);
        }
        let pull = core.app.pull(&mut responding.stream, socket, &mut responding.outbox, &mut core.clock);
        core.app.slot().beat(core.clock.read());
        match pull {
            Pull::More => {}
            Pull::Done { keep_alive } => {
                if keep_alive {
                    responding.then = Then::KeepAlive;
                }
            }
            Pull::Aborted => {
                let _ = responding.outbox.flush(socket, |_| {});
                return Err(Close);
            }
        }
        core.patience(connection, core.timeouts.write_ms);
    }
    core.unfinished.push(connection.token);
    Ok(None)
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
