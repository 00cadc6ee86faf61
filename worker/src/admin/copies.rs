//! Copies of a dead letter: a crash between its move and the ack of where it came from leaves it twice.

use std::{collections::HashSet, hash::BuildHasher as _, hash::RandomState};

use wxpay_shared::{envelope::Message, ids::NotificationId};

/// The dead letters that one reading has met.
#[derive(Default)]
pub(super) struct Met {
    hasher: RandomState,
    letters: HashSet<(NotificationId, u64)>,
}

impl Met {
    /// Whether the same letter came before; otherwise it is met now. The log does not count, for each copy has its own.
    /// Headers and body do: a stranger's message under a letter's id must not take the letter away.
    pub(super) fn again(&mut self, letter: &Message) -> bool {
        let content = self.hasher.hash_one((&letter.headers, &letter.body));
        !self.letters.insert((letter.id.clone(), content))
    }
}
