//! `wxpay-worker`: the applying side as a program of its own, behind RabbitMQ.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use wxpay_shared::{
    clock::{Clock, SystemClock},
    config::{self, Config, ConfigError},
    disk::Disk,
    http,
    merchant::{LiveMerchants, Merchants},
    queue::{
        QueueError,
        rabbit::{RabbitConsumer, RabbitDeadLetters},
    },
    reload, runtime,
    settled::Settled,
    store::{self, open::Home},
    trace,
};
use wxpay_worker::{Parts, Settings, Worker, admin};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections to a SQL store beside those that apply batches: for the admin API and for probes.
const ADMIN_CONNECTIONS: u32 = 4;

/// Applies the notifications that wxpay-ingress published, and serves the admin API.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration file; every key can be overridden from the environment (`WXPAY__QUEUE__URL`).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runtime::run("info", async || run(arguments).await).await
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.config.as_deref(), config::environment()?)?;
    let url = config.broker_url()?;
    let store_url = config.store_url()?;
    let home = Home::of(&store_url)?;
    let seal = config.shared_seal_keys()?;
    trace::start(&config, "wxpay-worker")?;
    let merchants = Merchants::open(&config)?;
    let token = config.admin_token()?;
    let listener = http::bind("worker.admin_listen", config.worker.admin_listen)?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let disk = Disk::open(&config.data_dir(), home.disk_holds()).await?.with_reserve(config.disk_reserve());
    let connections = u32::from(config.worker.concurrency) + ADMIN_CONNECTIONS;
    let store = store::open::open(&store_url, connections, &disk, Arc::clone(&clock)).await?;
    tracing::info!(admin_listen = %listener.local_addr()?, "wxpay-worker starts");

    let merchants = Arc::new(LiveMerchants::new(merchants));
    let shutdown = runtime::shutdown_token()?;
    reload::watch(arguments.config, Arc::clone(&merchants), None, shutdown.clone())?;
    let start = match home {
        Home::Embedded => RabbitConsumer::start_alone,
        Home::Postgres | Home::Mysql => RabbitConsumer::start,
    };
    let settled = match home {
        Home::Embedded => None,
        Home::Postgres | Home::Mysql => Some(Settled::new(disk.clone())),
    };
    let consumer = Arc::new(start(url.clone(), config.queue_settings()));
    let dead_letters = Arc::new(RabbitDeadLetters::new(url, config.queue_settings()));
    let worker = Worker::new(Parts {
        consumer: Arc::clone(&consumer) as _,
        dead_letters: Arc::clone(&dead_letters) as _,
        store: Arc::clone(&store),
        settled,
        disk: disk.clone(),
        merchants,
        seal: Arc::new(seal),
        clock,
        settings: Settings::of(&config),
    });
    let serving = async {
        tokio::join!(
            Arc::clone(&worker).run(shutdown.clone()),
            http::serve(listener, admin::router(worker, token), runtime::FINISH_BUDGET, shutdown.clone()),
        );
    };
    let result = tokio::select! {
        () = serving => Ok(()),
        error = consumer.fatal() => Err(unusable(error)),
        error = store.fatal() => Err(anyhow::Error::from_boxed(error).context("store.url")),
        error = disk.failed() => Err(error.into()),
    };
    let closing = async {
        tokio::join!(consumer.close(), dead_letters.close());
    };
    runtime::farewell(closing).await;
    drop(store);
    disk.close().await?;
    result
}

/// That a worker must be the only one follows from its store's setting, and another setting is the way out.
fn unusable(error: QueueError) -> anyhow::Error {
    match error {
        QueueError::NotAlone => ConfigError::new("store.url", error).into(),
        QueueError::Busy
        | QueueError::Unavailable(_)
        | QueueError::Park(_)
        | QueueError::Mismatch { .. }
        | QueueError::BadUrl
        | QueueError::Closed => error.into(),
    }
}
