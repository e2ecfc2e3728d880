//! Handles, accounts and leases.

use holdfast_protocol::context::ContextId;

use super::{LIFETIME, NOW, insert, sample_context, sample_id};
use crate::{Account, AccountChange, AccountRecord, ContextStore, HandleRecord, UpstreamStore};

fn handle(context: &ContextId, place: &str, name: &str) -> HandleRecord {
    HandleRecord {
        context: context.clone(),
        project: "upstreams".to_owned(),
        place: place.to_owned(),
        name: name.to_owned(),
        tokens: Some(u64::from(u32::MAX) + 1),
        turns: 0,
        dropped_messages: 2,
        created_at: NOW,
        expires_at: NOW + LIFETIME,
    }
}

fn names(handles: &[HandleRecord]) -> Vec<&str> {
    handles.iter().map(|handle| handle.name.as_str()).collect()
}

fn change(context: &ContextId, add: Account) -> AccountChange {
    AccountChange {
        context: context.clone(),
        add,
        currency: String::new(),
        home: None,
        last_used_at: None,
    }
}

/// What is to be dropped at `place`, which only one test of the suite uses.
async fn doomed(store: &dyn UpstreamStore, place: &str) -> Vec<HandleRecord> {
    let doomed = store.doomed(place, NOW, 10).await;
    doomed.expect("the store answers")
}

/// Nothing of a handle is lost.
pub async fn a_handle_reads_back_whole(store: &dyn UpstreamStore) {
    let context = sample_id(NOW);
    let unmeasured = HandleRecord {
        tokens: None,
        turns: 0,
        ..handle(&context, "b|r|k|m", "cachedContents/\u{1F980}")
    };
    let measured = HandleRecord {
        turns: 3,
        ..handle(&context, "a|r|k|m", "resp_1")
    };
    store
        .put_handle(&unmeasured)
        .await
        .expect("the store answers");
    store
        .put_handle(&measured)
        .await
        .expect("the store answers");
    assert_eq!(
        store.handles(&context).await.expect("the store answers"),
        [measured, unmeasured],
        "one for each place, by place"
    );
    assert_eq!(
        store
            .handles(&sample_id(NOW))
            .await
            .expect("the store answers"),
        []
    );
}

/// One living handle for each context and place.
pub async fn a_new_handle_dooms_the_one_before(store: &dyn UpstreamStore) {
    let context = sample_id(NOW);
    store
        .put_handle(&handle(&context, "p", "doom-1"))
        .await
        .expect("the store answers");
    store
        .put_handle(&handle(&context, "q", "doom-other"))
        .await
        .expect("the store answers");
    store
        .put_handle(&handle(&context, "p", "doom-2"))
        .await
        .expect("the store answers");
    let longer = HandleRecord {
        expires_at: NOW + 2 * LIFETIME,
        ..handle(&context, "p", "doom-2")
    };
    store.put_handle(&longer).await.expect("the store answers");
    let living = store.handles(&context).await.expect("the store answers");
    assert_eq!(names(&living), ["doom-2", "doom-other"]);
    assert_eq!(
        living[0], longer,
        "the same name is the same handle, extended"
    );
    assert_eq!(names(&doomed(store, "p").await), ["doom-1"]);
    store
        .remove_handle("p", "doom-1")
        .await
        .expect("the store answers");
    store
        .remove_handle("p", "doom-1")
        .await
        .expect("the store answers");
    assert_eq!(doomed(store, "p").await, []);
}

/// What a chain was continued from stays until a new beginning is made.
pub async fn a_chain_keeps_what_it_continues_from(store: &dyn UpstreamStore) {
    let context = sample_id(NOW);
    let link = |turns, name: &str| HandleRecord {
        turns,
        ..handle(&context, "p", name)
    };
    for (turns, name) in [(0, "chain-0"), (1, "chain-1"), (2, "chain-2")] {
        store
            .put_handle(&link(turns, name))
            .await
            .expect("the store answers");
    }
    let living = store.handles(&context).await.expect("the store answers");
    assert_eq!(names(&living), ["chain-2", "chain-1", "chain-0"]);
    store
        .put_handle(&link(0, "chain-new"))
        .await
        .expect("the store answers");
    let living = store.handles(&context).await.expect("the store answers");
    assert_eq!(names(&living), ["chain-new"]);
}

