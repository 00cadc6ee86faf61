//! The real pair: `wxpay-ingress` and `wxpay-worker` as processes of their own, on a broker of the caller's choice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde::de::DeserializeOwned;
use tempfile::TempDir;
use wxpay_shared::{
    admin::{DeadLetterList, OrderView},
    queue::topology,
};

use super::{
    process::{Plan, Server, free_port},
    rabbitmq::Node,
    wait_until,
};

pub(crate) const MCH_ID: &str = "1900990001";
pub(crate) const APPID: &str = "wxtest00000000a001";
pub(crate) const V2_KEY: &str = "Zx8kQ2mN7pR4tV9wB3yC6dF1gH5jL0sT";
pub(crate) const API_V3_KEY: &str = "v3TestKey_0123456789abcdefghijkl";
pub(crate) const PUBLIC_KEY_ID: &str = "PUB_KEY_ID_0119009900012026031800000000000001";
pub(crate) const SEAL_KEY: &str = "a seal key for tests, 32 characters or more";
const SANDBOX_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// The time that anything may take which normally takes a moment.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The pair, its configuration and its ports. Both stay the same when a program is started again.
pub(crate) struct Pair {
    /// Both before the directory, so that they end before it is removed.
    ingress: Option<Server>,
    worker: Option<Server>,
    directory: TempDir,
    pub(crate) ingress_port: u16,
    pub(crate) ops_port: u16,
    pub(crate) admin_port: u16,
    /// What both programs find in their environment.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) client: reqwest::Client,
}

impl Pair {
    /// The pair on this broker, both programs running and ready.
    pub(crate) async fn start(url: &str) -> Self {
        let mut pair = Self::prepare(url);
        pair.start_ingress();
        pair.start_worker();
        pair.ready().await;
        pair
    }

    /// The configuration alone.
    pub(crate) fn prepare(url: &str) -> Self {
        let directory = TempDir::with_prefix("wxpay-pair-").expect("the temporary directory can be written");
        let [ingress_port, ops_port, admin_port] = [free_port(), free_port(), free_port()];
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/vectors/keys");
        let keys = keys.display();
        let config = format!(
            r#"data_dir = "data"
[ingress]
listen = "127.0.0.1:{ingress_port}"
ops_listen = "127.0.0.1:{ops_port}"
[worker]
admin_listen = "127.0.0.1:{admin_port}"
max_attempts = 4
[queue]
url = "{url}"
retry_delays = ["200ms", "400ms"]
[seal]
key = "{SEAL_KEY}"
[merchants.shop]
mch_id = "{MCH_ID}"
appids = ["{APPID}"]
v2_key = "{V2_KEY}"
points = "1/100"
api_v3_key = "{API_V3_KEY}"
platform_certificates = ["{keys}/platform_cert_a.cert.pem", "{keys}/platform_cert_b.cert.pem", "{keys}/platform_cert_expired.cert.pem"]
platform_public_keys = {{ {PUBLIC_KEY_ID} = "{keys}/platform_pubkey.public.pem" }}
[merchants.careful]
mch_id = "1900990003"
appids = ["{APPID}"]
v2_key = "{V2_KEY}"
points = "1/100"
refunds = "registered-only"
[merchants.sandbox]
mch_id = "{MCH_ID}"
appids = ["{APPID}"]
v2_key = "{SANDBOX_KEY}"
points = "1/100"
[merchants.partner]
mch_id = "1900990100"
appids = ["wxtest00000000b001"]
sub_mch_ids = ["1900990101"]
sub_appids = ["wxtest00000000b002"]
v2_key = "{V2_KEY}"
points = "1/100"
api_v3_key = "{API_V3_KEY}"
platform_certificates = ["{keys}/platform_cert_a.cert.pem", "{keys}/platform_cert_b.cert.pem", "{keys}/platform_cert_expired.cert.pem"]
platform_public_keys = {{ {PUBLIC_KEY_ID} = "{keys}/platform_pubkey.public.pem" }}
"#
        );
        fs::write(directory.path().join("wxpay.toml"), config).expect("the temporary directory can be written");
        Self {
            directory,
            ingress: None,
            worker: None,
            ingress_port,
            ops_port,
            admin_port,
            environment: Vec::new(),
            client: reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client"),
        }
    }

