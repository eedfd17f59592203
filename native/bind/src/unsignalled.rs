//! Threads of our own take no signals.
//!
//! Owns       the signal mask around the start of such a thread.
//! Invariant  a signal for the process interrupts the main thread, which runs its handler: taken elsewhere, it
//!            would leave the main thread waiting in whatever call it is in.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::thread::{Builder, JoinHandle};

/// What the kernel raises for something that the thread itself has done wrong. Blocked, it would end the
/// process without a word.
const FAULTS: [libc::c_int; 4] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];

/// Starts a thread that takes no signals.
///
/// # Errors
/// As `Builder::spawn`.
pub fn spawn_unsignalled(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are ours and outlive the calls, the first fills the one that the next ones change.
    unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        for fault in FAULTS {
            libc::sigdelset(blocked.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), before.as_mut_ptr());
    }
    // The new thread inherits the mask.
    let started = Builder::new().name(name.to_owned()).spawn(run);
    // SAFETY: the call above filled the set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    started
}
