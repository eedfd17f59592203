//! Requests on one connection: bytes in, complete requests to the application.
//!
//! Owns       the moves of a connection from idle through reading to a job; `respond` has the rest.
//! Never      watches sockets or keeps the connection table: `server` does, and closes what ends here.
//! Invariant  one request at a time: while a job is out or an answer on its way the connection is not
//!            read, so what a client can make us hold is one read, one head, one body and one answer.

use std::sync::Arc;

use bicorn_wire::{BodyDecoder, Framing, Head, HeadParser, Progress, RefusalKind};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::application::Application;
use crate::connection::{Connection, Reading, Responding, Stage, Then};
use crate::core::{
    Core,
    Verdict::{self, Close, Keep},
};
use crate::intake::{Body, Intake, IntakeError, RequestBody};
use crate::job::{Fate, Job, Request, Task};
use crate::outbox::{Flush, Outbox};
use crate::preamble;
use crate::respond::{
    discard, finished, flush, pump, refuse, refuse_unstored, reset_at_close, respond_later,
};

/// Reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 16;

/// Pipelined requests of one connection that are answered before the others get their turn.
const REQUESTS_PER_TURN: u8 = 16;

/// Reads what the socket has, and makes requests of it.
#[inline]
pub fn read<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    for _ in 0..READS_PER_TURN {
        if !connection.readable || matches!(connection.stage, Stage::Serving(_) | Stage::Responding(_)) {
            return Keep;
        }
        let mut buffer = std::mem::take(&mut core.buffer);
        let verdict = match recv(&connection.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((_, 0)) => Close,
            Ok((_, count)) => {
                // Less than asked for: the socket is drained, and the next edge will tell. There is none behind the
                // peer's end, which is told once and may have been told long ago.
                connection.readable = count == buffer.len() || connection.half_closed;
                core.app.slot().received(count);
                take_in(connection, core, &buffer[..count])
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

/// Takes `input` in: as far as it makes one request, and the rest behind that.
#[inline]
pub fn take_in<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    mut input: &[u8],
) -> Verdict {
    while !input.is_empty() {
        let step = match &mut connection.stage {
            Stage::Preamble(_) => preamble::go_on(connection, core, input),
            Stage::Idle => begin(connection, core, input),
            Stage::Reading(_) => go_on_reading(connection, core, input),
            Stage::Serving(pending) => {
                pending.extend_from_slice(input);
                return Keep;
            }
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
pub(crate) type Step = Result<usize, Verdict>;

/// The first bytes of a request: nearly always the whole of it.
#[inline]
fn begin<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, input: &[u8]) -> Step {
    let mut job = core.spare_job();
    let Request { head, bytes, .. } = &mut job.request;
    // The same bytes mean the same head, and keep-alive clients mostly send the same.
    let known = !bytes.is_empty() && input.starts_with(bytes);
    let parsed = if known {
        Ok(Progress::Complete)
    } else {
        bytes.clear(); // Whatever comes of it, the head that they made is overwritten now.
        core.parser.reset();
        core.parser.parse(input, &core.rules, head)
    };
    match parsed {
        Ok(Progress::Complete) => {
            if !known {
                bytes.extend_from_slice(&input[..head.len]);
            }
            begin_complete(connection, core, input, job)
        }
        Ok(Progress::Partial) => {
            let parser = std::mem::take(&mut core.parser);
            let head = std::mem::take(head);
            let reading = Reading { inbox: input.to_vec(), parser, head, body: None };
            connection.stage = Stage::Reading(Box::new(reading));
            core.keep_job(job);
            // A fresh connection's time runs from its accept, so that a byte now and then buys nothing.
            if connection.served {
                core.patience(connection, core.timeouts.header_ms);
            }
            Ok(input.len())
        }
        Err(refusal) => {
            *head = Head::default(); // What was parsed of it points to bytes that are not kept.
            core.keep_job(job);
            Err(refuse(connection, core, &refusal))
        }
    }
}

#[inline]
fn begin_complete<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    input: &[u8],
    mut job: Box<Job<A>>,
) -> Step {
    let used = job.request.head.len;
    let rest = &input[used..];
    match job.request.head.framing {
        Framing::None => issue(connection, core, job).map(|()| used),
        Framing::Length(length) if length <= rest.len() as u64 && allowed(core, length) => {
            let length = length as usize;
            if length > 0 {
                job.request.body = core.spool.hold(&rest[..length]);
            }
            issue(connection, core, job).map(|()| used + length)
        }
        _ => {
            let Request { head, bytes, .. } = std::mem::take(&mut job.request);
            core.keep_job(job);
            let body = start_body(connection, core, &head, rest.is_empty())?;
            let reading = Reading { inbox: bytes, parser: HeadParser::new(), head, body: Some(body) };
            connection.stage = Stage::Reading(Box::new(reading));
            Ok(used)
        }
    }
}

fn allowed<A: Application>(core: &Core<A>, length: u64) -> bool {
    core.rules.limits.body_bytes == 0 || length <= core.rules.limits.body_bytes
}

/// Puts a complete request where jobs wait.
#[inline]
fn issue<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    mut job: Box<Job<A>>,
) -> Result<(), Verdict> {
    if core.concurrency >= core.concurrency_max {
        let refusal = job.request.refused(RefusalKind::TooManyAtOnce);
        core.keep_job(job);
        return Err(refuse(connection, core, &refusal));
    }
    core.concurrency += 1;
    core.calls += 1;
    job.task = Task::Call;
    job.request.may_keep_alive =
        !core.draining && core.timeouts.keepalive_ms > 0 && core.calls < core.calls_max;
    job.client_keeps_alive = job.request.head.keep_alive;
    job.then = Then::after(false, job.client_keeps_alive);
    connection.socket.gate.reset();
    connection.bodiless = job.request.head.method.of(&job.request.bytes) == b"HEAD";
    connection.served = true;
    connection.begun += 1;
    send_out(connection, core, job, Vec::new());
    Ok(())
}

/// Gives the job what it needs of its connection, which then waits for it.
#[inline]
fn send_out<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    mut job: Box<Job<A>>,
    pending: Vec<u8>,
) {
    job.token = connection.token;
    job.ready_ns = core.clock.now_ns();
    job.peer = connection.peer.take();
    job.socket = Some(Arc::clone(&connection.socket));
    connection.stage = Stage::Serving(pending);
    connection.writable = false;
    connection.deadline_ms = u64::MAX; // Its time is the application's now.
    core.ready.push_back(job);
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
        if !matches!(flush(connection, core), Ok(Flush::Done)) {
            core.outbox = Outbox::default(); // It is everybody's: nothing may be left in it.
            return Err(Close);
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
                issue_read(connection, core, *reading, RequestBody::Empty)?;
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
                Ok(body) => issue_read(connection, core, *reading, body)?,
                Err(error) => return Err(refuse_unstored(connection, core, error)),
            }
            Ok(used)
        }
        Err(IntakeError::Refused(refusal)) => Err(refuse(connection, core, &refusal)),
        Err(IntakeError::Disk(error)) => Err(refuse_unstored(connection, core, error)),
    }
}

