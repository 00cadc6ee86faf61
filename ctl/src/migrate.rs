//! `wxpayctl migrate`: shows and makes the tables of a SQL store.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use wxpay_shared::{
    config::{self, Config},
    store::{open, sql::migrate::Step},
};

use crate::{
    cli::Verdict,
    screen::{Grid, Screen},
};

/// `wxpayctl migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wxpayctl migrate              what the database of store.url has, and what it lacks
  wxpayctl migrate --apply      makes what it lacks

It needs a user that may create tables; the worker's may do without. Make a backup before you apply to a database that
holds records. The exit code is 1 while something is missing.")]
pub(crate) struct Args {
    /// The configuration; wxpay.toml, where that exists, unless given.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Runs the migrations that are missing.
    #[arg(long)]
    apply: bool,
}

#[derive(Serialize)]
struct View {
    version: i64,
    name: &'static str,
    applied: bool,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let config = Config::load(args.config.as_deref(), config::environment()?)?;
    let url = config.store_url()?;
    let steps = open::migrate(&url, args.apply).await?;
    let missing = steps.iter().any(|step| !step.applied);
    if screen.is_json() {
        let view = |step: &Step| View { version: step.version, name: step.name, applied: step.applied };
        screen.json(&steps.iter().map(view).collect::<Vec<_>>())?;
        return Ok(Verdict::found_if(missing));
    }
    let mut grid = Grid::new(["version", "what it makes", "the database"]).right(0);
    for step in &steps {
        let state = if step.applied { "has it" } else { "lacks it: `wxpayctl migrate --apply`" };
        grid.row([step.version.to_string(), step.name.to_owned(), state.to_owned()]);
    }
    screen.table(grid)?;
    Ok(Verdict::found_if(missing))
}
