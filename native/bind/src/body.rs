//! What an application returned, on its way into the outbox.
//!
//! Owns       the three shapes of a body: a sequence that is there, an iterable that is pulled, a file.
//! Never      holds the outbox while Python code runs, which may write to it.

use std::fs::File;
use std::os::fd::BorrowedFd;

use pyo3::exceptions::PyAssertionError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::exchange::{Exchange, not_bytes};
use crate::response::End;

/// What one step through an iterable gave.
pub enum Step {
    /// There may be more.
    More,
    /// It is exhausted.
    End(End),
}

fn not_started() -> PyErr {
    PyAssertionError::new_err(
        "the application returned a body without having called start_response() (PEP 3333)",
    )
}

/// Sends a list or tuple whole: its length is known, so it needs no chunks.
#[inline]
pub fn send_all(exchange: &Bound<'_, Exchange>, blocks: &Bound<'_, PyAny>) -> PyResult<End> {
    let mut exchange = exchange.borrow_mut();
    let (response, outbox) = exchange.parts()?;
    if response.status == 0 {
        return Err(not_started());
    }
    let blocks: &[Bound<'_, PyAny>] = &if let Ok(list) = blocks.cast_exact::<PyList>() {
        if list.len() == 1 {
            let block =
                list.get_item(0)?.cast_into::<PyBytes>().map_err(|error| not_bytes(&error.into_inner()))?;
            if !response.head_sent {
                response.send_head(outbox, Some(block.as_bytes().len() as u64));
            }
            response.send_body(outbox, block);
            return Ok(response.end(outbox));
        }
        list.iter().collect::<Vec<_>>()
    } else {
        blocks.cast::<PyTuple>().expect("a list or a tuple").iter().collect()
    };
    let mut total = 0;
    for block in blocks {
        total += block.cast::<PyBytes>().map_err(|_| not_bytes(block))?.as_bytes().len() as u64;
    }
    if !response.head_sent {
        response.send_head(outbox, Some(total));
    }
    for block in blocks {
        let block = block.cast::<PyBytes>().expect("checked above");
        response.send_body(outbox, block.clone());
    }
    Ok(response.end(outbox))
}

/// Takes one block of an iterable.
#[inline]
pub fn step(exchange: &Bound<'_, Exchange>, iterator: &Bound<'_, PyAny>) -> PyResult<Step> {
    // SAFETY: a live iterator; the result is a new reference, or null at its end or with an error set.
    let block = unsafe {
        let block = ffi::PyIter_Next(iterator.as_ptr());
        Bound::from_owned_ptr_or_opt(iterator.py(), block)
    };
    let mut exchange = exchange.borrow_mut();
    let (response, outbox) = exchange.parts()?;
    let Some(block) = block else {
        if let Some(error) = PyErr::take(iterator.py()) {
            return Err(error);
        }
        if response.status == 0 {
            return Err(not_started());
        }
        if !response.head_sent {
            response.send_head(outbox, Some(0));
        }
        return Ok(Step::End(response.end(outbox)));
    };
    let block = block.cast_into::<PyBytes>().map_err(|error| not_bytes(&error.into_inner()))?;
    // An empty block says "not yet" and must not send the head (PEP 3333).
    if !block.as_bytes().is_empty() {
        if response.status == 0 {
            return Err(not_started());
        }
        if !response.head_sent {
            response.send_head(outbox, None);
        }
        response.send_body(outbox, block);
    }
    Ok(Step::More)
}

/// The file behind a file-like object, where it stands, and how much is left; none if it is no plain file.
pub fn sendable_file(filelike: &Bound<'_, PyAny>) -> PyResult<Option<(File, u64, u64)>> {
    let Some(fileno) = filelike.getattr_opt(intern!(filelike.py(), "fileno"))? else { return Ok(None) };
    let Ok(fd) = fileno.call0().and_then(|fd| fd.extract::<i32>()) else { return Ok(None) };
    if fd < 0 {
        return Ok(None);
    }
    // What a buffered file has read ahead is not where the application stands: tell() knows.
    let Ok(offset) = filelike.call_method0("tell").and_then(|at| at.extract::<u64>()) else {
        return Ok(None);
    };
    // SAFETY: the file-like object owns the descriptor and is alive; it is duplicated at once.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let Ok(file) = rustix::io::fcntl_dupfd_cloexec(borrowed, 0).map(File::from) else { return Ok(None) };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(Some((file, offset, metadata.len().saturating_sub(offset)))),
        _ => Ok(None),
    }
}

pub fn send_file(exchange: &Bound<'_, Exchange>, file: File, offset: u64, len: u64) -> PyResult<End> {
    let mut exchange = exchange.borrow_mut();
    let (response, outbox) = exchange.parts()?;
    if response.status == 0 {
        return Err(not_started());
    }
    if !response.head_sent {
        response.send_head(outbox, Some(len));
    }
    response.send_file(outbox, file, offset, len);
    Ok(response.end(outbox))
}
