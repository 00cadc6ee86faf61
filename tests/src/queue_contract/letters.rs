//! The part of the queue's contract that is about dead letters.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use wxpay_shared::{
    queue::{Home as Where, QueueError},
    reason::{Reason, Rejection},
};

use super::*;

pub(super) async fn a_dead_letter_keeps_id_headers_body_and_log(mut home: impl Home) {
    bury(&home, 0..3).await;
    home.restart().await;
    let letters = home.dead_letters().await;
    let mut desk = letters.open().await.unwrap();
    let found = messages(&read(&mut *desk).await);
    assert_eq!(found, (0..3).map(|number| rejected(&message(number))).collect::<Vec<_>>());
    desk.close().await;
}

pub(super) async fn the_dead_letters_have_one_reader_at_a_time(home: impl Home) {
    bury(&home, 0..1).await;
    let (one, other) = (home.dead_letters().await, home.dead_letters().await);
    let desk = one.open().await.unwrap();
    assert!(matches!(other.open().await, Err(QueueError::Busy)));
    assert!(matches!(one.open().await, Err(QueueError::Busy)));
    desk.close().await;
    let mut desk = other.open().await.unwrap();
    assert_eq!(read(&mut *desk).await.len(), 1);
    desk.close().await;
}

pub(super) async fn a_letter_stays_until_it_is_settled(home: impl Home) {
    bury(&home, 0..4).await;
    let letters = home.dead_letters().await;
    for _ in 0..3 {
        let mut desk = letters.open().await.unwrap();
        let found = read(&mut *desk).await;
        assert_eq!(found.len(), 4);
        desk.give_back(&found[..1]).await.unwrap();
        desk.close().await;
    }
    let mut desk = letters.open().await.unwrap();
    let found = read(&mut *desk).await;
    let kept = found[1].message.clone();
    ack(&*desk, &found[..1]).await;
    ack(&*desk, &found[2..]).await;
    desk.close().await;
    depth_of_dead(&home, 1).await;
    let mut desk = letters.open().await.unwrap();
    assert_eq!(messages(&read(&mut *desk).await), [kept]);
    desk.close().await;
}

pub(super) async fn a_letter_that_dies_again_replaces_itself(home: impl Home) {
    bury(&home, 0..2).await;
    let letters = home.dead_letters().await;
    let mut desk = letters.open().await.unwrap();
    let first = desk.next().await.unwrap().unwrap();
    let mut changed = first.message.clone();
    changed.log.rejection = Some(Rejection::new(Reason::UnknownOrder, "order 7"));
    park(&*desk, first, changed.clone(), Where::Dead).await;
    // The new copy is no part of this reading.
    assert_eq!(read(&mut *desk).await.len(), 1);
    desk.close().await;
    depth_of_dead(&home, 2).await;
    let mut desk = letters.open().await.unwrap();
    assert!(messages(&read(&mut *desk).await).contains(&changed));
    desk.close().await;
}

pub(super) async fn a_letter_can_be_added_while_others_are_read(mut home: impl Home) {
    bury(&home, 0..1).await;
    let letters = home.dead_letters().await;
    let mut desk = letters.open().await.unwrap();
    desk.add(rejected(&message(1))).await.unwrap();
    assert_eq!(messages(&read(&mut *desk).await), [rejected(&message(0))], "it is no part of this reading");
    drop((desk, letters));
    home.restart().await;
    // The broker's own count, by which a reading knows its end, may come after its queues.
    depth_of_dead(&home, 2).await;
    let mut desk = home.dead_letters().await.open().await.unwrap();
    assert_eq!(messages(&read(&mut *desk).await), [0, 1].map(|number| rejected(&message(number))));
    desk.close().await;
}

pub(super) async fn a_reading_has_no_limit(home: impl Home) {
    const LETTERS: usize = 2_300;
    let letters = home.dead_letters().await;
    let mut desk = letters.open().await.unwrap();
    let adding = stream::iter(0..LETTERS).map(|number| desk.add(rejected(&message(number)))).buffer_unordered(32);
    adding.for_each(async |added| added.unwrap()).await;
    desk.close().await;
    desk = letters.open().await.unwrap();
    let found = read(&mut *desk).await;
    assert_eq!(found.iter().map(|letter| &letter.message.id).collect::<BTreeSet<_>>().len(), LETTERS);
    ack(&*desk, &found[..1_200]).await;
    desk.close().await;
    // Settled while they are read, as a replay does it.
    desk = letters.open().await.unwrap();
    let mut settled = 0;
    while let Some(letter) = desk.next().await.unwrap() {
        ack(&*desk, &[letter]).await;
        settled += 1;
    }
    desk.close().await;
    assert_eq!(settled, LETTERS - 1_200);
    depth_of_dead(&home, 0).await;
}

pub(super) async fn a_replayed_letter_comes_to_the_workers(home: impl Home) {
    bury(&home, 0..1).await;
    let letters = home.dead_letters().await;
    let mut desk = letters.open().await.unwrap();
    let letter = desk.next().await.unwrap().unwrap();
    park(&*desk, letter, message(0), Where::Retry(0)).await;
    desk.close().await;
    assert_eq!(messages(&take(&*home.consumer().await, 1).await), [message(0)]);
    depth_of_dead(&home, 0).await;
}
