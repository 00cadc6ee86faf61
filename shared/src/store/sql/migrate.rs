//! The schema: the scripts that make it, shipped inside the program, and which of them a database has.

use sqlx::{
    Error, SqlSafeStr as _, SqlStr,
    migrate::{AppliedMigration, Migrate, MigrateError, Migration, MigrationType},
};

/// The table that says which scripts a database has. A shop's own tables may be in the same database.
const TABLE: &str = "wxpay_migrations";

/// A script that is part of this program.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// Its number; the schema's version after it.
    pub version: i64,
    /// What it makes.
    pub name: &'static str,
    pub(super) sql: &'static str,
}

/// A script, and whether a database has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// What it makes.
    pub name: &'static str,
    /// Whether the database has it.
    pub applied: bool,
}

/// A database that this program must not use as it is. The text says what a person can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No script was ever run.
    #[error("the database has no tables of wxpay-notify, and this program needs schema version {needed}: {CURE}")]
    Missing {
        /// What this program needs.
        needed: i64,
    },
    /// Scripts are missing.
    #[error("the database has schema version {found}, and this program needs version {needed}: {CURE}")]
    Older {
        /// What the database has.
        found: i64,
        /// What this program needs.
        needed: i64,
    },
    /// A later program was here.
    #[error("the database has schema version {found}, and this program knows versions up to {needed}: update it")]
    Newer {
        /// What the database has.
        found: i64,
        /// What this program needs.
        needed: i64,
    },
    /// A script of this number was run, and it was another one.
    #[error("the database's schema version {version} is not the one that this program knows by that number")]
    Foreign {
        /// The script's number.
        version: i64,
    },
    /// A script ended halfway, on a server that cannot undo one.
    #[error(
        "the migration to schema version {version} did not finish: restore the database from a backup, or drop the \
         tables if they are empty, and then {CURE}"
    )]
    Unfinished {
        /// The script's number.
        version: i64,
    },
}

const CURE: &str = "run `wxpayctl migrate --apply`";

/// What a database has, and the verdict on it.
///
/// # Errors
/// Where the database cannot be asked.
pub(super) async fn status<C: Migrate>(
    connection: &mut C,
    scripts: &[Script],
) -> Result<(Vec<Step>, Result<(), SchemaError>), Error> {
    let known = migrations(scripts);
    let unfinished = existing(connection.dirty_version(TABLE).await)?.flatten();
    let applied = existing(connection.list_applied_migrations(TABLE).await)?.unwrap_or_default();
    let has = |version| applied.iter().any(|found| found.version == version && unfinished != Some(version));
    let step = |script: &Script| Step { version: script.version, name: script.name, applied: has(script.version) };
    let steps = scripts.iter().map(step).collect();

    Ok((steps, verdict(&known, &applied, unfinished)))
}

fn verdict(known: &[Migration], applied: &[AppliedMigration], unfinished: Option<i64>) -> Result<(), SchemaError> {
    let needed = known.last().map_or(0, |script| script.version);
    let is_ours = |found: &AppliedMigration| {
        known.iter().any(|ours| ours.version == found.version && ours.checksum == found.checksum)
    };
    let foreign = applied.iter().find(|found| found.version <= needed && !is_ours(found));
    match (applied.iter().map(|found| found.version).max(), unfinished, foreign) {
        (_, Some(version), _) => Err(SchemaError::Unfinished { version }),
        (None, None, _) => Err(SchemaError::Missing { needed }),
        (Some(found), None, _) if found > needed => Err(SchemaError::Newer { found, needed }),
        (Some(_), None, Some(foreign)) => Err(SchemaError::Foreign { version: foreign.version }),
        (Some(found), None, None) if applied.len() < known.len() => Err(SchemaError::Older { found, needed }),
        (Some(_), None, None) => Ok(()),
    }
}

/// Runs the scripts that a database does not have. The caller sees to it that nobody else does so meanwhile.
///
/// # Errors
/// Where a script failed: PostgreSQL then has nothing of it, MySQL may have a part.
pub(super) async fn apply<C: Migrate>(connection: &mut C, scripts: &[Script]) -> Result<(), Error> {
    let run = async {
        connection.ensure_migrations_table(TABLE).await?;
        let applied = connection.list_applied_migrations(TABLE).await?;
        for script in migrations(scripts) {
            if !applied.iter().any(|applied| applied.version == script.version) {
                connection.apply(TABLE, &script).await?;
            }
        }
        Ok(())
    };
    run.await.map_err(plain)
}

fn migrations(scripts: &[Script]) -> Vec<Migration> {
    let migration = |script: &Script| {
        let sql: SqlStr = script.sql.into_sql_str();
        Migration::new(script.version, script.name.into(), MigrationType::Simple, sql, false)
    };
    scripts.iter().map(migration).collect()
}

/// `None` where the table does not exist.
fn existing<T>(asked: Result<T, MigrateError>) -> Result<Option<T>, Error> {
    match asked.map_err(plain) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code());
            // PostgreSQL's and MySQL's code for a table that does not exist.
            if matches!(code.as_deref(), Some("42P01" | "42S02")) { Ok(None) } else { Err(error) }
        }
    }
}

pub(super) fn plain(error: MigrateError) -> Error {
    if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = error {
        cause
    } else {
        Error::Migrate(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPTS: [Script; 2] = [
        Script { version: 1, name: "first", sql: "create table a (b bigint)" },
        Script { version: 2, name: "second", sql: "create table c (d bigint)" },
    ];

    #[test]
    fn a_database_is_judged_by_all_of_its_scripts() {
        let known = migrations(&SCRIPTS);
        let ours = |version: usize| AppliedMigration {
            version: known[version - 1].version,
            checksum: known[version - 1].checksum.clone(),
        };
        let other = |version| AppliedMigration { version, checksum: b"other".as_slice().into() };
        let judged = |applied: &[AppliedMigration]| verdict(&known, applied, None);
        assert_eq!(judged(&[]), Err(SchemaError::Missing { needed: 2 }));
        assert_eq!(judged(&[ours(1)]), Err(SchemaError::Older { found: 1, needed: 2 }));
        assert_eq!(judged(&[ours(2)]), Err(SchemaError::Older { found: 2, needed: 2 }));
        assert_eq!(judged(&[ours(1), ours(2)]), Ok(()));
        assert_eq!(judged(&[ours(1), other(2)]), Err(SchemaError::Foreign { version: 2 }));
        assert_eq!(judged(&[ours(1), ours(2), other(3)]), Err(SchemaError::Newer { found: 3, needed: 2 }));
        assert_eq!(verdict(&known, &[ours(1)], Some(1)), Err(SchemaError::Unfinished { version: 1 }));
    }
}
