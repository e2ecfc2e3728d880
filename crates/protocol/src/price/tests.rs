#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn rates(input: &str, output: &str, cached_read: &str, writes: &[(u32, &str)]) -> Rates {
    Rates {
        writes: writes
            .iter()
            .map(|(seconds, rate)| (*seconds, decimal(rate)))
            .collect(),
        ..Rates::new(decimal(input), decimal(output), decimal(cached_read))
    }
}

fn price(input: &str, output: &str, cached_read: &str, writes: &[(u32, &str)]) -> Price {
    Price::flat(Currency::USD, rates(input, output, cached_read, writes))
}

fn stored(price: Price, per_mtok_hour: &str, is_whole_hours: bool) -> Price {
    Price {
        storage: Some(StoragePrice {
            per_mtok_hour: decimal(per_mtok_hour),
            is_whole_hours,
        }),
        ..price
    }
}

/// claude-sonnet-5-5, facts section 7.
fn sonnet() -> Price {
    price("2", "10", "0.1", &[(300, "2.5"), (3600, "4")])
}

/// gemini-2.5-pro, facts sections 2.4 and 7.
fn gemini() -> Price {
    stored(price("1.25", "10", "0.125", &[]), "4.5", false)
}

fn usage(input: u64, read: u64, writes: CacheWrites, output: u64) -> BilledUsage {
    BilledUsage {
        input_tokens: input,
        cache_read_tokens: read,
        cache_writes: writes,
        output_tokens: output,
        reasoning_tokens: 0,
    }
}

const NO_WRITES: CacheWrites = CacheWrites {
    m5: 0,
    m30: 0,
    h1: 0,
    h12: 0,
    other: 0,
};

#[test]
fn a_request_is_charged_by_kind_of_token() {
    let charge = sonnet().charge(&usage(100_500, 100_000, NO_WRITES, 200), ReadKind::Explicit);
    // 100k at 0.1 + 500 at 2 + 200 at 10 against 100.5k at 2 + 200 at 10.
    assert_eq!(charge.cost, decimal("0.013"));
    assert_eq!(charge.baseline, decimal("0.203"));
    assert_eq!(charge.saved(), decimal("0.19"));
    assert!(charge.is_consistent);
}

#[test]
fn a_write_that_nobody_reads_saves_less_than_nothing() {
    let writes = CacheWrites {
        m5: 1_000,
        h1: 10_000,
        ..NO_WRITES
    };
    let charge = sonnet().charge(&usage(11_500, 0, writes, 0), ReadKind::Explicit);
    assert_eq!(charge.cost, decimal("0.0435"));
    assert_eq!(charge.saved(), decimal("-0.0205"));
}

#[test]
fn a_lifetime_without_a_rate_takes_the_next_longer_one() {
    let rates = sonnet().rates;
    for (lifetime, expected) in [
        (Some(60), "2.5"),
        (Some(300), "2.5"),
        (Some(1_800), "4"),
        (Some(3_600), "4"),
        (Some(43_200), "4"),
        (None, "2.5"),
    ] {
        assert_eq!(rates.write(lifetime), decimal(expected), "{lifetime:?}");
    }
}

#[test]
fn writes_without_a_rate_or_at_a_listed_zero_cost_what_input_costs() {
    let deepseek = rates("1.32", "3.96", "0.044", &[(300, "0")]);
    assert_eq!(deepseek.write(Some(300)), decimal("1.32"));
    assert_eq!(deepseek.write(None), decimal("1.32"));
    assert_eq!(gemini().rates.write(Some(3600)), decimal("1.25"));
    assert_eq!(gemini().rates.write_mult(None), Some(Decimal::ONE));
}

