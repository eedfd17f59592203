//! The messages of one request or WebSocket, in both directions, as awaitables.
//!
//! Owns       when `receive` and `send` act: a message is taken when the application goes on with it, so one that gives
//!            up waiting, with asyncio.wait_for say, loses nothing; and nothing is sent but in the loop's thread.
//! Never      knows what a message is.

use std::cell::RefCell;

use pyo3::intern;
use pyo3::prelude::*;

use crate::asgi::awaitable::{Awaitable, Step, as_coroutine, waits_for};
use crate::asgi::exchange::Exchange;
use crate::asgi::guarded::Guarded;
use crate::asgi::websocket::WebSocket;

/// Where messages come from and go to.
pub enum Channel {
    /// A request and its response.
    Request(Py<Exchange>),
    /// A WebSocket.
    Socket(Py<WebSocket>),
}

impl Channel {
    /// The next message, if there is one now.
    #[inline]
    fn take_message<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::Request(exchange) => exchange.get().take_message(py),
            Self::Socket(socket) => Ok(socket.get().take_message(py)?.map(Bound::into_any)),
        }
    }

    /// A future that is done when there may be one.
    fn wait_for_message<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Request(exchange) => exchange.get().wait_for_message(py),
            Self::Socket(socket) => socket.get().wait_for_message(py),
        }
    }

    fn send<'py>(&self, py: Python<'py>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Request(exchange) => exchange.get().send(py, exchange.bind(py), message),
            Self::Socket(socket) => socket.get().send(py, message),
        }
    }
}

/// What `receive` gives: an awaitable of the next message.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Receiving {
    channel: Channel,
}

impl Receiving {
    /// From this channel.
    #[inline]
    pub fn from(py: Python<'_>, channel: Channel) -> PyResult<Bound<'_, PyAny>> {
        Ok(Bound::new(py, Self { channel })?.into_any())
    }
}

impl Awaitable for Receiving {
    #[inline]
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        let channel = &slf.get().channel;
        match channel.take_message(slf.py())? {
            Some(message) => Ok(Step::Done(Some(message))),
            None => waits_for(channel.wait_for_message(slf.py())?),
        }
    }
}

as_coroutine!(Receiving);

/// What `send` gives outside of the loop's thread: the message is sent by the first step, which is a task's.
#[pyclass(frozen, module = "bicorn._core")]
pub struct Sending {
    channel: Channel,
    progress: Guarded<RefCell<Progress>>,
}

enum Progress {
    /// The message has not been sent.
    Held(Py<PyAny>),
    /// What sending it gave, as an iterator.
    Sent(Py<PyAny>),
}

impl Sending {
    /// Through this channel.
    pub fn through<'py>(channel: Channel, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let progress = Guarded::new(RefCell::new(Progress::Held(message.clone().unbind())));
        Ok(Bound::new(message.py(), Self { channel, progress })?.into_any())
    }
}

impl Awaitable for Sending {
    fn step<'py>(slf: &Bound<'py, Self>) -> PyResult<Step<'py>> {
        let py = slf.py();
        let mut progress = slf.get().progress.get(py).borrow_mut();
        let given = match &*progress {
            Progress::Sent(given) => given.bind(py).clone(),
            Progress::Held(message) => {
                let sent = slf.get().channel.send(py, message.bind(py))?;
                let given = sent.call_method0(intern!(py, "__await__"))?;
                *progress = Progress::Sent(given.clone().unbind());
                given
            }
        };
        Ok(match given.try_iter()?.next().transpose()? {
            None => Step::Done(None),
            Some(future) => Step::Waits(Some(future)),
        })
    }
}

as_coroutine!(Sending);
