#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::error::EngineError;

fn sampler(sampling: &Sampling) -> Sampler {
    Sampler::new(sampling, 7, 0)
}

fn greedy() -> Sampling {
    Sampling {
        temperature: Some(0.0),
        ..Sampling::default()
    }
}

fn tokens(sampler: &mut Sampler, logits: &[f32], count: usize) -> Vec<Token> {
    (0..count)
        .map(|_| sampler.sample(&mut logits.to_vec(), None, None).token)
        .collect()
}

/// Allows only some tokens.
struct Only(Vec<usize>);

impl Constraint for Only {
    fn mask(&mut self, logits: &mut [f32]) {
        for (index, logit) in logits.iter_mut().enumerate() {
            if !self.0.contains(&index) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn accept(&mut self, _token: Token) -> Result<(), EngineError> {
        Ok(())
    }

    fn is_complete(&self) -> bool {
        false
    }
}

#[test]
fn temperature_zero_takes_the_first_of_the_likeliest() {
    let mut sampler = sampler(&greedy());
    assert_eq!(
        sampler.sample(&mut [1.0, 3.0, 3.0, 2.0], None, None).token,
        1
    );
}

#[test]
fn values_that_are_not_numbers_are_never_chosen() {
    let logits = [f32::NAN, 1.0, f32::NAN, f32::NEG_INFINITY];
    assert_eq!(tokens(&mut sampler(&greedy()), &logits, 1), [1]);
    assert_eq!(
        tokens(&mut sampler(&Sampling::default()), &logits, 50),
        [1; 50]
    );
    let nucleus = Sampling {
        top_p: Some(0.9),
        ..Sampling::default()
    };
    assert_eq!(tokens(&mut sampler(&nucleus), &logits, 50), [1; 50]);
    assert_eq!(tokens(&mut sampler(&nucleus), &[f32::NAN; 3], 1), [0]);
    assert_eq!(
        tokens(
            &mut sampler(&Sampling::default()),
            &[0.0, f32::INFINITY],
            20
        ),
        [1; 20]
    );
}

#[test]
fn a_seed_decides_the_answer_and_choices_differ() {
    let logits: Vec<f32> = (0..1000).map(|index| (index % 17) as f32 / 4.0).collect();
    let seeded = Sampling {
        seed: Some(-3),
        ..Sampling::default()
    };
    let first = tokens(&mut Sampler::new(&seeded, 1, 0), &logits, 20);
    assert_eq!(first, tokens(&mut Sampler::new(&seeded, 2, 0), &logits, 20));
    assert_ne!(first, tokens(&mut Sampler::new(&seeded, 1, 1), &logits, 20));
    let unseeded = Sampling::default();
    let random = tokens(&mut Sampler::new(&unseeded, 1, 0), &logits, 20);
    assert_ne!(
        random,
        tokens(&mut Sampler::new(&unseeded, 2, 0), &logits, 20)
    );
}

#[test]
fn the_generator_is_the_published_one() {
    // The first outputs for seed 1234567, as published with the algorithm.
    let mut random = SplitMix64::new(1_234_567);
    let outputs = [random.next_u64(), random.next_u64(), random.next_u64()];
    assert_eq!(
        outputs,
        [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423
        ]
    );
}

#[test]
fn tokens_are_drawn_as_often_as_their_probability_says() {
    let probabilities = [0.5_f32, 0.3, 0.15, 0.05];
    let logits = probabilities.map(f32::ln);
    for (temperature, expected) in [
        (1.0, probabilities),
        (0.5, [0.6849, 0.2466, 0.0616, 0.0068]),
    ] {
        let sampling = Sampling {
            temperature: Some(temperature),
            seed: Some(5),
            ..Sampling::default()
        };
        let drawn = tokens(&mut sampler(&sampling), &logits, 20_000);
        for (token, expected) in expected.into_iter().enumerate() {
            let share = drawn
                .iter()
                .filter(|drawn| **drawn == token as Token)
                .count() as f32
                / 20_000.0;
            assert!(
                (share - expected).abs() < 0.015,
                "temperature {temperature}, token {token}: {share}"
            );
        }
    }
}

#[test]
fn top_p_keeps_the_fewest_tokens_that_reach_it() {
    let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
    for (top_p, kept) in [(0.0, 1), (0.4, 1), (0.6, 2), (0.85, 3), (0.99, 4), (1.0, 4)] {
        let sampling = Sampling {
            top_p: Some(top_p),
            seed: Some(1),
            ..Sampling::default()
        };
        let drawn = tokens(&mut sampler(&sampling), &logits, 2000);
        let distinct: std::collections::BTreeSet<Token> = drawn.into_iter().collect();
        assert_eq!(distinct, (0..kept).collect(), "top_p {top_p}");
    }
}

#[test]
fn the_nucleus_is_what_sorting_everything_gives() {
    let mut random = SplitMix64::new(3);
    for round in 0..200 {
        let count = 1 + random.next_u64() % 3000;
        // Few distinct weights in every other round, so that ties decide.
        let weight = |random: &mut SplitMix64| match round % 2 {
            0 => random.next_unit() as f32,
            _ => (random.next_u64() % 4) as f32 + 0.5,
        };
        let mut candidates: Vec<(f32, u32)> = (0..count as u32)
            .map(|id| (weight(&mut random), id))
            .collect();
        let total: f64 = candidates
            .iter()
            .map(|(weight, _)| f64::from(*weight))
            .sum();
        let mass = random.next_unit() * total;

        let mut sorted = candidates.clone();
        sorted.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
        let mut sum = 0.0;
        let length = sorted.iter().position(|(weight, _)| {
            sum += f64::from(*weight);
            sum >= mass
        });
        sorted.truncate(length.map_or(sorted.len(), |length| length + 1));
        assert_eq!(nucleus(&mut candidates, mass), sorted);
    }
}

#[test]
fn a_large_vocabulary_under_top_p_yields_only_nucleus_tokens() {
    let mut logits = vec![-8.0_f32; 50_000];
    logits[123] = 6.0;
    logits[45_678] = 5.0;
    let sampling = Sampling {
        top_p: Some(0.9),
        seed: Some(9),
        ..Sampling::default()
    };
    let drawn = tokens(&mut sampler(&sampling), &logits, 200);
    assert!(drawn.iter().all(|token| [123, 45_678].contains(token)));
    assert!(drawn.contains(&123) && drawn.contains(&45_678));
}

#[test]
fn penalties_count_generated_tokens_only() {
    let sampling = Sampling {
        frequency_penalty: Some(0.6),
        presence_penalty: Some(0.5),
        ..greedy()
    };
    let mut sampler = sampler(&sampling);
    let logits = [3.0, 2.0, 0.0];
    // Token 0 goes from 3.0 to 1.9, 1.3 and 0.7 as it is generated, token 1 from 2.0 to 0.9.
    assert_eq!(tokens(&mut sampler, &logits, 5), [0, 1, 0, 0, 1]);
}

#[test]
fn bias_forces_and_forbids() {
    let sampling = Sampling {
        logit_bias: vec![(0, -100.0), (2, 100.0), (99, 5.0)],
        ..greedy()
    };
    assert_eq!(
        sampler(&sampling)
            .sample(&mut [5.0, 4.0, 1.0], None, None)
            .token,
        2
    );
}

#[test]
fn a_constraint_outranks_bias() {
    let sampling = Sampling {
        logit_bias: vec![(2, 100.0)],
        ..Sampling::default()
    };
    let mut constraint = Only(vec![1]);
    assert_eq!(
        sampler(&sampling)
            .sample(&mut [5.0, 4.0, 1.0], Some(&mut constraint), None)
            .token,
        1
    );
}

#[test]
fn log_probabilities_are_the_models_own() {
    let sampling = Sampling {
        logit_bias: vec![(2, 100.0)],
        temperature: Some(0.3),
        ..Sampling::default()
    };
    let logits = [0.5_f32, 0.2, 0.1, 0.2].map(f32::ln);
    let sampled = sampler(&sampling).sample(&mut logits.clone(), None, Some(3));
    assert_eq!(sampled.token, 2);
    assert!((sampled.logprob.unwrap() - 0.1_f32.ln()).abs() < 1e-5);
    let ids: Vec<Token> = sampled.top.iter().map(|(token, _)| *token).collect();
    assert_eq!(ids, [0, 1, 3]);
    assert!((sampled.top[0].1 - 0.5_f32.ln()).abs() < 1e-5);
    let none = sampler(&sampling).sample(&mut logits.clone(), None, Some(0));
    assert!(none.logprob.is_some() && none.top.is_empty());
    assert_eq!(
        sampler(&sampling)
            .sample(&mut logits.clone(), None, None)
            .logprob,
        None
    );
}

#[test]
fn the_log_probability_of_an_impossible_token_is_a_number() {
    let sampled = sampler(&greedy()).sample(&mut [0.0, f32::NEG_INFINITY], None, Some(2));
    assert_eq!(sampled.logprob, Some(0.0));
    assert_eq!(sampled.top, [(0, 0.0), (1, f32::MIN)]);
}

#[test]
fn top_k_draws_from_the_likeliest_only() {
    let sampling = |top_k| Sampling {
        top_k: Some(top_k),
        ..Sampling::default()
    };
    let logits = [1.0, 3.0, 2.0, 3.0, -1.0];
    let drawn = |top_k| {
        let mut tokens = tokens(&mut sampler(&sampling(top_k)), &logits, 400);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    };
    assert_eq!(drawn(1), [1]);
    assert_eq!(drawn(2), [1, 3]);
    assert_eq!(drawn(3), [1, 2, 3]);
    assert_eq!(drawn(5), [0, 1, 2, 3, 4]);
    assert_eq!(drawn(u32::MAX), [0, 1, 2, 3, 4]);
}
