//! Both programs in one process, on the embedded queue and store.
//!
//! The same routers and the same worker as in the two programs, over one database directory; only the queue between them
//! is a part of this process. Takes its configuration and its directory as arguments and prints nothing.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use secrecy::ExposeSecret;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use wxpay_ingress::Ingress;
use wxpay_shared::{
    clock::{Clock, SystemClock},
    config::{Config, ConfigError, EMBEDDED},
    disk::{Disk, Holds},
    envelope::SealKeys,
    http,
    merchant::{LiveMerchants, Merchants},
    queue::embedded::EmbeddedQueue,
    runtime::FINISH_BUDGET,
    store::embedded::EmbeddedStore,
    tls::{LiveTls, Tls},
};
use wxpay_worker::{Parts, Settings, Worker, admin};

use crate::dev_merchant;

/// Where the seal key lies that is made where none is configured.
const SEAL_KEY_FILE: &str = "seal-key";

/// Both programs, running.
pub struct Together {
    /// Where WeChat's notifications arrive.
    pub ingress: SocketAddr,
    /// Where ingress tells its health.
    pub ops: SocketAddr,
    /// Where the admin API answers.
    pub admin: SocketAddr,
    /// Its merchants, whose keys may be exchanged.
    pub merchants: Arc<LiveMerchants>,
    /// Its TLS, whose certificate may be exchanged.
    pub tls: Option<Arc<LiveTls>>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    disk: Disk,
}

impl Together {
    /// Starts both; when this returns, they take requests.
    ///
    /// # Errors
    /// [`ConfigError`] for settings that cannot be used; otherwise where a port or the directory is in use.
    pub async fn start(config: &Config, data_dir: &Path) -> Result<Self> {
        embedded("queue.url", config.queue_url()?.expose_secret())?;
        embedded("store.url", config.store_url()?.expose_secret())?;
        let merchants = Arc::new(LiveMerchants::new(Merchants::open(config)?));
        let token = config.admin_token()?;
        let tls = Tls::open(config)?.map(|tls| Arc::new(LiveTls::new(tls)));
        let ingress = bind("ingress.listen", config.ingress.listen)?;
        let ops = bind("ingress.ops_listen", config.ingress.ops_listen)?;
        let admin = bind("worker.admin_listen", config.worker.admin_listen)?;

        dev_merchant::private_dir(data_dir)?;
        let seal = Arc::new(seal_keys(config, data_dir)?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let disk = Disk::open(data_dir, Holds::Records).await?.with_reserve(config.disk_reserve());
        let queue = EmbeddedQueue::open(disk.clone(), config.queue_settings(), Arc::clone(&clock)).await?;
        let worker = Worker::new(Parts {
            consumer: Arc::new(queue.consumer()),
            dead_letters: Arc::new(queue.clone()),
            store: Arc::new(EmbeddedStore::open(disk.clone(), Arc::clone(&clock))?),
            settled: None,
            disk: disk.clone(),
            merchants: Arc::clone(&merchants),
            seal: Arc::clone(&seal),
            clock: Arc::clone(&clock),
            settings: Settings::of(config),
        });
        let live = Arc::clone(&merchants);
        let public = Arc::new(Ingress::new(merchants, seal, Arc::new(queue), clock).within(config)?);

        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let addresses = (ingress.local_addr()?, ops.local_addr()?, admin.local_addr()?);
        for (listener, tls, router) in [
            (ingress, tls.clone(), wxpay_ingress::router(Arc::clone(&public))),
            (ops, None, wxpay_ingress::ops_router(public)),
            (admin, None, admin::router(Arc::clone(&worker), token)),
        ] {
            tasks.spawn(http::serve_over(listener, tls, router, FINISH_BUDGET, stop.clone()));
        }
        tasks.spawn(worker.run(stop.clone()));
        let (ingress, ops, admin) = addresses;
        Ok(Self { ingress, ops, admin, merchants: live, tls, tasks, stop, disk })
    }

    /// Runs until the token fires, then stops.
    ///
    /// # Errors
    /// Where a part ended by itself, or as [`Together::stop`].
    pub async fn run_until(mut self, shutdown: CancellationToken) -> Result<()> {
        let died = tokio::select! {
            () = shutdown.cancelled() => false,
            _ = self.tasks.join_next() => true,
            _ = self.disk.failed() => true,
        };
        self.stop().await?;
        if died { Err(anyhow!("a part of the program died; its log says why")) } else { Ok(()) }
    }

    /// Takes nothing more, finishes what is in hand, and closes the database: another process may open it then.
    ///
    /// # Errors
    /// Where the database could not be closed.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the program panicked");
            }
        }
        self.disk.close().await.context("closing the database")
    }
}

fn embedded(setting: &str, url: &str) -> Result<(), ConfigError> {
    if url == EMBEDDED {
        return Ok(());
    }
    let problem = "one process needs \"embedded\"; with a broker start wxpay-ingress and wxpay-worker instead";
    Err(ConfigError::new(setting, problem))
}

fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener> {
    let flag = match setting {
        "ingress.listen" => "--listen",
        "ingress.ops_listen" => "--ops-listen",
        _ => "--admin-listen",
    };
    http::listen(address)
        .with_context(|| format!("{setting}: cannot listen at {address}; choose another address there or with {flag}"))
}

/// The configured keys, or one that was made for this directory: what is in its queue was sealed with it.
fn seal_keys(config: &Config, data_dir: &Path) -> Result<SealKeys> {
    if let Some(keys) = config.seal_keys()? {
        return Ok(keys);
    }
    let key = dev_merchant::stored_key(&data_dir.join(SEAL_KEY_FILE))?;
    Ok(SealKeys::new(key.expose_secret().as_bytes(), None))
}
