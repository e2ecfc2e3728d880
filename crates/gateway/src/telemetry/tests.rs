#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use opentelemetry::trace::TraceContextExt;

use super::caller;

#[test]
fn a_callers_trace_is_taken_up_and_nonsense_is_not() {
    let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = caller(Some(sound));
    let span = context.span();
    let span = span.span_context();
    assert_eq!(
        span.trace_id().to_string(),
        "0af7651916cd43dd8448eb211c80319c"
    );
    assert!(span.is_remote() && span.is_sampled());

    let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    for wrong in [
        "",
        "nonsense",
        zeros,
        &sound[..54],
        &format!("ff{}", &sound[2..]),
    ] {
        let context = caller(Some(wrong));
        assert!(!context.span().span_context().is_valid(), "{wrong}");
    }
    assert!(!caller(None).span().span_context().is_valid());
}