/// Issues a request that came in pieces.
fn issue_read<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    reading: Reading,
    body: RequestBody,
) -> Result<(), Verdict> {
    let mut job = core.spare_job();
    job.request = Request { head: reading.head, bytes: reading.inbox, body, may_keep_alive: false };
    issue(connection, core, job)
}

/// A job is back: what it has not sent is sent on, and what its client sent meanwhile is taken in.
#[inline]
pub fn complete<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    job: &mut Job<A>,
) -> Verdict {
    let Stage::Serving(pending) = std::mem::replace(&mut connection.stage, Stage::Idle) else {
        unreachable!("only a connection that is being served has a job out");
    };
    connection.peer = job.peer.take();
    match std::mem::take(&mut job.fate) {
        Fate::Answered(then) => match finished(connection, core, then) {
            Ok(()) => go_on(connection, core, &pending),
            Err(verdict) => verdict,
        },
        Fate::Unsent { then, blocked } => {
            let outbox = std::mem::take(&mut job.outbox);
            let stream = job.stream.take();
            let responding = Responding { outbox, stream, home: job.home, then, pending };
            respond_later(connection, core, responding);
            // That the socket takes bytes again is said once, and may have been said before the job was back.
            if !blocked || connection.writable {
                core.unfinished.push(connection.token);
            }
            Keep
        }
        Fate::Refused(refusal) => refuse(connection, core, &refusal),
        Fate::Broken => Close,
    }
}

