//! How long a head takes to parse: `cargo run --release --example parse_speed`.
//!
//! Prints the best of many rounds for each head, which on a shared machine is the number that
//! moves least.

use std::hint::black_box;
use std::time::Instant;

use bicorn_wire::{Head, HeadParser, Progress, Rules};

const ROUNDS: usize = 200;
const PARSES_PER_ROUND: u32 = 2_000;

const WRK: &[u8] = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";

const CURL: &[u8] = b"GET /api/v1/items?page=2&size=50 HTTP/1.1\r\n\
Host: api.example.com\r\n\
User-Agent: curl/8.5.0\r\n\
Accept: */*\r\n\r\n";

const BROWSER: &[u8] = b"GET /articles/2024/05/how-we-measure?ref=home&utm_source=newsletter HTTP/1.1\r\n\
Host: www.example.com\r\n\
Connection: keep-alive\r\n\
sec-ch-ua: \"Chromium\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://www.example.com/articles/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=eyJ1c2VyIjoxMjM0NSwidCI6MTcxNTAwMDAwMH0.Zjk0cQ.m3Jx0rXk2bV9; theme=dark; consent=all\r\n\r\n";

fn nanoseconds_per_parse(request: &[u8]) -> f64 {
    let rules = Rules::default();
    let mut head = Head::default();
    let mut parser = HeadParser::new();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..PARSES_PER_ROUND {
            parser.reset();
            let progress = parser.parse(black_box(request), &rules, &mut head);
            assert_eq!(progress, Ok(Progress::Complete));
            black_box(&head);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(PARSES_PER_ROUND));
    }
    best
}

fn main() {
    for (name, request) in [("wrk", WRK), ("curl", CURL), ("browser", BROWSER)] {
        let fields = request.split(|&byte| byte == b'\n').count() - 3;
        let ns = nanoseconds_per_parse(request);
        println!(
            "{name:8} {:5} bytes {fields:3} fields  {ns:7.1} ns  {:5.2} ns/byte",
            request.len(),
            ns / request.len() as f64
        );
    }
}
