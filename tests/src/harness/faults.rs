//! Everything that is broken on purpose, under one name each. [`Fault::strike`] breaks it in a rig under load and returns
//! when whatever was broken is whole again; what must be true while it is broken is checked there.

use std::fmt;

use super::{
    database::Kind,
    rig::{Home, Rig},
};

mod broker;
mod disk;
mod door;
mod network;
mod programs;
mod store;
mod strangers;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    IngressKilled,
    WorkerKilled,
    BothKilled,
    IngressKilledAfterSeal,
    IngressKilledAfterPublish,
    IngressKilledBeforeReply,
    WorkerKilledInsideBatch,
    WorkerKilledAfterCommit,
    WorkerKilledAfterMark,
    WorkerKilledBetweenParkAndAck,
    KilledInMidFlush,
    IngressEnded,
    WorkerEnded,
    BothEndedWithoutBroker,
    WorkerEndedWithoutStore,
    ShortcutDeleted,
    ShortcutTruncated,
    DiskFull,
    Network(Line, Trouble),
    ConfirmSwallowed,
    CommitAnswerSwallowed,
    BrokerKilled,
    BrokerRestarted,
    ConnectionsClosed,
    ChannelError,
    MemoryAlarm,
    DiskAlarm,
    TierWithoutLeader,
    QueueDeleted,
    ExchangeDeleted,
    StrangersPublish,
    MessageThatKills,
    NotificationThatKills,
    StoreKilled,
    StoreRestarted,
    OutOfConnections,
    SlowStatements,
    StuckStatements,
    Deadlocks,
    StoreReadOnly,
    Garbage,
    SlowLoris,
    IdleConnections,
    RepliesUnread,
}

/// A line between two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    WechatToIngress,
    IngressToBroker,
    WorkerToBroker,
    WorkerToStore,
}

/// What happens to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    Closed,
    Reset,
    Slow,
    Narrow,
    Silent,
    /// Connections that there are fall silent for ever; new ones work.
    Lost,
}

impl Line {
    pub(crate) const ALL: [Self; 4] =
        [Self::WechatToIngress, Self::IngressToBroker, Self::WorkerToBroker, Self::WorkerToStore];
}

impl Trouble {
    pub(crate) const ALL: [Self; 6] = [Self::Closed, Self::Reset, Self::Slow, Self::Narrow, Self::Silent, Self::Lost];
}

/// Kill -9 between any two steps of the flow.
pub(crate) const KILLS: [Fault; 10] = [
    Fault::IngressKilled,
    Fault::WorkerKilled,
    Fault::BothKilled,
    Fault::IngressKilledAfterSeal,
    Fault::IngressKilledAfterPublish,
    Fault::IngressKilledBeforeReply,
    Fault::WorkerKilledInsideBatch,
    Fault::WorkerKilledAfterCommit,
    Fault::WorkerKilledAfterMark,
    Fault::WorkerKilledBetweenParkAndAck,
];

/// The others without a parameter.
const PLAIN: [Fault; 33] = [
    Fault::KilledInMidFlush,
    Fault::IngressEnded,
    Fault::WorkerEnded,
    Fault::BothEndedWithoutBroker,
    Fault::WorkerEndedWithoutStore,
    Fault::ShortcutDeleted,
    Fault::ShortcutTruncated,
    Fault::DiskFull,
    Fault::ConfirmSwallowed,
    Fault::CommitAnswerSwallowed,
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
    Fault::MessageThatKills,
    Fault::NotificationThatKills,
    Fault::StoreKilled,
    Fault::StoreRestarted,
    Fault::OutOfConnections,
    Fault::SlowStatements,
    Fault::StuckStatements,
    Fault::Deadlocks,
    Fault::StoreReadOnly,
    Fault::Garbage,
    Fault::SlowLoris,
    Fault::IdleConnections,
    Fault::RepliesUnread,
];

impl Fault {
    /// Every fault that can happen at this home.
    pub(crate) fn all(home: Home) -> Vec<Self> {
        let lines = Line::ALL.into_iter().flat_map(|line| Trouble::ALL.map(|trouble| Self::Network(line, trouble)));
        KILLS.into_iter().chain(PLAIN).chain(lines).filter(|fault| fault.applies(home)).collect()
    }

