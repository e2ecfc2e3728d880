#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use holdfast_store::LimitSettings;

use super::file::{self, keys};
use super::*;

mod pool;
mod routes;
mod storage;
mod upstreams;

fn home() -> Environment {
    Environment::from([("HOME", "/people/ada")])
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(Path::new("holdfast.toml"), text, &Flags::default(), &home())
}

/// Checks the whole rendering, as a user sees it.
#[track_caller]
fn check_errors(text: &str, expected: &str) {
    let shown = parse(text).unwrap_err().to_string();
    assert_eq!(shown.trim_end(), expected.trim(), "\n--- shown:\n{shown}");
}

/// Everything that a configuration says but the catalog, for comparing two.
fn said(config: &Config) -> String {
    let config = Config {
        catalog: Arc::default(),
        ..config.clone()
    };
    format!("{config:#?}")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn without_a_file_there_is_one_engine_with_the_default_model() {
    let config = parse("").unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        config.server.data_dir,
        Path::new("/people/ada/.local/share/holdfast")
    );
    assert_eq!(
        config.models_dir,
        Path::new("/people/ada/.local/share/holdfast/models")
    );
    assert!(config.auth.required);
    let [engine] = config.engines.as_slice() else {
        panic!("one engine")
    };
    assert_eq!(
        (engine.name.as_str(), &engine.model),
        ("default", &ModelReference::default())
    );
    let [model] = config.models.as_slice() else {
        panic!("one model")
    };
    assert_eq!(model.name, "smollm2-135m-instruct");
    assert_eq!(model.aliases, ["default"]);
    assert_eq!(model.profile, ProfileName::Native);
}

#[test]
fn flags_win_over_environment_and_environment_over_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\ndata_dir = \"file\"\n[log]\nlevel = \"warn\"\n";
    let load = |flags: &Flags, environment: &Environment| {
        Config::parse(
            Path::new("/etc/holdfast/holdfast.toml"),
            text,
            flags,
            environment,
        )
        .unwrap()
    };
    let config = load(&Flags::default(), &Environment::default());
    assert_eq!(config.server.listen.port(), 1);
    assert_eq!(config.server.data_dir, Path::new("/etc/holdfast/file"));
    assert_eq!(config.models_dir, Path::new("/etc/holdfast/file/models"));
    assert_eq!(config.log.filter, "warn");

    let environment = Environment::from([
        ("HOLDFAST_LISTEN", "127.0.0.1:2"),
        ("HOLDFAST_DATA_DIR", "/environment"),
        ("HOLDFAST_MODELS_DIR", "/models"),
        ("HOLDFAST_LOG", "debug"),
    ]);
    let config = load(&Flags::default(), &environment);
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.data_dir, Path::new("/environment"));
    assert_eq!(config.models_dir, Path::new("/models"));
    assert_eq!(config.log.filter, "debug");

    let flags = Flags {
        listen: Some("localhost:3".into()),
        data_dir: Some("flag".into()),
        ..Flags::default()
    };
    let config = load(&flags, &environment);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.server.data_dir, Path::new("flag"));
}

#[test]
fn the_data_directory_follows_the_xdg_convention() {
    let environment = Environment::from([("HOME", "/people/ada"), ("XDG_DATA_HOME", "/data")]);
    let config = Config::parse(Path::new("x"), "", &Flags::default(), &environment).unwrap();
    assert_eq!(config.server.data_dir, Path::new("/data/holdfast"));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let environment = Environment::from([("HOME", "/people/ada"), ("HOLDFAST_LISTEN", "")]);
    let config = Config::parse(Path::new("x"), "", &Flags::default(), &environment).unwrap();
    assert_eq!(config.server.listen.port(), 8080);
}

#[test]
fn a_misspelt_key_is_shown_in_place_with_a_suggestion() {
    check_errors(
        "# comment\n[server]\n  lisen = \"127.0.0.1:1\"\n",
        "
error: unknown key `lisen` in [server]
 --> holdfast.toml:3:3
  |
3 |   lisen = \"127.0.0.1:1\"
  |   ^^^^^
  = help: did you mean `listen`?",
    );
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    check_errors(
        "[sever]\nlisten = 1\n\n[log]\nformat = \"xml\"\n\n[[engines]]\nname = \"a\"\nthreads = \"two\"\nslots = 0\n",
        "
error: unknown section `sever`
 --> holdfast.toml:1:2
  |
1 | [sever]
  |  ^^^^^
  = help: did you mean `server`?

error: `format` in [log]: unknown variant `xml`, expected `pretty` or `json`
 --> holdfast.toml:5:10
  |
5 | format = \"xml\"
  |          ^^^^^

error: `threads` in [[engines]]: this is string \"two\", expected a whole number from 0 to 4294967295
 --> holdfast.toml:9:11
  |
9 | threads = \"two\"
  |           ^^^^^

error: `slots` is 0, which is not between 1 and 128
  --> holdfast.toml:10:9
   |
10 | slots = 0
   |         ^",
    );
}

