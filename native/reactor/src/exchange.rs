//! The life of exchanges on one connection: bytes in, requests to the application, answers out.
//!
//! Owns       every move between the stages of a connection.
//! Never      watches sockets or keeps the connection table: `server` does, and closes what ends here.
//! Invariant  one request at a time: while an answer is on its way the connection is not read, so
//!            what a client can make us hold is one read, one head, one body and one answer.

use std::os::fd::AsFd;

use bicorn_wire::{BodyDecoder, Framing, Head, HeadParser, Progress, Refusal, RefusalKind, Rules};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use crate::application::{Application, Incident, Outcome, Pull, Request};
use crate::clock::Clock;
use crate::connection::{Connection, Reading, Responding, Stage, Then};
use crate::intake::{Body, Intake, IntakeError, RequestBody, Spool};
use crate::outbox::{Flush, Outbox};
use crate::timer::{Token, Wheel};

/// Bytes read from a socket at once; also the most that is held of requests that came early.
pub const READ_BYTES: usize = 64 * 1024;

/// Longer heads are not remembered.
const REMEMBERED_BYTES_MAX: usize = 2048;

/// Pulls of one streamed answer before the other connections get their turn.
const PULLS_PER_TURN: usize = 16;

/// Every timeout of a connection, in milliseconds; `u64::MAX` for none.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte waited for to the end of the head.
    pub header_ms: u64,
    /// Between two reads of a body.
    pub body_ms: u64,
    /// Between two bytes the socket takes of an answer.
    pub write_ms: u64,
    /// Idle time after an answer; 0 means that every answer closes its connection.
    pub keepalive_ms: u64,
    /// For the peer to read an answer that closes, before the socket goes.
    pub linger_ms: u64,
    /// Idle time of a connection of a draining worker: long enough for a request that was sent
    /// before the client could know.
    pub drain_idle_ms: u64,
}

/// What all exchanges of a worker share.
pub struct Core<A: Application> {
    /// Who answers.
    pub app: A,
    /// The rules of the wire.
    pub rules: Rules,
    /// The timeouts.
    pub timeouts: Timeouts,
    /// Time.
    pub clock: Clock,
    /// Who is to be looked at when.
    pub wheel: Wheel,
    /// Bodies on their way in.
    pub spool: Spool,
    /// Connections with more to pull whose turn is over.
    pub unfinished: Vec<Token>,
    /// No request may keep its connection: the worker is on its way out.
    pub draining: bool,
    parser: HeadParser,
    head: Head,
    /// The bytes that `head` was parsed from; empty when `head` is not to be used again. The same
    /// bytes mean the same head, and keep-alive clients mostly send the same.
    remembered: Vec<u8>,
    outbox: Outbox<A::Chunk>,
    buffer: Vec<u8>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays in the table.
    Keep,
    /// It is to be closed now.
    Close,
}

use Verdict::{Close, Keep};

impl<A: Application> Core<A> {
    /// The shared state of a worker that has served nothing yet.
    pub fn new(app: A, rules: Rules, timeouts: Timeouts, spool: Spool) -> Self {
        let clock = Clock::default();
        Self {
            app,
            rules,
            timeouts,
            wheel: Wheel::new(clock.now_ms()),
            clock,
            spool,
            unfinished: Vec::new(),
            draining: false,
            parser: HeadParser::new(),
            head: Head::default(),
            remembered: Vec::new(),
            outbox: Outbox::default(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Gives `connection` `patience_ms` from now.
    #[inline]
    pub fn patience(&mut self, connection: &mut Connection<A>, patience_ms: u64) {
        let deadline_ms = self.clock.now_ms().saturating_add(patience_ms);
        connection.deadline_ms = deadline_ms;
        // A later look is not undone: it finds the deadline moved and parks the connection again.
        if deadline_ms < connection.parked_ms {
            connection.parked_ms = self.wheel.park(connection.token, deadline_ms);
        }
    }
}

/// Reads what the socket has, and serves it.
#[inline]
pub fn read<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    while connection.readable && !matches!(connection.stage, Stage::Responding(_)) {
        let mut buffer = std::mem::take(&mut core.buffer);
        let verdict = match recv(&connection.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) => Close,
            Ok((_, count)) => {
                // Less than asked for: the socket is drained, and the next edge will tell.
                connection.readable = count == buffer.len();
                core.app.slot().received(count);
                serve(connection, core, &buffer[..count])
            }
            Err(Errno::AGAIN) => {
                connection.readable = false;
                Keep
            }
            Err(Errno::INTR) => Keep,
            Err(_) => Close,
        };
        core.buffer = buffer;
        if verdict == Close {
            return Close;
        }
    }
    Keep
}

/// Serves as many requests as `input` holds.
fn serve<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, mut input: &[u8]) -> Verdict {
    while !input.is_empty() {
        let step = match &mut connection.stage {
            Stage::Idle => begin(connection, core, input),
            Stage::Reading(_) => go_on_reading(connection, core, input),
            Stage::Responding(responding) => {
                responding.pending.extend_from_slice(input);
                return Keep;
            }
            Stage::Lingering => return Keep,
        };
        match step {
            Ok(used) => input = &input[used..],
            Err(verdict) => return verdict,
        }
    }
    Keep
}

