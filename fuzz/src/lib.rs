//! What the fuzz targets run: the checks of `crates/protocol/tests/decoders`, which `make test` runs on the fixtures.

#[path = "../../crates/protocol/tests/decoders/client.rs"]
mod client;
#[path = "../../crates/protocol/tests/decoders/draw.rs"]
mod draw;
#[path = "../../crates/protocol/tests/decoders/streams.rs"]
mod streams;
#[path = "../../crates/protocol/tests/decoders/targets.rs"]
mod targets;
#[path = "../../crates/protocol/tests/decoders/upstream.rs"]
mod upstream;

/// The check of this name.
pub fn check(name: &str) -> fn(&[u8]) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("targets.rs has a line for each target").1
}

/// A fuzz target of this name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::check($name)(data));
    };
}
