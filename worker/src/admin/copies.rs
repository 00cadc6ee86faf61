//! Copies of a dead letter: a crash between its move and the ack of where it came from leaves it twice.
//!
//! A copy may go once it is certain that the letter does not need it: it was settled in this reading, for good or as a
//! dead letter that has been confirmed. That one has the time of this attempt in its log, and no copy has.

use std::{collections::HashMap, hash::BuildHasher as _, hash::RandomState};

use jiff::Timestamp;
use wxpay_shared::{envelope::Message, ids::NotificationId};

/// Names a letter by its id and what it says. A stranger's message under a letter's id must not take the letter away.
pub(super) type Key = (NotificationId, u64);

/// What became of the letters that one reading has settled. No other reader can move them meanwhile.
#[derive(Default)]
pub(super) struct Copies {
    hasher: RandomState,
    settled: HashMap<Key, Option<Timestamp>>,
}

impl Copies {
    pub(super) fn key(&self, letter: &Message) -> Key {
        (letter.id.clone(), self.hasher.hash_one((&letter.headers, &letter.body)))
    }

    /// It is done, or a dead letter again since this attempt.
    pub(super) fn settled(&mut self, letter: Key, dead_since: Option<Timestamp>) {
        self.settled.insert(letter, dead_since);
    }

    /// Whether this is a copy of a letter that is settled, and not what that one became.
    pub(super) fn is_surplus(&self, letter: &Message) -> bool {
        let settled = self.settled.get(&self.key(letter));
        settled.is_some_and(|dead_since| dead_since.is_none() || *dead_since != last_attempt(letter))
    }
}

/// When it failed last.
pub(super) fn last_attempt(letter: &Message) -> Option<Timestamp> {
    letter.log.history.last().map(|attempt| attempt.at)
}

/// Whether two are the same but for their logs.
pub(super) fn same(one: &Message, other: &Message) -> bool {
    one.id == other.id && one.headers == other.headers && one.body == other.body
}

#[cfg(test)]
mod tests {
    use wxpay_shared::envelope::{Attempt, Log};

    use super::*;

    fn letter(body: &'static str, failed_at: i64) -> Message {
        let at = Timestamp::from_second(failed_at).unwrap();
        let attempt = Attempt { at, worker: "w".to_owned(), error: "told".to_owned() };
        Message {
            id: NotificationId::new(Timestamp::UNIX_EPOCH),
            headers: std::collections::BTreeMap::new(),
            body: body.into(),
            log: Log { history: vec![attempt], ..Log::default() },
        }
    }

    #[test]
    fn only_what_a_settled_letter_does_not_need_is_surplus() {
        let mut copies = Copies::default();
        let before = letter("paid", 1);
        assert!(!copies.is_surplus(&before), "it may be the only one");
        let since = Message { log: letter("paid", 2).log, ..before.clone() };
        copies.settled(copies.key(&before), last_attempt(&since));
        assert!(copies.is_surplus(&before), "the broker has a newer one");
        assert!(!copies.is_surplus(&since), "that is the newer one");
        assert!(!copies.is_surplus(&Message { body: "else".into(), ..before.clone() }));
        copies.settled(copies.key(&before), None);
        assert!(copies.is_surplus(&since), "it took effect");
    }
}
