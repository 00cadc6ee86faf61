//! `make soak`: faults at random on RabbitMQ and a store, from a seeded schedule, for as long as one likes, and what was
//! survived as a table. `make scale`: very many notifications through one, two and four workers, and the same tables.
//!
//! Ends with an error where a promise was broken.

#[expect(dead_code, reason = "the tests use more of the harness than this program")]
mod harness;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{create_dir_all, write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use harness::{
    database::Kind,
    faults::Fault,
    rig::{Home, Own, Report, Rig},
    scale,
    schedule::Schedule,
};

/// Breaks a pair on purpose, under load, and audits what is left.
#[derive(Parser)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// What decides which fault comes when: the same seed, the same schedule.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = Store::Postgres)]
    store: Store,
    /// Where the table is written, as Markdown.
    #[arg(long, default_value = "target/soak.md")]
    output: PathBuf,
    /// The scale check instead: so many notifications through 1, 2 and 4 workers.
    #[arg(long, value_name = "NOTIFICATIONS")]
    scale: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Store {
    Postgres,
    Mariadb,
    /// sled, in the worker's directory.
    Sled,
    /// The same in one process, with the embedded queue.
    Embedded,
}

impl Store {
    const fn home(self) -> Home {
        match self {
            Self::Postgres => Home::Sql(Kind::Postgres),
            Self::Mariadb => Home::Sql(Kind::Mariadb),
            Self::Sled => Home::Sled,
            Self::Embedded => Home::Together,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (table, violations) = match arguments.scale {
        Some(notifications) => scale_check(arguments.seed, notifications).await,
        None => soak(&arguments).await,
    };
    say(&format!("\n{table}"));
    let directory = arguments.output.parent().unwrap_or(Path::new(""));
    if let Err(error) = create_dir_all(directory).and_then(|()| write(&arguments.output, &table)) {
        say(&format!("cannot write {}: {error}", arguments.output.display()));
        return ExitCode::FAILURE;
    }
    if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What happened to a kind of fault.
#[derive(Default)]
struct Survived {
    times: u32,
    recoveries: Vec<Duration>,
}

async fn soak(arguments: &Arguments) -> (String, usize) {
    let home = arguments.store.home();
    let mut rig = Rig::start(home, Own { broker: true, store: true }, 1, arguments.seed).await;
    let started = Instant::now();
    let end = started + Duration::from_secs(arguments.minutes * 60);
    let mut survived: BTreeMap<Fault, Survived> = BTreeMap::new();
    let mut violations = Vec::new();
    let mut schedule = Schedule::new(arguments.seed, home);
    while Instant::now() < end {
        let fault = schedule.next();
        rig.register_ahead().await;
        rig.flowing().await;
        say(&format!("{:>5} s  {fault}", started.elapsed().as_secs()));
        if let Err(broken) = fault.strike(&mut rig).await {
            violations.push(format!("{fault}: {broken}"));
        }
        let took = rig.recovered().await;
        let kind = survived.entry(fault).or_default();
        kind.times += 1;
        kind.recoveries.push(took);
        let told = rig.sender.told();
        say(&format!(
            "        recovered in {} ms; {} sent, {} SUCCESS, {} late, {} violations",
            took.as_millis(),
            told.tellings.len(),
            told.successes(),
            told.late,
            violations.len(),
        ));
    }
    let report = rig.finish().await;
    violations.extend(report.violations.iter().cloned());
    (soak_table(arguments, started.elapsed(), &survived, &report, &violations), violations.len())
}

fn soak_table(
    arguments: &Arguments,
    lasted: Duration,
    survived: &BTreeMap<Fault, Survived>,
    report: &Report,
    violations: &[String],
) -> String {
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to a String cannot fail");
    let Report { told, evidence, .. } = report;
    let count: u32 = survived.values().map(|kind| kind.times).sum();
    line(format!("# A soak of {} minutes\n", lasted.as_secs() / 60));
    let store = arguments.store.to_possible_value().expect("no store is hidden");
    let (minutes, seed, store) = (arguments.minutes, arguments.seed, store.get_name());
    line(format!("`make soak MINUTES={minutes} SEED={seed} STORE={store}`\n"));
    line("| | |\n| --- | ---: |".to_owned());
    line(format!("| notifications sent | {} |", told.tellings.len()));
    line(format!("| SUCCESS replies | {} |", told.successes()));
    line(format!("| no reply within 5 s | {} |", told.late));
    line(format!("| faults | {count} |"));
    line(format!("| events recorded once each | {} |", evidence.events.len()));
    line(format!("| orders | {} |", evidence.orders.len()));
    line(format!("| ledger entries | {} |", evidence.ledger.len()));
    line(format!("| **violations** | **{}** |", violations.len()));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for dead in &evidence.dead {
        *reasons.entry(dead.reason.map_or("given up by the broker", |reason| reason.code())).or_default() += 1;
    }
    line("\n| dead letters | |\n| --- | ---: |".to_owned());
    for (reason, count) in reasons {
        line(format!("| {reason} | {count} |"));
    }
    line("\n| fault | times | recovery, median ms | longest ms |\n| --- | ---: | ---: | ---: |".to_owned());
    for (fault, kind) in survived {
        let mut millis: Vec<u128> = kind.recoveries.iter().map(Duration::as_millis).collect();
        millis.sort_unstable();
        let (median, longest) = (millis[millis.len() / 2], millis[millis.len() - 1]);
        line(format!("| {fault} | {} | {median} | {longest} |", kind.times));
    }
    for violation in violations {
        line(format!("\n- {violation}"));
    }
    text
}

async fn scale_check(seed: u64, notifications: usize) -> (String, usize) {
    let mut rows = String::new();
    let mut violations = 0;
    let mut digests = Vec::new();
    for (home, workers) in [
        (Home::Sql(Kind::Postgres), 1),
        (Home::Sql(Kind::Postgres), 2),
        (Home::Sql(Kind::Postgres), 4),
        (Home::Sql(Kind::Mariadb), 1),
        (Home::Sql(Kind::Mariadb), 2),
        (Home::Sql(Kind::Mariadb), 4),
        (Home::Sled, 1),
    ] {
        let scale::Run { report, digest, kills, told_in, settled_in } =
            scale::run(home, workers, seed, notifications).await;
        for violation in &report.violations {
            say(violation);
        }
        violations += report.violations.len();
        let row = format!(
            "| {home:?} | {workers} | {kills} | {} | {} | {} | {} | {} | {} | `{digest}` |",
            report.told.tellings.len(),
            report.evidence.events.len(),
            report.evidence.dead.len(),
            told_in.as_secs(),
            settled_in.as_secs(),
            report.violations.len(),
        );
        say(&row);
        writeln!(rows, "{row}").expect("writing to a String cannot fail");
        digests.push(digest);
    }
    if digests.iter().any(|digest| *digest != digests[0]) {
        say("the tables differ");
        violations += 1;
    }
    let head = "| store | workers | kills | notifications | events | dead letters | told in s | settled in s | violations | digest |\n\
                | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n";
    (format!("# {notifications} notifications, seed {seed}\n\n{head}{rows}"), violations)
}

#[expect(clippy::print_stdout, reason = "this program is for a person to look at")]
fn say(text: &str) {
    println!("{text}");
}
