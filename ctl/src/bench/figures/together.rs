//! Ingress and worker at the same time, in a steady state, against what the CPU that each needs alone allows; and the
//! time from SUCCESS to applied at half that rate.

use std::{path::Path, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use secrecy::SecretString;
use tokio::time::Instant;
use wxpay_shared::envelope::Api;

use super::{
    super::{
        Progress, broker,
        load::microseconds,
        process,
        report::{Figure, Target},
        stage::{Program, Stage, Store},
        summary::Samples,
    },
    Run, accept, accept_these, broker_cpu, costs, loopback, micros, register, worker,
};

const LEAST: u64 = 800;
const APPLIED_P99: u64 = 100_000;
/// Connections of the closed loop that measures ingress alone.
const CLOSED: usize = 64;
/// Connections over which the open loop sends; one is free whenever a request is due.
const OPEN: usize = 512;
/// Tries to come near the highest steady rate.
const TRIES: u32 = 6;
/// How often the worker is asked how far it is, and so how exact the time to applied is.
const LOOK: Duration = Duration::from_millis(5);
/// The same where only the end counts: each question costs CPU that the load needs.
const LOOK_SELDOM: Duration = Duration::from_millis(200);
/// The broker's disk stalls now and then at any rate. So a rate is too high only where the queue grew each of these times.
const RUNS_AT_A_RATE: u32 = 2;
/// The queue may hold this share of what came, in thousandths, when a steady run ends.
const STEADY: u64 = 30;
/// Without any progress for so long, it will not come.
const STALLED: Duration = Duration::from_secs(30);

/// One run of both.
struct Both {
    run: Run,
    /// CPU time for one notification, in nanoseconds: ingress, broker, worker, the store's server, load generator.
    cost: [u64; 5],
    /// How many were not applied yet when the load ended.
    left: u64,
    /// When how many deliveries were applied.
    ends: Vec<(Instant, u64)>,
}

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    // The store that most users have, of those that are there.
    let store = stage.stores.get(1).or(stage.stores.first()).context("no store")?;
    let url = store.fresh().await?;
    let data = stage.fresh_directory()?;
    let (mut together, mut allowed) = (Samples::default(), Samples::default());
    let (mut p50, mut p99) = (Samples::default(), Samples::default());
    let mut notes = (String::new(), String::new());
    for _ in 0..stage.effort.repetitions {
        progress.step("ingress alone, worker alone");
        let (alone, cost) = allowed_rate(stage, store, (&url, &data)).await?;
        progress.step(&format!("{}: ingress and worker together", store.name()));
        let (rate, cost_together) = steady_rate(stage, store, (&url, &data), alone).await?;
        notes = (cost, cost_together);
        allowed.add(alone);
        together.add(rate);
        progress.step(&format!("{}: at half of that rate", store.name()));
        let both = both(stage, store, (&url, &data), rate / 2, LOOK).await?;
        let delays = both.delays()?;
        p50.add(delays.value_at_quantile(0.5));
        p99.add(delays.value_at_quantile(0.99));
    }
    let name = format!("ingress and worker together, {}, steady", store.name());
    let figure = Figure::new(name, "/s", together).against("what the CPU of both alone allows", &allowed);
    let applied = Figure::new("SUCCESS to applied at half of that, p99", "µs", p99).target(Target::AtMost(APPLIED_P99));
    let applied = applied.note(format!("median {} µs, looked at every {} ms", p50.median(), LOOK.as_millis()));
    let figure = figure.target(Target::RatioAtLeast(LEAST)).note(notes.0).note(notes.1);
    Ok(vec![figure.bounded_by("the processors' caches, which four programs share"), applied])
}

/// The rate at which all processors are busy, if each notification costs what it costs ingress and worker alone.
async fn allowed_rate(stage: &Stage, store: &Store, at: (&SecretString, &Path)) -> Result<(u64, String)> {
    let ingress = stage.ingress().await?;
    let accepted = accept(stage, &ingress, Api::V2, CLOSED, None).await?;
    drop(ingress);
    broker::purge(stage).await?;
    let orders = stage.orders(stage.effort.events);
    let applied = worker::applied(stage, store, at, &orders, &[]).await?;
    let ([ingress, broker, generator], [worker, broker_again, server]) = (accepted.cost, applied.cost);
    let sum = accepted.cost.iter().chain(&applied.cost).sum::<u64>().max(1);
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let note = cost_note("alone", [ingress, broker + broker_again, worker, server, generator]);
    Ok((cpus.saturating_mul(1_000_000_000) / sum, note))
}

