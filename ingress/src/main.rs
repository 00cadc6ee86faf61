//! `wxpay-ingress`: the public side as a program of its own, in front of RabbitMQ.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Parser;
use wxpay_ingress::{Ingress, ops_router, router};
use wxpay_shared::{
    clock::SystemClock,
    config::{self, Config},
    http,
    merchant::{LiveMerchants, Merchants},
    queue::rabbit::RabbitPublisher,
    reload, runtime,
    tls::{LiveTls, Tls},
    trace,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Receives WeChat Pay's notifications and publishes them to RabbitMQ.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The configuration file; every key can be overridden from the environment (`WXPAY__QUEUE__URL`).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runtime::beside_the_broker().block_on(runtime::run("info", async || run(arguments).await))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let config = Config::load(arguments.config.as_deref(), config::environment()?)?;
    let url = config.broker_url()?;
    let seal = config.shared_seal_keys()?;
    let merchants = Merchants::open(&config)?;
    let tls = Tls::open(&config)?;
    trace::start(&config, "wxpay-ingress")?;
    let listener = http::bind("ingress.listen", config.ingress.listen)?;
    let ops_listener = http::bind("ingress.ops_listen", config.ingress.ops_listen)?;
    tracing::info!(listen = %listener.local_addr()?, ops_listen = %ops_listener.local_addr()?, "wxpay-ingress starts");

    let publisher = Arc::new(RabbitPublisher::start(url, config.queue_settings()));
    let merchants = Arc::new(LiveMerchants::new(merchants));
    let shutdown = runtime::shutdown_token()?;
    let tls = tls.map(|tls| Arc::new(LiveTls::new(tls)));
    reload::watch(arguments.config, Arc::clone(&merchants), tls.clone(), shutdown.clone())?;
    let ingress = Ingress::new(merchants, Arc::new(seal), Arc::clone(&publisher) as _, Arc::new(SystemClock));
    let ingress = Arc::new(ingress.within(&config)?);
    let grace = runtime::FINISH_BUDGET;
    let serving = async {
        tokio::join!(
            http::serve_over(listener, tls, router(Arc::clone(&ingress)), grace, shutdown.clone()),
            http::serve(ops_listener, ops_router(ingress), grace, shutdown.clone()),
        );
    };
    let result = tokio::select! {
        () = serving => Ok(()),
        error = publisher.fatal() => Err(error.into()),
    };
    runtime::farewell(publisher.close()).await;
    result
}
