//! Projects and keys.

use holdfast_protocol::UnixMillis;

use super::{NOW, assert_conflict, assert_not_found, in_parallel};
use crate::{KeyRecord, KeyScope, KeyStore};

/// A key with every field set; `seed` makes its id and hash.
pub fn sample_key(project: &str, seed: u8, created_at: UnixMillis) -> KeyRecord {
    KeyRecord {
        id: format!("key-{project}-{seed}"),
        project: project.to_owned(),
        hash: std::array::from_fn(|index| {
            let name = project.as_bytes();
            seed ^ name[index % name.len()] ^ index as u8
        }),
        hint: "hf-abc".to_owned(),
        label: "ada's laptop, \u{0} 大小".to_owned(),
        scopes: vec![KeyScope::Admin, KeyScope::Inference],
        created_at,
        revoked_at: None,
    }
}

async fn insert(store: &dyn KeyStore, key: &KeyRecord) {
    store
        .ensure_project(&key.project, NOW)
        .await
        .expect("made or there");
    store.insert_key(key).await.expect("a new key is stored");
}

/// A project keeps its first time of creation, however many ask for it at once.
pub async fn projects_are_made_once(store: &dyn KeyStore) {
    let first = store.ensure_project("project-b", NOW).await.expect("made");
    assert_eq!((first.name.as_str(), first.created_at), ("project-b", NOW));
    let again = store.ensure_project("project-b", NOW + 1).await;
    assert_eq!(again.expect("there"), first);

    let made = in_parallel(8, async |number| {
        store
            .ensure_project("project-a", NOW + i64::from(number))
            .await
            .expect("made or there")
    });
    assert!(made.iter().all(|project| *project == made[0]));

    let listed = store.list_projects().await.expect("listed");
    assert!(listed.is_sorted_by(|left, right| left.name < right.name));
    assert!(listed.contains(&first) && listed.contains(&made[0]));
}

/// A key is found by its hash with every field, and only by its whole hash.
pub async fn a_key_reads_back_whole(store: &dyn KeyStore) {
    let both = sample_key("key-whole", 1, NOW);
    let mut revoked = sample_key("key-whole", 2, NOW);
    revoked.scopes = vec![KeyScope::Inference];
    revoked.revoked_at = Some(NOW + 1);
    for key in [both, revoked] {
        insert(store, &key).await;
        let found = store.key_by_hash(&key.hash).await.expect("asked");
        assert_eq!(found.as_ref(), Some(&key));
        assert!(key.has_hash(&key.hash));

        let mut near = key.hash;
        near[31] ^= 1;
        assert_eq!(store.key_by_hash(&near).await.expect("asked"), None);
        assert!(!key.has_hash(&near));
    }
}

/// A key needs its project; an id or a hash that exists, in any project, is a conflict that changes nothing.
pub async fn ids_and_hashes_are_unique(store: &dyn KeyStore) {
    let key = sample_key("key-unique", 1, NOW);
    assert_not_found(store.insert_key(&key).await);
    assert_eq!(store.key_by_hash(&key.hash).await.expect("asked"), None);
    insert(store, &key).await;
    store
        .ensure_project("key-unique-other", NOW)
        .await
        .expect("made");

    let mut same_id = sample_key("key-unique-other", 2, NOW + 1);
    same_id.id = key.id.clone();
    let mut same_hash = sample_key("key-unique-other", 3, NOW + 1);
    same_hash.hash = key.hash;
    for wrong in [&key, &same_id, &same_hash] {
        assert_conflict(store.insert_key(wrong).await);
    }
    let mut homeless = key.clone();
    homeless.project = "key-nowhere".to_owned();
    assert_not_found(store.insert_key(&homeless).await);

    let others = store.list_keys(Some("key-unique-other")).await;
    assert_eq!(others.expect("listed"), []);
    let found = store.key_by_hash(&key.hash).await.expect("asked");
    assert_eq!(found, Some(key));
    assert_eq!(store.key_by_hash(&same_id.hash).await.expect("asked"), None);
}

/// Keys of a project or of all, oldest first, revoked ones included.
pub async fn lists_are_oldest_first(store: &dyn KeyStore) {
    let mut newest = sample_key("key-list-a", 1, NOW + 3);
    newest.revoked_at = Some(NOW + 4);
    let oldest = sample_key("key-list-a", 2, NOW + 1);
    let middle = sample_key("key-list-b", 3, NOW + 2);
    for key in [&newest, &oldest, &middle] {
        insert(store, key).await;
    }

    let listed = store.list_keys(Some("key-list-a")).await.expect("listed");
    assert_eq!(listed, [oldest.clone(), newest.clone()]);
    for unknown in ["key-list-none", "key-list-a\u{0}"] {
        let listed = store.list_keys(Some(unknown)).await.expect("listed");
        assert_eq!(listed, []);
    }
    let mut listed = store.list_keys(None).await.expect("listed");
    listed.retain(|key| key.project.starts_with("key-list-"));
    assert_eq!(listed, [oldest, middle, newest]);
}

/// Revoking again is no error and keeps the first time; other keys stay as they are.
pub async fn the_first_revocation_counts(store: &dyn KeyStore) {
    let mut key = sample_key("key-revoke", 1, NOW);
    let other = sample_key("key-revoke", 2, NOW);
    insert(store, &key).await;
    insert(store, &other).await;

    key.revoked_at = Some(NOW + 10);
    for now in [NOW + 10, NOW + 20, NOW] {
        let revoked = store.revoke_key(&key.id, now).await.expect("there");
        assert_eq!(revoked, key);
        let found = store.key_by_hash(&key.hash).await.expect("asked");
        assert_eq!(found.as_ref(), Some(&key));
    }
    assert!(!key.is_revoked(NOW + 9) && key.is_revoked(NOW + 10));
    let found = store.key_by_hash(&other.hash).await.expect("asked");
    assert_eq!(found, Some(other));
    for unknown in ["key-unknown", "", "key-\u{0}"] {
        assert_not_found(store.revoke_key(unknown, NOW).await);
    }
}
