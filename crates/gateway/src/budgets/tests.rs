#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use holdfast_protocol::UnixMillis;
use holdfast_store::BudgetPeriod;
use jiff::Timestamp;
use proptest::prelude::*;

use super::money::{amount, trillionths};
use super::standing::Period;
use super::*;

fn at(text: &str) -> UnixMillis {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn code(text: &str) -> Currency {
    text.parse().unwrap()
}

#[test]
fn periods_are_days_and_months_of_utc() {
    let day = |text: &str| at(text).div_euclid(86_400_000);
    for (now, period, from, until) in [
        (
            "2026-11-30T23:59:59.999Z",
            BudgetPeriod::Daily,
            "2026-11-30T00:00:00Z",
            "2026-12-01T00:00:00Z",
        ),
        (
            "2026-12-01T00:00:00Z",
            BudgetPeriod::Daily,
            "2026-12-01T00:00:00Z",
            "2026-12-02T00:00:00Z",
        ),
        (
            "2026-11-30T12:00:00Z",
            BudgetPeriod::Monthly,
            "2026-11-01T00:00:00Z",
            "2026-12-01T00:00:00Z",
        ),
        (
            "2028-02-29T12:00:00Z",
            BudgetPeriod::Monthly,
            "2028-02-01T00:00:00Z",
            "2028-03-01T00:00:00Z",
        ),
        (
            "2026-12-31T23:00:00Z",
            BudgetPeriod::Monthly,
            "2026-12-01T00:00:00Z",
            "2027-01-01T00:00:00Z",
        ),
    ] {
        let found = Period::of(period, at(now));
        assert_eq!(found.from_day, Some(day(from)), "{now}");
        assert_eq!(found.until, Some(at(until)), "{now}");
    }
    let total = Period::of(BudgetPeriod::Total, at("2026-11-30T12:00:00Z"));
    assert_eq!((total.from_day, total.until), (None, None));
}

#[test]
fn amounts_are_converted_by_their_rates_or_not_at_all() {
    let rates = Rates::new([
        (code("CNY"), decimal("0.14")),
        (code("EUR"), decimal("1.12")),
    ]);
    let convert =
        |amount: &str, from: &str, to: &str| rates.convert(decimal(amount), from, code(to));
    assert_eq!(convert("100", "CNY", "USD"), Some(decimal("14")));
    assert_eq!(convert("14", "USD", "CNY"), Some(decimal("100")));
    assert_eq!(convert("8", "CNY", "EUR"), Some(decimal("1")));
    assert_eq!(
        convert("8", "JPY", "JPY"),
        Some(decimal("8")),
        "needs no rate"
    );
    assert_eq!(convert("8", "JPY", "USD"), None);
    assert_eq!(convert("8", "USD", "JPY"), None);
    let million = 1_000_000_000_000;
    let sum = rates.sum(
        [("USD", million), ("CNY", 50 * million), ("JPY", 0)],
        code("USD"),
    );
    assert_eq!(sum, Ok(decimal("8")));
    assert_eq!(rates.sum([("JPY", 1)], code("USD")), Err("JPY".to_owned()));

    let dearest = |costs: &[(&str, &str)]| {
        let costs: Vec<_> = costs
            .iter()
            .map(|(it, cost)| (code(it), decimal(cost)))
            .collect();
        rates
            .dearest(&costs)
            .map(|(it, cost)| format!("{cost} {it}"))
    };
    assert_eq!(dearest(&[]), None);
    assert_eq!(
        dearest(&[("JPY", "3"), ("JPY", "5")]).as_deref(),
        Some("5 JPY")
    );
    assert_eq!(
        dearest(&[("USD", "1"), ("CNY", "8")]).as_deref(),
        Some("8 CNY")
    );
    assert_eq!(
        dearest(&[("USD", "2"), ("CNY", "8")]).as_deref(),
        Some("2 USD")
    );
    assert_eq!(
        dearest(&[("USD", "2"), ("JPY", "8")]).as_deref(),
        Some("8 JPY"),
        "to be refused"
    );
}

#[test]
fn warnings_name_the_budget_and_fit_into_a_header() {
    let budget = Budget {
        period: BudgetPeriod::Monthly,
        currency: Currency::USD,
        hard: Some(decimal("100.50")),
        soft: Some(decimal("80")),
    };
    let standing = Standing::of(
        Spender::Project("team".to_owned()),
        &budget,
        at("2026-11-30T12:00:00Z"),
    );
    assert_eq!(
        standing.warning(decimal("80.123456789")),
        "project monthly; currency=USD; spent=80.123457; soft=80; hard=100.5"
    );
    assert_eq!(standing.name(), "the project's monthly budget");
    assert_eq!(
        standing.when_again(),
        " It begins anew at 2026-12-01T00:00:00Z."
    );
    // Another period, limit or kind of limit is another event.
    let next = Standing::of(
        Spender::Project("team".to_owned()),
        &budget,
        at("2026-12-01T12:00:00Z"),
    );
    let notices = [
        standing.notice(true),
        standing.notice(false),
        next.notice(true),
    ];
    let different: std::collections::BTreeSet<_> = notices.iter().collect();
    assert_eq!(different.len(), notices.len());
}

proptest! {
    #[test]
    fn what_is_reserved_covers_what_it_is_for(mantissa in 0_i64..9_000_000_000_000, scale in 0_u32..18) {
        let cost = Decimal::new(mantissa, scale);
        if cost > decimal("9000000") { return Ok(()) }
        let reserved = amount(i128::from(trillionths(cost)));
        prop_assert!(reserved >= cost);
        prop_assert!(reserved - cost < Decimal::new(1, 12));
    }

    /// Converting there and back gives the same amount to more digits than any price has.
    #[test]
    fn rates_are_undone(cents in 1_i64..1_000_000_000, rate in 1_i64..10_000_000) {
        let rates = Rates::new([(code("CNY"), Decimal::new(rate, 4))]);
        let cost = Decimal::new(cents, 2);
        let there = rates.convert(cost, "CNY", Currency::USD).unwrap();
        let back = rates.convert(there, "USD", code("CNY")).unwrap();
        prop_assert!((back - cost).abs() < Decimal::new(1, 10), "{back} {cost}");
    }

    /// The sum does not depend on the order, and is never less than a part of it.
    #[test]
    fn sums_are_in_no_order(amounts in prop::collection::vec((0_usize..2, 0_i128..1_000_000_000_000_000_000), 1..9)) {
        let rates = Rates::new([(code("CNY"), decimal("0.125"))]);
        let named: Vec<(&str, i128)> = amounts.iter().map(|(it, amount)| (["USD", "CNY"][*it], *amount)).collect();
        let mut sorted: BTreeMap<usize, (&str, i128)> = named.iter().copied().enumerate().collect();
        let sum = rates.sum(named.iter().copied(), Currency::USD).unwrap();
        let mut reversed = Vec::new();
        while let Some((_, it)) = sorted.pop_last() { reversed.push(it) }
        prop_assert_eq!(rates.sum(reversed, Currency::USD).unwrap(), sum);
        prop_assert!(rates.sum(named.into_iter().take(1), Currency::USD).unwrap() <= sum);
    }
}
