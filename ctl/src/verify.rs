//! `wxpayctl verify`: takes a saved notification, says which check it fails, and what usually causes that.
//!
//! The checks are those of ingress and worker, one by one. Keys, digests, signatures, bodies and personal fields are
//! never printed, so what is printed can be sent to somebody who helps.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::{Config, ConfigError},
    ids::MerchantName,
    merchant::{Merchant, Merchants},
};

use crate::{
    cli::Verdict,
    screen::{Grid, Screen},
    simulate::Api,
};

pub(crate) mod checklist;
mod headers;
mod content;
mod v2;
mod v2_hints;
mod v3;

use checklist::{Checklist, Outcome};

/// `wxpayctl verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl verify body.xml --config wxpay.toml --merchant shop
  wxpayctl verify body.json --headers headers.txt --config wxpay.toml --merchant shop
  wxpayctl verify body.json --headers headers.txt --at 2026-03-18T10:20:30+08:00 --config wxpay.toml --merchant shop

FILE holds the body byte for byte: what a proxy or `tcpdump` recorded, not what a framework parsed and printed again.
For v3, the headers stand in a file of their own, one `Name: value` a line.

Nothing secret or personal is printed. Exit codes: 0 every check passed, 1 one failed, 2 it could not be done, 64 the
configuration cannot be used.")]
pub(crate) struct Args {
    /// The notification's body, byte for byte.
    file: PathBuf,
    /// The configuration; wxpay.toml, where that exists, unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The merchant on whose path it came.
    #[arg(long, value_parser = MerchantName::parse)]
    merchant: MerchantName,
    /// The protocol; unless given, v3 where there are headers or the body is JSON.
    #[arg(long, value_enum)]
    api: Option<Api>,
    /// v3: a file with the request's headers, one `Name: value` a line.
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
    /// v3: the time at which it arrived. Unless given, the age of its timestamp is told and not judged.
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
    /// v3: judges the timestamp by the present time where --at is not given.
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let config = Config::load(args.config.as_deref(), std::env::vars())?;
    let merchants = Merchants::open(&config)?;
    let missing = || ConfigError::new(format!("merchants.{}", args.merchant), "no such merchant");
    let merchant = merchants.get(args.merchant.as_str()).ok_or_else(missing)?;
    let body = read(&args.file)?;
    let api = args.api.unwrap_or_else(|| guess(&body, args.headers.is_some()));
    let (title, list) = match api {
        Api::V2 => {
            if args.headers.is_some() || args.at.is_some() || args.strict {
                bail!("--headers, --at and --strict: only with --api v3, since v2 has no timestamp");
            }
            if merchant.v2_keys.is_empty() {
                return Err(ConfigError::new(format!("merchants.{}.v2_key", merchant.name), "missing").into());
            }
            v2(&body, merchant)
        }
        Api::V3 => v3(&args, &body, merchant)?,
    };
    let name = args.file.display();
    if screen.is_json() {
        screen.json(&serde_json::json!({
            "file": name.to_string(), "merchant": merchant.name, "kind": title, "passed": list.passed(),
            "checks": list.checks(), "failed": list.failed(), "cause": list.cause(),
        }))?;
    } else {
        screen.line(format_args!("{name}, as {title} of merchant {}\n", merchant.name))?;
        show(screen, &list)?;
    }
    Ok(Verdict::found_if(!list.passed()))
}

/// The checks of a v2 body, and what it is.
pub(crate) fn v2(body: &[u8], merchant: &Merchant) -> (&'static str, Checklist) {
    let mut list = Checklist::default();
    let title = v2::check(body, merchant, &mut list);
    (title, list)
}

fn v3(args: &Args, body: &[u8], merchant: &Merchant) -> Result<(&'static str, Checklist)> {
    let Some(keys) = &merchant.v3 else {
        return Err(ConfigError::new(format!("merchants.{}.api_v3_key", merchant.name), "missing").into());
    };
    let file = args.headers.as_deref().context(
        "--headers: a v3 notification is signed in its headers; save them in a file, one `Name: value` a line",
    )?;
    let text = read(file)?;
    let headers = headers::parse(&text).with_context(|| file.display().to_string())?;
    let now = SystemClock.now();
    let judged_at = args.at.or_else(|| args.strict.then_some(now));
    let mut list = Checklist::default();
    v3::check(&headers, body, keys, v3::Clocks { judged_at, now }, &mut list);
    if list.passed() {
        content::v3(body, merchant, keys, &mut list);
    }
    Ok(("a v3 notification", list))
}

fn guess(body: &[u8], with_headers: bool) -> Api {
    if with_headers || body.trim_ascii_start().starts_with(b"{") { Api::V3 } else { Api::V2 }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

fn show(screen: &mut Screen<'_>, list: &Checklist) -> Result<()> {
    let mut grid = Grid::new(["check", "result", "what was found"]);
    for check in list.checks() {
        let result = match check.result {
            Outcome::Ok => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Noted => "noted",
        };
        grid.row([check.name.to_owned(), result.to_owned(), check.found.clone()]);
    }
    screen.table(grid)?;
    match (list.failed(), list.cause()) {
        (Some(failed), Some(cause)) => screen.line(format_args!("\n{failed}: {cause}")),
        _ => screen.line("\nevery check passed: ingress accepts it, and the worker can read it"),
    }
}
