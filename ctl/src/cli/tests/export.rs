//! An export whose client is slow.

use std::collections::{BTreeMap, BTreeSet};

use wxpay_shared::{
    admin::{ExportItem, LetterFile, Selection},
    clock::{Clock as _, SystemClock},
    envelope::{Log, Message},
    http::REPLY_BUDGET,
    ids::NotificationId,
};

use super::{Served, TOKEN, Verdict};
use crate::client::Client;

/// With their bodies, more than worker and sockets take ahead.
const LETTERS: usize = 600;
const BODY: usize = 48 << 10;

fn lines() -> String {
    let message = |_| Message {
        id: NotificationId::new(SystemClock.now()),
        headers: BTreeMap::new(),
        body: vec![b'x'; BODY].into(),
        log: Log::default(),
    };
    (0..LETTERS).map(message).map(|it| serde_json::to_string(&LetterFile::of(&it)).unwrap() + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_nobody_reads_leaves_the_dead_letters_to_others_and_then_goes_on() {
    let served = Served::start().await;
    let file = served.directory.path().join("letters");
    std::fs::write(&file, lines()).unwrap();
    let imported = format!("{LETTERS} dead letters imported");
    served.expect(&format!("dlq import {}", file.display()), Verdict::Fine, &[&imported]).await;

    let admin = format!("http://{}", served.together.admin).parse().unwrap();
    let client = Client::new(admin, Some(TOKEN.into())).unwrap();
    let mut export = client.export(&Selection { all: true, ..Selection::default() }).await.unwrap();
    let all = format!("of {LETTERS} shown");
    let shown = [all.as_str()];
    let listed = served.expect("dlq list", Verdict::Fine, &shown);
    // Well before the listener gives up on a client that does not read.
    tokio::time::timeout(REPLY_BUDGET / 2, listed).await.expect("the export made room");

    let mut told = BTreeSet::new();
    let end = loop {
        match export.next().await.unwrap().unwrap() {
            ExportItem::Letter(letter) => assert!(told.insert(letter.id().clone()), "each is told once"),
            ExportItem::End(end) => break end,
        }
    };
    assert_eq!((told.len(), end.exported, end.problem), (LETTERS, LETTERS, None));
    served.together.stop().await.unwrap();
}
