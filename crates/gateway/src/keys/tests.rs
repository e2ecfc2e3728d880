#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;

use super::*;

const BOTH: [KeyScope; 2] = [KeyScope::Inference, KeyScope::Admin];

#[test]
fn a_new_key_is_found_by_the_hash_of_what_was_shown() {
    let (secret, record) = new_key("default", "laptop", &BOTH, 7);
    assert_eq!(record.hash, hash(secret.expose()));
    assert_eq!(record.scopes, [KeyScope::Admin, KeyScope::Inference]);
    assert_eq!((record.created_at, record.revoked_at), (7, None));
    assert_eq!(secret.expose().len(), 46);
    assert!(
        secret.expose()[3..]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric())
    );
    assert!(secret.expose().starts_with(&record.hint) && record.hint.len() <= 12);
}

#[test]
fn an_id_has_the_documented_form() {
    let (_, record) = new_key("default", "", &BOTH, 0);
    let random = record.id.strip_prefix("key-").unwrap();
    assert_eq!(random.len(), 16);
    assert!(
        random
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    );
}

#[test]
fn keys_and_ids_never_repeat() {
    let keys: Vec<_> = (0..1000)
        .map(|_| new_key("default", "", &BOTH, 0))
        .collect();
    let secrets: HashSet<_> = keys.iter().map(|(secret, _)| secret.expose()).collect();
    let ids: HashSet<_> = keys.iter().map(|(_, record)| &record.id).collect();
    assert_eq!((secrets.len(), ids.len()), (1000, 1000));
}

#[test]
fn a_secret_prints_as_stars() {
    let secret = Secret::new("hf-visible");
    assert_eq!(format!("{secret} {secret:?}"), "**** ****");
}

#[test]
fn a_chosen_key_that_is_short_or_unsendable_is_refused() {
    let check = |text: &str| check_chosen(&Secret::new(text));
    assert!(
        check("fifteen-letters")
            .unwrap_err()
            .contains("at least 16 characters")
    );
    assert!(check("sixteen letters!").unwrap_err().contains("no spaces"));
    let secret = Secret::new("sixteen-letters!");
    assert_eq!(check_chosen(&secret), Ok(()));
    let record = record_for(&secret, "default", "", &BOTH, 0);
    assert_eq!(record.hint, "sixt");
    assert_eq!(record.hash, hash("sixteen-letters!"));
}

#[test]
fn the_hash_is_sha256() {
    let hex: String = hash("abc")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hex,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}
