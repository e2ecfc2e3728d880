//! Expiry: the very instant, which way it moves, and the sweep.

use holdfast_protocol::context::Expiry;

use super::{
    LIFETIME, NOW, assert_not_found, in_parallel, insert, sample_append, sample_content,
    sample_context,
};
use crate::ContextStore;

/// One millisecond before its expiry a context is there; at its expiry it is gone, for every method.
pub async fn is_gone_at_the_very_instant(store: &dyn ContextStore) {
    let context = sample_context("instant", NOW);
    insert(store, &context).await;
    let end = context.expires_at;
    let id = &context.id;

    assert_eq!(
        store.get("instant", id, end - 1).await.expect("there"),
        context
    );
    let page = store
        .list("instant", None, 10, end - 1)
        .await
        .expect("listed");
    assert_eq!(page.contexts, std::slice::from_ref(&context));

    for now in [end, end + 1] {
        assert_not_found(store.get("instant", id, now).await);
        assert_not_found(store.touch("instant", id, now + LIFETIME, now).await);
        let append = sample_append(1, now);
        assert_not_found(store.append_turn("instant", id, 1, &append, now).await);
        assert_not_found(
            store
                .set_ttl("instant", id, 3600, now + LIFETIME, now)
                .await,
        );
        assert_not_found(store.delete("instant", id, now).await);
        let page = store.list("instant", None, 10, now).await.expect("listed");
        assert_eq!(page.contexts, []);
        let living = store.living(now, 1000).await.expect("listed");
        assert!(living.iter().all(|living| living.id != *id));
    }
    assert_eq!(
        store.get("instant", id, end - 1).await.expect("there"),
        context,
        "nothing above has changed it"
    );
    let swept = store.sweep(end, 1000).await.expect("swept");
    assert!(
        swept.contains(&context),
        "the sweep removes it at its expiry"
    );
}

/// A touch moves a sliding expiry forward and does nothing else, least of all to a fixed one.
pub async fn touch_never_moves_backward(store: &dyn ContextStore) {
    let mut context = sample_context("touch", NOW);
    insert(store, &context).await;
    let id = context.id.clone();
    let forward = context.expires_at + 5;

    for (expires_at, expected) in [
        (forward, forward),
        (forward, forward),
        (forward - 1, forward),
        (NOW - 1, forward),
        (forward + 1, forward + 1),
    ] {
        store
            .touch("touch", &id, expires_at, NOW)
            .await
            .expect("there");
        context.expires_at = expected;
        assert_eq!(store.get("touch", &id, NOW).await.expect("there"), context);
    }
    assert!(store.get("touch", &id, forward).await.is_ok());
    assert_not_found(store.get("touch", &id, forward + 1).await);

    let mut fixed = sample_context("touch", NOW);
    fixed.expiry = Expiry::Fixed;
    insert(store, &fixed).await;
    store
        .touch("touch", &fixed.id, forward, NOW)
        .await
        .expect("a fixed expiry is no error");
    assert_eq!(
        store.get("touch", &fixed.id, NOW).await.expect("there"),
        fixed
    );
}

/// Touches at once, for several contexts and unknown ones: each gets its own answer and the latest expiry stays.
pub async fn parallel_touches_keep_the_latest(store: &dyn ContextStore) {
    let contexts = [
        sample_context("touches", NOW),
        sample_context("touches", NOW),
    ];
    for context in &contexts {
        insert(store, context).await;
    }
    let unknown = sample_context("touches", NOW).id;

    in_parallel(9, async |number| {
        let expires_at = NOW + LIFETIME + i64::from(number);
        match number % 3 {
            2 => assert_not_found(store.touch("touches", &unknown, expires_at, NOW).await),
            which => {
                let id = &contexts[which as usize].id;
                store
                    .touch("touches", id, expires_at, NOW)
                    .await
                    .expect("there");
                let stored = store.get("touches", id, NOW).await.expect("there");
                assert!(stored.expires_at >= expires_at, "it was acknowledged");
            }
        }
    });
    for (context, latest) in contexts.iter().zip([6, 7]) {
        let stored = store.get("touches", &context.id, NOW).await.expect("there");
        assert_eq!(stored.expires_at, NOW + LIFETIME + latest);
    }
}

/// A new ttl may end a context earlier or later than before.
pub async fn ttl_moves_both_ways(store: &dyn ContextStore) {
    let mut expected = sample_context("ttl", NOW);
    insert(store, &expected).await;
    let id = expected.id.clone();
    for ttl_seconds in [7200, 60] {
        expected.ttl_seconds = ttl_seconds;
        expected.expires_at = NOW + i64::from(ttl_seconds) * 1000;
        let answer = store
            .set_ttl("ttl", &id, ttl_seconds, expected.expires_at, NOW)
            .await
            .expect("there");
        assert_eq!(answer, expected);
        let stored = store.get("ttl", &id, expected.expires_at - 1).await;
        assert_eq!(stored.expect("there"), expected);
        assert_not_found(store.get("ttl", &id, expected.expires_at).await);
    }
}

/// The sweep removes what has expired first, never more than its limit, never what lives, and names what it removed.
pub async fn sweep_removes_the_expired_within_its_limit(store: &dyn ContextStore) {
    // Long before the other functions' contexts, so that they do not expire here.
    let start = NOW - 1000 * LIFETIME;
    let mut contexts = Vec::new();
    for age in [3, 1, 4, 2, 0] {
        let mut context = sample_context("sweep", start);
        context.expires_at = start + age;
        insert(store, &context).await;
        contexts.push(context);
    }
    contexts.sort_by_key(|context| context.expires_at);
    // Expires at `start + 2` by its ttl and at `start + 5` after it has been touched.
    let extended = &mut contexts[2];
    store
        .touch("sweep", &extended.id, start + 5, start)
        .await
        .expect("there");
    extended.expires_at = start + 5;

    assert_eq!(store.sweep(start - 1, 10).await.expect("swept"), []);
    assert_eq!(store.sweep(start + 3, 0).await.expect("swept"), []);
    assert_eq!(
        store.sweep(start + 3, 2).await.expect("swept"),
        contexts[..2]
    );
    assert_eq!(
        store.sweep(start + 3, 2).await.expect("swept"),
        contexts[3..4]
    );
    assert_eq!(store.sweep(start + 3, 2).await.expect("swept"), []);

    for gone in [&contexts[0], &contexts[1], &contexts[3]] {
        assert_not_found(store.get("sweep", &gone.id, start - 1).await);
        assert_not_found(store.content("sweep", &gone.id).await);
    }
    for living in [&contexts[2], &contexts[4]] {
        let stored = store
            .get("sweep", &living.id, start + 3)
            .await
            .expect("there");
        assert_eq!(stored, *living);
        let content = store.content("sweep", &living.id).await.expect("there");
        assert_eq!(content, sample_content());
    }
    insert(store, &contexts[0]).await;
    let swept = store.sweep(start + 5, 10).await.expect("swept");
    assert_eq!(
        swept,
        [
            contexts[0].clone(),
            contexts[4].clone(),
            contexts[2].clone()
        ]
    );
}
