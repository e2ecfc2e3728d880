//! What was measured of one client, as tables.

use holdfast_benches::Result;
use holdfast_benches::report::Table;
use holdfast_benches::statistics::{median, percentile};

use super::{Case, HELD, MARKED, REPLAYED, Request, Way, find, shown};

pub(super) fn print_whole(cases: &[Case]) -> Result<()> {
    let mut table = Table::new(&[
        "request",
        "way",
        "sent upstream",
        "median",
        "p99",
        "above direct",
        "times direct",
    ]);
    for case in cases {
        let middle = median(&case.times.whole);
        let floor = median(&find(cases, case.floor())?.times.whole);
        table.row(vec![
            case.request.title().to_owned(),
            case.way.title(),
            format!("{} B", case.upstream_bytes),
            shown(middle),
            shown(percentile(&case.times.whole, 99.0)),
            shown(middle - floor),
            format!("{:.1}x", middle / floor),
        ]);
    }
    table.print();
    Ok(())
}

pub(super) fn print_streamed(cases: &[Case]) -> Result<()> {
    let mut table = Table::new(&[
        "request",
        "way",
        "first byte, median",
        "p99",
        "above direct",
        "end, median",
        "p99",
        "above direct",
    ]);
    for case in cases {
        let floor = &find(cases, case.floor())?.times;
        let mut row = vec![case.request.title().to_owned(), case.way.title()];
        for (times, floor) in [
            (&case.times.first_byte, &floor.first_byte),
            (&case.times.streamed, &floor.streamed),
        ] {
            row.push(shown(median(times)));
            row.push(shown(percentile(times, 99.0)));
            row.push(shown(median(times) - median(floor)));
        }
        table.row(row);
    }
    table.print();
    Ok(())
}

/// What a context by id adds to the small request, beside what writing its bytes takes.
pub(super) fn print_differences(cases: &[Case]) -> Result<()> {
    let small = |route| (Request::Small, Way::Gateway(route));
    let by_id = |route| (Request::ById, Way::Gateway(route));
    let rows = [
        (
            "writing the context: sent by the client, direct − 1 KB, direct",
            (Request::Replay, Way::Direct),
            (Request::Small, Way::Direct),
        ),
        (
            "by id, `openai-compatible` − 1 KB, same route",
            by_id(REPLAYED),
            small(REPLAYED),
        ),
        (
            "by id, `anthropic` − 1 KB, same route",
            by_id(MARKED),
            small(MARKED),
        ),
        (
            "by id, `gemini` − 1 KB, same route",
            by_id(HELD),
            small(HELD),
        ),
        (
            "sent by the client, `openai-compatible` − by id, same route",
            (Request::Replay, Way::Gateway(REPLAYED)),
            by_id(REPLAYED),
        ),
    ];
    let mut table = Table::new(&["difference", "whole answer", "first byte", "end of stream"]);
    for (title, more, less) in rows {
        let (more, less) = (&find(cases, more)?.times, &find(cases, less)?.times);
        // Each with the one of the same round: what the machine does besides is in both.
        let difference = |more: &[f64], less: &[f64]| {
            let pairs = more.iter().zip(less).map(|(more, less)| more - less);
            shown(median(&pairs.collect::<Vec<f64>>()))
        };
        table.row(vec![
            title.to_owned(),
            difference(&more.whole, &less.whole),
            difference(&more.first_byte, &less.first_byte),
            difference(&more.streamed, &less.streamed),
        ]);
    }
    table.print();
    Ok(())
}
