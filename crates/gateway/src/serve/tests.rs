#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;

use holdfast_store::{KeyStore, MemoryStore};
use tempfile::TempDir;

use super::first_key::ALL_SCOPES;
use std::path::Path;

use super::*;
use crate::app::ModelSource;
use crate::config::{Environment, Flags};
use crate::keys;

fn fixture(variables: [(&str, &str); 1]) -> (TempDir, Config, DataDir) {
    let folder = tempfile::tempdir().unwrap();
    let flags = Flags {
        data_dir: Some(folder.path().join("data")),
        ..Flags::default()
    };
    let config = Config::parse(Path::new("x"), "", &flags, &Environment::from(variables)).unwrap();
    let data_dir = DataDir::new(&config.server.data_dir);
    data_dir.create().unwrap();
    (folder, config, data_dir)
}

#[tokio::test]
async fn the_first_start_makes_one_key_and_keeps_it_for_the_command_line() {
    let (_folder, config, data_dir) = fixture([("HOME", "/")]);
    let store = MemoryStore::default();
    let secret = ensure_keys(&config, &data_dir, &store, 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(data_dir.first_key(), Some(secret.clone()));
    let mode = std::fs::metadata(data_dir.first_key_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let record = store
        .key_by_hash(&keys::hash(secret.expose()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.project, DEFAULT_PROJECT);
    assert_eq!(record.scopes, ALL_SCOPES);

    assert_eq!(
        ensure_keys(&config, &data_dir, &store, 2).await.unwrap(),
        None
    );
    assert_eq!(store.page_keys(None, None, 1000).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_bootstrap_key_is_made_once_and_never_shown() {
    let (_folder, config, data_dir) = fixture([("HOLDFAST_BOOTSTRAP_KEY", "0123456789abcdef")]);
    let store = MemoryStore::default();
    for now in 1..=2 {
        assert_eq!(
            ensure_keys(&config, &data_dir, &store, now).await.unwrap(),
            None
        );
    }
    let stored = store.page_keys(None, None, 1000).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].hash, keys::hash("0123456789abcdef"));
    assert_eq!(data_dir.first_key(), None);

    store.revoke_key(&stored[0].id, 3).await.unwrap();
    ensure_keys(&config, &data_dir, &store, 4).await.unwrap();
    let after = store.page_keys(None, None, 1000).await.unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].revoked_at, Some(3));
}

#[tokio::test]
async fn servers_that_start_together_make_one_key_and_show_it_once() {
    let store = MemoryStore::default();
    let fixtures: Vec<_> = (0..4).map(|_| fixture([("HOME", "/")])).collect();
    let starts = fixtures
        .iter()
        .map(|(_, config, data_dir)| ensure_keys(config, data_dir, &store, 1));
    let shown = futures_util::future::join_all(starts).await;
    let shown: Vec<_> = shown.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(store.page_keys(None, None, 1000).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_killed_while_it_made_the_first_key_holds_up_nobody() {
    let (_folder, config, data_dir) = fixture([("HOME", "/")]);
    let store = MemoryStore::default();
    holdfast_store::UpstreamStore::acquire_lease(&store, "first key", "killed", 2, 1)
        .await
        .unwrap();
    let made = ensure_keys(&config, &data_dir, &store, 2).await.unwrap();
    assert!(made.is_some());
}

#[test]
fn a_data_directory_has_one_owner() {
    let _guard = crate::models::tests::SPAWNING.blocking_read();
    let (_folder, _config, data_dir) = fixture([("HOME", "/")]);
    assert!(!data_dir.is_locked());
    let lock = data_dir.lock().unwrap();
    assert!(data_dir.is_locked());
    let error = data_dir.lock().unwrap_err();
    assert!(
        error.message.contains("another holdfast (process "),
        "{error}"
    );
    drop(lock);
    assert!(!data_dir.is_locked());
    data_dir.lock().unwrap();
}

#[test]
fn a_data_directory_is_for_its_owner_only() {
    let (_folder, _config, data_dir) = fixture([("HOME", "/")]);
    let mode = std::fs::metadata(data_dir.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_address_is_written_down_and_forgotten() {
    let (_folder, _config, data_dir) = fixture([("HOME", "/")]);
    assert_eq!(data_dir.address(), None);
    data_dir.write_address("http://127.0.0.1:1").unwrap();
    assert_eq!(data_dir.address().as_deref(), Some("http://127.0.0.1:1"));
    data_dir.remove_address();
    assert_eq!(data_dir.address(), None);
}

#[test]
fn a_server_on_all_addresses_is_reached_on_this_machine() {
    let shown = |address: &str| reachable(address.parse().unwrap()).to_string();
    assert_eq!(shown("0.0.0.0:80"), "127.0.0.1:80");
    assert_eq!(shown("[::]:80"), "[::1]:80");
    assert_eq!(shown("10.0.0.1:80"), "10.0.0.1:80");
}

#[tokio::test]
async fn a_taken_port_is_refused_before_anything_else() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = bind(taken.local_addr().unwrap(), false).unwrap_err();
    assert!(
        error
            .help
            .unwrap()
            .contains("another program has this port")
    );
}

#[test]
fn the_salt_is_made_once_and_read_by_its_owner_only() {
    let (_folder, config, data_dir) = fixture([("HOME", "/")]);
    let salt = data_dir.salt().unwrap();
    assert_ne!(salt, [0; 32]);
    assert_eq!(data_dir.salt().unwrap(), salt);
    let path = data_dir.path().join("salt");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(super::salt(&config, &data_dir).unwrap(), salt);

    // A damaged one is not replaced silently: what is cached would not be found again.
    std::fs::write(&path, "short").unwrap();
    let error = data_dir.salt().unwrap_err();
    assert!(error.message.contains("damaged"), "{error}");
}

#[test]
fn starts_at_the_same_time_agree_on_a_salt() {
    let (_folder, _config, data_dir) = fixture([("HOME", "/")]);
    let salts: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| data_dir.salt().unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(salts.iter().all(|salt| *salt == salts[0]));
}

#[test]
fn a_configured_salt_takes_the_place_of_the_data_directorys() {
    let (_folder, config, data_dir) = fixture([("HOME", "/")]);
    let with = |text: &str| {
        let mut config = config.clone();
        config.contexts.salt = Some(Secret::new(text));
        super::salt(&config, &data_dir).unwrap()
    };
    assert_eq!(with("0123456789abcdef"), keys::hash("0123456789abcdef"));
    assert!(!data_dir.path().join("salt").exists());
}

#[test]
fn routed_models_need_no_engine() {
    let text = "[[upstreams]]\nname = \"u\"\nprovider = \"vllm\"\nbase_url = \"http://127.0.0.1:9/v1\"\n\
                [[models]]\nname = \"m\"\naliases = [\"n\"]\nprofile = \"ark\"\nmin_context_tokens = 3\nroute = [\"u\"]\nwindow_tokens = 1000\n";
    let environment = Environment::from([("HOME", "/")]);
    let config = Config::parse(Path::new("x"), text, &Flags::default(), &environment).unwrap();
    let entry = model_entry(&config.models[0], &config, &[]).unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.owned_by.as_str()),
        ("m", "vllm")
    );
    assert_eq!(entry.aliases, ["n"]);
    assert_eq!(entry.profile.ttl_default_seconds, 86_400);
    assert_eq!(entry.profile.min_context_tokens, 3);
    assert_eq!((entry.temperature, entry.top_p), (None, None));
    assert!(matches!(entry.source, ModelSource::Route(route) if route.targets[0].model == "m"));
    let options = app_options(&config, Vec::new(), [7; 32]);
    assert_eq!(options.upstreams.len(), 1);
    assert_eq!(options.salt, [7; 32]);
}

#[test]
fn with_a_data_key_no_messages_go_to_redis() {
    let text = "[shared]\nurl = \"redis://127.0.0.1:1\"\n";
    let sealed = format!("{text}[storage.encryption]\nkey = \"env:DATA_KEY\"\n");
    let key = "00".repeat(31) + "01";
    let environment = Environment::from([("HOME", "/"), ("DATA_KEY", key.as_str())]);
    for (text, contexts) in [(text, true), (&sealed, false)] {
        let config = Config::parse(Path::new("x"), text, &Flags::default(), &environment).unwrap();
        let options = app_options(&config, Vec::new(), [7; 32]);
        assert_eq!(options.shared.unwrap().contexts, contexts, "{text}");
    }
}
