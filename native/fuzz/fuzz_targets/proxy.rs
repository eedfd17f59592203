//! Invariant: a PROXY header is decided at the first byte that forces it, and no later byte changes that.
//!
//! The first byte chooses the versions and how long a binary header may be; without a signature of its
//! own, the rest is read behind each of both.
#![no_main]

use bicorn_wire::{ProxyRules, ProxyStep, parse_proxy_header};
use libfuzzer_sys::fuzz_target;

fn check(bytes: &[u8], rules: &ProxyRules) {
    let whole = parse_proxy_header(bytes, rules);
    for end in 0..bytes.len() {
        match parse_proxy_header(&bytes[..end], rules) {
            Ok(ProxyStep::Partial) => {}
            decided => {
                assert_eq!(decided, whole);
                break;
            }
        }
    }
    if let Ok(ProxyStep::Present { len, .. }) = whole {
        assert!(len <= bytes.len() && len <= rules.header_bytes.max(107));
    }
}

fuzz_target!(|input: &[u8]| {
    let [flags, bytes @ ..] = input else {
        return;
    };
    let rules = ProxyRules {
        v1: flags & 1 == 0,
        v2: flags & 2 == 0,
        header_bytes: usize::from(flags / 4) * 16,
    };
    check(bytes, &rules);
    check(&[b"PROXY ", bytes].concat(), &rules);
    check(&[b"\r\n\r\n\0\r\nQUIT\n", bytes].concat(), &rules);
});
