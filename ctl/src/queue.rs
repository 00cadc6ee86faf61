//! `wxpayctl queue`: how many messages are where.

use anyhow::Result;
use wxpay_shared::queue::ShardDepth;

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
    let mut grid = Grid::new(["messages", "where"]).right(0);
    grid.row([
        depths.notify.to_string(),
        "waiting for a worker (on RabbitMQ of up to 16 notifications each)".to_owned(),
    ]);
    for ShardDepth { queue, waiting, workers } in depths.shards.iter().filter(|_| depths.shards.len() > 1) {
        let takers = if *workers == 0 { "NO worker takes them".to_owned() } else { format!("workers: {workers}") };
        grid.row([waiting.to_string(), format!("  of these in {queue}; {takers}")]);
    }
    grid.row([depths.retry.to_string(), "waiting in the retry tiers".to_owned()]);
    grid.row([depths.dead.to_string(), "dead letters: `wxpayctl dlq list` says why".to_owned()]);
    screen.table(grid)?;
    Ok(Verdict::Fine)
}
