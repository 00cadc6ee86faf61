//! The pair at work with a bad network between all its parts: broker, store, proxies, programs, load, and at the end the
//! audit. Whatever a fault needs to break is a field of it.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    database::{self, Database, Kind, Session},
    pair::Pair,
    process::{Server, free_port, raise_file_limit},
    proxy::Proxy,
    rabbitmq::{self, Node},
    sender::{Load, Sender},
    story::{Fate, MERCHANT, Story},
    wait_until,
};

mod ending;

pub(crate) use ending::Report;

/// The time that recovery from any fault may take. RabbitMQ needs the most when it starts again on a busy machine.
pub(crate) const RECOVERY: Duration = Duration::from_secs(90);
/// Orders that the shop knows before the load begins, and again before each fault.
const AHEAD: u64 = 300;
/// Lanes of the load, and each one's pause between two orders: some hundred notifications a second, which a machine of
/// two cores carries beside everything else.
const LANES: u64 = 6;
const PAUSE: Duration = Duration::from_millis(40);

/// Lines of a program's log that a failure shows.
const LAST_LINES: usize = 20;

/// Where queue and store are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// RabbitMQ and a SQL server.
    Sql(Kind),
    /// RabbitMQ, and the store in the worker's directory.
    Sled,
    /// One process, `wxpayctl serve`, with both in its directory.
    Together,
}

/// Which servers are the test's own, to break; the others are those that all tests share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) broker: bool,
    pub(crate) store: bool,
}

impl Own {
    pub(crate) const NOTHING: Self = Self { broker: false, store: false };
}

/// A worker, running or not.
pub(crate) struct Member {
    pub(crate) server: Option<Server>,
    /// Its sled directory.
    pub(crate) data: PathBuf,
    admin_port: u16,
    starts: usize,
}

pub(crate) struct Rig {
    pub(crate) home: Home,
    own_node: Option<Node>,
    shared_node: Option<&'static Node>,
    pub(crate) virtual_host: String,
    pub(crate) database: Option<Database>,
    /// The store's address, past the proxy; empty where it has none.
    pub(crate) store_url: String,
    /// From WeChat to ingress.
    pub(crate) door: Proxy,
    /// From ingress to the broker.
    pub(crate) publishing: Proxy,
    /// From the workers to the broker.
    pub(crate) consuming: Proxy,
    /// From the workers to the store.
    pub(crate) storing: Proxy,
    pub(crate) pair: Pair,
    pub(crate) ingress: Option<Server>,
    pub(crate) workers: Vec<Member>,
    pub(crate) sender: Arc<Sender>,
    load: Option<Load>,
    /// Dead letters that are not WeChat's.
    pub(crate) strangers: usize,
}

impl Rig {
    /// Servers, proxies and `workers` workers, all running and ready, with load on them.
    pub(crate) async fn start(home: Home, own: Own, workers: usize, seed: u64) -> Self {
        let mut rig = Self::prepare(home, own, workers, seed).await;
        rig.start_ingress();
        (0..workers).for_each(|worker| rig.start_worker(worker));
        rig.ready().await;
        if let Some(node) = &rig.own_node {
            node.remember_queues();
        }
        rig.register_ahead().await;
        rig.start_load();
        rig
    }

    /// The same without programs and load.
    pub(crate) async fn prepare(home: Home, own: Own, workers: usize, seed: u64) -> Self {
        raise_file_limit();
        let (own_node, shared_node) = match (home, own.broker) {
            (Home::Together, _) => (None, None),
            (_, true) => (Some(blocking(Node::start).await), None),
            (_, false) => (None, Some(rabbitmq::shared().await)),
        };
        let (mut database, mut store_url) = (None, String::new());
        if let Home::Sql(kind) = home {
            store_url = if own.store {
                let own = blocking(move || Database::start(kind)).await;
                own.ready().await;
                let url = own.fresh_url().await;
                database = Some(own);
                url
            } else {
                database::fresh_url(kind).await
            };
            database::migrate(&store_url).await;
        }
        if let Some(node) = &own_node {
            node.ready().await;
        }
        let virtual_host = shared_node.map_or_else(|| "/".to_owned(), Node::virtual_host);
        let broker_port = own_node.as_ref().or(shared_node).map_or(1, Node::port);
        let store_port = if store_url.is_empty() { 1 } else { database::port_of(&store_url) };
        let pair = Pair::prepare(if home == Home::Together { "embedded" } else { "amqp://127.0.0.1:1" });
        let door = Proxy::start(pair.ingress_port).await;
        let directory = pair.config_file().with_file_name("");
        let member = |number: usize| Member {
            server: None,
            data: directory.join(if number == 0 { "data".to_owned() } else { format!("data{number}") }),
            admin_port: if number == 0 { pair.admin_port } else { free_port() },
            starts: 0,
        };
        Self {
            home,
            own_node,
            shared_node,
            virtual_host,
            database,
            store_url,
            publishing: Proxy::start(broker_port).await,
            consuming: Proxy::start(broker_port).await,
            storing: Proxy::start(store_port).await,
            ingress: None,
            workers: (0..workers).map(member).collect(),
            sender: Arc::new(Sender::new(door.port(), seed)),
            door,
            pair,
            load: None,
            strangers: 0,
        }
    }