#[test]
fn a_syntax_error_is_shown_in_place() {
    let errors = parse("[server]\nlisten = \"127.0.0.1\n").unwrap_err();
    let place = errors.place(&errors.problems[0]).unwrap();
    assert_eq!(place.line, 2);
}

#[test]
fn columns_count_characters_and_tabs_do_not_shift_the_caret() {
    check_errors(
        "\t[log] # \u{4f60}\u{597d}\n\tlevel = \"loud\"\n",
        "
error: `level`: `loud` is not a log filter
 --> holdfast.toml:2:10
  |
2 |  level = \"loud\"
  |          ^^^^^^
  = help: write `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,holdfast=debug`",
    );
}

#[test]
fn lists_and_tables_are_told_apart() {
    check_errors(
        "[engines]\nname = \"a\"\n",
        "
error: `engines` is a list
 --> holdfast.toml:1:1
  |
1 | [engines]
  | ^^^^^^^^^
  = help: write `[[engines]]` with two brackets on either side",
    );
    check_errors(
        "[[server]]\n",
        "
error: [server] may be there only once
 --> holdfast.toml:1:1
  |
1 | [[server]]
  | ^^^^^^^^^^
  = help: write `[server]` with one bracket on either side",
    );
}

#[test]
fn keys_are_required_unless_only_this_machine_can_connect() {
    check_errors(
        "[server]\nlisten = \"0.0.0.0:80\"\n[auth]\nrequired = false\n",
        "
error: `required = false` would open the server on 0.0.0.0:80 to everyone who can reach it
 --> holdfast.toml:4:12
  |
4 | required = false
  |            ^^^^^
  = help: listen on 127.0.0.1, or leave keys required",
    );
    assert!(!parse("[auth]\nrequired = false\n").unwrap().auth.required);
    // The flag is what counts in the end.
    let flags = Flags {
        listen: Some("192.168.0.1:80".into()),
        ..Flags::default()
    };
    assert!(
        Config::parse(
            Path::new("x"),
            "[auth]\nrequired = false\n",
            &flags,
            &home()
        )
        .is_err()
    );
}

#[test]
fn secrets_are_referred_to_and_never_repeated() {
    let text = "[auth]\nbootstrap_key = \"env:THE_KEY\"\n";
    let environment = Environment::from([("HOME", "/people/ada"), ("THE_KEY", "0123456789abcdef")]);
    let config = Config::parse(Path::new("x"), text, &Flags::default(), &environment).unwrap();
    assert_eq!(
        config.auth.bootstrap_key.unwrap().expose(),
        "0123456789abcdef"
    );
    let errors = parse(text).unwrap_err();
    assert!(errors.problems[0].message.contains("THE_KEY is not set"));

    let errors = parse("[auth]\nbootstrap_key = \"hf-plaintext-secret\"\n").unwrap_err();
    assert!(!errors.problems[0].message.contains("plaintext"));

    let errors = Config::parse(
        Path::new("x"),
        "",
        &Flags::default(),
        &Environment::from([("HOME", "/"), ("HOLDFAST_BOOTSTRAP_KEY", "too-short")]),
    )
    .unwrap_err();
    assert!(
        errors.to_string().contains("at least 16 characters"),
        "{errors}"
    );
    assert!(!errors.to_string().contains("too-short"), "{errors}");
}

#[test]
fn a_secret_in_a_file_is_found_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "0123456789abcdef\n").unwrap();
    let path = folder.path().join("holdfast.toml");
    let text = "[auth]\nbootstrap_key = \"file:key\"\n";
    let config = Config::parse(&path, text, &Flags::default(), &home()).unwrap();
    assert_eq!(
        config.auth.bootstrap_key.unwrap().expose(),
        "0123456789abcdef"
    );
}

#[test]
fn models_name_their_engine() {
    check_errors(
        "[[engines]]\nname = \"small\"\n[[models]]\nname = \"a\"\nengine = \"smal\"\n",
        "
error: there is no engine `smal`
 --> holdfast.toml:5:10
  |
5 | engine = \"smal\"
  |          ^^^^^^
  = help: did you mean `small`?",
    );
    let errors =
        parse("[[engines]]\nname = \"a\"\n[[engines]]\nname = \"b\"\n[[models]]\nname = \"m\"\n")
            .unwrap_err();
    assert!(
        errors.to_string().contains("does not say which engine"),
        "{errors}"
    );
}

