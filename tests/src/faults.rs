//! What the soak rests on: its audit, and that a seed is a schedule.

use crate::harness::{database::Kind, faults::Fault, rig::Home, schedule::Schedule};

mod audit;

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
