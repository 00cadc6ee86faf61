//! The SQL homes, for the contract suite.

use std::sync::Arc;

use async_trait::async_trait;
use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    store::{Store, open},
};

use super::StoreHome;
use crate::harness::database::{Kind, fresh_schema};

/// A store as a worker opens it: with connections of its own.
pub(crate) async fn open_store(url: &str) -> anyhow::Result<Arc<dyn Store>> {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path(), Holds::Shortcut).await.unwrap();
    open::open(&url.to_owned().into(), 8, &disk, Arc::new(SystemClock)).await
}

pub(crate) struct SqlHome {
    url: String,
    store: Arc<dyn Store>,
}

impl SqlHome {
    pub(crate) async fn new(kind: Kind) -> Self {
        let url = fresh_schema(kind).await;
        let store = open_store(&url).await.unwrap();
        Self { url, store }
    }
}

#[async_trait]
impl StoreHome for SqlHome {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    async fn reopen(&mut self) {
        self.store = open_store(&self.url).await.unwrap();
    }
}
