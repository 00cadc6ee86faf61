//! Posts what was built, and shows request, replies and times.

use anyhow::{Context, Result};
use reqwest::Url;
use serde_json::json;
use tokio::task::JoinSet;
use wxpay_shared::envelope::Api;

use super::faults::Repeat;
use crate::{
    cli::Verdict,
    screen::{Grid, Screen, count},
    wechat_sender::{Outgoing, Reply, Sender},
};

/// One notification, and what must be answered.
pub(super) struct Play {
    pub(super) url: Url,
    pub(super) outgoing: Outgoing,
    /// The request for a person, without what a replay would need.
    pub(super) shown: Vec<(String, String)>,
    /// What it is about, for a program.
    pub(super) facts: Vec<(&'static str, String)>,
    /// Whether a receiver that does its job refuses it.
    pub(super) refused: bool,
    pub(super) repeat: Repeat,
}

impl Play {
    pub(super) async fn run(self, screen: &mut Screen<'_>) -> Result<Verdict> {
        let sender = Sender::new(self.url.clone())?;
        if !screen.is_json() {
            self.show_request(screen)?;
        }
        let replies = self.send(&sender).await?;
        let kept = replies.iter().all(|reply| if self.refused { reply.is_fail() } else { reply.is_success() });
        let expected = if self.refused { "FAIL" } else { "SUCCESS" };
        if screen.is_json() {
            let replies: Vec<_> = replies.iter().map(reply_json).collect();
            let mut document = json!({
                "url": self.url.as_str(), "api": self.outgoing.api.code(), "expected": expected, "as_expected": kept,
                "replies": replies,
            });
            for (name, value) in &self.facts {
                document[*name] = value.as_str().into();
            }
            screen.json(&document)?;
        } else {
            show_replies(screen, self.outgoing.api, &replies)?;
            let verdict = if kept { "the reply is as it should be" } else { "the reply should have been" };
            let meaning = match (self.outgoing.api, self.refused) {
                (Api::V2, _) => "",
                (Api::V3, true) => ", a status of 4xx or 5xx with that code",
                (Api::V3, false) => ", status 200 or 204",
            };
            screen.line(format_args!("\n{verdict}: {expected}{meaning}"))?;
        }
        Ok(Verdict::found_if(!kept))
    }

    async fn send(&self, sender: &Sender) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        if !self.repeat.parallel {
            for _ in 0..self.repeat.times {
                replies.push(sender.post(&self.outgoing).await?);
            }
            return Ok(replies);
        }
        let mut posts = JoinSet::new();
        for _ in 0..self.repeat.times {
            let (sender, outgoing) = (sender.clone(), self.outgoing.clone());
            posts.spawn(async move { sender.post(&outgoing).await });
        }
        while let Some(reply) = posts.join_next().await {
            replies.push(reply.context("a request was lost")??);
        }
        Ok(replies)
    }

    fn show_request(&self, screen: &mut Screen<'_>) -> Result<()> {
        let times = usize::try_from(self.repeat.times).unwrap_or(1);
        let how = match (times, self.repeat.parallel) {
            (1, _) => String::new(),
            (_, true) => format!(", {} at once", count(times, "time")),
            (_, false) => format!(", {} in a row", count(times, "time")),
        };
        screen.line(format_args!("POST {}{how}", self.url))?;
        let facts: Vec<_> = self.shown.iter().map(|(name, value)| (name.as_str(), Some(value.clone()))).collect();
        screen.facts(&facts)
    }
}

/// The requests as a person may see them.
pub(super) mod shown {
    use wxpay_shared::wechat::v3_sign::SIGNATURE;

    use crate::wechat_sender::{Outgoing, v2, v3};

    /// The fields of a v2 notification.
    pub(in super::super) fn v2(notice: &v2::Notice) -> Vec<(String, String)> {
        let shown = |(name, value): (&str, &str)| {
            let value = if matches!(name, "sign" | "req_info") { cut(value) } else { value.to_owned() };
            (name.to_owned(), value)
        };
        notice.iter().map(shown).collect()
    }

    /// The headers of a v3 notification, and its content before it was encrypted.
    pub(in super::super) fn v3(outgoing: &Outgoing, notice: &v3::Notice) -> Vec<(String, String)> {
        let header = |(name, value): &(&'static str, String)| {
            let value = if *name == SIGNATURE { cut_signature(value) } else { value.clone() };
            ((*name).to_owned(), value)
        };
        let mut shown: Vec<_> = outgoing.headers.iter().map(header).collect();
        shown.push(("event_type".to_owned(), notice.event_type().to_owned()));
        shown.extend(notice.facts());
        shown
    }

    /// Who has seen a signed notification whole could replay it.
    fn cut(value: &str) -> String {
        format!("{}…", value.chars().take(8).collect::<String>())
    }

    fn cut_signature(value: &str) -> String {
        match value.strip_prefix(v3::PROBE_PREFIX) {
            Some(rest) => format!("{}{}", v3::PROBE_PREFIX, cut(rest)),
            None => cut(value),
        }
    }
}

fn show_replies(screen: &mut Screen<'_>, api: Api, replies: &[Reply]) -> Result<()> {
    screen.line("")?;
    let (code, message) = match api {
        Api::V2 => ("return_code", "return_msg"),
        Api::V3 => ("means", "message"),
    };
    let mut grid = Grid::new(["reply", "status", code, message, "took"]).right(0).right(4);
    for (index, reply) in replies.iter().enumerate() {
        let micros = reply.took.as_micros();
        grid.row([
            (index + 1).to_string(),
            reply.status.to_string(),
            reply.return_code.clone().unwrap_or_else(|| "none".to_owned()),
            reply.return_msg.clone(),
            format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        ]);
    }
    screen.table(grid)
}

fn reply_json(reply: &Reply) -> serde_json::Value {
    let took_us = u64::try_from(reply.took.as_micros()).unwrap_or(u64::MAX);
    json!({
        "status": reply.status, "return_code": reply.return_code, "return_msg": reply.return_msg, "took_us": took_us
    })
}