/// How a step ended: the bytes it used up, or the end of this read.
type Step = Result<usize, Verdict>;

/// The first bytes of a request: nearly always the whole of it.
#[inline]
fn begin<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, input: &[u8]) -> Step {
    let known = !core.remembered.is_empty() && input.starts_with(&core.remembered);
    let mut head = std::mem::take(&mut core.head);
    let parsed = if known {
        Ok(Progress::Complete)
    } else {
        core.remembered.clear();
        core.parser.reset();
        core.parser.parse(input, &core.rules, &mut head)
    };
    let step = match parsed {
        Ok(Progress::Complete) => {
            if !known && head.len <= REMEMBERED_BYTES_MAX {
                core.remembered.extend_from_slice(&input[..head.len]);
            }
            begin_complete(connection, core, input, &mut head)
        }
        Ok(Progress::Partial) => {
            let parser = std::mem::take(&mut core.parser);
            let reading =
                Reading { inbox: input.to_vec(), parser, head: std::mem::take(&mut head), body: None };
            connection.stage = Stage::Reading(Box::new(reading));
            // A fresh connection's time runs from its accept, so that a byte now and then buys nothing.
            if connection.served {
                core.patience(connection, core.timeouts.header_ms);
            }
            Ok(input.len())
        }
        Err(refusal) => Err(refuse(connection, core, &refusal)),
    };
    core.head = head;
    step
}

#[inline]
fn begin_complete<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    input: &[u8],
    head: &mut Head,
) -> Step {
    let (bytes, rest) = input.split_at(head.len);
    match head.framing {
        Framing::None => {
            answer(connection, core, head, bytes, RequestBody::Empty)?;
            Ok(head.len)
        }
        Framing::Length(length) if length <= rest.len() as u64 && allowed(core, length) => {
            let length = length as usize;
            let body = if length == 0 { RequestBody::Empty } else { RequestBody::Slice(&rest[..length]) };
            answer(connection, core, head, bytes, body)?;
            Ok(head.len + length)
        }
        _ => {
            let used = head.len;
            let body = start_body(connection, core, head, rest.is_empty())?;
            core.remembered.clear(); // The head goes with the body that is awaited.
            let reading = Reading {
                inbox: bytes.to_vec(),
                parser: HeadParser::new(),
                head: std::mem::take(head),
                body: Some(body),
            };
            connection.stage = Stage::Reading(Box::new(reading));
            Ok(used)
        }
    }
}

fn allowed<A: Application>(core: &Core<A>, length: u64) -> bool {
    core.rules.limits.body_bytes == 0 || length <= core.rules.limits.body_bytes
}

