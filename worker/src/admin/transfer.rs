//! Export and import: dead letters as lines, byte for byte.
//!
//! An export leaves them where they are. An imported one is a dead letter again, under the same id; what is one already is
//! passed over, so that the same file can be imported twice.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc::Sender;
use wxpay_shared::{
    admin::{ExportEnd, ExportItem, Import, Imported, LetterFile, Selection},
    envelope::Message,
    queue::QueueError,
    store::audit::Action,
};

use super::{Answer, Failure, lines, select::Filter, selective, to_its_end, trail::Trail, turns::Reading};
use crate::Worker;

/// Letters that are added at the same time.
const ADDING: usize = 16;
/// Bytes of an import, at most: some thousand letters.
pub(super) const IMPORT_MAX: usize = 32 << 20;

pub(super) async fn export(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<Selection>, JsonRejection>,
) -> Answer<Response> {
    let Json(select) = body?;
    selective(&select)?;
    let (sender, receiver) = lines::channel();
    tokio::spawn(async move {
        let mut end = ExportEnd::default();
        if let Err(error) = tell(&worker, &select, &sender, &mut end.exported).await {
            end.problem = Some(Failure::from(error).1);
        }
        tracing::info!(exported = end.exported, problem = end.problem, "exported dead letters");
        // Where the client has gone there is nobody to tell.
        drop(sender.send(ExportItem::End(end)).await);
    });
    Ok(lines::response(receiver))
}

async fn tell(
    worker: &Arc<Worker>,
    select: &Selection,
    out: &Sender<ExportItem>,
    exported: &mut usize,
) -> Result<(), QueueError> {
    let merchants = worker.parts.merchants.now();
    let filter = Filter { select, merchants: &merchants };
    let mut reading = worker.read_dead_letters().await?;
    let told = async {
        while let Some(letter) = reading.next().await? {
            if filter.matches(&letter.message) {
                if out.send(ExportItem::Letter(LetterFile::of(&letter.message))).await.is_err() {
                    break;
                }
                *exported += 1;
            }
        }
        Ok(())
    };
    let told = told.await;
    reading.close().await;
    told
}

pub(super) async fn import(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<Import>, JsonRejection>,
) -> Answer<Json<Imported>> {
    let Json(request) = body?;
    let mut messages = Vec::with_capacity(request.letters.len());
    for (number, letter) in request.letters.iter().enumerate() {
        let bad = |error| Failure::new(StatusCode::UNPROCESSABLE_ENTITY, format!("letters[{number}]: {error}"));
        messages.push(letter.message().map_err(bad)?);
    }
    to_its_end(async move {
        let trail = Trail::new(&worker, Action::Import, request.by, request.why);
        let mut reading = worker.read_dead_letters().await?;
        let imported = add(&worker, &trail, messages, &mut reading).await;
        reading.close().await;
        imported.map(Json)
    })
    .await
}

async fn add(worker: &Worker, trail: &Trail, messages: Vec<Message>, reading: &mut Reading) -> Answer<Imported> {
    let mut known = HashSet::new();
    while let Some(letter) = reading.next().await? {
        known.insert(letter.message.id);
    }
    let mut present = Vec::new();
    let mut fresh = Vec::with_capacity(messages.len());
    for message in messages {
        if known.insert(message.id.clone()) { fresh.push(message) } else { present.push(message.id) }
    }
    let lines = trail.lines(worker, &worker.parts.merchants.now(), &fresh);
    worker.record(&lines).await?;
    let imported = fresh.iter().map(|message| message.id.clone()).collect();
    let desk = reading.desk();
    let adding = fresh.into_iter().map(|message| desk.add(message));
    let added: Vec<Result<(), QueueError>> = stream::iter(adding).buffered(ADDING).collect().await;
    for result in added {
        result?;
    }
    let results = vec![("imported", ""); lines.len()];
    worker.record_results(lines, results).await?;
    Ok(Imported { imported, present })
}
