//! One reading of the dead letters of the embedded queue.
//!
//! It sees what was there when it was opened, oldest first: what is parked again meanwhile gets a number beyond that. A
//! discarded letter is gone for certain when `ack` returns, since a person was told so.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;

use super::{
    super::{Delivery, Desk, Home, QueueError, Settle, Ticket},
    Inner, next_epoch, record,
    shelves::{Key, Place, Shelf},
    unavailable,
};
use crate::envelope::Message;

pub(super) struct EmbeddedDesk {
    inner: Arc<Inner>,
    epoch: u64,
    /// The last letter that was read.
    read: Key,
    /// The last letter that was there at the opening.
    last: Key,
}

impl EmbeddedDesk {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let last = Key { due: 0, sequence: inner.shelves.last_sequence() };
        Self { inner, epoch: next_epoch(), read: Key::default(), last }
    }

    fn place(&self, ticket: Ticket) -> Option<Place> {
        (ticket.epoch == self.epoch).then_some(Place { shelf: Shelf::Dead, key: Key { due: 0, sequence: ticket.tag } })
    }
}

impl Drop for EmbeddedDesk {
    fn drop(&mut self) {
        self.inner.desk_taken.store(false, Ordering::Release);
    }
}

#[async_trait]
impl Desk for EmbeddedDesk {
    async fn next(&mut self) -> Result<Option<Delivery>, QueueError> {
        let (inner, read, last) = (Arc::clone(&self.inner), self.read, self.last);
        let next = self.inner.disk.run(move || inner.shelves.next(Shelf::Dead, read, last)).await?;
        Ok(next.map_err(unavailable)?.map(|(key, message)| {
            self.read = key;
            let ticket = Ticket { epoch: self.epoch, tag: key.sequence, part: 0 };
            Delivery { message, returned: 0, ticket }
        }))
    }

    async fn add(&self, message: Message) -> Result<(), QueueError> {
        let (inner, record) = (Arc::clone(&self.inner), record::encode(&message));
        self.inner.disk.commit(move || inner.shelves.add(Shelf::Dead, record)).await?.map_err(unavailable)
    }

    async fn close(self: Box<Self>) {}
}

#[async_trait]
impl Settle for EmbeddedDesk {
    async fn ack(&self, tickets: &[Ticket]) -> Result<(), QueueError> {
        let places: Vec<_> = tickets.iter().filter_map(|ticket| self.place(*ticket)).collect();
        let inner = Arc::clone(&self.inner);
        let removed = self.inner.disk.commit(move || places.into_iter().try_for_each(|it| inner.shelves.remove(it)));
        removed.await?.map_err(unavailable)
    }

    /// A dead letter that is not settled stays where it is.
    async fn give_back(&self, _: &[Delivery]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn park(&self, delivery: &Delivery, home: Home) -> Result<(), QueueError> {
        let Some(place) = self.place(delivery.ticket) else {
            return Err(QueueError::Unavailable("the dead letter was read at another desk".into()));
        };
        self.inner.relocate(place, delivery, home).await
    }
}
