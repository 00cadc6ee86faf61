//! `wxpayctl serve`: both programs in one process, and on start the commands to try next.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use reqwest::Url;
use wxpay_shared::{
    clock::{Clock as _, SystemClock},
    config::{self, Config, DEFAULT_FILE},
    ids::MerchantName,
    reload,
    runtime::shutdown_token,
    trace,
};

use crate::{cli::Verdict, client::DEFAULT_ADMIN, dev_merchant, screen::Screen, together::Together};

/// `wxpayctl serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl serve
  wxpayctl serve --config wxpay.toml
  wxpayctl serve --data-dir /tmp/try --listen 127.0.0.1:9080 --ops-listen 127.0.0.1:9081 --admin-listen 127.0.0.1:9082

Without a configuration it makes a merchant named dev, with keys of its own in the data directory. Ctrl-C ends it;
what was accepted is kept.")]
pub(crate) struct Args {
    /// The configuration; wxpay.toml, where that exists, unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where queue, orders and points are kept, instead of the configured directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where WeChat's notifications arrive, instead of the configured address.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where /healthz and /readyz answer, instead of the configured address.
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<SocketAddr>,
    /// Where the admin API answers, instead of the configured address.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
}

/// What is to be served.
struct Plan {
    config: Config,
    data_dir: PathBuf,
    /// The development merchant's configuration, and whether it is new.
    development: Option<(PathBuf, bool)>,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let plan = plan(&args)?;
    // Before anything starts, so that an early signal is not lost.
    let shutdown = shutdown_token().context("cannot listen for signals")?;
    trace::start(&plan.config, "wxpay-notify")?;
    let together = Together::start(&plan.config, &plan.data_dir).await?;
    let watched = plan.development.as_ref().map(|(file, _)| file.clone()).or(args.config);
    reload::watch(watched, Arc::clone(&together.merchants), together.tls.clone(), shutdown.clone())
        .context("cannot listen for signals")?;
    // The server does not depend on who reads this: a closed pipe must not end it.
    drop(announce(screen, &plan, &together));
    let ended = together.run_until(shutdown).await;
    trace::end().await;
    ended?;
    if !screen.is_json() {
        screen.line("stopped; what was accepted is kept")?;
    }
    Ok(Verdict::Fine)
}

/// The configuration in its order: the file, the environment over it, the flags over that.
fn plan(args: &Args) -> Result<Plan> {
    let mut overrides = config::environment()?;
    for (name, address) in [
        ("WXPAY__INGRESS__LISTEN", args.listen),
        ("WXPAY__INGRESS__OPS_LISTEN", args.ops_listen),
        ("WXPAY__WORKER__ADMIN_LISTEN", args.admin_listen),
    ] {
        overrides.extend(address.map(|address| (name.to_owned(), address.to_string())));
    }
    let config = Config::load(args.config.as_deref(), overrides.clone())?;
    let data_dir = args.data_dir.clone().unwrap_or_else(|| config.data_dir());
    let nothing_configured = args.config.is_none() && !Path::new(DEFAULT_FILE).exists() && config.merchants.is_empty();
    if !nothing_configured {
        return Ok(Plan { config, data_dir, development: None });
    }
    let development = dev_merchant::ensure(&data_dir)?;
    let config = Config::load(Some(&development.0), overrides)?;
    Ok(Plan { config, data_dir, development: Some(development) })
}

fn announce(screen: &mut Screen<'_>, plan: &Plan, together: &Together) -> Result<()> {
    let scheme = plan.config.ingress.scheme();
    let post = |name: &MerchantName| notify_url(scheme, together.ingress, name.as_str());
    let posts: Vec<_> = plan.config.merchants.keys().map(post).collect();
    let admin = format!("http://{}", together.admin);
    if screen.is_json() {
        return screen.json(&serde_json::json!({
            "notify_urls": posts, "admin": admin, "ops": format!("http://{}", together.ops),
            "data_dir": plan.data_dir, "development_config": plan.development.as_ref().map(|(file, _)| file),
        }));
    }
    screen.line(format_args!(
        "ingress and worker run in this process; queue, orders and points are in {}\n",
        plan.data_dir.display()
    ))?;
    let mut facts: Vec<_> = posts.into_iter().map(|url| ("WeChat posts to", Some(url))).collect();
    facts.push(("health", Some(format!("http://{}/readyz", together.ops))));
    facts.push(("admin API", Some(admin.clone())));
    facts.push(("console", Some(format!("{admin}/"))));
    screen.facts(&facts)?;
    if let Some((file, new)) = &plan.development {
        let made = if *new { "made just now" } else { "made on an earlier start" };
        let shown = file.display();
        screen.line(format_args!(
            "\nNothing is configured, so there is a development merchant, dev, {made}.\nIts configuration is {shown}; \
             the keys beside it are for you alone.\n\nTry in another terminal:"
        ))?;
        for command in commands(file, together) {
            screen.line(format_args!("  {command}"))?;
        }
    }
    screen.line("\nCtrl-C ends it.")
}

fn notify_url(scheme: &str, address: SocketAddr, merchant: &str) -> String {
    format!("{scheme}://{address}/v2/{merchant}")
}

/// Commands that work as they stand. The order's number is of this moment: a second start finds the first one's paid.
fn commands(config: &Path, together: &Together) -> [String; 3] {
    let program = std::env::args().next().filter(|program| program.contains('/'));
    let program = quoted(program.as_deref().unwrap_or("wxpayctl"));
    let order = SystemClock.now().strftime("T%Y%m%d%H%M%S");
    let admin = format!("http://{}", together.admin);
    let usual = Url::parse(DEFAULT_ADMIN).ok() == Url::parse(&admin).ok();
    let admin = if usual { String::new() } else { format!(" --admin {admin}") };
    let config_file = quoted(&config.display().to_string());
    let usual = together.ingress == Config::default().ingress.listen;
    let url = if usual {
        String::new()
    } else {
        format!(" --url {}", notify_url("http", together.ingress, dev_merchant::NAME))
    };
    let simulate = format!("{program} simulate pay --config {config_file} --merchant dev");
    [
        format!("{program} orders register dev {order} 8800 --user alice{admin}"),
        format!("{simulate} --out-trade-no {order} --amount 8800{url}"),
        format!("{program} orders show dev {order}{admin}"),
    ]
}

/// As a shell reads it.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_where_a_shell_would_take_it_apart() {
        assert_eq!(quoted("./target/debug/wxpayctl"), "./target/debug/wxpayctl");
        assert_eq!(quoted("/my data/it's"), r"'/my data/it'\''s'");
    }
}
