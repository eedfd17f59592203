//! What a request may be: how large, and where it may be sloppy.

/// The most of everything that is accepted from a client.
///
/// Zero means "no bound of its own" for `request_line_bytes`, `field_bytes` and `body_bytes`, as it
/// does in the settings they come from. `head_bytes` always holds, so a head is bounded whatever
/// the others say. All other numbers are taken literally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the request line without its CRLF; beyond it 414.
    pub request_line_bytes: usize,
    /// Bytes of one field line, name to CRLF, all its folded lines included; beyond it 431.
    pub field_bytes: usize,
    /// Field lines of a head; one more is 431.
    pub fields: usize,
    /// Bytes of the whole head, skipped empty lines and the final CRLF included; beyond it 431.
    pub head_bytes: usize,
    /// Bytes of a body, without its chunked framing; beyond it 413.
    pub body_bytes: u64,
    /// Bytes between the size of one chunk and its CRLF; beyond it 400.
    pub chunk_extension_bytes: usize,
    /// Bytes of all trailer lines with their CRLFs; beyond it 431.
    pub trailer_bytes: usize,
    /// Trailer lines; one more is 431.
    pub trailer_fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_line_bytes: 4094,   // Gunicorn 4094, Apache 8190, nginx 8 KiB.
            field_bytes: 8190,          // Gunicorn and Apache 8190, nginx 8 KiB.
            fields: 100,                // Gunicorn and Apache 100.
            head_bytes: 128 * 1024,     // Node 16 KiB, nginx 32 KiB, Go 1 MiB.
            body_bytes: 0,              // Gunicorn none, nginx 1 MiB: only the application knows.
            chunk_extension_bytes: 256, // Signed uploads to object stores use 81.
            trailer_bytes: 8190,        // One field's worth: trailers carry a checksum or two.
            trailer_fields: 100,        // As many as a head.
        }
    }
}

/// Departures from RFC 9112 that an operator asked for; all off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// A field value may go on in the next line if that starts with a space (RFC 9112 5.2).
    pub obsolete_folding: bool,
    /// Spaces between a field's name and its colon are dropped (RFC 9112 5.1 forbids them).
    pub header_spaces: bool,
    /// A method may be any token: lowercase, with `#`, shorter than 3 or longer than 20 bytes.
    pub unconventional_method: bool,
    /// Any `HTTP/d.d` is served; it speaks 1.1 if it says so or more, 1.0 if less.
    pub unconventional_version: bool,
    /// Methods are compared, and to be handed on, in upper case. As in Gunicorn this alone lets no
    /// lowercase method in: that takes `unconventional_method` too.
    pub casefold_method: bool,
}

/// Everything about a request that an operator can choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How large.
    pub limits: Limits,
    /// How sloppy.
    pub leniency: Leniency,
}
