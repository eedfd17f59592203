//! What holds for all bytes after a handshake, shown on random ones.

mod conversation;

use bicorn_wire::websocket::{Deflate, DeflatePolicy, Deflater, Event, push_masked_frame};
use conversation::{Conversation, converse, negotiated};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Payloads near the rules: text, pieces of characters, close codes, deflate streams and bombs.
const PAYLOADS: [&[u8]; 14] = [
    b"",
    b"a",
    b"Hello",
    b"\xe2\x98\x83",
    b"\xe2\x98",
    b"\x83",
    b"\xff",
    b"\x03\xe8bye",
    b"\x03\xed",
    b"\x03",
    b"\xf2\x48\xcd\xc9\xc9\x07\x00",
    b"\xf2\x48\xcd",
    b"\x03\x00",
    &[b'x'; 126],
];

fn any_key() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![Just([0; 4]), any::<[u8; 4]>()]
}

fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let compressed = vec(select(&b"ab\0"[..]), 0..2_000).prop_map(|plain| {
        let mut out = Vec::new();
        Deflater::new(&agreed(DeflatePolicy::Message)).push(&plain, &mut out);
        out
    });
    prop_oneof![
        4 => select(&PAYLOADS[..]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..300),
        1 => compressed,
    ]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let usual = select(&[0x81, 0x82, 0x01, 0x02, 0x80, 0x00, 0x88, 0x89, 0x8a, 0xc1, 0xc2, 0x41, 0x42][..]);
    let first = prop_oneof![9 => usual, 1 => any::<u8>()];
    (first, any_key(), any_payload()).prop_map(|(first, key, payload)| {
        let mut out = Vec::new();
        push_masked_frame(&mut out, first, key, &payload);
        out
    })
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any_frame(), 0..8).prop_map(|frames| frames.concat()),
        1 => vec(any::<u8>(), 0..40),
    ]
}

fn agreed(policy: DeflatePolicy) -> Deflate {
    negotiated("permessage-deflate", policy).expect("an agreement")
}

fn any_deflate() -> impl Strategy<Value = Option<Deflate>> {
    select(&[None, Some(DeflatePolicy::Message), Some(DeflatePolicy::Connection)][..])
        .prop_map(|policy| policy.map(agreed))
}

fn any_limit() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..300_u64]
}

/// The bytes cut at these places, which may coincide: empty pieces are fine.
fn cut<'bytes>(bytes: &'bytes [u8], cuts: &[Index]) -> Vec<&'bytes [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

/// A message as a client sends it: compressed or not, in fragments, with a Ping after each.
fn push_message(
    out: &mut Vec<u8>,
    message: &[u8],
    deflater: Option<&mut Deflater>,
    cuts: &[Index],
    key: [u8; 4],
) {
    let mut compressed = Vec::new();
    let (payload, rsv1) = match deflater {
        Some(deflater) => {
            deflater.push(message, &mut compressed);
            (&compressed[..], 0x40)
        }
        None => (message, 0),
    };
    let pieces = cut(payload, cuts);
    for (at, piece) in pieces.iter().enumerate() {
        let opcode = if at == 0 { 0x02 | rsv1 } else { 0 };
        let fin = if at + 1 == pieces.len() { 0x80 } else { 0 };
        push_masked_frame(out, fin | opcode, key, piece);
        push_masked_frame(out, 0x89, key, b"");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_what_the_whole_gives(
        bytes in any_bytes(),
        limit in any_limit(),
        deflate in any_deflate(),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let whole = converse([&bytes[..]], limit, deflate.as_ref());
        prop_assert_eq!(&converse(cut(&bytes, &cuts), limit, deflate.as_ref()), &whole);
        prop_assert_eq!(&converse(bytes.chunks(1), limit, deflate.as_ref()), &whole);
    }

    #[test]
    fn more_bytes_never_take_back_what_was_read(
        bytes in any_bytes(),
        more in any_bytes(),
        limit in any_limit(),
        deflate in any_deflate(),
    ) {
        let before = converse([&bytes[..]], limit, deflate.as_ref());
        let after = converse([&[bytes, more].concat()[..]], limit, deflate.as_ref());
        prop_assert_eq!(&after.events[..before.events.len()], &before.events[..]);
        let is_closed = matches!(before.events.last(), Some((Event::Close(_), _)));
        if before.violation.is_some() || is_closed {
            prop_assert_eq!(after, before);
        }
    }

    #[test]
    fn what_is_given_out_keeps_the_rules(bytes in any_bytes(), limit in any_limit(), deflate in any_deflate()) {
        for (event, payload) in converse([&bytes[..]], limit, deflate.as_ref()).events {
            match event {
                Event::Text | Event::Binary => {
                    prop_assert!(limit == 0 || payload.len() as u64 <= limit);
                    prop_assert!(event == Event::Binary || std::str::from_utf8(&payload).is_ok());
                }
                _ => prop_assert!(payload.len() <= 125),
            }
        }
    }

    #[test]
    fn messages_survive_fragments_masks_and_compression(
        messages in vec((vec(select(&b"abc\xe2"[..]), 0..3_000), vec(any::<Index>(), 0..5), any::<bool>()), 0..5),
        policy in select(&[DeflatePolicy::Message, DeflatePolicy::Connection][..]),
        key in any_key(),
        step_len in 1..500_usize,
    ) {
        let deflate = agreed(policy);
        let mut deflater = Deflater::new(&deflate);
        let mut bytes = Vec::new();
        for (message, cuts, is_compressed) in &messages {
            push_message(&mut bytes, message, is_compressed.then_some(&mut deflater), cuts, key);
        }
        let Conversation { events, violation } = converse(bytes.chunks(step_len), 3_000, Some(&deflate));
        prop_assert_eq!(violation, None);
        let read: Vec<_> = events.into_iter().filter(|(event, _)| *event == Event::Binary).collect();
        let sent: Vec<_> = messages.into_iter().map(|(message, ..)| (Event::Binary, message)).collect();
        prop_assert_eq!(read, sent);
    }
}
