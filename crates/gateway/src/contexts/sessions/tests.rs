#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::ContextId;

use super::IdLocks;

fn id(number: u8) -> ContextId {
    ContextId::new(0, [number; 16])
}

#[tokio::test]
async fn a_lock_is_refused_while_it_is_held_and_free_afterwards() {
    let locks = Arc::<IdLocks>::default();
    let held = locks.lock_within(&id(1), Duration::ZERO).await.unwrap();
    assert!(locks.lock_within(&id(1), Duration::ZERO).await.is_none());
    assert!(locks.lock_within(&id(2), Duration::ZERO).await.is_some());
    drop(held);
    assert!(locks.lock_within(&id(1), Duration::ZERO).await.is_some());
}

#[tokio::test]
async fn waiters_get_the_lock_in_the_order_in_which_they_came() {
    let locks = Arc::<IdLocks>::default();
    let held = locks.lock(&id(1)).await;
    let (send, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiters = Vec::new();
    for number in 0..5 {
        let mut waiter = Box::pin({
            let (locks, send) = (Arc::clone(&locks), send.clone());
            async move {
                let _guard = locks
                    .lock_within(&id(1), Duration::from_secs(60))
                    .await
                    .unwrap();
                send.send(number).unwrap();
            }
        });
        // One poll puts it into the queue.
        assert!(futures_util::poll!(waiter.as_mut()).is_pending());
        waiters.push(tokio::spawn(waiter));
    }
    drop(held);
    for expected in 0..5 {
        assert_eq!(order.recv().await, Some(expected));
    }
    for waiter in waiters {
        waiter.await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_lock_that_nobody_wants() {
    let locks = Arc::<IdLocks>::default();
    let held = locks.lock(&id(1)).await;
    assert!(locks.lock_within(&id(1), Duration::ZERO).await.is_none());
    let wanted = id(1);
    let mut waiter = Box::pin(locks.lock(&wanted));
    assert!(futures_util::poll!(waiter.as_mut()).is_pending());
    drop(waiter);
    assert_eq!(locks.map().len(), 1);
    drop(held);
    assert!(locks.map().is_empty());
}
