use std::time::Duration;

use holdfast_protocol::context::OnTooSmall;
use holdfast_protocol::provider::{Caching, Prewarm, RawPath, UpstreamDialectName};

use super::*;
use crate::app::{Credentials, Isolation, RetryPolicy, Timeouts};

const KEY: &str = "0123456789abcdef";

pub(super) fn environment() -> Environment {
    Environment::from([
        ("HOME", "/people/ada"),
        ("K", KEY),
        ("ACCOUNT", SERVICE_ACCOUNT),
    ])
}

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(
        Path::new("holdfast.toml"),
        text,
        &Flags::default(),
        &environment(),
    )
}

/// The one upstream of a configuration, with these settings.
#[track_caller]
pub(super) fn upstream(settings: &str) -> UpstreamOptions {
    let config = parse(&format!("[[upstreams]]\nname = \"u\"\n{settings}"))
        .unwrap_or_else(|errors| panic!("{errors}"));
    config.upstreams.into_iter().next().unwrap()
}

/// What is wrong with these settings of an upstream, with line and message.
#[track_caller]
fn problems(settings: &str) -> Vec<(usize, String)> {
    let errors = parse(&format!("[[upstreams]]\nname = \"u\"\n{settings}")).unwrap_err();
    errors
        .problems
        .iter()
        .map(|problem| {
            let line = errors.place(problem).map_or(0, |place| place.line);
            (line, problem.message.clone())
        })
        .collect()
}

