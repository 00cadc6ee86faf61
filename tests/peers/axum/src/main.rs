//! A handler that does everything in the request: verify, and one transaction on PostgreSQL.

use std::{collections::BTreeMap, env, fs};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use md5::{Digest, Md5};
use sqlx::{PgPool, postgres::PgPoolOptions};

type Fields = BTreeMap<String, String>;
type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
struct App {
    key: String,
    pool: Option<PgPool>,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let setting = |name| env::var(name).map_err(|_| format!("{name} is missing"));
    let key = fs::read_to_string(setting("KEY_FILE")?)?.trim().to_owned();
    let pool = match setting("MODE")?.as_str() {
        "transaction" => Some(PgPoolOptions::new().max_connections(20).connect(&setting("DATABASE_URL")?).await?),
        _ => None,
    };
    let app = Router::new().route("/notify", post(notify)).with_state(App { key, pool });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", setting("PORT")?.parse()?)).await?;
    Ok(axum::serve(listener, app).await?)
}

async fn notify(State(app): State<App>, body: Bytes) -> (StatusCode, &'static str) {
    let Some(notice) = verified(&body, &app.key) else { return (StatusCode::OK, FAIL) };
    match &app.pool {
        Some(pool) if apply(pool, &notice).await.is_err() => (StatusCode::INTERNAL_SERVER_ERROR, FAIL),
        _ => (StatusCode::OK, SUCCESS),
    }
}

const SUCCESS: &str =
    "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>";
const FAIL: &str = "<xml><return_code><![CDATA[FAIL]]></return_code></xml>";

fn verified(body: &[u8], key: &str) -> Option<Fields> {
    let mut fields: Fields = quick_xml::de::from_str(std::str::from_utf8(body).ok()?).ok()?;
    let sign = fields.remove("sign")?;
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        text.extend([name, "=", value, "&"]);
    }
    text.extend(["key=", key]);
    let digest: String = Md5::digest(text).iter().map(|byte| format!("{byte:02X}")).collect();
    (digest == sign).then_some(fields)
}

/// Records the payment, marks the order as paid and credits the points, once.
async fn apply(pool: &PgPool, notice: &Fields) -> Result<(), Error> {
    let field = |name: &str| notice.get(name).map(String::as_str).unwrap_or_default();
    let amount: i64 = field("total_fee").parse()?;
    let mut transaction = pool.begin().await?;
    let event = "insert into peer_events (transaction_id, out_trade_no, amount) values ($1, $2, $3) on conflict do nothing";
    let event = sqlx::query(event).bind(field("transaction_id")).bind(field("out_trade_no")).bind(amount);
    if event.execute(&mut *transaction).await?.rows_affected() == 1 {
        let order = "update peer_orders set state = 'paid' where out_trade_no = $1 and amount = $2 returning user_id";
        let order = sqlx::query_scalar(order).bind(field("out_trade_no")).bind(amount);
        let user: String = order.fetch_one(&mut *transaction).await?;
        let points = "insert into peer_points (user_id, balance) values ($1, $2)
            on conflict (user_id) do update set balance = peer_points.balance + excluded.balance";
        sqlx::query(points).bind(user).bind(amount / 100).execute(&mut *transaction).await?;
    }
    Ok(transaction.commit().await?)
}
