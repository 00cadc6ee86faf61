//! The replay: dead letters through the worker's own flow once more.
//!
//! What comes back is what really happened to each, and a dead letter goes only after that is durable: the audit record
//! says what is about to happen, the flow runs, the record says what came of it, and then the letter is acked or parked.
//! Whoever stops it half-way starts it again. A dry run makes the same decisions over a copy of the records and writes
//! nothing.
//!
//! A reading of the dead letters does not last as long as a slow replay does. It is closed and opened again on the way,
//! and what was tried in an earlier reading is passed over. A copy of a letter that a crash left goes once the letter itself
//! is settled.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header::ACCEPT},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep_until},
};
use wxpay_shared::{
    admin::{PAGE, PAGE_MAX, Replay, ReplayEnd, ReplayItem, ReplayOutcome, ReplayResult, Replayed},
    ids::NotificationId,
    merchant::Merchants,
    metric,
    queue::{Delivery, Desk, Home, QueueError},
    store::{StoreError, audit::Action, seen::Seen},
    trace::Handling,
};

use super::{
    Answer, Failure,
    copies::{Copies, last_attempt, same},
    lines,
    select::Filter,
    selective,
    trail::Trail,
    turns::{ROOM, Reading},
};
use crate::{Worker, settle::Ending};

mod rehearsal;

/// Dead letters that are tried together.
const CHUNK: usize = 100;
/// Letters that are moved to their next home at the same time.
const PARKING: usize = 16;

pub(super) async fn replay(
    State(worker): State<Arc<Worker>>,
    headers: HeaderMap,
    body: Result<Json<Replay>, JsonRejection>,
) -> Answer<Response> {
    let Json(request) = body?;
    selective(&request.select)?;
    if request.rate == Some(0) {
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "rate: expected at least 1 a second"));
    }
    let streams = headers.get(ACCEPT).is_some_and(|accept| accept == lines::NDJSON);
    let limit = request.limit.unwrap_or(PAGE);
    let limit = if streams { limit } else { limit.min(PAGE_MAX) };
    let (sender, mut receiver) = lines::channel();
    let run = Run::new(worker, request, limit, sender);
    tokio::spawn(run.run());
    if streams {
        return Ok(lines::response(receiver));
    }
    let (mut results, mut end) = (Vec::new(), ReplayEnd::default());
    while let Some(item) = receiver.recv().await {
        match item {
            ReplayItem::Result(result) => results.push(result),
            ReplayItem::End(it) => end = it,
        }
    }
    match end.problem {
        Some(problem) if results.is_empty() => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, problem)),
        problem => Ok(Json(Replayed { results, end: ReplayEnd { problem, ..end } }).into_response()),
    }
}

/// A replay on its way.
struct Run {
    worker: Arc<Worker>,
    merchants: Arc<Merchants>,
    request: Replay,
    trail: Trail,
    limit: usize,
    out: Sender<ReplayItem>,
    /// How many were tried.
    tried: usize,
    /// How many that match were passed over in this reading, because of the limit.
    left: usize,
    /// Those that were tried and are dead letters still.
    still_dead: HashSet<NotificationId>,
    /// What this reading settled.
    copies: Copies,
    /// The records as a dry run's answers change them.
    seen: Seen,
    /// When the next ones may be tried.
    not_before: Instant,
}

/// Why a reading ended.
enum Pause {
    /// Every dead letter was looked at.
    End,
    /// Somebody else should have the dead letters for a moment.
    Room,
    /// Nobody takes the results any more.
    Gone,
}

/// Why a replay cannot go on.
enum Stop {
    Queue(QueueError),
    Store(StoreError),
}

impl From<QueueError> for Stop {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Run {
    fn new(worker: Arc<Worker>, request: Replay, limit: usize, out: Sender<ReplayItem>) -> Self {
        Self {
            merchants: worker.parts.merchants.now(),
            trail: Trail::new(&worker, Action::Replay, request.by.clone(), request.why.clone()),
            worker,
            request,
            limit,
            out,
            tried: 0,
            left: 0,
            still_dead: HashSet::new(),
            copies: Copies::default(),
            seen: Seen::default(),
            not_before: Instant::now(),
        }
    }

