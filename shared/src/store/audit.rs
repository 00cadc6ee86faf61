//! The record of what people did with dead letters: who, when, why, and what came of it. Append-only.
//!
//! An action has two lines: one before its effect, without a result, and one after it. So no action goes unrecorded,
//! whenever a program dies; where only the first line is there, the action was begun and its end is not known.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{ids::NotificationId, reason::Reason};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLine {
    /// When it was written.
    pub at: Timestamp,
    /// One request of a person's; all its lines share it, and it sorts by time.
    pub request: NotificationId,
    /// What was done.
    pub action: Action,
    /// With which dead letter.
    pub notification: NotificationId,
    /// Who did it, in the words of the client.
    pub by: String,
    /// Why, in the words of the person; may be empty for a replay.
    pub why: String,
    /// The orders that it names, as `merchant/out_trade_no`; empty where none can be read.
    pub orders: String,
    /// Why it was a dead letter then.
    pub reason: Reason,
    /// What became of it, as a stable code; `None` before the effect.
    pub result: Option<String>,
    /// The facts of the result.
    pub detail: String,
}

/// What can be done with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It was tried once more.
    Replay,
    /// It was removed.
    Discard,
    /// It was put here from a file.
    Import,
}

impl Action {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
            Self::Import => "import",
        }
    }

    /// The action of this code.
    #[must_use]
    pub fn of(code: &str) -> Option<Self> {
        [Self::Replay, Self::Discard, Self::Import].into_iter().find(|action| action.code() == code)
    }
}

/// Which lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Those of this dead letter.
    pub notification: Option<NotificationId>,
    /// Those written at this moment or later.
    pub since: Option<Timestamp>,
    /// How many at most: the latest.
    pub limit: usize,
}

/// An action as a whole: its line before the effect and the one after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The line before the effect, with the result of the one after it.
    #[serde(flatten)]
    pub line: AuditLine,
    /// When the result was written; `None` where the end of the action is not known.
    pub ended_at: Option<Timestamp>,
}

impl AuditEntry {
    /// Puts lines together, oldest first. A result that belongs to no open action corrects the latest one.
    #[must_use]
    pub fn fold(lines: impl IntoIterator<Item = AuditLine>) -> Vec<Self> {
        let mut entries: Vec<Self> = Vec::new();
        // By request and dead letter: the entries, of which the first `ended` have a result.
        let mut places: HashMap<(NotificationId, NotificationId), (Vec<usize>, usize)> = HashMap::new();
        for line in lines {
            let (places, ended) = places.entry((line.request.clone(), line.notification.clone())).or_default();
            let has_ended = line.result.is_some();
            let place = if has_ended { places.get(*ended).or(places.last()).copied() } else { None };
            match place {
                Some(place) => {
                    *ended = (*ended + 1).min(places.len());
                    let entry = &mut entries[place];
                    entry.ended_at = Some(line.at);
                    (entry.line.result, entry.line.detail) = (line.result, line.detail);
                }
                None => {
                    *ended += usize::from(has_ended);
                    places.push(entries.len());
                    let ended_at = has_ended.then_some(line.at);
                    entries.push(Self { line, ended_at });
                }
            }
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, notification: &str, result: Option<&str>) -> AuditLine {
        AuditLine {
            at: Timestamp::from_second(second).unwrap(),
            request: NotificationId::parse("01").unwrap(),
            action: Action::Replay,
            notification: NotificationId::parse(notification).unwrap(),
            by: "ops".to_owned(),
            why: String::new(),
            orders: "shop/A1".to_owned(),
            reason: Reason::UnknownOrder,
            result: result.map(str::to_owned),
            detail: String::new(),
        }
    }

    #[test]
    fn lines_become_actions_and_one_without_an_end_stays_open() {
        let lines = [
            line(1, "a", None),
            line(1, "b", None),
            line(1, "a", None),
            line(2, "a", Some("applied")),
            line(2, "a", Some("already_applied")),
            line(3, "a", Some("failed")),
            line(4, "c", Some("cut off before")),
        ];
        let seen: Vec<_> = AuditEntry::fold(lines)
            .into_iter()
            .map(|entry| {
                (entry.line.notification.to_string(), entry.line.result, entry.ended_at.map(|at| at.as_second()))
            })
            .collect();
        let ended = |id: &str, result: &str, at| (id.to_owned(), Some(result.to_owned()), Some(at));
        let open = ("b".to_owned(), None, None);
        assert_eq!(seen, [ended("a", "applied", 2), open, ended("a", "failed", 3), ended("c", "cut off before", 4)]);
    }
}
