//! What others can do on our broker: publish to our queues, and declare them their way.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_publish_comes_out_as_messages() {
    let url = rabbitmq::fresh_url().await;
    let consumer = consumer(&url);
    wait_until("the topology is there", PATIENCE, || async { consumer.connected() }).await;
    let channel = stranger(&url).await;
    let mut odd = FieldTable::default();
    odd.insert("wxpay-version".into(), AMQPValue::LongLongInt(1));
    odd.insert("wxpay-attempts".into(), AMQPValue::LongString("many".into()));
    odd.insert("wxpay-history".into(), AMQPValue::Boolean(true));
    odd.insert("wxpay-reason".into(), AMQPValue::FieldTable(FieldTable::default()));
    odd.insert("wxpay-seal".into(), AMQPValue::LongString(vec![0xff, 0xfe].into()));
    odd.insert("x-death".into(), AMQPValue::LongString("delivery_limit".into()));
    let odd = BasicProperties::default().with_headers(odd).with_message_id("../../NOT AN ID".into());
    let all = [(BasicProperties::default(), b"".as_slice()), (BasicProperties::default(), b"\xff\0"), (odd, b"odd")];
    for (properties, body) in all {
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(topology::EXCHANGE.into(), topology::NOTIFY.into(), options, body, properties)
            .await
            .unwrap();
    }
    let mut deliveries = take(&consumer, 3).await;
    deliveries.sort_by_key(|delivery| delivery.message.body.len());
    let bodies: Vec<_> = deliveries.iter().map(|delivery| &delivery.message.body[..]).collect();
    assert_eq!(bodies, [b"".as_slice(), b"\xff\0", b"odd"]);
    let headers = BTreeMap::from([("wxpay-version".to_owned(), "1".to_owned())]);
    let expected = Message::received(None, headers, "odd".into(), Log::default());
    assert_eq!(deliveries[2].message, expected);
    ack(&consumer, &deliveries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_named_and_final() {
    let url = rabbitmq::fresh_url().await;
    let other = QueueSettings { retry_delays: Vec::new(), ..settings() };
    RabbitPublisher::start(url.clone().into(), other).close().await;
    let name = topology::retry(settings().retry_delays[0]);
    let options = QueueDeclareOptions::durable();
    stranger(&url).await.queue_declare(name.as_str().into(), options, FieldTable::default()).await.unwrap();
    let publisher = RabbitPublisher::start(url.clone().into(), settings());
    let consumer = consumer(&url);
    let fatal = timeout(PATIENCE, publisher.fatal()).await.unwrap();
    assert!(
        fatal.to_string().starts_with(&format!("{name} exists with other arguments: PRECONDITION_FAILED")),
        "{fatal}"
    );
    assert_eq!(publisher.publish(message(0)).await, Err(PublishError::NotConnected));
    let named = |error| matches!(error, QueueError::Mismatch { queue, .. } if queue == name);
    assert!(named(timeout(PATIENCE, consumer.fatal()).await.unwrap()));
    assert!(named(consumer.receive(1).await.unwrap_err()));
    let letters = RabbitDeadLetters::new(url.into(), settings());
    assert!(named(letters.depths().await.unwrap_err()));
}

/// A queue's arguments cannot be changed, and tiers of earlier versions have no delivery limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_of_an_earlier_version_is_used_as_it_is() {
    let url = rabbitmq::fresh_url().await;
    let delay = settings().retry_delays[0];
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-queue-type", "quorum"),
        ("x-overflow", "reject-publish"),
        ("x-dead-letter-exchange", topology::EXCHANGE),
        ("x-dead-letter-routing-key", topology::NOTIFY),
        ("x-dead-letter-strategy", "at-least-once"),
    ] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(delay.as_millis().try_into().unwrap()));
    let (name, options) = (topology::retry(delay), QueueDeclareOptions::durable());
    stranger(&url).await.queue_declare(name.as_str().into(), options, arguments).await.unwrap();
    publisher(&url).await.publish(message(0)).await.unwrap();
    let consumer = consumer(&url);
    let delivery = take(&consumer, 1).await.remove(0);
    consumer.park(&delivery, Home::Retry(0)).await.unwrap();
    assert_eq!(take(&consumer, 1).await[0].message, message(0));
}