    pub(crate) fn start_ingress(&mut self) {
        self.ingress = Some(self.program("wxpay-ingress", &[]));
    }

    pub(crate) fn start_worker(&mut self) {
        self.worker = Some(self.program("wxpay-worker", &[]));
    }

    /// Both in one process, for the embedded queue.
    pub(crate) fn start_serve(&mut self) {
        self.worker = Some(self.program("wxpayctl", &["serve"]));
    }

    /// The admin API's token for the programs that are started from now on.
    pub(crate) fn set_admin_token(&mut self, token: &str) {
        self.environment.push(("WXPAY__WORKER__ADMIN_TOKEN".to_owned(), token.to_owned()));
    }

    /// Kills a worker without warning.
    pub(crate) fn kill_worker(&mut self) {
        self.worker.as_ref().expect("it runs").signal("KILL");
        drop(self.worker.take());
    }

    /// The worker, to be ended by the caller; another can be started.
    pub(crate) fn take_worker(&mut self) -> Server {
        self.worker.take().expect("it runs")
    }

    /// The ingress, to be ended by the caller; another can be started.
    pub(crate) fn take_ingress(&mut self) -> Server {
        self.ingress.take().expect("it runs")
    }

    fn program(&self, name: &str, command: &[&str]) -> Server {
        self.run(
            &[&[name], command].concat(),
            &self.directory.path().join(format!("{name}.log")),
            &self.environment,
            None,
        )
    }

    /// Runs a program of the workspace, the first of these words, on this configuration; the environment overrides it.
    /// `room` bounds the length of each file that it writes, as a full disk would: the write fails.
    pub(crate) fn run(
        &self,
        words: &[&str],
        log: &Path,
        environment: &[(String, String)],
        room: Option<u64>,
    ) -> Server {
        let (program, config) = (binary(words[0]), self.config_file());
        let (program, config) = (text(&program), text(&config));
        let room = room.map(|bytes| format!("--fsize={bytes}"));
        let mut arguments = Vec::new();
        if let Some(room) = &room {
            // Unless it is ignored, a signal would kill the program.
            arguments.extend(["-c", "trap '' XFSZ; exec \"$@\"", "sh", "prlimit", room, program]);
        }
        arguments.extend(words[1..].iter().chain(&["--config", config]));
        Server::start(&Plan {
            program: Path::new(if room.is_some() { "sh" } else { program }),
            arguments: &arguments,
            environment,
            directory: self.directory.path(),
            log,
            goodbye: "TERM",
            after: "",
        })
    }

    /// Exchanges these words of the configuration, which must be there.
    pub(crate) fn change(&self, from: &str, to: &str) {
        let config = fs::read_to_string(self.config_file()).expect("it was prepared");
        assert!(config.contains(from), "the configuration has no {from:?}");
        fs::write(self.config_file(), config.replace(from, to)).expect("the temporary directory can be written");
    }

    /// Exchanges the usual retry tiers and the number of attempts.
    pub(crate) fn set_retries(&self, delays: &str, max_attempts: u32) {
        self.change("retry_delays = [\"200ms\", \"400ms\"]", &format!("retry_delays = [{delays}]"));
        self.change("max_attempts = 4", &format!("max_attempts = {max_attempts}"));
    }

    /// What a program has logged.
    pub(crate) fn log(&self, program: &str) -> String {
        fs::read_to_string(self.directory.path().join(format!("{program}.log"))).expect("the program has a log")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.path().join("wxpay.toml")
    }

    pub(crate) async fn ready(&self) {
        self.ingress_ready().await;
        self.worker_ready().await;
    }

