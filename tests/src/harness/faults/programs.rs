//! Programs that are killed, at random and at each named step, and programs that are asked to end.
//!
//! Each step is reached from outside: the proxies hold the bytes that the step sends or waits for, and tell that they do.

use std::{fs, time::Duration};

use wxpay_shared::runtime::SHUTDOWN_GRACE;

use crate::harness::{
    pair::{DEADLINE, terminate},
    process::Server,
    proxy::{ACK, COMMIT, Cut, PUBLISH, REPLY, Weather},
    rig::Rig,
    wait_until,
};

/// The number of the system call fdatasync.
const FDATASYNC: &str = if cfg!(target_arch = "aarch64") { "83" } else { "75" };

impl Rig {
    pub(super) async fn ingress_killed(&mut self) {
        self.kill_ingress();
        self.start_ingress();
    }

    pub(super) async fn worker_killed(&mut self) {
        for worker in 0..self.workers.len() {
            self.kill_worker(worker);
            self.start_worker(worker);
        }
    }

    pub(super) async fn both_killed(&mut self) {
        self.kill_ingress();
        self.kill_worker(0);
        self.start_ingress();
        self.start_worker(0);
    }

    /// Sealed, and on its way to the broker, which it does not reach.
    pub(super) async fn ingress_killed_after_seal(&mut self) {
        self.publishing.set(Weather::HoldRequest(PUBLISH));
        self.publishing.holds("a publish").await;
        self.kill_ingress();
        self.publishing.cut(Cut::Reset);
        self.publishing.set(Weather::Fair);
        self.start_ingress();
    }

    /// The broker stored and confirmed it; ingress does not know and never will.
    pub(super) async fn ingress_killed_after_publish(&mut self) {
        self.publishing.set(Weather::HoldAnswer(ACK));
        self.publishing.holds("a confirm").await;
        self.kill_ingress();
        self.publishing.cut(Cut::Reset);
        self.publishing.set(Weather::Fair);
        self.start_ingress();
    }

    /// Ingress said SUCCESS; WeChat did not hear it.
    pub(super) async fn ingress_killed_before_reply(&mut self) {
        self.door.set(Weather::HoldAnswer(REPLY));
        self.door.holds("a reply").await;
        self.kill_ingress();
        self.door.cut(Cut::Reset);
        self.door.set(Weather::Fair);
        self.start_ingress();
    }

    /// Every statement ran; the transaction was not committed.
    pub(super) async fn worker_killed_inside_batch(&mut self) {
        self.storing.set(Weather::HoldRequest(COMMIT));
        self.storing.holds("a commit").await;
        self.kill_worker(0);
        self.storing.cut(Cut::Reset);
        self.storing.set(Weather::Fair);
        self.start_worker(0);
    }

    /// The database answered that it committed; the worker never heard.
    pub(super) async fn worker_killed_after_commit(&mut self) {
        self.storing.set(Weather::HoldAnswerTo(COMMIT));
        self.storing.holds("the answer to a commit").await;
        self.kill_worker(0);
        self.storing.cut(Cut::Reset);
        self.storing.set(Weather::Fair);
        self.start_worker(0);
    }

    /// The worker marks in sled before it sends an ack, and the ack does not arrive.
    pub(super) async fn worker_killed_after_mark(&mut self) {
        self.consuming.set(Weather::HoldRequest(ACK));
        self.consuming.holds("an ack").await;
        self.kill_worker(0);
        self.consuming.cut(Cut::Reset);
        self.consuming.set(Weather::Fair);
        self.start_worker(0);
    }

    /// The next home confirmed a parked message; the worker did not hear, so it did not leave the old one.
    pub(super) async fn worker_killed_between_park_and_ack(&mut self) {
        self.consuming.set(Weather::HoldAnswer(ACK));
        self.consuming.holds("the confirm of a parked message").await;
        self.kill_worker(0);
        self.consuming.cut(Cut::Reset);
        self.consuming.set(Weather::Fair);
        self.start_worker(0);
    }

    /// The thread that makes sled durable is inside fdatasync, as the kernel says.
    pub(super) async fn killed_in_mid_flush(&mut self) {
        let flusher = self.ingress.as_ref().map(disk_thread).expect("it runs");
        wait_until("the disk is being flushed", DEADLINE, async || {
            // As often as possible: a flush takes a millisecond.
            (0..2_000).any(|_| {
                let call = fs::read_to_string(format!("{flusher}/syscall")).unwrap_or_default();
                call.split(' ').next() == Some(FDATASYNC)
            })
        })
        .await;
        self.kill_ingress();
        self.start_ingress();
    }

    pub(super) async fn ingress_ended(&mut self) -> Result<(), String> {
        let ended = end("ingress", self.ingress.take()).await;
        self.start_ingress();
        ended
    }

    pub(super) async fn worker_ended(&mut self) -> Result<(), String> {
        let ended = end("worker", self.workers[0].server.take()).await;
        self.start_worker(0);
        ended
    }

    /// The broker neither answers nor goes away.
    pub(super) async fn both_ended_without_broker(&mut self) -> Result<(), String> {
        self.publishing.set(Weather::Silent);
        self.consuming.set(Weather::Silent);
        let (ingress, worker) = (self.ingress.take(), self.workers[0].server.take());
        let ended = tokio::join!(end("ingress", ingress), end("worker", worker));
        for proxy in [&self.publishing, &self.consuming] {
            proxy.cut(Cut::Reset);
            proxy.set(Weather::Fair);
        }
        self.start_ingress();
        self.start_worker(0);
        ended.0.and(ended.1)
    }

    /// The store neither answers nor goes away.
    pub(super) async fn worker_ended_without_store(&mut self) -> Result<(), String> {
        self.storing.set(Weather::Silent);
        self.storing.holds("a statement").await;
        let ended = end("worker", self.workers[0].server.take()).await;
        self.storing.cut(Cut::Reset);
        self.storing.set(Weather::Fair);
        self.start_worker(0);
        ended
    }
}

async fn end(name: &str, program: Option<Server>) -> Result<(), String> {
    let took: Duration = terminate(&mut program.expect("it runs")).await;
    if took < SHUTDOWN_GRACE { Ok(()) } else { Err(format!("{name} took {took:?} to end")) }
}

/// Where the kernel tells about the thread that makes sled durable.
fn disk_thread(process: &Server) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid())).expect("the process runs");
    let mut folders = tasks.flatten().map(|task| task.path());
    let disk = folders.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "disk"));
    disk.expect("the database has a thread of its own").to_str().expect("paths in /proc are text").to_owned()
}
