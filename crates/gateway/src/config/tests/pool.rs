use std::time::Duration;

use super::upstreams::{check_problem, upstream};
use crate::app::PoolOptions;

fn pool(settings: &str) -> PoolOptions {
    upstream(settings).pool.unwrap()
}

#[test]
fn workers_stand_in_place_of_a_base_url() {
    let written = "provider = \"vllm\"\n[upstreams.pool]\nload_factor = 2\nload_min = 8\nhealth_interval_ms = 1000\nunhealthy_after = 4\n\
        [[upstreams.workers]]\nurl = \"http://10.0.0.1:8000/v1/\"\n\
        [[upstreams.workers]]\nurl = \"https://gpu.internal/v1\"\nname = \"big\"\nweight = 2\ndraining = true\n";
    let options = upstream(written);
    assert_eq!(options.base_url, "");
    let pool = options.pool.unwrap();
    let [first, second] = &pool.workers[..] else {
        panic!("{pool:?}")
    };
    assert_eq!(first.name, "10.0.0.1:8000");
    assert_eq!(first.url, "http://10.0.0.1:8000/v1");
    assert_eq!((first.weight, first.draining), (1.0, false));
    assert_eq!((second.name.as_str(), second.weight), ("big", 2.0));
    assert!(second.draining);
    assert_eq!((pool.load_factor, pool.load_min), (2.0, 8));
    assert_eq!(pool.health.interval, Duration::from_secs(1));
    assert_eq!(pool.health.unhealthy_after, 4);
    assert_eq!(pool.health.path.as_deref(), Some("/health"));
}

#[test]
fn each_kind_of_server_has_a_health_path_of_its_own() {
    let path = |provider: &str, more: &str| {
        let settings = format!(
            "provider = \"{provider}\"\nworkers = [{{ url = \"http://127.0.0.1:1/v1\" }}]\n{more}"
        );
        pool(&settings).health.path
    };
    for provider in ["vllm", "sglang", "llama-server"] {
        assert_eq!(path(provider, "").as_deref(), Some("/health"), "{provider}");
    }
    for provider in ["ollama", "openai-compatible"] {
        assert_eq!(path(provider, ""), None, "{provider}: its list of models");
    }
    let own = "pool = { health_path = \"/healthz\" }";
    assert_eq!(path("openai-compatible", own).as_deref(), Some("/healthz"));
}

#[test]
fn what_is_wrong_with_workers_is_shown_where_it_stands() {
    let one = "{ url = \"http://127.0.0.1:1/v1\" }";
    check_problem(
        &format!("provider = \"vllm\"\nbase_url = \"http://127.0.0.1:2/v1\"\nworkers = [{one}]\n"),
        4,
        "there are both `base_url` and `workers`",
    );
    check_problem(
        "provider = \"vllm\"\nworkers = []\n",
        4,
        "`workers` is empty",
    );
    check_problem(
        "provider = \"vllm\"\n[[upstreams.workers]]\nname = \"a\"\n",
        4,
        "`url` is missing in `workers` of [[upstreams]]",
    );
    check_problem(
        &format!("provider = \"vllm\"\nworkers = [\n{one},\n{one},\n]\n"),
        6,
        "the worker name `127.0.0.1:1` is taken already",
    );
    check_problem(
        "provider = \"vllm\"\n[[upstreams.workers]]\nurl = \"http://u:p@h/v1\"\n",
        5,
        "`url`: credentials are not part of a base URL",
    );
    check_problem(
        "provider = \"vllm\"\n[[upstreams.workers]]\nurl = \"http://h/v1\"\nweight = 0\n",
        6,
        "`weight` is 0, which is not between 0.001 and 1000",
    );
    check_problem(
        "provider = \"vllm\"\n[[upstreams.workers]]\nurl = \"http://h/v1\"\nname = \"a/b\"\n",
        6,
        "`a/b` is no name for a worker",
    );
    check_problem(
        &format!("provider = \"vllm\"\nworkers = [{one}]\npool = {{ load_factor = 0.5 }}\n"),
        5,
        "`load_factor` is 0.5, which is not between 1 and 100",
    );
    check_problem(
        &format!("provider = \"vllm\"\nworkers = [{one}]\npool = {{ health_path = \"health\" }}\n"),
        5,
        "`health_path` is no path",
    );
    check_problem(
        &format!("provider = \"openai\"\napi_key = \"env:K\"\nworkers = [{one}]\n"),
        5,
        "OpenAI is no server of your own: it has no `workers`",
    );
    check_problem(
        "provider = \"vllm\"\nbase_url = \"http://h/v1\"\npool = { load_factor = 2.0 }\n",
        5,
        "`pool` is about workers, and there are none",
    );
    let many: Vec<String> = (0..1025)
        .map(|number| format!("{{ url = \"http://h:{number}/v1\" }}"))
        .collect();
    check_problem(
        &format!("provider = \"vllm\"\nworkers = [{}]\n", many.join(", ")),
        4,
        "there are more than 1024 workers",
    );
}