#[test]
fn implicit_and_explicit_reads_may_differ() {
    let mut qwen = price("2.5", "7.5", "0.5", &[(300, "3.125")]);
    qwen.rates.cached_read_explicit = Some(decimal("0.25"));
    let read = usage(1_000_000, 1_000_000, NO_WRITES, 0);
    assert_eq!(qwen.cost(&read, ReadKind::Implicit), decimal("0.5"));
    assert_eq!(qwen.cost(&read, ReadKind::Explicit), decimal("0.25"));
    assert_eq!(qwen.baseline(&read), decimal("2.5"));
    assert_eq!(
        qwen.rates.read_mult(ReadKind::Explicit),
        Some(decimal("0.1"))
    );
    assert_eq!(
        sonnet().rates.read(ReadKind::Explicit),
        sonnet().rates.read(ReadKind::Implicit)
    );
}

#[test]
fn above_a_threshold_all_rates_change_and_cached_tokens_count_for_it() {
    let mut grok = price("2", "6", "0.5", &[]);
    grok.tiers.push(Tier {
        above_tokens: 200_000,
        rates: rates("4", "12", "1", &[]),
    });
    grok.tiers.push(Tier {
        above_tokens: 400_000,
        rates: rates("8", "24", "2", &[]),
    });
    let at = |input| grok.cost(&usage(input, 150_000, NO_WRITES, 1_000), ReadKind::Implicit);
    // 150k read, the rest fresh.
    assert_eq!(at(200_000), decimal("0.181"));
    assert_eq!(at(200_001), decimal("0.362004"));
    assert_eq!(at(400_001), decimal("2.324008"));
}

#[test]
fn contradicting_usage_is_charged_in_full_and_flagged() {
    // More read and written than there was.
    let writes = CacheWrites {
        h1: 1_000,
        ..NO_WRITES
    };
    let charge = sonnet().charge(&usage(500, 9_000, writes, 100), ReadKind::Explicit);
    assert!(!charge.is_consistent);
    // 9,000 at 2, 1,000 at 4, 100 at 10.
    assert_eq!(charge.cost, decimal("0.023"));
    assert_eq!(charge.baseline, decimal("0.021"));
    assert!(charge.saved() <= Decimal::ZERO);

    let absurd = CacheWrites {
        m5: u64::MAX,
        m30: u64::MAX,
        h1: u64::MAX,
        h12: u64::MAX,
        other: u64::MAX,
    };
    let charge = sonnet().charge(
        &usage(u64::MAX, u64::MAX, absurd, u64::MAX),
        ReadKind::Explicit,
    );
    assert!(!charge.is_consistent);
    let charge = sonnet().charge(&usage(0, 1, NO_WRITES, 0), ReadKind::Explicit);
    assert!(!charge.is_consistent);
    assert_eq!(charge.saved(), Decimal::ZERO);
}

#[test]
fn absurd_rates_do_not_panic() {
    let mut absurd = stored(sonnet(), "1", false);
    absurd.rates = Rates::new(Decimal::MAX, Decimal::MAX, Decimal::MIN);
    absurd.storage.as_mut().unwrap().per_mtok_hour = Decimal::MAX;
    let charge = absurd.charge(
        &usage(u64::MAX, u64::MAX, NO_WRITES, u64::MAX),
        ReadKind::Implicit,
    );
    let _ = charge.saved();
    let _ = absurd.storage(u64::MAX, u64::MAX);
    for holding in HOLDINGS {
        let _ = absurd.estimate(holding, &workload(u64::MAX, u64::MAX, Some(1)));
    }
}

#[test]
fn the_amount_a_provider_names_counts_where_currencies_agree() {
    let read = usage(1_000_000, 1_000_000, NO_WRITES, 0);
    let charged = Some(decimal("0.07"));
    let by_list = sonnet().money(&read, ReadKind::Explicit, None);
    assert_eq!(
        (by_list.cost, by_list.saved, by_list.source),
        (decimal("0.1"), decimal("1.9"), Source::Estimate)
    );
    let named = sonnet().money(&read, ReadKind::Explicit, charged);
    assert_eq!(
        (named.cost, named.saved, named.source),
        (decimal("0.07"), decimal("1.93"), Source::Provider)
    );
    let in_yuan = Price {
        currency: Currency::CNY,
        ..sonnet()
    };
    let money = in_yuan.money(&read, ReadKind::Explicit, charged);
    assert_eq!(
        (money.cost, money.currency.as_str(), money.source),
        (decimal("0.1"), "CNY", Source::Estimate)
    );
}