    pub(crate) fn node(&self) -> &Node {
        self.own_node.as_ref().or(self.shared_node).expect("this home has a broker")
    }

    /// The broker, to break it.
    pub(crate) fn own_node(&mut self) -> &mut Node {
        self.own_node.as_mut().expect("the broker is this rig's own")
    }

    /// The database server, to break it.
    pub(crate) fn own_database(&mut self) -> &mut Database {
        self.database.as_mut().expect("the database is this rig's own")
    }

    /// Starts ingress; at [`Home::Together`] the one process.
    pub(crate) fn start_ingress(&mut self) {
        self.start_ingress_with_room(None);
    }

    /// The same with a bound for the length of each file that it writes.
    pub(crate) fn start_ingress_with_room(&mut self, room: Option<u64>) {
        let log = self.pair.config_file().with_file_name("ingress.log");
        let (words, environment) = if self.home == Home::Together {
            (&["wxpayctl", "serve"][..], Vec::new())
        } else {
            let queue = ("WXPAY__QUEUE__URL".to_owned(), self.queue_url(&self.publishing));
            (&["wxpay-ingress"][..], vec![queue])
        };
        self.ingress = Some(self.pair.run(words, &log, &environment, room));
    }

    /// Starts a worker.
    pub(crate) fn start_worker(&mut self, number: usize) {
        self.start_worker_with_room(number, None);
    }

    /// The same with a bound for the length of each file that it writes.
    pub(crate) fn start_worker_with_room(&mut self, number: usize, room: Option<u64>) {
        if self.home == Home::Together {
            return;
        }
        self.workers[number].starts += 1;
        let (log, environment) = (self.worker_log(number), self.worker_environment(number));
        self.workers[number].server = Some(self.pair.run(&["wxpay-worker"], &log, &environment, room));
    }

    /// What a worker has said since its last start.
    pub(crate) fn worker_log(&self, number: usize) -> PathBuf {
        self.pair.config_file().with_file_name(format!("worker{number}.{}.log", self.workers[number].starts))
    }