/// Prepares to receive a body, and asks for it if the client waits to be asked.
fn start_body<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    head: &Head,
    none_arrived: bool,
) -> Result<Body, Verdict> {
    let decoder = match BodyDecoder::new(head.framing, &core.rules.limits) {
        Ok(decoder) => decoder,
        Err(refusal) => return Err(refuse(connection, core, &refusal)),
    };
    let expected = if let Framing::Length(length) = head.framing { Some(length) } else { None };
    if head.expects_continue && none_arrived {
        core.outbox.push(b"HTTP/1.1 100 Continue\r\n\r\n");
        // Nothing else is on its way, so a socket that does not take 25 bytes is broken.
        match flush(connection, core) {
            Ok(Flush::Done) => {}
            Ok(Flush::Blocked) | Err(_) => return Err(Close),
        }
    }
    core.patience(connection, core.timeouts.body_ms);
    Ok(Body::new(decoder, expected, &core.spool))
}

/// More bytes of a request of which a part was here already.
fn go_on_reading<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, input: &[u8]) -> Step {
    let Stage::Reading(mut reading) = std::mem::replace(&mut connection.stage, Stage::Idle) else {
        unreachable!("called for a connection that is reading");
    };
    if reading.body.is_some() {
        return go_on_with_body(connection, core, reading, input);
    }
    reading.inbox.extend_from_slice(input);
    match reading.parser.parse(&reading.inbox, &core.rules, &mut reading.head) {
        Ok(Progress::Partial) => {
            connection.stage = Stage::Reading(reading);
            Ok(input.len())
        }
        Ok(Progress::Complete) => {
            let rest = reading.inbox.len() - reading.head.len;
            reading.inbox.truncate(reading.head.len);
            if reading.head.framing == Framing::None {
                answer(connection, core, &reading.head, &reading.inbox, RequestBody::Empty)?;
            } else {
                let body = start_body(connection, core, &reading.head, rest == 0)?;
                reading.body = Some(body);
                if reading.head.framing == Framing::Length(0) {
                    return go_on_with_body(connection, core, reading, &[]).map(|_| input.len() - rest);
                }
                connection.stage = Stage::Reading(reading);
            }
            Ok(input.len() - rest)
        }
        Err(refusal) => Err(refuse(connection, core, &refusal)),
    }
}

fn go_on_with_body<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    mut reading: Box<Reading>,
    input: &[u8],
) -> Step {
    let body = reading.body.as_mut().expect("checked by the caller");
    match body.take(input) {
        Ok(Intake::NeedData) => {
            core.patience(connection, core.timeouts.body_ms);
            connection.stage = Stage::Reading(reading);
            Ok(input.len())
        }
        Ok(Intake::Complete(used)) => {
            let body = reading.body.take().expect("checked by the caller");
            match body.finish() {
                Ok(body) => answer(connection, core, &reading.head, &reading.inbox, body)?,
                Err(error) => return Err(refuse_unstored(connection, core, error)),
            }
            Ok(used)
        }
        Err(IntakeError::Refused(refusal)) => Err(refuse(connection, core, &refusal)),
        Err(IntakeError::Disk(error)) => Err(refuse_unstored(connection, core, error)),
    }
}

/// Hands a complete request to the application and sends what it says. An error ends this read.
#[inline]
fn answer<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    head: &Head,
    bytes: &[u8],
    body: RequestBody<'_>,
) -> Result<(), Verdict> {
    let request = Request {
        head,
        bytes,
        body,
        peer: &mut connection.peer,
        socket: connection.socket.as_fd(),
        may_keep_alive: !core.draining && core.timeouts.keepalive_ms > 0,
    };
    connection.served = true;
    match core.app.call(request, &mut core.outbox, &mut core.clock) {
        Outcome::Done { keep_alive } => {
            let then = Then::after(keep_alive, head.keep_alive);
            match flush(connection, core) {
                Ok(Flush::Done) => finished(connection, core, then),
                Ok(Flush::Blocked) => {
                    respond_later(connection, core, None, then);
                    Ok(())
                }
                Err(_) => Err(Close),
            }
        }
        Outcome::Stream(stream) => stream_out(connection, core, stream, head.keep_alive),
        Outcome::Refused(refusal) => Err(refuse(connection, core, &refusal)),
        Outcome::Aborted => {
            // What was sent before the break still goes out; the missing end tells the peer.
            let _ = flush(connection, core);
            core.outbox = Outbox::default();
            Err(Close)
        }
    }
}