#[test]
fn storage_is_by_token_and_time() {
    let gemini = gemini();
    assert_eq!(gemini.storage(1_000_000, 3_600_000), decimal("4.5"));
    assert_eq!(gemini.storage(100_000, 300_000), decimal("0.0375"));
    assert_eq!(gemini.storage(100_000, 0), Decimal::ZERO);
    assert_eq!(sonnet().storage(100_000, 3_600_000), Decimal::ZERO);
    let ark = stored(price("6", "30", "1.2", &[]), "0.017", true);
    assert_eq!(ark.storage(1_000_000, 1), decimal("0.017"));
    assert_eq!(ark.storage(1_000_000, 3_600_000), decimal("0.017"));
    assert_eq!(ark.storage(1_000_000, 3_600_001), decimal("0.034"));
}

#[test]
fn currencies_are_three_capital_letters() {
    assert_eq!("EUR".parse::<Currency>().unwrap().to_string(), "EUR");
    for bad in ["", "usd", "US", "USDT", "U$D", "\u{20ac}"] {
        assert!(bad.parse::<Currency>().is_err(), "{bad}");
    }
}

/// Facts section 5.4: k_max of each lifetime.
#[test]
fn pings_max_is_as_documented() {
    for (write, read, expected) in [
        ("1.25", "0.1", 11),
        ("1.25", "0.05", 24),
        ("2", "0.1", 19),
        ("1.25", "0.1", 11),
        ("2.5", "0.1", 24),
        // Where writes are free: (1 - read) / read.
        ("1", "0.1", 9),
        ("1", "0.25", 3),
        ("1", "0.5", 1),
        ("1", "1", 0),
        ("1", "1.5", 0),
    ] {
        assert_eq!(
            pings_max(decimal(write), decimal(read)),
            expected,
            "{write}/{read}"
        );
    }
    assert_eq!(pings_max(decimal("1.25"), Decimal::ZERO), u32::MAX);
    assert_eq!(pings_max_before_last_use(decimal("0.1")), 9);
    assert_eq!(pings_max_before_last_use(decimal("0.05")), 19);
}

/// Facts section 5.4: the reads needed after one write.
#[test]
fn reads_that_pay_for_a_write_are_as_documented() {
    for (write, read, expected) in [
        ("1.25", "0.1", Some(1)),
        ("2", "0.1", Some(2)),
        ("2", "0.05", Some(2)),
        ("2.5", "0.1", Some(2)),
        ("1.0", "0.1", Some(0)),
        ("1.25", "1", None),
        ("1", "1", Some(0)),
    ] {
        assert_eq!(
            pays_for_write_reads(decimal(write), decimal(read)),
            expected,
            "{write}/{read}"
        );
    }
}

/// Facts section 5.4: reads an hour from which storage pays.
#[test]
fn reads_that_pay_for_storage_are_as_documented() {
    for (storage, input, read_mult, decimals, expected) in [
        ("4.5", "1.25", "0.1", 1, "4.0"),
        ("4.5", "2", "0.1", 1, "2.5"),
        ("0.5", "0.75", "0.1", 2, "0.74"),
        ("0.017", "6", "0.2", 4, "0.0035"),
    ] {
        let reads =
            pays_for_storage_reads_per_hour(decimal(storage), decimal(input), decimal(read_mult))
                .unwrap();
        assert_eq!(reads.round_dp(decimals), decimal(expected));
    }
    let never = pays_for_storage_reads_per_hour(decimal("1"), decimal("1"), Decimal::ONE);
    assert_eq!(never, None);
}

