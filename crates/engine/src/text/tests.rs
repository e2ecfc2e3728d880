#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::sampling::SplitMix64;

fn stream(stop: &[&str]) -> TextStream {
    TextStream::new(stop.iter().map(|stop| (*stop).to_owned()).collect())
}

/// Pushes the pieces and gives all text and whether a stop string was met.
fn run(stop: &[&str], pieces: &[&[u8]]) -> (String, bool) {
    let mut stream = stream(stop);
    let mut text = String::new();
    let mut stopped = false;
    for piece in pieces {
        let pushed = stream.push(piece);
        assert!(
            !stopped
                || pushed
                    == Pushed {
                        text: String::new(),
                        stopped: true
                    },
            "text after the stop"
        );
        text.push_str(&pushed.text);
        stopped = pushed.stopped;
    }
    text.push_str(&stream.finish());
    (text, stopped)
}

/// The rule without any cleverness: the stop string that ends first wins, the longest of those.
fn reference(stop: &[&str], bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    for end in 0..=text.len() {
        let read = &text.as_bytes()[..end];
        let met = stop
            .iter()
            .filter(|stop| !stop.is_empty() && read.ends_with(stop.as_bytes()));
        if let Some(longest) = met.map(|stop| stop.len()).max() {
            return text[..end - longest].to_owned();
        }
    }
    text
}

fn random_pieces<'a>(bytes: &'a [u8], random: &mut SplitMix64) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(1 + (random.next_u64() % 5) as usize % rest.len());
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[test]
fn a_character_cut_between_tokens_comes_out_whole() {
    let mut stream = stream(&[]);
    assert_eq!(stream.push(&"é".as_bytes()[..1]).text, "");
    assert_eq!(stream.push(&"é".as_bytes()[1..]).text, "é");
    assert_eq!(stream.finish(), "");
}

#[test]
fn invalid_bytes_become_replacement_characters_as_soon_as_they_are_certain() {
    let mut stream = stream(&[]);
    assert_eq!(stream.push(b"a\xFFb").text, "a\u{FFFD}b");
    assert_eq!(stream.push(b"\xE2\x82").text, "");
    assert_eq!(stream.push(b"c").text, "\u{FFFD}c");
    assert_eq!(stream.push(b"\xF0\x9F").text, "");
    assert_eq!(stream.finish(), "\u{FFFD}");
}

#[test]
fn text_before_a_stop_string_comes_out_and_nothing_after() {
    let mut stream = stream(&["END"]);
    assert_eq!(stream.push(b"one E").text, "one ");
    assert_eq!(
        stream.push(b"N"),
        Pushed {
            text: String::new(),
            stopped: false
        }
    );
    assert_eq!(
        stream.push(b"Dtwo"),
        Pushed {
            text: String::new(),
            stopped: true
        }
    );
    assert_eq!(
        stream.push(b"three"),
        Pushed {
            text: String::new(),
            stopped: true
        }
    );
    assert_eq!(stream.finish(), "");
}

#[test]
fn a_partial_stop_string_is_held_back_and_given_out_when_it_fails() {
    let mut stream = stream(&["\n\nUser:"]);
    assert_eq!(stream.push(b"hi\n").text, "hi");
    assert_eq!(stream.push(b"\nUse").text, "");
    assert_eq!(stream.push(b"ful").text, "\n\nUseful");
    assert_eq!(stream.push(b"\n").text, "");
    assert_eq!(stream.finish(), "\n");
}

#[test]
fn of_several_stop_strings_the_one_that_ends_first_wins() {
    assert_eq!(run(&["abcd", "bc"], &[b"xabcd"]), ("xa".to_owned(), true));
    assert_eq!(
        run(&["abc", "c", "bc"], &[b"xabcd"]),
        ("x".to_owned(), true)
    );
}

#[test]
fn empty_stop_strings_stop_nothing() {
    assert_eq!(run(&[""], &[b"text"]), ("text".to_owned(), false));
}

#[test]
fn every_cut_of_the_bytes_gives_what_the_reference_gives() {
    let mut random = SplitMix64::new(1);
    let alphabet: [&[u8]; 9] = [
        b"a",
        b"b",
        b"aab",
        b"\n",
        "é".as_bytes(),
        "語".as_bytes(),
        "🎈".as_bytes(),
        b"\xFF",
        b"\xE8\xAA",
    ];
    let stops: [&[&str]; 7] = [
        &[],
        &["aab"],
        &["aabaab", "baa"],
        &["é", "\n\n"],
        &["語a", "b語"],
        &["\u{FFFD}b"],
        &["aaaa", "aab", "b\n"],
    ];
    let mut stops_met = 0;
    for _ in 0..4000 {
        let length = random.next_u64() % 14;
        let bytes: Vec<u8> = (0..length)
            .flat_map(|_| alphabet[(random.next_u64() % 9) as usize].iter().copied())
            .collect();
        let stop = stops[(random.next_u64() % 7) as usize];
        let expected = reference(stop, &bytes);
        stops_met += u32::from(expected.len() < String::from_utf8_lossy(&bytes).len());
        let pieces = random_pieces(&bytes, &mut random);
        assert_eq!(run(stop, &pieces).0, expected, "{stop:?} {pieces:?}");
        assert_eq!(run(stop, &[&bytes]).0, expected, "{stop:?} {bytes:?}");
    }
    assert!(
        stops_met > 500,
        "{stops_met} of 4000 inputs met a stop string"
    );
}

#[test]
fn a_long_self_similar_stop_string_is_cheap() {
    // A matcher that starts over at each byte would make 10^10 comparisons here.
    let stop = format!("{}b", "a".repeat(100_000));
    let mut stream = stream(&[&stop]);
    let mut length = 0;
    for _ in 0..200 {
        length += stream.push("a".repeat(1000).as_bytes()).text.len();
    }
    assert_eq!(length, 100_000);
    assert!(stream.push(b"b").stopped);
}
