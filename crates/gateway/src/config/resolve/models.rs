//! Models: which engine or which upstreams answer, by which rules.

use super::super::file::{Located, ModelTable, RouteEntry, RouteTable};
use super::super::problems::Problems;
use super::super::{EngineConfig, ModelConfig, ModelSource, ProfileName};
use super::operations;
use super::values::{Names, did_you_mean, number, optional};
use crate::app::{Catalog, RouteOptions, TargetOptions, UpstreamOptions};
use crate::models::DEFAULT_ALIAS;

/// Of a model that the catalog does not know.
const WINDOW_TOKENS: u32 = 128_000;

/// Length of an answer when neither the request nor anything else says.
const OUTPUT_TOKENS: u32 = 4096;

const TOKENS_MAX: u32 = 16_777_216;

pub(super) fn models(
    tables: &[ModelTable],
    engines: &[EngineConfig],
    upstreams: &[UpstreamOptions],
    catalog: &Catalog,
    problems: &mut Problems,
) -> Vec<ModelConfig> {
    let mut names = Names::default();
    if tables.is_empty() {
        return engines
            .iter()
            .enumerate()
            .map(|(index, engine)| {
                let name = engine.model.served_name();
                if !names.free(&name, None) {
                    problems.add_with_help(
                        None,
                        format!("two engines load `{name}`, so that their models can't both be called that"),
                        "name the models with [[models]]",
                    );
                }
                let aliases = if index == 0 && name != DEFAULT_ALIAS {
                    vec![DEFAULT_ALIAS.to_owned()]
                } else {
                    Vec::new()
                };
                let defaults = of_engine(engine);
                ModelConfig {
                    name,
                    aliases,
                    ..model(
                        &ModelTable::default(),
                        ModelSource::Engine(index),
                        defaults,
                        problems,
                    )
                }
            })
            .collect();
    }
    tables
        .iter()
        .map(|table| {
            let name = names.take(table.name.as_ref(), "model", problems);
            let aliases = match &table.aliases {
                None => Vec::new(),
                Some(aliases) => aliases
                    .get()
                    .iter()
                    .map(|alias| names.take(Some(alias), "model", problems))
                    .collect(),
            };
            let (source, defaults) = match &table.route {
                Some(entries) => {
                    let route = route_of(table, entries, upstreams, problems);
                    of_route(table, route, upstreams, catalog, problems)
                }
                None => {
                    let index = engine_of(table, engines, problems);
                    let defaults = engines.get(index).map(of_engine).unwrap_or_default();
                    (ModelSource::Engine(index), defaults)
                }
            };
            ModelConfig {
                name,
                aliases,
                ..model(table, source, defaults, problems)
            }
        })
        .collect()
}

/// What a model's source has to say where its table says nothing.
#[derive(Default)]
struct Defaults {
    max_output_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
}

fn of_engine(engine: &EngineConfig) -> Defaults {
    // What the default model's authors recommend; OpenAI's own default otherwise.
    let (temperature, top_p) = if engine.model.is_default() {
        (0.2, 0.9)
    } else {
        (1.0, 1.0)
    };
    Defaults {
        max_output_tokens: None,
        temperature: Some(temperature),
        top_p: Some(top_p),
    }
}

fn of_route(
    table: &ModelTable,
    route: RouteOptions,
    upstreams: &[UpstreamOptions],
    catalog: &Catalog,
    problems: &mut Problems,
) -> (ModelSource, Defaults) {
    // A request that goes to one of them must fit all, or else falling back would fail.
    let mut window_tokens: Option<u32> = None;
    let mut max_output_tokens: Option<u32> = None;
    for target in &route.targets {
        let Some(upstream) = upstreams.iter().find(|known| known.name == target.upstream) else {
            continue;
        };
        // A size is no price: whether its row is in force today does not matter.
        let rows = catalog.find_all(upstream.provider.name, &target.model);
        let window = rows.iter().find_map(|row| row.context_tokens);
        let output = rows.iter().find_map(|row| row.max_output_tokens);
        window_tokens = window_tokens.into_iter().chain(window).min();
        max_output_tokens = max_output_tokens.into_iter().chain(output).min();
    }
    let window_tokens = number(
        &table.window_tokens,
        "window_tokens",
        64..=TOKENS_MAX,
        window_tokens.unwrap_or(WINDOW_TOKENS),
        problems,
    );
    let source = ModelSource::Route {
        route,
        window_tokens,
    };
    let defaults = Defaults {
        max_output_tokens,
        ..Defaults::default()
    };
    (source, defaults)
}

fn route_of(
    table: &ModelTable,
    entries: &Located<Vec<Located<RouteEntry>>>,
    upstreams: &[UpstreamOptions],
    problems: &mut Problems,
) -> RouteOptions {
    if let Some(engine) = &table.engine {
        problems.add_with_help(
            Some(engine.span()),
            "a model is answered by an engine or by the upstreams of a `route`, not by both",
            "leave out `engine` or `route`",
        );
    }
    if entries.get().is_empty() {
        problems.add_with_help(
            Some(entries.span()),
            "this `route` leads nowhere",
            "name at least one of [[upstreams]], such as `route = [\"name\"]`",
        );
    }
    let model = table.name.as_ref().map_or("", |name| name.get().as_str());
    let mut route = RouteOptions::default();
    for (place, entry) in (0..).zip(entries.get()) {
        let Some(target) = target_of(place, entry, model, upstreams, problems) else {
            continue;
        };
        let is_double = route
            .targets
            .iter()
            .any(|known| known.upstream == target.upstream && known.model == target.model);
        if is_double {
            problems.add(
                Some(entry.span()),
                format!(
                    "the route leads twice to `{}` of upstream `{}`",
                    target.model, target.upstream
                ),
            );
        }
        route.targets.push(target);
    }
    route
}

