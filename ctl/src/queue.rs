//! `wxpayctl queue`: how many notifications are where.

use anyhow::Result;

use crate::{
    cli::Verdict,
    client::AdminArgs,
    screen::{Grid, Screen},
};

/// `wxpayctl queue`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
}

pub(crate) async fn run(args: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let depths = args.admin.client()?.depths().await?;
    if screen.is_json() {
        screen.json(&depths)?;
        return Ok(Verdict::Fine);
    }
    let mut grid = Grid::new(["notifications", "where"]).right(0);
    grid.row([depths.notify.to_string(), "waiting for a worker".to_owned()]);
    grid.row([depths.retry.to_string(), "waiting in the retry tiers".to_owned()]);
    grid.row([depths.dead.to_string(), "dead letters: `wxpayctl dlq list` says why".to_owned()]);
    screen.table(grid)?;
    Ok(Verdict::Fine)
}
