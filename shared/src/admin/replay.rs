//! A replay: what is asked for, and what became of each.

use serde::{Deserialize, Serialize};

use super::Selection;
use crate::{ids::NotificationId, reason::Reason};

/// Takes dead letters through the worker once more, attempts counted anew.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// Which.
    pub select: Selection,
    /// How many at most; [`PAGE`](super::PAGE) unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// How many a second at most, from 1 on; as fast as it goes unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Says what would become of each, and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Who; the audit record keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why; the audit record keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What a replay did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replayed {
    /// One result a dead letter, in the order they were taken.
    pub results: Vec<ReplayResult>,
    /// How it ended.
    #[serde(flatten)]
    pub end: ReplayEnd,
}

/// A line of a replay's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayItem {
    /// What became of one.
    Result(ReplayResult),
    /// The last line.
    End(ReplayEnd),
}

/// How a replay ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplayEnd {
    /// How many that match are left, because of the limit.
    pub left: usize,
    /// Why it ended early. What has a result has it for certain; the others are the dead letters that they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What became of one replayed dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayResult {
    /// Which.
    pub id: NotificationId,
    /// What became of it.
    pub outcome: ReplayOutcome,
    /// Why it is a dead letter again, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The facts, where it was not simply applied.
    pub detail: String,
}

/// What can become of a replayed dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// It took effect now.
    Applied,
    /// It had taken effect before; it is no dead letter any more.
    AlreadyApplied,
    /// It changes nothing; it is no dead letter any more.
    Ignored,
    /// It waits in the retry tiers.
    Waiting,
    /// It is a dead letter again.
    DeadAgain,
    /// It could not be tried and is the dead letter that it was.
    Failed,
}

impl ReplayOutcome {
    /// The stable code, as the audit record keeps it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AlreadyApplied => "already_applied",
            Self::Ignored => "ignored",
            Self::Waiting => "waiting",
            Self::DeadAgain => "dead_again",
            Self::Failed => "failed",
        }
    }
}
