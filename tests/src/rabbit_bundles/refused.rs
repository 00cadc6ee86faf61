//! The broker takes no copies: whatever was to be published anew stays where it was, with what came beside it.

use wxpay_servers::rabbitmq::Node;

use super::*;

/// A virtual host of which one queue can be made to refuse what is published to it.
struct Refusing {
    broker: Broker,
    node: &'static Node,
    host: String,
}

impl Refusing {
    async fn open() -> Self {
        let (node, host) = rabbitmq::fresh_host().await;
        Self { broker: Broker::at(node.url(&host)).await, node, host }
    }

    /// From now on this queue refuses what is published to it, while more than one message is in it.
    async fn refuse(&self, queue: &str) {
        let pattern = format!("^{}$", queue.replace('.', "\\."));
        self.node.ctl(&[
            "set_policy",
            "-p",
            &self.host,
            "full",
            &pattern,
            "{\"max-length\":1}",
            "--apply-to",
            "queues",
        ]);
        wait_until("the queue refuses", PATIENCE, async || {
            self.broker.publisher.publish_to(queue, message(9_000)).await == Err(PublishError::Nacked)
        })
        .await;
    }

    /// Returns when everything is taken again from new connections; to those that were refused an idle queue never says so.
    async fn take_again(&self, queue: &str) {
        self.node.ctl(&["clear_policy", "-p", &self.host, "full"]);
        wait_until("the queue takes", PATIENCE, async || {
            let fresh = Broker::at(self.broker.url.clone()).await;
            fresh.publisher.publish_to(queue, message(9_000)).await.is_ok()
        })
        .await;
    }

    async fn publish_alone(&self, queue: &str, numbers: Range<usize>) {
        for number in numbers {
            self.broker.publisher.publish_to(queue, message(number)).await.unwrap();
        }
    }
}

fn has(deliveries: &[Delivery], number: usize) -> bool {
    deliveries.iter().any(|delivery| delivery.message == message(number))
}

/// Receives and acks until these have come.
async fn wait_for(consumer: &RabbitConsumer, numbers: Range<usize>) {
    let mut missing: Vec<_> = numbers.collect();
    while !missing.is_empty() {
        let taken = take(consumer, 1).await;
        missing.retain(|number| !has(&taken, *number));
        ack(consumer, &taken).await;
    }
}

#[tokio::test]
async fn what_can_only_go_back_with_its_neighbours_does() {
    let home = Refusing::open().await;
    home.broker.publish_at_once(0..3).await;
    let consumer = home.broker.consumer();
    let taken = take(&consumer, 3).await;
    // More than the prefetch, so that some are left in the queue.
    home.publish_alone(topology::NOTIFY, 100..112).await;
    home.refuse(topology::NOTIFY).await;
    consumer.give_back(&taken[..1]).await.unwrap();
    ack(&consumer, &taken[1..]).await;
    wait_for(&consumer, 0..3).await;
}

#[tokio::test]
async fn a_bundle_that_cannot_be_taken_apart_is_handled_as_it_is() {
    let home = Refusing::open().await;
    home.broker.publish_at_once(0..3).await;
    wait_until("it was returned often enough", PATIENCE, async || {
        take(&home.broker.consumer(), 3).await[0].returned >= topology::RETURNED_OFTEN - 1
    })
    .await;
    home.publish_alone(topology::NOTIFY, 100..104).await;
    home.refuse(topology::NOTIFY).await;
    let consumer = home.broker.consumer();
    let taken = take(&consumer, 3).await;
    assert_eq!(messages(&taken), numbered(0..3));
    assert!(taken[0].returned >= topology::RETURNED_OFTEN);
    ack(&consumer, &taken).await;
    wait_for(&consumer, 100..104).await;
}

#[tokio::test]
async fn a_dead_bundle_that_cannot_be_taken_apart_stays_one() {
    let home = Refusing::open().await;
    home.broker.publish_at_once(0..3).await;
    let stranger = stranger(&home.broker.url).await;
    move_to_dead(&stranger).await;
    // More than the desk has in its hands at a time, so that some are left in the queue.
    home.publish_alone(topology::DEAD, 100..1_110).await;
    home.refuse(topology::DEAD).await;
    let letters = home.broker.letters();
    let before = letters.depths().await.unwrap().dead;
    let mut desk = letters.open().await.unwrap();
    assert!(desk.next().await.is_err());
    desk.close().await;
    wait_until("as many messages as before", PATIENCE, async || letters.depths().await.unwrap().dead == before).await;
    home.take_again(topology::DEAD).await;
    let mut desk = home.broker.letters().open().await.unwrap();
    let found = read(&mut *desk).await;
    for number in 0..3 {
        assert!(found.iter().any(|letter| letter.message.id == message(number).id), "{number} is lost");
    }
    desk.close().await;
}

#[tokio::test]
async fn who_was_refused_is_taken_again_when_the_limit_is_lifted() {
    let home = Refusing::open().await;
    home.publish_alone(topology::NOTIFY, 0..2).await;
    home.refuse(topology::NOTIFY).await;
    home.node.ctl(&["clear_policy", "-p", &home.host, "full"]);
    // Nothing is consumed, so the broker says nothing of it to the channel that it refused.
    wait_until("the queue takes", PATIENCE * 2, async || home.broker.publisher.publish(message(3)).await.is_ok()).await;
}