#[track_caller]
pub(super) fn check_problem(settings: &str, line: usize, message: &str) {
    let found = problems(settings);
    let [(at, shown)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((*at, shown.as_str()), (line, message));
}

#[track_caller]
fn check_errors(text: &str, expected: &str) {
    let shown = parse(text).unwrap_err().to_string();
    assert_eq!(shown.trim_end(), expected.trim(), "\n--- shown:\n{shown}");
}

fn key_of(upstream: &UpstreamOptions) -> &str {
    match &upstream.credentials {
        Credentials::Key(key) => key.expose(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_upstream_has_the_defaults_of_its_provider() {
    let upstream = upstream("provider = \"openai\"\napi_key = \"env:K\"\n");
    assert_eq!(upstream.base_url, "https://api.openai.com/v1");
    assert_eq!(upstream.dialect, UpstreamDialectName::OpenaiChat);
    assert_eq!(upstream.query, "");
    assert_eq!(key_of(&upstream), KEY);
    assert_eq!(upstream.timeouts, Timeouts::default());
    assert_eq!(upstream.retry, RetryPolicy::default());
    assert_eq!(upstream.isolation, Isolation::Project);
    assert_eq!(upstream.cache, Default::default());
    assert_eq!(upstream.concurrency_max, 256);
    assert_eq!(upstream.on_too_small, OnTooSmall::Error);
    assert!(!format!("{upstream:?}").contains(KEY));
}

#[test]
fn every_setting_of_an_upstream_arrives() {
    let upstream = upstream(
        r#"provider = "ark"
dialect = "ark_context"
base_url = "http://127.0.0.1:9/api/{region}/"
region = "cn-beijing"
api_version = "2026-01-01"
api_key = "env:K"
headers = { X-Team = "blue", x-secret = "env:K" }
connect_timeout_ms = 1
first_byte_timeout_ms = 2
idle_timeout_ms = 3
total_timeout_s = 4
retries_max = 0
backoff_ms = 6
backoff_ms_max = 7
breaker_failures = 8
breaker_open_s = 9
isolation = "none"
concurrency_max = 10
on_too_small = "replay"
endpoints = ["completions", "audio_speech"]
[upstreams.cache]
caching = "handle"
min_tokens = 11
ttls = [300, 3600]
handle_ttl_max = 12
prewarm = "one_token"
"#,
    );
    assert_eq!(upstream.dialect, UpstreamDialectName::ArkContext);
    assert_eq!(upstream.base_url, "http://127.0.0.1:9/api/cn-beijing");
    assert_eq!(upstream.region, "cn-beijing");
    assert_eq!(upstream.query, "api-version=2026-01-01");
    let mut headers = upstream.headers.clone();
    headers.sort();
    assert_eq!(
        headers,
        [
            ("x-secret".to_owned(), KEY.to_owned()),
            ("x-team".to_owned(), "blue".to_owned())
        ]
    );
    assert_eq!(
        upstream.timeouts,
        Timeouts {
            connect: Duration::from_millis(1),
            first_byte: Duration::from_millis(2),
            idle: Duration::from_millis(3),
            total: Duration::from_secs(4),
        }
    );
    assert_eq!(
        upstream.retry,
        RetryPolicy {
            retries_max: 0,
            backoff: Duration::from_millis(6),
            backoff_max: Duration::from_millis(7),
            breaker_failures: 8,
            breaker_open: Duration::from_secs(9),
        }
    );
    assert_eq!(upstream.isolation, Isolation::None);
    assert_eq!(upstream.concurrency_max, 10);
    assert_eq!(upstream.on_too_small, OnTooSmall::Replay);
    assert_eq!(
        upstream.raw,
        Some(vec![RawPath::Completions, RawPath::AudioSpeech])
    );
    assert_eq!(upstream.cache.caching, Some(Caching::Handle));
    assert_eq!(upstream.cache.min_tokens, Some(11));
    assert_eq!(upstream.cache.tiers_seconds, Some(vec![300, 3600]));
    assert_eq!(upstream.cache.handle_seconds_max, Some(12));
    assert_eq!(upstream.cache.prewarm, Some(Prewarm::OneToken));
}

#[test]
fn every_endpoint_has_its_word() {
    let words: Vec<String> = RawPath::ALL
        .iter()
        .map(|path| format!("\"{}\"", path.as_str()))
        .collect();
    let settings = format!(
        "provider = \"openai\"\napi_key = \"env:K\"\nendpoints = [{}]\n",
        words.join(", ")
    );
    assert_eq!(upstream(&settings).raw.as_deref(), Some(RawPath::ALL));
    let none = upstream("provider = \"openai\"\napi_key = \"env:K\"\nendpoints = []\n");
    assert_eq!(none.raw, Some(Vec::new()));
}

#[test]
fn places_are_filled_into_the_providers_url() {
    let azure = upstream("provider = \"azure\"\nresource = \"r\"\napi_key = \"env:K\"\n");
    assert_eq!(azure.base_url, "https://r.openai.azure.com/openai/v1");

    let vertex = |region: &str| {
        upstream(&format!(
            "provider = \"vertex\"\nproject = \"p\"\nregion = \"{region}\"\napi_key = \"env:K\"\n"
        ))
    };
    let regional = vertex("europe-west4");
    assert_eq!(
        regional.base_url,
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p/locations/europe-west4"
    );
    assert_eq!(
        (regional.project.as_str(), regional.region.as_str()),
        ("p", "europe-west4")
    );
    assert_eq!(
        vertex("global").base_url,
        "https://aiplatform.googleapis.com/v1/projects/p/locations/global"
    );
}

#[test]
fn missing_places_are_problems() {
    check_errors(
        "[[upstreams]]\nname = \"u\"\nprovider = \"azure\"\napi_key = \"env:K\"\n",
        "
error: Azure OpenAI needs a `resource`
 --> holdfast.toml:2:8
  |
2 | name = \"u\"
  |        ^^^
  = help: add `resource = \"...\"` to this upstream",
    );
    // Models and caches of Vertex AI are named with both, whatever the URL.
    let found =
        problems("provider = \"vertex\"\nbase_url = \"http://127.0.0.1:9\"\napi_key = \"env:K\"\n");
    let messages: Vec<&str> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "Google Vertex AI needs a `region`",
            "Google Vertex AI needs a `project`"
        ]
    );
    check_problem(
        "provider = \"vllm\"\n",
        2,
        "`base_url` is missing: vLLM has no address of its own",
    );
    check_problem(
        "provider = \"minimax\"\ndialect = \"openai_chat\"\napi_key = \"env:K\"\n",
        2,
        "`base_url` is missing: MiniMax speaks `openai_chat` elsewhere",
    );
    check_problem(
        "provider = \"openai\"\napi_key = \"env:K\"\nresource = \"r\"\n",
        5,
        "`resource` has no meaning here: it is not part of the base URL",
    );
    check_problem(
        "provider = \"azure\"\napi_key = \"env:K\"\nresource = \"evil.example/\"\n",
        5,
        "`evil.example/` is no resource",
    );
}

#[test]
fn a_base_url_is_plain_http_without_credentials() {
    for (url, message) in [
        ("127.0.0.1:80", "this is not a URL"),
        ("ftp://a/", "a base URL begins with http:// or https://"),
        (
            "https://a:hunter2@b/",
            "credentials are not part of a base URL",
        ),
        ("https://a/?b=c", "a base URL has no query and no fragment"),
        (
            "https://{zone}.a/",
            "there is a placeholder that nothing stands for",
        ),
    ] {
        let settings = format!("provider = \"vllm\"\nbase_url = \"{url}\"\n");
        let found = problems(&settings);
        assert_eq!(found, [(4, format!("`base_url`: {message}"))], "{url}");
    }
    let errors =
        parse("[[upstreams]]\nname = \"u\"\nprovider = \"vllm\"\nbase_url = \"http://a b\"\n");
    assert!(errors.is_err());
}

#[test]
fn providers_and_dialects_are_suggested() {
    check_errors(
        "[[upstreams]]\nname = \"u\"\nprovider = \"antropic\"\napi_key = \"env:K\"\n",
        "
error: there is no provider `antropic`
 --> holdfast.toml:3:12
  |
3 | provider = \"antropic\"
  |            ^^^^^^^^^^
  = help: did you mean `anthropic`?",
    );
    check_errors(
        "[[upstreams]]\nname = \"u\"\nprovider = \"anthropic\"\ndialect = \"gemini\"\napi_key = \"env:K\"\n",
        "
error: Anthropic does not speak `gemini`
 --> holdfast.toml:4:11
  |
4 | dialect = \"gemini\"
  |           ^^^^^^^^
  = help: it speaks `anthropic`",
    );
    check_errors(
        "[[upstreams]]\nname = \"u\"\n",
        "
error: `provider` is missing in [[upstreams]]
 --> holdfast.toml:1:1
  |
1 | [[upstreams]]
  | ^^^^^^^^^^^^^",
    );
}

#[test]
fn credentials_are_of_the_kind_that_the_provider_takes() {
    check_problem("provider = \"openai\"\n", 2, "OpenAI needs credentials");
    for (settings, message) in [
        (
            "service_account = \"env:ACCOUNT\"\n",
            "OpenAI takes no `service_account`",
        ),
        (
            "access_key_id = \"env:K\"\nsecret_access_key = \"env:K\"\n",
            "OpenAI takes no `access_key_id`",
        ),
    ] {
        let found = problems(&format!("provider = \"openai\"\n{settings}"));
        assert_eq!(found[0], (4, message.to_owned()));
    }
}

#[test]
fn own_servers_need_no_key_and_take_one() {
    let url = "provider = \"vllm\"\nbase_url = \"http://127.0.0.1:8000/v1\"\n";
    assert!(matches!(upstream(url).credentials, Credentials::None));
    assert_eq!(
        key_of(&upstream(&format!("{url}api_key = \"env:K\"\n"))),
        KEY
    );
}

#[test]
fn google_takes_a_key_or_a_service_account() {
    let account = upstream("provider = \"gemini\"\nservice_account = \"env:ACCOUNT\"\n");
    assert!(matches!(
        account.credentials,
        Credentials::GoogleServiceAccount(json) if json.expose() == SERVICE_ACCOUNT
    ));
    assert_eq!(
        key_of(&upstream("provider = \"gemini\"\napi_key = \"env:K\"\n")),
        KEY
    );
    check_problem(
        "provider = \"gemini\"\nservice_account = \"env:K\"\n",
        4,
        "`service_account`: this is not the JSON of a service account's key",
    );
    check_problem(
        "provider = \"gemini\"\nservice_account = \"env:ACCOUNT\"\napi_key = \"env:K\"\n",
        2,
        "this upstream has several credentials",
    );
}

#[test]
fn aws_takes_a_pair_of_keys_or_a_token() {
    let keys = "provider = \"bedrock\"\nregion = \"us-east-1\"\naccess_key_id = \"env:K\"\n";
    let signed = upstream(&format!(
        "{keys}secret_access_key = \"env:K\"\nsession_token = \"env:K\"\n"
    ));
    match &signed.credentials {
        Credentials::Aws {
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            assert_eq!(access_key_id, KEY);
            assert_eq!(secret_access_key.expose(), KEY);
            assert_eq!(session_token.as_ref().unwrap().expose(), KEY);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        signed.base_url,
        "https://bedrock-runtime.us-east-1.amazonaws.com"
    );
    check_problem(
        keys,
        2,
        "`secret_access_key` is missing: AWS keys come in pairs",
    );
    let token =
        upstream("provider = \"bedrock\"\nregion = \"eu-central-1\"\napi_key = \"env:K\"\n");
    assert_eq!(key_of(&token), KEY);
    // A signature is for one region, also where the URL has none.
    check_problem(
        "provider = \"bedrock\"\nbase_url = \"http://127.0.0.1:9\"\naccess_key_id = \"env:K\"\nsecret_access_key = \"env:K\"\n",
        2,
        "Amazon Bedrock needs a `region`",
    );
}

#[test]
fn secrets_of_upstreams_are_references_and_never_repeated() {
    let text = "[[upstreams]]\nname = \"u\"\nprovider = \"openai\"\napi_key = \"sk-plaintext\"\nheaders = { Authorization = \"Bearer sk-plaintext\" }\n";
    let errors = parse(text).unwrap_err();
    assert_eq!(errors.problems.len(), 2, "{errors}");
    for problem in &errors.problems {
        assert!(problem.message.contains("only referred to"), "{errors}");
        assert!(!problem.message.contains("plaintext"), "{errors}");
    }
    check_problem(
        "provider = \"openai\"\napi_key = \"env:MISSING\"\n",
        4,
        "`api_key`: the environment variable MISSING is not set",
    );
    check_problem(
        "provider = \"openai\"\napi_key = \"env:ACCOUNT\"\n",
        4,
        "`api_key`: it may only have printable ASCII characters and no spaces, and not be empty",
    );
}

#[test]
fn commands_that_do_not_serve_do_without_the_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("holdfast.toml");
    std::fs::write(
        &path,
        "[contexts]\nsalt = \"env:MISSING\"\n[[upstreams]]\nname = \"u\"\nprovider = \"bedrock\"\nregion = \"r\"\naccess_key_id = \"env:MISSING\"\nsecret_access_key = \"file:missing\"\nheaders = { a = \"env:MISSING\", b = \"c\" }\n",
    )
    .unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let config = Config::load_without_secrets(&flags, &environment())
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(matches!(config.upstreams[0].credentials, Credentials::None));
    assert_eq!(
        config.upstreams[0].headers,
        [("b".to_owned(), "c".to_owned())]
    );
    assert_eq!(
        Config::load(&flags, &environment())
            .unwrap_err()
            .problems
            .len(),
        4
    );
}

#[test]
fn headers_that_the_gateway_writes_can_not_be_set() {
    let vllm = "provider = \"vllm\"\nbase_url = \"http://a/v1\"\n";
    for (headers, message) in [
        (
            "Content-Length = \"1\"",
            "the header `content-length` can't be set",
        ),
        ("\"a b\" = \"1\"", "`a b` is no name for a header"),
        ("a = \"1\", A = \"2\"", "the header `a` is there twice"),
        (
            "a = \"\\n\"",
            "the value of header `a` is empty or has characters that can't be sent",
        ),
    ] {
        check_problem(&format!("{vllm}headers = {{ {headers} }}\n"), 5, message);
    }
}

#[test]
fn numbers_of_upstreams_have_ranges() {
    let vllm = "provider = \"vllm\"\nbase_url = \"http://a/v1\"\n";
    for (setting, message) in [
        (
            "connect_timeout_ms = 0",
            "`connect_timeout_ms` is 0, which is not between 1 and 600000",
        ),
        (
            "retries_max = 11",
            "`retries_max` is 11, which is not between 0 and 10",
        ),
        (
            "concurrency_max = 0",
            "`concurrency_max` is 0, which is not between 1 and 100000",
        ),
        (
            "backoff_ms_max = 249",
            "`backoff_ms_max` is less than `backoff_ms`, so that nothing would be tried again",
        ),
        (
            "cache = { ttls = [300, 300] }",
            "`ttls` ascend, and 300 does not",
        ),
        (
            "cache = { caching = \"handle\" }",
            "`caching`: the dialect `openai_chat` has no such thing",
        ),
        ("api_version = \"a&b\"", "`a&b` is no version of an API"),
    ] {
        check_problem(&format!("{vllm}{setting}\n"), 5, message);
    }
    // A longer first pause raises the longest one.
    let patient = upstream(&format!("{vllm}backoff_ms = 9000\n"));
    assert_eq!(patient.retry.backoff_max, Duration::from_secs(9));
}

#[test]
fn problems_in_inner_tables_are_shown_in_place() {
    check_errors(
        r#"[[upstreams]]
name = "u"
provider = "vllm"
base_url = "http://a/v1"
[upstreams.cache]
min_tokn = 1
ttls = "long"
prewarm = "maybe"
[[models]]
name = "m"
route = [{ upstrem = "u" }, { upstream = "u", weight = "heavy" }]
"#,
        r#"
error: unknown key `min_tokn` in `cache` of [[upstreams]]
 --> holdfast.toml:6:1
  |
6 | min_tokn = 1
  | ^^^^^^^^
  = help: did you mean `min_tokens`?

error: `ttls` in [[upstreams]]: this is string "long", expected a list such as ["a", "b"]
 --> holdfast.toml:7:8
  |
7 | ttls = "long"
  |        ^^^^^^

error: `prewarm` in [[upstreams]]: unknown variant `maybe`, expected one of `none`, `flag`, `max_tokens_zero`, `one_token`
 --> holdfast.toml:8:11
  |
8 | prewarm = "maybe"
  |           ^^^^^^^

error: `upstream` is missing in `route` of [[models]]
  --> holdfast.toml:11:10
   |
11 | route = [{ upstrem = "u" }, { upstream = "u", weight = "heavy" }]
   |          ^^^^^^^^^^^^^^^^^

error: unknown key `upstrem` in `route` of [[models]]
  --> holdfast.toml:11:12
   |
11 | route = [{ upstrem = "u" }, { upstream = "u", weight = "heavy" }]
   |            ^^^^^^^
   = help: did you mean `upstream`?

error: `weight` in [[models]]: this is string "heavy", expected a whole number from 0 to 4294967295
  --> holdfast.toml:11:56
   |
11 | route = [{ upstrem = "u" }, { upstream = "u", weight = "heavy" }]
   |                                                        ^^^^^^^"#,
    );
}

#[test]
fn small_contexts_are_a_default_for_all_upstreams() {
    let text = |more: &str| {
        format!(
            "[contexts]\nsmall_contexts = \"replay\"\n[[upstreams]]\nname = \"u\"\nprovider = \"openai\"\napi_key = \"env:K\"\n{more}"
        )
    };
    let of = |more: &str| parse(&text(more)).unwrap().upstreams[0].on_too_small;
    assert_eq!(of(""), OnTooSmall::Replay);
    assert_eq!(of("on_too_small = \"error\"\n"), OnTooSmall::Error);
}

#[test]
fn a_salt_is_a_reference_of_some_length() {
    let config = parse("[contexts]\nsalt = \"env:K\"\n").unwrap();
    assert_eq!(config.contexts.salt.unwrap().expose(), KEY);
    let short = Environment::from([("HOME", "/"), ("K", "0123456789abcde")]);
    let errors = Config::parse(
        Path::new("x"),
        "[contexts]\nsalt = \"env:K\"\n",
        &Flags::default(),
        &short,
    )
    .unwrap_err();
    assert!(
        errors.to_string().contains("at least 16 characters"),
        "{errors}"
    );
    assert!(!errors.to_string().contains("0123456789"), "{errors}");
}

#[test]
fn the_document_has_every_key_provider_and_dialect() {
    let text = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let mut words: BTreeSet<String> = [
        keys::<file::Contexts>(),
        keys::<file::ModelTable>(),
        keys::<file::UpstreamTable>(),
        keys::<file::CacheTable>(),
        keys::<file::PoolTable>(),
        keys::<file::WorkerTable>(),
        keys::<file::RouteTable>(),
        keys::<file::CatalogTable>(),
    ]
    .into_iter()
    .flatten()
    .collect();
    words.remove("cache");
    for known in holdfast_protocol::provider::ALL {
        words.insert(known.name.to_owned());
        for dialect in known.other_dialects {
            let word = serde_json::to_value(dialect).unwrap();
            words.insert(word.as_str().unwrap().to_owned());
        }
    }
    for word in words {
        assert!(
            text.contains(&format!("`{word}`")),
            "`{word}` is not in docs/configuration.md"
        );
    }
}
