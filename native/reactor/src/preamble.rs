//! What may stand before the first request of a connection: a PROXY header.
//!
//! Owns       the bytes of it that have come, until it is whole or turns out to be none.
//! Never      believes it by itself: the application says whether this peer may send one.
//! Invariant  what is held is shorter than the longest header that is allowed, plus one read.

use bicorn_wire::{ProxyStep, RefusalKind, parse_proxy_header};

use crate::application::Application;
use crate::connection::{Connection, Stage};
use crate::core::{Core, Verdict};
use crate::exchange::{Step, take_in};
use crate::respond::refuse;

/// More bytes of a connection that has not begun its first request.
pub(crate) fn go_on<A: Application>(
    connection: &mut Connection<A>,
    core: &mut Core<A>,
    input: &[u8],
) -> Step {
    let Stage::Preamble(mut held) = std::mem::replace(&mut connection.stage, Stage::Idle) else {
        unreachable!("called for a connection whose preamble is read");
    };
    let rules = core.proxy.expect("only with rules for it a preamble is read");
    let before = held.len();
    let bytes = if before == 0 {
        input
    } else {
        held.extend_from_slice(input);
        &held
    };
    match parse_proxy_header(bytes, &rules) {
        Ok(ProxyStep::Partial) => {
            if before == 0 {
                held.extend_from_slice(input);
            }
            connection.stage = Stage::Preamble(held);
            Ok(input.len())
        }
        Ok(ProxyStep::Absent) if before == 0 => Ok(0),
        Ok(ProxyStep::Absent) => match take_in(connection, core, &held) {
            Verdict::Keep => Ok(input.len()),
            Verdict::Close => Err(Verdict::Close),
        },
        Ok(ProxyStep::Present { origin, len }) => {
            let peer = connection.peer.as_mut().expect("no job is out");
            if core.app.relays(peer, origin) {
                Ok(len - before)
            } else {
                Err(refuse(connection, core, &RefusalKind::ForbiddenProxy.into()))
            }
        }
        Err(refusal) => Err(refuse(connection, core, &refusal)),
    }
}
