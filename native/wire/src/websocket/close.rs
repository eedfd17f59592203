//! The closing handshake (RFC 6455 7): codes, the frame's payload, and who has said what.

use crate::websocket::frame::{CONTROL_BYTES_MAX, Opcode, push_frame};
use crate::websocket::violation::ViolationKind;

/// What of a control frame's payload the code leaves for the reason.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// The close codes that the server itself sends or reports (RFC 6455 7.4.1, IANA registry).
pub mod code {
    /// The purpose was fulfilled.
    pub const NORMAL: u16 = 1000;
    /// This end goes away: the server stops.
    pub const GOING_AWAY: u16 = 1001;
    /// A Close without a code came; never sent.
    pub const NONE_RECEIVED: u16 = 1005;
    /// The connection ended without a Close; never sent.
    pub const ABNORMAL: u16 = 1006;
    /// The server met a condition that it did not expect: the application failed.
    pub const INTERNAL_ERROR: u16 = 1011;
    /// The server restarts: come back after a while.
    pub const SERVICE_RESTART: u16 = 1012;
}

/// Whether the code may stand in a Close: defined by RFC 6455 7.4.1 or registered later (1012 to
/// 1014), or in the ranges that 7.4.2 leaves to libraries (3000) and applications (4000).
pub fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Code and reason of a Close that came. An empty payload is a Close without a code.
pub(crate) fn parse_close(payload: &[u8]) -> Result<(Option<u16>, &str), ViolationKind> {
    match payload {
        [] => Ok((None, "")),
        [_] => Err(ViolationKind::TruncatedCloseCode),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_sendable(code) {
                return Err(ViolationKind::InvalidCloseCode);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| ViolationKind::InvalidCloseReason)?;
            Ok((Some(code), reason))
        }
    }
}

/// Appends a Close. Without a code there is no reason either; a reason must fit
/// [`CLOSE_REASON_BYTES_MAX`].
pub fn push_close(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    let Some(code) = code else {
        return push_frame(out, Opcode::Close, false, b"");
    };
    debug_assert!(is_sendable(code) && reason.len() <= CLOSE_REASON_BYTES_MAX);
    let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    push_frame(out, Opcode::Close, false, &payload);
}

/// How far the closing handshake is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closing {
    /// Nobody has closed: messages go both ways.
    #[default]
    Open,
    /// Our Close is out; the peer's is awaited, and messages may come before it.
    Sent,
    /// The peer's Close came; ours is due, and nothing else may be sent.
    Received,
    /// Both are through: the server closes the TCP connection (7.1.1).
    Done,
}

impl Closing {
    /// After our Close went out.
    #[must_use]
    pub fn after_sending(self) -> Self {
        match self {
            Self::Open | Self::Sent => Self::Sent,
            Self::Received | Self::Done => Self::Done,
        }
    }

    /// After the peer's Close came in.
    #[must_use]
    pub fn after_receiving(self) -> Self {
        match self {
            Self::Open | Self::Received => Self::Received,
            Self::Sent | Self::Done => Self::Done,
        }
    }

    /// Whether a frame other than Close may be sent.
    pub fn may_send(self) -> bool {
        self == Self::Open
    }

    /// Whether our Close may be sent: once.
    pub fn may_close(self) -> bool {
        matches!(self, Self::Open | Self::Received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_are_reserved_or_undefined_are_not_sendable() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!is_sendable(code), "{code}");
        }
        for code in
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
        {
            assert!(is_sendable(code), "{code}");
        }
    }

    #[test]
    fn a_close_is_empty_or_has_a_code_and_a_reason() {
        assert_eq!(parse_close(b""), Ok((None, "")));
        assert_eq!(parse_close(b"\x03"), Err(ViolationKind::TruncatedCloseCode));
        assert_eq!(parse_close(b"\x03\xe8"), Ok((Some(1000), "")));
        assert_eq!(parse_close(b"\x03\xe8bye \xe2\x98\x83"), Ok((Some(1000), "bye \u{2603}")));
        assert_eq!(parse_close(b"\x03\xe8\xe2\x98"), Err(ViolationKind::InvalidCloseReason));
        assert_eq!(parse_close(b"\x03\xed"), Err(ViolationKind::InvalidCloseCode));
    }

    #[test]
    fn a_close_that_is_written_reads_as_it_was_meant() {
        for (close, reason, frame) in [
            (None, "", &b"\x88\x00"[..]),
            (Some(code::GOING_AWAY), "", b"\x88\x02\x03\xe9"),
            (Some(4999), "x", b"\x88\x03\x13\x87x"),
        ] {
            let mut out = Vec::new();
            push_close(&mut out, close, reason);
            assert_eq!(out, frame);
            assert_eq!(parse_close(&out[2..]), Ok((close, reason)));
        }
    }

    #[test]
    fn both_sides_have_to_say_it_in_either_order() {
        assert_eq!(Closing::Open.after_sending().after_receiving(), Closing::Done);
        assert_eq!(Closing::Open.after_receiving().after_sending(), Closing::Done);
        assert_eq!(Closing::Sent.after_sending(), Closing::Sent);
        assert_eq!(Closing::Received.after_receiving(), Closing::Received);
        assert!(Closing::Open.may_close() && Closing::Received.may_close());
        assert!(!Closing::Sent.may_close() && !Closing::Done.may_close());
        assert!(Closing::Open.may_send() && !Closing::Sent.may_send() && !Closing::Received.may_send());
    }
}
