//! What a peer did wrong after the handshake, and the close code that says so.

use std::fmt;

/// Why a connection fails (RFC 6455 7.1.7): a Close with the code goes out, nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The close code that the peer should see.
    pub code: u16,
    /// Which rule was broken.
    pub kind: ViolationKind,
}

impl From<ViolationKind> for Violation {
    fn from(kind: ViolationKind) -> Self {
        Self { code: kind.code(), kind }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.text(), self.kind.section())
    }
}

impl std::error::Error for Violation {}

/// Writes the enum and its properties from one list, so that no rule can lack one of them.
macro_rules! violation_kinds {
    ($($name:ident, $code:literal, $section:literal, $text:literal;)*) => {
        /// One variant a rule: its documentation is the log's text and the section it comes from.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ViolationKind {
            $(#[doc = concat!($text, " (", $section, ").")] $name,)*
        }

        impl ViolationKind {
            /// Every rule there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The close code of RFC 6455 7.4.1.
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// Where the rule comes from.
            pub const fn section(self) -> &'static str {
                match self { $(Self::$name => $section,)* }
            }

            /// What was wrong, in words for the log and the close reason.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

violation_kinds! {
    ReservedBit, 1002, "RFC 6455 5.2", "a reserved bit is set that no extension defines here";
    ReservedOpcode, 1002, "RFC 6455 5.2", "a reserved opcode";
    FragmentedControl, 1002, "RFC 6455 5.4", "a control frame is fragmented";
    ControlTooLong, 1002, "RFC 6455 5.5", "a control frame has more than 125 bytes";
    NothingToContinue, 1002, "RFC 6455 5.4", "a continuation frame outside a message";
    MessageInterrupted, 1002, "RFC 6455 5.4", "a message begins before the last one has ended";
    NotMasked, 1002, "RFC 6455 5.1", "a frame from the client is not masked";
    LengthNotMinimal, 1002, "RFC 6455 5.2", "the length is not encoded in the fewest bytes";
    LengthTooLarge, 1002, "RFC 6455 5.2", "the most significant bit of the length is set";
    TruncatedCloseCode, 1002, "RFC 6455 5.5.1", "a close frame with half a code";
    InvalidCloseCode, 1002, "RFC 6455 7.4", "a close code that must not be sent";
    InvalidCloseReason, 1007, "RFC 6455 5.5.1", "the close reason is not UTF-8";
    InvalidText, 1007, "RFC 6455 8.1", "a text message is not UTF-8";
    InvalidCompression, 1007, "RFC 7692 7.2.2", "a compressed message cannot be decompressed";
    MessageTooBig, 1009, "RFC 6455 7.4.1", "the message is larger than websocket_max_message_size";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::close::is_sendable;

    #[test]
    fn each_violation_has_a_code_that_may_be_sent_and_a_reason_that_fits() {
        for kind in ViolationKind::ALL {
            assert!(is_sendable(kind.code()), "{kind:?}");
            assert!(kind.text().len() <= crate::websocket::CLOSE_REASON_BYTES_MAX, "{kind:?}");
            assert!(kind.section().starts_with("RFC "), "{kind:?}");
        }
    }

    #[test]
    fn a_violation_says_what_was_wrong_and_where_that_is_written() {
        let violation = Violation::from(ViolationKind::NotMasked);
        assert_eq!(violation.code, 1002);
        assert_eq!(violation.to_string(), "a frame from the client is not masked (RFC 6455 5.1)");
    }
}
