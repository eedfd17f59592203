//! Invariant: whatever the bytes, a head is partial, refused, or complete; and a complete one is
//! made of spans inside its own bytes that hold what their names say.
#![no_main]

use bicorn_wire::{
    Framing, Head, HeadParser, Progress, Rules, TargetForm, is_field_value, is_token,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let rules = Rules::default();
    let mut head = Head::default();
    if HeadParser::new().parse(bytes, &rules, &mut head) != Ok(Progress::Complete) {
        return;
    }
    assert!(head.len <= bytes.len().min(rules.limits.head_bytes));
    assert!(bytes[..head.len].ends_with(b"\r\n\r\n"));
    assert!(is_token(head.method.of(bytes)));
    assert!(head.target.of(bytes).iter().all(u8::is_ascii_graphic));
    assert!(head.path.end <= head.query.start && head.query.end == head.target.end);
    assert!(head.fields.len() <= rules.limits.fields);
    for field in &head.fields {
        assert!(is_token(field.name.of(bytes)));
        assert!(is_field_value(field.value.of(bytes)) && !field.folded);
    }
    let named = |name: &[u8]| {
        head.fields
            .iter()
            .filter(|field| field.name.of(bytes).eq_ignore_ascii_case(name))
            .count()
    };
    let (lengths, codings) = (named(b"content-length"), named(b"transfer-encoding"));
    match head.framing {
        Framing::None => assert_eq!((lengths, codings), (0, 0)),
        Framing::Length(length) => {
            assert_eq!((lengths, codings), (1, 0));
            assert!(length <= i64::MAX as u64);
        }
        Framing::Chunked => assert!((lengths, codings) == (0, 1) && head.version.is_http11()),
    }
    assert!(named(b"host") <= 1 && (named(b"host") == 1 || !head.version.is_http11()));
    assert_eq!(head.host.is_some(), named(b"host") == 1);
    assert_eq!(
        head.authority.is_some(),
        matches!(head.form, TargetForm::Absolute | TargetForm::Authority)
    );
});
