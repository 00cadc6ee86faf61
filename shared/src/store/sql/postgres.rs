//! The statements for PostgreSQL. Many rows travel as one JSON text or as arrays, so the text of a statement never
//! depends on how many there are, and the server plans it once a connection.

use async_trait::async_trait;
use serde::Serialize;
use sqlx::{PgConnection, Postgres, migrate::Migrate as _, query, query_as};

use super::{
    audit::{AuditFilter, AuditRow},
    dialect::Dialect,
    migrate::{self, Script},
    rows::{AccountRow, EventRow, LedgerRow, OrderRow, Writes},
};
use crate::ids::{AccountId, OrderId};

macro_rules! utc {
    ($column:literal) => {
        concat!("to_char(", $column, " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
}

macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "select o.merchant, o.out_trade_no, o.amount, o.currency, o.user_id, o.appid, o.points_rate, ",
            utc!("o.registered_at"),
            " as registered_at, ",
            utc!("o.closed_at"),
            " as closed_at, o.points_user, o.credited, o.announced_refunds from wxpay_orders o ",
            $rest
        )
    };
}

macro_rules! select_ledger {
    ($rest:literal) => {
        concat!(
            "select merchant, user_id, seq, out_trade_no, event_key, points, balance, ",
            utc!("recorded_at"),
            " as recorded_at from wxpay_points_ledger ",
            $rest
        )
    };
}

const LOCK_ORDERS: &str = select_orders!(
    "join unnest($1::text[], $2::text[]) as k (merchant, out_trade_no)
         on o.merchant = k.merchant and o.out_trade_no = k.out_trade_no
     order by o.merchant, o.out_trade_no for update of o"
);

const EVENTS: &str = "
    select e.event_key, e.merchant, e.out_trade_no, e.fingerprint, e.fact, e.notification, e.reason, e.detail
    from wxpay_events e join unnest($1::text[], $2::text[]) as k (merchant, out_trade_no)
        on e.merchant = k.merchant and e.out_trade_no = k.out_trade_no
    union all
    select e.event_key, e.merchant, e.out_trade_no, e.fingerprint, e.fact, e.notification, e.reason, e.detail
    from wxpay_events e where e.event_key = any($3::text[])";

const INSERT_ORDER: &str = "
    insert into wxpay_orders (merchant, out_trade_no, amount, currency, user_id, appid, points_rate, registered_at,
        points_user)
    select merchant, out_trade_no, amount, currency, user_id, appid, points_rate, registered_at, points_user
    from json_populate_recordset(null::wxpay_orders, $1::json)
    on conflict do nothing";

const MOVE_POINTS: &str = "
    insert into wxpay_points_accounts as a (merchant, user_id, balance, entries)
    select merchant, user_id, balance, entries
    from json_populate_recordset(null::wxpay_points_accounts, $1::json) order by merchant, user_id
    on conflict (merchant, user_id)
        do update set balance = a.balance + excluded.balance, entries = a.entries + excluded.entries
    returning merchant, user_id, balance, entries";

const WRITE: &str = "
    with events as (
        insert into wxpay_events (event_key, merchant, out_trade_no, kind, transaction_id, amount, fingerprint, fact,
            notification, reason, detail, recorded_at)
        select event_key, merchant, out_trade_no, kind, transaction_id, amount, fingerprint, fact, notification, reason,
            detail, recorded_at
        from json_populate_recordset(null::wxpay_events, $1::json)
    ), ledger as (
        insert into wxpay_points_ledger (merchant, user_id, seq, out_trade_no, event_key, points, balance, recorded_at)
        select merchant, user_id, seq, out_trade_no, event_key, points, balance, recorded_at
        from json_populate_recordset(null::wxpay_points_ledger, $2::json)
    )
    update wxpay_orders o set closed_at = n.closed_at, state = n.state, received = n.received, kept = n.kept,
        points_user = n.points_user, credited = n.credited, announced_refunds = n.announced_refunds
    from json_populate_recordset(null::wxpay_orders, $3::json) as n
    where o.merchant = n.merchant and o.out_trade_no = n.out_trade_no";

const INSERT_AUDIT: &str = "
    insert into wxpay_audit (recorded_at, request, action, notification, done_by, why, orders, reason, result, detail)
    select n.recorded_at, n.request, n.action, n.notification, n.done_by, n.why, n.orders, n.reason, n.result, n.detail
    from json_array_elements($1::json) with ordinality as lines (line, number),
        json_populate_record(null::wxpay_audit, line) as n
    order by number";

const AUDIT: &str = concat!(
    "select ",
    utc!("recorded_at"),
    " as recorded_at, request, action, notification, done_by, why, orders, reason, result, detail from wxpay_audit
    where ($1::text is null or notification = $1) and ($2::timestamptz is null or recorded_at >= $2::timestamptz)
    order by seq desc limit $3"
);

