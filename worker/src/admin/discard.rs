//! The discard: dead letters that nobody needs any more go for good, and the audit record keeps who said so and why.

use std::sync::Arc;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use wxpay_shared::{
    admin::{Discard, Discarded},
    metric,
    queue::Delivery,
    store::audit::Action,
};

use super::{Answer, Failure, select::Filter, selective, to_its_end, trail::Trail, turns::Reading};
use crate::Worker;

/// Dead letters that go together.
const CHUNK: usize = 100;

pub(super) async fn discard(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<Discard>, JsonRejection>,
) -> Answer<Json<Discarded>> {
    let Json(request) = body?;
    selective(&request.select)?;
    if request.reason.trim().is_empty() {
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "reason: say why they may go"));
    }
    to_its_end(async move {
        let trail = Trail::new(&worker, Action::Discard, request.by.clone(), Some(request.reason.clone()));
        let mut reading = worker.read_dead_letters().await?;
        let discarded = matching(&worker, &request, &trail, &mut reading).await;
        reading.close().await;
        discarded.map(Json)
    })
    .await
}

async fn matching(worker: &Worker, request: &Discard, trail: &Trail, reading: &mut Reading) -> Answer<Discarded> {
    let merchants = worker.parts.merchants.now();
    let filter = Filter { select: &request.select, merchants: &merchants };
    let mut discarded = Discarded { ids: Vec::new() };
    let mut chunk: Vec<Delivery> = Vec::with_capacity(CHUNK);
    loop {
        let letter = reading.next().await?;
        let ended = letter.is_none();
        chunk.extend(letter.filter(|letter| filter.matches(&letter.message)));
        if chunk.len() == CHUNK || ended {
            let letters = std::mem::take(&mut chunk);
            let lines = trail.lines(worker, &merchants, letters.iter().map(|letter| &letter.message));
            worker.record(&lines).await?;
            reading.desk().ack(&letters.iter().map(|letter| letter.ticket).collect::<Vec<_>>()).await?;
            for line in &lines {
                metric::discarded(line.reason);
                let (dead_for, by) = (line.reason.code(), trail.by());
                tracing::warn!(notification = %line.notification, dead_for, by, why = line.why, "discarded a dead letter");
            }
            let results = vec![("discarded", ""); lines.len()];
            worker.record_results(lines, results).await?;
            discarded.ids.extend(letters.into_iter().map(|letter| letter.message.id));
        }
        if ended {
            return Ok(discarded);
        }
    }
}
