//! `wxpayctl bench`: what ingress and worker do in a second, held against what the broker, the disk and the database
//! can, in one run on one machine.
//!
//! A figure and its baseline alternate, so that both meet the same machine, and every ratio comes from one run. Servers
//! are private and gone afterwards; `--url` and `--store-url` name others instead.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;
use secrecy::SecretString;
use wxpay_shared::config::Config;

use crate::{cli::Verdict, client::secret, dev_merchant, screen::Screen};

mod broker;
mod disk;
mod figures;
mod load;
mod notices;
mod process;
mod report;
mod stage;
mod summary;

use load::Plan;
use notices::{Orders, Play};
use report::{Figure, Machine, Report};
use stage::Stage;

/// `wxpayctl bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl bench                          everything; about half an hour
  wxpayctl bench --quick                  a first look in some minutes
  wxpayctl bench ingress latency --json
  wxpayctl bench worker --url amqp://guest:guest@10.0.0.5/bench --store-url postgres://bench@10.0.0.6/bench

It starts RabbitMQ, PostgreSQL and MariaDB privately where they are installed, and runs wxpay-ingress and wxpay-worker
from beside wxpayctl. A broker at --url must be unused: its queue is emptied. A database at --store-url keeps the orders
of the run. Build with --release, and let the machine do nothing else. The exit code is 1 where a target was missed, or
something could not be measured.")]
pub(crate) struct Args {
    /// What to measure.
    #[arg(value_enum, default_value = "all")]
    groups: Vec<Group>,
    /// Shorter and fewer runs: a first look, not a result.
    #[arg(long)]
    quick: bool,
    /// Repetitions of each run.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=99))]
    repetitions: Option<u32>,
    /// Seconds that each run under load is measured; the open loop of `latency` five times as long.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// Payments that a worker applies in each run.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    events: Option<u64>,
    /// Orders in the store, for `growth`.
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    sizes: Option<Vec<u64>>,
    /// A RabbitMQ that runs already; better given by the environment, which other users cannot list.
    #[arg(long, value_name = "URL", env = "WXPAY_BENCH_URL", hide_env_values = true, value_parser = secret)]
    url: Option<SecretString>,
    /// A SQL store that runs already, instead of private ones.
    #[arg(long, value_name = "URL", env = "WXPAY_BENCH_STORE_URL", hide_env_values = true, value_parser = secret)]
    store_url: Option<SecretString>,
    /// Measures another handler instead: posts payments of the development merchant to it, in v2.
    #[arg(long, value_name = "URL", requires = "merchant_dir", conflicts_with_all = ["url", "store_url"])]
    post: Option<Url>,
    /// For --post, the directory with the development merchant's keys (dev-v2-key); they are made where they are missing.
    #[arg(long, value_name = "DIR", requires = "post")]
    merchant_dir: Option<PathBuf>,
    /// The orders for --post: A0000000000 and so on.
    #[arg(long, value_name = "COUNT", default_value = "100000", requires = "post")]
    orders: u64,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Accepted notifications a second on RabbitMQ.
    Ingress,
    /// The time to the reply.
    Latency,
    /// Accepted notifications a second on the embedded queue.
    Queue,
    /// Applied payments a second, and repeats, on each store.
    Worker,
    /// Ingress and worker at the same time.
    Together,
    /// Memory of both programs.
    Memory,
    /// The list of ten thousand dead letters.
    Desk,
    /// Large stores.
    Growth,
    /// All of them.
    All,
}

const GROUPS: [Group; 8] = [
    Group::Ingress,
    Group::Latency,
    Group::Queue,
    Group::Worker,
    Group::Together,
    Group::Memory,
    Group::Desk,
    Group::Growth,
];

/// How much is done.
struct Effort {
    repetitions: u32,
    warm_up: Duration,
    measured: Duration,
    events: u64,
    events_one_by_one: u64,
    events_for_memory: u64,
    sizes: Vec<u64>,
}

