//! Each fault once, short, under load, with the audit at the end. Faults that can share a pair do, one after another;
//! pairs that do not disturb each other work at the same time.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::{POSTGRES, survives};
use crate::harness::{
    database::Kind,
    faults::{Fault, KILLS, Line, Trouble},
    rig::{Home, Own},
};

const MARIADB: Home = Home::Sql(Kind::Mariadb);

/// Homes, each with the faults that its pair goes through.
type Round = Vec<(Home, Vec<Fault>)>;

/// A test of each line: rounds one after another, and the pairs of a round at the same time.
macro_rules! under_load {
    ($($(#[$doc:meta])* $name:ident: $own:expr, $($round:expr),+;)+) => {
        $(
            $(#[$doc])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                for round in [$($round),+] {
                    join_all(round.iter().map(|(home, faults)| survives(*home, $own, faults))).await;
                }
            }
        )+

        /// All that is struck by these tests.
        fn struck() -> Round {
            [$($($round),+),+].concat()
        }
    };
}

under_load! {
    killed_at_each_step_on_postgres: Own::NOTHING, at(&[POSTGRES], &KILLS);
    killed_at_each_step_on_mariadb: Own::NOTHING, at(&[MARIADB], &KILLS);
    killed_at_each_step_on_sled: Own::NOTHING,
        [at(&[Home::Sled], &KILLS), at(&[Home::Together], &KILLS_OF_ONE_PROCESS)].concat();
    /// SIGTERM under load: gone within the grace period, nothing lost.
    ended_under_load_and_with_servers_that_are_away: Own::NOTHING,
        at(&[POSTGRES, Home::Sled, Home::Together], &ENDS);
    answers_swallowed: Own::NOTHING, at(&[POSTGRES, MARIADB], &ANSWERS);
    a_broker_that_dies_blocks_and_forgets: Own { broker: true, store: false }, at(&[POSTGRES], &BROKER);
    a_network_that_is_cut_slow_silent_and_lost: Own::NOTHING, at(&[POSTGRES], &network());
    a_store_that_dies_stalls_and_deadlocks_on_postgres: Own { broker: false, store: true }, at(&[POSTGRES], &STORE);
    a_store_that_dies_stalls_and_deadlocks_on_mariadb: Own { broker: false, store: true }, at(&[MARIADB], &STORE);
    a_directory_that_is_deleted_cut_short_and_full: Own::NOTHING,
        at(&[POSTGRES, Home::Sled, Home::Together], &DIRECTORY);
    a_door_that_is_besieged: Own::NOTHING, at(&[POSTGRES], &DOOR), at(&[Home::Together], &DOOR);
    /// Its neighbours are no dead letters: the audit knows how each of them must end.
    a_message_that_ends_its_worker_each_time: Own::NOTHING,
        [at(&[POSTGRES], &MESSAGES[..1]), at(&[POSTGRES], &MESSAGES[1..])].concat();
}

/// These homes, each with those of the faults that can happen there.
fn at(homes: &[Home], faults: &[Fault]) -> Round {
    let here = |home: Home| faults.iter().copied().filter(|fault| fault.applies(home)).collect();
    homes.iter().map(|home| (*home, here(*home))).collect()
}

const KILLS_OF_ONE_PROCESS: [Fault; 5] = [
    Fault::IngressKilled,
    Fault::KilledInMidFlush,
    Fault::IngressKilledBeforeReply,
    Fault::KilledInMidFlush,
    Fault::KilledInMidFlush,
];

const ENDS: [Fault; 4] =
    [Fault::IngressEnded, Fault::WorkerEnded, Fault::BothEndedWithoutBroker, Fault::WorkerEndedWithoutStore];

const ANSWERS: [Fault; 2] = [Fault::ConfirmSwallowed, Fault::CommitAnswerSwallowed];

const BROKER: [Fault; 10] = [
    Fault::BrokerKilled,
    Fault::BrokerRestarted,
    Fault::ConnectionsClosed,
    Fault::ChannelError,
    Fault::MemoryAlarm,
    Fault::DiskAlarm,
    Fault::TierWithoutLeader,
    Fault::QueueDeleted,
    Fault::ExchangeDeleted,
    Fault::StrangersPublish,
];

const STORE: [Fault; 7] = [
    Fault::StoreKilled,
    Fault::StoreRestarted,
    Fault::OutOfConnections,
    Fault::SlowStatements,
    Fault::StuckStatements,
    Fault::Deadlocks,
    Fault::StoreReadOnly,
];

const DIRECTORY: [Fault; 3] = [Fault::ShortcutDeleted, Fault::ShortcutTruncated, Fault::DiskFull];
const DOOR: [Fault; 4] = [Fault::Garbage, Fault::SlowLoris, Fault::IdleConnections, Fault::RepliesUnread];
const MESSAGES: [Fault; 2] = [Fault::MessageThatKills, Fault::NotificationThatKills];

fn network() -> Vec<Fault> {
    Line::ALL.into_iter().flat_map(|line| Trouble::ALL.map(|trouble| Fault::Network(line, trouble))).collect()
}

/// What is struck on PostgreSQL and not here, since it breaks nothing there that this home has otherwise.
fn on_postgres_alone(home: Home) -> Vec<Fault> {
    let network = network();
    let lists: &[&[Fault]] = match home {
        POSTGRES => &[],
        Home::Sql(_) => &[&ENDS, &BROKER, &network, &DIRECTORY, &DOOR, &MESSAGES],
        Home::Sled => &[&ANSWERS, &BROKER, &network, &DOOR, &MESSAGES],
        Home::Together => &[&network],
    };
    lists.concat().into_iter().filter(|fault| fault.applies(home)).collect()
}

#[test]
fn every_fault_is_struck_at_each_home_or_named_as_one_of_postgres_alone() {
    let struck_at = |home: Home| -> BTreeSet<Fault> {
        struck().into_iter().filter(|(at, _)| *at == home).flat_map(|(_, faults)| faults).collect()
    };
    for home in [POSTGRES, MARIADB, Home::Sled, Home::Together] {
        let (here, alone) = (struck_at(home), BTreeSet::from_iter(on_postgres_alone(home)));
        assert!(alone.is_subset(&struck_at(POSTGRES)) && alone.is_disjoint(&here), "{home:?}");
        assert_eq!(&here | &alone, BTreeSet::from_iter(Fault::all(home)), "{home:?}");
    }
}
