//! Private SQL servers: one of each kind that all tests share, with a database for each test, and servers of one's own
//! to break.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, query_scalar, raw_sql};
use tempfile::TempDir;

use crate::{
    process::{Plan, Server, free_port},
    wait_until,
};

/// Connections that a server takes, plus those it keeps for administrators.
const CONNECTIONS: usize = 300;

/// PostgreSQL's children lead sessions of their own and outlive it for a moment, in which it cannot start again: they still
/// have its shared memory. They work in its data directory.
const ORPHANS: &str = r#"
for n in $(seq 200); do
    orphans=
    for cwd in /proc/[0-9]*/cwd; do
        [ "$(readlink "$cwd")" = "$WATCHDOG_DIRECTORY/data" ] && orphans="$orphans $(basename "${cwd%/cwd}")"
    done
    [ -z "$orphans" ] && break
    kill -KILL $orphans
    sleep 0.05
done"#;

/// The servers that the store has homes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB.
    Mariadb,
}

/// A server, running or not. Data and port stay the same when it is started again.
#[derive(Debug)]
pub struct Database {
    kind: Kind,
    /// Before the directory, so that it ends first: it would go on writing there, and some of it would stay.
    server: Option<Server>,
    directory: TempDir,
    port: u16,
}

/// The address of a fresh database on the server of this kind that all tests share.
pub async fn fresh_url(kind: Kind) -> String {
    static SERVERS: [OnceLock<Database>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = match kind {
        Kind::Postgres => &SERVERS[0],
        Kind::Mariadb => &SERVERS[1],
    };
    let start = move || slot.get_or_init(|| Database::start(kind));
    let server = tokio::task::spawn_blocking(start).await.expect("the server starts");
    server.ready().await;
    server.fresh_url().await
}

/// The address of such a database with the schema in it.
pub async fn fresh_schema(kind: Kind) -> String {
    let url = fresh_url(kind).await;
    migrate(&url).await;
    url
}

/// Puts the schema into a database.
pub async fn migrate(url: &str) {
    wxpay_shared::store::open::migrate(&url.to_owned().into(), true).await.expect("the schema can be made");
}

/// The port in an address.
pub fn port_of(url: &str) -> u16 {
    let after = url.rsplit_once(':').expect("an address has a port").1;
    after.split('/').next().and_then(|port| port.parse().ok()).expect("a port is a number")
}

impl Database {
    /// Makes a server of one's own and starts it. It takes a moment until it is [`ready`](Self::ready).
    pub fn start(kind: Kind) -> Self {
        let directory = TempDir::with_prefix("wxpay-database-").expect("the temporary directory can be written");
        let mut database = Self { kind, server: None, directory, port: free_port() };
        let (program, arguments) = match kind {
            Kind::Postgres => postgres(
                &tool("/usr/lib/postgresql", "bin/initdb", INSTALL_POSTGRES),
                &["-D", &database.path("data"), "-A", "trust", "-N", "-U", "postgres"],
            ),
            Kind::Mariadb => (
                PathBuf::from("mariadb-install-db"),
                vec![
                    "--no-defaults".to_owned(),
                    format!("--datadir={}", database.path("data")),
                    "--auth-root-authentication-method=normal".to_owned(),
                    "--skip-test-db".to_owned(),
                    format!("--user={}", if is_root() { "root".to_owned() } else { who() }),
                ],
            ),
        };
        if kind == Kind::Postgres && is_root() {
            run(Command::new("chown").arg("postgres").arg(database.directory.path()), INSTALL_POSTGRES);
        }
        let install = if kind == Kind::Postgres { INSTALL_POSTGRES } else { INSTALL_MARIADB };
        // MariaDB removes what looks like its own temporary tables when it starts, another server's too.
        let directory = database.directory.path();
        run(Command::new(program).args(arguments).current_dir(directory).env("TMPDIR", directory), install);
        database.run();
        database
    }

    /// Starts a server that does not run.
    pub fn run(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        let (data, port) = (self.path("data"), self.port.to_string());
        let connections = format!("max_connections={CONNECTIONS}");
        let (program, arguments) = match self.kind {
            Kind::Postgres => postgres(
                &tool("/usr/lib/postgresql", "bin/postgres", INSTALL_POSTGRES),
                &["-D", &data, "-p", &port, "-h", "127.0.0.1", "-k", &self.path(""), "-c", &connections],
            ),
            Kind::Mariadb => (
                PathBuf::from("mariadbd"),
                vec![
                    "--no-defaults".to_owned(),
                    format!("--user={}", if is_root() { "root".to_owned() } else { who() }),
                    format!("--datadir={data}"),
                    format!("--port={port}"),
                    "--bind-address=127.0.0.1".to_owned(),
                    format!("--tmpdir={}", self.path("")),
                    format!("--socket={}", self.path("sock")),
                    format!("--pid-file={}", self.path("pid")),
                    format!("--{connections}"),
                ],
            ),
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.server = Some(Server::start(&Plan {
            program: &program,
            arguments: &arguments,
            environment: &[],
            directory: self.directory.path(),
            log: &self.directory.path().join("output"),
            goodbye: "KILL",
            after: if self.kind == Kind::Postgres { ORPHANS } else { "" },
        }));
    }

    /// The server's process.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").pid()
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        let url = self.url(self.kind.admin_database());
        wait_until("the database answers", Duration::from_secs(60), || async { Session::connect(&url).await.is_ok() })
            .await;
    }

    /// Kills the server without warning.
    pub fn kill(&mut self) {
        drop(self.server.take().expect("it runs"));
    }

    /// What the server says of its version, without the vendor's remarks.
    ///
    /// # Panics
    /// Where it does not answer.
    pub async fn version(&self) -> String {
        let mut session = Session::connect(&self.url(self.kind.admin_database())).await.expect("the server answers");
        let setting = match self.kind {
            Kind::Postgres => "select current_setting('server_version')",
            Kind::Mariadb => "select version()",
        };
        let version = session.texts(setting).await.expect("the server knows its version").pop();
        version.unwrap_or_default().split([' ', '-']).next().unwrap_or_default().to_owned()
    }

    /// Asks the server to end, and waits until it has.
    pub async fn end(&mut self) {
        let server = self.server.take().expect("it runs");
        // PostgreSQL would wait for its clients at TERM.
        server.signal(if self.kind == Kind::Postgres { "INT" } else { "TERM" });
        wait_until("the database has ended", Duration::from_secs(60), async || !server.runs()).await;
    }

    /// Makes a database that no test has used; its address.
    pub async fn fresh_url(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        execute(&self.url(self.kind.admin_database()), &format!("create database {name}")).await;
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        match self.kind {
            Kind::Postgres => format!("postgres://postgres@127.0.0.1:{}/{database}", self.port),
            Kind::Mariadb => format!("mysql://root@127.0.0.1:{}/{database}", self.port),
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("temporary paths are text").to_owned()
    }
}

impl Kind {
    /// Whether it can be started here.
    #[must_use]
    pub fn is_installed(self) -> bool {
        match self {
            Self::Postgres => find_tool("/usr/lib/postgresql", "bin/postgres").is_some(),
            Self::Mariadb => Command::new("mariadbd").arg("--version").output().is_ok(),
        }
    }

    const fn admin_database(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mariadb => "mysql",
        }
    }
}

/// A session of one's own, to do what no store does.
#[derive(Debug)]
pub enum Session {
    /// On PostgreSQL.
    Postgres(PgConnection),
    /// On MySQL or MariaDB.
    Mysql(MySqlConnection),
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// The driver's.
    pub async fn connect(url: &str) -> sqlx::Result<Self> {
        Ok(match url.starts_with("mysql:") {
            true => Self::Mysql(MySqlConnection::connect(url).await?),
            false => Self::Postgres(PgConnection::connect(url).await?),
        })
    }

    /// Runs statements.
    ///
    /// # Errors
    /// The driver's.
    pub async fn run(&mut self, statements: &str) -> sqlx::Result<()> {
        let statements = raw_sql(AssertSqlSafe(statements.to_owned()));
        match self {
            Self::Postgres(connection) => statements.execute(connection).await.map(drop),
            Self::Mysql(connection) => statements.execute(connection).await.map(drop),
        }
    }

    /// The only column of a query, as text.
    ///
    /// # Errors
    /// The driver's.
    pub async fn texts(&mut self, query: &str) -> sqlx::Result<Vec<String>> {
        let query = AssertSqlSafe(query.to_owned());
        match self {
            Self::Postgres(connection) => query_scalar(query).fetch_all(connection).await,
            Self::Mysql(connection) => query_scalar(query).fetch_all(connection).await,
        }
    }
}

/// Runs statements on a database, as an administrator would.
pub async fn execute(url: &str, statements: &str) {
    let mut session = Session::connect(url).await.expect("the database can be reached");
    session.run(statements).await.expect("the statements are right");
}

const INSTALL_POSTGRES: &str = "PostgreSQL is missing: apt-get install --no-install-recommends postgresql";
const INSTALL_MARIADB: &str = "MariaDB is missing: apt-get install --no-install-recommends mariadb-server";

/// PostgreSQL refuses to run as root.
fn postgres(program: &Path, arguments: &[&str]) -> (PathBuf, Vec<String>) {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned());
    if !is_root() {
        return (program.to_owned(), arguments.collect());
    }
    let program = program.to_str().expect("paths of programs are text").to_owned();
    // Unlike runuser it stays no process of its own: the server must be the one that is waited for.
    let user = ["--reuid=postgres", "--regid=postgres", "--init-groups", "--"].map(str::to_owned);
    (PathBuf::from("setpriv"), user.into_iter().chain([program]).chain(arguments).collect())
}

fn run(command: &mut Command, install: &str) {
    let output = command.output().expect(install);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program below a folder that is named after its version.
fn tool(folder: &str, name: &str, install: &str) -> PathBuf {
    find_tool(folder, name).expect(install)
}

fn find_tool(folder: &str, name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(folder).ok()?;
    versions.flatten().map(|version| version.path().join(name)).find(|path| path.exists())
}

fn is_root() -> bool {
    who() == "root"
}

fn who() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
