//! HTTP/1.1, the PROXY header before it and WebSocket after it, as values: bytes in; heads, body slices and refusals out.
//!
//! Owns       every decision about what the bytes of a request mean, and whether they mean anything.
//! Never      touches a socket, a clock, a thread, a log or Python; holds no bytes of a message
//!            but the trailers.
//! Invariant  fed at any split, the same bytes give the same heads, the same data and the same
//!            refusal: each decision is taken at the first byte that forces it, and looks at no
//!            byte after that one.
#![forbid(unsafe_code)]

mod body;
mod field;
mod grammar;
mod head;
mod limits;
mod line;
mod notable;
mod parser;
mod proxy;
mod refusal;
mod request_line;
mod response;
mod span;
mod target;
pub mod websocket;

pub use body::{BodyDecoder, BodyStep};
pub use field::{Field, parse_content_length, unfold};
pub use grammar::{is_field_value, is_reason, is_token};
pub use head::{Framing, Head, Version};

pub use limits::{Leniency, Limits, Rules};
pub use parser::{HeadParser, Progress};
pub use proxy::{Origin, ProxyRules, ProxyStep, parse_proxy_header};
pub use refusal::{Refusal, RefusalKind};
pub use response::{
    LAST_CHUNK, ResponseFraming, is_hop_by_hop, may_say_length, push_chunk_head, push_refusal, reason_phrase,
    response_framing,
};
pub use span::Span;
pub use target::TargetForm;
