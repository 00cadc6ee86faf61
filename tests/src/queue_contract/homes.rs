//! The homes that the suite runs against.

use std::{fs, sync::Arc};

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    queue::{
        Consumer, DeadLetters, Publisher, QueueSettings,
        embedded::EmbeddedQueue,
        rabbit::{RabbitConsumer, RabbitDeadLetters, RabbitPublisher},
    },
};

use super::{Home, PATIENCE, settings};
use crate::harness::{
    rabbitmq::{self, Node},
    wait_until,
};

/// A virtual host of a node that is never restarted, with so many shards.
pub(super) struct Rabbit {
    url: String,
    settings: QueueSettings,
    at_once: bool,
}

impl Rabbit {
    pub(super) async fn open(shards: u16) -> Self {
        Self::at(rabbitmq::fresh_url().await, shards)
    }

    pub(super) async fn open_for_bundles() -> Self {
        Self { at_once: true, ..Self::open(1).await }
    }

    fn at(url: String, shards: u16) -> Self {
        Self { url, settings: QueueSettings { shards, ..settings() }, at_once: false }
    }
}

#[async_trait]
impl Home for Rabbit {
    async fn publisher(&self) -> Arc<dyn Publisher> {
        let publisher = RabbitPublisher::start(self.url.clone().into(), self.settings.clone());
        wait_until("the publisher is ready", PATIENCE, || async { publisher.ready().is_ok() }).await;
        Arc::new(publisher)
    }

    async fn consumer(&self) -> Box<dyn Consumer> {
        Box::new(RabbitConsumer::start(self.url.clone().into(), self.settings.clone()))
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(RabbitDeadLetters::new(self.url.clone().into(), self.settings.clone()))
    }

    async fn restart(&mut self) {
        unreachable!("the other tests are using this node");
    }

    fn out_at_a_time(&self) -> usize {
        match usize::from(self.settings.shards) {
            1 => usize::from(self.settings.prefetch),
            // An equal share for each, and one for what comes back from the retry tiers.
            shards => usize::from(self.settings.prefetch) / (shards + 1) * shards,
        }
    }

    fn at_once(&self) -> bool {
        self.at_once
    }
}

/// A virtual host of a node that one test at a time may restart.
pub(super) struct Restarted {
    node: MutexGuard<'static, Option<Node>>,
    host: Rabbit,
}

impl Restarted {
    pub(super) async fn open(shards: u16) -> Self {
        let mut node = NODE.lock().await;
        let running = node.get_or_insert_with(Node::start);
        running.ready().await;
        let url = running.url(&running.virtual_host());
        Self { node, host: Rabbit::at(url, shards) }
    }

    pub(super) async fn open_for_bundles() -> Self {
        let Self { node, host } = Self::open(1).await;
        Self { node, host: Rabbit { at_once: true, ..host } }
    }
}

static NODE: Mutex<Option<Node>> = Mutex::const_new(None);

#[async_trait]
impl Home for Restarted {
    async fn publisher(&self) -> Arc<dyn Publisher> {
        self.host.publisher().await
    }

    async fn consumer(&self) -> Box<dyn Consumer> {
        self.host.consumer().await
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        self.host.dead_letters().await
    }

    async fn restart(&mut self) {
        self.node.as_mut().expect("it was started at the opening").restart().await;
    }

    fn out_at_a_time(&self) -> usize {
        self.host.out_at_a_time()
    }

    fn at_once(&self) -> bool {
        self.host.at_once()
    }
}

/// A directory with a database.
pub(super) struct Embedded {
    directory: TempDir,
    queue: EmbeddedQueue,
}

impl Embedded {
    pub(super) async fn open() -> Self {
        Self::open_in(TempDir::with_prefix("wxpay-queue-").unwrap()).await
    }

    async fn open_in(directory: TempDir) -> Self {
        let disk = Disk::open(directory.path(), Holds::Records).await.unwrap();
        let queue = EmbeddedQueue::open(disk, settings(), Arc::new(SystemClock)).await.unwrap();
        Self { directory, queue }
    }
}

#[async_trait]
impl Home for Embedded {
    async fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::new(self.queue.clone())
    }

    async fn consumer(&self) -> Box<dyn Consumer> {
        Box::new(self.queue.consumer())
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.queue.clone())
    }

    /// A crash, as the next process sees it: the files as they are at this moment, without a close.
    async fn restart(&mut self) {
        let copy = TempDir::with_prefix("wxpay-queue-").unwrap();
        for file in fs::read_dir(self.directory.path()).unwrap().map(Result::unwrap) {
            if file.path().is_file() {
                fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
            }
        }
        *self = Self::open_in(copy).await;
    }

    fn out_at_a_time(&self) -> usize {
        usize::from(settings().prefetch)
    }
}
