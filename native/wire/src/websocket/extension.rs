//! Sec-WebSocket-Extensions (RFC 6455 9.1), and what of permessage-deflate is agreed to (RFC 7692 7.1).

use crate::grammar::{OWS, TOKEN, is, span_of};

/// The largest window there is, and the one that is meant where no parameter says otherwise.
const WINDOW_BITS_MAX: u8 = 15;
/// The smallest window of the protocol. The deflate of zlib starts at 9 (for a raw stream), so it is
/// enough for what a client sends and not for what the server is asked to send.
const WINDOW_BITS_MIN: u8 = 8;
const SERVER_WINDOW_BITS_MIN: u8 = 9;

/// What the server is willing to keep for compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeflatePolicy {
    /// Each message is compressed for itself, in both directions: a connection that is silent keeps
    /// nothing, and a thousand of them cost a thousand times nothing.
    Message,
    /// Messages refer to earlier ones, where the client wants that too: smaller, and each connection
    /// keeps some 350 KiB.
    Connection,
}

/// permessage-deflate as agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The server may refer to its earlier messages.
    pub server_takeover: bool,
    /// The client may.
    pub client_takeover: bool,
    /// The server's window: 9 to 15 bits.
    pub server_window_bits: u8,
    /// The client's window: 8 to 15 bits.
    pub client_window_bits: u8,
    /// The client asked for a bound on the server's window, and is owed an answer to that.
    answers_server_bits: bool,
}

impl Deflate {
    /// Appends the value of the Sec-WebSocket-Extensions that answers the client.
    pub fn push_value(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"permessage-deflate");
        if !self.server_takeover {
            out.extend_from_slice(b"; server_no_context_takeover");
        }
        if !self.client_takeover {
            out.extend_from_slice(b"; client_no_context_takeover");
        }
        let mut digits = itoa::Buffer::new();
        if self.answers_server_bits {
            out.extend_from_slice(b"; server_max_window_bits=");
            out.extend_from_slice(digits.format(self.server_window_bits).as_bytes());
        }
        // It may stand only where the client has offered it (7.1.2.2); then it has.
        if self.client_window_bits < WINDOW_BITS_MAX {
            out.extend_from_slice(b"; client_max_window_bits=");
            out.extend_from_slice(digits.format(self.client_window_bits).as_bytes());
        }
    }
}

/// One element of the list, read as an offer of permessage-deflate.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Present without a value: the client understands the parameter.
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// Takes a parameter in; false for one that is unknown, stands twice or has a wrong value,
    /// which makes the whole offer one to decline (7.1).
    fn accept(&mut self, name: &[u8], value: Option<&[u8]>) -> bool {
        match (name, value) {
            (b"server_no_context_takeover", None) => {
                !std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            (b"client_no_context_takeover", None) => {
                !std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            (b"server_max_window_bits", Some(value)) => parse_window_bits(value)
                .is_some_and(|bits| self.server_max_window_bits.replace(bits).is_none()),
            (b"client_max_window_bits", None) => self.client_max_window_bits.replace(None).is_none(),
            (b"client_max_window_bits", Some(value)) => parse_window_bits(value)
                .is_some_and(|bits| self.client_max_window_bits.replace(Some(bits)).is_none()),
            _ => false,
        }
    }

    fn agree(&self, policy: DeflatePolicy) -> Option<Deflate> {
        let server_window_bits = self.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX);
        if server_window_bits < SERVER_WINDOW_BITS_MIN {
            return None;
        }
        let keeps = policy == DeflatePolicy::Connection;
        Some(Deflate {
            server_takeover: keeps && !self.server_no_context_takeover,
            client_takeover: keeps && !self.client_no_context_takeover,
            server_window_bits,
            client_window_bits: self.client_max_window_bits.flatten().unwrap_or(WINDOW_BITS_MAX),
            answers_server_bits: self.server_max_window_bits.is_some(),
        })
    }
}

/// Decimal without leading zeros (7.1.2).
fn parse_window_bits(value: &[u8]) -> Option<u8> {
    let bits = match value {
        [digit @ b'8'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'5'] => 10 + digit - b'0',
        _ => return None,
    };
    debug_assert!((WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits));
    Some(bits)
}

/// Goes through the value of one field and agrees to its first acceptable offer. `Err` if the value
/// is not a list of extensions: then the handshake fails (RFC 6455 9.1).
pub(crate) fn negotiate(value: &[u8], policy: Option<DeflatePolicy>) -> Result<Option<Deflate>, Malformed> {
    let mut scanner = Scanner { value, at: 0 };
    let mut agreed = None;
    loop {
        scanner.skip_white_space();
        if scanner.is_at_end() {
            return Ok(agreed);
        }
        if scanner.skip(b',') {
            continue; // An empty element of a list means nothing (RFC 9110 5.6.1.2).
        }
        let offer = scanner.read_extension()?;
        if let (None, Some(offer), Some(policy)) = (agreed, offer, policy) {
            agreed = offer.agree(policy);
        }
        if !scanner.is_at_end() && !scanner.skip(b',') {
            return Err(Malformed);
        }
    }
}

/// The value does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

struct Scanner<'value> {
    value: &'value [u8],
    at: usize,
}

