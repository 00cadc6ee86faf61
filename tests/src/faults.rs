//! What breaks and what survives: the audit, and that a seed is a schedule; with the feature `faults`, each fault under load.

use crate::harness::{database::Kind, faults::Fault, rig::Home, schedule::Schedule};

mod audit;
#[cfg(feature = "faults")]
mod under_load;

const POSTGRES: Home = Home::Sql(Kind::Postgres);

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
