//! Lists and their pages.

use holdfast_protocol::context::{Context, ContextId};

use super::{NOW, assert_not_found, insert, sample_context};
use crate::ContextStore;

/// Nine contexts of which groups of three are made in the same millisecond, in the order a list has.
async fn insert_nine(store: &dyn ContextStore, project: &str) -> Vec<Context> {
    let mut contexts: Vec<Context> = (0..9)
        .map(|number| sample_context(project, NOW + number % 3))
        .collect();
    for context in &contexts {
        insert(store, context).await;
    }
    contexts.sort_by(|left, right| (right.created_at, &right.id).cmp(&(left.created_at, &left.id)));
    contexts
}

fn ids(contexts: &[Context]) -> Vec<&ContextId> {
    contexts.iter().map(|context| &context.id).collect()
}

/// A context that nobody created by name is there for those who know its id, and on no page.
pub async fn implicit_contexts_are_not_listed(store: &dyn ContextStore) {
    let context = Context {
        implicit: Some("digest".to_owned()),
        ..sample_context("implicit", NOW)
    };
    insert(store, &context).await;
    let page = store.list("implicit", None, 10, NOW).await.expect("listed");
    assert!(page.contexts.is_empty());
    let stored = store.get("implicit", &context.id, NOW).await;
    assert_eq!(stored.expect("stored"), context);
    let living = store.living(NOW, u32::MAX).await.expect("listed");
    assert!(living.contains(&context));
}

/// Pages of any size give every living context once, newest first; the last page, and it alone, has no cursor.
pub async fn pages_are_newest_first_and_complete(store: &dyn ContextStore) {
    let contexts = insert_nine(store, "pages").await;
    for limit in [1, 2, 3, 4, 8, 9, 10, 1000, u32::MAX] {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = store
                .list("pages", cursor.as_deref(), limit, NOW)
                .await
                .expect("listed");
            assert!(!page.contexts.is_empty(), "no page is empty");
            assert!(page.contexts.len() <= limit as usize);
            seen.extend(page.contexts);
            assert!(seen.len() <= contexts.len(), "none is shown twice");
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, contexts);
    }
    let page = store.list("pages", None, 0, NOW).await.expect("listed");
    assert_eq!(page.contexts.len(), 1, "0 counts as 1");
}

/// Contexts that come or go between two pages disturb no other: none is shown twice or left out.
pub async fn pages_are_stable_under_changes(store: &dyn ContextStore) {
    let contexts = insert_nine(store, "stable").await;
    let first = store.list("stable", None, 4, NOW).await.expect("listed");
    assert_eq!(ids(&first.contexts), ids(&contexts[..4]));

    insert(store, &sample_context("stable", NOW + 10)).await;
    // The one the cursor stands on, one before it and one after it.
    for gone in [3, 0, 5] {
        store
            .delete("stable", &contexts[gone].id, NOW)
            .await
            .expect("deleted");
    }
    store
        .set_ttl("stable", &contexts[7].id, 1, NOW + 1000, NOW)
        .await
        .expect("there");

    let cursor = first.next_cursor.as_deref();
    let second = store
        .list("stable", cursor, 4, NOW + 1000)
        .await
        .expect("listed");
    assert_eq!(
        ids(&second.contexts),
        [&contexts[4].id, &contexts[6].id, &contexts[8].id]
    );
    assert_eq!(second.next_cursor, None);
}

/// A cursor that was made up, changed, cut or taken from another project's list is as unknown as a foreign context.
pub async fn wrong_cursors_are_unknown(store: &dyn ContextStore) {
    insert_nine(store, "cursor").await;
    insert_nine(store, "cursor-other").await;
    let page = store.list("cursor", None, 4, NOW).await.expect("listed");
    let cursor = page.next_cursor.expect("there are more");
    let upper = cursor.to_uppercase();
    let longer = format!("{cursor}a");

    for wrong in [
        "",
        "0",
        "not a cursor",
        "é",
        &cursor[1..],
        &cursor[..cursor.len() - 1],
        &upper,
        &longer,
        &"a".repeat(100_000),
        page.contexts[3].id.as_str(),
    ] {
        assert_not_found(store.list("cursor", Some(wrong), 4, NOW).await);
    }
    assert_not_found(store.list("cursor-other", Some(&cursor), 4, NOW).await);
    assert!(store.list("cursor", Some(&cursor), 4, NOW).await.is_ok());
}

/// Living contexts of all projects, newest first, as many as asked.
pub async fn living_spans_projects(store: &dyn ContextStore) {
    // Newer than every context of the other functions.
    let start = NOW + 1_000_000;
    let mut contexts = Vec::new();
    for (age, project) in ["living-a", "living-b", "living-a", "living-b"]
        .iter()
        .enumerate()
    {
        let context = sample_context(project, start + age as i64);
        insert(store, &context).await;
        contexts.insert(0, context);
    }
    store
        .set_ttl(
            &contexts[1].project,
            &contexts[1].id,
            1,
            start + 1000,
            start,
        )
        .await
        .expect("there");
    contexts.remove(1);

    let now = start + 1000;
    assert_eq!(store.living(now, 3).await.expect("listed"), contexts);
    assert_eq!(store.living(now, 2).await.expect("listed"), contexts[..2]);
    assert_eq!(store.living(now, 0).await.expect("listed"), []);
}

/// The census has every living context of all projects, implicit ones too, with what it says of each.
pub async fn the_census_is_complete(store: &dyn ContextStore) {
    let start = NOW + 2_000_000;
    let named = sample_context("census-a", start);
    let implicit = Context {
        implicit: Some("digest".to_owned()),
        prefix_tokens: 7,
        ..sample_context("census-b", start)
    };
    let expired = sample_context("census-b", start);
    let deleted = sample_context("census-a", start);
    for context in [&named, &implicit, &expired, &deleted] {
        insert(store, context).await;
    }
    let (project, id) = (&expired.project, &expired.id);
    let set = store.set_ttl(project, id, 1, start + 1, start).await;
    set.expect("there");
    let removed = store.delete(&deleted.project, &deleted.id, start).await;
    removed.expect("there");

    let census = store.census(start + 1).await.expect("counted");
    let mut ours: Vec<_> = census
        .into_iter()
        .filter(|living| living.project.starts_with("census-"))
        .collect();
    ours.sort_unstable_by(|left, right| left.project.cmp(&right.project));
    assert_eq!(ours, [(&named).into(), (&implicit).into()]);
}
