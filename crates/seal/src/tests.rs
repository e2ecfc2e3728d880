#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

const PLACE: Place<'static> = Place {
    kind: "turns.messages",
    project: "alpha",
    id: "ctx-1",
    number: 3,
};

fn key(byte: u8) -> DataKey {
    DataKey::new([byte; KEY_BYTES])
}

fn ring(byte: u8) -> Keyring {
    Keyring::new(Some(key(byte)), &[])
}

#[test]
fn keys_are_read_in_every_usual_spelling() {
    let bytes: Vec<u8> = (0..32).map(|number| number * 8 + 7).collect();
    let expected = DataKey::new(bytes.clone().try_into().unwrap()).id();
    for text in [
        BASE64.encode(&bytes),
        BASE64_NOPAD.encode(&bytes),
        BASE64URL.encode(&bytes),
        BASE64URL_NOPAD.encode(&bytes),
        data_encoding::HEXLOWER.encode(&bytes),
        data_encoding::HEXUPPER.encode(&bytes),
        format!("  {}\n", BASE64.encode(&bytes)),
    ] {
        assert_eq!(DataKey::parse(&text).unwrap().id(), expected, "{text}");
    }
    for text in ["", "secret", &BASE64.encode(&bytes[1..]), &"g".repeat(64)] {
        assert_eq!(DataKey::parse(text).unwrap_err(), KeyError);
    }
}

