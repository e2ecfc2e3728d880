use std::time::Duration;

use holdfast_store::PostgresOptions;

use super::*;

const URL: &str = "postgres://holdfast:p%40ss@db.internal/holdfast?sslmode=verify-full";

fn with(variables: [(&str, &str); 2], text: &str) -> Result<Config, ConfigErrors> {
    let environment = Environment::from(variables);
    Config::parse(
        Path::new("holdfast.toml"),
        text,
        &Flags::default(),
        &environment,
    )
}

#[test]
fn without_a_url_it_is_sqlite() {
    assert_eq!(parse("").unwrap().storage, StorageConfig::Sqlite);
    assert_eq!(parse("[storage]\n").unwrap().storage, StorageConfig::Sqlite);
}

#[test]
fn a_url_is_written_down_or_referred_to() {
    let plain = "postgresql://db.internal/holdfast";
    let config = parse(&format!("[storage]\nurl = \"{plain}\"\n")).unwrap();
    let expected = StorageConfig::Postgres(PostgresOptions::new(plain));
    assert_eq!(config.storage, expected);

    let text = "[storage]\nurl = \"env:THE_URL\"\nconnections_max = 3\nconnection_wait_ms = 250\n\
                statement_ms_max = 4000\n";
    let config = with([("HOME", "/"), ("THE_URL", URL)], text).unwrap();
    let expected = PostgresOptions {
        connections_max: 3,
        connection_wait: Duration::from_millis(250),
        statement_time_max: Duration::from_secs(4),
        ..PostgresOptions::new(URL)
    };
    assert_eq!(config.storage, StorageConfig::Postgres(expected));
    assert!(!format!("{config:?}").contains("p%40ss"));
}

#[test]
fn the_variable_wins_over_the_file() {
    let text = "[storage]\nurl = \"postgres://elsewhere/holdfast\"\n";
    let config = with([("HOME", "/"), ("HOLDFAST_STORAGE_URL", URL)], text).unwrap();
    let expected = StorageConfig::Postgres(PostgresOptions::new(URL));
    assert_eq!(config.storage, expected);
}

