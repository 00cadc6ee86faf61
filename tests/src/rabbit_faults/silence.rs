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

/// Here the first publish to the queue is the one without an answer, and the broker's channel does nothing else for 65 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_holds_up_its_channel_is_left_out_until_it_answers() {
    let (node, host) = rabbitmq::fresh_host().await;
    let publisher = publisher(&node.url(&host)).await;
    let silent = topology::retry(settings().retry_delays[0]);
    tell(node, &host, &silent, "suspend");
    let others = async {
        for number in 1..20 {
            let published = timeout(AT_ONCE, publisher.publish(message(number))).await;
            published.expect("it waits for no other queue").unwrap();
        }
    };
    let (unanswered, ()) = tokio::join!(publisher.publish_to(&silent, message(0)), others);
    assert_eq!(unanswered, Err(PublishError::Timeout));
    let left_out = timeout(AT_ONCE, publisher.publish_to(&silent, message(20))).await;
    assert_eq!(left_out.expect("it is not asked"), Err(PublishError::Timeout));
    tell(node, &host, &silent, "resume");
    wait_until("it takes again", SOON, async || publisher.publish_to(&silent, message(21)).await.is_ok()).await;
}

/// The channel that waits for it is given up after 15 s. Each message on a new one would hold that up for another 65 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_given_up_is_asked_again_with_one_message() {
    let (node, host) = rabbitmq::fresh_host().await;
    let publisher = publisher(&node.url(&host)).await;
    let silent = topology::retry(settings().retry_delays[0]);
    tell(node, &host, &silent, "suspend");
    assert_eq!(publisher.publish_to(&silent, message(0)).await, Err(PublishError::Timeout));
    let waited = async |number| {
        let began = Instant::now();
        assert_eq!(publisher.publish_to(&silent, message(number)).await, Err(PublishError::Timeout));
        began.elapsed() > AT_ONCE
    };
    wait_until("it is asked again", SOON, async || {
        let [one, other] = [waited(1), waited(2)];
        let asked = tokio::join!(one, other);
        assert_ne!(asked, (true, true), "one message asks");
        asked != (false, false)
    })
    .await;
    tell(node, &host, &silent, "resume");
    wait_until("it takes again", SOON, async || publisher.publish_to(&silent, message(3)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_does_not_answer_is_passed_over_until_it_does() {
    const MANY: usize = 60;
    let (node, host) = rabbitmq::fresh_host().await;
    let split = || QueueSettings { shards: 3, ..settings() };
    let url = node.url(&host);
    ready(&RabbitPublisher::start(url.clone().into(), split())).await;
    tell(node, &host, &topology::shard(1), "suspend");

    let publisher = RabbitPublisher::start(url.clone().into(), split());
    ready(&publisher).await;
    let answers = join_all((0..MANY).map(|number| publisher.publish(message(number)))).await;
    let unanswered = answers.iter().filter(|answer| **answer == Err(PublishError::Timeout)).count();
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(unanswered > 0 && taken >= MANY / 4 && taken + unanswered == MANY, "{answers:?}");
    for number in MANY..MANY + 12 {
        timeout(AT_ONCE, publisher.publish(message(number))).await.expect("it goes elsewhere").unwrap();
    }
    let accepted = (0..MANY).filter(|number| answers[*number].is_ok()).chain(MANY..MANY + 12);
    let consumer = RabbitConsumer::start(url.into(), split());
    take_all(&consumer, accepted).await;

    tell(node, &host, &topology::shard(1), "resume");
    wait_until("it takes again", SOON, async || {
        let published = join_all((500..503).map(|number| publisher.publish(message(number)))).await;
        published.iter().all(Result::is_ok)
    })
    .await;
    let shard = async || {
        let depths = RabbitDeadLetters::new(node.url(&host).into(), split()).depths().await.unwrap();
        depths.shards.into_iter().find(|shard| shard.queue == topology::shard(1)).unwrap()
    };
    wait_until("it is read again", SOON, async || shard().await.workers == 1).await;
}

/// Takes and acks until all of these have come.
async fn take_all(consumer: &RabbitConsumer, numbers: impl Iterator<Item = usize>) {
    let mut missing: BTreeSet<_> = numbers.map(|number| message(number).id).collect();
    while !missing.is_empty() {
        let taken = timeout(SOON, take(consumer, 1)).await.expect("the other shards are read");
        missing.retain(|id| taken.iter().all(|delivery| delivery.message.id != *id));
        ack(consumer, &taken).await;
    }
}

/// Suspends a queue's only member, or lets it go on.
pub(crate) fn tell(node: &Node, host: &str, queue: &str, what: &str) {
    node.eval(&format!("sys:{what}({{list_to_atom(\"{host}_{queue}\"), node()}})."));
}
