//! One queue of the broker is silent and the others are not.

use super::*;

/// What waits for larger packets must not wait for confirms that never come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_confirms_nothing_holds_up_no_other() {
    let (node, host) = rabbitmq::fresh_host().await;
    let publisher = publisher(&node.url(&host)).await;
    let silent = topology::retry(settings().retry_delays[0]);
    let server = format!("{{list_to_atom(\"{host}_{silent}\"), node()}}");
    // The first publish to a queue makes the broker's channel wait for it.
    publisher.publish_to(&silent, message(0)).await.unwrap();
    node.eval(&format!("sys:suspend({server})."));
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
    node.eval(&format!("sys:resume({server})."));
}