/// The connection is free for its next request, of which `pending` may be there already.
#[inline]
fn go_on<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, pending: &[u8]) -> Verdict {
    if !pending.is_empty() {
        if connection.begun >= REQUESTS_PER_TURN {
            put_off(connection, core, pending.to_vec());
            return Keep;
        }
        if take_in(connection, core, pending) == Close {
            return Close;
        }
    }
    if connection.readable {
        core.unfinished.push(connection.token); // Behind those that wait already.
    }
    Keep
}

/// Keeps the requests behind an answer for the connection's next turn, as if that answer were still on
/// its way.
#[cold]
fn put_off<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>, pending: Vec<u8>) {
    let responding = Responding::of(Outbox::default(), Then::KeepAlive, pending);
    respond_later(connection, core, responding);
    core.unfinished.push(connection.token);
}

/// The socket can take more, or it is this connection's turn again.
pub fn resume<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    connection.begun = 0;
    match connection.stage {
        Stage::Responding(_) => match pump(connection, core) {
            Ok(None) => Keep,
            Ok(Some(pending)) => go_on(connection, core, &pending),
            Err(verdict) => verdict,
        },
        Stage::Lingering => discard(connection, core),
        Stage::Preamble(_) | Stage::Idle | Stage::Reading(_) => read(connection, core),
        Stage::Serving(_) => Keep,
    }
}

/// The socket has taken everything and the answer has more: it is the application's turn.
pub fn pull<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) {
    let Stage::Responding(responding) = std::mem::replace(&mut connection.stage, Stage::Idle) else {
        unreachable!("called for a connection that responds");
    };
    let mut job = core.spare_job();
    job.task = Task::Pull;
    job.stream = responding.stream;
    job.outbox = responding.outbox;
    job.home = responding.home;
    job.then = responding.then;
    job.client_keeps_alive = responding.then == Then::Linger;
    send_out(connection, core, job, responding.pending);
}

/// The socket has something to read.
#[inline]
pub fn readable<A: Application>(connection: &mut Connection<A>, core: &mut Core<A>) -> Verdict {
    connection.begun = 0;
    match connection.stage {
        Stage::Preamble(_) | Stage::Idle | Stage::Reading(_) => read(connection, core),
        Stage::Lingering => discard(connection, core),
        Stage::Serving(_) | Stage::Responding(_) => Keep,
    }
}

/// What a connection waits for while its patience runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Request,
    Head,
    Body,
    Answer,
    Room,
    End,
}

fn awaited<A: Application>(stage: &Stage<A>) -> Awaited {
    match stage {
        Stage::Idle => Awaited::Request,
        Stage::Preamble(held) if held.is_empty() => Awaited::Request,
        Stage::Preamble(_) => Awaited::Head,
        Stage::Reading(reading) if reading.body.is_none() => Awaited::Head,
        Stage::Reading(_) => Awaited::Body,
        Stage::Serving(_) => Awaited::Answer,
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
        (_, Awaited::Answer) => Keep,
        (_, Awaited::Head) => refuse(connection, core, &RefusalKind::HeadTimeout.into()),
        (_, Awaited::Body) => refuse(connection, core, &RefusalKind::BodyTimeout.into()),
        (_, Awaited::Room) => {
            // A peer that takes nothing has had its time. A plain close would leave the kernel with
            // what is unsent, for minutes; a reset frees it, and reaches a peer whose window is shut.
            reset_at_close(std::os::fd::AsFd::as_fd(&*connection.socket));
            Close
        }
        (_, Awaited::Request | Awaited::End) => Close,
    }
}
