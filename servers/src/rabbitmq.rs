//! Private RabbitMQ nodes: one that all tests share, with a virtual host for each, and nodes of one's own.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use lapin::{Channel, Connection, ConnectionProperties, message::Delivery, options::BasicGetOptions};
use tempfile::TempDir;
use tokio::net::TcpStream;
use wxpay_shared::queue::topology;

use crate::{
    process::{Plan, Server, free_port},
    wait_until,
};

const INSTALL: &str = "RabbitMQ is missing: apt-get install --no-install-recommends rabbitmq-server";
/// epmd leaves the broker's group, and refuses to end before it has noticed that its nodes have.
const EPMD: &str = "for n in 1 2 3 4 5 6 7 8 9 10; do \
    epmd -port $ERL_EPMD_PORT -kill 2>&1 | grep -q -e Killed -e Cannot && break; sleep 0.1; done";
/// A message that expires in a tier while its exchange is gone is handed on again after 3 s; 3 minutes by default. Quorum
/// queues tell their counts twice a second; every 5 s by default.
const ADVANCED: &str =
    "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 3000}, {quorum_tick_interval, 500}]}].";
/// Now and then a queue has no leader after a restart of its only node, and never elects one by itself
/// (rabbitmq-server's issue 10070). This is what its maintainers have an operator do; a queue with a leader does not care.
const ELECT: &str = "[ra:trigger_election(amqqueue:get_pid(Q), 60000) \
    || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) =:= rabbit_quorum_queue].";
/// The list of quorum queues is not safe on disk at once: RabbitMQ 3.10 that is killed some seconds after a queue was
/// declared for the first time may start it anew, empty and without its TTL.
const WRITE_LIST: &str = "dets:sync(ra_directory_reverse), dets:sync(ra_log_meta).";
const COOKIE: &str = "wxpaytests";
/// The quorum queues of a virtual host and their messages, as one line. They are asked themselves: what they tell the lists
/// is half a second old.
const COUNTS: &str = "Count = fun(Q) -> \
        {ok, N, _} = ra:consistent_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1, 10000), N end, \
    lists:flatten([io_lib:format(\"~s ~p;\", [element(4, amqqueue:get_name(Q)), Count(Q)]) \
        || Q <- rabbit_amqqueue:list(VHost), amqqueue:get_type(Q) =:= rabbit_quorum_queue]).";

/// A node, running or not. Data and ports stay the same when it is started again.
#[derive(Debug)]
pub struct Node {
    /// Before the directory, so that it ends first: it would go on writing there, and some of it would stay.
    server: Option<Server>,
    directory: TempDir,
    name: String,
    port: u16,
    environment: Vec<(String, String)>,
}

/// The node that all tests of this run share.
pub async fn shared() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    let node = tokio::task::spawn_blocking(|| NODE.get_or_init(Node::start)).await.expect("the node starts");
    node.ready().await;
    node
}

/// The shared node and a fresh virtual host on it.
pub async fn fresh_host() -> (&'static Node, String) {
    let node = shared().await;
    (node, node.virtual_host())
}

/// The URL of a fresh virtual host on the shared node.
pub async fn fresh_url() -> String {
    let node = shared().await;
    node.url(&node.virtual_host())
}

impl Node {
    /// Starts a node of one's own. It takes a few seconds until it is [`ready`](Self::ready).
    pub fn start() -> Self {
        let mut node = Self::prepare();
        node.run();
        node
    }

