//! The audit: from what was told, what was answered, and what lies in tables and queues afterwards, every way in which a
//! promise was broken. Pure, so that it can be shown states that nobody should see.

use std::collections::{BTreeMap, BTreeSet};

use wxpay_shared::reason::Reason;

use super::story::{Fate, Letter, Story, What, letter_of, story_of};

/// Tellings below which an audit proves nothing.
pub(crate) const LEAST_TOLD: usize = 50;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Tellings by tag, and whether SUCCESS was read.
    pub(crate) tellings: BTreeMap<u64, bool>,
    pub(crate) orders: Vec<Order>,
    pub(crate) events: Vec<Event>,
    pub(crate) ledger: Vec<Entry>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) dead: Vec<Dead>,
    /// Messages in every queue but the dead letters'.
    pub(crate) between: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) number: String,
    pub(crate) state: String,
    pub(crate) received: i64,
    pub(crate) kept: i64,
    pub(crate) points: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) key: String,
    pub(crate) order: String,
    pub(crate) amount: i64,
    pub(crate) notification: String,
    pub(crate) reason: Option<Reason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) user: String,
    pub(crate) seq: i64,
    pub(crate) order: String,
    pub(crate) event: String,
    pub(crate) points: i64,
    pub(crate) balance: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) balance: i64,
    pub(crate) entries: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dead {
    pub(crate) id: String,
    /// `None` where it says none that we know.
    pub(crate) reason: Option<Reason>,
    /// The telling that it is; `None` where no letter of ours says it.
    pub(crate) tag: Option<u64>,
}

/// Every broken promise, a sentence each. `stories` are those that the shop knows; `strangers` is the number of dead
/// letters that others published.
pub(crate) fn violations(stories: &[Story], evidence: &Evidence, strangers: usize) -> Vec<String> {
    let mut audit = Audit { evidence, found: Vec::new() };
    audit.books();
    audit.nothing_between();
    audit.dead_letters(stories, strangers);
    audit.letters(stories);
    audit.orders(stories);
    audit.found
}

struct Audit<'a> {
    evidence: &'a Evidence,
    found: Vec<String>,
}

