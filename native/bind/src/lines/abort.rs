//! SIGABRT, by which the arbiter ends a worker that gives no sign of life.
//!
//! Owns       what is done at once, whoever holds the interpreter; Python's own handler follows when Python runs again.
//! Never      acts in a process that the application forked: the connections are not its own.
//!
//! A thread that watches would do as well, but a process with a second thread pays for it: glibc then locks in malloc and
//! looks for cancellation around each system call, which cost an asgi hello more than a hundredth.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

use rustix::io::Errno;

use super::Lines;
use crate::lineage::Birthplace;

/// What the handler needs; made once for each table, and never freed: it may be running.
struct Armed {
    lines: Arc<Lines>,
    birthplace: Birthplace,
    /// The handler of before: Python's.
    before: libc::sigaction,
}

static ARMED: AtomicPtr<Armed> = AtomicPtr::new(null_mut());

/// Has the connections of this table given up at SIGABRT, before whatever handles it now.
///
/// # Errors
/// The kernel refused the handler.
pub fn arm(lines: Arc<Lines>) -> Result<(), Errno> {
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only, and fills what it is given.
    let before = unsafe {
        libc::sigaction(libc::SIGABRT, std::ptr::null(), before.as_mut_ptr());
        before.assume_init()
    };
    let mut ours = before;
    ours.sa_sigaction = on_abort as *const () as usize;
    ours.sa_flags |= libc::SA_SIGINFO;
    let armed = Box::into_raw(Box::new(Armed { lines, birthplace: Birthplace::here(), before }));
    ARMED.store(armed, SeqCst);
    // SAFETY: a handler of the kind that the flags say, which makes only calls that a handler may make.
    match unsafe { libc::sigaction(libc::SIGABRT, &raw const ours, null_mut()) } {
        0 => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

extern "C" fn on_abort(signum: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: stored before the handler was installed, and never freed.
    let Some(armed) = (unsafe { ARMED.load(SeqCst).as_ref() }) else { return };
    // SAFETY: this thread's own errno, which whoever was interrupted may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    if armed.birthplace.is_here() {
        armed.lines.try_give_up();
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    pass_on(&armed.before, signum, info, context);
}

/// Does what would have been done without us.
fn pass_on(
    before: &libc::sigaction,
    signum: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    type Plain = extern "C" fn(libc::c_int);
    type Informed = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
    match before.sa_sigaction {
        libc::SIG_IGN => {}
        // SAFETY: the signal is held back while it is handled, so this ends the process when we return.
        libc::SIG_DFL => unsafe {
            libc::signal(signum, libc::SIG_DFL);
            libc::raise(signum);
        },
        // SAFETY: the kernel would have called it as its flags say, so it is of that kind.
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            std::mem::transmute::<usize, Informed>(handler)(signum, info, context);
        },
        // SAFETY: as above.
        handler => unsafe { std::mem::transmute::<usize, Plain>(handler)(signum) },
    }
}
