//! A message's form on the wire: AMQP properties and headers to [`Message`] and back.
//!
//! Sealed headers and body pass byte for byte. The log travels in five headers of our own, never in the broker's
//! (`x-death` and its like), which change their meaning with its versions. Whatever someone else published becomes some
//! message too: what cannot be represented is left out, and opening the envelope decides what it is worth.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::{
    envelope::{Attempt, HISTORY_MAX, Log, Message},
    reason::{Reason, Rejection},
};

const ATTEMPTS: &str = "wxpay-attempts";
const REASON: &str = "wxpay-reason";
const DETAIL: &str = "wxpay-detail";
const HISTORY: &str = "wxpay-history";
const REPLAYS: &str = "wxpay-replays";
const LOG: [&str; 5] = [ATTEMPTS, REASON, DETAIL, HISTORY, REPLAYS];
/// What the broker adds when it dead-letters; it is about one stay in one queue, so it does not travel on.
const BROKERS: [&str; 4] = ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count"];
const SEALED_PREFIX: &str = "wxpay-";
const PERSISTENT: u8 = 2;

// All headers of a message must fit into one frame, 128 KiB by default. A message that does not would break the
// connection each time a worker parks it.
const HISTORY_BYTES: usize = 32 * 1024;
const DETAIL_BYTES: usize = 4 * 1024;
const HEADERS_BYTES: usize = 48 * 1024;
// What ingress seals is far shorter. Where there is more than the whole may have, it is not ingress' message.
const SEALED_BYTES: usize = 4 * 1024;

/// The properties to publish a message with. `number` comes back with a returned message.
pub(super) fn properties(message: &Message, number: u64) -> BasicProperties {
    let content_type = match message.claimed_api() {
        Some("v2") => "text/xml",
        Some("v3") => "application/json",
        _ => "application/octet-stream",
    };
    persistent(content_type, number).with_message_id(message.id.as_str().into()).with_headers(headers(message))
}

/// The properties of everything that is published. `number` comes back with a returned message.
pub(super) fn persistent(content_type: &'static str, number: u64) -> BasicProperties {
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(content_type.into())
        .with_correlation_id(number.to_string().into())
}

fn headers(message: &Message) -> FieldTable {
    let mut table = FieldTable::default();
    let size: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let all = size <= HEADERS_BYTES;
    let mut room = if all { size } else { SEALED_BYTES };
    for (name, value) in message.headers.iter().filter(|(name, _)| all || name.starts_with(SEALED_PREFIX)) {
        let bytes = name.len() + value.len();
        if bytes <= room
            && let Ok(name) = ShortString::try_new(name.as_str())
        {
            room -= bytes;
            table.insert(name, text(value));
        }
    }
    let log = &message.log;
    table.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(log.attempts.into()));
    if let Some(Rejection { reason, detail }) = &log.rejection {
        table.insert(REASON.into(), text(reason.code()));
        table.insert(DETAIL.into(), text(&detail[..detail.floor_char_boundary(DETAIL_BYTES)]));
    }
    if log.replays > 0 {
        table.insert(REPLAYS.into(), AMQPValue::LongLongInt(log.replays.into()));
    }
    if !log.history.is_empty() {
        table.insert(HISTORY.into(), text(&history(&log.history)));
    }
    table
}

/// The latest attempts that fit.
fn history(attempts: &[Attempt]) -> String {
    (0..=attempts.len())
        .map(|from| serde_json::to_string(&attempts[from..]).expect("a list of texts and times is JSON"))
        .find(|json| json.len() <= HISTORY_BYTES)
        .unwrap_or_default()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.as_bytes().into())
}

/// What a delivery carries.
pub(super) fn message(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let empty = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&empty);
    let get = |name: &str| table.inner().get(name).and_then(plain);
    let number = |name: &str| number(table, name).unwrap_or(0);
    let log = Log {
        attempts: number(ATTEMPTS),
        rejection: get(REASON)
            .and_then(|reason| reason.parse().ok())
            .map(|reason: Reason| Rejection::new(reason, get(DETAIL).unwrap_or_default())),
        history: get(HISTORY).and_then(|json| parse_history(&json)).unwrap_or_default(),
        replays: number(REPLAYS),
    };
    let headers: BTreeMap<_, _> = table
        .into_iter()
        .filter(|(name, _)| !LOG.contains(&name.as_str()))
        .filter(|(name, _)| !BROKERS.iter().any(|prefix| name.as_str().starts_with(prefix)))
        .filter_map(|(name, value)| Some((name.to_string(), plain(value)?)))
        .collect();
    let id = properties.message_id().as_ref().map(ShortString::as_str);
    Message::received(id, headers, Bytes::from(body), log)
}

