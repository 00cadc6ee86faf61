//! `wxpayctl demo`: the main job, played on the spot, with every promise checked.
//!
//! Both programs run in this process on a temporary directory and ports of their own; WeChat is played over real
//! sockets. The acts are a list ([`acts`]); the stage plays any of them, so a new one is a new entry.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::json;
use wxpay_shared::config::Config;

use crate::{
    cli::Verdict,
    dev_merchant,
    screen::{Grid, Screen, count, yuan},
    together::Together,
};

mod act;
mod acts;
mod stage;

use act::{Act, Seen};
use stage::Stage;

/// Ports of their own, and retry tiers that end within the patience of a spectator.
const SETTINGS: [(&str, &str); 5] = [
    ("WXPAY__INGRESS__LISTEN", "127.0.0.1:0"),
    ("WXPAY__INGRESS__OPS_LISTEN", "127.0.0.1:0"),
    ("WXPAY__WORKER__ADMIN_LISTEN", "127.0.0.1:0"),
    ("WXPAY__QUEUE__RETRY_DELAYS", "[50ms, 100ms]"),
    ("WXPAY__WORKER__MAX_ATTEMPTS", "3"),
];

/// `wxpayctl demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs no configuration, no server and no network, and leaves nothing behind. The exit code is 1 where something did not
end as promised.")]
pub(crate) struct Args {}

/// An act that was played.
struct Played {
    act: Act,
    /// What WeChat was told, in short.
    replies: String,
    seen: Seen,
    /// What did not go as the act expects.
    failures: Vec<String>,
}

pub(crate) async fn run(Args {}: Args, screen: &mut Screen<'_>) -> Result<Verdict> {
    let begun = Instant::now();
    let directory = tempfile::Builder::new().prefix("wxpay-demo-").tempdir().context("no temporary directory")?;
    let (file, _) = dev_merchant::ensure(directory.path())?;
    let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::load(Some(&file), settings)?;
    let together = Together::start(&config, directory.path()).await?;
    let stage = Stage::new(&config, &together)?;

    if !screen.is_json() {
        screen.line(format_args!(
            "ingress and worker run in this process, with queue, orders and points in {}.\nWeChat is played against \
             http://{}/v2/dev, and at /v3/dev by APIv3.\n",
            directory.path().display(),
            together.ingress
        ))?;
    }
    let played = play(&stage, screen).await;
    together.stop().await?;
    let (played, failures) = played?;
    let milliseconds = begun.elapsed().as_millis();
    if screen.is_json() {
        report_json(screen, &played, &failures)?;
    } else {
        report(screen, &played)?;
        conclude(screen, &played, &failures, milliseconds)?;
    }
    Ok(Verdict::found_if(!failures.is_empty()))
}

/// Plays every act, lets everything come to rest, and looks at all of them once more.
async fn play(stage: &Stage, screen: &mut Screen<'_>) -> Result<(Vec<Played>, Vec<String>)> {
    let mut played = Vec::new();
    for (index, act) in acts::all().into_iter().enumerate() {
        if !screen.is_json() {
            screen.line(format_args!("{:2}  {}", index + 1, act.story))?;
        }
        played.push(stage.play(act).await?);
    }
    let mut failures = Vec::new();
    failures.extend(stage.come_to_rest().await?);
    let mut points = 0;
    for Played { act, seen, failures: of_act, .. } in &mut played {
        points += act.expect.points;
        // A repeat that came late must not have changed anything.
        *seen = stage.look(act).await?;
        of_act.extend(act.expect.differences(seen));
        of_act.dedup();
        failures.extend(of_act.iter().map(|failure| format!("{}: {failure}", act.order)));
    }
    failures.extend(stage.wrong_balance(points).await?);
    Ok((played, failures))
}

fn report(screen: &mut Screen<'_>, played: &[Played]) -> Result<()> {
    screen.line("\nWhat became of each, with amounts in yuan:\n")?;
    let mut grid =
        Grid::new(["order", "reply to WeChat", "order is", "received", "points", "dead letter"]).right(3).right(4);
    for Played { act, replies, seen, failures } in played {
        let mark = if failures.is_empty() { "" } else { "✗ " };
        grid.row([
            format!("{mark}{}", act.order),
            replies.clone(),
            seen.state_name(),
            yuan(seen.received),
            seen.points.to_string(),
            seen.dead.iter().map(|rejection| rejection.reason.to_string()).collect::<Vec<_>>().join("\n"),
        ]);
    }
    screen.table(grid)?;
    screen.line("\nThe dead letters, as `wxpayctl dlq list` would tell a developer:\n")?;
    for rejection in played.iter().flat_map(|played| &played.seen.dead) {
        screen.line(format_args!("  {rejection}"))?;
    }
    Ok(())
}

fn conclude(screen: &mut Screen<'_>, played: &[Played], failures: &[String], milliseconds: u128) -> Result<()> {
    let (seconds, tenths) = (milliseconds / 1000, milliseconds % 1000 / 100);
    if failures.is_empty() {
        let points: i64 = played.iter().map(|played| played.seen.points).sum();
        return screen.line(format_args!(
            "\nAll {} ended as promised, in {seconds}.{tenths} s: each payment took effect once, {} has {points} points, \
             and nothing is on its way.\nNext: `wxpayctl serve` keeps serving, and says what to try.",
            count(played.len(), "act"),
            stage::USER
        ));
    }
    screen.line(format_args!("\nNot as promised, after {seconds}.{tenths} s:"))?;
    failures.iter().try_for_each(|failure| screen.line(format_args!("  {failure}")))
}

fn report_json(screen: &mut Screen<'_>, played: &[Played], failures: &[String]) -> Result<()> {
    let acts: Vec<_> = played
        .iter()
        .map(|Played { act, replies, seen, failures }| {
            json!({
                "order": act.order, "story": act.story, "replies": replies, "state": seen.state,
                "received": seen.received, "points": seen.points, "dead_letters": seen.dead, "failures": failures,
            })
        })
        .collect();
    screen.json(&json!({ "acts": acts, "failures": failures }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_act_ends_as_promised() {
        let mut out = Vec::new();
        let verdict = run(Args {}, &mut Screen::new(&mut out, None, false)).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(verdict, Verdict::Fine, "{out}");
        for line in [
            "DEMO-five-times     5 × SUCCESS         paid",
            "DEMO-tampered       FAIL                unpaid",
            "DEMO-v3-probe       401, 204            paid",
        ] {
            assert!(out.contains(line), "{line}\n{out}");
        }
        assert!(out.lines().skip(4).all(|line| line.chars().count() <= 120), "{out}");
        let table =
            out.lines().skip_while(|line| !line.contains("reply to WeChat")).take_while(|line| !line.is_empty());
        assert!(table.clone().count() > 10 && table.clone().all(|line| line.chars().count() <= 100), "{out}");
    }
}
