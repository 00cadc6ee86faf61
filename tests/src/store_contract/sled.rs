//! The embedded store as a home of the contract, and what it promises beyond it.

use std::sync::Arc;

use async_trait::async_trait;
use wxpay_shared::{
    clock::SystemClock,
    disk::{Disk, Holds},
    store::{Store, embedded::EmbeddedStore},
};

use super::{StoreHome, samples::*};

pub(super) struct EmbeddedHome {
    directory: tempfile::TempDir,
    open: Option<(Disk, Arc<EmbeddedStore>)>,
}

impl EmbeddedHome {
    pub(super) async fn new() -> Self {
        let mut home = Self { directory: tempfile::tempdir().unwrap(), open: None };
        home.reopen().await;
        home
    }
}

#[async_trait]
impl StoreHome for EmbeddedHome {
    fn store(&self) -> Arc<dyn Store> {
        Arc::<EmbeddedStore>::clone(&self.open.as_ref().expect("open between reopenings").1)
    }

    async fn reopen(&mut self) {
        if let Some((disk, store)) = self.open.take() {
            drop(store);
            disk.close().await.unwrap();
        }
        let disk = Disk::open(self.directory.path(), Holds::Records).await.unwrap();
        let store = EmbeddedStore::open(disk.clone(), Arc::new(SystemClock)).unwrap();
        self.open = Some((disk, Arc::new(store)));
    }
}

#[tokio::test]
async fn the_embedded_store_flushes_nothing_for_repeats() {
    let home = EmbeddedHome::new().await;
    let (disk, store) = home.open.as_ref().unwrap();
    register(&**store, &["A", "B"]).await;
    assert_eq!(apply(&**store, &[paid("A", "T1")]).await, ["fresh +1999"]);
    let before = disk.syncs();
    assert_eq!(apply(&**store, &[paid("A", "T1"), paid("A", "T1")]).await, ["duplicate"; 2]);
    assert_eq!(disk.syncs(), before);
    assert_eq!(apply(&**store, &[paid("A", "T1"), paid("B", "T2")]).await, ["duplicate", "fresh +1999"]);
    assert_eq!(disk.syncs(), before + 1);
}

/// Customer by customer, as it lay before, each payment was written to another page.
#[tokio::test]
async fn a_ledger_of_an_earlier_version_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::open(directory.path(), Holds::Records).await.unwrap();
    let ledger = disk.tree("store.ledger").unwrap();
    ledger.insert(b"shop\0u\0\0\0\0\0\0\0\0\0", b"{}").unwrap();
    let error = EmbeddedStore::open(disk, Arc::new(SystemClock)).err().unwrap();
    assert!(error.to_string().contains("data_dir: the ledger in it is an earlier version's"), "{error}");
    assert_eq!(ledger.len(), 1);
}
