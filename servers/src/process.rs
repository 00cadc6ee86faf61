//! Server processes that do not outlive whoever started them.
//!
//! A destructor is not enough: a test binary may be killed, and shared servers live in statics, which are never dropped.
//! So each server is the child of a small shell that waits for the end of its standard input. The write end of that pipe
//! is held by this process alone, and the kernel closes it whatever ends this process.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    ops::Range,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

/// Server and watchdog each lead a group of their own, so an interrupt from the keyboard reaches neither, and the
/// server's own children end with it. The pid is said by the server's side, so its group exists once it is known.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
setsid sh -c 'echo $$; exec "$@" </dev/null >"$WATCHDOG_LOG" 2>&1' server "$@" &
pid=$!
word=$(cat)
(sleep 5; kill -KILL -$pid) >/dev/null 2>&1 &
last=$!
kill -$WATCHDOG_GOODBYE $pid
wait $pid
kill -KILL -$pid
kill $last
eval "$WATCHDOG_AFTER"
[ "$word" = keep ] || rm -rf "$WATCHDOG_DIRECTORY"
"#;

/// How a server is started and ended.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What to run.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// Variables beside those of this process.
    pub environment: &'a [(String, String)],
    /// Its data. Removed when this process ends; a [`Server`] that is dropped leaves it to its owner.
    pub directory: &'a Path,
    /// The file for what it prints.
    pub log: &'a Path,
    /// The signal that ends it. After five seconds its whole group is killed.
    pub goodbye: &'a str,
    /// A line of shell that ends what it left behind.
    pub after: &'a str,
}

/// A running server. Ends when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Server {
    watchdog: Child,
    input: Option<ChildStdin>,
    group: u32,
}

impl Server {
    /// Starts it. Its log is there, and empty, from now on.
    ///
    /// # Panics
    /// Where there is no shell, or the log cannot be written.
    pub fn start(plan: &Plan<'_>) -> Self {
        File::create(plan.log).expect("the log can be written");
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(plan.program)
            .args(plan.arguments)
            .envs(plan.environment.iter().map(|(name, value)| (name, value)))
            .env("WATCHDOG_DIRECTORY", plan.directory)
            .env("WATCHDOG_LOG", plan.log)
            .env("WATCHDOG_GOODBYE", plan.goodbye)
            .env("WATCHDOG_AFTER", plan.after)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let input = watchdog.stdin.take();
        let mut pid = String::new();
        let output = watchdog.stdout.take().expect("the output is piped");
        BufReader::new(output).read_line(&mut pid).expect("the watchdog says the pid");
        Self { watchdog, input, group: pid.trim().parse().expect("the watchdog says a number") }
    }

    /// The process that was started. Its children end with it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.group
    }

    /// Makes the server and all its children fall silent. A busy machine may let their threads run on for a while, so this
    /// returns when each stands still.
    ///
    /// # Panics
    /// Where it has ended, or some thread has not stopped after ten seconds.
    pub fn freeze(&self) {
        self.signal("STOP");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !stands_still(self.group) {
            assert!(Instant::now() < deadline, "process group {} does not stop", self.group);
            std::thread::yield_now();
        }
    }

    /// Wakes what [`Server::freeze`] has stopped.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends a signal to the server and all its children.
    ///
    /// # Panics
    /// Where it has ended.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}").as_str(), "--", &format!("-{}", self.group)]).status();
        assert!(status.expect("kill runs").success(), "no process group {}", self.group);
    }
}

impl Server {
    /// Whether the server itself has not ended yet; the watchdog reaps it only later.
    pub fn runs(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.group)).unwrap_or_default();
        status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut input) = self.input.take() {
            // If the watchdog is gone there is nobody to tell.
            input.write_all(b"keep").unwrap_or_default();
        }
        self.watchdog.wait().expect("the watchdog is our child");
    }
}

/// Whether each thread of the group has stopped. An empty group is one that has ended, and no server that stands still.
fn stands_still(group: u32) -> bool {
    let group = group.to_string();
    // What ends between two looks has no state; neither has what is none of our processes.
    let fields = |path: &Path| -> Vec<String> {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut threads = entries(Path::new("/proc"))
        .filter(|process| fields(process).get(2) == Some(&group))
        .flat_map(|process| entries(&process.join("task")).collect::<Vec<_>>())
        .peekable();
    let stopped =
        |thread: PathBuf| fields(&thread).first().is_none_or(|state| matches!(state.as_str(), "T" | "Z" | "X"));
    threads.peek().is_some() && threads.all(stopped)
}

/// Lets this process and its children open as many files as it may: by default it is a thousand or so.
///
/// # Panics
/// Where `prlimit` cannot.
pub fn raise_file_limit() {
    let pid = std::process::id().to_string();
    let limit = Command::new("prlimit").args(["--pid", &pid, "--nofile", "--output", "HARD", "--noheadings"]).output();
    let limit = String::from_utf8_lossy(&limit.expect("prlimit runs").stdout).trim().to_owned();
    let raised = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:{limit}")]).status();
    assert!(raised.is_ok_and(|status| status.success()), "prlimit may raise the limit up to {limit}");
}

/// A port that was free a moment ago. Below those that the system gives to clients, so that it stays free while a server
/// is away; and each in its turn, so that two servers of one process are never given the same.
///
/// # Panics
/// Where the loopback has none.
#[must_use]
pub fn free_port() -> u16 {
    const PORTS: Range<u16> = 12_000..32_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(PORTS)));
    let next = |port| Some(if port + 1 < PORTS.end { port + 1 } else { PORTS.start });
    let take = || NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(PORTS.start);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = std::iter::repeat_with(take).take(PORTS.len());
    ports.find(free).expect("the loopback has free ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_server_stands_still_and_another_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(&Plan {
            program: Path::new("sleep"),
            arguments: &["60"],
            environment: &[],
            directory: directory.path(),
            log: &directory.path().join("log"),
            goodbye: "KILL",
            after: "",
        });
        assert!(!stands_still(server.pid()));
        server.freeze();
        assert!(stands_still(server.pid()));
        server.thaw();
        assert!(!stands_still(u32::MAX), "there is no such group");
    }
}
