//! What a large store costs: applied and accepted a second with more and more orders, against the smallest store.

use anyhow::{Context, Result};

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
    for store in &stage.stores {
        let (url, data) = (store.fresh().await?, stage.fresh_directory()?);
        let (mut held, mut applied_first, mut accepted_first) = (0, None, None);
        for size in &stage.effort.sizes {
            progress.step(&format!("{}: {size} orders", store.name()));
            // The payments that are applied come on top, and count for the next size.
            let filler = Orders { numbers: 0..size.saturating_sub(held), ..stage.orders(0) };
            register(stage, &url, &data, &filler).await?;
            held = *size;
            let (mut applied, mut accepted) = (Samples::default(), Samples::default());
            for _ in 0..stage.effort.repetitions {
                progress.step(&format!("{}: a worker at {size} orders", store.name()));
                let orders = stage.orders(stage.effort.events);
                applied.add(worker::applied(stage, store, (&url, &data), &orders, &[]).await?.rate);
                held += stage.effort.events;
                if matches!(store, Store::Embedded) {
                    let (rate, _) = embedded::accept(stage, &data, CONNECTIONS).await?;
                    accepted.add(rate);
                }
            }
            let figure = compare(format!("applied at {size} orders, {}", store.name()), applied, &mut applied_first);
            let embedded = matches!(store, Store::Embedded);
            figures.push(if embedded {
                figure.bounded_by("what sled reads and writes beyond its cache")
            } else {
                figure
            });
            if embedded {
                let name = format!("accepted at {size} orders, embedded queue beside them");
                figures.push(compare(name, accepted, &mut accepted_first));
            }
        }
        std::fs::remove_dir_all(&data).context("the data of a run")?;
    }
    Ok(figures)
}

/// The first size is what the others are held against.
fn compare(name: String, samples: Samples, first: &mut Option<Samples>) -> Figure {
    let figure = Figure::new(name, "/s", samples.clone());
    match first {
        Some(first) => figure.against("the smallest", first).target(Target::RatioAtLeast(LEAST)),
        None => {
            *first = Some(samples);
            figure
        }
    }
}
