//! An HTTP listener with bounds: how every program of ours serves.
//!
//! Takes the listener and the shutdown token as arguments, so that a test can use port 0 and stop it. A connection that
//! does not finish its handshake or a header in time is closed, and one whose client does not read its replies; when the
//! token fires, no new connection is taken, idle ones are closed, and requests in progress may finish within the grace
//! period.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::{Router, extract::Request};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::tls::LiveTls;

/// Time for a TLS handshake, for a request's header, and for an idle connection to send its next one.
pub const HEADER_BUDGET: Duration = Duration::from_secs(10);
/// The largest header of a request, in bytes. A connection has a buffer for it before anything of the request is known.
pub const HEADERS_MAX: usize = 16 * 1024;
/// So long may a client leave what it is told unread, once the system holds no more of it.
pub const REPLY_BUDGET: Duration = Duration::from_secs(10);
/// Connections at a time; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections that the kernel holds until they are taken (the system's `net.core.somaxconn` may be less). One too many
/// is told nothing and tries again after a second, a fifth of WeChat's limit; the standard library's 128 are soon full.
const BACKLOG: u32 = 4_096;
/// Pause after a failed `accept` (out of file descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who connected; among the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A listener at a configured address.
///
/// # Errors
/// Where the address cannot be had; names the setting.
pub fn bind(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).with_context(|| format!("{setting}: cannot listen at {address}"))
}

/// A listener whose queue takes a burst of connections.
///
/// # Errors
/// Where the address cannot be had.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A program that starts again takes its port from the connections that its predecessor left in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves plain HTTP until the token fires, then lets requests in progress finish for `grace`.
pub async fn serve(listener: TcpListener, router: Router, grace: Duration, shutdown: CancellationToken) {
    serve_over(listener, None, router, grace, shutdown).await;
}

/// As [`serve`], over TLS where there is one.
pub async fn serve_over(
    listener: TcpListener,
    tls: Option<Arc<LiveTls>>,
    router: Router,
    grace: Duration,
    shutdown: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed");
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
            tokio::spawn(async move {
                converse(stream, Peer(peer), tls, router, watcher).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept => {}
    }
    drop(listener);
    if timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open after the grace period");
    }
}

/// One connection from its beginning to its end.
async fn converse(stream: TcpStream, peer: Peer, tls: Option<Arc<LiveTls>>, router: Router, watcher: Watcher) {
    // Replies are one small packet each; waiting to fill it would cost WeChat 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    match tls {
        None => speak(stream, peer, router, watcher).await,
        // Boxed: its state is several times as large, and each plain connection would have room for it.
        Some(tls) => Box::pin(shake_hands(stream, peer, &tls, router, watcher)).await,
    }
}

async fn shake_hands(stream: TcpStream, peer: Peer, tls: &LiveTls, router: Router, watcher: Watcher) {
    match timeout(HEADER_BUDGET, tls.now().accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, peer, router, watcher).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    watcher: Watcher,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(REPLY_BUDGET));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_BUDGET)
        .max_buf_size(HEADERS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_of_connections_is_held_until_they_are_taken() {
        const BURST: usize = 500;
        let listener = bind("ingress.listen", ([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let burst = async {
            let mut held = Vec::with_capacity(BURST);
            for _ in 0..BURST {
                held.push(TcpStream::connect(address).await.unwrap());
            }
            held
        };
        // Nothing accepts: only the kernel's queue can hold them.
        let held = timeout(Duration::from_secs(30), burst).await.expect("the queue is too short");
        assert_eq!(held.len(), BURST);
    }
}
