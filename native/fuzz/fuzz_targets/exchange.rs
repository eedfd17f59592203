//! Invariant: a whole connection, pipelined requests with their bodies, never panics; and each
//! request that reaches the application, written again in plain form, is read as the same request.
#![no_main]

#[path = "../../wire/tests/exchange/mod.rs"]
mod exchange;

use bicorn_wire::Rules;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let rules = Rules::default();
    for request in exchange::exchange([bytes], &rules).requests {
        let again = exchange::exchange([&request.to_bytes()[..]], &rules);
        assert_eq!(again.requests, [request]);
    }
});
