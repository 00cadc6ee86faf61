//! Several notifications in one AMQP message, which costs the broker hardly more than one.
//!
//! What ingress publishes in one moment shares a message and its confirm. A worker takes it apart at once, so every
//! notification is handled, parked and given back by itself, and the message is acked when the last of its notifications
//! is done. Only where notifications wait for a worker are there bundles: the retry tiers and the dead letters hold single
//! ones. Each notification keeps its seal, and a bundle proves nothing.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

use super::{confirms::Job, wire};
use crate::{envelope::Message, queue::record};

/// Notifications in a bundle, at most.
const MOST: usize = 16;
/// Bytes of bodies in a bundle of more than one, at most, so that a worker's prefetch holds no more than it would without.
const BYTES: usize = 64 * 1024;
/// What a bundle is read up to, so that a later version may write larger ones: as many as `Parts` has bits for.
const READ_MOST: usize = u64::BITS as usize;

/// How many notifications the message has in it.
const COUNT: &str = "wxpay-bundle";

/// What goes out together, message by message: those for any queue in bundles, in their order, and the others alone.
pub(super) fn split(jobs: impl Iterator<Item = Job>) -> impl Iterator<Item = Vec<Job>> {
    let mut jobs = jobs.peekable();
    std::iter::from_fn(move || {
        let first = jobs.next()?;
        let (alone, mut bytes) = (first.routing_key.is_some(), first.message.body.len());
        let mut bundle = vec![first];
        let fits = |bytes: usize, next: &Job| next.routing_key.is_none() && bytes + next.message.body.len() <= BYTES;
        while !alone
            && bundle.len() < MOST
            && let Some(next) = jobs.next_if(|next| fits(bytes, next))
        {
            bytes += next.message.body.len();
            bundle.push(next);
        }
        Some(bundle)
    })
}

/// The properties and the body to publish these messages with, as one. `number` comes back with a returned message.
pub(super) fn pack(messages: &[&Message], number: u64) -> (BasicProperties, Bytes) {
    if let [message] = messages {
        return (wire::properties(message, number), message.body.clone());
    }
    let mut body = Vec::with_capacity(messages.iter().map(|message| message.body.len() + 512).sum());
    for message in messages {
        let record = record::encode(message);
        body.extend_from_slice(&u32::try_from(record.len()).expect("a record is far smaller than 4 GiB").to_be_bytes());
        body.extend_from_slice(&record);
    }
    let mut headers = FieldTable::default();
    headers.insert(COUNT.into(), AMQPValue::LongLongInt(i64::try_from(messages.len()).unwrap_or(i64::MAX)));
    (wire::persistent("application/octet-stream", number).with_headers(headers), body.into())
}

/// The notifications in a bundle; `None` where the message is a notification itself, or nothing that this program wrote.
pub(super) fn unpack(properties: &BasicProperties, body: &[u8]) -> Option<Vec<Message>> {
    let count = wire::number(properties.headers().as_ref()?, COUNT)?;
    let count = usize::try_from(count).ok().filter(|count| (1..=READ_MOST).contains(count))?;
    let mut messages = Vec::with_capacity(count);
    let mut rest = body;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (record, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        messages.push(record::decode(record).ok()?);
        rest = after;
        if messages.len() > count {
            return None;
        }
    }
    (messages.len() == count).then_some(messages)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::envelope::Log;

    fn sample(number: usize, body: Vec<u8>) -> Message {
        let headers = BTreeMap::from([("wxpay-merchant".to_owned(), "shop".to_owned())]);
        Message::received(Some(&format!("{number:x}-1")), headers, Bytes::from(body), Log::default())
    }

    /// Properties that say there are so many.
    fn claiming(count: i64) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(COUNT.into(), AMQPValue::LongLongInt(count));
        BasicProperties::default().with_headers(headers)
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_equal(bodies in proptest::collection::vec(".{0,90}", 2..=MOST)) {
            let messages: Vec<_> = bodies.into_iter().map(String::into_bytes).enumerate().map(|(n, b)| sample(n, b)).collect();
            let (properties, body) = pack(&messages.iter().collect::<Vec<_>>(), 1);
            prop_assert_eq!(unpack(&properties, &body), Some(messages));
        }

        #[test]
        fn other_bytes_are_no_bundle_and_never_a_panic(
            count in -1_i64..70,
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            prop_assert_eq!(unpack(&claiming(count), &bytes), None);
        }
    }

    #[test]
    fn one_alone_is_a_message_as_it_always_was() {
        let message = sample(1, b"body".to_vec());
        let (properties, body) = pack(&[&message], 1);
        assert_eq!(unpack(&properties, &body), None);
        assert_eq!(wire::message(&properties, body.to_vec()), message);
    }

    #[test]
    fn a_bundle_has_as_many_as_it_says() {
        let messages = [sample(1, b"one".to_vec()), sample(2, b"two".to_vec())];
        let (_, body) = pack(&messages.each_ref(), 1);
        for (count, expected) in [(1, None), (2, Some(messages.to_vec())), (3, None)] {
            assert_eq!(unpack(&claiming(count), &body), expected, "{count}");
        }
        assert_eq!(unpack(&claiming(2), &body[..body.len() - 1]), None);
    }

    #[test]
    fn nobody_makes_a_worker_hold_more_in_one_message_than_it_can_count() {
        let messages: Vec<_> = (0..=READ_MOST).map(|number| sample(number, Vec::new())).collect();
        let packed = |count: usize| pack(&messages.iter().take(count).collect::<Vec<_>>(), 1);
        let (properties, body) = packed(READ_MOST);
        assert_eq!(unpack(&properties, &body).unwrap().len(), READ_MOST);
        let (properties, body) = packed(READ_MOST + 1);
        assert_eq!(unpack(&properties, &body), None);
    }
}
