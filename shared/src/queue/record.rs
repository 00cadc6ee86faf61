//! A message as bytes, on disk and in a bundle: a version, the length of the head, the head as JSON, the body as it came.
//!
//! The body stays raw so that it is byte for byte what was received; the head is text so that a person can read it.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::{Log, Message},
    ids::NotificationId,
};

/// The format that this program writes, and the only one so far.
const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Head<'a> {
    id: Cow<'a, NotificationId>,
    headers: Cow<'a, BTreeMap<String, String>>,
    log: Cow<'a, Log>,
}

/// Bytes that are no record of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("not a message of format {FORMAT}")]
    Format,
    #[error("the head of a message cannot be read")]
    Head(#[from] serde_json::Error),
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let Message { id, headers, body, log } = message;
    let head = Head { id: Cow::Borrowed(id), headers: Cow::Borrowed(headers), log: Cow::Borrowed(log) };
    let head = serde_json::to_vec(&head).expect("text and numbers always become JSON");
    let length = u32::try_from(head.len()).expect("a head is far smaller than 4 GiB");
    let mut bytes = Vec::with_capacity(5 + head.len() + body.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Message, RecordError> {
    let (&[FORMAT], rest) = bytes.split_first_chunk::<1>().ok_or(RecordError::Format)? else {
        return Err(RecordError::Format);
    };
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(RecordError::Format)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| RecordError::Format)?;
    let (head, body) = rest.split_at_checked(length).ok_or(RecordError::Format)?;
    let Head { id, headers, log } = serde_json::from_slice(head)?;
    let (id, headers, log) = (id.into_owned(), headers.into_owned(), log.into_owned());
    Ok(Message { id, headers, body: Bytes::copy_from_slice(body), log })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_comes_back_as_it_was(
            headers in proptest::collection::btree_map(".*", ".*", 0..4),
            body in proptest::collection::vec(any::<u8>(), 0..200),
            attempts: u32,
        ) {
            let id = NotificationId::parse("0a-1b").unwrap();
            let log = Log { attempts, ..Log::default() };
            let message = Message { id, headers, body: body.into(), log };
            prop_assert_eq!(decode(&encode(&message)).unwrap(), message);
        }

        #[test]
        fn other_bytes_are_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
