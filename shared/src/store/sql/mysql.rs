//! The statements for MySQL and MariaDB.

use async_trait::async_trait;
use sqlx::{MySql, MySqlConnection, QueryBuilder, query_as};

use super::{
    audit::{AuditFilter, AuditRow},
    dialect::Dialect,
    migrate::Script,
    rows::{AccountRow, EventRow, LedgerRow, OrderRow, Writes},
};
use crate::ids::{AccountId, OrderId};

macro_rules! utc {
    ($column:literal) => {
        concat!("date_format(", $column, ", '%Y-%m-%dT%H:%i:%s.%fZ') as ", $column)
    };
}

const SELECT_ORDERS: &str = concat!(
    "select merchant, out_trade_no, amount, currency, user_id, appid, points_rate, ",
    utc!("registered_at"),
    ", ",
    utc!("closed_at"),
    ", points_user, credited, announced_refunds from wxpay_orders where (merchant, out_trade_no) in "
);

macro_rules! select_events {
    ($rest:literal) => {
        concat!(
            "select event_key, merchant, out_trade_no, fingerprint, fact, notification, reason, detail ",
            "from wxpay_events where ",
            $rest
        )
    };
}

const SELECT_ACCOUNTS: &str =
    "select merchant, user_id, balance, entries from wxpay_points_accounts where (merchant, user_id) in ";

macro_rules! select_ledger {
    ($rest:literal) => {
        concat!(
            "select merchant, user_id, seq, out_trade_no, event_key, points, balance, ",
            utc!("recorded_at"),
            " from wxpay_points_ledger ",
            $rest
        )
    };
}

const INSERT_ORDERS: &str = "wxpay_orders (merchant, out_trade_no, amount, currency, user_id, appid, points_rate,
    registered_at, closed_at, state, received, kept, points_user, credited, announced_refunds) ";

const AUDIT: &str = concat!(
    "select ",
    utc!("recorded_at"),
    ", request, action, notification, done_by, why, orders, reason, result, detail from wxpay_audit
    where (? is null or notification = ?) and (? is null or recorded_at >= ?) order by seq desc limit ?"
);