/// Sends a streamed answer as far as the socket takes it: usually to its end, without storing it.
fn stream_out<A: Application>(
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
        match core.app.pull(&mut stream, connection.socket.as_fd(), &mut core.outbox, &mut core.clock) {
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

fn respond_later<A: Application>(
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
fn flush<A: Application>(connection: &Connection<A>, core: &mut Core<A>) -> Result<Flush, Errno> {
    let slot = core.app.slot();
    let result = core.outbox.flush(connection.socket.as_fd(), |count| slot.sent(count));
    if result.is_err() {
        core.outbox = Outbox::default();
    }
    result
}

/// An answer has left completely.
#[inline]
fn finished<A: Application>(
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
fn discard<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
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
    core.app.refuse(refusal, &mut connection.peer, &mut core.outbox, &mut core.clock);
    match flush(connection, core) {
        Ok(Flush::Done) => linger(connection, core),
        Ok(Flush::Blocked) => {
            respond_later(connection, core, None, Then::Linger);
            Keep
        }
        Err(_) => Close,
    }
}

fn refuse_unstored<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    error: std::io::Error,
) -> Verdict {
    core.app.incident(Incident::Spool(error));
    refuse(connection, core, &RefusalKind::BodyNotStored.into())
}

/// Sends what waits, pulls what follows, as long as the socket takes it and others need not wait.
fn pump<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Result<(), Verdict> {
    for _ in 0..PULLS_PER_TURN {
        let Stage::Responding(responding) = &mut connection.stage else { return Ok(()) };
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
                return Ok(());
            }
            Err(_) => return Err(Close),
        }
        if responding.stream.is_none() {
            return respond_finished(connection, core);
        }
        match core.app.pull(&mut responding.stream, socket, &mut responding.outbox, &mut core.clock) {
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
    Ok(())
}

fn respond_finished<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
) -> Result<(), Verdict> {
    let Stage::Responding(responding) = std::mem::replace(&mut connection.stage, Stage::Idle) else {
        unreachable!("called for a connection that responds");
    };
    finished(connection, core, responding.then)?;
    match serve(connection, core, &responding.pending) {
        Keep => Ok(()),
        Close => Err(Close),
    }
}

/// The socket can take more, or it is this connection's turn again.
pub fn resume<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    match connection.stage {
        Stage::Responding(_) => match pump(connection, core) {
            Ok(()) => read(connection, core),
            Err(verdict) => verdict,
        },
        Stage::Lingering => discard(connection, core),
        Stage::Idle | Stage::Reading(_) => read(connection, core),
    }
}

/// The socket has something to read.
#[inline]
pub fn readable<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    match connection.stage {
        Stage::Idle | Stage::Reading(_) => read(connection, core),
        Stage::Lingering => discard(connection, core),
        Stage::Responding(_) => Keep,
    }
}

/// The connection's patience has ended.
pub fn time_out<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    match &connection.stage {
        Stage::Reading(reading) => {
            let kind =
                if reading.body.is_some() { RefusalKind::BodyTimeout } else { RefusalKind::HeadTimeout };
            refuse(connection, core, &kind.into())
        }
        Stage::Idle => {
            // One last look: a request may have come in the moment in which its patience ended.
            connection.deadline_ms = u64::MAX;
            connection.readable = true;
            let verdict = read(connection, core);
            if connection.deadline_ms == u64::MAX {
                match connection.stage {
                    Stage::Idle => return Close,
                    // Half a head on a fresh connection sets no deadline of its own: see `begin`.
                    Stage::Reading(_) => core.patience(connection, core.timeouts.header_ms),
                    Stage::Responding(_) | Stage::Lingering => {}
                }
            }
            verdict
        }
        Stage::Responding(_) => {
            // A peer that takes nothing has had its time. A plain close would leave the kernel with
            // what is unsent, for minutes; a reset frees it, and reaches a peer whose window is shut.
            let _ =
                rustix::net::sockopt::set_socket_linger(&connection.socket, Some(std::time::Duration::ZERO));
            Close
        }
        Stage::Lingering => Close,
    }
}
