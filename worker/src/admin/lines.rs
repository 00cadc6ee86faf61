//! An answer that comes line by line, while the work goes on.
//!
//! The work runs in a task of its own and hands its lines over one at a time. Once nobody takes them any more, it sees so
//! between two dead letters and ends in an orderly way.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::mpsc;

/// The media type of such an answer.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Lines that wait for the client, at most.
const AHEAD: usize = 256;

/// Both ends of an answer: the work's and the response's.
pub(super) fn channel<T>() -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
    mpsc::channel(AHEAD)
}

/// The response to a client: each line as it comes.
pub(super) fn response<T: Serialize + Send + 'static>(lines: mpsc::Receiver<T>) -> Response {
    let lines = stream::unfold(lines, async |mut lines| {
        let item = lines.recv().await?;
        let mut line = serde_json::to_vec(&item).expect("texts and numbers always become JSON");
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), lines))
    });
    ([(CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}
