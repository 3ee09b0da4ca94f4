//! Subscriptions that are given up.

use tokio::time::timeout;
use wireloom_messaging::Data;
use wireloom_messaging::client::{Client, RequestError, Subscription};
use wireloom_messaging::codec::{Message, Name, Payload};
use wireloom_messaging::engine::CloseCode;

use crate::served::{PATIENCE, SHORT, accepted, client, next, spawn_request};

const SUBSCRIBED: &str = r#"{"epoch":"e","offset":0,"from":0}"#;

fn spawn_subscribe(client: &Client, name: &str) -> tokio::task::JoinHandle<Result<Subscription, RequestError>> {
    let topic = client.topic(name).expect("a name");
    tokio::spawn(async move { topic.subscribe().await })
}

/// Nobody has a subscription whose future was dropped, so that the server must not have it either.
#[tokio::test]
async fn a_subscription_given_up_early_is_taken_back() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let subscribing = spawn_subscribe(&client, "t");
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    subscribing.abort();
    let _ = subscribing.await;
    served.reply(id, SUBSCRIBED).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$unsubscribe/t");
    served.reply(id, "").await;
}

#[tokio::test]
async fn a_subscription_that_comes_too_late_is_taken_back() {
    let (builder, mut connections) = client();
    let client = builder.request_timeout(SHORT).build();
    let mut served = accepted(&mut connections).await;
    let subscribing = spawn_subscribe(&client, "t");
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    let error = subscribing.await.expect("no panic").expect_err("too late");
    assert!(matches!(error, RequestError::TimedOut), "{error:?}");
    served.reply(id, SUBSCRIBED).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$unsubscribe/t");
    served.reply(id, "").await;
}

/// Nor does one that is given up hold the client where there is no connection.
#[tokio::test]
async fn a_subscription_given_up_without_a_connection_is_forgotten() {
    let (builder, mut connections) = client();
    let client = builder.build();
    // Not accepted yet.
    let mut served = next(&mut connections).await;
    let subscribing = spawn_subscribe(&client, "t");
    tokio::task::yield_now().await;
    subscribing.abort();
    let _ = subscribing.await;
    drop(client);
    served.accept().await;
    // The last handle is gone.
    let ended = served.hear().await.expect_err("the end");
    assert_eq!(ended.code, CloseCode::Normal);
}

/// The younger subscription to a topic is the one that the server has in the end, whichever way its requests go: over streams of
/// their own they may overtake each other, so that one is sent when the one before is answered.
#[tokio::test]
async fn a_subscription_waits_for_the_end_of_the_last() {
    let (builder, mut connections) = client();
    let client = builder.build();
    let mut served = accepted(&mut connections).await;
    let first = spawn_subscribe(&client, "t");
    let (id, ..) = served.request().await;
    served.reply(id, SUBSCRIBED).await;
    drop(first.await.expect("no panic").expect("subscribed"));
    let (unsubscribing, name, _) = served.request().await;
    assert_eq!(name, "$unsubscribe/t");
    let second = spawn_subscribe(&client, "t");
    // All is in memory and on one thread: what is not sent within so many turns is not sent.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let other = spawn_request(&client, "other", false);
    let (id, name, _) = served.request().await;
    assert_eq!(name, "other");
    served.reply(id, "").await;
    other.await.expect("no panic").expect("a reply");
    served.reply(unsubscribing, "").await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    // It takes the place of what is being asked for: that is not taken back any more.
    second.abort();
    let _ = second.await;
    let third = spawn_subscribe(&client, "t");
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    served.reply(id, SUBSCRIBED).await;
    let (id, name, _) = served.request().await;
    assert_eq!(name, "$subscribe/t");
    served.reply(id, SUBSCRIBED).await;
    let mut third = third.await.expect("no panic").expect("subscribed");
    let (name, payload) = (Name::new("$message/1/t").expect("a name"), Payload::utf8("hello"));
    served.say(Message::Signal { name, payload }).await;
    let heard = timeout(PATIENCE, third.next_message()).await.expect("heard in time");
    assert_eq!(heard, Some(Data::from("hello")));
    drop(third);
    assert_eq!(served.request().await.1, "$unsubscribe/t");
}