    pub(crate) fn worker_environment(&self, number: usize) -> Vec<(String, String)> {
        let Member { data, admin_port, .. } = &self.workers[number];
        let store = match self.home {
            Home::Sql(_) => {
                let port = database::port_of(&self.store_url);
                self.store_url.replace(&format!(":{port}/"), &format!(":{}/", self.storing.port()))
            }
            Home::Sled | Home::Together => "embedded".to_owned(),
        };
        let settings = [
            ("WXPAY__QUEUE__URL", self.queue_url(&self.consuming)),
            ("WXPAY__STORE__URL", store),
            ("WXPAY__DATA_DIR", data.to_str().expect("temporary paths are text").to_owned()),
            // Faults of the store use attempts up as well; the tiers of the tests are short.
            ("WXPAY__WORKER__MAX_ATTEMPTS", "10".to_owned()),
            ("WXPAY__WORKER__ADMIN_LISTEN", format!("127.0.0.1:{admin_port}")),
        ];
        settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    fn queue_url(&self, proxy: &Proxy) -> String {
        rabbitmq::url_at(proxy.port(), self.virtual_host_url())
    }

    /// The virtual host as it is written in a URL.
    pub(crate) fn virtual_host_url(&self) -> &str {
        if self.virtual_host == "/" { "%2f" } else { &self.virtual_host }
    }

    /// Kills ingress without warning; at [`Home::Together`] the one process.
    pub(crate) fn kill_ingress(&mut self) {
        let server = self.ingress.take().expect("it runs");
        server.signal("KILL");
    }

    /// Kills a worker without warning.
    pub(crate) fn kill_worker(&mut self, number: usize) {
        let server = self.workers[number].server.take().expect("it runs");
        server.signal("KILL");
    }

    pub(crate) fn start_load(&mut self) {
        self.load = Some(Load::start(&self.sender, LANES, PAUSE));
    }

    /// Ends the load when everything that was begun was taken.
    pub(crate) async fn pause_load(&mut self) {
        if let Some(load) = self.load.take() {
            load.stop().await;
        }
    }

    /// Waits until every program says that it is ready.
    pub(crate) async fn ready(&self) {
        let ports = self.workers.iter().filter(|member| member.server.is_some()).map(|member| member.admin_port);
        for port in ports.chain([self.pair.ops_port]) {
            wait_until("a program is ready", RECOVERY, async || self.pair.is_ready(port).await).await;
        }
    }

    /// Makes sure that the shop knows enough stories that nobody has told yet.
    pub(crate) async fn register_ahead(&self) {
        let known = self.sender.known();
        let missing = AHEAD.saturating_sub(self.sender.untold());
        self.register(known + missing).await;
    }

    /// The same at a worker that may end meanwhile: as many as it takes.
    pub(crate) async fn register_while_taken(&self) {
        let (known, missing) = (self.sender.known(), AHEAD.saturating_sub(self.sender.untold()));
        for (story, number) in self.sender.stories(known, known + missing).iter().zip(known + 1..) {
            if story.registered {
                let answer = self.pair.try_register(MERCHANT, &story.out_trade_no, story.amount, &story.user).await;
                if !answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
            }
            self.sender.knows(number);
        }
    }

    /// Makes the shop know the stories up to this one.
    pub(crate) async fn register(&self, until: u64) {
        let stories = self.sender.stories(self.sender.known(), until);
        for part in stories.iter().filter(|story| story.registered).collect::<Vec<_>>().chunks(500) {
            if self.store_url.is_empty() {
                for story in part {
                    self.pair.register(MERCHANT, &story.out_trade_no, story.amount, &story.user).await;
                }
                continue;
            }
            let row = |story: &&Story| {
                format!("('{MERCHANT}', '{}', {}, '{}', '1/100')", story.out_trade_no, story.amount, story.user)
            };
            let rows = part.iter().map(row).collect::<Vec<_>>().join(", ");
            let insert = "insert into wxpay_orders (merchant, out_trade_no, amount, user_id, points_rate) values";
            database::execute(&self.store_url, &format!("{insert} {rows}")).await;
        }
        self.sender.knows(until);
    }

    /// Waits until the load has got through with more, so that the next fault meets a pair at work.
    pub(crate) async fn flowing(&self) {
        let before = self.sender.successes();
        wait_until("the load goes on", RECOVERY, async || self.sender.successes() > before + 20).await;
    }

    /// Waits until so much was told that the audit has something to look at.
    pub(crate) async fn told_enough(&self) {
        self.register_ahead().await;
        wait_until("enough was told", RECOVERY, async || self.sender.successes() > 2 * super::audit::LEAST_TOLD).await;
    }

    /// Waits until a payment that WeChat tells of from now on is taken and applied; how long that took.
    pub(crate) async fn recovered(&self) -> Duration {
        let started = Instant::now();
        self.ready().await;
        let known = self.sender.known();
        let plain = |story: &Story| story.letters.len() == 1 && story.letters[0].fate == Fate::Applied;
        let story = (known..).map(|index| (index, self.sender.stories(index, index + 1).remove(0)));
        let (index, story) = story.into_iter().find(|(_, story)| plain(story)).expect("half of all stories are plain");
        self.register(index + 1).await;
        self.sender.tell(&story).await;
        wait_until("a payment is applied", RECOVERY, async || self.is_paid(&story.out_trade_no).await).await;
        started.elapsed()
    }

    async fn is_paid(&self, number: &str) -> bool {
        if self.store_url.is_empty() {
            return self.pair.order(MERCHANT, number).await.payments.len() == 1;
        }
        let query = format!("select state from wxpay_orders where out_trade_no = '{number}' and received > 0");
        let mut session = Session::connect(&self.store_url).await.expect("the database can be reached");
        !session.texts(&query).await.expect("the table can be read").is_empty()
    }
}

/// A test that fails says what the programs said last.
impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let workers = (0..self.workers.len()).map(|number| self.worker_log(number));
        for log in workers.chain([self.pair.config_file().with_file_name("ingress.log")]) {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let from = text.lines().count().saturating_sub(LAST_LINES);
            eprintln!("{}:", log.display());
            text.lines().skip(from).for_each(|line| eprintln!("  {line}"));
        }
    }
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(job).await.expect("the server starts")
}
