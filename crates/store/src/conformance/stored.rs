//! What is stored, for whom, and that it goes.

use holdfast_protocol::context::ContextContent;

use super::{
    LIFETIME, NOW, assert_conflict, assert_not_found, insert, sample_append, sample_content,
    sample_context,
};
use crate::ContextStore;

/// Every field and message comes back as it was stored, key order included, also with turns and without the optional.
pub async fn reads_back_whole(store: &dyn ContextStore) {
    let full = sample_context("whole", NOW);
    let mut forked = sample_context("whole", NOW + 1);
    forked.forked_from = Some((full.id.clone(), 2));
    forked.turn_count = 2;
    let mut plain = sample_context("whole", NOW + 2);
    plain.truncation = None;
    plain.tools = Vec::new();
    plain.tool_choice = None;
    plain.display_name = None;
    plain.metadata.clear();
    let with_turns = ContextContent {
        turns: (1..=2)
            .map(|number| sample_append(number, NOW).turn)
            .collect(),
        ..sample_content()
    };

    for (context, content) in [
        (full, sample_content()),
        (forked, with_turns),
        (plain, ContextContent::default()),
    ] {
        store.insert(&context, &content).await.expect("inserted");
        let stored = store.get("whole", &context.id, NOW).await.expect("there");
        assert_eq!(stored, context);
        assert_eq!(
            stored.metadata.keys().collect::<Vec<_>>(),
            context.metadata.keys().collect::<Vec<_>>()
        );
        assert_eq!(
            format!("{:?}", stored.tools),
            format!("{:?}", context.tools),
            "equality of JSON objects does not see the order of their keys"
        );
        let stored = store.content("whole", &context.id).await.expect("there");
        assert_eq!(stored, content);
    }
}

/// A second insert of an id is refused, whoever asks, and leaves the first as it was.
pub async fn an_id_is_stored_once(store: &dyn ContextStore) {
    let context = sample_context("once", NOW);
    insert(store, &context).await;

    let mut other = sample_context("once-other", NOW + 5);
    other.id = context.id.clone();
    assert_conflict(store.insert(&other, &ContextContent::default()).await);
    assert_conflict(store.insert(&context, &ContextContent::default()).await);

    assert_not_found(store.get("once-other", &context.id, NOW).await);
    assert_eq!(
        store.get("once", &context.id, NOW).await.expect("there"),
        context
    );
    assert_eq!(
        store.content("once", &context.id).await.expect("there"),
        sample_content()
    );
    let page = store
        .list("once-other", None, 10, NOW)
        .await
        .expect("listed");
    assert_eq!(page.contexts, []);
}

/// No method tells a foreign context from one that does not exist, or changes it.
pub async fn foreign_is_unknown(store: &dyn ContextStore) {
    let context = sample_context("owner", NOW);
    insert(store, &context).await;
    let unknown = sample_context("owner", NOW).id;

    for (project, id) in [
        ("stranger", &context.id),
        ("owner", &unknown),
        ("", &context.id),
    ] {
        assert_not_found(store.get(project, id, NOW).await);
        assert_not_found(store.content(project, id).await);
        assert_not_found(store.touch(project, id, NOW + 2 * LIFETIME, NOW).await);
        let append = sample_append(1, NOW);
        assert_not_found(store.append_turn(project, id, 1, &append, NOW).await);
        assert_not_found(store.append_turn(project, id, 7, &append, NOW).await);
        assert_not_found(store.set_ttl(project, id, 1, NOW + 1000, NOW).await);
        assert_not_found(store.delete(project, id, NOW).await);
    }
    let page = store.list("stranger", None, 10, NOW).await.expect("listed");
    assert_eq!(page.contexts, []);
    assert_eq!(page.next_cursor, None);
    assert_eq!(
        store.get("owner", &context.id, NOW).await.expect("there"),
        context
    );
}

/// After a deletion nothing is left that a later context of the same id could meet.
pub async fn a_deleted_context_leaves_nothing(store: &dyn ContextStore) {
    let context = sample_context("deleted", NOW);
    let neighbour = sample_context("deleted", NOW + 1);
    insert(store, &context).await;
    insert(store, &neighbour).await;
    let append = sample_append(1, NOW);
    store
        .append_turn("deleted", &context.id, 1, &append, NOW)
        .await
        .expect("appended");

    store
        .delete("deleted", &context.id, NOW)
        .await
        .expect("deleted");
    assert_not_found(store.get("deleted", &context.id, NOW).await);
    assert_not_found(store.content("deleted", &context.id).await);
    assert_not_found(store.delete("deleted", &context.id, NOW).await);
    let page = store.list("deleted", None, 10, NOW).await.expect("listed");
    assert_eq!(page.contexts, std::slice::from_ref(&neighbour));
    let swept = store.sweep(NOW, 1000).await.expect("swept");
    assert!(swept.iter().all(|swept| swept.id != context.id));

    let content = ContextContent::default();
    store
        .insert(&context, &content)
        .await
        .expect("the id is free again");
    assert_eq!(
        store.get("deleted", &context.id, NOW).await.expect("there"),
        context
    );
    assert_eq!(
        store.content("deleted", &context.id).await.expect("there"),
        content
    );
    assert_eq!(
        store
            .content("deleted", &neighbour.id)
            .await
            .expect("there"),
        sample_content()
    );
}
