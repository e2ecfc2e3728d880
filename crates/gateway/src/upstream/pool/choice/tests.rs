#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// The tightest there is.
const BOUND: Bound = Bound {
    factor: 1.0,
    least: 1,
};

fn digest(number: u64) -> Digest {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("gpu-{number}:8000"))
        .collect()
}

/// The name that wins.
fn first<'a>(digest: &Digest, workers: &'a [(String, f64)]) -> &'a str {
    let order = order(
        digest,
        workers
            .iter()
            .map(|(name, weight)| (name.as_str(), *weight)),
    );
    &workers[order[0]].0
}

fn workers() -> impl Strategy<Value = Vec<(String, f64)>> {
    prop::collection::vec(0.1_f64..10.0, 2..24)
        .prop_map(|weights| names(weights.len()).into_iter().zip(weights).collect())
}

#[test]
fn the_order_is_the_same_in_every_process_and_release() {
    let names = names(5);
    let workers = || names.iter().map(|name| (name.as_str(), 1.0));
    let orders: Vec<Vec<usize>> = (0..3).map(|key| order(&digest(key), workers())).collect();
    assert_eq!(
        orders,
        [[3, 2, 0, 1, 4], [4, 0, 2, 1, 3], [1, 4, 0, 3, 2]],
        "caches of running fleets would move"
    );
}

#[test]
fn keys_are_shared_out_by_weight() {
    const KEYS: u64 = 40_000;
    let weights = [1.0, 1.0, 2.0, 4.0, 0.5];
    let workers: Vec<(String, f64)> = names(5).into_iter().zip(weights).collect();
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for key in 0..KEYS {
        *counts.entry(first(&digest(key), &workers)).or_default() += 1;
    }
    let total: f64 = weights.iter().sum();
    for (name, weight) in &workers {
        let expected = KEYS as f64 * weight / total;
        // Four standard deviations; the keys are fixed, so that this holds always or never.
        let tolerance = 4.0 * (expected * (1.0 - weight / total)).sqrt();
        let count = counts[name.as_str()] as f64;
        assert!(
            (count - expected).abs() < tolerance,
            "{name}: {count} instead of {expected}"
        );
    }
}

proptest! {
    #[test]
    fn a_worker_that_goes_moves_only_its_own_keys(
        workers in workers(), gone in any::<prop::sample::Index>(), keys in 0_u64..1000,
    ) {
        let gone = gone.index(workers.len());
        let mut left = workers.clone();
        let (name, _) = left.remove(gone);
        for key in keys..keys + 50 {
            let before = first(&digest(key), &workers);
            if before != name {
                prop_assert_eq!(before, first(&digest(key), &left));
            }
        }
    }

    #[test]
    fn the_order_does_not_depend_on_the_order_of_the_configuration(
        workers in workers(), key in any::<u64>(),
    ) {
        let mut turned = workers.clone();
        turned.reverse();
        let by_name = |workers: &[(String, f64)]| -> Vec<String> {
            let order = order(
                &digest(key),
                workers.iter().map(|(name, weight)| (name.as_str(), *weight)),
            );
            order.into_iter().map(|index| workers[index].0.clone()).collect()
        };
        prop_assert_eq!(by_name(&workers), by_name(&turned));
    }

    /// Requests come and go at random; at each that comes, whoever gets it is within the bound of that moment.
    #[test]
    fn no_worker_is_given_more_than_its_bound(
        workers in workers(),
        factor in 1.0_f64..2.0,
        least in 1_u64..4,
        steps in prop::collection::vec((0_u64..4, any::<bool>(), any::<prop::sample::Index>()), 1..200),
    ) {
        let mut loads: Vec<Load> = workers
            .iter()
            .map(|(_, weight)| Load { weight: *weight, in_flight: 0, has_room: true })
            .collect();
        let weight_total: f64 = loads.iter().map(|load| load.weight).sum();
        for (key, ends, which) in steps {
            if ends {
                let at = which.index(loads.len());
                loads[at].in_flight = loads[at].in_flight.saturating_sub(1);
                continue;
            }
            let total: u64 = loads.iter().map(|load| load.in_flight).sum();
            let order = order(
                &digest(key),
                workers.iter().map(|(name, weight)| (name.as_str(), *weight)),
            );
            let choice = choose(&order, &loads, Bound { factor, least }).unwrap();
            prop_assert_eq!(choice.is_moved, choice.index != order[0]);
            let load = &mut loads[choice.index];
            load.in_flight += 1;
            let most = Bound { factor, least }.of(total, load.weight, weight_total);
            prop_assert!(load.in_flight <= most, "{} > {most}", load.in_flight);
        }
    }
}

#[test]
fn a_key_in_demand_spreads_in_its_own_order() {
    let names = names(4);
    let order = order(&digest(9), names.iter().map(|name| (name.as_str(), 1.0)));
    let mut loads = vec![
        Load {
            weight: 1.0,
            in_flight: 0,
            has_room: true,
        };
        4
    ];
    let mut asked = Vec::new();
    for _ in 0..4 {
        let choice = choose(&order, &loads, BOUND).unwrap();
        loads[choice.index].in_flight += 1;
        asked.push(choice.index);
    }
    assert_eq!(asked, order, "with few requests nobody has two");
}

#[test]
fn whoever_has_no_room_is_passed_over_and_waited_for_only_if_nobody_has() {
    let load = |has_room| Load {
        weight: 1.0,
        in_flight: 0,
        has_room,
    };
    let choice = choose(&[0, 1], &[load(false), load(true)], BOUND).unwrap();
    assert_eq!((choice.index, choice.is_moved), (1, true));
    let choice = choose(&[0, 1], &[load(false), load(false)], BOUND).unwrap();
    assert_eq!((choice.index, choice.is_moved), (0, false));
    assert_eq!(choose(&[], &[], BOUND), None);
}

#[test]
fn what_has_no_key_goes_where_the_least_is_under_way_for_its_weight() {
    let load = |weight, in_flight| Load {
        weight,
        in_flight,
        has_room: true,
    };
    let loads = [load(1.0, 1), load(4.0, 3), load(1.0, 2)];
    assert_eq!(least(&[0, 1, 2], &loads).unwrap().index, 1);
    let equal = [load(1.0, 0), load(1.0, 0)];
    assert_eq!(least(&[1, 0], &equal).unwrap().index, 1);
}
