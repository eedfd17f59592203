//! How long a message takes to read and to compress: `cargo run --release --example websocket_speed`.
//!
//! Prints the best of many rounds, which on a shared machine is the number that moves least.

use std::hint::black_box;
use std::time::Instant;

use bicorn_wire::websocket::{DeflatePolicy, Deflater, Event, Handshake, Reader, Step, push_masked_frame};
use bicorn_wire::{Head, HeadParser, Rules};

const ROUNDS: usize = 100;
const MESSAGES_PER_ROUND: u32 = 200;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn best_ns(mut act: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..MESSAGES_PER_ROUND {
            act();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(MESSAGES_PER_ROUND));
    }
    best
}

fn main() {
    let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    let mut head = Head::default();
    HeadParser::new().parse(request, &Rules::default(), &mut head).expect("a head");
    let read = |policy| Handshake::read(&head, request, Some(policy)).expect("a handshake");
    println!("handshake {:>9.0} ns", best_ns(|| drop(black_box(read(DeflatePolicy::Message)))));

    let json = br#"{"id": 12345, "user": "someone", "text": "a line of a chat"} "#;
    for len in [64, 1024, 16 * 1024] {
        let message: Vec<u8> = json.iter().copied().cycle().take(len).collect();
        for (name, first) in [("text", 0x81), ("binary", 0x82)] {
            let mut frame = Vec::new();
            push_masked_frame(&mut frame, first, KEY, &message);
            let mut reader = Reader::new(0, None);
            let ns = best_ns(|| {
                let step = reader.step(black_box(&frame));
                assert!(matches!(step, Ok(Step { event: Event::Text | Event::Binary, .. })));
                black_box(reader.message());
                reader.release_message();
            });
            println!("read {len:5} {name:10} {ns:9.0} ns  {:5.2} ns/byte", ns / len as f64);
        }
        for policy in [DeflatePolicy::Message, DeflatePolicy::Connection] {
            let mut deflater = Deflater::new(&read(policy).deflate.expect("an agreement"));
            let mut out = Vec::new();
            let ns = best_ns(|| {
                out.clear();
                deflater.push(black_box(&message), &mut out);
            });
            println!("deflate {len:5} by {policy:?} {ns:9.0} ns, to {} bytes", out.len());
        }
    }
}
