#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn script(folder: &Path, text: &str) -> EncryptionConfig {
    // By another process: a program that some process has open for writing can't be run, and a test beside this one may
    // be starting a process, which has for an instant what this one has open.
    let written = std::process::Command::new("sh")
        .args([
            "-c",
            "printf '%s\\n' '#!/bin/sh' \"$1\" > give-key && chmod 700 give-key",
            "sh",
            text,
        ])
        .current_dir(folder)
        .status();
    assert!(written.unwrap().success());
    EncryptionConfig {
        key: KeySource::command("./give-key one two", folder),
        previous: Vec::new(),
    }
}

#[tokio::test]
async fn a_command_is_run_without_a_shell_and_prints_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let config = script(folder.path(), &format!("test \"$1\" = one && echo {KEY}"));
    let expected = DataKey::parse(KEY).unwrap().id();
    assert_eq!(config.keyring().await.unwrap().current(), Some(expected));
    let path = format!("printf {KEY}");
    let config = EncryptionConfig {
        key: KeySource::command(&path, folder.path()),
        previous: Vec::new(),
    };
    assert_eq!(config.keyring().await.unwrap().current(), Some(expected));
    let config = EncryptionConfig {
        key: KeySource::command("echo $(echo injected)", folder.path()),
        previous: Vec::new(),
    };
    assert!(
        config
            .keyring()
            .await
            .unwrap_err()
            .contains("32 random bytes")
    );
}

#[tokio::test]
async fn a_command_that_fails_is_named_and_what_it_printed_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    for (text, about) in [
        (format!("echo {KEY}; exit 3"), "it has failed"),
        ("echo secret-but-no-key".to_owned(), "32 random bytes"),
        ("printf '\\377'".to_owned(), "can't be read"),
        ("yes secret-but-no-key".to_owned(), "give-key"),
    ] {
        let shown = script(folder.path(), &text).keyring().await.unwrap_err();
        assert!(shown.contains(about), "{shown}");
        assert!(shown.contains("`key` in [storage.encryption]"), "{shown}");
        assert!(!shown.contains(KEY) && !shown.contains("secret"), "{shown}");
    }
    let config = EncryptionConfig {
        key: KeySource::command("./is-not-there", folder.path()),
        previous: Vec::new(),
    };
    assert!(config.keyring().await.unwrap_err().contains("can't be run"));
}

#[tokio::test]
async fn previous_keys_open_but_do_not_seal() {
    let previous = KeySource::Known(Secret::new(KEY));
    let config = EncryptionConfig {
        key: None,
        previous: vec![previous],
    };
    let keys = config.keyring().await.unwrap();
    assert_eq!(keys.current(), None);
    assert!(keys.opens(DataKey::parse(KEY).unwrap().id()));
    assert!(!format!("{config:?}").contains(KEY));
}
