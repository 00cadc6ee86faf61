//! `wxpay-ingress`: the public side as a program of its own, in front of RabbitMQ.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use wxpay_ingress::{Ingress, ops_router, router};
use wxpay_shared::{
    clock::SystemClock,
    config::{Config, ConfigError, EMBEDDED},
    http,
    merchant::{LiveMerchants, Merchants},
    queue::rabbit::RabbitPublisher,
    reload, runtime,
};

/// Receives WeChat Pay's notifications and publishes them to RabbitMQ.
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
    let result = match runtime::start("info") {
        Ok(()) => run(arguments).await,
        Err(error) => Err(error),
    };
    runtime::exit_code(result)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.config.as_deref(), std::env::vars())?;
    let url = config.queue_url()?;
    if url.expose_secret() == EMBEDDED {
        let problem = "the embedded queue serves one process only: run `wxpayctl serve`, or set amqp://…";
        return Err(ConfigError::new("queue.url", problem).into());
    }
    let seal = config.seal_keys()?.ok_or_else(|| ConfigError::new("seal.key", "missing"))?;
    let merchants = Merchants::open(&config)?;
    let listener = TcpListener::bind(config.ingress.listen)
        .await
        .with_context(|| format!("ingress.listen: cannot listen on {}", config.ingress.listen))?;
    let ops_listener = TcpListener::bind(config.ingress.ops_listen)
        .await
        .with_context(|| format!("ingress.ops_listen: cannot listen on {}", config.ingress.ops_listen))?;
    tracing::info!(listen = %listener.local_addr()?, ops_listen = %ops_listener.local_addr()?, "wxpay-ingress starts");

    let publisher = Arc::new(RabbitPublisher::start(url, config.queue_settings()));
    let merchants = Arc::new(LiveMerchants::new(merchants));
    let shutdown = runtime::shutdown_token()?;
    reload::watch(arguments.config, Arc::clone(&merchants), shutdown.clone())?;
    let ingress = Ingress::new(merchants, Arc::new(seal), Arc::clone(&publisher) as _, Arc::new(SystemClock));
    let ingress = Arc::new(ingress);
    let grace = runtime::FINISH_BUDGET;
    let serving = async {
        tokio::join!(
            http::serve(listener, router(Arc::clone(&ingress)), grace, shutdown.clone()),
            http::serve(ops_listener, ops_router(ingress), grace, shutdown.clone()),
        );
    };
    let result = tokio::select! {
        () = serving => Ok(()),
        error = publisher.fatal() => Err(error.into()),
    };
    publisher.close().await;
    result
}
