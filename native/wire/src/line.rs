//! Where a line ends, and that nothing in it could end it elsewhere.

use crate::grammar::find_control;
use crate::refusal::RefusalKind;

/// How far the content of a line may reach, and what it is called when it reaches further.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    /// The content ends at this position of the buffer at the latest; its CRLF may follow.
    pub end: usize,
    /// What a longer line is refused as.
    pub refusal: RefusalKind,
}

impl Bound {
    /// The nearer of two bounds; the first if they are equal.
    #[inline]
    pub fn or_nearer(self, other: Self) -> Self {
        if other.end < self.end { other } else { self }
    }
}

/// Where the content of the line ends, or None while its CRLF has not come.
///
/// `scanned` is where the last look at this line stopped; it only grows, so a line that arrives
/// byte by byte is scanned once. The bound is checked before the byte found is looked at: a byte
/// beyond the bound is never judged, whether it has arrived yet or not.
#[inline]
pub(crate) fn find_line_end(
    buf: &[u8],
    scanned: &mut usize,
    bound: Bound,
) -> Result<Option<usize>, RefusalKind> {
    let stop = find_control(buf, *scanned);
    *scanned = stop;
    if stop > bound.end {
        return Err(bound.refusal);
    }
    match buf.get(stop..) {
        Some([b'\r', b'\n', ..]) => Ok(Some(stop)),
        None | Some([] | [b'\r']) => Ok(None),
        Some([b'\r', ..]) => Err(RefusalKind::BareCr),
        Some([b'\n', ..]) => Err(RefusalKind::BareLf),
        Some(_) => Err(RefusalKind::ControlByte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { end: 4, refusal: RefusalKind::FieldTooLong };

    fn end_of(buf: &[u8]) -> Result<Option<usize>, RefusalKind> {
        find_line_end(buf, &mut 0, BOUND)
    }

    #[test]
    fn a_line_ends_at_crlf_and_nowhere_else() {
        assert_eq!(end_of(b"abc\r\nd"), Ok(Some(3)));
        assert_eq!(end_of(b"abc\r"), Ok(None));
        assert_eq!(end_of(b"abc"), Ok(None));
        assert_eq!(end_of(b"abc\rd"), Err(RefusalKind::BareCr));
        assert_eq!(end_of(b"abc\n"), Err(RefusalKind::BareLf));
        assert_eq!(end_of(b"ab\0c"), Err(RefusalKind::ControlByte));
    }

    #[test]
    fn the_bound_is_the_last_length_accepted() {
        assert_eq!(end_of(b"abcd\r\n"), Ok(Some(4)));
        assert_eq!(end_of(b"abcd"), Ok(None));
        assert_eq!(end_of(b"abcde"), Err(RefusalKind::FieldTooLong));
        assert_eq!(end_of(b"abcde\0"), Err(RefusalKind::FieldTooLong));
    }

    #[test]
    fn a_line_is_scanned_once_however_it_arrives() {
        let mut scanned = 0;
        assert_eq!(find_line_end(b"ab", &mut scanned, BOUND), Ok(None));
        assert_eq!(scanned, 2);
        assert_eq!(find_line_end(b"abc\r", &mut scanned, BOUND), Ok(None));
        assert_eq!(scanned, 3);
        assert_eq!(find_line_end(b"abc\r\n", &mut scanned, BOUND), Ok(Some(3)));
    }
}
