//! `wxpayctl simulate`: plays WeChat to any receiver and says whether the reply is the one that it should get.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Subcommand;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::task::JoinSet;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::{Config, ConfigError, MerchantKey},
    fen::Fen,
    ids::{AppId, MchId, MerchantName, OpenId, OutTradeNo, TransactionId},
    wechat::{keys::V2Key, v2_sign::SignType},
};

use crate::{
    cli::Verdict,
    client::secret,
    random,
    screen::{Grid, Screen, count},
    wechat_sender::{Notice, Reply, Sender},
};

/// Copies of one notification that one run may send; more is a load test, which this is not.
const TIMES_MAX: i64 = 1000;

/// `wxpayctl simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Signs the notification of a payment (APIv2) and posts it, honest or with a fault.
    #[command(after_help = "\
Examples:
  wxpayctl simulate pay --config wxpay.toml --merchant shop --out-trade-no A1001 --amount 8800
  wxpayctl simulate pay --config wxpay.toml --merchant shop --out-trade-no A1001 --amount 8800 --times 5 --parallel
  wxpayctl simulate pay --url https://pay.example.com/v2/shop --mch-id 1900000109 --appid wxd678efh567hg6787 \\
      --key-file secrets/shop-v2-key --out-trade-no A1001 --amount 8800 --tamper

An honest notification must be answered SUCCESS, also one that cannot be applied: it becomes a dead letter. One that
is not WeChat's (--tamper, --wrong-key, --unsigned, a wrong --sign-type) must be answered FAIL. The exit code is 1
where the reply is another.")]
    Pay(Box<Pay>),
}

#[derive(Debug, clap::Args)]
struct Pay {
    /// The receiver's `notify_url`; that of the configuration's listener unless given.
    #[arg(long, required_unless_present = "config")]
    url: Option<Url>,
    /// Takes ids, key and address from this configuration.
    #[arg(long, value_name = "FILE", requires = "merchant")]
    config: Option<PathBuf>,
    /// The merchant in that configuration.
    #[arg(long, requires = "config", value_parser = MerchantName::parse)]
    merchant: Option<MerchantName>,
    /// The merchant number.
    #[arg(long, required_unless_present = "config", value_parser = MchId::parse)]
    mch_id: Option<MchId>,
    /// The application; the first of the configuration unless given.
    #[arg(long, required_unless_present = "config", value_parser = AppId::parse)]
    appid: Option<AppId>,
    /// The sub-merchant, where the merchant is a service provider; the first of the configuration unless given.
    #[arg(long, value_parser = MchId::parse)]
    sub_mch_id: Option<MchId>,
    /// A file with the v2 key.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The v2 key; only from the environment, where other users cannot list it.
    #[arg(long, hide = true, env = "WXPAY_V2_KEY", hide_env_values = true, value_parser = secret)]
    v2_key: Option<SecretString>,

    /// The order that is paid.
    #[arg(long, value_parser = OutTradeNo::parse)]
    out_trade_no: OutTradeNo,
    /// What it costs, in fen.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    amount: Fen,
    /// WeChat's number for the payment; a new one unless given. The same number again is the same payment.
    #[arg(long, value_parser = TransactionId::parse)]
    transaction_id: Option<TransactionId>,
    /// Who pays.
    #[arg(long, value_parser = OpenId::parse)]
    openid: Option<OpenId>,
    /// The text that the order brought along.
    #[arg(long)]
    attach: Option<String>,
    /// Pays this much of it with a coupon: `cash_fee` is lower, `total_fee` stays.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    coupon: Option<Fen>,

    /// Sends the same notification so many times.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=TIMES_MAX))]
    times: i64,
    /// Sends all of them at once.
    #[arg(long)]
    parallel: bool,
    /// Signs with HMAC-SHA256 instead of MD5.
    #[arg(long)]
    hmac: bool,
    /// Adds the `sign_type` field, which WeChat usually leaves out; one that does not fit the signature is a fault.
    #[arg(long, value_name = "TYPE")]
    sign_type: Option<String>,