fn cost_note(which: &str, cost: [u64; 5]) -> String {
    let [ingress, broker, worker, server, generator] = cost.map(micros);
    format!(
        "CPU µs each, {which}: ingress {ingress}, broker {broker}, worker {worker}, store's server {server}, \
         generator {generator}"
    )
}

/// The highest rate that was tried at which the queue did not grow, and what a notification cost then.
async fn steady_rate(stage: &Stage, store: &Store, at: (&SecretString, &Path), first: u64) -> Result<(u64, String)> {
    let (mut low, mut high, mut note) = (0, first * 12 / 10, "no rate that was tried was steady".to_owned());
    for _ in 0..TRIES {
        let rate = if low == 0 { high * 6 / 10 } else { u64::midpoint(low, high) };
        let mut held = None;
        for _ in 0..RUNS_AT_A_RATE {
            let both = both(stage, store, at, rate, LOOK_SELDOM).await?;
            if both.held(rate) {
                held = Some(both);
                break;
            }
        }
        match held {
            Some(both) => (low, note) = (both.run.rate, cost_note("together", both.cost)),
            None => high = rate,
        }
    }
    Ok((low, note))
}

/// Both programs at this rate of requests, until everything that was accepted is applied.
async fn both(
    stage: &Stage,
    store: &Store,
    (url, data): (&SecretString, &Path),
    rate: u64,
    look: Duration,
) -> Result<Both> {
    let plan = stage.effort.plan(OPEN, Some(rate));
    let milliseconds = u64::try_from((plan.warm_up + plan.measured).as_millis())?;
    let orders = stage.orders(rate * milliseconds / 1000 + OPEN as u64);
    register(stage, url, data, &orders).await?;
    let ingress = stage.ingress().await?;
    let path = format!("/v2/{}", crate::dev_merchant::NAME);
    let requests = stage.play.requests(Api::V2, &orders, loopback(ingress.notify_port), &path)?;
    let worker = stage.worker(url, data, &[]).await?;
    let cpu = || {
        let server = store.pid().map(process::cpu_of_tree).unwrap_or_default();
        [ingress.cpu(), broker_cpu(stage), worker.cpu(), server, process::cpu_of_self()]
    };
    let (accepted, before) = (OnceLock::new(), cpu());
    let load = async {
        let run = accept_these(stage, &ingress, requests, plan).await?;
        let came = accepted.get_or_init(|| run.outcome.replies.len() as u64);
        let left = came.saturating_sub(worker.count("applied").await?);
        Ok((run, left))
    };
    let ((run, left), ends) = tokio::try_join!(load, watch(&worker, &accepted, look))?;
    let cost = costs(before, cpu(), run.outcome.replies.len() as u64);
    Ok(Both { run, cost, left, ends })
}

/// How many deliveries were applied at which time, until all are that were accepted.
async fn watch(worker: &Program, accepted: &OnceLock<u64>, look: Duration) -> Result<Vec<(Instant, u64)>> {
    let mut seen = vec![(Instant::now(), 0)];
    loop {
        let (now, applied) = (Instant::now(), worker.count("applied").await?);
        if seen.last().is_none_or(|(_, before)| applied > *before) {
            seen.push((now, applied));
        }
        if accepted.get().is_some_and(|accepted| applied >= *accepted) {
            return Ok(seen);
        }
        if seen.last().is_some_and(|(at, _)| now - *at > STALLED) {
            bail!("the worker stopped at {applied}");
        }
        tokio::time::sleep(look).await;
    }
}

impl Both {
    /// Whether the load came at this rate, and the queue did not grow.
    fn held(&self, rate: u64) -> bool {
        let came = self.run.outcome.replies.len() as u64;
        self.left * 1000 <= came * STEADY && self.run.rate * 1000 >= rate * (1000 - STEADY)
    }

    /// From the n-th reply to the n-th end, in microseconds: the queue keeps the order, but for what is handled at the
    /// same time.
    fn delays(&self) -> Result<Histogram<u64>> {
        let mut delays = microseconds();
        let mut ends = self.ends.iter().peekable();
        for (number, reply) in self.run.outcome.replies.iter().enumerate() {
            while ends.next_if(|(_, applied)| *applied <= number as u64).is_some() {}
            let Some((end, _)) = ends.peek() else { break };
            let delay = end.saturating_duration_since(self.run.outcome.started + *reply);
            delays.saturating_record(u64::try_from(delay.as_micros())?);
        }
        Ok(delays)
    }
}
