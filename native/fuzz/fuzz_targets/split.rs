//! Invariant: a connection's outcome does not depend on how its bytes are cut.
//!
//! The first byte chooses leniency, the second how tight the limits are, the third the first cut.
#![no_main]

#[path = "../../wire/tests/exchange/mod.rs"]
mod exchange;

use bicorn_wire::{Leniency, Limits, Rules};
use exchange::exchange;
use libfuzzer_sys::fuzz_target;

fn rules_of(flags: u8, tightness: u8) -> Rules {
    let leniency = Leniency {
        obsolete_folding: flags & 1 != 0,
        header_spaces: flags & 2 != 0,
        unconventional_method: flags & 4 != 0,
        unconventional_version: flags & 8 != 0,
        casefold_method: flags & 16 != 0,
    };
    let size = usize::from(tightness);
    let limits = Limits {
        request_line_bytes: size,
        field_bytes: size / 2,
        fields: size / 16,
        head_bytes: size * 2,
        body_bytes: u64::from(tightness / 4),
        chunk_extension_bytes: size / 8,
        trailer_bytes: size / 2,
        trailer_fields: size / 32,
    };
    Rules {
        limits: if tightness == 0 {
            Limits::default()
        } else {
            limits
        },
        leniency,
    }
}

fuzz_target!(|input: &[u8]| {
    let [flags, tightness, cut, bytes @ ..] = input else {
        return;
    };
    let rules = rules_of(*flags, *tightness);
    let whole = exchange([bytes], &rules);
    let (left, right) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(exchange([left, right], &rules), whole);
    assert_eq!(exchange(bytes.chunks(1), &rules), whole);
});
