//! What every `main` does: logging, signals, exit codes.

use std::{ffi::OsString, num::NonZero, process::ExitCode, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{config::ConfigError, http::CONNECTIONS_MAX, metric, trace, wechat::self_test};

/// From SIGTERM to the end of the process, at most.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(15);
/// Of that, the time in which what is in hand may finish.
pub const FINISH_BUDGET: Duration = Duration::from_secs(10);
/// Then, the time to take leave of the broker.
const FAREWELL_BUDGET: Duration = Duration::from_secs(2);
/// What the end of the process itself may take: a thread that waits for a busy disk goes no sooner than the disk answers.
const EXIT_MARGIN: Duration = Duration::from_secs(2);
/// Open files at a time: [`CONNECTIONS_MAX`] at each of two listeners at most.
const OPEN_FILES: u64 = 2 * CONNECTIONS_MAX as u64;
/// A configuration that cannot be used (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;
/// The environment variable with the log filter, such as `info,wxpay_worker=debug`.
pub const LOG_FILTER: &str = "WXPAY_LOG";
/// The environment variable with the log format: `text` or `json`.
pub const LOG_FORMAT: &str = "WXPAY_LOG_FORMAT";

/// What libraries may log at most, whatever the filter says: below these levels they print messages with their bodies.
/// Whether a channel was closed for a reason is ours to say: looking for queues that other programs made ends in such a close.
/// Parameters of an address that a driver does not know may hold a password.
const QUIET: [(&str, LevelFilter); 7] = [
    ("lapin", LevelFilter::ERROR),
    ("lapin::channel", LevelFilter::OFF),
    ("lapin::channels", LevelFilter::ERROR),
    ("amq_protocol", LevelFilter::ERROR),
    ("sled", LevelFilter::WARN),
    ("sqlx_mysql::options", LevelFilter::OFF),
    ("sqlx_postgres::options", LevelFilter::OFF),
];

/// Starts logging to standard error. A setting of it that cannot be used is told and stands back for the default.
pub fn init_logging(default_filter: &str) {
    let Logging { filter, json, unusable } = Logging::of(default_filter, |name| std::env::var_os(name));
    let quiet = quiet(&filter);
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let subscriber = tracing_subscriber::registry().with(filter).with(quiet);
    if json {
        subscriber.with(lines.json()).init();
    } else {
        subscriber.with(lines).init();
    }
    for setting in unusable {
        tracing::warn!(setting, "cannot be used; the log is as if it were not set");
    }
}

/// What the environment says of the log.
struct Logging {
    filter: EnvFilter,
    json: bool,
    /// The settings that cannot be used, by name.
    unusable: Vec<&'static str>,
}

impl Logging {
    fn of(default_filter: &str, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let filter = chosen(variable(LOG_FILTER), |text| EnvFilter::try_new(text).ok());
        let json = chosen(variable(LOG_FORMAT), is_json);
        let results = [(LOG_FILTER, filter.is_err()), (LOG_FORMAT, json.is_err())];
        Self {
            filter: filter.ok().flatten().unwrap_or_else(|| EnvFilter::new(default_filter)),
            json: json.ok().flatten().unwrap_or(false),
            unusable: results.into_iter().filter(|(_, unusable)| *unusable).map(|(name, _)| name).collect(),
        }
    }
}

/// A value that cannot be used.
struct Unusable;

/// What was written for a setting; an empty value is none.
fn chosen<T>(written: Option<OsString>, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Unusable> {
    match written.filter(|text| !text.is_empty()) {
        Some(text) => text.to_str().and_then(read).map(Some).ok_or(Unusable),
        None => Ok(None),
    }
}

fn is_json(format: &str) -> Option<bool> {
    match format.to_ascii_lowercase().as_str() {
        "json" => Some(true),
        "text" => Some(false),
        _ => None,
    }
}

/// A filter of its own, since a directive more would switch on what "off" switched off. It asks for no more than the other
/// lets through: else each `trace!` of a library, of which sled has many, would be made only to be thrown away.
fn quiet(filter: &EnvFilter) -> Targets {
    let most = filter.max_level_hint().unwrap_or(LevelFilter::TRACE);
    Targets::new().with_default(most).with_targets(QUIET)
}

/// What every program does before anything else, in its runtime: starts logging and counting, and proves its cryptography.
///
/// # Errors
/// Where an algorithm computes something else than its known answer: the program must not go on.
pub fn start(default_filter: &str) -> anyhow::Result<()> {
    init_logging(default_filter);
    open_more_files();
    metric::init();
    tokio::spawn(metric::upkeep());
    self_test::self_test().map_err(|algorithm| anyhow::anyhow!("the cryptography is broken: {algorithm}"))
}

/// A connection is an open file, and the limit that a shell or a container sets is often 1,024. A program may raise it as far as
/// the system allows.
fn open_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if limit.current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
    {
        tracing::warn!(%error, "cannot have more files open at a time; connections beyond the limit will wait");
    }
}

/// The runtime of a program whose work is to hand messages to the broker. lapin reads and writes on a thread of its own,
/// for which one core stays: with a thread more than that they wake and push one another (docs/benchmarks.md has figures).
/// tokio's `TOKIO_WORKER_THREADS` says otherwise.
///
/// # Panics
/// Where the system gives no threads.
#[must_use]
pub fn beside_the_broker() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        builder.worker_threads((cores - 1).max(1));
    }
    builder.enable_all().build().expect("the system gives threads")
}

