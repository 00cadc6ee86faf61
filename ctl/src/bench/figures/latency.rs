//! The time to the reply: at 64 connections, and at 80 % of the highest rate with a load that does not wait for replies.

use anyhow::Result;
use hdrhistogram::Histogram;
use wxpay_shared::envelope::Api;

use super::{
    super::{
        Progress, broker,
        load::{Outcome, Plan},
        report::{Figure, Target},
        stage::Stage,
        summary::Samples,
    },
    MESSAGES, accept, accept_these, requests,
};

const P99: u64 = 10_000;
const P999: u64 = 25_000;
/// Connections of the closed loop; the rate is the highest of them.
const CLOSED: [usize; 2] = [64, 512];
/// Connections over which the open loop sends; one is free whenever a request is due.
const OPEN: usize = 512;
/// The open loop is measured so many times as long. At its rate the broker begins a new write-ahead log each 14 s or so, and
/// what comes then waits; a shorter time has that moment in it by chance.
const LONGER: u32 = 5;

/// What it is where a time is missed.
const BOUND: &str = "the disk under the broker, while that deletes an old write-ahead log";

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let ingress = stage.ingress().await?;
    let mut closed = Quantiles::default();
    let mut open = Quantiles::default();
    let (mut bare, mut rates) = (Quantiles::default(), Samples::default());
    let orders = stage.orders(MESSAGES);
    let messages: Vec<_> = orders.numbers.clone().map(|number| stage.play.message(&orders, number)).collect();
    for _ in 0..stage.effort.repetitions {
        let mut highest = 0;
        for connections in CLOSED {
            progress.step(&format!("latency, {connections} connections"));
            let run = accept(stage, &ingress, Api::V2, connections, None).await?;
            broker::purge(stage).await?;
            highest = highest.max(run.rate);
            if connections == CLOSED[0] {
                closed.add_run(&run.outcome);
            }
        }
        let rate = highest * 8 / 10;
        progress.step(&format!("latency, open loop at {rate}/s"));
        let plan = stage.effort.plan(OPEN, Some(rate));
        let plan = Plan { measured: plan.measured * LONGER, ..plan };
        let run = accept_these(stage, &ingress, requests(stage, ingress.notify_port, Api::V2)?, plan).await?;
        broker::purge(stage).await?;
        rates.add(run.rate);
        open.add_run(&run.outcome);
        progress.step(&format!("latency, bare publisher at {rate}/s"));
        bare.add(&broker::bare_open_loop(stage, &messages, rate, plan.measured).await?);
        broker::purge(stage).await?;
    }
    let mut figures: Vec<_> = closed.figures("reply, 64 connections").map(|figure| figure.bounded_by(BOUND)).into();
    let name = format!("reply, open loop, {} /s (80 % of the highest)", rates.median());
    let baseline = "bare publisher's confirm at the same rate";
    let quantiles = open.figures(&name).into_iter().zip([bare.p99, bare.p999]);
    figures.extend(quantiles.map(|(figure, bare)| figure.against(baseline, &bare).bounded_by(BOUND)));
    Ok(figures)
}

#[derive(Default)]
struct Quantiles {
    p50: Samples,
    p99: Samples,
    p999: Samples,
    silence: Samples,
}

impl Quantiles {
    fn add_run(&mut self, outcome: &Outcome) {
        self.add(&outcome.latency);
        self.silence.add(u64::try_from(outcome.silence().as_micros()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, latency: &Histogram<u64>) {
        self.p50.add(latency.value_at_quantile(0.5));
        self.p99.add(latency.value_at_quantile(0.99));
        self.p999.add(latency.value_at_quantile(0.999));
    }

    fn figures(self, name: &str) -> [Figure; 2] {
        let p99 = Figure::new(format!("{name}, p99"), "µs", self.p99).target(Target::AtMost(P99));
        let p99 = p99.note(format!("median {} µs", self.p50.median()));
        let p999 = Figure::new(format!("{name}, p99.9"), "µs", self.p999).target(Target::AtMost(P999));
        let longest = (self.silence.median(), self.silence.min(), self.silence.max());
        let p999 = p999.note(format!("longest time without any reply: {} ({}–{}) µs", longest.0, longest.1, longest.2));
        [p99, p999]
    }
}
