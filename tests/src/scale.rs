//! The same notifications through one, two and four workers that are killed at random: the same tables.

use crate::harness::{
    database::Kind,
    rig::Home,
    scale::{Run, run},
};

const SEED: u64 = 4;
const NOTIFICATIONS: usize = 2_000;

async fn digest(home: Home, workers: usize) -> String {
    let Run { report, digest, kills, told_in, settled_in } = run(home, workers, SEED, NOTIFICATIONS).await;
    report.assert_clean(&format!("{home:?}, {workers} workers, {kills} kills"));
    eprintln!("{home:?}, {workers} workers: told in {told_in:?}, settled in {settled_in:?}, {kills} kills");
    assert!(kills >= 5, "only {kills} kills");
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_workers_that_die_at_random_leave_the_same_tables() {
    let expected = digest(Home::Sql(Kind::Postgres), 1).await;
    let (two, four, mariadb, sled) = tokio::join!(
        digest(Home::Sql(Kind::Postgres), 2),
        digest(Home::Sql(Kind::Postgres), 4),
        digest(Home::Sql(Kind::Mariadb), 2),
        digest(Home::Sled, 1),
    );
    assert_eq!([two, four, mariadb, sled], [(); 4].map(|()| expected.clone()));
}
