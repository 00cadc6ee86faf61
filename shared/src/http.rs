//! An HTTP listener with bounds: how every program of ours serves.
//!
//! Takes the listener and the shutdown token as arguments, so that a test can use port 0 and stop it. A connection that
//! does not finish its header in time is closed; when the token fires, no new connection is taken, idle ones are closed,
//! and requests in progress may finish within the grace period.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

/// Time for a request's header, and for an idle connection to send its next one.
pub const HEADER_BUDGET: Duration = Duration::from_secs(10);
/// Connections at a time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Pause after a failed `accept` (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener at a configured address.
///
/// # Errors
/// Where the address cannot be had; names the setting.
pub async fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{setting}: cannot listen at {address}"))
}

/// Serves until the token fires, then lets requests in progress finish for `grace`.
pub async fn serve(listener: TcpListener, router: Router, grace: Duration, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Replies are one small packet each; waiting to fill it would cost WeChat 40 ms.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_BUDGET)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept => {}
    }
    drop(listener);
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open after the grace period");
    }
}
