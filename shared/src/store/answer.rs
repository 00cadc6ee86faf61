//! What an event does to the records: the part of `apply` that is the same for every home.

use super::Applied;
use crate::{
    event::Event,
    ids::OrderId,
    order::{Change, Decision, Order},
    reason::{Reason, Rejection},
};

/// The answer to an event and what it writes, from its order and from the order that has its key, if there are such.
pub(super) fn answer(event: &Event, order: Option<&Order>, recorded_on: Option<&OrderId>) -> (Applied, Option<Change>) {
    let id = event.fact.order();
    let Some(order) = order else {
        let detail = format!("order {id} is not registered");
        return (Applied::Waiting(Rejection::new(Reason::UnknownOrder, detail)), None);
    };
    // A key is unique among all orders, which an order by itself cannot see.
    if let Some(other) = recorded_on.filter(|other| *other != id) {
        let detail = format!("recorded on order {other}, now told on order {id}");
        return (Applied::Rejected(Rejection::new(Reason::ConflictingDuplicate, detail)), None);
    }
    match order.decide(event) {
        Decision::Apply(change) => {
            (Applied::Fresh { points: change.entry.as_ref().map_or(0, |entry| entry.points) }, Some(change))
        }
        Decision::Record(change, rejection) => (Applied::Rejected(rejection), Some(change)),
        Decision::Duplicate => (Applied::Duplicate, None),
        Decision::Reject(rejection) => (Applied::Rejected(rejection), None),
        Decision::Wait(rejection) => (Applied::Waiting(rejection), None),
    }
}
