//! The client of the admin API: one method a request, one clear sentence for each way it can fail.
//!
//! It is the only way by which `wxpayctl` reaches orders, points and dead letters, whoever serves them: `wxpayctl serve`
//! or `wxpay-worker`. The token goes into the header and nowhere else.

use std::{convert::Infallible, fmt, marker::PhantomData, path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use jiff::Timestamp;
use reqwest::{Method, Response, StatusCode, Url, header::ACCEPT};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use wxpay_shared::{
    admin::{
        DeadLetterList, DeadLetterView, Discard, Discarded, ExportItem, Import, Imported, OrderView, PointsView,
        Problem, RegisterOrder, RegisterRefund, Replay, ReplayItem, Replayed, Selection,
    },
    config::read_secret,
    ids::{MerchantName, NotificationId, OutTradeNo, UserId},
    queue::Depths,
    store::audit::AuditEntry,
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
    /// For answers that come line by line, however long they take as a whole.
    patient: reqwest::Client,
    base: Url,
    token: Option<SecretString>,
}

/// An HTTP client for this address. A proxy from the environment is not asked for this machine's own addresses.
///
/// # Errors
/// Where TLS cannot be set up.
pub fn http_client(url: &Url, budget: Duration) -> Result<reqwest::Client> {
    http_builder(url).timeout(budget).build().context("cannot set up the HTTP client")
}

fn http_builder(url: &Url) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().connect_timeout(CONNECT_BUDGET);
    let builder = builder.redirect(reqwest::redirect::Policy::none());
    let local = match url.host_str() {
        Some("localhost" | "[::1]") => true,
        host => host.is_some_and(|host| host.starts_with("127.")),
    };
    if local { builder.no_proxy() } else { builder }
}

/// The form in which an answer is wanted.
#[derive(Clone, Copy)]
enum Form {
    Document,
    Lines,
}

/// An answer that comes line by line.
pub struct Lines<T> {
    client: Client,
    response: Response,
    rest: Vec<u8>,
    item: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next line; `None` at the end. May be dropped at any time.
    ///
    /// # Errors
    /// Where the connection breaks, or what comes is no such line.
    pub async fn next(&mut self) -> Result<Option<T>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let item = serde_json::from_slice(&line);
                return Ok(Some(item.map_err(|_| self.client.stranger(self.response.status()))?));
            }
            let chunk = self.response.chunk().await.map_err(|error| self.client.unreachable(error))?;
            let Some(chunk) = chunk else { return Ok(None) };
            self.rest.extend_from_slice(&chunk);
        }
    }
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
        let patient = http_builder(&base).read_timeout(ANSWER_BUDGET).build();
        let patient = patient.context("cannot set up the HTTP client")?;
        Ok(Self { http: http_client(&base, ANSWER_BUDGET)?, patient, base, token })
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

    /// Dead letters, oldest first: those that match, a page of them.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn dead_letters(&self, select: &Selection, limit: usize, page: Option<String>) -> Result<DeadLetterList> {
        let query = [
            ("reason", select.reason.map(|reason| reason.to_string())),
            ("merchant", select.merchant.as_ref().map(ToString::to_string)),
            ("order", select.order.as_ref().map(ToString::to_string)),
            ("received_before", select.received_before.map(|at| at.to_string())),
            ("received_after", select.received_after.map(|at| at.to_string())),
            ("limit", Some(limit.to_string())),
            ("page", page),
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

    /// The same, and tells of each as it happens. Dropping the answer ends the replay between two dead letters.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn replay_lines(&self, replay: &Replay) -> Result<Lines<ReplayItem>> {
        self.ask_for_lines(&["dead-letters", "replay"], replay).await
    }

    /// Removes dead letters for good.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn discard(&self, discard: &Discard) -> Result<Discarded> {
        Ok(self.ask(Method::POST, &["dead-letters", "discard"], &[], Some(discard)).await?.1)
    }

    /// Dead letters as lines of a file.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn export(&self, select: &Selection) -> Result<Lines<ExportItem>> {
        self.ask_for_lines(&["dead-letters", "export"], select).await
    }

    /// Makes dead letters of the lines of a file.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn import(&self, import: &Import) -> Result<Imported> {
        Ok(self.ask(Method::POST, &["dead-letters", "import"], &[], Some(import)).await?.1)
    }

    /// What people did with dead letters, oldest first.
    ///
    /// # Errors
    /// Where the API cannot be asked.
    pub async fn audit(
        &self,
        notification: Option<&NotificationId>,
        since: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>> {
        let query = [
            ("notification", notification.map(ToString::to_string)),
            ("since", since.map(|at| at.to_string())),
            ("limit", Some(limit.to_string())),
        ];
        self.get(&["dead-letters", "audit"], &query).await
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
        let response = self.send(Form::Document, method, path, query, body).await?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(|error| self.unreachable(error))?;
        Ok((status, serde_json::from_slice(&bytes).map_err(|_| self.stranger(status))?))
    }

    async fn ask_for_lines<T>(&self, path: &[&str], body: &impl Serialize) -> Result<Lines<T>> {
        let response = self.send(Form::Lines, Method::POST, path, &[], Some(body)).await?;
        Ok(Lines { client: self.clone(), response, rest: Vec::new(), item: PhantomData })
    }

    /// A successful answer, its body still to be read.
    async fn send(
        &self,
        form: Form,
        method: Method,
        path: &[&str],
        query: &[(&str, Option<String>)],
        body: Option<&impl Serialize>,
    ) -> Result<Response> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| anyhow!("--admin: expected an HTTP address"))?.pop_if_empty().extend(path);
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = match form {
            Form::Document => self.http.request(method, url),
            Form::Lines => self.patient.request(method, url).header(ACCEPT, "application/x-ndjson"),
        };
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.map_err(|error| self.unreachable(error))?;
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
