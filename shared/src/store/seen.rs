//! What a decision looks at: orders with their facts, and where each key is recorded.
//!
//! Every home decides over these records, and a rehearsal does so over a copy of them: the answers are the same because
//! the code is. An answer's change is seen by the answers after it.

use std::collections::BTreeMap;

use super::{Applied, answer::answer};
use crate::{
    event::{Event, EventKey},
    ids::OrderId,
    order::{Change, Order},
};

/// Orders and keys, as they are in the store at first and as answers change them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those of the orders that are registered, with their facts.
    pub orders: BTreeMap<OrderId, Order>,
    /// Where each key is recorded, on whichever order.
    pub recorded_on: BTreeMap<EventKey, OrderId>,
}

impl Seen {
    /// Adds what was read later. Where both know an order or a key, the answers given so far stand.
    pub fn add(&mut self, other: Self) {
        for (id, order) in other.orders {
            self.orders.entry(id).or_insert(order);
        }
        for (key, id) in other.recorded_on {
            self.recorded_on.entry(key).or_insert(id);
        }
    }

    /// The answer to an event, and what it changes. Writes nothing but these records.
    pub fn answer(&mut self, event: &Event) -> (Applied, Option<Change>) {
        let (id, key) = (event.fact.order(), event.fact.key());
        let (applied, change) = answer(event, self.orders.get(id), self.recorded_on.get(&key));
        if let Some(Change { order, .. }) = &change {
            self.orders.insert(id.clone(), order.clone());
            self.recorded_on.insert(key, id.clone());
        }
        (applied, change)
    }
}
