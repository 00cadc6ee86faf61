//! `wxpayctl config check`: reads the configuration, opens every key, and says what would run. Connects to
//! nothing, unless it is to ask the servers.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::Result;
use clap::Subcommand;
use jiff::Timestamp;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use wxpay_ingress::source::Sources;
use wxpay_shared::{
    config::{self, Config, ConfigError, DEFAULT_FILE, EMBEDDED, ENV_PREFIX, MerchantKey},
    merchant::{Merchant, Merchants},
    queue::topology::{NOTIFY, shard},
    tls::Tls,
};

use crate::{
    cli::Verdict,
    screen::{Grid, Screen, count},
};

mod proof;
mod servers;

/// `wxpayctl config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Reads the configuration with the environment over it, opens every key, and says what would run.
    #[command(after_help = "\
Examples:
  wxpayctl config check --config wxpay.toml
  WXPAY__QUEUE__URL=embedded wxpayctl config check
  wxpayctl config check --servers    asks RabbitMQ and the database too

It makes a notification of each kind with each merchant's keys and takes it through the receiver's checks. It connects
to nothing and changes nothing; with --servers it declares the queues, as the programs would, and compares the
database's schema with its own. The exit code is 64 where the configuration cannot be used; the line on
standard error names the setting.")]
    Check {
        /// The configuration; wxpay.toml, where that exists, unless given.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Asks broker and database whether what they have fits; makes queues that are missing.
        #[arg(long)]
        servers: bool,
    },
}

/// What would run.
#[derive(Serialize)]
struct Report {
    ingress_listen: String,
    ingress_scheme: &'static str,
    ops_listen: String,
    admin_listen: String,
    admin_token: bool,
    queue: String,
    shards: u16,
    /// Those that this configuration's worker takes; empty for all.
    worker_shards: Vec<u16>,
    store: String,
    data_dir: String,
    /// Where traces go, if there are any.
    traces: Option<String>,
    retry_delays: Vec<String>,
    max_attempts: u32,
    /// What broker and database said, where they were asked.
    servers: Vec<String>,
    merchants: Vec<MerchantReport>,
    secrets: Vec<Secret>,
}

#[derive(Serialize)]
struct MerchantReport {
    name: String,
    mch_id: String,
    appids: Vec<String>,
    sub_mch_ids: Vec<String>,
    points: String,
    platform_keys: Vec<String>,
    /// What was proved with the merchant's keys.
    proofs: Vec<String>,
}

#[derive(Serialize)]
struct Secret {
    setting: String,
    /// Where it was found; `None` where it is not set.
    found: Option<String>,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let Action::Check { config: file, servers } = args.action;
    let environment = config::environment()?;
    let config = Config::load(file.as_deref(), environment.iter().cloned())?;
    let mut report = report(&config, &environment)?;
    if servers {
        report.servers = servers::ask(&config).await?;
    }
    if screen.is_json() {
        screen.json(&report)?;
    } else {
        show(screen, &report)?;
    }
    Ok(Verdict::Fine)
}

/// Opens everything that the programs would open.
fn report(config: &Config, environment: &[(String, String)]) -> Result<Report, ConfigError> {
    let merchants = Merchants::open(config)?;
    Tls::open(config)?;
    Sources::open(config)?;
    let queue = config.queue_url()?;
    let store = config.store_url()?;
    let admin_token = config.admin_token()?;
    let seal = config.seal_keys()?;
    if queue.expose_secret() != EMBEDDED {
        config.shared_seal_keys()?;
    }
    let mut settings = ["queue.url", "store.url", "seal.key", "worker.admin_token"].map(str::to_owned).to_vec();
    let server = |url: &SecretString| url.expose_secret() != EMBEDDED;
    let mut set = vec![server(&queue), server(&store), seal.is_some(), admin_token.is_some()];
    for (name, merchant) in &config.merchants {
        for key in MerchantKey::ALL {
            let given = config.merchant_key(name, merchant, key)?.is_some();
            // A merchant need not have both protocols, nor a previous key.
            if given {
                settings.push(format!("merchants.{name}.{}", key.setting()));
                set.push(given);
            }
        }
    }
    let secrets = settings.into_iter().zip(set).map(|(setting, set)| {
        let found = set.then(|| place(config, environment, &setting));
        Secret { setting, found }
    });
    Ok(Report {
        ingress_listen: config.ingress.listen.to_string(),
        ingress_scheme: config.ingress.scheme(),
        ops_listen: config.ingress.ops_listen.to_string(),
        admin_listen: config.worker.admin_listen.to_string(),
        admin_token: admin_token.is_some(),
        queue: without_password(queue.expose_secret()),
        shards: config.queue.shards,
        worker_shards: config.worker.shards.clone(),
        store: without_password(store.expose_secret()),
        data_dir: config.data_dir().components().collect::<PathBuf>().display().to_string(),
        traces: config.telemetry.traces_url().map(|url| without_password(&url)),
        retry_delays: config.queue_settings().retry_delays.iter().map(|delay| format!("{delay:?}")).collect(),
        max_attempts: config.worker.max_attempts,
        servers: Vec::new(),
        merchants: merchants.iter().map(merchant_report).collect::<Result<_, _>>()?,
        secrets: secrets.collect(),
    })
}