#[async_trait]
impl Dialect for MySql {
    const SCRIPTS: &'static [Script] = &[
        Script {
            version: 1,
            name: "orders and points",
            sql: include_str!("../../../migrations/mysql/0001_orders_and_points.sql"),
        },
        Script {
            version: 2,
            name: "what people did with dead letters",
            sql: include_str!("../../../migrations/mysql/0002_audit.sql"),
        },
    ];
    const BEGIN_SNAPSHOT: &'static str = "set transaction isolation level repeatable read;
        start transaction with consistent snapshot, read only";

    async fn prepare(connection: &mut MySqlConnection) -> sqlx::Result<()> {
        // Row locks of a client that vanished end with its session, at the latest after `wait_timeout`.
        let session = "
            set session transaction isolation level read committed;
            set session innodb_lock_wait_timeout = 3, session wait_timeout = 60,
                session sql_mode = concat(@@sql_mode, ',STRICT_ALL_TABLES')";
        sqlx::raw_sql(session).execute(connection).await.map(drop)
    }

    async fn forgetful(connection: &mut MySqlConnection) -> sqlx::Result<Option<&'static str>> {
        let setting = "select cast(@@innodb_flush_log_at_trx_commit as signed)";
        let flush: i64 = sqlx::query_scalar(setting).fetch_one(connection).await?;
        Ok((flush != 1).then_some("innodb_flush_log_at_trx_commit"))
    }

    async fn lock_schema(connection: &mut MySqlConnection) -> sqlx::Result<()> {
        // sqlx's own lock waits -1 seconds, which MariaDB takes for no wait at all. A lock's name has 64 characters.
        let lock = "select get_lock(concat('wxpay ', md5(database())), 60)";
        match sqlx::query_scalar::<_, Option<i32>>(lock).fetch_one(connection).await? {
            Some(1) => Ok(()),
            _ => Err(sqlx::Error::Protocol("another migration has been running for a minute".to_owned())),
        }
    }

    async fn order(connection: &mut MySqlConnection, id: &OrderId) -> sqlx::Result<Option<OrderRow>> {
        let mut query = with_pairs(SELECT_ORDERS, &[order_pair(id)]);
        query.build_query_as().fetch_optional(connection).await
    }

    async fn lock_orders(connection: &mut MySqlConnection, ids: &[&OrderId]) -> sqlx::Result<Vec<OrderRow>> {
        let pairs: Vec<_> = ids.iter().map(|id| order_pair(id)).collect();
        let mut query = with_pairs(SELECT_ORDERS, &pairs);
        query.push(" order by merchant, out_trade_no for update");
        query.build_query_as().fetch_all(connection).await
    }

    async fn events(
        connection: &mut MySqlConnection,
        ids: &[&OrderId],
        keys: &[String],
    ) -> sqlx::Result<Vec<EventRow>> {
        let pairs: Vec<_> = ids.iter().map(|id| order_pair(id)).collect();
        let mut query = with_pairs(select_events!("(merchant, out_trade_no) in "), &pairs);
        if !keys.is_empty() {
            query.push(concat!(" union all ", select_events!("event_key in (")));
            let mut list = query.separated(", ");
            for key in keys {
                list.push_bind(key);
            }
            query.push(")");
        }
        query.build_query_as().fetch_all(connection).await
    }

    async fn insert_order(connection: &mut MySqlConnection, order: &OrderRow) -> sqlx::Result<bool> {
        // `ignore` would cut texts that are too long; names are valid by construction and fit.
        let mut query = QueryBuilder::new("insert ignore into ");
        push_orders(&mut query, std::slice::from_ref(order));
        Ok(query.build().execute(connection).await?.rows_affected() == 1)
    }

    async fn move_points(connection: &mut MySqlConnection, moves: &[AccountRow]) -> sqlx::Result<Vec<AccountRow>> {
        let mut query = QueryBuilder::new("insert into wxpay_points_accounts (merchant, user_id, balance, entries) ");
        query.push_values(moves, |mut row, account| {
            row.push_bind(&account.merchant).push_bind(&account.user_id);
            row.push_bind(account.balance).push_bind(account.entries);
        });
        query.push(" on duplicate key update balance = balance + values(balance), entries = entries + values(entries)");
        query.build().execute(&mut *connection).await?;
        let pairs: Vec<_> = moves.iter().map(|row| (row.merchant.as_str(), row.user_id.as_str())).collect();
        with_pairs(SELECT_ACCOUNTS, &pairs).build_query_as().fetch_all(connection).await
    }

    async fn write(connection: &mut MySqlConnection, writes: &Writes) -> sqlx::Result<()> {
        if !writes.events.is_empty() {
            insert_events(&writes.events).build().execute(&mut *connection).await?;
        }
        if !writes.ledger.is_empty() {
            insert_ledger(&writes.ledger).build().execute(&mut *connection).await?;
        }
        let mut query = QueryBuilder::new("insert into ");
        push_orders(&mut query, &writes.orders);
        query.push(
            " on duplicate key update closed_at = values(closed_at), state = values(state), received = values(received),
                kept = values(kept), points_user = values(points_user), credited = values(credited),
                announced_refunds = values(announced_refunds)",
        );
        query.build().execute(connection).await.map(drop)
    }

    async fn account(connection: &mut MySqlConnection, id: &AccountId) -> sqlx::Result<Option<AccountRow>> {
        let mut query = with_pairs(SELECT_ACCOUNTS, &[(id.merchant.as_str(), id.user.as_str())]);
        query.build_query_as().fetch_optional(connection).await
    }

    async fn ledger_of_account(
        connection: &mut MySqlConnection,
        id: &AccountId,
        limit: i64,
    ) -> sqlx::Result<Vec<LedgerRow>> {
        query_as(select_ledger!("where merchant = ? and user_id = ? order by seq desc limit ?"))
            .bind(id.merchant.as_str())
            .bind(id.user.as_str())
            .bind(limit)
            .fetch_all(connection)
            .await
    }

    async fn ledger_of_order(connection: &mut MySqlConnection, id: &OrderId) -> sqlx::Result<Vec<LedgerRow>> {
        query_as(select_ledger!("where merchant = ? and out_trade_no = ? order by seq"))
            .bind(id.merchant.as_str())
            .bind(id.out_trade_no.as_str())
            .fetch_all(connection)
            .await
    }

    async fn insert_audit(connection: &mut MySqlConnection, lines: &[AuditRow]) -> sqlx::Result<()> {
        let mut query = QueryBuilder::new(
            "insert into wxpay_audit (recorded_at, request, action, notification, done_by, why, orders, reason, result,
                detail) ",
        );
        query.push_values(lines, |mut row, line| {
            row.push_bind(datetime(&line.recorded_at)).push_bind(&line.request).push_bind(&line.action);
            row.push_bind(&line.notification).push_bind(&line.done_by).push_bind(&line.why).push_bind(&line.orders);
            row.push_bind(&line.reason).push_bind(&line.result).push_bind(&line.detail);
        });
        query.build().execute(connection).await.map(drop)
    }

    async fn audit(connection: &mut MySqlConnection, filter: &AuditFilter) -> sqlx::Result<Vec<AuditRow>> {
        query_as(AUDIT)
            .bind(&filter.notification)
            .bind(&filter.notification)
            .bind(filter.since.as_deref().map(datetime))
            .bind(filter.since.as_deref().map(datetime))
            .bind(filter.limit)
            .fetch_all(connection)
            .await
    }
}

