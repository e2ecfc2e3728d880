use holdfast_store::KeyScope;

use super::Principal;

#[test]
fn admin_includes_inference_and_not_the_other_way_round() {
    let principal = |scope| Principal {
        project: "p".into(),
        key_id: "k".into(),
        scopes: vec![scope],
    };
    assert!(principal(KeyScope::Admin).may(KeyScope::Inference));
    assert!(!principal(KeyScope::Inference).may(KeyScope::Admin));
}
