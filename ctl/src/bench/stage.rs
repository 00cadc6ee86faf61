//! What the figures run on: private servers or those of the user, and our own programs as processes of their own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use wxpay_servers::{
    database::{Database, Kind},
    process::{Plan, Server, free_port},
    rabbitmq::{self, Node},
};
use wxpay_shared::{config::Config, store::open};

use super::{
    Effort,
    notices::{Orders, Play},
    process,
};
use crate::{
    client::{Client, http_client},
    dev_merchant, random,
};

/// The time that a program has to be ready.
const READY: Duration = Duration::from_secs(30);

/// Everything that is there for all figures.
pub(super) struct Stage {
    pub(super) directory: TempDir,
    pub(super) config_file: PathBuf,
    pub(super) config: Config,
    pub(super) play: Play,
    pub(super) effort: Effort,
    pub(super) broker: Option<Broker>,
    pub(super) stores: Vec<Store>,
    http: reqwest::Client,
    run: String,
    count: AtomicU32,
}

/// RabbitMQ, ours or the user's.
pub(super) struct Broker {
    pub(super) url: SecretString,
    node: Option<Node>,
}

/// Where orders and points are.
pub(super) enum Store {
    Embedded,
    Own(Kind, Database),
    Given(SecretString),
}

impl Store {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Own(Kind::Postgres, _) => "PostgreSQL",
            Self::Own(Kind::Mariadb, _) => "MariaDB",
            Self::Given(_) => "store-url",
        }
    }

    /// A database with our tables and nothing in them; the user's as it is. `embedded` for the embedded store.
    pub(super) async fn fresh(&self) -> Result<SecretString> {
        let url: SecretString = match self {
            Self::Embedded => return Ok("embedded".into()),
            Self::Own(_, database) => database.fresh_url().await.into(),
            Self::Given(url) => url.clone(),
        };
        open::migrate(&url, true).await?;
        Ok(url)
    }

    /// The server's process; `None` where there is none, or where it is not ours to ask.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Own(_, database) => Some(database.pid()),
            Self::Embedded | Self::Given(_) => None,
        }
    }
}

impl Broker {
    /// The broker's process; `None` where it is not ours to ask.
    pub(super) fn pid(&self) -> Option<u32> {
        self.node.as_ref().map(Node::pid)
    }
}

/// One of our programs, running.
pub(super) struct Program {
    server: Server,
    http: reqwest::Client,
    pub(super) notify_port: u16,
    watch_port: u16,
}

impl Stage {
    /// Starts what is not given: a broker where it is installed, and SQL servers where a figure wants them.
    pub(super) async fn set_up(
        effort: Effort,
        url: Option<SecretString>,
        store: Option<SecretString>,
        with_stores: bool,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("wxpay-bench-").tempdir().context("no temporary directory")?;
        let (config_file, _) = dev_merchant::ensure(directory.path())?;
        let config = Config::load(Some(&config_file), [])?;
        let play = Play::new(&config, directory.path())?;
        let broker = match url {
            Some(url) => Some(Broker { url, node: None }),
            None if rabbitmq::version().is_some() => {
                let node = tokio::task::spawn_blocking(Node::start).await.context("RabbitMQ")?;
                node.ready().await;
                let host = node.virtual_host();
                Some(Broker { url: node.url(&host).into(), node: Some(node) })
            }
            None => None,
        };
        let mut stores = vec![Store::Embedded];
        match store {
            Some(url) => stores.push(Store::Given(url)),
            None if !with_stores => {}
            None => {
                for kind in [Kind::Postgres, Kind::Mariadb].into_iter().filter(|kind| kind.is_installed()) {
                    let database = tokio::task::spawn_blocking(move || Database::start(kind)).await.context("SQL")?;
                    database.ready().await;
                    stores.push(Store::Own(kind, database));
                }
            }
        }
        let run = format!("B{}", random::digits::<6>());
        let http = http_client(&"http://127.0.0.1".parse()?, READY)?;
        let count = AtomicU32::new(0);
        Ok(Self { directory, config_file, config, play, effort, broker, stores, http, run, count })
    }

    /// What runs, with versions where they are known.
    pub(super) async fn servers(&self) -> Vec<String> {
        let mut servers = Vec::new();
        if let Some(broker) = &self.broker {
            let version = broker.node.as_ref().and_then(|_| rabbitmq::version());
            servers.push(format!("RabbitMQ {}", version.as_deref().unwrap_or("at --url")));
        }
        for store in &self.stores {
            if let Store::Own(_, database) = store {
                servers.push(format!("{} {}", store.name(), database.version().await));
            }
        }
        servers
    }

