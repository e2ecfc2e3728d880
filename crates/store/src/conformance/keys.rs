//! Projects and keys.

use holdfast_protocol::UnixMillis;
use holdfast_protocol::price::{Currency, Decimal};

use super::{NOW, assert_conflict, assert_not_found, in_parallel};
use crate::{
    Budget, BudgetPeriod, KeyRecord, KeyScope, KeyStore, LimitSettings, PreviousSecret,
    ProjectRecord, ProjectSettings,
};

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
        scopes: KeyScope::ALL.to_vec(),
        created_at,
        revoked_at: None,
        expires_at: Some(created_at + 1_000_000),
        last_used_at: Some(created_at + 5),
        previous: None,
        models: vec!["gpt-*".to_owned(), "big \u{0} 大".to_owned()],
        limits: sample_limits(),
        budgets: Vec::new(),
        version: 0,
    }
}

fn sample_budgets() -> Vec<Budget> {
    vec![Budget {
        period: BudgetPeriod::Monthly,
        currency: Currency::USD,
        hard: Some(Decimal::new(10_050, 2)),
        soft: None,
    }]
}

fn sample_limits() -> LimitSettings {
    LimitSettings {
        requests_per_minute: Some(1),
        tokens_per_minute: Some(2),
        concurrent_requests: Some(3),
        contexts: Some(4),
        context_tokens: Some(u64::MAX),
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

    let listed = store.page_projects(None, 1000).await.expect("listed");
    assert!(listed.is_sorted_by(|left, right| left.name < right.name));
    assert!(listed.contains(&first) && listed.contains(&made[0]));
}

/// A key is found by its hash with every field, and only by its whole hash.
pub async fn a_key_reads_back_whole(store: &dyn KeyStore) {
    let both = sample_key("key-whole", 1, NOW);
    let mut revoked = sample_key("key-whole", 2, NOW);
    revoked.scopes = vec![KeyScope::Inference];
    revoked.expires_at = None;
    revoked.last_used_at = None;
    revoked.models = Vec::new();
    revoked.limits = LimitSettings::default();
    revoked.revoked_at = Some(NOW + 1);
    for key in [both, revoked] {
        insert(store, &key).await;
        let found = store.key_by_hash(&key.hash).await.expect("asked");
        assert_eq!(found.as_ref(), Some(&key));
        assert_eq!(store.key(&key.id).await.expect("there"), key);
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

    let others = store.page_keys(Some("key-unique-other"), None, 1000).await;
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

    let listed = store
        .page_keys(Some("key-list-a"), None, 1000)
        .await
        .expect("listed");
    assert_eq!(listed, [oldest.clone(), newest.clone()]);
    for unknown in ["key-list-none", "key-list-a\u{0}"] {
        let listed = store
            .page_keys(Some(unknown), None, 1000)
            .await
            .expect("listed");
        assert_eq!(listed, []);
    }
    let mut listed = store.page_keys(None, None, 1000).await.expect("listed");
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
    assert!(!key.is_active(NOW));
    let found = store.key_by_hash(&other.hash).await.expect("asked");
    assert_eq!(found, Some(other));
    for unknown in ["key-unknown", "", "key-\u{0}"] {
        assert_not_found(store.revoke_key(unknown, NOW).await);
    }
}

/// A project's settings read back whole, and a change goes by the version that it was made from.
pub async fn a_projects_settings_change_by_version(store: &dyn KeyStore) {
    let mut project = ProjectRecord::new("project-settings", NOW);
    assert_not_found(store.project(&project.name).await);
    assert_not_found(store.update_project(&project).await);
    project.settings = ProjectSettings {
        display_name: "Ada's \u{0} 大小".to_owned(),
        models: vec!["gpt-*".to_owned()],
        default_model: Some("gpt-5".to_owned()),
        limits: sample_limits(),
        budgets: sample_budgets(),
    };
    store.insert_project(&project).await.expect("new");
    assert_conflict(store.insert_project(&project).await);
    let ensured = store.ensure_project(&project.name, NOW + 1).await;
    assert_eq!(ensured.expect("there"), project);
    assert_eq!(store.project(&project.name).await.expect("there"), project);

    let mut changed = project.clone();
    changed.settings = ProjectSettings::default();
    let updated = store.update_project(&changed).await.expect("not changed");
    assert_eq!((updated.version, &updated.settings), (1, &changed.settings));
    assert_conflict(store.update_project(&project).await);
    assert_eq!(store.project(&project.name).await.expect("there"), updated);

    let made = in_parallel(8, async |number| {
        let mut mine = updated.clone();
        mine.settings.display_name = number.to_string();
        store.update_project(&mine).await.is_ok()
    });
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
}

/// Pages of projects go by name, and what is made meanwhile disturbs nothing.
pub async fn projects_are_paged_by_name(store: &dyn KeyStore) {
    for name in ["page-c", "page-a", "page-d", "page-b"] {
        store.ensure_project(name, NOW).await.expect("made");
    }
    let page = async |after: &str, limit: u32| {
        let page = store.page_projects(Some(after), limit).await;
        let names = page
            .expect("listed")
            .into_iter()
            .map(|project| project.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(page("page-", 2).await, ["page-a", "page-b"]);
    store.ensure_project("page-aa", NOW).await.expect("made");
    assert_eq!(page("page-b", 2).await, ["page-c", "page-d"]);
    assert_eq!(page("page-", 3).await, ["page-a", "page-aa", "page-b"]);
    let first = store.page_projects(None, 1).await.expect("listed");
    let all = store.page_projects(None, 1000).await.expect("listed");
    assert_eq!(first, all[..1]);
}

/// A change of a key goes by the version that it was made from, and touches neither revocation nor last use.
pub async fn a_key_changes_by_version(store: &dyn KeyStore) {
    let key = sample_key("key-update", 1, NOW);
    assert_not_found(store.update_key(&key).await);
    insert(store, &key).await;
    let other = sample_key("key-update", 2, NOW);
    insert(store, &other).await;
    store.revoke_key(&key.id, NOW + 7).await.expect("there");

    let changed = KeyRecord {
        label: "new".to_owned(),
        scopes: vec![KeyScope::UsageRead],
        expires_at: None,
        models: Vec::new(),
        limits: LimitSettings::default(),
        budgets: sample_budgets(),
        last_used_at: None,
        ..key.clone()
    };
    let updated = store.update_key(&changed).await.expect("not changed");
    let expected = KeyRecord {
        revoked_at: Some(NOW + 7),
        last_used_at: key.last_used_at,
        version: 1,
        ..changed.clone()
    };
    assert_eq!(updated, expected);
    assert_conflict(store.update_key(&changed).await);
    let mut stolen = updated.clone();
    stolen.hash = other.hash;
    assert_conflict(store.update_key(&stolen).await);
    assert_eq!(store.key(&key.id).await.expect("there"), expected);
    assert_eq!(store.key(&other.id).await.expect("there"), other);
}

/// After a rotation both secrets find the key; after another one the first does no longer.
pub async fn a_rotated_key_is_found_by_both_secrets(store: &dyn KeyStore) {
    let key = sample_key("key-rotate", 1, NOW);
    insert(store, &key).await;
    let rotate = async |key: &KeyRecord, byte: u8| {
        let mut rotated = key.clone();
        rotated.previous = Some(PreviousSecret {
            hash: key.hash,
            expires_at: NOW + 100,
        });
        rotated.hash = [byte; 32];
        store.update_key(&rotated).await.expect("rotated")
    };
    let found = async |hash: &[u8; 32]| store.key_by_hash(hash).await.expect("asked");

    let rotated = rotate(&key, 201).await;
    assert_eq!(found(&key.hash).await.as_ref(), Some(&rotated));
    assert_eq!(found(&[201; 32]).await.as_ref(), Some(&rotated));
    assert!(rotated.admits(&key.hash, NOW + 99) && !rotated.admits(&key.hash, NOW + 100));
    assert!(rotated.admits(&[201; 32], NOW + 999_999));
    assert!(
        !rotated.admits(&[201; 32], NOW + 1_000_000),
        "it has expired"
    );

    let again = rotate(&rotated, 202).await;
    assert_eq!(found(&key.hash).await, None);
    assert_eq!(found(&[201; 32]).await.as_ref(), Some(&again));
    assert_eq!(found(&[202; 32]).await.as_ref(), Some(&again));
}

/// The latest use counts, whatever the order in which uses are told.
pub async fn the_last_use_moves_forward(store: &dyn KeyStore) {
    let mut key = sample_key("key-use", 1, NOW);
    key.last_used_at = None;
    insert(store, &key).await;
    for (told, stored) in [
        (NOW + 10, NOW + 10),
        (NOW + 5, NOW + 10),
        (NOW + 20, NOW + 20),
    ] {
        let uses = [(key.id.clone(), told), ("key-nobody".to_owned(), told)];
        store.touch_keys(&uses).await.expect("told");
        let found = store.key(&key.id).await.expect("there");
        assert_eq!((found.last_used_at, found.version), (Some(stored), 0));
    }
    store.touch_keys(&[]).await.expect("nothing to tell");
}

/// Pages of keys are oldest first and follow each other without gaps.
pub async fn keys_are_paged_oldest_first(store: &dyn KeyStore) {
    let keys: Vec<KeyRecord> = [(1, 30), (2, 10), (3, 10), (4, 20)]
        .into_iter()
        .map(|(seed, after)| sample_key("key-page", seed, NOW + after))
        .collect();
    for key in &keys {
        insert(store, key).await;
    }
    insert(store, &sample_key("key-page-other", 5, NOW + 15)).await;
    let project = Some("key-page");
    let first = store.page_keys(project, None, 3).await.expect("listed");
    assert_eq!(first, [&keys[1], &keys[2], &keys[3]].map(Clone::clone));
    let second = store.page_keys(project, first.last(), 3).await;
    assert_eq!(second.expect("listed"), [keys[0].clone()]);
    let all = store.page_keys(None, None, 1000).await.expect("listed");
    assert_eq!(
        all,
        store.page_keys(None, None, 1000).await.expect("listed")
    );
    let none = store.page_keys(Some("key-page\u{0}"), None, 3).await;
    assert_eq!(none.expect("listed"), []);
}
