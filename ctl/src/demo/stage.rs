//! Plays an act: does its steps over HTTP, as the merchant, as WeChat and as a developer, and waits for its end.
//!
//! It waits for conditions, each with a deadline, and never for a time. What does not come is a failure of the act, told
//! with what was expected and what came instead; only what cannot be done at all is an error.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result};
use reqwest::Url;
use secrecy::ExposeSecret;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use wxpay_shared::{
    admin::{DeadLetterView, OrderView, PAGE_MAX, RegisterOrder, Replay, ReplayOutcome, Selection},
    config::{Config, MerchantKey},
    envelope::Api,
    fen::Fen,
    ids::{MerchantName, OrderId, OutTradeNo, UserId},
    reason::Rejection,
    wechat::{
        keys::{ApiV3Key, V2Key},
        sender::SigningKey,
    },
};

use super::{
    Played,
    act::{Act, Post, Seen, Step, WeChat},
};
use crate::{
    client::{Client, Refused},
    dev_merchant,
    screen::code,
    together::Together,
    wechat_sender::{Payee, Reply, Sender},
};

/// Whose points every act earns.
pub(crate) const USER: &str = "alice";
/// The time that any act has for what normally takes a moment.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Everything that an act needs.
pub(crate) struct Stage {
    client: Client,
    /// To the address for v2, and to that for v3.
    senders: [Sender; 2],
    merchant: MerchantName,
    user: UserId,
    payee: Payee,
    key: V2Key,
    api_v3: ApiV3Key,
    platform: SigningKey,
}

impl Stage {
    /// The stage on programs that run, with the merchant of their configuration.
    pub(crate) fn new(config: &Config, together: &Together) -> Result<Self> {
        let name = MerchantName::parse(dev_merchant::NAME)?;
        let merchant = config.merchants.get(&name).context("the development merchant is not configured")?;
        let key = |key| config.merchant_key(&name, merchant, key)?.context("the development merchant lacks a key");
        let sender = |api: Api| Sender::new(Url::parse(&format!("http://{}/{}/{name}", together.ingress, api.code()))?);
        let platform = std::fs::read(config.path(Path::new(dev_merchant::PLATFORM_PRIVATE_FILE)))?;
        Ok(Self {
            client: Client::new(Url::parse(&format!("http://{}", together.admin))?, None)?,
            senders: [sender(Api::V2)?, sender(Api::V3)?],
            user: UserId::parse(USER)?,
            payee: Payee {
                mch_id: merchant.mch_id.clone(),
                appid: merchant.appids.first().context("the development merchant has no appid")?.clone(),
                sub_mch_id: None,
                sub_appid: None,
            },
            key: V2Key::parse(key(MerchantKey::V2)?.expose_secret())?,
            api_v3: ApiV3Key::parse(key(MerchantKey::ApiV3)?.expose_secret())?,
            platform: SigningKey::from_pem(dev_merchant::PLATFORM_SERIAL, &platform)?,
            merchant: name,
        })
    }

    /// Plays an act to its end, or until patience is over.
    pub(crate) async fn play(&self, act: Act) -> Result<Played> {
        let (mut told, mut failures) = (Vec::new(), Vec::new());
        for step in &act.steps {
            self.step(&act, step, &mut told, &mut failures).await?;
        }
        let deadline = Instant::now() + PATIENCE;
        let seen = loop {
            let seen = self.look(&act).await?;
            if act.expect.differences(&seen).is_empty() || Instant::now() >= deadline {
                break seen;
            }
            sleep(LOOK_AGAIN).await;
        };
        Ok(Played { act, replies: told.join(", "), seen, failures })
    }

