use super::*;

fn charge(currency: &str, source: Source) -> Charge {
    Charge {
        usage: BilledUsage {
            input_tokens: 10,
            output_tokens: 1,
            ..BilledUsage::default()
        },
        source,
        cost: 5,
        saved: -2,
        currency: currency.to_owned(),
        cost_source: source,
    }
}

#[test]
fn charges_add_up_and_one_estimate_makes_the_sum_one() {
    let mut row = LedgerRecord::default();
    assert!(add(&mut row, &charge("USD", Source::Provider)));
    assert_eq!(row.usage_source, "provider");
    assert!(add(&mut row, &charge("USD", Source::Estimate)));
    assert!(add(&mut row, &charge("USD", Source::Provider)));
    assert!(add(&mut row, &charge("", Source::Provider)));
    assert_eq!((row.usage.input_tokens, row.cost, row.saved), (40, 15, -6));
    assert_eq!(row.usage_source, "estimate");
}

#[test]
fn currencies_are_not_added_up() {
    let mut row = LedgerRecord::default();
    assert!(add(&mut row, &charge("USD", Source::Provider)));
    assert!(!add(&mut row, &charge("CNY", Source::Provider)));
    assert_eq!((row.usage.input_tokens, row.cost), (10, 5));
}

#[test]
fn counts_that_contradict_each_other_are_made_to_add_up() {
    let mut row = LedgerRecord::default();
    let usage = BilledUsage {
        input_tokens: 1,
        cache_read_tokens: u64::MAX,
        output_tokens: u64::MAX,
        ..BilledUsage::default()
    };
    let charge = Charge {
        usage,
        ..charge("", Source::Provider)
    };
    assert!(add(&mut row, &charge));
    assert_eq!(row.fresh_tokens(), 0);
    assert_eq!(row.usage.input_tokens, TOKENS_MAX);
}

#[test]
fn later_ids_are_larger_and_none_comes_twice() {
    let ids: Vec<String> = (0..1000).map(|_| new_id(1_795_348_800_000)).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
    assert!(ids[999] < new_id(1_795_348_800_001));
}
