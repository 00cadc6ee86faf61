//! What breaks and what survives: the audit, that a seed is a schedule, and each fault once, under load.

use crate::harness::{
    database::Kind,
    faults::Fault,
    rig::{Home, Own, Rig},
    schedule::Schedule,
};

mod audit;
mod under_load;

const SEED: u64 = 20_261_125;
const POSTGRES: Home = Home::Sql(Kind::Postgres);

/// A pair under load goes through these faults; afterwards every promise holds.
async fn survives(home: Home, own: Own, faults: &[Fault]) {
    let mut rig = Rig::start(home, own, 1, SEED).await;
    for fault in faults {
        rig.register_ahead().await;
        rig.flowing().await;
        fault.strike(&mut rig).await.unwrap_or_else(|broken| panic!("{home:?}, {fault}: {broken}"));
        let took = rig.recovered().await;
        eprintln!("{home:?}: recovered from {fault} in {} ms", took.as_millis());
    }
    rig.told_enough().await;
    let report = rig.finish().await;
    report.assert_clean(&format!("{home:?} after {faults:?}"));
}

#[test]
fn a_seed_is_a_schedule() {
    let schedule = |seed| {
        let mut schedule = Schedule::new(seed, POSTGRES);
        std::iter::repeat_with(|| schedule.next()).take(500).collect::<Vec<_>>()
    };
    assert_eq!(schedule(7), schedule(7));
    assert_ne!(schedule(7), schedule(8));
    let all = Fault::all(POSTGRES);
    assert!(all.iter().all(|fault| schedule(7)[..all.len()].contains(fault)), "each kind comes before any comes again");
}
