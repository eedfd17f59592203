//! How a request leaves the books: answered, superseded, or not run at all.
//!
//! Owns       the counters, the log line and the hooks of that moment.
//! Invariant  each exchange that was opened leaves once.

use bicorn_reactor::waiting::Turn;
use bicorn_wire::RefusalKind;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Exchange, Stage, State, WsgiHead};
use crate::asgi::connection::Conn;

impl Exchange {
    /// The connection answered in the application's place; what that still says goes nowhere.
    pub fn supersede(&self, py: Python<'_>, status: u16) {
        let state = self.state.get(py);
        state.status.set(status);
        state.stage.set(Stage::Complete);
        state.incoming.reset();
        state.leave(py);
        self.disconnect(py);
    }

    /// Whether the request, which has waited since it was read, is still to be run. If not, its client has been
    /// told, or has gone, and the application must not be called.
    pub fn is_wanted(&self, py: Python<'_>) -> bool {
        let state = self.state.get(py);
        let waited_ns = state.shared.read_clock().saturating_sub(state.started_ns.get());
        let Some(conn) = state.conn.borrow().clone() else { return true };
        let turn = if conn.is_lost() { Turn::Forget } else { conn.judge(waited_ns) };
        if turn == Turn::Run {
            return true;
        }
        state.stage.set(Stage::Complete);
        state.status.set(RefusalKind::WaitedTooLong.status());
        state.incoming.reset();
        state.withdraw(py);
        conn.dismiss(py, turn, state.terms.get());
        false
    }
}

#[pymethods]
impl Exchange {
    /// What `is_wanted` says, for a request that waits outside the loop; to be asked in the loop's thread.
    #[pyo3(name = "is_wanted")]
    fn is_wanted_py(&self, py: Python<'_>) -> bool {
        self.is_wanted(py)
    }

    /// What `take_head` does, for the adapter that calls a WSGI application.
    #[pyo3(name = "take_head")]
    fn take_head_py(&self, py: Python<'_>, head: &WsgiHead) -> PyResult<()> {
        self.take_head(py, head)
    }

    /// What `fill_environ` does, for the same.
    #[pyo3(name = "fill_environ")]
    fn fill_environ_py(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        self.fill_environ(py, environ)
    }
}

impl State {
    /// The response has left, however it ended: the books are closed.
    #[inline]
    pub(super) fn leave(&self, py: Python<'_>) {
        let now_ns = self.shared.read_clock();
        let conn = self.conn.take();
        self.shared.row().request_left(self.started_ns.get(), now_ns, self.status.get());
        self.shared.served(py);
        if self.shared.is_logging() {
            self.log(py, conn.as_deref(), now_ns);
        }
    }

    /// The request was not run. Only who saw it come in is shown how it went out.
    pub(super) fn withdraw(&self, py: Python<'_>) {
        let conn = self.conn.take();
        self.shared.row().request_withdrawn();
        if self.observer.borrow().is_some() {
            self.log(py, conn.as_deref(), self.shared.now_ns.get());
        }
    }

    #[cold]
    pub(super) fn log(&self, py: Python<'_>, conn: Option<&Conn>, now_ns: u64) {
        let (Some(conn), Some(scope)) = (conn, self.scope.borrow().as_ref().map(|scope| scope.clone_ref(py)))
        else {
            return;
        };
        let fields = crate::response_head::fields_of(&self.head.borrow());
        let observer = self.observer.take();
        self.shared.log(
            py,
            &crate::asgi::server::Left {
                scope: scope.bind(py),
                line: &self.line.borrow(),
                remote_addr: conn.peer.client().remote_addr.bind(py),
                status: self.status.get(),
                fields,
                body_bytes: self.body_bytes.get(),
                elapsed_ns: now_ns.saturating_sub(self.started_ns.get()),
                now_ns,
                observer,
            },
        );
    }
}