    pub(crate) async fn ingress_ready(&self) {
        self.answers("wxpay-ingress", self.ops_port).await;
    }

    pub(crate) async fn worker_ready(&self) {
        self.answers("wxpay-worker", self.admin_port).await;
    }

    async fn answers(&self, name: &str, port: u16) {
        wait_until(&format!("{name} is ready"), DEADLINE, async || self.is_ready(port).await).await;
    }

    /// Whether the program whose operators listen at this port is ready.
    pub(crate) async fn is_ready(&self, port: u16) -> bool {
        let answer = self.client.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(crate) fn notify_url(&self, merchant: &str) -> String {
        format!("http://127.0.0.1:{}/v2/{merchant}", self.ingress_port)
    }

    pub(crate) fn ops_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ops_port)
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin_port)
    }

    /// Posts a notification as WeChat does; the status and the body of the reply.
    pub(crate) async fn post(&self, merchant: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
        let request = self.client.post(self.notify_url(merchant));
        let request = request.header("User-Agent", "Mozilla/4.0").header("Content-Type", "text/xml");
        let answer = request.body(body).send().await.expect("ingress answers");
        (answer.status().as_u16(), answer.text().await.expect("ingress sends its whole answer"))
    }

    /// Registers an order of 1 point a yuan for `user`.
    pub(crate) async fn register(&self, merchant: &str, out_trade_no: &str, amount: i64, user: &str) {
        let answer = self.try_register(merchant, out_trade_no, amount, user).await.expect("the worker answers");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    /// The same at a worker that may not answer.
    pub(crate) async fn try_register(
        &self,
        merchant: &str,
        out_trade_no: &str,
        amount: i64,
        user: &str,
    ) -> reqwest::Result<reqwest::Response> {
        let order = serde_json::json!({
            "merchant": merchant, "out_trade_no": out_trade_no, "amount": amount, "user": user
        });
        self.client.post(self.admin_url("/orders")).json(&order).send().await
    }

    pub(crate) async fn order(&self, merchant: &str, out_trade_no: &str) -> OrderView {
        self.get(&format!("/orders/{merchant}/{out_trade_no}")).await
    }

    pub(crate) async fn dead_letters(&self) -> DeadLetterList {
        self.get("/dead-letters?limit=10000").await
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.client.get(self.admin_url(path)).send().await.expect("the worker answers");
        let status = answer.status();
        let body = answer.text().await.expect("the worker sends its whole answer");
        assert!(status.is_success(), "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Waits until nothing is on its way any more: not waiting for a worker, nor in a worker's hands, nor in a tier. The
    /// queues are asked one after the other, so they must be found empty twice: nothing moves twice in that time.
    pub(crate) async fn settled(&self, node: &Node, virtual_host: &str) {
        let empty =
            || node.queues(virtual_host).iter().all(|(name, messages)| name == topology::DEAD || *messages == 0);
        wait_until("everything is settled", DEADLINE * 2, async || empty() && empty()).await;
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// Asks a program to end; how long it took.
pub(crate) async fn terminate(program: &mut Server) -> Duration {
    let started = Instant::now();
    program.signal("TERM");
    wait_until("the program has ended", DEADLINE, async || !program.runs()).await;
    started.elapsed()
}

/// A program of the workspace, built by this test run if need be: an old one would test yesterday's code.
pub(crate) fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let release = if cfg!(debug_assertions) { &[][..] } else { &["--release"] };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a member of the workspace");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--workspace", "--bins", "--locked"])
            .args(release)
            .current_dir(root)
            .status();
        assert!(status.is_ok_and(|status| status.success()), "cargo build --workspace --bins failed");
        let test = std::env::current_exe().expect("a running test has a path");
        // Tests are built in target/debug/deps, programs in target/debug.
        let folder = test.parent().expect("a program lies in a folder");
        let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        profile.to_path_buf()
    });
    directory.join(name)
}
