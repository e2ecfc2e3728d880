use std::sync::Arc;

use holdfast_store::KeyScope;

use super::{Principal, is_listed};

fn principal(scope: KeyScope) -> Principal {
    Principal {
        project: "p".into(),
        key_id: "k".into(),
        scopes: vec![scope],
        terms: Arc::default(),
    }
}

#[test]
fn admin_includes_everything_and_inference_what_clients_do() {
    for scope in KeyScope::ALL {
        assert!(principal(KeyScope::Admin).may(scope));
        assert!(principal(scope).may(scope));
        let is_clients = !matches!(scope, KeyScope::Admin | KeyScope::UsageRead);
        assert_eq!(principal(KeyScope::Inference).may(scope), is_clients);
    }
    for narrow in [
        KeyScope::ContextsRead,
        KeyScope::ContextsWrite,
        KeyScope::UsageRead,
    ] {
        let opened = KeyScope::ALL.map(|scope| principal(narrow).may(scope));
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
    }
}

#[test]
fn a_star_stands_for_any_ending_and_nothing_else_does() {
    let list = ["gpt-5".to_owned(), "claude-*".to_owned()];
    for (name, expected) in [
        ("gpt-5", true),
        ("gpt-5-mini", false),
        ("claude-", true),
        ("claude-opus", true),
        ("claude", false),
        ("my-claude-opus", false),
        ("", false),
    ] {
        assert_eq!(is_listed(&list, name), expected, "{name}");
    }
    assert!(is_listed(&["*".to_owned()], "anything"));
}
