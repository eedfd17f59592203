//! The application's coroutine, from its first step to its end.
//!
//! Owns       what the steps run and in which context, and what an end before the response's own means.
//! Never      takes a step itself.

use bicorn_wire::ResponseFraming;
use pyo3::intern;
use pyo3::prelude::*;

use super::{Exchange, Run, Stage};

/// What logs and counters are told of a request whose client left before its answer: nginx's number for it.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Exchange {
    /// The application was called and has given its coroutine.
    #[inline]
    pub fn begin(&self, py: Python<'_>, coroutine: Bound<'_, PyAny>, context: Bound<'_, PyAny>) {
        let run = Run { coroutine: coroutine.unbind(), context: context.unbind() };
        self.state.get(py).run.replace(Some(run));
    }

    /// The application's coroutine, until it has ended.
    pub fn coroutine(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.get(py).run.borrow().as_ref().map(|run| run.coroutine.clone_ref(py))
    }

    /// A step begins: what it runs, and in which context.
    #[inline]
    pub fn resumed(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyAny>)> {
        let state = self.state.get(py);
        {
            let (method, target) = &*state.line.borrow();
            state.shared.row().request_resumed(state.shared.read_clock(), method, target);
        }
        state.run.borrow().as_ref().map(|run| (run.coroutine.clone_ref(py), run.context.clone_ref(py)))
    }

    /// A step has ended.
    #[inline]
    pub fn paused(&self, py: Python<'_>) {
        self.state.get(py).shared.row().request_paused();
    }

    /// From now on this task runs the application.
    pub fn run_by(&self, py: Python<'_>, task: Py<PyAny>) {
        self.state.get(py).task.replace(Some(task));
    }

    /// The application has returned or raised.
    #[inline]
    pub fn application_ended(&self, py: Python<'_>, result: PyResult<()>) {
        let state = self.state.get(py);
        state.run.take();
        state.task.take();
        state.shared.running.set(state.shared.running.get() - 1);
        let websocket = state.websocket.take();
        match websocket.filter(|websocket| websocket.get().is_accepted(py)) {
            Some(websocket) => websocket.get().application_ended(py, result),
            None if result.is_err() || state.stage.get() != Stage::Complete => self.ended_badly(py, result),
            None => {}
        }
        state.scope.take();
        state.shared.check_drained(py);
    }

    #[cold]
    pub(super) fn ended_badly(&self, py: Python<'_>, result: PyResult<()>) {
        let state = self.state.get(py);
        let answered = !self.is_unanswered(py);
        let complete = state.stage.get() == Stage::Complete;
        let gone = state.conn.borrow().as_ref().is_none_or(|conn| conn.out.closed.get());
        let scope = state.scope.borrow().as_ref().map(|scope| scope.clone_ref(py));
        let status = match result {
            Err(error) if gone && state.shared.is_of_disconnect(py, &error) => CLIENT_CLOSED_REQUEST,
            Err(error) => {
                // A framework may raise again what it has answered itself, for the server's log.
                let when = match (complete, answered) {
                    (true, _) => " after its response had ended",
                    (false, true) => " after its response had begun",
                    (false, false) => "",
                };
                state.shared.application_failed(py, error, scope, when);
                500
            }
            // It was told, and has nobody to answer.
            Ok(()) if gone || state.disconnected.get() => CLIENT_CLOSED_REQUEST,
            Ok(()) => {
                state.shared.report(py, "response_missing", (scope, answered));
                500
            }
        };
        let conn = state.conn.borrow().clone();
        let Some(conn) = conn.filter(|_| !complete) else { return };
        state.incoming.reset();
        state.stage.set(Stage::Complete);
        if !answered {
            state.status.set(status);
        }
        if answered || status == CLIENT_CLOSED_REQUEST {
            // Only a close tells the client that this is not the whole answer.
            state.leave(py);
            conn.break_off(py, answered && state.framing.get() == ResponseFraming::UntilClose);
        } else {
            conn.send_error(py, 500, !state.terms.get().is_head);
            state.leave(py);
            conn.answered(py, false);
        }
    }

    /// Cancels the application, which had its time after the client left.
    pub fn cancel(&self, py: Python<'_>) {
        let task = self.state.get(py).task.borrow().as_ref().map(|task| task.clone_ref(py));
        if let Some(task) = task
            && let Err(error) = task.bind(py).call_method0(intern!(py, "cancel"))
        {
            error.write_unraisable(py, None);
        }
    }
}
