//! A client that behaves as WeChat does: it gives up after 5 s, sends again until it has read SUCCESS, tells one thing by
//! several servers at once, each time with another nonce, and remembers which telling was taken.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use wxpay_shared::wechat::sender::SigningKey;

use super::{
    story::{Letter, MERCHANT, Story, Telling},
    wechat,
};

/// How long WeChat waits for a reply.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// WeChat's first pause is 15 s; the tests have less time.
const PAUSE: Duration = Duration::from_millis(100);

/// What was said to ingress, and what was heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Every telling that was sent, by its tag, and whether its SUCCESS was read.
    pub(crate) tellings: BTreeMap<u64, bool>,
    /// Requests whose reply did not come within the limit.
    pub(crate) late: u64,
    /// The longest time that a SUCCESS took.
    pub(crate) slowest: Duration,
}

impl Told {
    pub(crate) fn successes(&self) -> usize {
        self.tellings.values().filter(|success| **success).count()
    }
}

/// WeChat's side.
pub(crate) struct Sender {
    client: reqwest::Client,
    address: String,
    key: SigningKey,
    turn: AtomicU64,
    told: Mutex<Told>,
    successes: AtomicUsize,
    /// Of the stories with this seed, so many exist at the shop.
    seed: u64,
    known: AtomicU64,
    next: AtomicU64,
}

impl Sender {
    /// A client of the ingress at this port of the loopback. It tells the stories of this seed.
    pub(crate) fn new(port: u16, seed: u64) -> Self {
        Self {
            client: reqwest::Client::builder().timeout(LIMIT).build().expect("a client"),
            address: format!("http://127.0.0.1:{port}"),
            key: wechat::public_key(),
            turn: AtomicU64::new(0),
            told: Mutex::default(),
            successes: AtomicUsize::new(0),
            seed,
            known: AtomicU64::new(0),
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn told(&self) -> Told {
        self.lock().clone()
    }

    /// How many tellings were taken so far.
    pub(crate) fn successes(&self) -> usize {
        self.successes.load(Ordering::Relaxed)
    }

    /// The stories from this one on, which the shop must know before they are told.
    pub(crate) fn stories(&self, from: u64, to: u64) -> Vec<Story> {
        (from..to).map(|index| Story::new(self.seed, index)).collect()
    }

    /// How many stories the shop knows.
    pub(crate) fn known(&self) -> u64 {
        self.known.load(Ordering::SeqCst)
    }

    /// Says that the shop knows so many stories.
    pub(crate) fn knows(&self, known: u64) {
        self.known.store(known, Ordering::SeqCst);
    }

    /// Stories that are known and were not begun.
    pub(crate) fn untold(&self) -> u64 {
        self.known().saturating_sub(self.next.load(Ordering::SeqCst))
    }

    /// Tells everything about an order, in one go and all at once, until all of it was taken.
    pub(crate) async fn tell(&self, story: &Story) {
        let copies = story.letters.iter().flat_map(|letter| std::iter::repeat_n(letter, letter.copies));
        join_all(copies.map(|letter| self.until_success(story, letter))).await;
    }

    /// Sends a letter again and again.
    pub(crate) async fn until_success(&self, story: &Story, letter: &Letter) {
        while !self.once(story, letter).await {
            sleep(PAUSE).await;
        }
    }

    /// Sends a letter once; whether SUCCESS was read.
    pub(crate) async fn once(&self, story: &Story, letter: &Letter) -> bool {
        let telling = letter.telling(story, self.turn.fetch_add(1, Ordering::Relaxed), &self.key);
        let tag = telling.tag;
        // Noted before it is sent: whatever happens from here on, it may have arrived.
        self.lock().tellings.insert(tag, false);
        let started = Instant::now();
        let success = self.post(telling).await;
        let took = started.elapsed();
        let mut told = self.lock();
        if success {
            told.tellings.insert(tag, true);
            self.successes.fetch_add(1, Ordering::Relaxed);
            told.slowest = told.slowest.max(took);
        } else if took >= LIMIT {
            told.late += 1;
        }
        success
    }

    async fn post(&self, telling: Telling) -> bool {
        let Telling { route, headers, body, .. } = telling;
        let url = format!("{}/{route}/{MERCHANT}", self.address);
        let mut request = self.client.post(url).header("User-Agent", "Mozilla/4.0").body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let Ok(answer) = request.send().await else { return false };
        let taken = answer.status().is_success();
        let Ok(text) = answer.text().await else { return false };
        taken && (route == "v3" || text.contains("<return_code><![CDATA[SUCCESS]]></return_code>"))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Load that goes on until it is stopped: one story after another, and when the shop knows no more of them, repeats.
pub(crate) struct Load {
    stop: CancellationToken,
    lanes: JoinSet<()>,
}

impl Load {
    /// Tells by so many lanes at once, each with this pause between two orders.
    pub(crate) fn start(sender: &Arc<Sender>, lanes: u64, pause: Duration) -> Self {
        let stop = CancellationToken::new();
        let lane = |number: u64| {
            let (sender, stop) = (Arc::clone(sender), stop.clone());
            async move {
                let mut random = fastrand::Rng::with_seed(sender.seed ^ number);
                while !stop.is_cancelled() {
                    let known = sender.known();
                    let index = sender.next.fetch_add(1, Ordering::SeqCst);
                    if index < known {
                        sender.tell(&Story::new(sender.seed, index)).await;
                    } else {
                        sender.next.fetch_sub(1, Ordering::SeqCst);
                        let story = Story::new(sender.seed, random.u64(0..known));
                        let letter = random.choice(&story.letters).expect("every story has a letter");
                        sender.until_success(&story, letter).await;
                    }
                    sleep(pause).await;
                }
            }
        };
        Self { lanes: (0..lanes).map(lane).collect(), stop }
    }

    /// Begins nothing more and ends when everything that was begun was taken.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.lanes.join_next().await {
            ended.expect("a lane does not panic");
        }
    }
}
