//! Accepted notifications a second on a quorum queue, against a bare publisher of the same messages at the same depth.

use anyhow::Result;
use wxpay_shared::envelope::{Api, Message};

use super::{
    super::{
        Progress, broker, process,
        report::{Figure, Target},
        stage::Stage,
        summary::Samples,
    },
    MESSAGES, accept, broker_cpu, broker_pid, costs, micros,
};

/// Connections, and the least ratio to the bare publisher in thousandths.
const DEPTHS: [(usize, u64); 2] = [(64, 750), (512, 650)];
const V3_TO_V2: u64 = 600;

pub(crate) async fn measure(stage: &Stage, progress: &Progress) -> Result<Vec<Figure>> {
    let ingress = stage.ingress().await?;
    let orders = stage.orders(MESSAGES);
    let messages: Vec<_> = orders.numbers.clone().map(|number| stage.play.message(&orders, number)).collect();
    let mut rows: Vec<_> =
        DEPTHS.iter().map(|_| (Samples::default(), Samples::default(), [String::new(), String::new()])).collect();
    let (mut v2, mut v3, mut v3_note) = (Samples::default(), Samples::default(), String::new());
    for _ in 0..stage.effort.repetitions {
        for ((depth, _), (accepted, bare, notes)) in DEPTHS.iter().zip(&mut rows) {
            progress.step(&format!("bare publisher, {depth} in flight"));
            let (rate, bare_note) = publish(stage, &messages, *depth).await?;
            bare.add(rate);
            broker::purge(stage).await?;
            progress.step(&format!("ingress v2, {depth} connections"));
            let run = accept(stage, &ingress, Api::V2, *depth, None).await?;
            accepted.add(run.rate);
            *notes = [run.notes(), bare_note];
            broker::purge(stage).await?;
            if *depth == DEPTHS[0].0 {
                v2.add(run.rate);
            }
        }
        progress.step("ingress v3, 64 connections");
        let run = accept(stage, &ingress, Api::V3, DEPTHS[0].0, None).await?;
        v3.add(run.rate);
        v3_note = run.notes();
        broker::purge(stage).await?;
    }
    let body = super::requests(stage, ingress.notify_port, Api::V2)?.first().map_or(0, Vec::len);
    let mut figures = Vec::new();
    for ((depth, least), (accepted, bare, notes)) in DEPTHS.iter().zip(rows) {
        let figure = Figure::new(format!("accepted, v2, quorum queue, {depth} connections"), "/s", accepted);
        let figure = figure.against(format!("bare publisher, {depth} in flight"), &bare);
        let figure = notes.into_iter().fold(figure.target(Target::RatioAtLeast(*least)), Figure::note);
        figures.push(figure.note(format!("request {body} bytes")));
    }
    let figure = Figure::new("accepted, v3 (RSA-2048), quorum queue, 64 connections", "/s", v3);
    figures.push(figure.against("v2", &v2).target(Target::RatioAtLeast(V3_TO_V2)).note(v3_note));
    Ok(figures)
}

/// The bare publisher's rate, and what it cost.
async fn publish(stage: &Stage, messages: &[Message], depth: usize) -> Result<(u64, String)> {
    let cpu = || [process::cpu_of_self(), broker_cpu(stage)];
    let written = || broker_pid(stage).map(process::written_by_tree).unwrap_or_default();
    let (before, wrote) = (cpu(), written());
    let bare = broker::bare_publisher(stage, messages, depth, stage.effort.measured).await?;
    let [publisher, broker] = costs(before, cpu(), bare.confirmed).map(micros);
    let written = written().saturating_sub(wrote).checked_div(bare.confirmed).unwrap_or_default();
    let note =
        format!("CPU µs each: bare publisher {publisher}, broker {broker}; the broker writes {written} bytes each");
    Ok((bare.rate, note))
}
