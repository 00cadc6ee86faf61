//! The publishes of one channel that wait for their confirm, and which confirm means what.
//!
//! The broker returns an unroutable message and then *acks* it. lapin hands a returned message to whichever confirm it
//! resolves next, and resolves the confirms of a multiple ack in no order, so the message that could not be routed may
//! well get a bare ack while its neighbour gets the return. What can be relied on: when a confirm without a return is
//! resolved, every earlier return has been handed out with some confirm that was resolved before. So confirms are taken
//! in waves, all that are resolved at a moment; the returns of the whole wave are looked at before any ack is believed;
//! and who gets another's return waits until lapin is seen to have none left.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, FutureExt, ready},
    stream::{FuturesUnordered, StreamExt},
};
use lapin::{Channel, Confirmation, message::BasicReturnMessage, options::BasicPublishOptions, types::ShortString};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use super::bundle;
use crate::{
    envelope::Message,
    queue::{PublishError, topology},
};

/// A message on its way, and who waits for the answer. Its slot is free again when it is dropped.
pub(super) struct Job {
    /// The queue that it goes to; `None` for any of those in which notifications wait for a worker.
    pub(super) routing_key: Option<ShortString>,
    pub(super) message: Message,
    pub(super) answer: oneshot::Sender<Result<(), PublishError>>,
    pub(super) slot: OwnedSemaphorePermit,
}

type Answer = (oneshot::Sender<Result<(), PublishError>>, OwnedSemaphorePermit);

/// A message that waits for its confirm.
struct Sent {
    at: Instant,
    /// Who waits for it: more than one for a bundle.
    answers: Vec<Answer>,
}

type Outcome = (u64, lapin::Result<Confirmation>);

#[derive(Default)]
pub(super) struct Confirms {
    pending: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// By their numbers, so the oldest is first.
    sent: BTreeMap<u64, Sent>,
    /// Who waits, in all.
    waiting: usize,
    /// Since when every answer was a refusal.
    refused_since: Option<Instant>,
    /// Numbers of messages that came back and whose confirm is not decided.
    returned: HashSet<u64>,
    /// Numbers of messages that were acked together with another's return.
    doubtful: Vec<u64>,
    number: u64,
    /// The number of the last message when the last answer came.
    answered: Option<u64>,
}

/// What a wave of confirms showed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wave {
    /// A message had no queue to go to.
    pub(super) unroutable: bool,
    /// A confirm failed, and why: the channel is gone.
    pub(super) lost: Option<String>,
}

impl Wave {
    /// Both together.
    pub(super) fn add(&mut self, other: Self) {
        self.unroutable |= other.unroutable;
        self.lost = self.lost.take().or(other.lost);
    }
}

impl Confirms {
    /// How many wait for their answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many messages are on their way.
    pub(super) fn on_their_way(&self) -> usize {
        self.pending.len()
    }