/// How often the broker says that a message came back.
pub(super) fn returned(properties: &BasicProperties) -> u32 {
    properties.headers().as_ref().and_then(|table| number(table, "x-delivery-count")).unwrap_or(0)
}

/// A header as a number, where it has one.
pub(super) fn number(table: &FieldTable, name: &str) -> Option<u32> {
    table.inner().get(name).and_then(plain)?.parse().ok()
}

/// What a delivery from the dead letters carries: a message that the broker itself gave up has no reason of ours.
pub(super) fn dead_letter(properties: &BasicProperties, body: Vec<u8>) -> Message {
    let mut message = message(properties, body);
    if message.log.rejection.is_none() && given_up(properties) {
        let detail = format!("delivered more than {} times without an answer", super::topology::DELIVERY_LIMIT);
        message.log.rejection = Some(Rejection::new(Reason::DeliveryLimit, detail));
    }
    message
}

/// The first entry of `x-death` is the latest death; `x-first-death-reason` would still say `expired` after a retry.
fn given_up(properties: &BasicProperties) -> bool {
    let deaths = properties.headers().as_ref().and_then(|table| table.inner().get("x-death"));
    let Some(AMQPValue::FieldArray(deaths)) = deaths else { return false };
    let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first() else { return false };
    death.inner().get("reason").and_then(plain).is_some_and(|reason| reason == "delivery_limit")
}

fn parse_history(json: &str) -> Option<Vec<Attempt>> {
    let mut history: Vec<Attempt> = serde_json::from_str(json).ok()?;
    history.drain(..history.len().saturating_sub(HISTORY_MAX));
    Some(history)
}

/// A header as text, where it has one.
fn plain(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok()?,
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::ByteArray(_)
        | AMQPValue::Void => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(error: String) -> Attempt {
        Attempt { at: jiff::Timestamp::UNIX_EPOCH, worker: "w1".to_owned(), error }
    }

    fn sample() -> Message {
        let headers =
            BTreeMap::from([("wxpay-api".to_owned(), "v3".to_owned()), ("trace".to_owned(), "追".to_owned())]);
        let log = Log {
            attempts: 3,
            rejection: Some(Rejection::new(Reason::AmountMismatch, "order 1999 fen, paid 1 fen")),
            history: vec![attempt("down".to_owned())],
            replays: 2,
        };
        Message::received(Some("0192-ab"), headers, Bytes::from_static(b"\0\xff{}"), log)
    }

    #[test]
    fn what_is_published_comes_back_equal() {
        let sent = sample();
        assert_eq!(message(&properties(&sent, 1), sent.body.to_vec()), sent);
    }

    /// Whoever may write to the queue may name a header as ours are named.
    #[test]
    fn no_header_of_a_stranger_fills_a_frame() {
        let mut sent = sample();
        sent.headers.insert("wxpay-x".to_owned(), "x".repeat(130_000));
        sent.headers.extend((0..300).map(|number| (format!("wxpay-{number}"), "y".repeat(1_000))));
        let left: usize = headers(&sent).into_iter().map(|(name, _)| name.as_str().len() + 1_000).sum();
        assert!(left < HEADERS_BYTES, "{left}");
        assert!(headers(&sample()).inner().contains_key("wxpay-api"));
    }

    #[test]
    fn the_log_is_cut_to_what_a_frame_holds() {
        let mut sent = sample();
        sent.log.history = (0..HISTORY_MAX).map(|n| attempt(format!("{n}{}", "长".repeat(3_000)))).collect();
        sent.log.rejection = Some(Rejection::new(Reason::AmountMismatch, "长".repeat(5_000)));
        sent.headers.insert("foreign".to_owned(), "x".repeat(100_000));
        let back = message(&properties(&sent, 1), Vec::new());
        assert_eq!(back.log.history, sent.log.history[HISTORY_MAX - 3..]);
        assert_eq!(back.log.rejection.unwrap().detail.chars().count(), DETAIL_BYTES / 3);
        assert_eq!(back.headers.keys().collect::<Vec<_>>(), ["wxpay-api"]);
    }

    #[test]
    fn only_what_the_broker_gave_up_is_read_as_a_delivery_limit() {
        let death = |reason: &str| {
            let mut death = FieldTable::default();
            death.insert("reason".into(), text(reason));
            let mut headers = FieldTable::default();
            headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
            dead_letter(&BasicProperties::default().with_headers(headers), Vec::new())
        };
        assert_eq!(death("delivery_limit").log.rejection.unwrap().reason, Reason::DeliveryLimit);
        assert_eq!(death("expired").log.rejection, None);
        assert!(death("expired").headers.is_empty());
    }
}