    /// So many orders that nobody else has.
    pub(super) fn orders(&self, count: u64) -> Orders {
        let run = self.count.fetch_add(1, Ordering::Relaxed);
        Orders { prefix: format!("{}x{run}x", self.run), numbers: 0..count }
    }

    /// A directory that nobody else has.
    pub(super) fn fresh_directory(&self) -> Result<PathBuf> {
        let name = format!("run{}", self.count.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.path().join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// The address of the broker, for a figure that needs one.
    pub(super) fn broker(&self) -> Result<&Broker> {
        self.broker.as_ref().context("RabbitMQ is neither installed nor given by --url")
    }

    /// `wxpay-ingress` on the broker.
    pub(super) async fn ingress(&self) -> Result<Program> {
        self.start(&beside("wxpay-ingress")?, &[], &[]).await
    }

    /// `wxpay-worker` on the broker and this store, with its own records in this directory.
    pub(super) async fn worker(&self, store: &SecretString, data: &Path, settings: &[(&str, &str)]) -> Result<Program> {
        let data = data.to_str().context("temporary paths are text")?;
        let more = [("WXPAY__STORE__URL", store.expose_secret()), ("WXPAY__DATA_DIR", data)];
        self.start(&beside("wxpay-worker")?, &[], &[&more[..], settings].concat()).await
    }

    async fn start(&self, program: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Result<Program> {
        let [notify_port, ops_port, admin_port] = [free_port(), free_port(), free_port()];
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut environment = vec![
            ("WXPAY_LOG".to_owned(), "warn".to_owned()),
            ("WXPAY__INGRESS__LISTEN".to_owned(), address(notify_port)),
            ("WXPAY__INGRESS__OPS_LISTEN".to_owned(), address(ops_port)),
            ("WXPAY__WORKER__ADMIN_LISTEN".to_owned(), address(admin_port)),
        ];
        if let Some(broker) = &self.broker {
            environment.push(("WXPAY__QUEUE__URL".to_owned(), broker.url.expose_secret().to_owned()));
        }
        environment.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let directory = self.fresh_directory()?;
        let config = self.config_file.to_str().context("temporary paths are text")?;
        let log = directory.join("log");
        let server = Server::start(&Plan {
            program,
            arguments: &[arguments, &["--config", config]].concat(),
            environment: &environment,
            directory: &directory,
            log: &log,
            goodbye: "TERM",
            after: "",
        });
        let watch_port = if program.ends_with("wxpay-ingress") { ops_port } else { admin_port };
        let program = Program { server, http: self.http.clone(), notify_port, watch_port };
        program.ready().await.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(program)
    }
}

impl Program {
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub(super) fn cpu(&self) -> Duration {
        process::cpu_of_tree(self.pid())
    }

    /// A worker's admin API.
    pub(super) fn client(&self) -> Result<Client> {
        Client::new(format!("http://127.0.0.1:{}/", self.watch_port).parse()?, None)
    }

    async fn ready(&self) -> Result<()> {
        let begun = tokio::time::Instant::now();
        while !matches!(self.get("readyz").await, Ok(page) if page.starts_with("ready")) {
            if begun.elapsed() > READY || !self.server.runs() {
                bail!("a program was not ready within {} s", READY.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn get(&self, page: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/{page}", self.watch_port);
        Ok(self.http.get(url).send().await?.text().await?)
    }

    /// How many deliveries ended in this way since the worker started.
    pub(super) async fn count(&self, outcome: &str) -> Result<u64> {
        let page = self.get("metrics").await?;
        let label = format!("outcome=\"{outcome}\"");
        let counters = page.lines().filter(|line| line.starts_with("wxpay_worker_deliveries_total{"));
        let counts = counters.filter(|line| line.contains(&label)).filter_map(|line| line.rsplit(' ').next());
        Ok(counts.filter_map(|count| count.parse::<u64>().ok()).sum())
    }
}

/// A program of the same build lies beside this one.
fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe().context("this program's path")?.with_file_name(name);
    if !path.exists() {
        bail!("{} is missing: the benchmark runs the programs that lie beside wxpayctl", path.display());
    }
    Ok(path)
}