/// What is to be dropped stays until it is, or until it has ended.
pub async fn doomed_handles_are_kept_until_they_end_by_themselves(store: &dyn UpstreamStore) {
    let context = sample_id(NOW);
    // Handles that hold turns leave each other alone.
    for (name, lifetime) in [("end-late", 2 * LIFETIME), ("end-soon", LIFETIME)] {
        let handle = HandleRecord {
            turns: 1,
            expires_at: NOW + lifetime,
            ..handle(&context, "ending", name)
        };
        store.put_handle(&handle).await.expect("the store answers");
    }
    assert_eq!(doomed(store, "ending").await, []);
    store
        .doom_handles(&context)
        .await
        .expect("the store answers");
    assert_eq!(
        store.handles(&context).await.expect("the store answers"),
        []
    );
    let at = async |now, limit| {
        let doomed = store.doomed("ending", now, limit).await;
        doomed.expect("the store answers")
    };
    assert_eq!(names(&at(NOW, 1).await), ["end-soon"], "the soonest first");
    assert_eq!(
        names(&at(NOW + LIFETIME, 10).await),
        ["end-soon", "end-late"],
        "at the instant of its end it is still there"
    );
    assert_eq!(names(&at(NOW + LIFETIME + 1, 10).await), ["end-late"]);
    assert_eq!(doomed(store, "elsewhere").await, []);
    store
        .tidy_handles(0, NOW + LIFETIME + 1)
        .await
        .expect("the store answers");
    assert_eq!(names(&at(NOW, 10).await), ["end-late"], "gone for good");
}

/// A crash between removing a context and dooming its handles is made good; what is being made is left alone.
pub async fn handles_of_removed_contexts_are_orphans<S: ContextStore + UpstreamStore>(store: &S) {
    let stored = sample_context("upstreams", NOW);
    insert(store, &stored).await;
    let new = HandleRecord {
        created_at: NOW + 1,
        ..handle(&sample_id(NOW), "orphans", "orphan-new")
    };
    for handle in [
        handle(&stored.id, "orphans", "orphan-no"),
        handle(&sample_id(NOW), "orphans", "orphan-yes"),
        new,
    ] {
        store.put_handle(&handle).await.expect("the store answers");
    }
    store
        .tidy_handles(NOW + 1, NOW)
        .await
        .expect("the store answers");
    assert_eq!(
        names(&store.handles(&stored.id).await.expect("the store answers")),
        ["orphan-no"]
    );
    assert_eq!(names(&doomed(store, "orphans").await), ["orphan-yes"]);
}

/// The soonest to end come first.
pub async fn expiring_handles_come_soonest_first(store: &dyn UpstreamStore) {
    let context = sample_id(NOW);
    for (name, lifetime) in [("x", 3), ("y", 1), ("z", 2)] {
        let handle = HandleRecord {
            turns: 1,
            expires_at: NOW + lifetime,
            ..handle(&context, "expiring", &format!("expiring-{name}"))
        };
        store.put_handle(&handle).await.expect("the store answers");
    }
    let expiring = async |place: &str, now, limit| {
        let expiring = store.expiring(place, now, NOW + 3, limit).await;
        expiring.expect("the store answers")
    };
    assert_eq!(
        names(&expiring("expiring", NOW, 10).await),
        ["expiring-y", "expiring-z"],
        "strictly before"
    );
    assert_eq!(expiring("expiring", NOW, 1).await.len(), 1);
    assert_eq!(
        names(&expiring("expiring", NOW + 1, 10).await),
        ["expiring-z"],
        "what has ended is not among them"
    );
    assert_eq!(expiring("elsewhere", NOW, 10).await, []);
    store
        .doom_handles(&context)
        .await
        .expect("the store answers");
    assert_eq!(expiring("expiring", NOW, 10).await, [], "only living ones");
}