impl<'value> Scanner<'value> {
    fn is_at_end(&self) -> bool {
        self.at == self.value.len()
    }

    fn skip_white_space(&mut self) {
        self.at += span_of(&self.value[self.at..], OWS);
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is_there = self.value.get(self.at) == Some(&byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn read_token(&mut self) -> Result<&'value [u8], Malformed> {
        let len = span_of(&self.value[self.at..], TOKEN);
        let token = &self.value[self.at..self.at + len];
        self.at += len;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A name with its parameters; `None` if it is nothing that can be agreed to.
    fn read_extension(&mut self) -> Result<Option<Offer>, Malformed> {
        let mut offer = Offer::default();
        let mut is_acceptable = self.read_token()?.eq_ignore_ascii_case(b"permessage-deflate");
        self.skip_white_space();
        while self.skip(b';') {
            self.skip_white_space();
            let name = self.read_token()?;
            self.skip_white_space();
            let value = if self.skip(b'=') { Some(self.read_value()?) } else { None };
            self.skip_white_space();
            is_acceptable &= offer.accept(name, value.as_deref());
        }
        Ok(is_acceptable.then_some(offer))
    }

    /// A token, or a quoted string that is one when it is unquoted (RFC 6455 9.1).
    fn read_value(&mut self) -> Result<Vec<u8>, Malformed> {
        self.skip_white_space();
        if !self.skip(b'"') {
            return self.read_token().map(<[u8]>::to_vec);
        }
        let mut token = Vec::new();
        loop {
            let escaped = self.skip(b'\\');
            let byte = *self.value.get(self.at).ok_or(Malformed)?;
            self.at += 1;
            match byte {
                b'"' if !escaped && !token.is_empty() => return Ok(token),
                _ if is(byte, TOKEN) => token.push(byte),
                _ => return Err(Malformed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: &str, policy: DeflatePolicy) -> Option<String> {
        let agreed = negotiate(value.as_bytes(), Some(policy)).expect("a list of extensions")?;
        let mut out = Vec::new();
        agreed.push_value(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_parameter_gets_its_answer() {
        for (offer, expected) in [
            ("permessage-deflate", Some("")),
            ("PerMessage-Deflate", Some("")),
            ("permessage-deflate; client_max_window_bits", Some("")),
            ("permessage-deflate; client_max_window_bits=15", Some("")),
            ("permessage-deflate; client_max_window_bits=8", Some("; client_max_window_bits=8")),
            ("permessage-deflate; client_max_window_bits=\"10\"", Some("; client_max_window_bits=10")),
            ("permessage-deflate; server_max_window_bits=15", Some("; server_max_window_bits=15")),
            ("permessage-deflate;server_max_window_bits=9", Some("; server_max_window_bits=9")),
            ("permessage-deflate; server_no_context_takeover", Some("; server_no_context_takeover")),
            ("permessage-deflate; client_no_context_takeover", Some("; client_no_context_takeover")),
            // What the server cannot do: a window of 256 bytes in a raw stream of zlib.
            ("permessage-deflate; server_max_window_bits=8", None),
        ] {
            let expected = expected.map(|parameters| format!("permessage-deflate{parameters}"));
            assert_eq!(answer(offer, DeflatePolicy::Connection), expected, "{offer}");
        }
    }

    #[test]
    fn where_nothing_is_kept_between_messages_both_sides_are_told() {
        let expected = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for offer in ["permessage-deflate; client_max_window_bits", expected] {
            assert_eq!(answer(offer, DeflatePolicy::Message).as_deref(), Some(expected));
        }
    }

    #[test]
    fn an_offer_with_anything_odd_is_declined_and_the_next_one_taken() {
        for odd in [
            "foo",
            "permessage-deflate; foo",
            "permessage-deflate; foo=1",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; client_max_window_bits=x",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
        ] {
            assert_eq!(answer(odd, DeflatePolicy::Connection), None, "{odd}");
            let both = format!("{odd}, permessage-deflate");
            assert_eq!(answer(&both, DeflatePolicy::Connection).as_deref(), Some("permessage-deflate"));
        }
    }

    #[test]
    fn the_first_acceptable_offer_is_the_one() {
        let value = "permessage-deflate; server_max_window_bits=10, permessage-deflate";
        let expected = "permessage-deflate; server_max_window_bits=10";
        assert_eq!(answer(value, DeflatePolicy::Connection).as_deref(), Some(expected));
        assert_eq!(negotiate(value.as_bytes(), None), Ok(None));
    }

    #[test]
    fn what_is_no_list_of_extensions_fails_the_handshake() {
        for value in [
            "a b",
            ";",
            "a;",
            "a; =1",
            "a; b=",
            "a; b=\"",
            "a; b=\"\"",
            "a; b=\"c d\"",
            "a; b=\"\\",
            "a, (",
            "a;;b",
        ] {
            assert_eq!(negotiate(value.as_bytes(), Some(DeflatePolicy::Message)), Err(Malformed), "{value}");
        }
        for value in ["", " ", ",", "a,,b", ", a ,", "a ; b = \"\\c\" , d"] {
            assert_eq!(negotiate(value.as_bytes(), Some(DeflatePolicy::Message)), Ok(None), "{value}");
        }
    }
}
