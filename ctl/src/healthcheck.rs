//! `wxpayctl healthcheck`: asks a program on this machine whether it is ready, for images that have no shell.
//!
//! One line, and exit code 0 or 1: what a container engine understands. So whatever goes wrong here is the negative answer
//! too.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use wxpay_shared::config::{self, Config};

use crate::{cli::Verdict, client::http_client, screen::Screen};

/// Time for the answer. A program that needs longer is not ready.
const BUDGET: Duration = Duration::from_secs(5);

/// `wxpayctl healthcheck`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl healthcheck ingress
  wxpayctl healthcheck worker --config /etc/wxpay/wxpay.toml

It reads the program's own configuration and asks /readyz where that says the program listens. The exit code is 0 where
it is ready and 1 in every other case.")]
pub(crate) struct Args {
    /// Which program.
    program: Program,
    /// Its configuration; wxpay.toml, where that exists, unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    /// wxpay-ingress, at `ingress.ops_listen`.
    Ingress,
    /// wxpay-worker, at `worker.admin_listen`.
    Worker,
}

#[derive(Serialize)]
struct Health {
    ready: bool,
    detail: String,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let health = ask(&args).await.unwrap_or_else(|error| Health { ready: false, detail: format!("{error:#}") });
    if screen.is_json() {
        screen.json(&health)?;
    } else {
        screen.line(&health.detail)?;
    }
    Ok(Verdict::found_if(!health.ready))
}

async fn ask(args: &Args) -> Result<Health> {
    let config = Config::load(args.config.as_deref(), config::environment()?)?;
    let address = match args.program {
        Program::Ingress => config.ingress.ops_listen,
        Program::Worker => config.worker.admin_listen,
    };
    let url = format!("http://{}/readyz", reachable(address)).parse()?;
    let answer = http_client(&url, BUDGET)?.get(url.clone()).send().await;
    let answer = answer.with_context(|| format!("nothing answers at {url}"))?;
    let ready = answer.status().is_success();
    let detail = answer.text().await.with_context(|| format!("the answer of {url} breaks off"))?;
    Ok(Health { ready, detail: detail.trim().to_owned() })
}

/// Where a program that listens everywhere can be reached from its own machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let own: IpAddr = if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(if listen.ip().is_unspecified() { own } else { listen.ip() }, listen.port())
}
