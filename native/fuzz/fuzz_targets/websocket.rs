//! Invariant: what a client's frames come to does not depend on how its bytes are cut, and no
//! message exceeds its limit, compressed or not.
//!
//! The first byte chooses compression, the second the limit, the third the first cut.
#![no_main]

#[path = "../../wire/tests/conversation/mod.rs"]
mod conversation;

use bicorn_wire::websocket::{DeflatePolicy, Event};
use conversation::{converse, negotiated};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [compression, limit, cut, bytes @ ..] = input else {
        return;
    };
    let offer = ["permessage-deflate", "permessage-deflate; client_max_window_bits=9"];
    let deflate = match compression % 5 {
        0 => None,
        1..=2 => negotiated(offer[usize::from(compression % 5 - 1)], DeflatePolicy::Message),
        _ => negotiated(offer[usize::from(compression % 5 - 3)], DeflatePolicy::Connection),
    };
    let limit = u64::from(*limit) * 16;
    let whole = converse([bytes], limit, deflate.as_ref());
    for (event, payload) in &whole.events {
        match event {
            Event::Text | Event::Binary => assert!(limit == 0 || payload.len() as u64 <= limit),
            _ => assert!(payload.len() <= 125),
        }
        assert!(*event != Event::Text || std::str::from_utf8(payload).is_ok());
    }
    let (left, right) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(converse([left, right], limit, deflate.as_ref()), whole);
    assert_eq!(converse(bytes.chunks(1), limit, deflate.as_ref()), whole);
});