#[test]
fn names_are_needed_and_unique() {
    let errors = parse(
        "[[models]]\nname = \"a\"\naliases = [\"b\", \"a\"]\n[[models]]\nprofile = \"ark\"\n",
    )
    .unwrap_err();
    let messages: Vec<_> = errors
        .problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "the model name `a` is taken already",
            "`name` is missing in [[models]]"
        ]
    );
    assert_eq!(errors.place(&errors.problems[1]).unwrap().line, 4);
}

#[test]
fn the_time_to_live_lies_in_its_range() {
    let errors =
        parse("[[models]]\nname = \"a\"\nprofile = \"ark\"\nttl_default = 60\n").unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("outside its range of 3600 to 604800 s"),
        "{errors}"
    );
    let config =
        parse("[[models]]\nname = \"a\"\nprofile = \"ark\"\nttl_default = 60\nttl_min = 1\n")
            .unwrap();
    assert_eq!(config.models[0].ttl_default_seconds, Some(60));
}

#[test]
fn a_model_is_a_name_or_a_path() {
    let text = "[[engines]]\nname = \"a\"\nmodel = \"./m.gguf\"\n[[engines]]\nname = \"b\"\nmodel = \"qwen\"\n";
    let config = Config::parse(
        Path::new("/etc/holdfast.toml"),
        text,
        &Flags::default(),
        &home(),
    )
    .unwrap();
    assert_eq!(
        config.engines[0].model,
        ModelReference::File("/etc/./m.gguf".into())
    );
    let names: Vec<_> = config
        .models
        .iter()
        .map(|model| match model.source {
            ModelSource::Engine(index) => (model.name.as_str(), index),
            ModelSource::Route { .. } => panic!("a route"),
        })
        .collect();
    assert_eq!(names, [("m", 0), ("qwen", 1)]);
}

#[test]
fn a_missing_file_is_an_error_only_if_it_was_named() {
    let flags = Flags {
        config: Some("no/such/file.toml".into()),
        ..Flags::default()
    };
    let errors = Config::load(&flags, &home()).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("no/such/file.toml can't be read"),
        "{errors}"
    );
}

/// An environment in which every variable that a text refers to is set.
fn with_references(text: &str) -> Environment {
    let mut environment = home();
    for part in text.split("\"env:").skip(1) {
        let name = part.split('"').next().unwrap();
        let value = match name {
            "GOOGLE_SERVICE_ACCOUNT" => SERVICE_ACCOUNT,
            "REDIS_URL" => "rediss://:0123456789abcdef@redis.internal:6379",
            "DATABASE_URL" => "postgres://holdfast:0123456789abcdef@db.internal/holdfast",
            _ => "0123456789abcdef",
        };
        environment.0.insert(name.to_owned(), value.to_owned());
    }
    environment
}

const SERVICE_ACCOUNT: &str =
    r#"{"client_email": "a@b.c", "private_key": "k", "token_uri": "https://d.e/token"}"#;

#[test]
fn every_example_is_valid_and_every_provider_has_one() {
    let mut providers = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let config = Config::parse(&path, &text, &Flags::default(), &with_references(&text))
            .unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(
            config.engines.is_empty(),
            !config.upstreams.is_empty(),
            "{}: an engine is started where it is needed only",
            path.display()
        );
        for upstream in &config.upstreams {
            providers.insert(upstream.provider.name);
            assert!(
                config
                    .models
                    .iter()
                    .any(|model| targets(model).contains(&upstream.name)),
                "{}: `{}` is used by no model",
                path.display(),
                upstream.name
            );
        }
    }
    for known in holdfast_protocol::provider::ALL {
        assert!(
            providers.contains(known.name),
            "{} has no example",
            known.title
        );
    }
}

/// Names of the upstreams of a model.
fn targets(model: &ModelConfig) -> Vec<String> {
    match &model.source {
        ModelSource::Engine(_) => Vec::new(),
        ModelSource::Route { route, .. } => route
            .targets
            .iter()
            .map(|target| target.upstream.clone())
            .collect(),
    }
}