    /// A node that does not run yet.
    pub fn prepare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = TempDir::with_prefix("wxpay-rabbitmq-").expect("the temporary directory can be written");
        let name = format!("wxpay{}x{}@localhost", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let port = free_port();
        let file = |name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::write(&path, content).expect("the temporary directory can be written");
            path.to_str().expect("temporary paths are text").to_owned()
        };
        let here = directory.path().to_str().expect("temporary paths are text");
        let environment = [
            ("HOME", here.to_owned()),
            ("RABBITMQ_NODENAME", name.clone()),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODE_PORT", port.to_string()),
            ("RABBITMQ_DIST_PORT", free_port().to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", free_port().to_string()),
            ("RABBITMQ_MNESIA_BASE", format!("{here}/mnesia")),
            ("RABBITMQ_LOG_BASE", format!("{here}/log")),
            ("RABBITMQ_PID_FILE", format!("{here}/pid")),
            ("RABBITMQ_CONFIG_FILE", file("rabbitmq.conf", "")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config", ADVANCED)),
            ("RABBITMQ_CONF_ENV_FILE", file("rabbitmq-env.conf", "")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins", "[].")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("-setcookie {COOKIE}")),
            ("RABBITMQ_CTL_ERL_ARGS", format!("-setcookie {COOKIE}")),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { server: None, directory, name, port, environment }
    }

    /// Starts a node that does not run.
    pub fn run(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        self.server = Some(Server::start(&Plan {
            program: &script("rabbitmq-server"),
            arguments: &[],
            environment: &self.environment,
            directory: self.directory.path(),
            log: &self.directory.path().join("output"),
            goodbye: "KILL",
            after: EPMD,
        }));
    }

    /// Waits until it takes connections.
    pub async fn ready(&self) {
        wait_until("RabbitMQ is up", Duration::from_secs(60), || async {
            let output = fs::read_to_string(self.directory.path().join("output")).unwrap_or_default();
            output.contains("completed with") && TcpStream::connect(("127.0.0.1", self.port)).await.is_ok()
        })
        .await;
    }

    /// Kills the broker without warning.
    pub fn kill(&mut self) {
        drop(self.server.take().expect("it runs"));
    }

    /// Kills the broker and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.kill();
        self.run();
        self.ready().await;
        self.elect();
    }

    /// Sees to it that the queues that are declared now survive a kill that comes very soon.
    pub fn remember_queues(&self) {
        self.eval(WRITE_LIST);
    }

    /// Sees to it that each queue has a leader after a restart.
    pub fn elect(&self) {
        self.eval(ELECT);
    }

    /// The broker's process.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").pid()
    }

    /// Makes the broker fall silent; its connections stay.
    pub fn freeze(&self) {
        self.server.as_ref().expect("it runs").freeze();
    }

    /// Wakes it again.
    pub fn thaw(&self) {
        self.server.as_ref().expect("it runs").thaw();
    }

    /// Runs `rabbitmqctl` on this node.
    ///
    /// # Panics
    /// With its output if it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(script("rabbitmqctl"))
            .args(["-n", &self.name])
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .expect(INSTALL);
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Evaluates Erlang on this node; the value as Erlang prints it. `rabbitmqctl` does the same, but takes a second of
    /// a processor to start.
    ///
    /// # Panics
    /// With what Erlang says if it fails.
    pub fn eval(&self, expression: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Two callers of one name would be taken for one that calls twice.
        let caller = format!("caller{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut call = Command::new("erl_call")
            .args(["-h", &caller, "-e", "-c", COOKIE, "-sname", &self.name])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect(INSTALL);
        let mut input = call.stdin.take().expect("it is piped");
        writeln!(input, "{expression}").expect("erl_call reads it");
        drop(input);
        let output = call.wait_with_output().expect("erl_call ends");
        let said = String::from_utf8_lossy(&output.stdout);
        let value = said.strip_prefix("{ok, ").and_then(|rest| rest.strip_suffix('}'));
        value.unwrap_or_else(|| panic!("{expression}: {said}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
    }

    /// Makes a virtual host that no test has used.
    pub fn virtual_host(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.eval(&format!(
            "rabbit_vhost:add(<<\"{name}\">>, <<\"tests\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"tests\">>)."
        ));
        name
    }

    /// How clients reach a virtual host of this node.
    pub fn url(&self, virtual_host: &str) -> String {
        url_at(self.port, virtual_host)
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client that knows nothing of us. The connection lives as long as the channel.
    pub async fn stranger(&self, virtual_host: &str) -> Channel {
        let connection = Connection::connect(&self.url(virtual_host), ConnectionProperties::default()).await;
        connection.expect("the broker answers").create_channel().await.expect("the broker opens a channel")
    }

    /// Every queue of ours that holds messages, and how many are in it or in a consumer's hands.
    pub fn queues(&self, virtual_host: &str) -> BTreeMap<String, u64> {
        let counts = self.eval(&format!("VHost = <<\"{virtual_host}\">>, {COUNTS}"));
        let counts = counts.trim_matches('"').split_terminator(';').filter(|count| count.starts_with("wxpay."));
        let queue = |count: &str| Some((count.split_once(' ')?.0.to_owned(), count.split_once(' ')?.1.parse().ok()?));
        counts.map(|count| queue(count).unwrap_or_else(|| panic!("no name and number: {count}"))).collect()
    }

    /// Messages of a quorum queue that are in consumers' hands, whether or not those are still alive.
    pub fn in_hands(&self, virtual_host: &str, queue: &str) -> u64 {
        let count = self.eval(&format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{virtual_host}\">>, queue, <<\"{queue}\">>)), \
             {{ok, N, _}} = ra:consistent_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_checked_out/1, 10000), N."
        ));
        count.parse().expect("a number")
    }

    /// All dead letters, which stay where they are.
    pub async fn dead_letters(&self, virtual_host: &str) -> Vec<Delivery> {
        let channel = self.stranger(virtual_host).await;
        let mut letters = Vec::new();
        // One by one: a consumer that answers none of them is not sent all of them by a quorum queue.
        while let Some(letter) =
            channel.basic_get(topology::DEAD.into(), BasicGetOptions::default()).await.expect("the queue can be read")
        {
            letters.push(letter.delivery);
        }
        letters
    }
}

/// How clients reach a virtual host through this port: the node's own or a proxy's.
pub fn url_at(port: u16, virtual_host: &str) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/{virtual_host}")
}

/// The version that is installed, if any is.
#[must_use]
pub fn version() -> Option<String> {
    let folder = find_script("rabbitmq-server")?;
    let name = folder.parent()?.parent()?.file_name()?.to_str()?.trim_start_matches("rabbitmq_server-");
    Some(name.to_owned())
}

fn script(name: &str) -> PathBuf {
    find_script(name).expect(INSTALL)
}

/// The scripts in PATH change the user; these do not.
fn find_script(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").ok()?;
    versions.flatten().map(|version| version.path().join("sbin").join(name)).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_left_of_a_node_that_was_writing() {
        let node = Node::start();
        node.ready().await;
        let directory = node.directory.path().to_owned();
        let file = directory.join("late/file");
        node.eval(&format!(
            "spawn(fun Write() -> filelib:ensure_dir(\"{0}\"), file:write_file(\"{0}\", <<>>), Write() end).",
            file.display()
        ));
        wait_until("it writes", Duration::from_secs(10), async || file.exists()).await;
        drop(node);
        assert!(!directory.exists(), "it is written to while it is removed");
    }
}
