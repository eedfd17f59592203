//! Invariant: a body decoder consumes each byte once, gives out only bytes of its input, ends at
//! most once, never exceeds its limits, and repeats a refusal for ever.
//!
//! The first two bytes choose the framing and the size of the pieces.
#![no_main]

use bicorn_wire::{BodyDecoder, BodyStep, Framing, Limits, is_field_value, is_token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [choice, piece_len, bytes @ ..] = input else {
        return;
    };
    let limits = Limits {
        body_bytes: 64,
        trailer_bytes: 128,
        trailer_fields: 4,
        ..Limits::default()
    };
    let framing = match choice {
        0..=7 => Framing::Length(u64::from(*choice) * 12),
        _ => Framing::Chunked,
    };
    let Ok(mut decoder) = BodyDecoder::new(framing, &limits) else {
        return;
    };
    let mut data_len = 0;
    for mut piece in bytes.chunks(usize::from(*piece_len).max(1)) {
        while !piece.is_empty() {
            let consumed = match decoder.step(piece) {
                Err(refusal) => {
                    assert_eq!(decoder.step(bytes), Err(refusal));
                    assert!(!decoder.is_finished());
                    return;
                }
                Ok(BodyStep::Data { start, end }) => {
                    assert!(start < end);
                    data_len += end - start;
                    end
                }
                Ok(BodyStep::NeedData { consumed }) => {
                    assert_eq!(consumed, piece.len());
                    consumed
                }
                Ok(BodyStep::End { .. }) => {
                    assert!(decoder.is_finished());
                    assert_eq!(decoder.step(bytes), Ok(BodyStep::End { consumed: 0 }));
                    return;
                }
            };
            piece = &piece[consumed..];
            assert!(data_len <= 64);
            assert!(decoder.trailers().len() <= 4);
            let trailer_len: usize = decoder
                .trailers()
                .iter()
                .map(|(name, value)| name.len() + value.len() + 3)
                .sum();
            assert!(trailer_len <= 128);
            assert!(
                decoder
                    .trailers()
                    .iter()
                    .all(|(name, value)| is_token(name) && is_field_value(value))
            );
        }
    }
});