/// `None` where it leads nowhere, which has been reported.
fn target_of(
    place: u32,
    entry: &Located<RouteEntry>,
    model: &str,
    upstreams: &[UpstreamOptions],
    problems: &mut Problems,
) -> Option<TargetOptions> {
    let nothing = RouteTable::default();
    let (name, span, table) = match entry.get() {
        RouteEntry::Name(name) => (name, entry.span(), &nothing),
        RouteEntry::Table(table) => {
            let name = table.upstream.as_ref()?;
            (name.get(), name.span(), table)
        }
    };
    let target = TargetOptions {
        upstream: name.clone(),
        model: model_at(table, model, problems),
        priority: number(&table.priority, "priority", 0..=1000, place, problems),
        weight: number(&table.weight, "weight", 1..=1_000_000, 1, problems),
    };
    if upstreams.iter().any(|upstream| upstream.name == *name) {
        return Some(target);
    }
    let help = if upstreams.is_empty() {
        format!("describe it with [[upstreams]] and `name = \"{name}\"`")
    } else {
        let known = upstreams.iter().map(|upstream| upstream.name.as_str());
        did_you_mean(name, known, "the upstreams are")
    };
    problems.add_with_help(Some(span), format!("there is no upstream `{name}`"), help);
    None
}

/// What the upstream calls the model. Goes into URLs at some, where it is escaped, so that only its length matters.
fn model_at(table: &RouteTable, model: &str, problems: &mut Problems) -> String {
    let Some(name) = &table.model else {
        return model.to_owned();
    };
    let text = name.get();
    if !(1..=256).contains(&text.len()) || text.chars().any(char::is_control) {
        problems.add(
            Some(name.span()),
            "`model`: the name of a model has 1 to 256 bytes and no control characters",
        );
    }
    text.clone()
}

fn engine_of(table: &ModelTable, engines: &[EngineConfig], problems: &mut Problems) -> usize {
    if let Some(window) = &table.window_tokens {
        problems.add_with_help(
            Some(window.span()),
            "`window_tokens` of a model is for those with a `route`",
            "set it in [[engines]]",
        );
    }
    let Some(wanted) = &table.engine else {
        if engines.len() > 1 {
            let known: Vec<_> = engines
                .iter()
                .map(|engine| format!("`{}`", engine.name))
                .collect();
            problems.add_with_help(
                table.name.as_ref().map(Located::span),
                "this model does not say which engine answers",
                format!("add `engine = \"...\"` with one of {}", known.join(", ")),
            );
        }
        return 0;
    };
    let found = engines
        .iter()
        .position(|engine| engine.name == *wanted.get());
    found.unwrap_or_else(|| {
        let known = engines.iter().map(|engine| engine.name.as_str());
        problems.add_with_help(
            Some(wanted.span()),
            format!("there is no engine `{}`", wanted.get()),
            did_you_mean(wanted.get(), known, "the engines are"),
        );
        0
    })
}

fn model(
    table: &ModelTable,
    source: ModelSource,
    defaults: Defaults,
    problems: &mut Problems,
) -> ModelConfig {
    let profile = table
        .profile
        .as_ref()
        .map_or(ProfileName::Native, |value| *value.get());
    let seconds = 1..=31_622_400;
    let config = ModelConfig {
        name: String::new(),
        source,
        profile,
        aliases: Vec::new(),
        min_context_tokens: number(
            &table.min_context_tokens,
            "min_context_tokens",
            0..=TOKENS_MAX,
            0,
            problems,
        ),
        max_output_tokens: number(
            &table.max_output_tokens,
            "max_output_tokens",
            1..=TOKENS_MAX,
            defaults.max_output_tokens.unwrap_or(OUTPUT_TOKENS),
            problems,
        ),
        limits: operations::rates(&table.limits, problems),
        auto_context: table
            .auto_context
            .as_ref()
            .is_some_and(|value| *value.get()),
        temperature: optional(&table.temperature, "temperature", 0.0..=2.0, problems)
            .or(defaults.temperature),
        top_p: optional(&table.top_p, "top_p", 0.0..=1.0, problems).or(defaults.top_p),
        ttl_default_seconds: optional(&table.ttl_default, "ttl_default", seconds.clone(), problems),
        ttl_min_seconds: optional(&table.ttl_min, "ttl_min", seconds.clone(), problems),
        ttl_max_seconds: optional(&table.ttl_max, "ttl_max", seconds, problems),
    };
    let by_profile = holdfast_protocol::Profile::of(profile.kind(), 0);
    let min = config.ttl_min_seconds.unwrap_or(by_profile.ttl_min_seconds);
    let default = config
        .ttl_default_seconds
        .unwrap_or(by_profile.ttl_default_seconds);
    let max = config.ttl_max_seconds.unwrap_or(by_profile.ttl_max_seconds);
    if !(min <= default && default <= max) {
        let span = [&table.ttl_default, &table.ttl_min, &table.ttl_max]
            .into_iter()
            .flatten()
            .next()
            .map(Located::span);
        problems.add_with_help(
            span,
            format!("a context of this model would live {default} s by default, outside its range of {min} to {max} s"),
            "set `ttl_min`, `ttl_default` and `ttl_max` so that they are in this order",
        );
    }
    config
}
