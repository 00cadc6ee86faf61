//! The client of the admin API: one method a request, one clear sentence for each way it can fail.
//!
//! It is the only way by which `wxpayctl` reaches orders, points and dead letters, whoever serves them: `wxpayctl serve`
//! or `wxpay-worker`. The token goes into the header and nowhere else.

use std::{convert::Infallible, fmt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use wxpay_shared::{
    admin::{
        DeadLetterList, DeadLetterView, Discard, Discarded, OrderView, PointsView, Problem, RegisterOrder,
        RegisterRefund, Replay, Replayed,
    },
    config::read_secret,
    ids::{MerchantName, NotificationId, OutTradeNo, UserId},
    queue::Depths,
    reason::Reason,
};

/// Time for a connection to the admin API.
const CONNECT_BUDGET: Duration = Duration::from_secs(5);
/// Time for an answer; a replay of thousands takes a while.
const ANSWER_BUDGET: Duration = Duration::from_secs(600);

/// Where the admin API listens unless it is told otherwise.
pub const DEFAULT_ADMIN: &str = "http://127.0.0.1:8082";

/// How to reach the admin API.
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {
    /// Where the admin API listens.
    #[arg(long, global = true, value_name = "URL", env = "WXPAY_ADMIN", default_value = DEFAULT_ADMIN)]
    admin: Url,
    /// Its bearer token; better given by the environment, which other users cannot list.
    #[arg(long, global = true, value_name = "TOKEN", env = "WXPAY_ADMIN_TOKEN", hide_env_values = true, value_parser = secret)]
    admin_token: Option<SecretString>,
    /// A file with the token, where no token is given.
    #[arg(long, global = true, value_name = "FILE", env = "WXPAY_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

/// A secret from the command line, which is hidden from then on.
///
/// # Errors
/// Never.
pub fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

/// The admin API said no: what was asked for is not there, or contradicts what is.
#[derive(Debug)]
pub struct Refused {
    /// 404 or 409.
    pub status: StatusCode,
    /// The server's sentence.
    pub error: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Refused {}

/// A connection to the admin API.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
}

/// An HTTP client for this address. A proxy from the environment is not asked for this machine's own addresses.
///
/// # Errors
/// Where TLS cannot be set up.
pub fn http_client(url: &Url, budget: Duration) -> Result<reqwest::Client> {
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_BUDGET).timeout(budget);
    let builder = builder.redirect(reqwest::redirect::Policy::none());
    let local = match url.host_str() {
        Some("localhost" | "[::1]") => true,
        host => host.is_some_and(|host| host.starts_with("127.")),
    };
    let builder = if local { builder.no_proxy() } else { builder };
    builder.build().context("cannot set up the HTTP client")
}

impl AdminArgs {
    /// The client that these arguments describe.
    ///
    /// # Errors
    /// Where the token's file cannot be read, and as [`Client::new`].
    pub fn client(&self) -> Result<Client> {
        let token = match (&self.admin_token, &self.admin_token_file) {
            (None, Some(file)) => Some(read_secret("--admin-token-file", file)?),
            (token, _) => token.clone(),
        };
        Client::new(self.admin.clone(), token)
    }
}

impl Client {
    /// A client of the admin API at this address; connects with the first request.
    ///
    /// # Errors
    /// For an address that is no HTTP address.
    pub fn new(base: Url, token: Option<SecretString>) -> Result<Self> {
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            bail!("--admin: expected an address such as http://127.0.0.1:8082");
        }
        Ok(Self { http: http_client(&base, ANSWER_BUDGET)?, base, token })
    }

    /// Registers an order. Returns whether it is new.
    ///
    /// # Errors
    /// [`Refused`] for an unknown merchant and for an order that is known otherwise.
    pub async fn register(&self, order: &RegisterOrder) -> Result<(bool, OrderView)> {
        let (status, view) = self.ask(Method::POST, &["orders"], &[], Some(order)).await?;
        Ok((status == StatusCode::CREATED, view))
    }

    /// An order and its story.
    ///
    /// # Errors
    /// [`Refused`] for an unknown order.
    pub async fn order(&self, merchant: &MerchantName, out_trade_no: &OutTradeNo) -> Result<OrderView> {
        self.get(&["orders", merchant.as_str(), out_trade_no.as_str()], &[]).await
    }

    /// Closes an unpaid order.
    ///
    /// # Errors
    /// [`Refused`] for an unknown order and for a paid one.
    pub async fn close(&self, merchant: &MerchantName, out_trade_no: &OutTradeNo) -> Result<OrderView> {
        let path = ["orders", merchant.as_str(), out_trade_no.as_str(), "close"];
        Ok(self.ask(Method::POST, &path, &[], None::<&()>).await?.1)
    }

    /// Registers a refund before it is requested from WeChat.
    ///
    /// # Errors
    /// [`Refused`] for an unknown order and for a number that is known with another amount.
    pub async fn register_refund(
        &self,
        merchant: &MerchantName,
        out_trade_no: &OutTradeNo,
        refund: &RegisterRefund,
    ) -> Result<OrderView> {
        let path = ["orders", merchant.as_str(), out_trade_no.as_str(), "refunds"];
        Ok(self.ask(Method::POST, &path, &[], Some(refund)).await?.1)
    }

    /// A points account.
    ///
    /// # Errors
    /// [`Refused`] for an unknown account.
    pub async fn points(&self, merchant: &MerchantName, user: &UserId) -> Result<PointsView> {
        self.get(&["points", merchant.as_str(), user.as_str()], &[]).await
    }

    /// Dead letters, oldest first.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn dead_letters(
        &self,
        reason: Option<Reason>,
        merchant: Option<&MerchantName>,
        limit: Option<usize>,
    ) -> Result<DeadLetterList> {
        let query = [
            ("reason", reason.map(|reason| reason.to_string())),
            ("merchant", merchant.map(ToString::to_string)),
            ("limit", limit.map(|limit| limit.to_string())),
        ];
        self.get(&["dead-letters"], &query).await
    }

    /// One dead letter with everything.
    ///
    /// # Errors
    /// [`Refused`] for an unknown one.
    pub async fn dead_letter(&self, id: &NotificationId) -> Result<DeadLetterView> {
        self.get(&["dead-letters", id.as_str()], &[]).await
    }

    /// Takes dead letters through the worker once more.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed> {
        Ok(self.ask(Method::POST, &["dead-letters", "replay"], &[], Some(replay)).await?.1)
    }

    /// Removes dead letters for good.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn discard(&self, discard: &Discard) -> Result<Discarded> {
        Ok(self.ask(Method::POST, &["dead-letters", "discard"], &[], Some(discard)).await?.1)
    }

    /// How many messages are where.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn depths(&self) -> Result<Depths> {
        self.get(&["queue"], &[]).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, Option<String>)]) -> Result<T> {
        Ok(self.ask(Method::GET, path, query, None::<&()>).await?.1)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<String>)],
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, T)> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| anyhow!("--admin: expected an HTTP address"))?.pop_if_empty().extend(path);
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(error))?;
        if status.is_success() {
            return Ok((status, serde_json::from_slice(&bytes).map_err(|_| self.stranger(status))?));
        }
        let problem: Problem = serde_json::from_slice(&bytes).map_err(|_| self.stranger(status))?;
        match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Err(Refused { status, error: problem.error }.into()),
            StatusCode::UNAUTHORIZED => {
                Err(anyhow!("{}; give the token with WXPAY_ADMIN_TOKEN or --admin-token-file", problem.error))
            }
            _ => Err(anyhow!("{} (status {})", problem.error, status.as_u16())),
        }
    }

    /// The address may hold a user's name, so it is left out of the cause.
    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        let base = self.base.origin().ascii_serialization();
        if error.is_connect() {
            return anyhow!(
                "nothing answers at {base}: start `wxpayctl serve` or `wxpay-worker`, or name the worker's admin address \
                 with --admin or WXPAY_ADMIN"
            );
        }
        if error.is_timeout() {
            return anyhow!("{base} did not answer within {} s", ANSWER_BUDGET.as_secs());
        }
        anyhow::Error::new(error.without_url()).context(format!("the connection to {base} broke"))
    }

    fn stranger(&self, status: StatusCode) -> anyhow::Error {
        let base = self.base.origin().ascii_serialization();
        anyhow!("{base} answers (status {}), but not as the admin API of wxpay-worker does", status.as_u16())
    }
}
