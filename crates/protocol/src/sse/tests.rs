#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::{Decoder, Encoder, Event, EventTooLarge};

fn decode(pieces: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new(1024);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(decoder.push(piece).unwrap());
    }
    events.extend(decoder.finish());
    events
}

fn named(event: &str, data: &str) -> Event {
    Event {
        event: Some(event.to_owned()),
        ..Event::data(data)
    }
}

#[test]
fn all_three_line_ends_mean_the_same() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["event: a", "data: 1", "data: 2", "", "data:3", "", ""].join(end);
        assert_eq!(
            decode(&[text.as_bytes()]),
            [named("a", "1\n2"), Event::data("3")],
            "{end:?}"
        );
    }
}

#[test]
fn fields_are_read_as_the_format_says() {
    let with_id = Event {
        id: Some("7".to_owned()),
        ..Event::data("x")
    };
    let table: [(&str, &[Event]); 12] = [
        ("", &[]),
        ("\n\n\n", &[]),
        (": comment\n\ndata: x\n\n", &[Event::data("x")]),
        ("data\n\n", &[Event::data("")]),
        ("data: \n\n", &[Event::data("")]),
        ("data:  two spaces\n\n", &[Event::data(" two spaces")]),
        ("data: a: b\n\n", &[Event::data("a: b")]),
        ("event: lonely\n\ndata: x\n\n", &[Event::data("x")]),
        ("id: 7\ndata: x\n\n", std::slice::from_ref(&with_id)),
        ("id: \0\ndata: x\n\n", &[Event::data("x")]),
        ("retry: 5\nunknown: y\ndata: x\n\n", &[Event::data("x")]),
        ("\u{feff}data: x\n\n", &[Event::data("x")]),
    ];
    for (text, expected) in table {
        assert_eq!(decode(&[text.as_bytes()]), expected, "{text:?}");
    }
}

#[test]
fn an_event_without_its_blank_line_comes_at_the_end() {
    assert_eq!(decode(&[b"data: x\n"]), [Event::data("x")]);
    assert_eq!(decode(&[b"data: x"]), [Event::data("x")]);
}

#[test]
fn events_beyond_the_limit_are_refused_by_line_and_by_sum() {
    let limit = Err(EventTooLarge { event_bytes_max: 8 });
    assert_eq!(Decoder::new(8).push(b"data: 123"), limit);
    assert_eq!(
        Decoder::new(8).push(b"data: 1\ndata: 2\ndata: 3\n\n"),
        limit
    );
    let mut decoder = Decoder::new(8);
    for _ in 0..100 {
        assert_eq!(decoder.push(b"data: 1\n\n"), Ok(vec![Event::data("1")]));
    }
}

#[test]
fn what_would_break_a_line_never_leaves_a_name() {
    let event = named("a\ndata: forged", "x\r\ny\rz\n");
    assert_eq!(
        decode(&[&Encoder::encode(&event)]),
        [named("adata: forged", "x\ny\nz\n")]
    );
    assert_eq!(decode(&[&Encoder::comment("a\n\ndata: forged")]), []);
    assert_eq!(&Encoder::data(b"{}")[..], b"data: {}\n\n");
}

fn stream() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("data: "),
        Just("data:"),
        Just("event: e"),
        Just("id: 1"),
        Just(":"),
        Just("你好"),
        Just("x"),
        Just("\n"),
        Just("\r"),
        Just("\r\n"),
        Just("\n\n"),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_does_not_matter(text in stream()) {
        let bytes = text.as_bytes();
        let whole = decode(&[bytes]);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            prop_assert_eq!(&decode(&[first, second]), &whole, "cut at {}", cut);
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&decode(&single), &whole);
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same(data in "[^\r]{0,40}", event in proptest::option::of("[a-z]{1,8}")) {
        let event = Event { event, ..Event::data(data) };
        prop_assert_eq!(decode(&[&Encoder::encode(&event)]), vec![event]);
    }
}
