#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn tool(name: &str, parameters: Option<Value>) -> Tool {
    Tool {
        name: name.to_owned(),
        description: None,
        parameters,
        strict: None,
    }
}

fn calls(tools: Vec<Tool>, named: Option<&str>) -> Grammar {
    Grammar::ToolCalls {
        tools,
        named: named.map(str::to_owned),
        parallel: false,
    }
}

fn refusal(result: Result<impl Sized, EngineError>) -> String {
    match result {
        Err(EngineError::Grammar(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn a_model_without_a_vocabulary_refuses_every_grammar() {
    let why = refusal(ConstraintFactory::none().build(&Grammar::JsonObject));
    assert!(why.contains("no support"), "{why}");
}

#[test]
fn schemas_are_bounded_in_size_and_depth_before_anything_else() {
    let long = json!({"enum": [("x".repeat(SCHEMA_BYTES_MAX))]});
    assert!(refusal(Grammar::JsonSchema(long).schema()).contains("65536 bytes"));
    let mut deep = json!({"type": "string"});
    for _ in 0..SCHEMA_DEPTH_MAX {
        deep = json!({"items": deep});
    }
    assert!(refusal(Grammar::JsonSchema(deep.clone()).schema()).contains("48 levels"));
    let why = refusal(calls(vec![tool("look", Some(deep))], None).schema());
    assert!(why.contains("`look`"), "{why}");
    assert!(refusal(Grammar::JsonSchema(json!(true)).schema()).contains("not an object"));
    let many = (0..8).map(|index| {
        tool(
            &format!("t{index}"),
            Some(json!({"const": "x".repeat(60_000)})),
        )
    });
    assert!(refusal(calls(many.collect(), None).schema()).contains("all tools together"));
}

#[test]
fn a_call_needs_a_tool() {
    assert!(refusal(calls(vec![], None).schema()).contains("no tool"));
    assert!(refusal(calls(vec![tool("a", None)], Some("b")).schema()).contains("no tool"));
}

#[test]
fn references_inside_a_tools_parameters_still_point_at_them() {
    let parameters = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"$ref": {"$ref": "#/$defs/x"}, "self": {"$ref": "#"}, "kind": {"const": {"$ref": "#/a"}}},
        "$defs": {"x": {"type": "string"}},
    });
    let schema = calls(vec![tool("a", None), tool("b", Some(parameters))], None)
        .schema()
        .unwrap();
    let root = "#/anyOf/1/properties/arguments";
    let arguments = schema.pointer(&root[1..]).unwrap();
    assert_eq!(
        arguments["properties"]["$ref"]["$ref"],
        format!("{root}/$defs/x")
    );
    assert_eq!(arguments["properties"]["self"]["$ref"], root);
    assert_eq!(arguments["properties"]["kind"]["const"]["$ref"], "#/a");
    assert!(schema.pointer(&format!("{}/$defs/x", &root[1..])).is_some());
}

#[cfg(feature = "llama")]
mod enforced {
    use llguidance::toktrie::{ApproximateTokEnv, TokEnv};

    use super::*;

    /// One token per byte; the last of the special ones ends the answer.
    fn vocabulary() -> TokEnv {
        ApproximateTokEnv::single_byte_env()
    }

    fn build(grammar: &Grammar) -> Result<Box<dyn Constraint>, EngineError> {
        ConstraintFactory::from_tok_env(vocabulary()).build(grammar)
    }

    fn allowed(constraint: &mut dyn Constraint) -> Vec<bool> {
        let mut logits = vec![0.0_f32; vocabulary().tok_trie().vocab_size()];
        constraint.mask(&mut logits);
        logits.into_iter().map(f32::is_finite).collect()
    }

    /// What the grammar makes of an answer: how many bytes it lets through, and whether it may end there.
    fn follow(grammar: &Grammar, answer: &str) -> (usize, bool) {
        let mut constraint = build(grammar).unwrap();
        for (index, byte) in answer.bytes().enumerate() {
            if !allowed(&mut *constraint)[usize::from(byte)] {
                return (index, false);
            }
            constraint.accept(Token::from(byte)).unwrap();
        }
        let end = vocabulary().tok_trie().eos_token() as usize;
        let may_end = allowed(&mut *constraint)[end];
        (answer.len(), may_end)
    }

    #[track_caller]
    fn accepts(grammar: &Grammar, answer: &str) {
        assert_eq!(follow(grammar, answer), (answer.len(), true), "{answer}");
    }

    #[track_caller]
    fn stops_at(grammar: &Grammar, answer: &str, beginning: &str) {
        assert!(answer.starts_with(beginning));
        assert_eq!(
            follow(grammar, answer),
            (beginning.len(), false),
            "{answer}"
        );
    }

    fn weather() -> Value {
        json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "degrees": {"type": "integer"},
                "sky": {"enum": ["clear", "cloudy"]},
            },
            "required": ["city", "sky"],
            "additionalProperties": false,
        })
    }

    #[test]
    fn any_json_object() {
        accepts(
            &Grammar::JsonObject,
            r#"{"a": [1, null, {"b": "é\n"}], "c": -0.5e3}"#,
        );
        accepts(&Grammar::JsonObject, "{}");
        stops_at(&Grammar::JsonObject, "[1]", "");
        stops_at(&Grammar::JsonObject, "Sure! {", "");
        stops_at(&Grammar::JsonObject, "{} and", "{}");
    }

    #[test]
    fn white_space_is_at_most_one_space() {
        accepts(&Grammar::JsonObject, r#"{"a":1,"b":2}"#);
        accepts(&Grammar::JsonObject, r#"{ "a" : 1 , "b" : 2 }"#);
        stops_at(&Grammar::JsonObject, r#"{"a":  1}"#, r#"{"a": "#);
        stops_at(&Grammar::JsonObject, "{\n", "{");
    }

    #[test]
    fn a_schema() {
        let grammar = Grammar::JsonSchema(weather());
        accepts(
            &grammar,
            r#"{"city": "Bonn", "degrees": -4, "sky": "clear"}"#,
        );
        accepts(&grammar, r#"{"city":"Bonn","sky":"cloudy"}"#);
        stops_at(&grammar, r#"{"sky""#, r#"{""#);
        stops_at(&grammar, r#"{"city": "Bonn"}"#, r#"{"city": "Bonn""#);
        stops_at(
            &grammar,
            r#"{"city": "Bonn", "sky": "clouds"}"#,
            r#"{"city": "Bonn", "sky": "cloud"#,
        );
        stops_at(
            &grammar,
            r#"{"city": "Bonn", "wind": 3}"#,
            r#"{"city": "Bonn", ""#,
        );
    }

    #[test]
    fn completion_is_known_as_soon_as_nothing_may_follow() {
        let mut constraint = build(&Grammar::JsonObject).unwrap();
        for byte in b"{\"a\":{}" {
            constraint.accept(Token::from(*byte)).unwrap();
            assert!(!constraint.is_complete());
        }
        constraint.accept(Token::from(b'}')).unwrap();
        assert!(constraint.is_complete());
        let end = vocabulary().tok_trie().eos_token();
        let allowed: Vec<usize> = (0..)
            .zip(allowed(&mut *constraint))
            .filter(|(_, ok)| *ok)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(allowed, [end as usize]);
        assert_eq!(constraint.accept(end.cast_signed()), Ok(()));
        refusal(constraint.accept(Token::from(b'x')));
    }

    #[test]
    fn an_answer_that_could_go_on_ends_with_the_models_end_token() {
        let mut constraint = build(&Grammar::JsonSchema(json!({"type": "integer"}))).unwrap();
        constraint.accept(Token::from(b'4')).unwrap();
        assert!(!constraint.is_complete());
        assert!(allowed(&mut *constraint)[usize::from(b'2')]);
        constraint
            .accept(vocabulary().tok_trie().eos_token().cast_signed())
            .unwrap();
        assert!(constraint.is_complete());
    }

    #[test]
    fn a_token_that_is_not_allowed_is_refused() {
        let mut constraint = build(&Grammar::JsonObject).unwrap();
        refusal(constraint.accept(Token::from(b'x')));
        assert!(!constraint.is_complete());
        assert!(allowed(&mut *constraint).iter().all(|allowed| !allowed));
        refusal(constraint.accept(Token::from(b'{')));
    }

    #[test]
    fn a_forced_call_has_a_known_name_and_its_own_arguments() {
        let tools = vec![tool("weather", Some(weather())), tool("now", None)];
        let any = calls(tools.clone(), None);
        accepts(
            &any,
            r#"{"name": "weather", "arguments": {"city": "Bonn", "sky": "clear"}}"#,
        );
        accepts(&any, r#"{"name":"now","arguments":{}}"#);
        stops_at(&any, r#"{"name": "nothing"#, r#"{"name": "no"#);
        stops_at(&any, r#"{"arguments"#, r#"{""#);
        stops_at(
            &any,
            r#"{"name": "now", "arguments": {"city"#,
            r#"{"name": "now", "arguments": {"#,
        );
        let named = calls(tools, Some("weather"));
        stops_at(&named, r#"{"name": "now"#, r#"{"name": ""#);
    }

    #[test]
    fn parameters_with_definitions_work_beside_other_tools() {
        let parameters = json!({
            "type": "object",
            "properties": {"tree": {"$ref": "#/$defs/node"}},
            "required": ["tree"],
            "$defs": {"node": {
                "type": "object",
                "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
                "required": ["value"],
                "additionalProperties": false,
            }},
        });
        let grammar = calls(
            vec![tool("now", None), tool("grow", Some(parameters))],
            None,
        );
        accepts(
            &grammar,
            r#"{"name": "grow", "arguments": {"tree": {"value": 1, "next": {"value": 2}}}}"#,
        );
        stops_at(
            &grammar,
            r#"{"name": "grow", "arguments": {"tree": []"#,
            r#"{"name": "grow", "arguments": {"tree": "#,
        );
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let why = |schema| refusal(build(&Grammar::JsonSchema(schema)));
        for (schema, named) in [
            (json!({"type": "object", "not": {"type": "object"}}), "not"),
            (json!({"type": "array", "uniqueItems": true}), "uniqueItems"),
            (json!({"type": "strange"}), "strange"),
            (json!({"$ref": "#/$defs/missing"}), "missing"),
            (
                json!({"$ref": "https://example.com/schema.json"}),
                "example.com",
            ),
            (json!({"type": "string", "pattern": "("}), "("),
        ] {
            let why = why(schema);
            assert!(why.contains(named) && !why.contains("backtrace"), "{why}");
        }
    }

    #[test]
    fn a_client_cannot_set_the_compilers_own_options() {
        let mut schema = weather();
        schema["x-guidance"] = json!({"whitespace_pattern": "\\n*", "lenient": true});
        stops_at(&Grammar::JsonSchema(schema), "{\n", "{");
    }

    #[test]
    fn formats_are_enforced_where_known_and_ignored_otherwise() {
        accepts(
            &Grammar::JsonSchema(json!({"type": "string", "format": "date"})),
            r#""2026-11-22""#,
        );
        stops_at(
            &Grammar::JsonSchema(json!({"type": "string", "format": "date"})),
            r#""soon""#,
            "\"",
        );
        accepts(
            &Grammar::JsonSchema(json!({"type": "string", "format": "password"})),
            r#""soon""#,
        );
        let named_format = json!({"type": "object", "properties": {"format": {"const": "x"}}, "required": ["format"]});
        stops_at(
            &Grammar::JsonSchema(named_format),
            r#"{"format": 3"#,
            r#"{"format": "#,
        );
    }

    #[test]
    fn schemas_that_would_stall_or_never_end_are_refused() {
        let patterns: Vec<Value> = (0..12)
            .map(|index| json!({"pattern": format!(".*a.{{{}}}b.*", index + 40)}))
            .collect();
        let alternatives = |index: usize| {
            let option =
                |name| json!({"properties": {format!("{name}{index}"): {"type": "string"}}});
            json!({"anyOf": [option("a"), option("b")]})
        };
        for schema in [
            json!({"type": "string", "allOf": patterns}),
            json!({"type": "object", "allOf": (0..10).map(alternatives).collect::<Vec<Value>>()}),
            json!({"type": "object", "allOf": (0..30).map(alternatives).collect::<Vec<Value>>()}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"anyOf": [{"$ref": "#"}]}),
        ] {
            refusal(build(&Grammar::JsonSchema(schema)));
        }
    }

    #[test]
    fn large_ordinary_schemas_are_accepted() {
        let properties: Map<String, Value> = (0..1000)
            .map(|index| (format!("p{index}"), json!({"type": "string"})))
            .collect();
        let schema =
            json!({"type": "object", "properties": properties, "additionalProperties": false});
        accepts(&Grammar::JsonSchema(schema), r#"{"p3": "a", "p999": "b"}"#);
        let values: Vec<String> = (0..3000).map(|index| format!("value {index}")).collect();
        accepts(
            &Grammar::JsonSchema(json!({"enum": values})),
            r#""value 2999""#,
        );
    }

    #[test]
    fn a_lazy_vocabulary_is_read_once_and_only_when_needed() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let reads = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&reads);
        let factory = ConstraintFactory::lazy(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            vocabulary()
        }));
        assert_eq!(reads.load(Ordering::Relaxed), 0);
        let again = factory.clone();
        factory.build(&Grammar::JsonObject).unwrap();
        again.build(&Grammar::JsonObject).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }
}
