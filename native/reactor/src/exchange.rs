//! Requests on one connection: bytes in, complete requests to the application.
//!
//! Owns       the moves of a connection from idle through reading to its answer; `respond` has the rest.
//! Never      watches sockets or keeps the connection table: `server` does, and closes what ends here.
//! Invariant  one request at a time: while an answer is on its way the connection is not read, so
//!            what a client can make us hold is one read, one head, one body and one answer.

use std::os::fd::AsFd;

use bicorn_wire::{BodyDecoder, Framing, Head, HeadParser, Progress, RefusalKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::application::{Application, Outcome, Request};
use crate::connection::{Connection, Reading, Stage, Then};
use crate::core::{
    Core,
    Verdict::{self, Close, Keep},
};
use crate::intake::{Body, Intake, IntakeError, RequestBody};
use crate::outbox::{Flush, Outbox};
use crate::respond::{discard, finished, flush, pump, refuse, refuse_unstored, respond_later, stream_out};

/// Reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 16;

/// Pipelined requests of one connection that are answered before the others get their turn.
const REQUESTS_PER_TURN: usize = 16;

/// Longer heads are not remembered.
const REMEMBERED_BYTES_MAX: usize = 2048;

/// Reads what the socket has, and serves it.
#[inline]
pub fn read<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    for _ in 0..READS_PER_TURN {
        if !connection.readable || matches!(connection.stage, Stage::Responding(_)) {
            return Keep;
        }
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
    // A sender as fast as we are would keep everybody else waiting to the end of its upload.
    core.unfinished.push(connection.token);
    Keep
}

/// Serves as many requests as `input` holds.
fn serve<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, mut input: &[u8]) -> Verdict {
    let mut begun = 0;
    while !input.is_empty() {
        if begun == REQUESTS_PER_TURN && matches!(connection.stage, Stage::Idle) {
            put_off(connection, core, input);
            return Keep;
        }
        begun += 1;
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

/// Keeps the requests behind an answer for the connection's next turn, as if that answer were still on
/// its way.
#[cold]
fn put_off<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, input: &[u8]) {
    respond_later(connection, core, None, Then::KeepAlive);
    if let Stage::Responding(responding) = &mut connection.stage {
        responding.pending.extend_from_slice(input);
    }
    core.unfinished.push(connection.token);
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
            Ok(Flush::Blocked) | Err(_) => {
                core.outbox = Outbox::default(); // It is everybody's: nothing may be left in it.
                return Err(Close);
            }
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
    let outcome = core.app.call(request, &mut core.outbox, &mut core.clock);
    // A round of the loop may hold hundreds of calls: each of them proves life, not only the round.
    core.app.slot().beat(core.clock.now_ns());
    match outcome {
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

/// The socket can take more, or it is this connection's turn again.
pub fn resume<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    match connection.stage {
        Stage::Responding(_) => match pump(connection, core) {
            Ok(None) => Keep,
            Ok(Some(pending)) => match serve(connection, core, &pending) {
                Keep => read(connection, core),
                Close => Close,
            },
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

/// What a connection waits for while its patience runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Request,
    Head,
    Body,
    Room,
    End,
}

fn awaited<A: Application>(stage: &Stage<A>) -> Awaited {
    match stage {
        Stage::Idle => Awaited::Request,
        Stage::Reading(reading) if reading.body.is_none() => Awaited::Head,
        Stage::Reading(_) => Awaited::Body,
        Stage::Responding(_) => Awaited::Room,
        Stage::Lingering => Awaited::End,
    }
}

/// The connection's patience has ended.
pub fn time_out<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    // One last look: what was waited for may have come while an application call held the loop.
    let before = awaited(&connection.stage);
    connection.deadline_ms = u64::MAX;
    connection.readable = true;
    let verdict = resume(connection, core);
    let after = awaited(&connection.stage);
    if verdict == Close || connection.deadline_ms != u64::MAX {
        return verdict;
    }
    match (before, after) {
        // Half a head on a fresh connection sets no deadline of its own: see `begin`.
        (Awaited::Request, Awaited::Head) => {
            core.patience(connection, core.timeouts.header_ms);
            Keep
        }
        // It moved on, to where no timeout is set.
        _ if before != after => Keep,
        (_, Awaited::Head) => refuse(connection, core, &RefusalKind::HeadTimeout.into()),
        (_, Awaited::Body) => refuse(connection, core, &RefusalKind::BodyTimeout.into()),
        (_, Awaited::Room) => {
            // A peer that takes nothing has had its time. A plain close would leave the kernel with
            // what is unsent, for minutes; a reset frees it, and reaches a peer whose window is shut.
            let _ =
                rustix::net::sockopt::set_socket_linger(&connection.socket, Some(std::time::Duration::ZERO));
            Close
        }
        (_, Awaited::Request | Awaited::End) => Close,
    }
}