fn merchant_report(merchant: &Merchant) -> Result<MerchantReport, ConfigError> {
    Ok(MerchantReport {
        name: merchant.name.to_string(),
        mch_id: merchant.ids.mch_id.to_string(),
        appids: merchant.ids.appids.iter().map(ToString::to_string).collect(),
        sub_mch_ids: merchant.ids.sub_mch_ids.iter().map(ToString::to_string).collect(),
        points: merchant.points.to_string(),
        platform_keys: merchant.v3.iter().flat_map(|v3| v3.platform.expiries()).map(platform_key).collect(),
        proofs: proof::prove(merchant)?,
    })
}

fn platform_key((serial, expiry): (&str, Option<Timestamp>)) -> String {
    expiry.map_or_else(|| serial.to_owned(), |expiry| format!("{serial} until {}", expiry.strftime("%Y-%m-%d")))
}

/// Where a secret was found. A file that others can read is no place for one.
fn place(config: &Config, environment: &[(String, String)], setting: &str) -> String {
    if let Some(file) = config.secret_file(setting) {
        let mode = std::fs::metadata(&file).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
        let warning = if mode & 0o077 == 0 { String::new() } else { format!(" (mode {mode:03o}: others can read it)") };
        return format!("{}{warning}", file.display());
    }
    let variable = format!("{ENV_PREFIX}{}", setting.to_uppercase().replace('.', "__"));
    let from_environment = environment.iter().any(|(name, _)| name.to_uppercase() == variable);
    if from_environment { format!("environment, {variable}") } else { "the configuration file itself".to_owned() }
}

/// The queues in which notifications wait, and which of them the worker takes.
fn shards(shards: u16, taken: &[u16]) -> String {
    if shards == 1 {
        return format!("{NOTIFY} is not split");
    }
    let taken: Vec<_> = taken.iter().copied().map(shard).collect();
    let taken = if taken.is_empty() { "all of them".to_owned() } else { taken.join(", ") };
    format!(
        "{} to {}; the worker takes {taken}, and {NOTIFY} with what comes back from the retry tiers",
        shard(0),
        shard(shards - 1)
    )
}

fn without_password(url: &str) -> String {
    if url == EMBEDDED {
        return EMBEDDED.to_owned();
    }
    let Ok(mut url) = Url::parse(url) else { return "an address that cannot be shown".to_owned() };
    let scheme = url.scheme().to_owned();
    // What stands behind `?` may be a secret as well.
    url.set_query(None);
    match url.set_password(None) {
        Ok(()) => url.to_string(),
        Err(()) => format!("{scheme}://…"),
    }
}

