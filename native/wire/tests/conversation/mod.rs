//! What a client's bytes come to after a handshake, as one comparable value; shared by the property
//! tests and the fuzz targets.

use bicorn_wire::websocket::{Deflate, DeflatePolicy, Event, Handshake, Reader, Violation};
use bicorn_wire::{Head, HeadParser, Progress, Rules};

/// Messages and control frames in the order they came, each with its payload, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    pub events: Vec<(Event, Vec<u8>)>,
    pub violation: Option<Violation>,
}

/// Feeds the pieces one after another, as reads from a socket would.
pub fn converse<'bytes>(
    pieces: impl IntoIterator<Item = &'bytes [u8]>,
    message_bytes_max: u64,
    deflate: Option<&Deflate>,
) -> Conversation {
    let mut reader = Reader::new(message_bytes_max, deflate);
    let mut conversation = Conversation::default();
    for mut piece in pieces {
        while !piece.is_empty() {
            let step = match reader.step(piece) {
                Ok(step) => step,
                Err(violation) => {
                    assert_eq!(reader.step(piece), Err(violation), "a violation is final");
                    conversation.violation = Some(violation);
                    return conversation;
                }
            };
            assert!(step.event != Event::NeedData || step.consumed == piece.len());
            piece = &piece[step.consumed..];
            let payload = match step.event {
                Event::NeedData => continue,
                Event::Text | Event::Binary => reader.message(),
                Event::Ping | Event::Pong | Event::Close(_) => reader.control(),
            };
            conversation.events.push((step.event, payload.to_vec()));
            reader.release_message();
        }
    }
    conversation
}

/// What is agreed to when a client offers this.
pub fn negotiated(offer: &str, policy: DeflatePolicy) -> Option<Deflate> {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: {offer}\r\n\r\n"
    );
    let mut head = Head::default();
    let parsed = HeadParser::new().parse(request.as_bytes(), &Rules::default(), &mut head);
    assert_eq!(parsed, Ok(Progress::Complete));
    Handshake::read(&head, request.as_bytes(), Some(policy)).expect("a handshake").deflate
}
