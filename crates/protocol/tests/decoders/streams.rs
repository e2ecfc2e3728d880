//! Framings: server-sent events, and the frames of AWS.

use holdfast_protocol::provider::UpstreamDialectName;
use holdfast_protocol::sse::{Decoder, Encoder, Event, EventTooLarge};

use crate::draw::cuttings;
use crate::upstream;

/// Lengths and checksum before a frame's headers, bytes.
const PRELUDE_BYTES: usize = 12;
/// The smallest frame: prelude and checksum, bytes.
const FRAME_BYTES_MIN: usize = 16;
/// AWS's number for a header's value that is text.
const TEXT_VALUE: u8 = 7;

/// Server-sent events are the same wherever their bytes are cut, keep to the decoder's bound, and can be written again.
pub(crate) fn sse(data: &[u8]) {
    let whole = events(&[data], usize::MAX);
    let small = 48;
    let is_small = events(&[data], small).is_ok();
    for pieces in cuttings(data) {
        assert_eq!(events(&pieces, usize::MAX), whole);
        let bounded = events(&pieces, small);
        // What came before the event that is too large depends on the pieces, the refusal does not.
        assert_eq!(bounded.is_ok(), is_small);
        for event in bounded.into_iter().flatten() {
            let texts = [event.event, event.id, Some(event.data)];
            let bytes: usize = texts.iter().flatten().map(String::len).sum();
            // A byte that is no text becomes three.
            assert!(bytes <= 4 * small, "an event of {bytes} bytes");
        }
    }

    let whole = whole.expect("there is no bound");
    let written: Vec<u8> = whole.iter().flat_map(Encoder::encode).collect();
    assert_eq!(events(&[&written], usize::MAX), Ok(whole));
}

fn events(pieces: &[&[u8]], event_bytes_max: usize) -> Result<Vec<Event>, EventTooLarge> {
    let mut decoder = Decoder::new(event_bytes_max);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(decoder.push(piece)?);
    }
    events.extend(decoder.finish());
    assert_eq!(decoder.finish(), None, "it ends twice");
    Ok(events)
}

/// Frames of AWS as bytes: as they are, and with the lengths and checksums put right, without which hardly any changed
/// frame would be read.
pub(crate) fn bedrock_frames(data: &[u8]) {
    upstream::stream(UpstreamDialectName::BedrockConverse, data);
    upstream::stream(UpstreamDialectName::BedrockConverse, &sealed(data));
}

/// Answers of Bedrock, a frame per line as in the fixtures: `event NAME JSON`, `exception NAME JSON` or
/// `error CODE MESSAGE`.
pub(crate) fn upstream_bedrock(data: &[u8]) {
    upstream::stream(UpstreamDialectName::BedrockConverse, &frames(data));
    upstream::bodies(UpstreamDialectName::BedrockConverse, data);
}

/// The frames that `lines` describe; other lines are none.
pub(crate) fn frames(lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let mut word = || words.next().unwrap_or_default();
        let (kind, name, rest) = (word(), word(), word());
        match kind {
            b"event" => frame(
                &[(":message-type", kind), (":event-type", name)],
                rest,
                &mut out,
            ),
            b"exception" => frame(
                &[(":message-type", kind), (":exception-type", name)],
                rest,
                &mut out,
            ),
            b"error" => frame(
                &[
                    (":message-type", kind),
                    (":error-code", name),
                    (":error-message", rest),
                ],
                b"",
                &mut out,
            ),
            _ => {}
        }
    }
    out
}

fn frame(headers: &[(&str, &[u8])], payload: &[u8], out: &mut Vec<u8>) {
    let mut bytes = vec![0; PRELUDE_BYTES];
    for (name, value) in headers {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        bytes.push(name.len() as u8);
        bytes.extend(name.bytes());
        bytes.push(TEXT_VALUE);
        bytes.extend(length.to_be_bytes());
        bytes.extend(&value[..usize::from(length)]);
    }
    let headers_length = bytes.len() - PRELUDE_BYTES;
    bytes.extend(payload);
    bytes.extend([0; 4]);
    seal(&mut bytes, headers_length);
    out.extend(bytes);
}

/// The frames in `data` with lengths that fit and checksums that are right.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    let mut rest = out.as_mut_slice();
    while rest.len() >= FRAME_BYTES_MIN {
        let length =
            |at: usize| u32::from_be_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let total =
            Some(length(0) as usize).filter(|total| (FRAME_BYTES_MIN..=rest.len()).contains(total));
        let headers = length(4) as usize;
        let (frame, after) = rest.split_at_mut(total.unwrap_or(rest.len()));
        seal(frame, headers.min(frame.len() - FRAME_BYTES_MIN));
        rest = after;
    }
    out
}

/// Writes a frame's lengths and checksums.
fn seal(frame: &mut [u8], headers_length: usize) {
    let total = frame.len();
    let end = total - 4;
    frame[..4].copy_from_slice(&(total as u32).to_be_bytes());
    frame[4..8].copy_from_slice(&(headers_length as u32).to_be_bytes());
    let prelude = checksum(&frame[..8]);
    frame[8..PRELUDE_BYTES].copy_from_slice(&prelude);
    let message = checksum(&frame[..end]);
    frame[end..].copy_from_slice(&message);
}

/// CRC-32 as in gzip.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    });
    (!sum).to_be_bytes()
}
