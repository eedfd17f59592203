//! Which byte may stand where: RFC 9110 and RFC 3986 as one table, and scans over it.

/// `tchar` of RFC 9110 5.6.2.
pub(crate) const TOKEN: u8 = 1;
/// A byte of a request target that is neither `?` nor `#`. RFC 3986 2 allows fewer (it wants
/// `" < > \ ^ { | }` and the backtick percent-encoded), but browsers send them bare and all servers
/// take them; none of them ends a target or a line, so nobody can frame them differently.
pub(crate) const TARGET: u8 = 2;
/// `unreserved / sub-delims` of RFC 3986 2: what a registered name is made of, but for `%`.
pub(crate) const REG_NAME: u8 = 4;
/// `HEXDIG`, either case.
pub(crate) const HEX: u8 = 8;
/// A byte that may stand in a field value or a reason phrase: all but the controls, HTAB excepted.
pub(crate) const TEXT: u8 = 16;
/// `SP / HTAB`, the white space that RFC 9110 5.6.3 calls optional.
pub(crate) const OWS: u8 = 32;
/// A byte of a method by convention: a token without lowercase letters and `#`, as Gunicorn has it.
pub(crate) const CONVENTIONAL: u8 = 64;

const fn classes_of(byte: u8) -> u8 {
    let mut classes = 0;
    if byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
    {
        classes |= TOKEN;
        if !byte.is_ascii_lowercase() && byte != b'#' {
            classes |= CONVENTIONAL;
        }
    }
    if byte.is_ascii_graphic() && byte != b'?' && byte != b'#' {
        classes |= TARGET;
    }
    if byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
    {
        classes |= REG_NAME;
    }
    if byte.is_ascii_hexdigit() {
        classes |= HEX;
    }
    if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
        classes |= TEXT;
    }
    if byte == b'\t' || byte == b' ' {
        classes |= OWS;
    }
    classes
}

static CLASSES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = classes_of(byte as u8);
        byte += 1;
    }
    table
};

/// Is `byte` in (one of) the classes?
#[inline(always)]
pub(crate) fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// Length of the longest prefix whose bytes are all in the class.
#[inline(always)]
pub(crate) fn span_of(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|&byte| !is(byte, class)).unwrap_or(bytes.len())
}

/// Are all bytes in the class? True of nothing.
#[inline]
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    span_of(bytes, class) == bytes.len()
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// High bits set in the bytes of `word` that are controls: below 0x20, or DEL. Exact for the lowest
/// such byte; the subtraction's borrow may add others above it.
#[inline(always)]
fn controls_in(word: u64) -> u64 {
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let against_del = word ^ (ONES * 0x7f);
    let is_del = against_del.wrapping_sub(ONES) & !against_del;
    (below_space | is_del) & HIGHS
}

/// Position at or after `from` of the first byte that is no text: a control other than HTAB. The
/// length of the buffer if there is none. CR is such a byte, so one scan both finds the end of a
/// line and proves it free of NUL and its like.
#[inline]
pub(crate) fn find_control(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = buf.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let controls = controls_in(u64::from_le_bytes(*word));
        if controls == 0 {
            at += 8;
            continue;
        }
        at += controls.trailing_zeros() as usize / 8;
        if buf[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    let rest = buf.get(at..).unwrap_or_default();
    at + span_of(rest, TEXT)
}

/// The bytes without the spaces and tabs around them.
#[inline]
pub(crate) fn trim_ows(bytes: &[u8]) -> &[u8] {
    let start = span_of(bytes, OWS);
    let end = bytes.iter().rposition(|&byte| !is(byte, OWS)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Is it a token (RFC 9110 5.6.2), as methods and field names are?
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// May it be sent as a field value: no CR, LF, NUL or other control but HTAB? Bytes from 0x80 up
/// are `obs-text` and pass.
pub fn is_field_value(bytes: &[u8]) -> bool {
    find_control(bytes, 0) == bytes.len()
}

/// May it be sent as a reason phrase (RFC 9112 4)? The same bytes as a field value.
pub fn is_reason(bytes: &[u8]) -> bool {
    is_field_value(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_by_words_finds_what_the_table_says() {
        for byte in 0..=255_u8 {
            for len in 1..20 {
                for at in 0..len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    let expected = if is(byte, TEXT) { len } else { at };
                    assert_eq!(find_control(&bytes, 0), expected, "byte {byte:#x} at {at} of {len}");
                    assert_eq!(find_control(&bytes, at), expected);
                }
            }
        }
    }

    #[test]
    fn the_scan_is_not_fooled_by_neighbours() {
        // 0x80, 0x9f, 0xff and 0x20 are the values whose borrow or high bit could leak into a neighbour.
        for pair in [b"\x80\x1f", b"\xff\x00", b"\x20\x7f", b"\x9f\x0a", b"\t\x0d", b"\x7e\x7f"] {
            let bytes = [&pair[..1], &pair[..1], &pair[..1], &pair[1..], b"aaaaaaaaaaa"].concat();
            assert_eq!(find_control(&bytes, 0), 3, "{pair:?}");
        }
        assert_eq!(find_control(b"\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\0", 0), 16);
    }

    #[test]
    fn tokens_are_what_rfc_9110_says() {
        assert!(is_token(b"GET"));
        assert!(is_token(b"!#$%&'*+-.^_`|~09AZaz"));
        for byte in b"\"(),/:;<=>?@[\\]{} \t\r\n\0\x7f\x80\xff" {
            assert!(!is_token(&[*byte]), "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn field_values_hold_no_controls_but_tab() {
        assert!(is_field_value(b""));
        assert!(is_field_value(b"a\tb \xe9\xff"));
        for bad in [&b"a\rb"[..], b"a\nb", b"\0", b"\x7f", b"long enough for a word\x01"] {
            assert!(!is_field_value(bad), "{bad:?}");
            assert!(!is_reason(bad));
        }
    }

    #[test]
    fn trimming_takes_spaces_and_tabs_only() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b" \t "), b"");
        assert_eq!(trim_ows(b""), b"");
        assert_eq!(trim_ows(b"\x0ba"), b"\x0ba");
    }
}