    async fn run(mut self) {
        let problem = match self.readings().await {
            Ok(()) => None,
            Err(Stop::Queue(error)) => Some(Failure::from(error).1),
            Err(Stop::Store(error)) => Some(Failure::from(error).1),
        };
        let (tried, by, dry_run) = (self.tried, self.trail.by(), self.request.dry_run);
        tracing::info!(tried, left = self.left, by, dry_run, problem, "replay ended");
        let end = ReplayItem::End(ReplayEnd { left: self.left, problem });
        // Where the client has gone there is nobody to tell.
        drop(self.out.send(end).await);
    }

    async fn readings(&mut self) -> Result<(), Stop> {
        loop {
            let mut reading = self.worker.read_dead_letters().await?;
            let paused = self.read(&mut reading).await;
            reading.close().await;
            match paused? {
                Pause::Room => tokio::time::sleep(ROOM).await,
                Pause::End | Pause::Gone => return Ok(()),
            }
        }
    }

    async fn read(&mut self, reading: &mut Reading) -> Result<Pause, Stop> {
        self.left = 0;
        self.copies = Copies::default();
        let size = self.request.rate.map_or(CHUNK, |rate| CHUNK.min(usize::try_from(rate).unwrap_or(CHUNK)));
        let mut chunk: Vec<Delivery> = Vec::with_capacity(size);
        while let Some(letter) = reading.next().await? {
            if !(Filter { select: &self.request.select, merchants: &self.merchants }).matches(&letter.message) {
                continue;
            }
            // What becomes of the first decides about its copy.
            if chunk.iter().any(|tried| same(&tried.message, &letter.message))
                && !self.try_chunk(reading.desk(), &mut chunk).await?
            {
                return Ok(Pause::Gone);
            }
            if self.copies.is_surplus(&letter.message) {
                self.drop_copy(reading.desk(), &letter).await?;
            } else if self.still_dead.contains(&letter.message.id) {
                // It was tried: in an earlier reading, or by a dry run as the letter that this is a copy of.
            } else if self.tried + chunk.len() < self.limit {
                chunk.push(letter);
            } else {
                self.left += 1;
            }
            if chunk.len() == size {
                if !self.try_chunk(reading.desk(), &mut chunk).await? {
                    return Ok(Pause::Gone);
                }
                if reading.should_make_room() {
                    return Ok(Pause::Room);
                }
            }
        }
        let is_awaited = chunk.is_empty() || self.try_chunk(reading.desk(), &mut chunk).await?;
        Ok(if is_awaited { Pause::End } else { Pause::Gone })
    }

    async fn drop_copy(&self, desk: &dyn Desk, copy: &Delivery) -> Result<(), QueueError> {
        tracing::info!(notification = %copy.message.id, "dropped the copy of a dead letter");
        desk.ack(&[copy.ticket]).await
    }

    /// Tries what was gathered, when it may. Whether somebody still wants to know.
    async fn try_chunk(&mut self, desk: &dyn Desk, chunk: &mut Vec<Delivery>) -> Result<bool, Stop> {
        let letters = std::mem::take(chunk);
        Ok(self.wait_for_turn(letters.len()).await && self.try_together(desk, letters).await?)
    }

    /// Keeps to the rate. Whether somebody still wants to know.
    async fn wait_for_turn(&mut self, count: usize) -> bool {
        if let Some(rate) = self.request.rate {
            tokio::select! {
                () = sleep_until(self.not_before) => {}
                () = self.out.closed() => {}
            }
            let pause = Duration::from_secs(u64::try_from(count).unwrap_or(u64::MAX)) / rate;
            self.not_before = Instant::now() + pause;
        }
        !self.out.is_closed()
    }

