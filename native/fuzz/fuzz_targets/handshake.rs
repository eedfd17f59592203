//! Invariant: a head that asks for a WebSocket is refused, or its answer is made of tokens and of
//! parameters that were negotiated; no value of its fields panics.
#![no_main]

use bicorn_wire::websocket::{DeflatePolicy, Handshake, is_websocket};
use bicorn_wire::{Head, HeadParser, Progress, Rules, is_field_value, is_token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|fields: &[u8]| {
    let start = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\n";
    let request = [start, fields, b"\r\n\r\n"].concat();
    let mut head = Head::default();
    let parsed = HeadParser::new().parse(&request, &Rules::default(), &mut head);
    if parsed != Ok(Progress::Complete) || !is_websocket(&head, &request) {
        return;
    }
    let Ok(handshake) = Handshake::read(&head, &request, Some(DeflatePolicy::Connection)) else {
        return;
    };
    assert!(is_field_value(&handshake.accept));
    assert!(handshake.subprotocols.iter().all(|name| is_token(name.as_bytes())));
    if let Some(deflate) = handshake.deflate {
        assert!((9..=15).contains(&deflate.server_window_bits));
        assert!((8..=15).contains(&deflate.client_window_bits));
    }
});
