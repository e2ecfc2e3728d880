//! Routes, and the catalog that models on them take their sizes from.

use super::upstreams::{environment, parse};
use super::*;

const TWO: &str = r#"
[[upstreams]]
name = "a"
provider = "openai"
api_key = "env:K"
[[upstreams]]
name = "b"
provider = "anthropic"
api_key = "env:K"
[[models]]
name = "m"
"#;

/// The targets as (upstream, model, priority, weight).
fn route(config: &Config) -> Vec<(&str, &str, u32, u32)> {
    match &config.models[0].source {
        ModelSource::Route { route, .. } => route
            .targets
            .iter()
            .map(|target| {
                (
                    target.upstream.as_str(),
                    target.model.as_str(),
                    target.priority,
                    target.weight,
                )
            })
            .collect(),
        ModelSource::Engine(_) => panic!("no route"),
    }
}

#[test]
fn a_route_is_in_order_of_preference() {
    let config = parse(&format!(
        "{TWO}route = [\"a\", {{ upstream = \"b\", model = \"n\" }}]\n"
    ))
    .unwrap();
    assert_eq!(route(&config), [("a", "m", 0, 1), ("b", "n", 1, 1)]);
    let config = parse(&format!(
        "{TWO}route = [{{ upstream = \"a\", priority = 7, weight = 3 }}, {{ upstream = \"b\", priority = 7 }}]\n"
    ))
    .unwrap();
    assert_eq!(route(&config), [("a", "m", 7, 3), ("b", "m", 7, 1)]);
}

#[test]
fn a_route_leads_somewhere() {
    for (settings, message) in [
        ("route = []", "this `route` leads nowhere"),
        ("route = [\"a\", \"c\"]", "there is no upstream `c`"),
        (
            "route = [\"a\", { upstream = \"a\", model = \"m\" }]",
            "the route leads twice to `m` of upstream `a`",
        ),
        (
            "route = [{ upstream = \"a\", weight = 0 }]",
            "`weight` is 0, which is not between 1 and 1000000",
        ),
        (
            "route = [{ upstream = \"a\", model = \"\" }]",
            "`model`: the name of a model has 1 to 256 bytes and no control characters",
        ),
    ] {
        let errors = parse(&format!("{TWO}{settings}\n")).unwrap_err();
        let [problem] = errors.problems.as_slice() else {
            panic!("{errors}")
        };
        assert_eq!(problem.message, message);
        assert_eq!(errors.place(problem).unwrap().line, 12, "{errors}");
    }
    let errors = parse("[[models]]\nname = \"m\"\nroute = [\"a\"]\n").unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("describe it with [[upstreams]]"),
        "{errors}"
    );
    let errors = parse(&format!("{TWO}route = [\"a\"]\nengine = \"e\"\n")).unwrap_err();
    assert!(errors.to_string().contains("not by both"), "{errors}");
}

#[test]
fn an_engine_is_there_only_where_a_model_needs_it() {
    let routed = format!("{TWO}route = [\"a\"]\n");
    assert!(parse(&routed).unwrap().engines.is_empty());
    let mixed = parse(&format!("{routed}[[models]]\nname = \"local\"\n")).unwrap();
    assert_eq!(mixed.engines.len(), 1);
    assert!(matches!(mixed.models[1].source, ModelSource::Engine(0)));
    let written = parse(&format!("{routed}[[engines]]\nname = \"e\"\n")).unwrap();
    assert_eq!(written.engines.len(), 1);
    // Upstreams that no model is routed to leave the default as it is.
    let unused = parse("[[upstreams]]\nname = \"u\"\nprovider = \"openai\"\napi_key = \"env:K\"\n");
    assert_eq!(unused.unwrap().engines.len(), 1);
}

#[test]
fn a_routed_model_takes_its_sizes_from_the_catalog() {
    let source = |text: &str| {
        let config = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
        let model = config.models.into_iter().next().unwrap();
        assert_eq!((model.temperature, model.top_p), (None, None));
        assert_eq!(model.profile, ProfileName::Native);
        match model.source {
            ModelSource::Route { window_tokens, .. } => (window_tokens, model.max_output_tokens),
            ModelSource::Engine(_) => panic!("no route"),
        }
    };
    assert_eq!(source(&format!("{TWO}route = [\"a\"]\n")), (128_000, 4096));
    assert_eq!(
        source(&format!(
            "{TWO}route = [\"a\"]\nwindow_tokens = 1000\nmax_output_tokens = 10\n"
        )),
        (1000, 10)
    );

    let folder = tempfile::tempdir().unwrap();
    let catalog = folder.path().join("c.toml");
    std::fs::write(
        &catalog,
        r#"schema = 1
[[models]]
provider = "openai"
model = "one"
input = "1"
output = "1"
context_tokens = 5000
max_output_tokens = 700
[[models]]
provider = "anthropic"
model = "two"
input = "1"
output = "1"
context_tokens = 4000
"#,
    )
    .unwrap();
    let with_catalog = format!(
        "[catalog]\nfiles = [{:?}]\n{TWO}route = [{{ upstream = \"a\", model = \"one\" }}, {{ upstream = \"b\", model = \"two\" }}]\n",
        catalog.display().to_string()
    );
    assert_eq!(source(&with_catalog), (4000, 700));

    let engine = parse("[[models]]\nname = \"m\"\nwindow_tokens = 100\n").unwrap_err();
    assert!(
        engine.to_string().contains("for those with a `route`"),
        "{engine}"
    );
}

#[test]
fn problems_of_catalog_files_are_shown_in_their_own_lines() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("prices.toml"),
        "schema = 1\n[[models]]\nprovider = \"openai\"\nmodel = \"m\"\ninput = \"x\"\noutput = \"1\"\n",
    )
    .unwrap();
    let path = folder.path().join("holdfast.toml");
    let text = "[catalog]\nfiles = [\"prices.toml\"]\n[server]\nlisten = \"x\"\n";
    let errors = Config::parse(&path, text, &Flags::default(), &environment()).unwrap_err();
    let shown = errors.to_string();
    assert!(shown.contains("holdfast.toml:2:9"), "{shown}");
    assert!(shown.contains("prices.toml:5:9"), "{shown}");
    assert!(shown.contains("holdfast.toml:4:10"), "{shown}");
}

#[test]
fn a_catalog_can_replace_the_built_in_one() {
    let built_in = parse("").unwrap().catalog;
    assert!(!built_in.rows().is_empty());
    assert!(
        parse("[catalog]\nreplace = true\n")
            .unwrap()
            .catalog
            .rows()
            .is_empty()
    );
}

#[test]
fn names_of_upstreams_are_unique() {
    let errors = parse(&format!("{TWO}route = [\"a\"]\n{TWO}route = [\"a\"]\n")).unwrap_err();
    let messages: Vec<_> = errors
        .problems
        .iter()
        .map(|problem| problem.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "the upstream name `a` is taken already",
            "the upstream name `b` is taken already",
            "the model name `m` is taken already"
        ]
    );
}
