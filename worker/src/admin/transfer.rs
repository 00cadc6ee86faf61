//! Export and import: dead letters as lines, byte for byte.
//!
//! An export leaves them where they are. An imported one is a dead letter again, under the same id; what is one already is
//! passed over, so that the same file can be imported twice.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::mpsc::Sender,
    time::{sleep, timeout},
};
use wxpay_shared::{
    admin::{ExportEnd, ExportItem, Import, Imported, LetterFile, Selection},
    envelope::Message,
    queue::QueueError,
    store::audit::Action,
};

use super::{
    Answer, Failure,
    copies::{Copies, Key},
    lines,
    select::Filter,
    selective, to_its_end,
    trail::Trail,
    turns::{ROOM, Reading},
};
use crate::Worker;

/// Letters that are added at the same time.
const ADDING: usize = 16;
/// How often an export whose client takes no line asks whether somebody else should have the dead letters.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of an import, at most: some thousand letters.
pub(super) const IMPORT_MAX: usize = 32 << 20;

pub(super) async fn export(
    State(worker): State<Arc<Worker>>,
    body: Result<Json<Selection>, JsonRejection>,
) -> Answer<Response> {
    let Json(select) = body?;
    selective(&select)?;
    let (sender, receiver) = lines::channel();
    let export = Export { worker, select, out: sender, exported: 0, copies: Copies::default(), told: HashSet::new() };
    tokio::spawn(export.run());
    Ok(lines::response(receiver))
}

/// An export on its way. A reading of the dead letters does not last as long as its client may take: it is closed and
/// opened again on the way, and what was told in an earlier reading is passed over.
struct Export {
    worker: Arc<Worker>,
    select: Selection,
    out: Sender<ExportItem>,
    exported: usize,
    /// How a letter is known again.
    copies: Copies,
    /// Those that earlier readings told.
    told: HashSet<Key>,
}

/// Why a reading ended.
enum Pause {
    /// Every dead letter was looked at.
    End,
    /// Somebody else should have the dead letters for a moment.
    Room,
    /// Nobody takes the lines any more.
    Gone,
}

impl Export {
    async fn run(mut self) {
        let problem = self.readings().await.err().map(|error| Failure::from(error).1);
        let end = ExportEnd { exported: self.exported, problem };
        tracing::info!(exported = end.exported, problem = end.problem, "exported dead letters");
        // Where the client has gone there is nobody to tell.
        drop(self.out.send(ExportItem::End(end)).await);
    }

    async fn readings(&mut self) -> Result<(), QueueError> {
        loop {
            let mut reading = self.worker.read_dead_letters().await?;
            let mut fresh = Vec::new();
            let paused = self.read(&mut reading, &mut fresh).await;
            reading.close().await;
            self.told.extend(fresh);
            match paused? {
                Pause::Room => sleep(ROOM).await,
                Pause::End | Pause::Gone => return Ok(()),
            }
            // Until the client has taken all, so that the next reading tells it something, however slow it is.
            if self.out.reserve_many(self.out.max_capacity()).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn read(&mut self, reading: &mut Reading, fresh: &mut Vec<Key>) -> Result<Pause, QueueError> {
        let merchants = self.worker.parts.merchants.now();
        let filter = Filter { select: &self.select, merchants: &merchants };
        while let Some(letter) = reading.next().await? {
            if !filter.matches(&letter.message) {
                continue;
            }
            let key = self.copies.key(&letter.message);
            if self.told.contains(&key) {
                continue;
            }
            if fresh.len() >= self.out.max_capacity() && reading.should_make_room() {
                return Ok(Pause::Room);
            }
            let line = loop {
                match timeout(LOOK_AGAIN, self.out.reserve()).await {
                    Ok(Ok(line)) => break line,
                    Ok(Err(_)) => return Ok(Pause::Gone),
                    Err(_) if reading.should_make_room() => return Ok(Pause::Room),
                    Err(_) => {}
                }
            };
            line.send(ExportItem::Letter(LetterFile::of(&letter.message)));
            self.exported += 1;
            fresh.push(key);
        }
        Ok(Pause::End)
    }
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