impl Effort {
    fn of(args: &Args) -> Self {
        let quick = args.quick;
        let seconds = args.seconds.unwrap_or(if quick { 1 } else { 3 });
        let sizes = if quick { vec![1_000, 20_000] } else { vec![10_000, 1_000_000, 10_000_000] };
        let mut sizes = args.sizes.clone().unwrap_or(sizes);
        // A store only grows.
        sizes.sort_unstable();
        let events = args.events.unwrap_or(if quick { 4_000 } else { 40_000 });
        Self {
            repetitions: args.repetitions.unwrap_or(if quick { 2 } else { 5 }),
            warm_up: Duration::from_millis(if quick { 200 } else { 700 }),
            measured: Duration::from_secs(seconds),
            events,
            events_one_by_one: (events / 8).max(100),
            events_for_memory: args.events.unwrap_or(if quick { 20_000 } else { 1_000_000 }),
            sizes,
        }
    }

    fn plan(&self, connections: usize, rate: Option<u64>) -> Plan {
        Plan { connections, rate, warm_up: self.warm_up, measured: self.measured, first: 0 }
    }
}

/// What a person sees meanwhile, on a terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed_precise} run {pos}: {msg}");
        let bar = ProgressBar::new_spinner().with_style(style.expect("the template is well-formed"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    fn step(&self, what: &str) {
        self.0.inc(1);
        self.0.set_message(what.to_owned());
    }
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let effort = Effort::of(&args);
    let (repetitions, seconds) = (effort.repetitions, effort.measured.as_secs());
    let progress = Progress::new();
    let mut left_out = Vec::new();
    let (figures, servers) = match &args.post {
        Some(url) => (post(&args, url, &effort, &progress).await?, Vec::new()),
        None => tokio::select! {
            measured = measure(args, effort, &progress, &mut left_out) => measured?,
            // Servers and directories, gigabytes at times, go with what is dropped here.
            _ = tokio::signal::ctrl_c() => bail!("stopped; nothing is told of what was measured"),
        },
    };
    progress.0.finish_and_clear();
    let missed = !left_out.is_empty() || figures.iter().any(Figure::is_missed);
    let report = Report { machine: Machine::here(servers), repetitions, seconds, figures, left_out };
    report.show(screen)?;
    Ok(Verdict::found_if(missed))
}

async fn measure(
    args: Args,
    effort: Effort,
    progress: &Progress,
    left_out: &mut Vec<String>,
) -> Result<(Vec<Figure>, Vec<String>)> {
    let groups = if args.groups.contains(&Group::All) { GROUPS.to_vec() } else { args.groups };
    if let Some(url) = &args.url {
        broker::must_be_unused(url).await?;
    }
    progress.step("starting the servers");
    let with_stores =
        groups.iter().any(|group| !matches!(group, Group::Ingress | Group::Latency | Group::Queue | Group::Desk));
    let stage = Stage::set_up(effort, args.url, args.store_url, with_stores).await?;
    let mut figures = Vec::new();
    for group in groups {
        if group != Group::Queue && stage.broker.is_none() {
            left_out.push(format!("{group:?}: RabbitMQ is neither installed nor given by --url"));
            continue;
        }
        let measured = match group {
            Group::Ingress => figures::ingress::measure(&stage, progress).await,
            Group::Latency => figures::latency::measure(&stage, progress).await,
            Group::Queue => figures::embedded::measure(&stage, progress).await,
            Group::Worker => figures::worker::measure(&stage, progress).await,
            Group::Together => figures::together::measure(&stage, progress).await,
            Group::Memory => figures::memory::measure(&stage, progress).await,
            Group::Desk => figures::desk::measure(&stage, progress).await,
            Group::Growth => figures::growth::measure(&stage, progress).await,
            Group::All => unreachable!("it was replaced by the others"),
        };
        // What was measured before must not be lost with one group's fault.
        match measured {
            Ok(measured) => figures.extend(measured),
            Err(error) => left_out.push(format!("{group:?}: {error:#}")),
        }
    }
    let servers = stage.servers().await;
    Ok((figures, servers))
}

async fn post(args: &Args, url: &Url, effort: &Effort, progress: &Progress) -> Result<Vec<Figure>> {
    let directory = args.merchant_dir.as_deref().context("--merchant-dir: missing")?;
    let (file, _) = dev_merchant::ensure(directory)?;
    let play = Play::new(&Config::load(Some(&file), [])?, directory)?;
    let address = url.socket_addrs(|| None).context("--post")?.first().copied().context("--post: no address")?;
    let orders = Orders { prefix: "A".to_owned(), numbers: 0..args.orders };
    figures::post::measure(&play, effort, &orders, (address, url.path()), progress).await
}