#[async_trait]
impl Dialect for Postgres {
    const SCRIPTS: &'static [Script] = &[
        Script {
            version: 1,
            name: "orders and points",
            sql: include_str!("../../../migrations/postgres/0001_orders_and_points.sql"),
        },
        Script {
            version: 2,
            name: "what people did with dead letters",
            sql: include_str!("../../../migrations/postgres/0002_audit.sql"),
        },
    ];
    const BEGIN_SNAPSHOT: &'static str = "begin isolation level repeatable read read only";

    async fn prepare(connection: &mut PgConnection) -> sqlx::Result<()> {
        // Each statement looks a few rows up by whole keys and is planned once a connection, maybe while the tables are
        // empty. Such a plan must not turn into a scan of what they hold an hour later.
        let session = "
            set enable_seqscan = off;
            set enable_hashjoin = off;
            set enable_mergejoin = off;
            set default_transaction_isolation = 'read committed';
            set lock_timeout = '3s';
            set statement_timeout = '5s';
            set idle_in_transaction_session_timeout = '30s';
            -- Without it a commit is told before it is on disk. What waits for standbys as well stays as it is.
            select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'";
        sqlx::raw_sql(session).execute(connection).await.map(drop)
    }

    async fn forgetful(connection: &mut PgConnection) -> sqlx::Result<Option<&'static str>> {
        let fsync: String = sqlx::query_scalar("select current_setting('fsync')").fetch_one(connection).await?;
        Ok((fsync != "on").then_some("fsync"))
    }

    async fn lock_schema(connection: &mut PgConnection) -> sqlx::Result<()> {
        connection.lock().await.map_err(migrate::plain)
    }

    async fn order(connection: &mut PgConnection, id: &OrderId) -> sqlx::Result<Option<OrderRow>> {
        query_as(select_orders!("where o.merchant = $1 and o.out_trade_no = $2"))
            .bind(id.merchant.as_str())
            .bind(id.out_trade_no.as_str())
            .fetch_optional(connection)
            .await
    }

    async fn lock_orders(connection: &mut PgConnection, ids: &[&OrderId]) -> sqlx::Result<Vec<OrderRow>> {
        let (merchants, numbers) = columns(ids);
        query_as(LOCK_ORDERS).bind(merchants).bind(numbers).fetch_all(connection).await
    }

    async fn events(connection: &mut PgConnection, ids: &[&OrderId], keys: &[String]) -> sqlx::Result<Vec<EventRow>> {
        let (merchants, numbers) = columns(ids);
        query_as(EVENTS).bind(merchants).bind(numbers).bind(keys).fetch_all(connection).await
    }

    async fn insert_order(connection: &mut PgConnection, order: &OrderRow) -> sqlx::Result<bool> {
        let done = query(INSERT_ORDER).bind(json(std::slice::from_ref(order))).execute(connection).await?;
        Ok(done.rows_affected() == 1)
    }

    async fn move_points(connection: &mut PgConnection, moves: &[AccountRow]) -> sqlx::Result<Vec<AccountRow>> {
        query_as(MOVE_POINTS).bind(json(moves)).fetch_all(connection).await
    }

    async fn write(connection: &mut PgConnection, writes: &Writes) -> sqlx::Result<()> {
        query(WRITE)
            .bind(json(&writes.events))
            .bind(json(&writes.ledger))
            .bind(json(&writes.orders))
            .execute(connection)
            .await
            .map(drop)
    }

    async fn account(connection: &mut PgConnection, id: &AccountId) -> sqlx::Result<Option<AccountRow>> {
        let select = "select merchant, user_id, balance, entries from wxpay_points_accounts
            where merchant = $1 and user_id = $2";
        query_as(select).bind(id.merchant.as_str()).bind(id.user.as_str()).fetch_optional(connection).await
    }

    async fn ledger_of_account(
        connection: &mut PgConnection,
        id: &AccountId,
        limit: i64,
    ) -> sqlx::Result<Vec<LedgerRow>> {
        query_as(select_ledger!("where merchant = $1 and user_id = $2 order by seq desc limit $3"))
            .bind(id.merchant.as_str())
            .bind(id.user.as_str())
            .bind(limit)
            .fetch_all(connection)
            .await
    }

    async fn ledger_of_order(connection: &mut PgConnection, id: &OrderId) -> sqlx::Result<Vec<LedgerRow>> {
        query_as(select_ledger!("where merchant = $1 and out_trade_no = $2 order by seq"))
            .bind(id.merchant.as_str())
            .bind(id.out_trade_no.as_str())
            .fetch_all(connection)
            .await
    }

    async fn insert_audit(connection: &mut PgConnection, lines: &[AuditRow]) -> sqlx::Result<()> {
        query(INSERT_AUDIT).bind(json(lines)).execute(connection).await.map(drop)
    }

    async fn audit(connection: &mut PgConnection, filter: &AuditFilter) -> sqlx::Result<Vec<AuditRow>> {
        query_as(AUDIT).bind(&filter.notification).bind(&filter.since).bind(filter.limit).fetch_all(connection).await
    }
}

fn columns<'a>(ids: &[&'a OrderId]) -> (Vec<&'a str>, Vec<&'a str>) {
    ids.iter().map(|id| (id.merchant.as_str(), id.out_trade_no.as_str())).unzip()
}

fn json(rows: &[impl Serialize]) -> String {
    serde_json::to_string(rows).expect("rows are text and numbers, which always become JSON")
}
