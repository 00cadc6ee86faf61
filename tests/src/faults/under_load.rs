//! Each fault once, short, under load, with the audit at the end. Faults that can share a pair do, one after another;
//! pairs that do not disturb each other work at the same time.

use super::{POSTGRES, survives};
use crate::harness::{
    database::Kind,
    faults::{Fault, KILLS},
    rig::{Home, Own},
};

const MARIADB: Home = Home::Sql(Kind::Mariadb);

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_on_postgres() {
    survives(POSTGRES, Own::NOTHING, &KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_on_mariadb() {
    survives(MARIADB, Own::NOTHING, &KILLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_each_step_on_sled() {
    let apart = KILLS.into_iter().filter(|fault| fault.applies(Home::Sled)).collect::<Vec<_>>();
    let together = [
        Fault::IngressKilled,
        Fault::KilledInMidFlush,
        Fault::IngressKilledBeforeReply,
        Fault::KilledInMidFlush,
        Fault::KilledInMidFlush,
    ];
    tokio::join!(survives(Home::Sled, Own::NOTHING, &apart), survives(Home::Together, Own::NOTHING, &together));
}

/// SIGTERM under load: gone within the grace period, nothing lost.
#[tokio::test(flavor = "multi_thread")]
async fn ended_under_load_and_with_servers_that_are_away() {
    let ends = [Fault::IngressEnded, Fault::WorkerEnded, Fault::BothEndedWithoutBroker, Fault::WorkerEndedWithoutStore];
    tokio::join!(
        survives(POSTGRES, Own::NOTHING, &ends),
        survives(Home::Sled, Own::NOTHING, &ends[..2]),
        survives(Home::Together, Own::NOTHING, &ends[..1])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_swallowed() {
    let faults = [Fault::ConfirmSwallowed, Fault::CommitAnswerSwallowed];
    tokio::join!(survives(POSTGRES, Own::NOTHING, &faults), survives(MARIADB, Own::NOTHING, &faults));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_blocks_and_forgets() {
    let faults = [
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
    survives(POSTGRES, Own { broker: true, store: false }, &faults).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_slow_silent_and_lost() {
    let all = Fault::all(POSTGRES);
    let faults: Vec<_> = all.into_iter().filter(|fault| matches!(fault, Fault::Network(..))).collect();
    survives(POSTGRES, Own::NOTHING, &faults).await;
}

const STORE: [Fault; 6] = [
    Fault::StoreKilled,
    Fault::StoreRestarted,
    Fault::OutOfConnections,
    Fault::SlowStatements,
    Fault::StuckStatements,
    Fault::Deadlocks,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_stalls_and_deadlocks_on_postgres() {
    survives(POSTGRES, Own { broker: false, store: true }, &STORE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_stalls_and_deadlocks_on_mariadb() {
    survives(MARIADB, Own { broker: false, store: true }, &STORE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_deleted_cut_short_and_full() {
    let shortcut = [Fault::ShortcutDeleted, Fault::ShortcutTruncated, Fault::DiskFull];
    tokio::join!(
        survives(POSTGRES, Own::NOTHING, &shortcut),
        survives(Home::Sled, Own::NOTHING, &[Fault::DiskFull]),
        survives(Home::Together, Own::NOTHING, &[Fault::DiskFull])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_is_besieged() {
    let faults = [Fault::Garbage, Fault::SlowLoris, Fault::IdleConnections, Fault::RepliesUnread];
    survives(POSTGRES, Own::NOTHING, &faults).await;
    survives(Home::Together, Own::NOTHING, &faults).await;
}
