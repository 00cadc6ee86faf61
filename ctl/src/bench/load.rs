//! The load: requests that were written before, sent over connections that stay open.
//!
//! It costs as little as it can, for it shares the machine with what it measures: one thread, one write and about one
//! read a request. A closed loop sends the next request when the reply is there. An open loop sends at a constant rate
//! and measures from the moment at which a request was due, so a server that stalls is charged with every request that
//! had to wait (no coordinated omission).

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
    time::{Instant, sleep_until, timeout},
};

/// The longest wait for a reply; WeChat waits 5 s.
const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// A reply's header.
const HEADERS_MAX: usize = 32;

/// What is sent, and where to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Vec<Vec<u8>>>,
}

/// How it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) connections: usize,
    /// Requests a second; as fast as replies come where `None`.
    pub(super) rate: Option<u64>,
    /// What is sent in this time at the beginning is not counted.
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
    /// The first request of `requests`; the next ones follow, and round again.
    pub(super) first: usize,
}

/// What came back.
pub(super) struct Outcome {
    /// Requests that were accepted in the measured time.
    pub(super) accepted: u64,
    /// When the load began.
    pub(super) started: Instant,
    /// Replies to all requests, in the order in which they came: the time since the start.
    pub(super) replies: Vec<Duration>,
    /// Microseconds from the moment at which the request was sent, or due.
    pub(super) latency: Histogram<u64>,
}

impl Outcome {
    /// The longest time in which no reply came.
    pub(super) fn silence(&self) -> Duration {
        self.replies.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

struct Tally {
    started: Instant,
    next: Cell<usize>,
    outcome: RefCell<Outcome>,
}

/// Sends for the planned time, on a thread of its own.
///
/// # Errors
/// Where a reply stays away or is a refusal: such a run measures nothing.
pub(super) async fn run(target: Target, plan: Plan) -> Result<Outcome> {
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, send(target, plan))
    };
    tokio::task::spawn_blocking(thread).await.context("the load generator")?
}

async fn send(target: Target, plan: Plan) -> Result<Outcome> {
    let mut streams = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let stream = TcpStream::connect(target.address).await.with_context(|| format!("{}", target.address))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let started = Instant::now();
    let outcome = RefCell::new(Outcome { accepted: 0, started, replies: Vec::new(), latency: microseconds() });
    let tally = Rc::new(Tally { started, next: Cell::new(0), outcome });
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let (target, tally) = (target.clone(), Rc::clone(&tally));
            tokio::task::spawn_local(async move { converse(stream, &target, plan, &tally).await })
        })
        .collect();
    for task in tasks {
        task.await.context("the load generator")??;
    }
    let tally = Rc::into_inner(tally).context("a connection is still in use")?;
    Ok(tally.outcome.into_inner())
}

/// Microseconds up to a minute, to three digits.
///
/// # Panics
/// Never: the bounds are good.
pub(super) fn microseconds() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are good")
}

/// One connection: whichever is free takes the next request.
async fn converse(mut stream: TcpStream, target: &Target, plan: Plan, tally: &Tally) -> Result<()> {
    let begin = tally.started + plan.warm_up;
    let end = begin + plan.measured;
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let number = tally.next.replace(tally.next.get() + 1);
        let due = match plan.rate {
            Some(rate) => {
                let due = tally.started + Duration::from_nanos(number as u64 * 1_000_000_000 / rate.max(1));
                if due >= end {
                    return Ok(());
                }
                sleep_until(due).await;
                due
            }
            None => Instant::now(),
        };
        if due >= end {
            return Ok(());
        }
        let request = &target.requests[(plan.first + number) % target.requests.len()];
        stream.write_all(request).await?;
        let reply = timeout(REPLY_LIMIT, read_reply(&mut stream, &mut buffer));
        reply.await.with_context(|| format!("no reply within {} s", REPLY_LIMIT.as_secs()))??;
        let now = Instant::now();
        let mut outcome = tally.outcome.borrow_mut();
        outcome.replies.push(now - tally.started);
        if due >= begin && now < end {
            outcome.accepted += 1;
        }
        if due >= begin {
            let micros = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
            outcome.latency.saturating_record(micros);
        }
    }
}

/// Reads one reply and leaves the connection ready for the next request.
async fn read_reply(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        if let Some(accepted) = complete(buffer)? {
            if accepted {
                return Ok(());
            }
            bail!("refused: {}", String::from_utf8_lossy(&buffer[..buffer.len().min(400)]));
        }
    }
}

/// Whether the reply accepts the notification, once all of it is there.
fn complete(bytes: &[u8]) -> Result<Option<bool>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut reply = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = reply.parse(bytes).context("not an HTTP reply")? else {
        return Ok(None);
    };
    let status = reply.code.unwrap_or(0);
    let body = &bytes[length..];
    let header = |name: &str| reply.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let whole = match (status, header("content-length"), header("transfer-encoding")) {
        (204, _, _) => true,
        (_, Some(length), _) => body.len() >= std::str::from_utf8(length.value)?.trim().parse()?,
        (_, None, Some(_)) => body.ends_with(b"0\r\n\r\n"),
        (_, None, None) => bail!("a reply without its length"),
    };
    let says = |word: &[u8]| body.windows(word.len()).any(|part| part == word);
    Ok(whole.then(|| status == 204 || status == 200 && says(b"SUCCESS") && !says(b"FAIL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_complete_when_all_of_it_is_there() {
        let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nSUCCESS";
        for end in 0..reply.len() {
            assert_eq!(complete(&reply[..end]).unwrap(), None);
        }
        assert_eq!(complete(reply).unwrap(), Some(true));
        let said = |reply: &[u8]| complete(reply).unwrap();
        assert_eq!(said(b"HTTP/1.1 204 No Content\r\n\r\n"), Some(true));
        assert_eq!(said(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nFAIL"), Some(false));
        assert_eq!(said(b"HTTP/1.1 500 No\r\ncontent-length: 7\r\n\r\nSUCCESS"), Some(false));
        assert_eq!(said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nSUCCESS\r\n"), None);
        assert_eq!(said(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nSUCCESS\r\n0\r\n\r\n"), Some(true));
    }
}
