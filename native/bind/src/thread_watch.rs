//! The watch of a `gthread` worker: a thread that needs no interpreter, whatever holds it.
//!
//! Owns       who stands in for threads that are all busy, and the 504 for a request that takes too long.
//! Never      runs Python: what is to be said about a late request, the main thread says when it can.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use bicorn_reactor::clock::monotonic_ns;
use bicorn_reactor::{Order, Waiter, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::late::{Looks, Overtime, answer_late};
use crate::post::{Late, Post};
use crate::thread_loop::{LOOK, ThreadLoop};

/// Who may hold the loop for as long as all threads are busy, and looks at them meanwhile.
struct Lookout<'a> {
    threads: &'a ThreadLoop,
    overtime: Overtime,
    looked_ns: u64,
    looks: Looks,
}

impl Lookout<'_> {
    /// Looks, if it is time.
    fn look(&mut self) {
        let now_ns = monotonic_ns();
        if now_ns.saturating_sub(self.looked_ns) < LOOK.as_nanos() as u64 / 4 {
            return;
        }
        self.looked_ns = now_ns;
        let slept_ns = self.looks.slept_ns(now_ns);
        if slept_ns > 0 {
            self.threads.posts.iter().for_each(|post| post.excuse(slept_ns));
        }
        self.threads.extend_patience();
        self.threads.name_oldest();
        self.threads.answer_late_requests();
        self.overtime.look(&self.threads.crew);
    }
}

impl Waiter for Lookout<'_> {
    fn wait<R>(&mut self, block: impl FnOnce() -> R) -> R {
        let result = block();
        self.look();
        result
    }

    fn wait_ms_max(&self) -> u64 {
        LOOK.as_millis() as u64 / 2
    }

    fn proves_life(&self) -> bool {
        false // The main thread does, if it gets the interpreter.
    }
}

impl ThreadLoop {
    /// Watches until the loop has ended.
    ///
    /// # Errors
    /// The kernel refused to wait.
    pub fn watch_threads(&self, overtime: Overtime) -> Result<(), Errno> {
        let mut watch = Watch::new(&self.crew);
        let mut lookout = Lookout { threads: self, overtime, looked_ns: 0, looks: Looks::begin() };
        self.let_threads_begin();
        while !self.crew.has_ended() {
            let rest = lookout.overtime.rest().min(LOOK);
            let patience = watch.patience().map_or(rest, |patience| patience.min(rest));
            let patience = Timespec { tv_sec: 0, tv_nsec: i64::from(patience.subsec_nanos()) };
            match poll(&mut [PollFd::new(watch.bell(), PollFlags::IN)], Some(&patience)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if watch.turn(&mut lookout)? {
                self.news.ring(); // A signal, whose handler runs on the main thread only.
            }
            lookout.look();
        }
        Ok(())
    }

    /// A request that may take longer than others may hold the interpreter for as long.
    fn extend_patience(&self) {
        let extended = self.posts.iter().filter_map(|post| post.extended_ns(self.timeout));
        if let Some(begins_ns) = extended.max() {
            self.wsgi.slot().heartbeat_ns.fetch_max(begins_ns, SeqCst);
        }
    }

    /// Answers for requests that take too long, and leaves it to the main thread to say so.
    fn answer_late_requests(&self) {
        let late = self.shut_out_late_requests();
        if !late.is_empty() {
            self.late().extend(late);
            self.news.ring();
        }
    }

    /// Shows which request has been running longest: the one that entered last hides it from the scoreboard.
    fn name_oldest(&self) {
        let oldest = &self.wsgi.slot().oldest;
        let running = |post: &&Post| post.entered_ns.load(Relaxed) != 0;
        let Some(post) = self.posts.iter().filter(running).min_by_key(|post| post.entered_ns.load(Relaxed))
        else {
            return oldest.clear();
        };
        let doing = post.doing(); // Its thread can begin or end nothing meanwhile.
        match post.entered_ns.load(Relaxed) {
            0 => oldest.clear(),
            entered_ns => {
                let blank =
                    doing.request.iter().position(|&byte| byte == b' ').unwrap_or(doing.request.len());
                let (method, target) = doing.request.split_at(blank);
                oldest.set(entered_ns, method, target.get(1..).unwrap_or_default());
            }
        }
    }

    /// Answers for requests that take too long, without the interpreter lock, which one of them may hold; the
    /// worker asks for a successor, because a thread cannot be taken back, and serves on with the threads that
    /// are left.
    fn shut_out_late_requests(&self) -> Vec<(usize, Late)> {
        let posts = self.posts.iter().enumerate();
        let late: Vec<_> = posts.filter_map(|(thread, post)| Some((thread, self.shut_out(post)?))).collect();
        for (_, late) in &late {
            if let Some(socket) = &late.socket {
                answer_late(socket, self.wsgi.server(), late.request.as_bytes());
            }
            if let Some(token) = late.token {
                self.crew.write_off(token);
            }
        }
        if !late.is_empty() && self.posts.iter().all(|post| post.doing().late) {
            self.orders.give(Order::Retire); // What it accepted now would find no thread.
        }
        late
    }

    /// Takes the right to answer from a request that takes too long; none where it does not.
    fn shut_out(&self, post: &Post) -> Option<Late> {
        let mut doing = post.doing(); // Its thread can begin or end nothing meanwhile.
        let now_ns = monotonic_ns();
        if !post.is_late(&doing, now_ns) || std::mem::replace(&mut doing.late, true) {
            return None;
        }
        Some(Late {
            request: String::from_utf8_lossy(&doing.request).into_owned(),
            age: Duration::from_nanos(now_ns.saturating_sub(post.entered_ns.load(Relaxed))),
            token: doing.token,
            socket: doing.socket.clone().filter(|socket| socket.gate.shut()),
        })
    }
}
