//! One request's lines in the audit record.

use wxpay_shared::{
    envelope::Message,
    ids::NotificationId,
    merchant::Merchants,
    store::{
        StoreError,
        audit::{Action, AuditLine},
    },
};

use super::{select::reason, view::orders};
use crate::Worker;

/// Who is recorded where a client does not say.
const UNNAMED: &str = "(not said)";
/// Characters of a name or a reason that are kept.
const TEXT_MAX: usize = 500;
/// Characters of the orders, and of a detail, that are kept: all of them, where WeChat and we wrote them. Every store takes
/// so many.
const FACTS_MAX: usize = 8_000;

/// Who does what, and why.
pub(super) struct Trail {
    request: NotificationId,
    action: Action,
    by: String,
    why: String,
}

impl Trail {
    pub(super) fn new(worker: &Worker, action: Action, by: Option<String>, why: Option<String>) -> Self {
        let kept = |text: String| text.chars().filter(|letter| !letter.is_control()).take(TEXT_MAX).collect::<String>();
        let by = by.map(kept).filter(|by| !by.trim().is_empty()).unwrap_or_else(|| UNNAMED.to_owned());
        let request = NotificationId::new(worker.parts.clock.now());
        Self { request, action, by, why: why.map(kept).unwrap_or_default() }
    }

    /// Who does it.
    pub(super) fn by(&self) -> &str {
        &self.by
    }

    /// A line about each, before its effect.
    pub(super) fn lines<'a>(
        &self,
        worker: &Worker,
        merchants: &Merchants,
        messages: impl IntoIterator<Item = &'a Message>,
    ) -> Vec<AuditLine> {
        let at = worker.parts.clock.now();
        let line = |message: &Message| AuditLine {
            at,
            request: self.request.clone(),
            action: self.action,
            notification: message.id.clone(),
            by: self.by.clone(),
            why: self.why.clone(),
            orders: cut(orders(message, merchants)),
            reason: reason(message),
            result: None,
            detail: String::new(),
        };
        messages.into_iter().map(line).collect()
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(FACTS_MAX) {
        text.truncate(end);
    }
    text
}

impl Worker {
    /// Appends lines; when this returns, they are durable.
    pub(super) async fn record(&self, lines: &[AuditLine]) -> Result<(), StoreError> {
        if lines.is_empty() { Ok(()) } else { self.parts.store.write_audit(lines).await }
    }

    /// The same lines with their results, after the effect.
    pub(super) async fn record_results<'a>(
        &self,
        mut lines: Vec<AuditLine>,
        results: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), StoreError> {
        let at = self.parts.clock.now();
        for (line, (result, detail)) in lines.iter_mut().zip(results) {
            line.at = at;
            line.result = Some(result.to_owned());
            line.detail = cut(detail.to_owned());
        }
        self.record(&lines).await
    }
}
