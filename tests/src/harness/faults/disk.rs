//! What happens to a sled directory: deleted, cut short, no room.

use std::fs;

use crate::harness::{
    pair::DEADLINE,
    process::Server,
    rig::{Home, Rig},
    wait_until,
};

/// Room that a full disk still has.
const ROOM: u64 = 100_000;

impl Rig {
    /// While the worker has it open, and then it dies.
    pub(super) async fn shortcut_deleted(&mut self) {
        fs::remove_dir_all(&self.workers[0].data).expect("the directory is there");
        self.kill_worker(0);
        self.start_worker(0);
    }

    /// Either the worker finds what is left good enough, or it refuses and says what to do, which is done.
    pub(super) async fn shortcut_truncated(&mut self) {
        self.kill_worker(0);
        let file = fs::OpenOptions::new().write(true).open(self.workers[0].data.join("db")).expect("sled's file");
        let length = file.metadata().expect("a file has a length").len();
        file.set_len(length / 2 + 7).expect("the file can be cut");
        self.start_worker(0);
        let port = self.pair.admin_port;
        let runs = || self.workers[0].server.as_ref().is_some_and(Server::runs);
        wait_until("the worker starts or refuses", DEADLINE, async || !runs() || self.pair.is_ready(port).await).await;
        if !runs() {
            let said = fs::read_to_string(self.worker_log(0)).expect("the worker has a log");
            assert!(said.contains("delete the directory"), "{said}");
            drop(self.workers[0].server.take());
            fs::remove_dir_all(&self.workers[0].data).expect("the directory is there");
            self.start_worker(0);
        }
    }

    /// sled's file may not grow any more. Whoever keeps records there must end rather than confirm; a worker that has
    /// its records elsewhere goes on.
    pub(super) async fn disk_full(&mut self) {
        let length = fs::metadata(self.workers[0].data.join("db")).expect("sled's file").len();
        match self.home {
            Home::Together => {
                self.kill_ingress();
                self.start_ingress_with_room(Some(length + ROOM));
            }
            Home::Sled => {
                self.kill_worker(0);
                self.start_worker_with_room(0, Some(length + ROOM));
            }
            Home::Sql(_) => {
                self.kill_worker(0);
                // What is written there is little: a segment that became free would take it for long.
                fs::remove_dir_all(&self.workers[0].data).expect("the directory is there");
                self.start_worker_with_room(0, Some(ROOM));
            }
        }
        match self.home {
            Home::Sql(_) => self.goes_on_without_room().await,
            Home::Sled => self.ends_for_want_of_room(self.workers[0].server.as_ref()).await,
            Home::Together => self.ends_for_want_of_room(self.ingress.as_ref()).await,
        }
        match self.home {
            Home::Together => {
                drop(self.ingress.take());
                self.start_ingress();
            }
            Home::Sql(_) | Home::Sled => {
                drop(self.workers[0].server.take());
                self.start_worker(0);
            }
        }
    }

    async fn goes_on_without_room(&self) {
        wait_until("the worker has no room any more", DEADLINE * 2, async || {
            // Only facts that are new are written.
            self.register_ahead().await;
            let said = fs::read_to_string(self.worker_log(0)).expect("the worker has a log");
            said.contains("the record of settled events is not usable")
        })
        .await;
        self.recovered().await;
        assert!(self.workers[0].server.as_ref().is_some_and(Server::runs), "the worker ended, and needs no room");
    }

    async fn ends_for_want_of_room(&self, program: Option<&Server>) {
        let ended = async || {
            let runs = program.is_some_and(Server::runs);
            if runs {
                // Only new orders need more room for certain: sled may have segments that became free.
                self.register_while_taken().await;
            }
            !runs
        };
        wait_until("the program ends for want of room", DEADLINE * 2, ended).await;
    }
}