    /// When the message was sent that has waited longest.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.first_key_value().map(|(_, sent)| sent.at)
    }

    /// How many messages were sent since the last answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.number - self.answered.unwrap_or(0)
    }

    /// Whether an answer has ever come.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Since when the queue has refused everything.
    pub(super) fn refused_since(&self) -> Option<Instant> {
        self.refused_since
    }

    /// Tells everyone who has waited for so long that the answer is late; how many that were. It is of no use to them any
    /// more when it comes.
    pub(super) fn give_up(&mut self, now: Instant, after: Duration) -> usize {
        let late = self.sent.values_mut().take_while(|sent| now - sent.at >= after);
        let late: Vec<Answer> = late.flat_map(|sent| sent.answers.drain(..)).collect();
        self.waiting -= late.len();
        let count = late.len();
        late.into_iter().for_each(|(answer, _slot)| answer.send(Err(PublishError::Timeout)).unwrap_or_default());
        count
    }

    /// Sends the messages of these jobs as one. Its first poll takes the delivery tag and queues the frames; that must not
    /// happen from two tasks at once on one channel, or lapin gives one message's confirm to another.
    pub(super) fn publish(&mut self, channel: &Channel, queue: ShortString, jobs: Vec<Job>, at: Instant) {
        self.number += 1;
        let number = self.number;
        self.waiting += jobs.len();
        let (properties, body) = bundle::pack(&jobs.iter().map(|job| &job.message).collect::<Vec<_>>(), number);
        let answers = jobs.into_iter().map(|job| (job.answer, job.slot)).collect();
        self.sent.insert(number, Sent { at, answers });
        let channel = channel.clone();
        let mut publish = async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let sent = channel.basic_publish(topology::EXCHANGE.into(), queue, options, &body, properties).await;
            match sent {
                Ok(confirm) => (number, confirm.await),
                Err(error) => (number, Err(error)),
            }
        }
        .boxed();
        let first = publish.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.pending.push(match first {
            Poll::Ready(outcome) => ready(outcome).boxed(),
            Poll::Pending => publish,
        });
    }

    /// The confirms that are there, once those who wait for them have their answers.
    pub(super) fn poll_wave(&mut self, context: &Context<'_>) -> Poll<Wave> {
        let mut wave = Vec::new();
        let noted = Arc::new(Noted { woken: AtomicBool::new(false), task: context.waker().clone() });
        let waker = Waker::from(Arc::clone(&noted));
        loop {
            // The set may pause before it has looked at everything, and then wakes the task at once. Only a pause
            // without that means that the wave is complete.
            noted.woken.store(false, Ordering::SeqCst);
            match self.pending.poll_next_unpin(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(outcome)) => wave.push(outcome),
                Poll::Pending if noted.woken.load(Ordering::SeqCst) => {}
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if wave.is_empty() { Poll::Pending } else { Poll::Ready(self.decide(wave)) }
    }

    fn decide(&mut self, wave: Vec<Outcome>) -> Wave {
        let mut seen = Wave::default();
        let mut acked = Vec::new();
        let mut doubtful = Vec::new();
        for (number, outcome) in wave {
            match outcome {
                Ok(Confirmation::Ack(None)) => acked.push(number),
                Ok(Confirmation::Ack(Some(returned))) => {
                    self.returned.insert(number_of(&returned).unwrap_or(number));
                    doubtful.push(number);
                }
                Ok(Confirmation::Nack(returned)) => {
                    self.returned.extend(returned.as_ref().and_then(number_of));
                    self.returned.remove(&number);
                    self.answer(number, Err(PublishError::Nacked));
                }
                // A channel without confirm mode would confirm nothing at all.
                Ok(Confirmation::NotRequested) => {
                    seen.lost.get_or_insert_with(|| "no confirm mode".to_owned());
                    self.answer(number, Err(PublishError::NotConnected));
                }
                Err(error) => {
                    seen.lost.get_or_insert_with(|| error.to_string());
                    self.answer(number, Err(PublishError::NotConnected));
                }
            }
        }
        let all_in = self.pending.is_empty();
        // A bare ack in a later wave shows that lapin had no return left since; in the same wave it may have come first.
        let none_left = all_in || !acked.is_empty();
        let earlier = std::mem::take(&mut self.doubtful);
        let acked = acked.into_iter().map(|number| (number, true));
        let earlier = earlier.into_iter().map(|number| (number, none_left));
        let doubtful = doubtful.into_iter().map(|number| (number, all_in));
        for (number, certain) in acked.chain(earlier).chain(doubtful) {
            if self.returned.remove(&number) {
                seen.unroutable = true;
                self.answer(number, Err(PublishError::Unroutable));
            } else if certain {
                self.answer(number, Ok(()));
            } else {
                self.doubtful.push(number);
            }
        }
        seen
    }

    /// Who asked may have gone away; then nobody needs the answer.
    fn answer(&mut self, number: u64, result: Result<(), PublishError>) {
        let Some(sent) = self.sent.remove(&number) else { return };
        self.answered = Some(self.number);
        match result {
            Ok(()) => self.refused_since = None,
            Err(PublishError::Nacked) => self.refused_since = self.refused_since.or_else(|| Some(Instant::now())),
            Err(_) => {}
        }
        for (answer, _slot) in sent.answers {
            self.waiting -= 1;
            answer.send(result).unwrap_or_default();
        }
    }
}

/// The number under which a returned message was published.
fn number_of(returned: &BasicReturnMessage) -> Option<u64> {
    returned.properties.correlation_id().as_ref()?.as_str().parse().ok()
}

/// A task's waker that remembers whether it was used.
struct Noted {
    woken: AtomicBool,
    task: Waker,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.task.wake_by_ref();
    }
}