#[test]
fn nothing_shows_a_key() {
    let text = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let key = DataKey::parse(text).unwrap();
    let ring = Keyring::new(Some(key.clone()), &[]);
    let shown = format!("{key:?} {ring:?} {:?} {}", ring.state_key(), key.id());
    for secret in [text, "0123456789abcdef", "48, 49", "3031"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn what_was_stored_before_there_was_a_key_stays_readable() {
    for plain in ["", "[]", "{\"a\": 1}", "Größe 大小", "\u{0}\u{10ffff}"] {
        let stored = plain.as_bytes().to_vec();
        assert_eq!(ring(1).open(&PLACE, stored.clone()).unwrap(), stored);
        assert_eq!(sealed_with(&stored), None);
        assert!(!plain.as_bytes().contains(&MARK));
    }
    let without = Keyring::none();
    assert_eq!(without.seal(&PLACE, b"[]".to_vec()), b"[]");
}

#[test]
fn a_missing_key_is_named_and_a_previous_one_opens() {
    let sealed = ring(1).seal(&PLACE, b"words".to_vec());
    let missing = OpenError::MissingKey(key(1).id());
    assert_eq!(sealed_with(&sealed), Some(key(1).id()));
    assert_eq!(ring(2).open(&PLACE, sealed.clone()), Err(missing));
    assert_eq!(Keyring::none().open(&PLACE, sealed.clone()), Err(missing));
    let rotated = Keyring::new(Some(key(2)), &[key(1)]);
    assert_eq!(rotated.open(&PLACE, sealed.clone()).unwrap(), b"words");
    assert!(!rotated.is_current(&sealed));
    assert!(rotated.is_current(&rotated.seal(&PLACE, b"words".to_vec())));
    assert!(!rotated.is_current(b"words"));
}

#[test]
fn a_value_opens_at_its_own_place_only() {
    let sealed = ring(1).seal(&PLACE, b"words".to_vec());
    let others = [
        Place {
            kind: "turns.message",
            ..PLACE
        },
        Place {
            project: "alphac",
            id: "tx-1",
            ..PLACE
        },
        Place {
            id: "ctx-2",
            ..PLACE
        },
        Place { number: 4, ..PLACE },
    ];
    for place in others {
        assert_eq!(
            ring(1).open(&place, sealed.clone()),
            Err(OpenError::Damaged)
        );
    }
    assert_eq!(ring(1).open(&PLACE, sealed).unwrap(), b"words");
}

#[test]
fn equal_words_are_never_sealed_alike() {
    let (one, other) = (
        ring(1).seal(&PLACE, b"words".to_vec()),
        ring(1).seal(&PLACE, b"words".to_vec()),
    );
    assert_ne!(one, other);
    assert_eq!(one.len(), 5 + OVERHEAD_BYTES);
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let mut sealed = ring(1).seal(&PLACE, b"words".to_vec());
    sealed[1] = 2;
    assert_eq!(ring(1).open(&PLACE, sealed), Err(OpenError::UnknownVersion));
}

fn state_key(byte: u8) -> StateKey {
    ring(byte).state_key().unwrap()
}

fn file(state: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    state_key(1).seal(b"name", state, &mut file).unwrap();
    assert_eq!(
        file.len() as u64,
        StateKey::sealed_bytes(state.len() as u64)
    );
    file
}

fn opened(key: &StateKey, name: &[u8], file: &[u8]) -> std::io::Result<Vec<u8>> {
    key.open(name, &mut &*file, file.len() as u64)
}

#[test]
fn states_of_every_length_come_back() {
    const MIB: usize = 1 << 20;
    for length in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7] {
        let state: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let file = file(&state);
        assert_eq!(opened(&state_key(1), b"name", &file).unwrap(), state);
        assert!(opened(&state_key(1), b"other", &file).is_err());
        assert!(opened(&state_key(2), b"name", &file).is_err());
    }
}

#[test]
fn a_state_that_was_cut_or_put_together_anew_does_not_open() {
    const PIECE: usize = (1 << 20) + 16;
    let file = file(&vec![7; 3 << 20]);
    let key = state_key(1);
    for length in [0, 1, 19, 20, 19 + PIECE, 19 + 2 * PIECE, file.len() - 1] {
        assert!(opened(&key, b"name", &file[..length]).is_err(), "{length}");
    }
    let mut swapped = file[..19].to_vec();
    swapped.extend_from_slice(&file[19 + PIECE..19 + 2 * PIECE]);
    swapped.extend_from_slice(&file[19..19 + PIECE]);
    swapped.extend_from_slice(&file[19 + 2 * PIECE..]);
    assert_eq!(swapped.len(), file.len());
    assert!(opened(&key, b"name", &swapped).is_err());
    let mut longer = file.clone();
    longer.push(0);
    assert!(opened(&key, b"name", &longer).is_err());
}

#[test]
fn names_go_with_their_key() {
    assert_eq!(state_key(1).name("model"), state_key(1).name("model"));
    assert_ne!(state_key(1).name("model"), state_key(2).name("model"));
    assert_ne!(state_key(1).name("model"), state_key(1).name("other"));
}

proptest! {
    #[test]
    fn whatever_is_sealed_comes_back(plain: Vec<u8>, project: String, id: String, number: u64) {
        let place = Place { kind: "kind", project: &project, id: &id, number };
        let sealed = ring(1).seal(&place, plain.clone());
        prop_assert_eq!(ring(1).open(&place, sealed).unwrap(), plain);
    }

    #[test]
    fn no_change_goes_unnoticed(plain: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
        let mut sealed = ring(1).seal(&PLACE, plain);
        // Without its mark it is not taken for sealed, and then it is no JSON.
        let at = 1 + at.index(sealed.len() - 1);
        sealed[at] ^= 1 << bit;
        prop_assert!(ring(1).open(&PLACE, sealed).is_err());
    }

    #[test]
    fn what_was_cut_off_does_not_open(plain: Vec<u8>, length: prop::sample::Index) {
        let sealed = ring(1).seal(&PLACE, plain);
        let length = 1 + length.index(sealed.len() - 1);
        prop_assert!(ring(1).open(&PLACE, sealed[..length].to_vec()).is_err());
    }

    #[test]
    fn nothing_makes_it_panic(mut bytes: Vec<u8>) {
        bytes.insert(0, MARK);
        prop_assert!(ring(1).open(&PLACE, bytes.clone()).is_err());
        let _ = opened(&state_key(1), b"name", &bytes);
        let _ = sealed_with(&bytes);
    }

    #[test]
    fn no_change_of_a_state_goes_unnoticed(state: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
        let mut file = file(&state);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        prop_assert!(opened(&state_key(1), b"name", &file).is_err());
    }
}