/// Facts section 5.4: the probabilities from which a ping pays.
#[test]
fn a_ping_pays_from_the_documented_probability() {
    for (write, read, below, above) in [
        ("1.25", "0.1", "0.0869", "0.087"),
        ("1.25", "0.05", "0.0416", "0.042"),
        ("2", "0.1", "0.0526", "0.053"),
    ] {
        let pays = |q| ping_pays(decimal(q), decimal(write), decimal(read));
        assert!(!pays(below), "{write}/{read} at {below}");
        assert!(pays(above), "{write}/{read} at {above}");
    }
    // Before the last use, the ping must beat fresh input and not a write: 0.1 / 0.9.
    assert!(!ping_pays_before_last_use(decimal("0.111"), decimal("0.1")));
    assert!(ping_pays_before_last_use(decimal("0.112"), decimal("0.1")));
    assert!(!ping_pays(Decimal::ONE, Decimal::ONE, Decimal::ONE));
}

#[test]
fn pings_bridge_gaps() {
    let window_ms = 270_000;
    for (gap_ms, expected) in [
        (0, 0),
        (270_000, 0),
        (270_001, 1),
        (540_000, 1),
        (3_240_000, 11),
    ] {
        assert_eq!(pings_for_gap(gap_ms, window_ms), Some(expected), "{gap_ms}");
    }
    assert_eq!(pings_for_gap(1, 0), None);
}

/// Facts section 5.4: five minutes with pings against an hour.
#[test]
fn a_longer_lifetime_is_worth_the_documented_number_of_pings() {
    let worth = |read| pings_per_longer_tier(decimal("1.25"), decimal("2"), decimal(read));
    assert_eq!(worth("0.1"), Some(decimal("7.5")));
    assert_eq!(worth("0.05"), Some(decimal("15")));
    assert_eq!(worth("0"), None);
}

const HOLDINGS: [Holding; 6] = [
    Holding::Handle,
    Holding::Breakpoint {
        lifetime_seconds: 300,
        is_sliding: true,
    },
    Holding::Breakpoint {
        lifetime_seconds: 3600,
        is_sliding: false,
    },
    Holding::Breakpoint {
        lifetime_seconds: 0,
        is_sliding: true,
    },
    Holding::Automatic {
        lifetime_seconds: None,
    },
    Holding::Automatic {
        lifetime_seconds: Some(3600),
    },
];

fn workload(prefix_tokens: u64, question_tokens: u64, life_seconds: Option<u64>) -> Workload {
    Workload {
        prefix_tokens,
        question_tokens,
        answer_tokens: 1_000,
        life_seconds,
    }
}

#[test]
fn a_handle_pays_from_where_reads_earn_storage_and_create() {
    let forever = gemini().estimate(Holding::Handle, &workload(100_000, 1_000, None));
    assert_eq!(forever.create, decimal("0.125"));
    assert_eq!(forever.hold_per_hour, decimal("0.45"));
    assert_eq!(forever.turn_with, decimal("0.02375"));
    assert_eq!(forever.turn_without, decimal("0.13625"));
    assert_eq!(forever.pays_from_turns_per_hour, Some(decimal("4")));

    // For an hour only, (0.125 + 0.45) / 0.1125.
    let hour = gemini().estimate(Holding::Handle, &workload(100_000, 1_000, Some(3600)));
    assert_eq!(
        hour.pays_from_turns_per_hour.unwrap().round_dp(4),
        decimal("5.1111")
    );
    // Ark keeps a begun hour: half an hour costs a whole one, and twice as many turns an hour must earn it.
    let ark = stored(price("6", "30", "1.2", &[]), "0.48", true);
    let half = ark.estimate(Holding::Handle, &workload(1_000_000, 0, Some(1800)));
    assert_eq!(half.pays_from_turns_per_hour, Some(decimal("2.7")));
}