    /// Whether there is something to break at this home.
    pub(crate) fn applies(self, home: Home) -> bool {
        match self {
            Self::IngressKilled | Self::IngressEnded | Self::IngressKilledBeforeReply | Self::DiskFull => true,
            Self::Garbage | Self::SlowLoris | Self::IdleConnections | Self::RepliesUnread => true,
            Self::Network(line, _) => match line {
                Line::WechatToIngress => true,
                Line::IngressToBroker | Line::WorkerToBroker => home != Home::Together,
                Line::WorkerToStore => matches!(home, Home::Sql(_)),
            },
            Self::KilledInMidFlush => home == Home::Together,
            Self::WorkerKilledInsideBatch | Self::WorkerKilledAfterCommit | Self::WorkerEndedWithoutStore => {
                matches!(home, Home::Sql(_))
            }
            Self::ShortcutDeleted
            | Self::ShortcutTruncated
            | Self::CommitAnswerSwallowed
            | Self::NotificationThatKills => {
                matches!(home, Home::Sql(_))
            }
            Self::StoreKilled | Self::StoreRestarted | Self::OutOfConnections | Self::SlowStatements => {
                matches!(home, Home::Sql(_))
            }
            Self::StuckStatements | Self::Deadlocks => matches!(home, Home::Sql(_)),
            Self::StoreReadOnly => home == Home::Sql(Kind::Postgres),
            Self::WorkerKilled
            | Self::BothKilled
            | Self::IngressKilledAfterSeal
            | Self::IngressKilledAfterPublish
            | Self::WorkerKilledAfterMark
            | Self::WorkerKilledBetweenParkAndAck
            | Self::WorkerEnded
            | Self::BothEndedWithoutBroker
            | Self::ConfirmSwallowed
            | Self::BrokerKilled
            | Self::BrokerRestarted
            | Self::ConnectionsClosed
            | Self::ChannelError
            | Self::MemoryAlarm
            | Self::DiskAlarm
            | Self::TierWithoutLeader
            | Self::QueueDeleted
            | Self::ExchangeDeleted
            | Self::StrangersPublish
            | Self::MessageThatKills => home != Home::Together,
        }
    }

    /// Breaks it and makes it whole again, under load.
    ///
    /// # Errors
    /// The promise that was broken meanwhile.
    pub(crate) async fn strike(self, rig: &mut Rig) -> Result<(), String> {
        match self {
            Self::IngressKilled => rig.ingress_killed().await,
            Self::WorkerKilled => rig.worker_killed().await,
            Self::BothKilled => rig.both_killed().await,
            Self::IngressKilledAfterSeal => rig.ingress_killed_after_seal().await,
            Self::IngressKilledAfterPublish => rig.ingress_killed_after_publish().await,
            Self::IngressKilledBeforeReply => rig.ingress_killed_before_reply().await,
            Self::WorkerKilledInsideBatch => rig.worker_killed_inside_batch().await,
            Self::WorkerKilledAfterCommit => rig.worker_killed_after_commit().await,
            Self::WorkerKilledAfterMark => rig.worker_killed_after_mark().await,
            Self::WorkerKilledBetweenParkAndAck => rig.worker_killed_between_park_and_ack().await,
            Self::KilledInMidFlush => rig.killed_in_mid_flush().await,
            Self::IngressEnded => return rig.ingress_ended().await,
            Self::WorkerEnded => return rig.worker_ended().await,
            Self::BothEndedWithoutBroker => return rig.both_ended_without_broker().await,
            Self::WorkerEndedWithoutStore => return rig.worker_ended_without_store().await,
            Self::ShortcutDeleted => rig.shortcut_deleted().await,
            Self::ShortcutTruncated => rig.shortcut_truncated().await,
            Self::DiskFull => rig.disk_full().await,
            Self::Network(line, trouble) => rig.network(line, trouble).await,
            Self::ConfirmSwallowed => rig.confirm_swallowed().await,
            Self::CommitAnswerSwallowed => rig.commit_answer_swallowed().await,
            Self::BrokerKilled => rig.own_node().restart().await,
            Self::BrokerRestarted => rig.broker_restarted(),
            Self::ConnectionsClosed => rig.connections_closed(),
            Self::ChannelError => rig.channel_error().await,
            Self::MemoryAlarm => return rig.memory_alarm().await,
            Self::DiskAlarm => return rig.disk_alarm().await,
            Self::TierWithoutLeader => rig.tier_without_leader().await,
            Self::QueueDeleted => rig.queue_deleted().await,
            Self::ExchangeDeleted => rig.exchange_deleted().await,
            Self::StrangersPublish => rig.strangers_publish().await,
            Self::MessageThatKills => rig.message_that_kills().await,
            Self::NotificationThatKills => rig.notification_that_kills().await,
            Self::StoreKilled => rig.store_killed().await,
            Self::StoreRestarted => rig.store_restarted().await,
            Self::OutOfConnections => rig.out_of_connections().await,
            Self::SlowStatements => rig.slow_statements(store::SLOW).await,
            Self::StuckStatements => rig.slow_statements(store::STUCK).await,
            Self::Deadlocks => rig.deadlocks().await,
            Self::StoreReadOnly => rig.store_read_only().await,
            Self::Garbage => return rig.garbage().await,
            Self::SlowLoris => return rig.slow_loris().await,
            Self::IdleConnections => return rig.idle_connections().await,
            Self::RepliesUnread => return rig.replies_unread().await,
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Network(line, trouble) = self { write!(f, "{line:?} {trouble:?}") } else { write!(f, "{self:?}") }
    }
}
