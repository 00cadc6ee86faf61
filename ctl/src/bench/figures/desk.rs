//! The desk: how long a person waits for the list of ten thousand dead letters.

use anyhow::Result;
use tokio::time::Instant;
use wxpay_shared::admin::{PAGE, Selection};

use super::super::{
    Progress, broker,
    report::{Figure, Target},
    stage::Stage,
    summary::Samples,
};

const LETTERS: u64 = 10_000;
const LIST_MILLIS: u64 = 2_000;

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    progress.step(&format!("{LETTERS} dead letters"));
    let orders = stage.orders(LETTERS);
    broker::fill_dead(stage, &orders).await?;
    let worker = stage.worker(&"embedded".into(), &stage.fresh_directory()?, &[]).await?;
    let client = worker.client()?;
    let mut list = Samples::default();
    for _ in 0..stage.effort.repetitions {
        progress.step("listing them");
        let begun = Instant::now();
        let found = client.dead_letters(&Selection::default(), PAGE, None).await?;
        list.add(u64::try_from(begun.elapsed().as_millis())?);
        anyhow::ensure!(found.matching == usize::try_from(LETTERS)?, "{} dead letters were listed", found.matching);
    }
    broker::purge_dead(stage).await?;
    let figure = Figure::new(format!("list of {LETTERS} dead letters on RabbitMQ"), "ms", list);
    Ok(vec![figure.target(Target::AtMost(LIST_MILLIS))])
}