    async fn step(&self, act: &Act, step: &Step, told: &mut Vec<String>, failures: &mut Vec<String>) -> Result<()> {
        match step {
            Step::Register(fen) => {
                let order = RegisterOrder {
                    merchant: self.merchant.clone(),
                    out_trade_no: OutTradeNo::parse(act.order)?,
                    amount: Fen::new(*fen)?,
                    currency: None,
                    user: Some(self.user.clone()),
                    appid: None,
                    points: None,
                };
                self.client.register(&order).await?;
            }
            Step::Post(post) => {
                let replies = self.post(act, post).await?;
                let right = |reply: &&Reply| match post.reply {
                    "SUCCESS" => reply.is_success(),
                    _ => reply.is_fail(),
                };
                let wrong = replies.iter().filter(|reply| !right(reply)).map(shown);
                failures.extend(wrong.map(|reply| format!("reply: expected {}, got {reply}", post.reply)));
                told.extend(summary(&replies));
            }
            Step::AwaitRecorded(expected) => {
                let (deadline, number) = (Instant::now() + PATIENCE, OutTradeNo::parse(act.order)?);
                loop {
                    let order = self.client.order(&self.merchant, &number).await?;
                    let recorded = order.payments.len() + order.refunds.len();
                    if recorded == *expected {
                        break;
                    }
                    if Instant::now() >= deadline {
                        failures.push(format!("recorded: expected {expected}, got {recorded}"));
                        break;
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
            Step::AwaitDeadLetter(reason) => {
                let deadline = Instant::now() + PATIENCE;
                while !self.dead_letters(act).await?.iter().any(|letter| letter.reason == *reason) {
                    if Instant::now() >= deadline {
                        failures.push(format!("dead letter: expected {reason}, none came"));
                        break;
                    }
                    sleep(LOOK_AGAIN).await;
                }
            }
            Step::Replay(expected) => {
                let outcomes = self.replay(act).await?;
                if outcomes != [*expected] {
                    let got: Vec<_> = outcomes.iter().map(code).collect();
                    failures.push(format!("replay: expected {}, got [{}]", code(expected), got.join(", ")));
                }
                told.push("replayed".to_owned());
            }
        }
        Ok(())
    }

    async fn post(&self, act: &Act, post: &Post) -> Result<Vec<Reply>> {
        let wechat = WeChat {
            payee: &self.payee,
            key: &self.key,
            api_v3: &self.api_v3,
            platform: &self.platform,
            order: OutTradeNo::parse(act.order)?,
        };
        let outgoing = (post.notice)(&wechat);
        let [v2, v3] = &self.senders;
        let to = match outgoing.api {
            Api::V2 => v2,
            Api::V3 => v3,
        };
        let mut posts = JoinSet::new();
        for _ in 0..post.times {
            let (sender, outgoing) = (to.clone(), outgoing.clone());
            posts.spawn(async move { sender.post(&outgoing).await });
        }
        let mut replies = Vec::new();
        while let Some(reply) = posts.join_next().await {
            replies.push(reply.context("a post was lost")??);
        }
        Ok(replies)
    }

    async fn replay(&self, act: &Act) -> Result<Vec<ReplayOutcome>> {
        let ids: Vec<_> = self.dead_letters(act).await?.into_iter().map(|letter| letter.id).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let select = Selection { ids, ..Selection::default() };
        let replayed = self.client.replay(&Replay { select, ..Replay::default() }).await?;
        Ok(replayed.results.into_iter().map(|result| result.outcome).collect())
    }

    /// How the act's order stands now.
    pub(crate) async fn look(&self, act: &Act) -> Result<Seen> {
        let dead = self.dead_letters(act).await?.into_iter();
        let dead = dead.map(|letter| Rejection::new(letter.reason, letter.detail)).collect();
        let Some(order) = self.order(act).await? else {
            return Ok(Seen { state: None, received: Fen::ZERO, points: 0, ledger_entries: 0, dead });
        };
        Ok(Seen {
            state: Some(order.state),
            received: order.received,
            points: order.points,
            ledger_entries: order.ledger.len(),
            dead,
        })
    }

    async fn order(&self, act: &Act) -> Result<Option<OrderView>> {
        match self.client.order(&self.merchant, &OutTradeNo::parse(act.order)?).await {
            Ok(order) => Ok(Some(order)),
            Err(error) if error.is::<Refused>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The act's dead letters: those that name its order.
    async fn dead_letters(&self, act: &Act) -> Result<Vec<DeadLetterView>> {
        let order = OrderId { merchant: self.merchant.clone(), out_trade_no: OutTradeNo::parse(act.order)? };
        let select = Selection { order: Some(order), ..Selection::default() };
        Ok(self.client.dead_letters(&select, PAGE_MAX, None).await?.dead_letters)
    }

    /// Waits until nothing waits for a worker and nothing waits for a retry; a failure where that does not come.
    pub(crate) async fn come_to_rest(&self) -> Result<Option<String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let depths = self.client.depths().await?;
            if depths.notify == 0 && depths.retry == 0 {
                return Ok(None);
            }
            if Instant::now() >= deadline {
                return Ok(Some(format!("queue: expected empty, got {} and {}", depths.notify, depths.retry)));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// A failure where the account does not have the sum of what the orders credited.
    pub(crate) async fn wrong_balance(&self, expected: i64) -> Result<Option<String>> {
        let got = self.client.points(&self.merchant, &self.user).await?.balance;
        Ok((got != expected).then(|| format!("points of {USER}: expected {expected}, got {got}")))
    }
}

fn shown(reply: &Reply) -> String {
    let code = reply.return_code.as_deref().unwrap_or("no return_code");
    format!("{code} (status {}, {})", reply.status, reply.return_msg)
}

/// `5 × SUCCESS`, or what else there was.
fn summary(replies: &[Reply]) -> Vec<String> {
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for reply in replies {
        *codes.entry(reply.word()).or_default() += 1;
    }
    let short = |(code, times): (String, usize)| if times == 1 { code } else { format!("{times} × {code}") };
    codes.into_iter().map(short).collect()
}
