//! The command line: which commands there are, and what their exit codes mean.

use std::{fmt, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use wxpay_shared::{config::ConfigError, runtime::EXIT_CONFIG};

use crate::{
    bench, client::Refused, config_check, demo, dlq, healthcheck, migrate, orders, points, queue, refunds,
    screen::Screen, serve, simulate, verify,
};

/// It could not be done (and clap's own code for wrong arguments).
const EXIT_FAILED: u8 = 2;

/// Everything a person does with wxpay-notify.
#[derive(Debug, Parser)]
#[command(
    name = "wxpayctl",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  wxpayctl demo                              see the whole job on your own machine
  wxpayctl serve                             run ingress and worker in one process
  wxpayctl orders register dev A1001 8800    before the payment
  wxpayctl orders show dev A1001             and after it
  wxpayctl dlq list                          what needs a person
  wxpayctl verify body.xml --merchant dev    why a notification is refused

Exit codes: 0 fine; 1 a negative answer (not found, a conflict, dead again); 2 it could not be done; 64 the
configuration cannot be used."
)]
pub struct Cli {
    /// Prints JSON for programs instead of tables for people.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays the main job against itself and prints what became of each payment.
    Demo(demo::Args),
    /// Runs ingress and worker in one process, with a development merchant if nothing is configured.
    Serve(serve::Args),
    /// Registers, shows and closes orders.
    Orders(orders::Args),
    /// Registers refunds.
    Refunds(refunds::Args),
    /// Shows points accounts.
    Points(points::Args),
    /// Lists, shows, replays and discards dead letters.
    Dlq(dlq::Args),
    /// Shows how many notifications are where.
    Queue(queue::Args),
    /// Plays WeChat: signs a notification and posts it.
    Simulate(simulate::Args),
    /// Says which check a saved notification fails, and why.
    Verify(verify::Args),
    /// Checks the configuration.
    Config(config_check::Args),
    /// Shows the schema of a SQL store, and makes it.
    Migrate(migrate::Args),
    /// Asks ingress or worker whether it is ready: for container engines.
    Healthcheck(healthcheck::Args),
    /// Measures what this machine can accept and apply in a second.
    Bench(bench::Args),
}

/// How a command ended that could be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit code 0.
    Fine,
    /// Exit code 1: what was asked has a negative answer.
    Found,
}

impl Verdict {
    /// [`Verdict::Found`] where that is so.
    #[must_use]
    pub fn found_if(found: bool) -> Self {
        if found { Self::Found } else { Self::Fine }
    }
}

/// Why a command ended before its end. The JSON document that it printed says so as well.
#[derive(Debug)]
pub(crate) struct EndedEarly(pub(crate) String);

impl fmt::Display for EndedEarly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EndedEarly {}

impl Cli {
    /// The log filter that suits the command.
    #[must_use]
    pub fn log_filter(&self) -> &'static str {
        match self.command {
            Command::Serve(_) => "info",
            // Its story is its log: refusals and dead letters are on purpose.
            // The benchmark's own connections come and go.
            Command::Demo(_) | Command::Bench(_) => "off",
            Command::Orders(_)
            | Command::Refunds(_)
            | Command::Points(_)
            | Command::Dlq(_)
            | Command::Queue(_)
            | Command::Simulate(_)
            | Command::Verify(_)
            | Command::Config(_)
            | Command::Migrate(_)
            | Command::Healthcheck(_) => "warn",
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Where it could not be done; [`exit_code`] says what that means.
pub async fn run(cli: Cli, screen: &mut Screen<'_>) -> Result<Verdict> {
    match cli.command {
        Command::Demo(args) => demo::run(args, screen).await,
        Command::Serve(args) => serve::run(args, screen).await,
        Command::Orders(args) => orders::run(args, screen).await,
        Command::Refunds(args) => refunds::run(args, screen).await,
        Command::Points(args) => points::run(args, screen).await,
        Command::Dlq(args) => dlq::run(args, screen).await,
        Command::Queue(args) => queue::run(args, screen).await,
        Command::Simulate(args) => simulate::run(args, screen).await,
        Command::Verify(args) => verify::run(args, screen),
        Command::Config(args) => config_check::run(args, screen).await,
        Command::Migrate(args) => migrate::run(args, screen).await,
        Command::Healthcheck(args) => healthcheck::run(args, screen).await,
        Command::Bench(args) => bench::run(args, screen).await,
    }
}

/// The exit code of a command's end. An error is one line on standard error, and with `--json` also a document, unless the
/// command's own document says it.
#[must_use]
pub fn exit_code(result: Result<Verdict>, screen: &mut Screen<'_>) -> ExitCode {
    let error = match result {
        Ok(Verdict::Fine) => return ExitCode::SUCCESS,
        Ok(Verdict::Found) => return ExitCode::FAILURE,
        Err(error) => error,
    };
    // Whoever closed the pipe has seen enough.
    if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("{error:#}");
    if screen.is_json()
        && !error.is::<EndedEarly>()
        && let Err(error) = screen.json(&wxpay_shared::admin::Problem { error: format!("{error:#}") })
    {
        eprintln!("{error:#}");
    }
    if error.is::<Refused>() {
        ExitCode::FAILURE
    } else if error.is::<ConfigError>() {
        ExitCode::from(EXIT_CONFIG)
    } else {
        ExitCode::from(EXIT_FAILED)
    }
}

#[cfg(test)]
mod tests;
