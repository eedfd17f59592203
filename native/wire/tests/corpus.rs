//! Replays `tests/wire/corpus`: each file whole, byte by byte and at every two-way split.

mod exchange;
mod expectation;

use std::fs;
use std::path::{Path, PathBuf};

use bicorn_wire::{Refusal, RefusalKind};
use exchange::{Outcome, Standing, exchange};
use expectation::Expectation;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/wire/corpus");

/// The request files of one folder, with what is expected of each, in order.
fn cases(folder: &str) -> Vec<(PathBuf, Vec<u8>, Expectation)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(Path::new(CORPUS).join(folder))
        .expect("the corpus folder")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "http"))
        .collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).expect("a readable request file");
            let text = fs::read_to_string(path.with_extension("toml")).expect("an expectation beside it");
            let expectation =
                Expectation::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path, bytes, expectation)
        })
        .collect()
}

/// The bytes whole, byte by byte, and cut in two everywhere.
fn check_at_every_split(path: &Path, bytes: &[u8], expectation: &Expectation, expected: &Outcome) {
    let rules = &expectation.rules;
    let name = path.display();
    assert_eq!(&exchange([bytes], rules), expected, "{name}, whole");
    assert_eq!(&exchange(bytes.chunks(1), rules), expected, "{name}, byte by byte");
    for cut in 1..bytes.len() {
        let (left, right) = bytes.split_at(cut);
        assert_eq!(&exchange([left, right], rules), expected, "{name}, cut at {cut}");
    }
}

#[test]
fn every_accepted_file_is_read_as_expected_at_every_split() {
    for (path, bytes, expectation) in cases("accept") {
        let standing = match (expectation.closes, expectation.pending) {
            (true, false) => Standing::Closed,
            (false, false) => Standing::Idle,
            (false, true) if bytes.iter().all(|byte| b"\r\n".contains(byte)) => Standing::Idle,
            (false, true) => Standing::Pending,
            (true, true) => panic!("{}: nothing is pending after a close", path.display()),
        };
        let expected = Outcome { requests: expectation.requests.clone(), standing };
        check_at_every_split(&path, &bytes, &expectation, &expected);
    }
}

#[test]
fn every_rejected_file_is_refused_as_expected_at_every_split() {
    for (path, bytes, expectation) in cases("reject") {
        let name = path.display();
        let kind = expectation.kind.as_deref().and_then(kind_named);
        let kind = kind.unwrap_or_else(|| panic!("{name}: no such kind {:?}", expectation.kind));
        let refusal = Refusal { to_head: expectation.to_head, ..kind.into() };
        let standing = match expectation.refused.as_deref() {
            Some("head") => Standing::RefusedHead(refusal),
            Some("body") => Standing::RefusedBody(refusal),
            other => panic!("{name}: refused = {other:?}"),
        };
        assert_eq!(Some(refusal.status), expectation.status, "{name}");
        let expected = Outcome { requests: expectation.requests.clone(), standing };
        check_at_every_split(&path, &bytes, &expectation, &expected);
    }
}

fn kind_named(name: &str) -> Option<RefusalKind> {
    RefusalKind::ALL.iter().copied().find(|kind| kind.name() == name)
}

#[test]
fn every_rule_has_a_file_that_breaks_it() {
    let cases = cases("reject");
    // The tests of the PROXY header stand in its own module: the corpus is HTTP.
    let of_the_wire = RefusalKind::ALL
        .iter()
        .take_while(|kind| **kind != RefusalKind::ForbiddenProxy)
        .filter(|kind| !kind.section().starts_with("PROXY "));
    for kind in of_the_wire {
        let is_broken =
            cases.iter().any(|(_, _, expectation)| expectation.kind.as_deref() == Some(kind.name()));
        assert!(is_broken, "no file in reject/ is refused as {kind:?}");
    }
}

#[test]
fn every_file_says_what_it_shows_and_where_that_is_written() {
    for (path, _, expectation) in cases("accept").into_iter().chain(cases("reject")) {
        let name = path.display();
        assert!(expectation.section.starts_with("RFC "), "{name}");
        assert!(expectation.behaviour.ends_with('.'), "{name}");
        assert!(!expectation.origin.is_empty(), "{name}");
    }
}