    /// Says, rightly signed, that another amount was paid.
    #[arg(long, value_name = "FEN", value_parser = Fen::parse)]
    wrong_amount: Option<Fen>,
    /// Signs with a key that is not the merchant's.
    #[arg(long)]
    wrong_key: bool,
    /// Changes a field after signing, as somebody on the way would.
    #[arg(long)]
    tamper: bool,
    /// Leaves the signature out.
    #[arg(long, conflicts_with_all = ["wrong_key", "hmac"])]
    unsigned: bool,
}

/// On whose behalf, and where to.
struct Merchant {
    url: Url,
    mch_id: MchId,
    sub_mch_id: Option<MchId>,
    appid: AppId,
    key: V2Key,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let Action::Pay(pay) = args.action;
    let merchant = pay.merchant()?;
    let notice = pay.notice(&merchant)?;
    let sender = Sender::new(merchant.url.clone())?;
    if !screen.is_json() {
        show_request(screen, &pay, &merchant.url, &notice)?;
    }
    let replies = send(&sender, &notice, pay.times, pay.parallel).await?;
    let expected = pay.expected();
    let kept = replies.iter().all(|reply| if expected == "FAIL" { reply.is_fail() } else { reply.is_success() });
    if screen.is_json() {
        let replies: Vec<_> = replies.iter().map(reply_json).collect();
        let transaction_id = notice.get("transaction_id");
        screen.json(&json!({
            "url": merchant.url.as_str(), "out_trade_no": pay.out_trade_no, "transaction_id": transaction_id,
            "expected": expected, "as_expected": kept, "replies": replies,
        }))?;
    } else {
        show_replies(screen, &replies)?;
        let verdict = if kept { "the reply is as it should be" } else { "the reply should have been" };
        screen.line(format_args!("\n{verdict}: {expected}"))?;
    }
    Ok(Verdict::found_if(!kept))
}

impl Pay {
    fn merchant(&self) -> Result<Merchant> {
        let configured = match (&self.config, &self.merchant) {
            (Some(file), Some(name)) => Some(configured(file, name)?),
            _ => None,
        };
        let given = self.key_file.as_deref().map(key_file).transpose()?;
        let given = given.or_else(|| self.v2_key.clone().filter(|_| configured.is_none()));
        let given = given.map(|key| V2Key::parse(key.expose_secret())).transpose();
        let given = given.map_err(|error| anyhow!("the v2 key: {error}"))?;
        if let Some(configured) = configured {
            return Ok(Merchant {
                url: self.url.clone().unwrap_or(configured.url),
                mch_id: self.mch_id.clone().unwrap_or(configured.mch_id),
                sub_mch_id: self.sub_mch_id.clone().or(configured.sub_mch_id),
                appid: self.appid.clone().unwrap_or(configured.appid),
                key: given.unwrap_or(configured.key),
            });
        }
        let (Some(url), Some(mch_id), Some(appid)) = (&self.url, &self.mch_id, &self.appid) else {
            bail!("give --config with --merchant, or --url, --mch-id and --appid");
        };
        let key = given.context("the v2 key: name its file with --key-file or set WXPAY_V2_KEY")?;
        let (url, mch_id, appid) = (url.clone(), mch_id.clone(), appid.clone());
        Ok(Merchant { url, mch_id, sub_mch_id: self.sub_mch_id.clone(), appid, key })
    }

    fn notice(&self, merchant: &Merchant) -> Result<Notice> {
        let paid = self.wrong_amount.unwrap_or(self.amount);
        if self.coupon.is_some_and(|coupon| coupon > paid) {
            bail!("--coupon: expected at most the amount, {} fen", paid.get());
        }
        let mut notice =
            Notice::payment(&merchant.mch_id, &merchant.appid, &self.out_trade_no, paid, SystemClock.now());
        for (name, value) in [
            ("transaction_id", self.transaction_id.as_ref().map(TransactionId::as_str)),
            ("sub_mch_id", merchant.sub_mch_id.as_ref().map(MchId::as_str)),
            ("openid", self.openid.as_ref().map(OpenId::as_str)),
            ("attach", self.attach.as_deref()),
            ("sign_type", self.sign_type.as_deref()),
        ] {
            if let Some(value) = value {
                notice = notice.with(name, value);
            }
        }
        if let Some(coupon) = self.coupon {
            notice = notice.with_coupon(coupon);
        }
        if !self.unsigned {
            let other = V2Key::parse(random::hex_digits::<16>()).map_err(|error| anyhow!("{error}"))?;
            let key = if self.wrong_key { &other } else { &merchant.key };
            notice = notice.signed(key, if self.hmac { SignType::HmacSha256 } else { SignType::Md5 });
        }
        Ok(if self.tamper { notice.with("bank_type", "TAMPERED") } else { notice })
    }

