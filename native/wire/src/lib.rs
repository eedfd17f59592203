//! HTTP/1.1 as values.
#![forbid(unsafe_code)]
