//! The embedded queue: each reply after fdatasync, against writing and syncing groups of the same size and bytes.

use std::sync::Arc;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wxpay_ingress::Ingress;
use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    envelope::Api,
    http,
    merchant::{LiveMerchants, Merchants},
    queue::embedded::EmbeddedQueue,
    runtime::FINISH_BUDGET,
};

use super::super::{
    Progress, disk, load,
    report::{Figure, Target},
    stage::Stage,
    summary::{Samples, per_second},
};

const LEAST: u64 = 600;
const CONNECTIONS: [usize; 2] = [1, 64];

/// Ingress in this process, in front of the embedded queue and with no worker behind it.
pub(super) struct Embedded {
    port: u16,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
    disk: Disk,
}

impl Embedded {
    pub(super) async fn start(stage: &Stage, data: &std::path::Path) -> Result<Self> {
        let disk = Disk::open(data, Holds::Records).await?;
        let clock = Arc::new(SystemClock);
        let queue = EmbeddedQueue::open(disk.clone(), stage.config.queue_settings(), clock.clone()).await?;
        let merchants = Arc::new(LiveMerchants::new(Merchants::open(&stage.config)?));
        let ingress = Arc::new(Ingress::new(merchants, Arc::clone(&stage.play.seal), Arc::new(queue), clock));
        let listener = TcpListener::bind(super::loopback(0)).await?;
        let port = listener.local_addr()?.port();
        let stop = CancellationToken::new();
        let serve = http::serve(listener, wxpay_ingress::router(ingress), FINISH_BUDGET, stop.clone());
        Ok(Self { port, stop, serving: tokio::spawn(serve), disk })
    }

    pub(super) async fn accept(&self, stage: &Stage, connections: usize) -> Result<u64> {
        let requests = super::requests(stage, self.port, Api::V2)?;
        let plan = stage.effort.plan(connections, None);
        let target = load::Target { address: super::loopback(self.port), requests };
        Ok(per_second(load::run(target, plan).await?.accepted, plan.measured))
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.serving.await?;
        Ok(self.disk.close().await?)
    }
}

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let orders = stage.orders(1);
    let message = stage.play.message(&orders, 0);
    let bytes =
        message.body.len() + message.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    for connections in CONNECTIONS {
        let (mut accepted, mut synced, mut groups) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..stage.effort.repetitions {
            progress.step(&format!("embedded queue, {connections} connections"));
            let data = stage.fresh_directory()?;
            let embedded = Embedded::start(stage, &data).await?;
            let before = (embedded.disk.syncs(), std::time::Instant::now());
            let rate = embedded.accept(stage, connections).await?;
            let syncs = embedded.disk.syncs() - before.0;
            let group = (rate * u64::try_from(before.1.elapsed().as_millis())? / 1000 / syncs.max(1)).max(1);
            embedded.stop().await?;
            std::fs::remove_dir_all(&data)?;
            accepted.add(rate);
            groups.add(group);
            progress.step(&format!("writes and syncs in groups of {group}"));
            let (directory, measured) = (stage.directory.path().to_owned(), stage.effort.measured);
            let write = move || disk::synced_writes(&directory, bytes, group, measured);
            synced.add(tokio::task::spawn_blocking(write).await??);
        }
        let figure = Figure::new(format!("accepted, embedded queue, {connections} connections"), "/s", accepted);
        let figure = figure.against("write and fdatasync in groups of the same size", &synced);
        figures.push(figure.target(Target::RatioAtLeast(LEAST)).note(format!("groups of about {}", groups.median())));
    }
    Ok(figures)
}