fn order_pair(id: &OrderId) -> (&str, &str) {
    (id.merchant.as_str(), id.out_trade_no.as_str())
}

/// A statement that ends with a list of pairs. They are bound as values, never spliced.
fn with_pairs<'a>(statement: &'static str, pairs: &[(&'a str, &'a str)]) -> QueryBuilder<MySql> {
    let mut query = QueryBuilder::new(statement);
    query.push_tuples(pairs, |mut pair, (left, right)| {
        pair.push_bind(*left).push_bind(*right);
    });
    query
}

fn push_orders(query: &mut QueryBuilder<MySql>, orders: &[OrderRow]) {
    query.push(INSERT_ORDERS).push_values(orders, |mut row, order| {
        row.push_bind(&order.merchant).push_bind(&order.out_trade_no);
        row.push_bind(order.amount).push_bind(&order.currency).push_bind(&order.user_id).push_bind(&order.appid);
        row.push_bind(&order.points_rate).push_bind(datetime(&order.registered_at));
        row.push_bind(order.closed_at.as_deref().map(datetime)).push_bind(&order.state);
        row.push_bind(order.received).push_bind(order.kept).push_bind(&order.points_user).push_bind(order.credited);
        row.push_bind(&order.announced_refunds);
    });
}

fn insert_events(events: &[EventRow]) -> QueryBuilder<MySql> {
    let mut query = QueryBuilder::new(
        "insert into wxpay_events (event_key, merchant, out_trade_no, kind, transaction_id, amount, fingerprint, fact,
            notification, reason, detail, recorded_at) ",
    );
    query.push_values(events, |mut row, event| {
        row.push_bind(&event.event_key).push_bind(&event.merchant).push_bind(&event.out_trade_no);
        row.push_bind(&event.kind).push_bind(&event.transaction_id).push_bind(event.amount);
        row.push_bind(&event.fingerprint).push_bind(&event.fact).push_bind(&event.notification);
        row.push_bind(&event.reason).push_bind(&event.detail).push_bind(datetime(&event.recorded_at));
    });
    query
}

fn insert_ledger(entries: &[LedgerRow]) -> QueryBuilder<MySql> {
    let mut query = QueryBuilder::new(
        "insert into wxpay_points_ledger (merchant, user_id, seq, out_trade_no, event_key, points, balance, recorded_at) ",
    );
    query.push_values(entries, |mut row, entry| {
        row.push_bind(&entry.merchant).push_bind(&entry.user_id).push_bind(entry.seq);
        row.push_bind(&entry.out_trade_no).push_bind(&entry.event_key);
        row.push_bind(entry.points).push_bind(entry.balance).push_bind(datetime(&entry.recorded_at));
    });
    query
}

/// As MySQL writes a moment; it takes no zone, and the columns hold UTC.
fn datetime(at: &str) -> String {
    at.trim_end_matches('Z').replace('T', " ")
}