#[test]
fn a_breakpoint_pays_from_where_turns_keep_it_alive() {
    let five_minutes = Holding::Breakpoint {
        lifetime_seconds: 300,
        is_sliding: true,
    };
    let estimate = sonnet().estimate(five_minutes, &workload(100_000, 0, None));
    assert_eq!(estimate.create, decimal("0.25"));
    assert_eq!(estimate.hold_per_hour, Decimal::ZERO);
    assert_eq!(estimate.pays_from_turns_per_hour, Some(decimal("12")));
    // Where it lives no longer than its entry, only the write is to be earned: (2.5 - 0.1) / 1.9 turns in 5 minutes.
    let short = sonnet().estimate(five_minutes, &workload(100_000, 0, Some(300)));
    assert_eq!(
        short.pays_from_turns_per_hour.unwrap().round_dp(4),
        decimal("15.1579")
    );
    // An entry that use does not renew is written once in each lifetime: (4 - 0.1) / 1.9.
    let fixed = Holding::Breakpoint {
        lifetime_seconds: 3600,
        is_sliding: false,
    };
    let estimate = sonnet().estimate(fixed, &workload(100_000, 0, Some(86_400)));
    assert_eq!(
        estimate.pays_from_turns_per_hour.unwrap().round_dp(4),
        decimal("2.0526")
    );
}

#[test]
fn what_costs_nothing_extra_always_pays_and_what_saves_nothing_never_does() {
    let automatic = Holding::Automatic {
        lifetime_seconds: None,
    };
    let free = price("2", "6", "0.5", &[]);
    let estimate = free.estimate(automatic, &workload(1_000, 1_000, Some(3600)));
    assert_eq!(estimate.pays_from_turns_per_hour, Some(Decimal::ZERO));
    // Kimi K3: five minutes at the price of input, an hour at twice that.
    let kimi = price("3", "15", "0.3", &[(300, "3"), (3600, "6")]);
    let lifetime = |seconds| Holding::Automatic {
        lifetime_seconds: Some(seconds),
    };
    let pays = |seconds| {
        kimi.estimate(lifetime(seconds), &workload(1_000, 0, None))
            .pays_from_turns_per_hour
    };
    assert_eq!(pays(300), Some(Decimal::ZERO));
    assert_eq!(pays(3600), Some(Decimal::ONE));

    let no_discount = stored(price("30", "180", "30", &[(300, "37.5")]), "1", false);
    for holding in [Holding::Handle, HOLDINGS[1]] {
        let estimate = no_discount.estimate(holding, &workload(1_000, 0, Some(3600)));
        assert_eq!(estimate.pays_from_turns_per_hour, None, "{holding:?}");
    }
}

prop_compose! {
    fn any_rates()(
        input in 0_i64..100_000,
        output in 0_i64..100_000,
        read in 0_i64..100_000,
        writes in proptest::collection::btree_map(
            prop_oneof![Just(300_u32), Just(1_800), Just(3_600), Just(43_200)],
            0_i64..200_000,
            0..4,
        ),
    ) -> Rates {
        Rates {
            writes: writes
                .into_iter()
                .map(|(seconds, rate)| (seconds, Decimal::new(rate, 4)))
                .collect(),
            ..Rates::new(Decimal::new(input, 4), Decimal::new(output, 4), Decimal::new(read, 4))
        }
    }
}

prop_compose! {
    fn consistent_usage()(
        fresh in 0_u64..9_999,
        read in 0_u64..9_999,
        m5 in 0_u64..9_999,
        h1 in 0_u64..9_999,
        output in 0_u64..9_999,
    ) -> BilledUsage {
        let writes = CacheWrites { m5, h1, ..NO_WRITES };
        usage(fresh + read + m5 + h1, read, writes, output)
    }
}