/// The whole of a `main`: starts, runs the program, and turns its end into an exit code.
pub async fn run(default_filter: &str, program: impl AsyncFnOnce() -> anyhow::Result<()>) -> ExitCode {
    let result = match start(default_filter) {
        Ok(()) => program().await,
        Err(error) => Err(error),
    };
    trace::end().await;
    exit_code(result)
}

/// A token that fires at SIGTERM or SIGINT. From then on the process has [`SHUTDOWN_GRACE`]; whatever still hangs after
/// it (a frozen broker, a client that does not go) is left behind, since nothing that was promised depends on a farewell.
///
/// # Errors
/// Where the process may not listen for signals.
pub fn shutdown_token() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    // A runtime of its own: in one that is flooded with work, the signal and the deadline would wait their turn.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let token = CancellationToken::new();
    let fire = token.clone();
    let watch = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        fire.cancel();
        tokio::time::sleep(SHUTDOWN_GRACE.saturating_sub(EXIT_MARGIN)).await;
        tracing::error!("something did not end in time; ending without it");
        std::process::exit(1);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watch))?;
    Ok(token)
}

/// Closes connections to the broker. One that stays silent finds out by itself that they are gone.
pub async fn farewell(closing: impl Future<Output = ()>) {
    if timeout(FAREWELL_BUDGET, closing).await.is_err() {
        tracing::warn!("the broker did not hear the farewell");
    }
}

/// Ends a program: a configuration error is one line and exit code 64, any other error exit code 1.
#[must_use]
pub fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            if error.is::<ConfigError>() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::Registry;

    use super::*;

    #[test]
    fn a_log_setting_that_cannot_be_used_is_named_and_an_empty_one_is_none() {
        use std::os::unix::ffi::OsStringExt as _;
        let none: [&str; 0] = [];
        for (filter, format, most, json, unusable) in [
            (None, None, LevelFilter::INFO, false, none.as_slice()),
            (Some("".into()), Some("".into()), LevelFilter::INFO, false, &none),
            (Some("debug".into()), Some("JSON".into()), LevelFilter::DEBUG, true, &none),
            (Some("debug".into()), Some("Text".into()), LevelFilter::DEBUG, false, &none),
            (Some("a=loud".into()), Some("json".into()), LevelFilter::INFO, true, &[LOG_FILTER]),
            (Some("warn".into()), Some("yaml".into()), LevelFilter::WARN, false, &[LOG_FORMAT]),
            (
                Some(OsString::from_vec(vec![0xff])),
                Some("x".into()),
                LevelFilter::INFO,
                false,
                &[LOG_FILTER, LOG_FORMAT],
            ),
        ] {
            let logging = Logging::of("info", |name| if name == LOG_FILTER { filter.clone() } else { format.clone() });
            let got = (logging.filter.max_level_hint(), logging.json, logging.unusable.as_slice());
            assert_eq!(got, (Some(most), json, unusable), "{filter:?} {format:?}");
        }
    }

    #[test]
    fn no_library_makes_what_the_filter_throws_away() {
        for (wanted, most) in
            [("info", LevelFilter::INFO), ("off", LevelFilter::WARN), ("warn,sled=trace", LevelFilter::TRACE)]
        {
            let filter = EnvFilter::new(wanted);
            let quiet = quiet(&filter);
            let subscriber = Registry::default().with(filter).with(quiet);
            assert_eq!(tracing::Subscriber::max_level_hint(&subscriber), Some(most), "{wanted}");
        }
    }
}
