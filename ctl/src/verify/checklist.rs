//! Checks in their order, each with its result; and for the first that failed, what usually causes that.

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// As it must be.
    Ok,
    /// Not as it must be.
    Failed,
    /// Worth knowing, and not judged.
    Noted,
}

/// One check.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// Its name, which stays as it is.
    pub(crate) name: &'static str,
    pub(crate) result: Outcome,
    /// What was found; nothing secret or personal.
    pub(crate) found: String,
}

/// All checks so far.
#[derive(Debug, Default)]
pub(crate) struct Checklist {
    checks: Vec<Check>,
    cause: Option<String>,
}

impl Checklist {
    pub(crate) fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.checks.push(Check { name, result: Outcome::Ok, found: found.into() });
    }

    pub(crate) fn note(&mut self, name: &'static str, found: impl Into<String>) {
        self.checks.push(Check { name, result: Outcome::Noted, found: found.into() });
    }

    /// The cause is kept for the first failure only: later ones often follow from it.
    pub(crate) fn fail(&mut self, name: &'static str, found: impl Into<String>, cause: impl Into<String>) {
        if self.passed() {
            self.cause = Some(cause.into());
        }
        self.checks.push(Check { name, result: Outcome::Failed, found: found.into() });
    }

    pub(crate) fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether nothing failed so far.
    pub(crate) fn passed(&self) -> bool {
        self.failed().is_none()
    }

    /// The name of the first check that failed.
    pub(crate) fn failed(&self) -> Option<&'static str> {
        self.checks.iter().find(|check| check.result == Outcome::Failed).map(|check| check.name)
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }
}
