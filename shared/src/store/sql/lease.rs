//! A connection that a call has for itself, and how it goes back.
//!
//! On its way back the driver asks it whether it lives, and waits without a limit. Where a line fell silent, a connection
//! would stay there until TCP gives it up, a quarter of an hour later, and the pool would have one less.

use std::time::Duration;

use sqlx::{Connection as _, Pool, Transaction, pool::PoolConnection};
use tokio::time::timeout;

use super::{Dialect, StoreError};

/// The time for a connection that goes back to show that it lives.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// A connection on loan.
pub(super) struct Lease<D: Dialect>(PoolConnection<D>);

impl<D: Dialect> Lease<D> {
    /// A connection of the pool's. A server that gives none is away, whatever it says: that is about no event.
    pub(super) async fn of(pool: &Pool<D>) -> Result<Self, StoreError> {
        pool.acquire().await.map(Self).map_err(|error| StoreError::Unavailable(Box::new(error)))
    }

    pub(super) fn connection(&mut self) -> &mut D::Connection {
        &mut self.0
    }

    pub(super) async fn begin(&mut self) -> sqlx::Result<Transaction<'_, D>> {
        self.0.begin().await
    }

    /// Begins a transaction that only reads, all of it from one moment.
    pub(super) async fn begin_snapshot(&mut self) -> sqlx::Result<Transaction<'_, D>> {
        self.0.begin_with(D::BEGIN_SNAPSHOT).await
    }
}

impl<D: Dialect> Drop for Lease<D> {
    fn drop(&mut self) {
        // What does not answer is dropped, which closes its socket and makes room in the pool. `return_to_pool` is what the
        // driver does itself here; it is public, though not in its documents.
        let back = timeout(RELEASE_LIMIT, self.0.return_to_pool());
        tokio::spawn(async move {
            if back.await.is_err() {
                tracing::warn!("a connection to the store fell silent; it is given up");
            }
        });
    }
}
