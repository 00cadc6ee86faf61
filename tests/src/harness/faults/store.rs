//! What happens to a SQL server and in it.

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::{
    database::{Kind, Session},
    pair::DEADLINE,
    proxy::{Cut, Weather},
    rig::{Home, Rig},
    wait_until,
};

/// A wait that a worker sits out.
pub(super) const SLOW: Duration = Duration::from_secs(2);
/// A wait that is longer than a worker's limit for one call.
pub(super) const STUCK: Duration = Duration::from_secs(12);
/// Deadlocks that one strike makes.
const DEADLOCKS: u64 = 3;
const READ_ONLY: Duration = Duration::from_secs(6);

impl Rig {
    pub(super) async fn store_killed(&mut self) {
        self.own_database().kill();
        self.own_database().run();
        self.own_database().ready().await;
    }

    pub(super) async fn store_restarted(&mut self) {
        self.own_database().end().await;
        self.own_database().run();
        self.own_database().ready().await;
    }

    /// Others take every connection; the worker comes back and finds none.
    pub(super) async fn out_of_connections(&mut self) {
        self.storing.set(Weather::Closed);
        self.storing.cut(Cut::Reset);
        let mut others = Vec::new();
        while let Ok(session) = Session::connect(&self.store_url).await {
            others.push(session);
        }
        self.storing.set(Weather::Fair);
        let port = self.pair.admin_port;
        wait_until("the worker shuts its gate", DEADLINE, async || !self.pair.is_ready(port).await).await;
        drop(others);
    }

    /// Somebody holds the orders for so long.
    pub(super) async fn slow_statements(&mut self, length: Duration) {
        let mut other = self.session().await;
        let (lock, unlock) = match self.kind() {
            Kind::Postgres => ("begin; lock table wxpay_orders in exclusive mode", "commit"),
            Kind::Mariadb => ("lock tables wxpay_orders write", "unlock tables"),
        };
        other.run(lock).await.expect("the table can be locked");
        sleep(length).await;
        other.run(unlock).await.expect("the table can be given free");
    }

    /// Somebody takes the accounts first and the orders then, the other way round than workers do.
    pub(super) async fn deadlocks(&mut self) {
        let (count, waiting) = match self.kind() {
            Kind::Postgres => (
                "select deadlocks::text from pg_stat_database where datname = current_database()",
                "select pid::text from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()",
            ),
            Kind::Mariadb => (
                "select concat('', variable_value) from information_schema.global_status \
                 where variable_name = 'INNODB_DEADLOCKS'",
                // Not the list of transactions: it stays as it is for as long as somebody reads it every 100 ms.
                "select concat('', variable_value) from information_schema.global_status \
                 where variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS' and variable_value > 0",
            ),
        };
        let before = self.number(count).await;
        while self.number(count).await < before + DEADLOCKS {
            // Repeats touch no account.
            self.register_ahead().await;
            let mut other = self.session().await;
            if self.kind() == Kind::Postgres {
                // So that it is the worker whose transaction is given up.
                other.run("set deadlock_timeout = '20s'").await.expect("a setting");
            }
            other
                .run("begin; update wxpay_points_accounts set balance = balance")
                .await
                .expect("accounts can be locked");
            wait_until("the worker holds orders and waits for accounts", DEADLINE, async || {
                !self.session().await.texts(waiting).await.expect("statistics can be read").is_empty()
            })
            .await;
            // MariaDB may give this one up instead.
            drop(other.run("select out_trade_no from wxpay_orders order by out_trade_no for update").await);
            drop(other.run("rollback").await);
        }
    }

    /// As on a standby: it answers, and takes nothing.
    pub(super) async fn store_read_only(&mut self) {
        let name = self.store_url.rsplit_once('/').expect("an address names a database").1.to_owned();
        let set = |state: &str| {
            format!(
                "alter database {name} set default_transaction_read_only = {state}; \
                 select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}' and pid <> pg_backend_pid()"
            )
        };
        let mut other = self.session().await;
        other.run(&set("on")).await.expect("the database can be made read-only");
        sleep(READ_ONLY).await;
        other.run(&set("off")).await.expect("the database can be made writable");
    }

    async fn session(&self) -> Session {
        Session::connect(&self.store_url).await.expect("the database can be reached")
    }

    async fn number(&self, query: &str) -> u64 {
        let texts = self.session().await.texts(query).await.expect("statistics can be read");
        texts.first().and_then(|text| text.parse().ok()).expect("a number")
    }

    fn kind(&self) -> Kind {
        match self.home {
            Home::Sql(kind) => kind,
            Home::Sled | Home::Together => panic!("this home has no SQL server"),
        }
    }
}