fn show(screen: &mut Screen<'_>, report: &Report) -> Result<()> {
    if report.merchants.is_empty() {
        screen.line(format_args!(
            "the configuration can be read, but has no merchant. Without {DEFAULT_FILE}, `wxpayctl serve` makes one to \
             try things with.\n"
        ))?;
    } else {
        screen.line(format_args!("the configuration can be used: {}\n", count(report.merchants.len(), "merchant")))?;
    }
    let token = if report.admin_token { "with a token" } else { "without a token" };
    let embedded = report.queue == EMBEDDED;
    let queue = if embedded { format!("embedded, in {}", report.data_dir) } else { report.queue.clone() };
    let store = match report.store.as_str() {
        EMBEDDED => format!("embedded, in {}", report.data_dir),
        address => format!("{address}, with a shortcut in {}", report.data_dir),
    };
    let programs = if embedded { "wxpayctl serve" } else { "wxpay-ingress and wxpay-worker" };
    screen.facts(&[
        ("programs", Some(programs.to_owned())),
        ("notifications", Some(format!("{}://{}/v2/…", report.ingress_scheme, report.ingress_listen))),
        ("health", Some(format!("http://{}/readyz", report.ops_listen))),
        ("admin API", Some(format!("http://{} {token}", report.admin_listen))),
        ("queue", Some(queue)),
        ("shards", (!embedded).then(|| shards(report.shards, &report.worker_shards))),
        ("store", Some(store)),
        ("traces", report.traces.clone()),
        ("retries", Some(format!("after {}; {} attempts in all", report.retry_delays.join(", "), report.max_attempts))),
    ])?;
    for line in &report.servers {
        screen.line(format_args!("\n  {line}"))?;
    }
    if !report.merchants.is_empty() {
        screen.line("")?;
        let mut grid =
            Grid::new(["merchant", "mch_id", "appids", "sub_mch_ids", "points per fen", "platform keys of v3"]);
        for merchant in &report.merchants {
            let MerchantReport { name, mch_id, appids, sub_mch_ids, points, platform_keys, .. } = merchant;
            grid.row([
                name.clone(),
                mch_id.clone(),
                appids.join("\n"),
                sub_mch_ids.join("\n"),
                points.clone(),
                platform_keys.join("\n"),
            ]);
        }
        screen.table(grid)?;
        screen.line("")?;
        for merchant in &report.merchants {
            for proof in &merchant.proofs {
                screen.line(format_args!("  {} {proof}", merchant.name))?;
            }
        }
    }
    screen.line("")?;
    let mut grid = Grid::new(["secret", "found in"]);
    for Secret { setting, found } in &report.secrets {
        grid.row([setting.clone(), found.clone().unwrap_or_else(|| "not set".to_owned())]);
    }
    screen.table(grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT";

    fn checked(text: &str, environment: &[(&str, &str)]) -> Result<String, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wxpay.toml");
        std::fs::write(&file, text).unwrap();
        let seal = directory.path().join("seal");
        std::fs::write(&seal, KEY).unwrap();
        std::fs::set_permissions(&seal, std::fs::Permissions::from_mode(0o644)).unwrap();
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = Config::load(Some(&file), environment.iter().cloned())?;
        let report = report(&config, &environment)?;
        let mut out = Vec::new();
        show(&mut Screen::new(&mut out, None, false), &report).unwrap();
        let text = String::from_utf8(out).unwrap();
        Ok(text.replace(&directory.path().display().to_string(), "/etc/wxpay"))
    }

    const SHOP: &str = "[merchants.shop]\nmch_id = \"1900000109\"\nappids = [\"wx1\", \"wx2\"]\npoints = \"1/100\"\n";

    #[test]
    fn it_says_what_would_run_and_shows_no_secret() {
        let text =
            format!("[queue]\nurl = \"amqp://me:{KEY}@broker:5672/v?x={KEY}\"\n[seal]\nkey_file = \"seal\"\n{SHOP}");
        let split = [("WXPAY__QUEUE__SHARDS", "4"), ("WXPAY__WORKER__SHARDS", "[2]")];
        let shown = checked(&text, &[[("WXPAY__MERCHANTS__SHOP__V2_KEY", KEY)].as_slice(), &split].concat()).unwrap();
        assert!(!shown.contains(KEY));
        insta::assert_snapshot!(shown, @r"
        the configuration can be used: 1 merchant

          programs       wxpay-ingress and wxpay-worker
          notifications  http://127.0.0.1:8080/v2/…
          health         http://127.0.0.1:8081/readyz
          admin API      http://127.0.0.1:8082 without a token
          queue          amqp://me@broker:5672/v
          shards         wxpay.notify.0 to wxpay.notify.3; the worker takes wxpay.notify.2, and wxpay.notify with what comes back from the retry tiers
          store          embedded, in /etc/wxpay/wxpay-data
          retries        after 5s, 30s, 120s, 600s, 3600s; 10 attempts in all

         merchant   mch_id       appids   sub_mch_ids   points per fen   platform keys of v3
        ─────────────────────────────────────────────────────────────────────────────────────
         shop       1900000109   wx1                    1/100
                                 wx2

          shop v2: ok, by an MD5 payment, an HMAC-SHA256 payment and a refund

         secret                  found in
        ─────────────────────────────────────────────────────────────────────────────
         queue.url               the configuration file itself
         store.url               not set
         seal.key                /etc/wxpay/seal (mode 644: others can read it)
         worker.admin_token      not set
         merchants.shop.v2_key   environment, WXPAY__MERCHANTS__SHOP__V2_KEY
        ");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = checked(SHOP, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "merchants.shop: set v2_key, or api_v3_key with platform_certificates or platform_public_keys"
        );
        let environment = [("WXPAY__MERCHANTS__SHOP__V2_KEY", KEY), ("WXPAY__QUEUE__URL", "amqp://broker")];
        let error = checked(SHOP, &environment).unwrap_err();
        assert!(error.to_string().starts_with("seal.key: missing"), "{error}");
    }

    #[test]
    fn every_key_is_proved_also_the_previous_ones_and_those_of_a_service_provider() {
        let directory = tempfile::tempdir().unwrap();
        let (file, _) = crate::dev_merchant::ensure(directory.path()).unwrap();
        let environment = [
            ("WXPAY__MERCHANTS__DEV__PREVIOUS_V2_KEY", KEY),
            ("WXPAY__MERCHANTS__DEV__PREVIOUS_API_V3_KEY", KEY),
            ("WXPAY__MERCHANTS__DEV__SUB_MCH_IDS", "[\"1900000002\"]"),
            ("WXPAY__MERCHANTS__DEV__SUB_APPIDS", "[\"wx3\"]"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(Some(&file), environment.clone()).unwrap();
        let report = report(&config, &environment).unwrap();
        let proofs = &report.merchants[0].proofs;
        assert!(proofs[0].starts_with("v2: ok") && proofs[1].starts_with("v3: ok"), "{proofs:?}");
        assert_eq!(proofs.len(), 2);
    }

    #[test]
    fn a_merchant_without_an_application_is_told() {
        let text = SHOP.replace("\"wx1\", \"wx2\"", "");
        let error = checked(&text, &[("WXPAY__MERCHANTS__SHOP__V2_KEY", KEY)]).unwrap_err();
        assert_eq!(error.to_string(), "merchants.shop.appids: none is listed, so no payment could fit");
    }
}