#[test]
fn a_password_in_the_file_is_refused_and_not_shown() {
    for secret in [
        "postgres://holdfast:hunter2@db.internal/holdfast",
        "postgres://db.internal/holdfast?user=holdfast&password=hunter2",
        "postgres://holdfast:@hunter2@db.internal/holdfast",
    ] {
        let errors = parse(&format!("[storage]\nurl = \"{secret}\"\n")).unwrap_err();
        let shown = errors.to_string();
        assert!(shown.contains("`url` in [storage]"), "{shown}");
        assert!(shown.contains("env:NAME"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn what_is_no_url_is_refused_and_not_shown() {
    for wrong in ["hunter2", "mysql://hunter2", "postgres://h/d?hunter2=1"] {
        let errors = parse(&format!("[storage]\nurl = \"{wrong}\"\n")).unwrap_err();
        let shown = errors.to_string();
        assert!(shown.contains("`url` in [storage]"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        let errors = with([("HOME", "/"), ("HOLDFAST_STORAGE_URL", wrong)], "").unwrap_err();
        let shown = errors.to_string();
        assert!(shown.contains("HOLDFAST_STORAGE_URL"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn settings_of_postgresql_need_its_url() {
    check_errors(
        "[storage]\nconnections_max = 4\n",
        "
error: `connections_max` is for PostgreSQL, and there is no `url`
 --> holdfast.toml:2:19
  |
2 | connections_max = 4
  |                   ^
  = help: add `url = \"env:NAME\"`, or leave it out: SQLite in the data directory needs no settings
",
    );
}

#[test]
fn numbers_have_their_range() {
    let text = "[storage]\nurl = \"postgres://h/d\"\nconnections_max = 0\nconnection_wait_ms = 1\n";
    let shown = parse(text).unwrap_err().to_string();
    assert!(shown.contains("`connections_max` is 0"), "{shown}");
    assert!(shown.contains("`connection_wait_ms` is 1"), "{shown}");
}

/// Commands that do not serve follow it where they can, and otherwise say why they can't.
#[test]
fn a_url_that_cannot_be_had_is_no_error_for_commands_that_do_not_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.toml");
    std::fs::write(&path, "[storage]\nurl = \"env:THE_URL\"\n").unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let load = |environment| {
        Config::load_without_secrets(&flags, &environment)
            .unwrap()
            .storage
    };
    let known = Environment::from([("HOME", "/"), ("THE_URL", URL)]);
    let expected = StorageConfig::Postgres(PostgresOptions::new(URL));
    assert_eq!(load(known), expected);
    match load(Environment::from([("HOME", "/")])) {
        StorageConfig::OutOfReach(why) => assert!(why.contains("THE_URL is not set"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_annotated_block_shows_the_real_defaults() {
    let block = annotated_block("[storage]");
    let shown = with([("HOME", "/"), ("DATABASE_URL", URL)], &block).unwrap();
    let expected = StorageConfig::Postgres(PostgresOptions::new(URL));
    assert_eq!(shown.storage, expected);
    for key in keys::<file::Storage>() {
        let is_there = key == "encryption" || block.contains(&format!("{key} = "));
        assert!(is_there, "`{key}` is missing");
    }
}

#[test]
fn data_keys_are_referred_to_and_read_where_they_can_be() {
    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let text = "[storage.encryption]\nkey = \"env:ONE\"\n\
                previous_keys = [\"command:kms get --name old\", \"env:ONE\"]\n";
    let config = with([("HOME", "/"), ("ONE", KEY)], text).unwrap();
    let known = KeySource::Known(Secret::new(KEY));
    assert_eq!(config.encryption.key, Some(known.clone()));
    let command = KeySource::Command {
        program: "kms".into(),
        arguments: ["get", "--name", "old"].map(str::to_owned).to_vec(),
    };
    assert_eq!(config.encryption.previous, [command, known]);
    assert!(!format!("{config:?}").contains(KEY));
    assert_eq!(parse("").unwrap().encryption, EncryptionConfig::default());

    for (key, about) in [
        (KEY, "only referred to"),
        ("env:TWO", "TWO is not set"),
        ("env:HOME", "no data key"),
        ("command: ", "there is no command"),
    ] {
        let text = format!("[storage.encryption]\nkey = \"{key}\"\n");
        let shown = with([("HOME", "/"), ("ONE", KEY)], &text)
            .unwrap_err()
            .to_string();
        assert!(shown.contains(about), "{shown}");
        assert!(!shown.contains(KEY), "{shown}");
    }
}

/// Commands that do not serve say what is missing only when they need it.
#[test]
fn a_data_key_that_cannot_be_had_is_no_error_for_commands_that_do_not_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.toml");
    std::fs::write(&path, "[storage.encryption]\nkey = \"env:ONE\"\n").unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let config = Config::load_without_secrets(&flags, &home()).unwrap();
    match config.encryption.key {
        Some(KeySource::OutOfReach(why)) => assert!(why.contains("ONE is not set"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_example_for_several_servers_shares_database_and_salt() {
    let path = root().join("examples/postgres.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = Config::parse(&path, &text, &Flags::default(), &with_references(&text)).unwrap();
    assert!(matches!(config.storage, StorageConfig::Postgres(_)));
    assert!(config.contexts.salt.is_some());
}

#[test]
fn what_servers_share_is_named_without_its_password() {
    let none = parse("").unwrap();
    assert!(none.shared.is_none());
    let plain = parse(
        "[shared]\nurl = \"redis://redis.internal:6379/2\"\nprefix = \"team.a\"\ncontexts = false\n",
    );
    let shared = plain.unwrap().shared.unwrap();
    assert_eq!(shared.url.expose(), "redis://redis.internal:6379/2");
    assert_eq!(shared.prefix, "team.a");
    assert!(!shared.contexts);

    let path = root().join("examples/replicas.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = Config::parse(&path, &text, &Flags::default(), &with_references(&text)).unwrap();
    let shared = config.shared.unwrap();
    assert_eq!(shared.prefix, "holdfast");
    assert!(shared.contexts);
    assert!(!format!("{shared:?}").contains("0123456789abcdef"));

    for wrong in [
        "url = \"redis://:hunter2@redis.internal\"",
        "url = \"postgres://hunter2\"",
        "url = \"env:NOT_hunter2\"",
        "url = \"redis://h\"\nprefix = \"a b\"",
        "url = \"redis://h\"\nprefix = \"\"",
    ] {
        let errors = parse(&format!("[shared]\n{wrong}\n")).unwrap_err();
        let shown = errors.to_string().replace("NOT_hunter2", "");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
