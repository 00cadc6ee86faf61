//! One queue of the broker is silent and the others are not: a quorum queue without a leader.

use super::*;

/// A good deal shorter than the 65 s for which such a queue holds up a channel.
const SOON: Duration = Duration::from_secs(30);

/// What waits for larger packets must not wait for confirms that never come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_confirms_nothing_holds_up_no_other() {
    let (node, host) = rabbitmq::fresh_host().await;
    let publisher = publisher(&node.url(&host)).await;
    let silent = topology::retry(settings().retry_delays[0]);
    // The first publish to a queue makes the broker's channel wait for it.
    publisher.publish_to(&silent, message(0)).await.unwrap();
    tell(node, &host, &silent, "suspend");
    let count = settings().in_flight / 2;
    let unanswered = join_all((0..count).map(|number| publisher.publish_to(&silent, message(number))));
    let others = async {
        for number in count..2 * count {
            let published = timeout(AT_ONCE, publisher.publish(message(number))).await;
            published.expect("it waits for no other queue").unwrap();
        }
    };
    let (unanswered, ()) = tokio::join!(unanswered, others);
    assert!(unanswered.iter().all(|answer| *answer == Err(PublishError::Timeout)), "{unanswered:?}");
    tell(node, &host, &silent, "resume");
}

/// Here the channel's first publish to the queue is the one without an answer, and the broker does nothing else for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_holds_up_its_channel_is_left_out() {
    let (node, host) = rabbitmq::fresh_host().await;
    let publisher = publisher(&node.url(&host)).await;
    let silent = topology::retry(settings().retry_delays[0]);
    tell(node, &host, &silent, "suspend");
    assert_eq!(publisher.publish_to(&silent, message(0)).await, Err(PublishError::Timeout));
    wait_until("the others go on", SOON, async || publisher.publish(message(1)).await.is_ok()).await;
    let left_out = timeout(AT_ONCE, publisher.publish_to(&silent, message(2))).await;
    assert_eq!(left_out.expect("it is not asked"), Err(PublishError::Timeout));
    tell(node, &host, &silent, "resume");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_does_not_answer_is_passed_over() {
    let (node, host) = rabbitmq::fresh_host().await;
    let split = || QueueSettings { shards: 3, ..settings() };
    let url = node.url(&host);
    ready(&RabbitPublisher::start(url.clone().into(), split())).await;
    tell(node, &host, &topology::shard(1), "suspend");

    let publisher = RabbitPublisher::start(url.clone().into(), split());
    ready(&publisher).await;
    for number in 0..6 {
        let what = format!("{number} is published");
        wait_until(&what, SOON, async || publisher.publish(message(number)).await.is_ok()).await;
    }
    let consumer = RabbitConsumer::start(url.into(), split());
    let mut missing: BTreeSet<_> = (0..6).map(|number| message(number).id).collect();
    while !missing.is_empty() {
        let taken = timeout(SOON, take(&consumer, 1)).await.expect("the other shards are read");
        missing.retain(|id| taken.iter().all(|delivery| delivery.message.id != *id));
        ack(&consumer, &taken).await;
    }
    tell(node, &host, &topology::shard(1), "resume");
}

/// Suspends a queue's only member, or lets it go on.
fn tell(node: &Node, host: &str, queue: &str, what: &str) {
    node.eval(&format!("sys:{what}({{list_to_atom(\"{host}_{queue}\"), node()}})."));
}
