//! What a large store costs: payments applied and accepted a second with more and more orders, in turns with a small store.

use std::path::PathBuf;

use anyhow::{Context, Result};
use secrecy::SecretString;

use super::{
    super::{
        Progress,
        notices::Orders,
        report::{Figure, Target},
        stage::{Stage, Store},
        summary::Samples,
    },
    embedded, register, worker,
};

const LEAST: u64 = 800;
/// Connections of the load on the embedded queue.
const CONNECTIONS: usize = 64;

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let (smallest, larger) = stage.effort.sizes.split_first().context("no sizes")?;
    for store in &stage.stores {
        let step = |what: &str, size: &u64| progress.step(&format!("{}: {what} {size} orders", store.name()));
        let mut growing = Filled::new(stage, store).await?;
        growing.fill(*smallest).await?;
        let mut first = Rates::default();
        for _ in 0..stage.effort.repetitions {
            step("a worker at", smallest);
            growing.measure(&mut first).await?;
        }
        figures.extend(first.figures(store, *smallest, None));
        for size in larger {
            step("registering", size);
            growing.fill(*size).await?;
            let (mut small, mut large) = (Rates::default(), Rates::default());
            for _ in 0..stage.effort.repetitions {
                step("a worker at", size);
                growing.measure(&mut large).await?;
                // A database that was given is the only one; what it did while it was small stands for it.
                if !matches!(store, Store::Given(_)) {
                    step("a worker at", smallest);
                    let mut fresh = Filled::new(stage, store).await?;
                    fresh.fill(*smallest).await?;
                    fresh.measure(&mut small).await?;
                    fresh.remove()?;
                }
            }
            let base = if matches!(store, Store::Given(_)) { &first } else { &small };
            figures.extend(large.figures(store, *size, Some((*smallest, base))));
        }
        growing.remove()?;
    }
    Ok(figures)
}

/// A store with orders in it, and a place for the worker's own records.
struct Filled<'a> {
    stage: &'a Stage,
    store: &'a Store,
    url: SecretString,
    data: PathBuf,
    orders: u64,
}

impl<'a> Filled<'a> {
    async fn new(stage: &'a Stage, store: &'a Store) -> Result<Self> {
        Ok(Self { stage, store, url: store.fresh().await?, data: stage.fresh_directory()?, orders: 0 })
    }

    /// Registers what is missing.
    async fn fill(&mut self, orders: u64) -> Result<()> {
        let missing = Orders { numbers: 0..orders.saturating_sub(self.orders), ..self.stage.orders(0) };
        register(self.stage, &self.url, &self.data, &missing).await?;
        self.orders = self.orders.max(orders);
        Ok(())
    }

    /// Lets a worker apply payments. Their orders come on top.
    async fn measure(&mut self, rates: &mut Rates) -> Result<()> {
        let orders = self.stage.orders(self.stage.effort.events);
        let place = (&self.url, self.data.as_path());
        rates.applied.add(worker::applied(self.stage, self.store, place, &orders, &[]).await?.rate);
        self.orders += self.stage.effort.events;
        if matches!(self.store, Store::Embedded) {
            rates.accepted.add(embedded::accept(self.stage, &self.data, CONNECTIONS).await?.0);
        }
        Ok(())
    }

    fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(self.data).context("the data of a run")
    }
}

/// What a store of one size did in a second.
#[derive(Default)]
struct Rates {
    applied: Samples,
    /// On the embedded queue beside the embedded store.
    accepted: Samples,
}

impl Rates {
    /// Held against a smaller store, where there is one.
    fn figures(&self, store: &Store, orders: u64, smaller: Option<(u64, &Self)>) -> Vec<Figure> {
        let compare = |name: String, of: fn(&Self) -> &Samples| {
            let figure = Figure::new(name, "/s", of(self).clone());
            let Some((smallest, rates)) = smaller else { return figure };
            figure.against(format!("at {smallest} orders"), of(rates)).target(Target::RatioAtLeast(LEAST))
        };
        let applied = compare(format!("applied at {orders} orders, {}", store.name()), |rates| &rates.applied);
        if !matches!(store, Store::Embedded) {
            return vec![applied];
        }
        let beside = format!("accepted at {orders} orders, embedded queue beside them");
        vec![
            applied.bounded_by("what sled reads and writes beyond its cache"),
            compare(beside, |rates| &rates.accepted),
        ]
    }
}
