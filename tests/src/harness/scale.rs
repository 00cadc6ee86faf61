//! Many notifications through many workers that are killed at random, and one digest of what is in the tables afterwards:
//! it must be the same whatever happened on the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use wxpay_shared::reason::Reason;

use super::{
    audit::Evidence,
    rig::{Home, Own, Report, Rig},
    story::{letter_of, story_of},
    wait_until,
};

/// Orders that WeChat tells of at the same time.
const AT_ONCE: usize = 64;

/// Parts of the load, with a kill in each.
const PARTS: u64 = 12;

/// A run, and what came of it.
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) digest: String,
    pub(crate) kills: u32,
    /// From the first notification to the last that was taken.
    pub(crate) told_in: Duration,
    /// Until nothing was on its way any more.
    pub(crate) settled_in: Duration,
}

/// Sends at least so many notifications of this seed's stories to `workers` workers. Meanwhile a worker is killed again
/// and again, each one's sled directory deleted where a SQL store is the authority.
pub(crate) async fn run(home: Home, workers: usize, seed: u64, notifications: usize) -> Run {
    let mut rig = Rig::prepare(home, Own::NOTHING, workers, seed).await;
    rig.start_ingress();
    (0..workers).for_each(|worker| rig.start_worker(worker));
    rig.ready().await;
    let (mut stories, mut copies) = (0, 0);
    while copies < notifications {
        copies += rig.sender.stories(stories, stories + 1)[0].letters.iter().map(|letter| letter.copies).sum::<usize>();
        stories += 1;
    }
    rig.register(stories).await;
    let started = Instant::now();
    let sender = Arc::clone(&rig.sender);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut kills = 0;
    // The load waits for the kill in each part, so a busy machine sees as many as any.
    for part in 0..PARTS {
        let part = stories * part / PARTS..stories * (part + 1) / PARTS;
        // Each story is told at least once, so the part gets there.
        let goal = sender.successes() + usize::try_from(random.u64(..part.end - part.start)).expect("a few");
        let telling = futures_util::stream::iter(part).for_each_concurrent(AT_ONCE, async |index| {
            sender.tell(&sender.stories(index, index + 1)[0]).await;
        });
        let killing = async {
            wait_until("the load goes on", Duration::from_secs(600), async || sender.successes() >= goal).await;
            let victim = random.usize(0..workers);
            rig.kill_worker(victim);
            if matches!(home, Home::Sql(_)) {
                // A worker that was just started may not have made it yet.
                drop(fs::remove_dir_all(&rig.workers[victim].data));
            }
            rig.start_worker(victim);
            kills += 1;
        };
        tokio::join!(telling, killing);
    }
    let told_in = started.elapsed();
    rig.ready().await;
    let report = rig.finish().await;
    let digest = digest(&report.evidence);
    Run { report, digest, kills, told_in, settled_in: started.elapsed() }
}

/// Every order's end, every account, and every reason by order: what must not depend on chance. Which of two payments was
/// the surplus one, and how many copies of a dead letter there are, may.
fn digest(evidence: &Evidence) -> String {
    let mut text = String::new();
    let mut line = |what: std::fmt::Arguments<'_>| writeln!(text, "{what}").expect("writing to a String cannot fail");
    let mut credited: BTreeMap<&str, i64> = BTreeMap::new();
    for entry in &evidence.ledger {
        *credited.entry(&entry.order).or_default() += entry.points;
    }
    let orders: BTreeMap<_, _> = evidence.orders.iter().map(|order| (order.number.as_str(), order)).collect();
    for order in orders.values() {
        let sum = credited.get(order.number.as_str()).copied().unwrap_or_default();
        line(format_args!("{} {} {} {} {} {sum}", order.number, order.state, order.received, order.kept, order.points));
    }
    let accounts: BTreeMap<_, _> = evidence.accounts.iter().map(|account| (&account.user, account.balance)).collect();
    for (user, balance) in accounts {
        line(format_args!("{user} {balance}"));
    }
    let dead: BTreeSet<(u64, Option<Reason>)> =
        evidence.dead.iter().filter_map(|dead| Some((story_of(letter_of(dead.tag?)), dead.reason))).collect();
    for (story, reason) in dead {
        line(format_args!("{story} {}", reason.map_or("", Reason::code)));
    }
    fingerprint(&text)
}

/// Tells texts apart (FNV-1a); nobody attacks it.
fn fingerprint(text: &str) -> String {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
