//! Somebody else's handler: the same load and the same notifications, to an address of the user's choice.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use wxpay_shared::envelope::Api;

use super::super::{
    Effort, Progress,
    load::{self, Plan},
    notices::{Orders, Play},
    report::Figure,
    summary::{Samples, per_second},
};

const CONNECTIONS: [usize; 2] = [64, 512];

/// The payments of these orders, which the handler must know; each is sent once, then all of them again.
pub(crate) async fn measure(
    play: &Play,
    effort: &Effort,
    orders: &Orders,
    (address, path): (SocketAddr, &str),
    progress: &Progress,
) -> Result<Vec<Figure>> {
    let requests = play.requests(Api::V2, orders, address, path)?;
    let mut figures = Vec::new();
    let mut first = 0;
    for connections in CONNECTIONS {
        let (mut rate, mut p50, mut p99) = (Samples::default(), Samples::default(), Samples::default());
        for _ in 0..effort.repetitions {
            progress.step(&format!("{address}, {connections} connections"));
            let plan = Plan { first, ..effort.plan(connections, None) };
            let outcome = load::run(load::Target { address, requests: Arc::clone(&requests) }, plan).await?;
            first += outcome.replies.len();
            rate.add(per_second(outcome.accepted, plan.measured));
            p50.add(outcome.latency.value_at_quantile(0.5));
            p99.add(outcome.latency.value_at_quantile(0.99));
        }
        figures.push(Figure::new(format!("accepted, {connections} connections"), "/s", rate));
        figures.push(Figure::new(format!("reply, {connections} connections, median"), "µs", p50));
        figures.push(Figure::new(format!("reply, {connections} connections, p99"), "µs", p99));
    }
    Ok(figures)
}