#[test]
fn the_seed_example_serves_the_seeds_models() {
    let path = root().join("examples/seed.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let config = Config::parse(&path, &text, &Flags::default(), &home()).unwrap();
    let models: Vec<_> = config
        .models
        .iter()
        .map(|model| (model.name.as_str(), model.profile))
        .collect();
    assert_eq!(
        models,
        [
            ("gemini-2.0-flash", ProfileName::Gemini),
            ("Doubao-1.5-pro-32k", ProfileName::Ark)
        ]
    );
}

/// In `examples/holdfast.toml` a setting right behind its `#` shows a default; other comments are prose.
#[test]
fn the_annotated_example_shows_the_real_defaults_of_every_key() {
    let text = std::fs::read_to_string(root().join("examples/holdfast.toml")).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting)
                if setting
                    .starts_with(|first: char| first.is_ascii_lowercase() || first == '[') =>
            {
                setting
            }
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    assert_ne!(uncommented, text);
    let path = Path::new("holdfast.toml");
    let shown = Config::parse(path, &uncommented, &Flags::default(), &home())
        .unwrap_or_else(|errors| panic!("{errors}"));
    let default = said(&parse("").unwrap());
    assert_eq!(said(&shown), default);
    let as_it_is = Config::parse(path, &text, &Flags::default(), &home()).unwrap();
    assert_eq!(said(&as_it_is), default);

    let mentioned: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| Some(line.trim_start_matches(['#', ' ']).split_once(" = ")?.0))
        .collect();
    let known = [
        keys::<file::Server>(),
        keys::<file::Storage>(),
        keys::<file::EncryptionTable>(),
        keys::<file::TlsTable>(),
        keys::<file::Telemetry>(),
        keys::<file::WebhookTable>(),
        keys::<file::Log>(),
        keys::<file::LedgerTable>(),
        keys::<file::Contexts>(),
        keys::<file::Auth>(),
        keys::<file::LimitsTable>(),
        keys::<file::SharedTable>(),
        keys::<file::RatesTable>(),
        keys::<file::EngineTable>(),
        keys::<file::ModelTable>(),
        keys::<file::UpstreamTable>(),
        keys::<file::CacheTable>(),
        keys::<file::CatalogTable>(),
    ];
    for key in known.iter().flatten() {
        assert!(
            mentioned.contains(key.as_str())
                || text.contains(&format!("[upstreams.{key}]"))
                || text.contains(&format!("[server.{key}]"))
                || text.contains(&format!("[storage.{key}]"))
                || text.contains(&format!("[limits.{key}]")),
            "`{key}` is not in examples/holdfast.toml"
        );
    }
}

/// The lines of `examples/holdfast.toml` from this one on that stand there with three spaces behind their `#`.
fn annotated_block(first: &str) -> String {
    let text = std::fs::read_to_string(root().join("examples/holdfast.toml")).unwrap();
    text.lines()
        .skip_while(|line| *line != format!("#   {first}"))
        .map_while(|line| line.strip_prefix("#   "))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[test]
fn the_annotated_upstream_shows_the_real_defaults() {
    let block = annotated_block("[[upstreams]]");
    let parse = |text: &str| {
        Config::parse(
            Path::new("x"),
            text,
            &Flags::default(),
            &with_references(text),
        )
        .unwrap_or_else(|errors| panic!("{errors}"))
    };
    let shown = parse(&block);
    let short = "[[upstreams]]\nname = \"openai\"\nprovider = \"openai\"\napi_key = \"env:OPENAI_API_KEY\"\n";
    assert_eq!(said(&shown), said(&parse(short)));
    for key in keys::<file::UpstreamTable>() {
        assert!(
            key == "cache" || block.contains(&format!("{key} = ")),
            "`{key}` is not in the block of the upstream"
        );
    }
}

#[test]
fn limits_are_those_that_are_written_and_none_else() {
    let config = parse(
        "[limits.per_key]\nrequests_per_minute = 60\n[limits.per_project]\ntokens_per_minute = 9\n\
         [[models]]\nname = \"m\"\nlimits = { concurrent_requests = 3 }\n[[models]]\nname = \"n\"\n",
    )
    .unwrap();
    let of = |limits: LimitSettings| {
        let LimitSettings {
            requests_per_minute,
            tokens_per_minute,
            concurrent_requests,
            ..
        } = limits;
        (requests_per_minute, tokens_per_minute, concurrent_requests)
    };
    assert_eq!(of(config.limits.per_key), (Some(60), None, None));
    assert_eq!(of(config.limits.per_project), (None, Some(9), None));
    assert_eq!(of(config.models[0].limits), (None, None, Some(3)));
    assert_eq!(of(config.models[1].limits), (None, None, None));
    for wrong in [
        "[limits.per_key]\nrequests_per_minute = 0\n",
        "[limits.per_key]\nrequests_per_minuet = 1\n",
        "[limits.per_keys]\nrequests_per_minute = 1\n",
        "[[models]]\nname = \"m\"\nlimits = { tokens_per_minute = -1 }\n",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_committed_schema_is_the_real_one() {
    let path = root().join("docs/config.schema.json");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == schema(),
        "docs/config.schema.json is out of date: write it with `holdfast config schema > docs/config.schema.json`"
    );
}

#[test]
fn suggestions_are_close() {
    let known = ["listen", "data_dir", "drain_seconds"];
    assert_eq!(problems::closest("lisetn", known), Some("listen"));
    assert_eq!(problems::closest("data-dir", known), Some("data_dir"));
    assert_eq!(problems::closest("Listen", known), Some("listen"));
    assert_eq!(problems::closest("password", known), None);
}