impl Audit<'_> {
    fn check(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.found.push(violation());
        }
    }

    /// Ledger sums equal balances, entries are numbered without gaps, and no event moved points twice.
    fn books(&mut self) {
        let evidence = self.evidence;
        let mut by_user: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        let mut moved = BTreeSet::new();
        for entry in &evidence.ledger {
            by_user.entry(&entry.user).or_default().push(entry);
            self.check(moved.insert(&entry.event), || format!("{}: moved points twice", entry.event));
        }
        let mut keys = BTreeSet::new();
        for event in &evidence.events {
            self.check(keys.insert(&event.key), || format!("{}: recorded twice", event.key));
        }
        for entry in &evidence.ledger {
            self.check(keys.contains(&entry.event), || format!("{}: points without an event", entry.event));
        }
        for account in &evidence.accounts {
            let mut entries = by_user.remove(account.user.as_str()).unwrap_or_default();
            entries.sort_by_key(|entry| entry.seq);
            let mut sum = 0;
            for (seq, entry) in (1_i64..).zip(&entries) {
                sum += entry.points;
                let (user, number) = (&entry.user, entry.seq);
                self.check(number == seq, || format!("{user}: entry {number} stands where {seq} should"));
                self.check(entry.balance == sum, || format!("{user}: entry {number} has a wrong balance"));
            }
            let (user, balance) = (&account.user, account.balance);
            self.check(balance == sum, || format!("{user}: balance {balance}, entries sum up to {sum}"));
            let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
            self.check(account.entries == count, || format!("{user}: {count} entries, {} counted", account.entries));
        }
        for user in by_user.keys() {
            self.check(false, || format!("{user}: entries without an account"));
        }
    }

    fn nothing_between(&mut self) {
        for (queue, messages) in &self.evidence.between {
            self.check(*messages == 0, || format!("{queue}: {messages} messages are still on their way"));
        }
    }

    /// Every dead letter is one that had to be.
    fn dead_letters(&mut self, stories: &[Story], strangers: usize) {
        let foreign = self.evidence.dead.iter().filter(|dead| dead.tag.is_none()).count();
        self.check(foreign == strangers, || format!("{foreign} dead letters of strangers, expected {strangers}"));
        for (dead, tag) in self.evidence.dead.iter().filter_map(|dead| Some((dead, dead.tag?))) {
            let letter = find(stories, letter_of(tag));
            let allowed = match letter.map(|letter| letter.fate) {
                Some(Fate::Dead(reason) | Fate::OneOfTwo(reason)) => Some(reason),
                Some(Fate::Applied | Fate::Ignored) | None => None,
            };
            // Whoever waits for an order may meet a fault of the store at the last attempt.
            let last = dead.reason == Some(Reason::AttemptsExhausted) && allowed == Some(Reason::UnknownOrder);
            let right = last || dead.reason.is_some() && dead.reason == allowed;
            self.check(right, || format!("telling {tag} died of {:?}, expected {allowed:?}", dead.reason));
            self.check(self.evidence.tellings.contains_key(&tag), || format!("telling {tag} died and was never told"));
        }
    }

    /// Every SUCCESS is applied, a duplicate, ignored, or a dead letter; what was recorded was told.
    fn letters(&mut self, stories: &[Story]) {
        let evidence = self.evidence;
        let events: BTreeMap<&str, &Event> = evidence.events.iter().map(|event| (event.key.as_str(), event)).collect();
        let dead_ids: BTreeSet<&str> = evidence.dead.iter().map(|dead| dead.id.as_str()).collect();
        let dead_tags: BTreeSet<u64> = evidence.dead.iter().filter_map(|dead| dead.tag).collect();
        let mut told: BTreeMap<u64, Vec<(u64, bool)>> = BTreeMap::new();
        for (tag, success) in &evidence.tellings {
            told.entry(letter_of(*tag)).or_default().push((*tag, *success));
        }
        let mut explained = BTreeSet::new();
        for (number, tellings) in &told {
            let Some(letter) = find(stories, *number) else { continue };
            let key = letter.key();
            let taken = tellings.iter().filter(|(_, success)| *success).map(|(tag, _)| *tag);
            let recordable = matches!(letter.fate, Fate::Applied | Fate::OneOfTwo(_));
            match events.get(key.as_str()).filter(|_| recordable) {
                None if matches!(letter.fate, Fate::Applied) => {
                    for tag in taken {
                        self.check(false, || format!("{key}: SUCCESS was said to {tag}, and it is not recorded"));
                    }
                }
                None if letter.fate != Fate::Ignored => {
                    for tag in taken {
                        self.check(dead_tags.contains(&tag), || format!("{key}: {tag} got SUCCESS and vanished"));
                    }
                }
                None => {}
                Some(event) => {
                    explained.insert(key.as_str().to_owned());
                    self.recorded(letter, &stories[index(*number)], event, &dead_ids);
                }
            }
        }
        for key in events.keys() {
            self.check(explained.contains(*key), || format!("{key}: recorded, and WeChat never said so"));
        }
    }

    fn recorded(&mut self, letter: &Letter, story: &Story, event: &Event, dead_ids: &BTreeSet<&str>) {
        let key = &event.key;
        let amount = match &letter.what {
            What::Payment { amount, .. } | What::Refund { amount, .. } => *amount,
            What::Failed { .. } => 0,
        };
        let fits = event.amount == amount && event.order == story.out_trade_no;
        self.check(fits, || format!("{key}: {} fen on {}, told {amount} fen", event.amount, event.order));
        if let Some(reason) = event.reason {
            self.check(letter.fate == Fate::OneOfTwo(reason), || format!("{key}: recorded as {reason:?}"));
            let answered = dead_ids.contains(event.notification.as_str());
            self.check(answered, || format!("{key}: recorded as {reason:?}, and no dead letter answers for it"));
        }
    }

    /// Each order's money and points are the sums of its events and entries, and it ended as its story says once all of
    /// it was taken.
    fn orders(&mut self, stories: &[Story]) {
        let evidence = self.evidence;
        let (mut received, mut refunded, mut credited) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for event in &evidence.events {
            let sums = if event.key.starts_with("pay:") { &mut received } else { &mut refunded };
            *sums.entry(event.order.as_str()).or_insert(0) += event.amount;
        }
        for entry in &evidence.ledger {
            *credited.entry(entry.order.as_str()).or_insert(0) += entry.points;
        }
        let of = |sums: &BTreeMap<&str, i64>, order: &Order| sums.get(order.number.as_str()).copied().unwrap_or(0);
        for order in &evidence.orders {
            let (paid, points) = (of(&received, order), of(&credited, order));
            let kept = (paid - of(&refunded, order)).max(0);
            let sums = (order.received, order.kept, order.points);
            self.check(sums == (paid, kept, points), || {
                format!("{order:?}: its events say {:?}", (paid, kept, points))
            });
        }
        let taken: BTreeSet<u64> =
            evidence.tellings.iter().filter(|(_, success)| **success).map(|(tag, _)| letter_of(*tag)).collect();
        let orders: BTreeMap<&str, &Order> =
            evidence.orders.iter().map(|order| (order.number.as_str(), order)).collect();
        for story in stories.iter().filter(|story| story.letters.iter().all(|letter| taken.contains(&letter.number))) {
            let (number, ends) = (story.out_trade_no.as_str(), &story.ends);
            match orders.get(number) {
                None => self.check(!story.registered, || format!("{number}: registered, and gone")),
                Some(order) => {
                    let found = (order.state.as_str(), order.received, order.kept, order.points);
                    let expected = (ends.state, ends.received, ends.kept, ends.points);
                    self.check(found == expected, || format!("{number}: ended as {found:?}, expected {expected:?}"));
                }
            }
        }
    }
}

fn find(stories: &[Story], letter: u64) -> Option<&Letter> {
    stories.get(index(letter))?.letters.iter().find(|known| known.number == letter)
}

fn index(letter: u64) -> usize {
    usize::try_from(story_of(letter)).unwrap_or(usize::MAX)
}
