//! Whose fault an error is: the server's, this transaction's, or the records'.
//!
//! An error after the commit was sent leaves its result unknown. That needs no class of its own, since to apply again
//! changes nothing.

use sqlx::{Error, mysql::MySqlDatabaseError, postgres::PgDatabaseError};

use super::super::StoreError;

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        if is_unreadable(&error) {
            Self::Corrupt(Box::new(error))
        } else if is_away(&error) {
            Self::Unavailable(Box::new(error))
        } else {
            Self::Transient(Box::new(error))
        }
    }
}

fn is_unreadable(error: &Error) -> bool {
    matches!(error, Error::ColumnDecode { .. } | Error::Decode(_) | Error::ColumnNotFound(_))
}

/// What the next transaction would meet as well, whatever it is about.
fn is_away(error: &Error) -> bool {
    let Some(error) = error.as_database_error() else {
        return matches!(
            error,
            Error::Io(_)
                | Error::Tls(_)
                | Error::Protocol(_)
                | Error::PoolTimedOut
                | Error::PoolClosed
                | Error::WorkerCrashed
                | Error::BeginFailed
        );
    };
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        postgres_is_away(error.code())
    } else if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        mysql_is_away(error.number())
    } else {
        false
    }
}

fn postgres_is_away(code: &str) -> bool {
    const CLASSES: [&str; 6] = [
        "08", // connection
        "28", // authorization
        "3D", // no such database
        "53", // out of connections, memory, disk
        "58", // the system around it
        "XX", // internal
    ];
    const CODES: [&str; 9] = [
        "57P01", // shut down
        "57P02", // crashed
        "57P03", // starting
        "57P04", // the database was dropped
        "57P05", // idle for too long
        "55000", // it lets nobody in
        "25006", // read-only: a standby
        "42501", // not allowed to use a table
        "42P01", // a table is gone
    ];
    CLASSES.iter().any(|class| code.starts_with(class)) || CODES.contains(&code)
}

fn mysql_is_away(number: u16) -> bool {
    const NUMBERS: [u16; 28] = [
        1021, 1114, // out of disk
        1037, 1041, // out of memory
        1040, 1203, 1226, // out of connections
        1044, 1045, 1142, 1698, 1820, 1862, 4151, // not allowed
        1047, // a member of a cluster that is not ready
        1049, 1146, // a database or table is gone
        1053, 1077, 1079, // shut down
        1129, 1130, // this host is not let in
        1036, 1290, 1792, 1836, // read-only: a replica
        1927, 3169, // the connection was killed
    ];
    NUMBERS.contains(&number)
}