proptest! {
    /// With rates that are powers of ten far apart, the digits of the cost are the tokens charged at each rate.
    #[test]
    fn each_token_is_charged_once(usage in consistent_usage()) {
        let price = price(
            "1",
            "10000",
            "100000000",
            &[(300, "1000000000000"), (3600, "10000000000000000")],
        );
        let charge = price.charge(&usage, ReadKind::Implicit);
        prop_assert!(charge.is_consistent);
        let millionths = (charge.cost * Decimal::from(1_000_000)).normalize();
        let digits: u128 = millionths.to_string().parse().unwrap();
        let group = |index: u32| u64::try_from(digits / 10_000_u128.pow(index) % 10_000).unwrap();
        prop_assert_eq!(Some(group(0)), usage.fresh_tokens());
        prop_assert_eq!(group(1), usage.output_tokens);
        prop_assert_eq!(group(2), usage.cache_read_tokens);
        prop_assert_eq!(group(3), usage.cache_writes.m5);
        prop_assert_eq!(group(4), usage.cache_writes.h1);
    }

    /// The formula of facts section 5.4, computed another way: by multipliers.
    #[test]
    fn what_is_saved_is_the_reads_less_the_writes(rates in any_rates(), usage in consistent_usage()) {
        let price = Price::flat(Currency::USD, rates);
        let charge = price.charge(&usage, ReadKind::Implicit);
        prop_assert_eq!(charge.saved(), charge.baseline - charge.cost);
        let rates = &price.rates;
        let per_token = |rate: Decimal, tokens: u64| (rates.input - rate) * Decimal::from(tokens);
        let expected = per_token(rates.cached_read, usage.cache_read_tokens)
            + per_token(rates.write(Some(300)), usage.cache_writes.m5)
            + per_token(rates.write(Some(3600)), usage.cache_writes.h1);
        prop_assert_eq!(charge.saved(), expected / Decimal::from(1_000_000));
    }

    /// A write dearer than input loses money in the request that makes it, unless reads earn more.
    #[test]
    fn writes_alone_never_save(usage in consistent_usage()) {
        let alone = BilledUsage {
            input_tokens: usage.input_tokens - usage.cache_read_tokens,
            cache_read_tokens: 0,
            ..usage
        };
        let saved = sonnet().charge(&alone, ReadKind::Explicit).saved();
        prop_assert_eq!(saved < Decimal::ZERO, alone.cache_writes.total() > 0);
    }

    #[test]
    fn contradictions_never_save_and_never_panic(
        rates in any_rates(),
        input in any::<u64>(),
        read in any::<u64>(),
        m30 in any::<u64>(),
        other in any::<u64>(),
        output in any::<u64>(),
    ) {
        let writes = CacheWrites { m30, other, ..NO_WRITES };
        let price = Price::flat(Currency::USD, rates);
        let charge = price.charge(&usage(input, read, writes, output), ReadKind::Implicit);
        let held = u128::from(read) + u128::from(m30) + u128::from(other);
        prop_assert_eq!(charge.is_consistent, held <= u128::from(input));
        if !charge.is_consistent {
            prop_assert!(charge.saved() <= Decimal::ZERO);
        }
    }

    /// At the break-even both ways cost the same; a handle, for its whole life.
    #[test]
    fn a_handle_breaks_even_where_it_says(
        prefix in 1_u64..1_000_000,
        question in 0_u64..10_000,
        life_seconds in 1_u64..604_800,
    ) {
        let price = gemini();
        let estimate = price.estimate(Holding::Handle, &workload(prefix, question, Some(life_seconds)));
        let turns = estimate.pays_from_turns_per_hour.unwrap() * Decimal::from(life_seconds)
            / Decimal::from(3600);
        let with = estimate.create
            + price.storage(prefix, life_seconds * 1000)
            + turns * estimate.turn_with;
        let difference = with - turns * estimate.turn_without;
        prop_assert!(difference.abs() < decimal("0.000000001"), "{}", difference);
    }
}
