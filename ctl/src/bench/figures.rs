//! The figures, a file each group, and what they share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use wxpay_shared::envelope::Api;

use super::{
    load::{self, Outcome, Plan, Target},
    notices::Orders,
    process,
    stage::{Program, Stage},
    summary::per_second,
};

pub(super) mod desk;
pub(super) mod embedded;
pub(super) mod growth;
pub(super) mod ingress;
pub(super) mod latency;
pub(super) mod memory;
pub(super) mod post;
pub(super) mod together;
pub(super) mod worker;

/// Different v2 notifications of one run; ingress keeps nothing of them, so they may come round again.
const DIFFERENT_V2: u64 = 4_000;
/// Different messages of the bare publishers.
const MESSAGES: u64 = 1_000;
/// Signing by RSA takes its time.
const DIFFERENT_V3: u64 = 400;

/// A run of the load against `wxpay-ingress` on the broker.
struct Run {
    rate: u64,
    outcome: Outcome,
    /// CPU time for one notification, in nanoseconds: ingress, broker, load generator.
    cost: [u64; 3],
}

impl Run {
    fn notes(&self) -> String {
        let [ingress, broker, generator] = self.cost.map(micros);
        let [p50, p99] = [0.5, 0.99].map(|quantile| self.outcome.latency.value_at_quantile(quantile));
        format!(
            "CPU µs each: ingress {ingress}, broker {broker}, generator {generator}; reply p50 {p50} µs, p99 {p99} µs"
        )
    }
}

/// Nanoseconds as microseconds with one digit.
fn micros(nanos: u64) -> String {
    format!("{}.{}", nanos / 1000, nanos % 1000 / 100)
}

fn nanos_each(time: Duration, count: u64) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).checked_div(count).unwrap_or(0)
}

/// Loads this ingress with notifications that come round again.
async fn accept(stage: &Stage, ingress: &Program, api: Api, connections: usize, rate: Option<u64>) -> Result<Run> {
    let requests = requests(stage, ingress.notify_port, api)?;
    let plan = stage.effort.plan(connections, rate);
    accept_these(stage, ingress, requests, plan).await
}

fn requests(stage: &Stage, port: u16, api: Api) -> Result<Arc<Vec<Vec<u8>>>> {
    let different = if api == Api::V2 { DIFFERENT_V2 } else { DIFFERENT_V3 };
    let path = format!("/{}/{}", api.code(), crate::dev_merchant::NAME);
    stage.play.requests(api, &stage.orders(different), loopback(port), &path)
}

async fn accept_these(stage: &Stage, ingress: &Program, requests: Arc<Vec<Vec<u8>>>, plan: Plan) -> Result<Run> {
    let cpu = || [ingress.cpu(), broker_cpu(stage), process::cpu_of_self()];
    let before = cpu();
    let outcome = load::run(Target { address: loopback(ingress.notify_port), requests }, plan).await?;
    let cost = costs(before, cpu(), outcome.replies.len() as u64);
    Ok(Run { rate: per_second(outcome.accepted, plan.measured), outcome, cost })
}

/// The broker's CPU time so far; none where it is not ours to ask.
fn broker_cpu(stage: &Stage) -> Duration {
    broker_pid(stage).map(process::cpu_of_tree).unwrap_or_default()
}

fn broker_pid(stage: &Stage) -> Option<u32> {
    stage.broker.as_ref().and_then(super::stage::Broker::pid)
}

/// What one of `count` took of each part, in nanoseconds.
fn costs<const PARTS: usize>(before: [Duration; PARTS], after: [Duration; PARTS], count: u64) -> [u64; PARTS] {
    std::array::from_fn(|part| nanos_each(after[part].saturating_sub(before[part]), count))
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Makes orders known to a store, as a shop does.
async fn register(stage: &Stage, url: &secrecy::SecretString, data: &std::path::Path, orders: &Orders) -> Result<()> {
    use futures_util::{StreamExt as _, TryStreamExt as _, stream};
    use secrecy::ExposeSecret as _;
    use wxpay_shared::{
        clock::SystemClock,
        disk::{Disk, Holds},
        store::{Store as _, embedded::EmbeddedStore},
    };

    /// Rows of one statement.
    const ROWS: u64 = 1_000;
    /// Registrations at a time: they share their syncs.
    const AT_A_TIME: usize = 2_000;

    if url.expose_secret() == "embedded" {
        let disk = Disk::open(data, Holds::Records).await?;
        let store = EmbeddedStore::open(disk.clone(), Arc::new(SystemClock))?;
        let registered = orders.numbers.clone().map(|number| {
            let (store, registration) = (store.clone(), stage.play.registration(orders, number));
            async move { store.register(&registration).await }
        });
        stream::iter(registered).buffer_unordered(AT_A_TIME).try_for_each(async |_| Ok(())).await?;
        drop(store);
        return Ok(disk.close().await?);
    }
    let mut session = wxpay_servers::database::Session::connect(url.expose_secret()).await?;
    let (mut first, end) = (orders.numbers.start, orders.numbers.end);
    while first < end {
        let next = end.min(first + ROWS);
        session.run(&super::notices::Play::rows(orders, first..next)).await?;
        first = next;
    }
    Ok(())
}