    /// Tries some, and tells what became of each. Whether somebody still wants to know.
    async fn try_together(&mut self, desk: &dyn Desk, letters: Vec<Delivery>) -> Result<bool, Stop> {
        self.tried += letters.len();
        let results = if self.request.dry_run {
            self.rehearse(&letters).await?
        } else {
            let spans = Handling::of(letters.iter().map(|letter| &letter.message));
            spans.during(self.replay(desk, letters)).await?
        };
        for result in results {
            let is_gone = match result.outcome {
                ReplayOutcome::Applied | ReplayOutcome::AlreadyApplied | ReplayOutcome::Ignored => true,
                ReplayOutcome::Waiting | ReplayOutcome::DeadAgain | ReplayOutcome::Failed => false,
            };
            if self.request.dry_run || !is_gone {
                self.still_dead.insert(result.id.clone());
            }
            if self.out.send(ReplayItem::Result(result)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn replay(&mut self, desk: &dyn Desk, mut letters: Vec<Delivery>) -> Result<Vec<ReplayResult>, Stop> {
        let worker = Arc::clone(&self.worker);
        let lines = self.trail.lines(&worker, &self.merchants, letters.iter().map(|letter| &letter.message));
        worker.record(&lines).await?;
        for letter in &mut letters {
            letter.message.log = std::mem::take(&mut letter.message.log).replayed();
        }
        let endings = worker.fenced(&letters).await?;
        let mut moves = Vec::with_capacity(letters.len());
        for (mut letter, ending) in letters.into_iter().zip(endings) {
            let next = worker.next_home(&mut letter, &ending);
            let result = told(letter.message.id.clone(), ending, next);
            tracing::info!(notification = %result.id, outcome = result.outcome.code(), detail = result.detail, "replayed");
            moves.push((letter, next, result));
        }
        let results = moves.iter().map(|(_, _, result)| (result.outcome.code(), result.detail.as_str()));
        worker.record_results(lines.clone(), results).await?;
        let settling: Vec<_> = moves
            .iter()
            .map(|(letter, next, _)| (self.copies.key(&letter.message), *next, last_attempt(&letter.message)))
            .collect();
        let results = settle(desk, moves).await;
        for ((letter, next, attempt), result) in settling.into_iter().zip(&results) {
            match (result.outcome, next) {
                (ReplayOutcome::Failed, _) | (_, Some(Home::Retry(_))) => {}
                (_, None) => self.copies.settled(letter, None),
                (_, Some(Home::Dead)) => self.copies.settled(letter, attempt),
            }
        }

        for (result, line) in results.iter().zip(&lines) {
            metric::replayed(line.reason, result.outcome);
        }
        // What could not be moved is the dead letter that it was; the record must not say otherwise.
        let failed = results.iter().zip(lines).filter(|(result, _)| result.outcome == ReplayOutcome::Failed);
        let (failed, lines): (Vec<_>, Vec<_>) = failed.unzip();
        worker.record_results(lines, failed.iter().map(|it| (it.outcome.code(), it.detail.as_str()))).await?;
        Ok(results)
    }
}

/// Takes the letters where they belong. All that are done are acked at once.
async fn settle(desk: &dyn Desk, moves: Vec<(Delivery, Option<Home>, ReplayResult)>) -> Vec<ReplayResult> {
    let done: Vec<_> = moves.iter().filter(|(_, next, _)| next.is_none()).map(|(letter, _, _)| letter.ticket).collect();
    let acked = if done.is_empty() { Ok(()) } else { desk.ack(&done).await };
    let acked = acked.map_err(|error| error.to_string());
    let moving = moves.into_iter().map(async |(letter, next, result)| {
        let moved = match next {
            None => acked.clone(),
            Some(home) => desk.park(&letter, home).await.map_err(|error| error.to_string()),
        };
        match moved {
            Ok(()) => result,
            Err(detail) => ReplayResult { outcome: ReplayOutcome::Failed, reason: None, detail, ..result },
        }
    });
    stream::iter(moving).buffered(PARKING).collect().await
}

fn told(id: NotificationId, ending: Ending, next: Option<Home>) -> ReplayResult {
    let (outcome, rejection) = match (ending, next) {
        (Ending::Applied, _) => (ReplayOutcome::Applied, None),
        (Ending::Duplicate, _) => (ReplayOutcome::AlreadyApplied, None),
        (Ending::Ignored, _) => (ReplayOutcome::Ignored, None),
        (Ending::Retry(rejection), Some(Home::Retry(_))) => (ReplayOutcome::Waiting, Some(rejection)),
        (Ending::Retry(rejection) | Ending::Dead(rejection), _) => (ReplayOutcome::DeadAgain, Some(rejection)),
    };
    let reason = rejection.as_ref().map(|rejection| rejection.reason);
    let detail = rejection.map(|rejection| rejection.to_string()).unwrap_or_default();
    ReplayResult { id, outcome, reason, detail }
}