    /// What a receiver that does its job replies.
    fn expected(&self) -> &'static str {
        let fits = match self.sign_type.as_deref() {
            None | Some("") => true,
            Some("MD5") => !self.hmac,
            Some("HMAC-SHA256") => self.hmac,
            Some(_) => false,
        };
        if self.wrong_key || self.tamper || self.unsigned || !fits { "FAIL" } else { "SUCCESS" }
    }
}

fn configured(file: &Path, name: &MerchantName) -> Result<Merchant> {
    let config = Config::load(Some(file), std::env::vars())?;
    let setting = format!("merchants.{name}");
    let merchant = config.merchants.get(name).ok_or_else(|| ConfigError::new(&setting, "no such merchant"))?;
    let key_setting = format!("{setting}.v2_key");
    let key = config
        .merchant_key(name, merchant, MerchantKey::V2)?
        .ok_or_else(|| ConfigError::new(&key_setting, "missing"))?;
    let key = V2Key::parse(key.expose_secret()).map_err(|error| ConfigError::new(&key_setting, error))?;
    let appid = merchant.appids.first().ok_or_else(|| ConfigError::new(format!("{setting}.appids"), "empty"))?;
    let mut listen = config.ingress.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = Url::parse(&format!("http://{listen}/v2/{name}"))?;
    let (mch_id, sub_mch_id) = (merchant.mch_id.clone(), merchant.sub_mch_ids.first().cloned());
    Ok(Merchant { url, mch_id, sub_mch_id, appid: appid.clone(), key })
}

fn key_file(path: &Path) -> Result<SecretString> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--key-file: cannot read {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

async fn send(sender: &Sender, notice: &Notice, times: i64, parallel: bool) -> Result<Vec<Reply>> {
    let mut replies = Vec::new();
    if !parallel {
        for _ in 0..times {
            replies.push(sender.post(notice).await?);
        }
        return Ok(replies);
    }
    let mut posts = JoinSet::new();
    for _ in 0..times {
        let (sender, notice) = (sender.clone(), notice.clone());
        posts.spawn(async move { sender.post(&notice).await });
    }
    while let Some(reply) = posts.join_next().await {
        replies.push(reply.context("a request was lost")??);
    }
    Ok(replies)
}

fn show_request(screen: &mut Screen<'_>, pay: &Pay, url: &Url, notice: &Notice) -> Result<()> {
    let times = usize::try_from(pay.times).unwrap_or(1);
    let how = match (times, pay.parallel) {
        (1, _) => String::new(),
        (_, true) => format!(", {} at once", count(times, "time")),
        (_, false) => format!(", {} in a row", count(times, "time")),
    };
    screen.line(format_args!("POST {url}{how}"))?;
    // Who has seen a signed notification whole could replay it, so the signature is cut.
    let shown = |name: &str, value: &str| match name {
        "sign" => format!("{}…", value.chars().take(8).collect::<String>()),
        _ => value.to_owned(),
    };
    let fields: Vec<_> = notice.iter().map(|(name, value)| (name, Some(shown(name, value)))).collect();
    screen.facts(&fields)
}

fn show_replies(screen: &mut Screen<'_>, replies: &[Reply]) -> Result<()> {
    screen.line("")?;
    let mut grid = Grid::new(["reply", "status", "return_code", "return_msg", "took"]).right(0).right(4);
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