/// Accounts add up and go with their context.
pub async fn accounts_add_up<S: ContextStore + UpstreamStore>(store: &S) {
    let context = sample_context("upstreams", NOW);
    assert_eq!(
        store.account(&context.id).await.expect("the store answers"),
        AccountRecord::default()
    );
    insert(store, &context).await;
    assert_eq!(
        store.account(&context.id).await.expect("the store answers"),
        AccountRecord::default()
    );
    let add = Account {
        requests: 1,
        hits: 2,
        rebuilds: 3,
        misses: 4,
        degraded: 5,
        input_tokens: 6,
        cache_read_tokens: 7,
        cache_write_tokens: 8,
        output_tokens: 9,
        pings: 10,
        cost: 11,
        ping_cost: 12,
        storage_cost: -13,
        saved: -14,
    };
    let first = AccountChange {
        home: Some("home|r|k|m".to_owned()),
        last_used_at: Some(NOW),
        ..change(&context.id, add)
    };
    let second = AccountChange {
        currency: "USD".to_owned(),
        ..change(&context.id, add)
    };
    let third = AccountChange {
        currency: "CNY".to_owned(),
        home: Some("elsewhere".to_owned()),
        last_used_at: Some(NOW + 1),
        ..change(&context.id, Account::default())
    };
    store
        .change_accounts(&[first, change(&sample_id(NOW), add), second])
        .await
        .expect("a context that is not stored any more is no error");
    let account = store.account(&context.id).await.expect("the store answers");
    assert_eq!(account.totals, add.plus(add));
    assert_eq!(
        (account.currency.as_str(), account.home.as_deref()),
        ("USD", Some("home|r|k|m"))
    );
    assert_eq!(account.last_used_at, Some(NOW));
    store
        .change_accounts(&[third])
        .await
        .expect("the store answers");
    let account = store.account(&context.id).await.expect("the store answers");
    assert_eq!(
        (account.currency.as_str(), account.home.as_deref()),
        ("USD", Some("elsewhere"))
    );
    assert_eq!(account.last_used_at, Some(NOW + 1));
    store
        .delete(&context.project, &context.id, NOW)
        .await
        .expect("the store answers");
    assert_eq!(
        store.account(&context.id).await.expect("the store answers"),
        AccountRecord::default()
    );
}

/// A lease is one owner's until it runs out or is given back.
pub async fn a_lease_has_one_owner_at_a_time(store: &dyn UpstreamStore) {
    let name = sample_id(NOW).to_string();
    let take = |owner: &'static str, until, now| store.acquire_lease(&name, owner, until, now);
    assert!(take("a", NOW + 10, NOW).await.expect("the store answers"));
    assert!(
        !take("b", NOW + 20, NOW + 9)
            .await
            .expect("the store answers")
    );
    assert!(
        take("a", NOW + 15, NOW + 9)
            .await
            .expect("the store answers"),
        "its owner renews it"
    );
    assert!(
        !take("b", NOW + 20, NOW + 14)
            .await
            .expect("the store answers")
    );
    store
        .release_lease(&name, "b")
        .await
        .expect("the store answers");
    assert!(
        !take("b", NOW + 20, NOW + 14)
            .await
            .expect("the store answers"),
        "another one's stays"
    );
    assert!(
        take("b", NOW + 20, NOW + 15)
            .await
            .expect("the store answers"),
        "it has run out"
    );
    store
        .release_lease(&name, "b")
        .await
        .expect("the store answers");
    assert!(
        take("a", NOW + 30, NOW + 16)
            .await
            .expect("the store answers")
    );
    store
        .release_lease(&name, "a")
        .await
        .expect("the store answers");
}

/// Of many who take at once, one gets it.
pub fn parallel_takers_get_one_lease(store: &dyn UpstreamStore) {
    let name = sample_id(NOW).to_string();
    let taken = super::in_parallel(8, async |number| {
        let owner = format!("owner {number}");
        store
            .acquire_lease(&name, &owner, NOW + 10, NOW)
            .await
            .expect("the store answers")
    });
    assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1);
}
