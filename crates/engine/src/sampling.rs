//! Choosing the next token from the logits.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use holdfast_protocol::chat::Sampling;

use crate::Token;
use crate::constraint::Constraint;

/// Below this temperature the likeliest token is taken.
const GREEDY_BELOW: f32 = 1e-4;
/// How many of the likeliest tokens `top_p` looks at first.
const NUCLEUS_FIRST: usize = 128;

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: Token,
    /// Natural logarithm of its probability in the model's own distribution; present when asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens of that distribution, best first.
    pub top: Vec<(Token, f32)>,
}

/// Chooses the tokens of one choice.
///
/// Silent settings mean temperature 1 and `top_p` 1, OpenAI's documented defaults.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    /// 0: all of them.
    top_k: usize,
    frequency_penalty: f32,
    presence_penalty: f32,
    logit_bias: Vec<(usize, f32)>,
    random: SplitMix64,
    /// How often each token was generated; prompt tokens do not count.
    generated: HashMap<Token, u32>,
    weights: Vec<f32>,
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler for choice number `choice`. `random_seed` is used when the request names no seed.
    pub fn new(sampling: &Sampling, random_seed: u64, choice: u32) -> Self {
        let seed = sampling.seed.map_or(random_seed, i64::cast_unsigned);
        // Mixing before adding the choice keeps the choices of neighbouring seeds apart.
        let seed = SplitMix64::new(seed)
            .next_u64()
            .wrapping_add(u64::from(choice));
        Sampler {
            temperature: sampling
                .temperature
                .filter(|value| value.is_finite())
                .unwrap_or(1.0),
            top_p: sampling
                .top_p
                .filter(|value| value.is_finite())
                .unwrap_or(1.0),
            top_k: sampling
                .top_k
                .map_or(0, |top_k| usize::try_from(top_k.max(1)).unwrap_or(0)),
            frequency_penalty: sampling
                .frequency_penalty
                .filter(|value| value.is_finite())
                .unwrap_or(0.0),
            presence_penalty: sampling
                .presence_penalty
                .filter(|value| value.is_finite())
                .unwrap_or(0.0),
            logit_bias: sampling
                .logit_bias
                .iter()
                .filter(|(_, bias)| bias.is_finite())
                .map(|(token, bias)| (*token as usize, *bias))
                .collect(),
            random: SplitMix64::new(seed),
            generated: HashMap::new(),
            weights: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// Chooses the next token and counts it as generated. `logits` are changed. The constraint only masks here: the
    /// caller moves it on with the token it gets.
    ///
    /// `logprobs` asks for log probabilities and that many alternatives. They are of the model's own distribution:
    /// before penalties, bias, constraint and temperature, so that they tell what the model believed.
    ///
    /// A logit that is not a number counts as impossible. When no token is possible the result is token 0, which a
    /// constraint then refuses.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        constraint: Option<&mut (dyn Constraint + '_)>,
        logprobs: Option<u8>,
    ) -> Sampled {
        for logit in logits.iter_mut() {
            *logit = if logit.is_nan() {
                f32::NEG_INFINITY
            } else {
                logit.min(f32::MAX)
            };
        }
        let believed = logprobs.map(|count| Believed::new(logits, usize::from(count)));
        let mut original = Vec::new();
        self.penalise(logits, believed.is_some().then_some(&mut original));
        if let Some(constraint) = constraint {
            constraint.mask(logits);
        }
        let index = if self.temperature < GREEDY_BELOW {
            argmax(logits)
        } else {
            self.draw(logits)
        };
        let token = Token::try_from(index).unwrap_or(Token::MAX);
        *self.generated.entry(token).or_default() += 1;
        match believed {
            None => Sampled {
                token,
                logprob: None,
                top: Vec::new(),
            },
            Some(believed) => {
                let logit = original
                    .iter()
                    .find(|(touched, _)| *touched == index)
                    .map(|(_, logit)| *logit)
                    .or_else(|| logits.get(index).copied())
                    .unwrap_or(f32::NEG_INFINITY);
                Sampled {
                    token,
                    logprob: Some(believed.logprob(logit)),
                    top: believed.top,
                }
            }
        }
    }

    /// Applies penalties and bias, and notes the logits they change, each as it was at first.
    fn penalise(&self, logits: &mut [f32], mut original: Option<&mut Vec<(usize, f32)>>) {
        let penalties = (self.frequency_penalty != 0.0 || self.presence_penalty != 0.0)
            .then_some(&self.generated);
        let penalties = penalties
            .into_iter()
            .flatten()
            .filter_map(|(token, count)| {
                let penalty = self.frequency_penalty * *count as f32 + self.presence_penalty;
                Some((usize::try_from(*token).ok()?, -penalty))
            });
        for (index, change) in penalties.chain(self.logit_bias.iter().copied()) {
            let Some(logit) = logits.get_mut(index) else {
                continue;
            };
            if let Some(original) = original.as_deref_mut() {
                original.push((index, *logit));
            }
            *logit += change;
        }
    }

    /// Draws from the distribution after temperature and `top_p`.
    fn draw(&mut self, logits: &[f32]) -> usize {
        let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if best == f32::NEG_INFINITY {
            return 0;
        }
        let scale = self.temperature.recip();
        self.weights.clear();
        self.weights
            .extend(logits.iter().map(|logit| ((logit - best) * scale).exp()));
        if self.top_k > 0 && self.top_k < self.weights.len() {
            self.keep_likeliest();
        }
        let total: f64 = self.weights.iter().map(|weight| f64::from(*weight)).sum();
        if self.top_p >= 1.0 {
            let target = self.random.next_unit() * total;
            return pick(self.weights.iter().copied().enumerate(), target);
        }

        // Tokens this light weigh less than `1 - top_p` all together, so that none of them is in the nucleus.
        let light = (f64::from(1.0 - self.top_p) * total / self.weights.len() as f64) as f32;
        self.candidates.clear();
        self.candidates.extend(
            (0_u32..)
                .zip(self.weights.iter())
                .filter(|(_, weight)| **weight >= light && **weight > 0.0)
                .map(|(id, weight)| (*weight, id)),
        );
        let nucleus = nucleus(&mut self.candidates, f64::from(self.top_p.max(0.0)) * total);
        let mass: f64 = nucleus.iter().map(|(weight, _)| f64::from(*weight)).sum();
        let target = self.random.next_unit() * mass;
        pick(
            nucleus.iter().map(|(weight, id)| (*id as usize, *weight)),
            target,
        )
    }

    /// Takes the weight from all but the `top_k` heaviest tokens; of equals the first ones stay.
    fn keep_likeliest(&mut self) {
        self.candidates.clear();
        self.candidates
            .extend(self.weights.iter().copied().zip(0_u32..));
        let (_, _, light) = self
            .candidates
            .select_nth_unstable_by(self.top_k - 1, |a, b| {
                b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
            });
        for (_, id) in light {
            self.weights[*id as usize] = 0.0;
        }
    }
}

/// The model's own distribution, as far as log probabilities need it.
struct Believed {
    log_total: f64,
    top: Vec<(Token, f32)>,
}

impl Believed {
    fn new(logits: &[f32], count: usize) -> Self {
        let best = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let total: f64 = logits
            .iter()
            .map(|logit| (f64::from(*logit) - best).exp())
            .sum();
        let mut believed = Believed {
            log_total: best + total.ln(),
            top: Vec::with_capacity(count + 1),
        };
        for (index, logit) in logits.iter().enumerate() {
            let full = believed.top.len() == count;
            if full && believed.top.last().is_none_or(|(_, worst)| logit <= worst) {
                continue;
            }
            let at = believed.top.partition_point(|(_, better)| better >= logit);
            believed
                .top
                .insert(at, (Token::try_from(index).unwrap_or(Token::MAX), *logit));
            believed.top.truncate(count);
        }
        for index in 0..believed.top.len() {
            believed.top[index].1 = believed.logprob(believed.top[index].1);
        }
        believed
    }

    /// An impossible token gets the lowest finite number, because JSON has no infinity.
    fn logprob(&self, logit: f32) -> f32 {
        let logprob = (f64::from(logit) - self.log_total) as f32;
        if logprob.is_finite() {
            logprob.min(0.0)
        } else {
            f32::MIN
        }
    }
}

/// The first of the largest.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// The fewest heaviest candidates that weigh at least `mass`, heaviest first, equal ones by id; at least one. Only as
/// many as are needed get sorted.
fn nucleus(candidates: &mut [(f32, u32)], mass: f64) -> &[(f32, u32)] {
    let heavier = |left: &(f32, u32), right: &(f32, u32)| {
        right.0.total_cmp(&left.0).then(left.1.cmp(&right.1))
    };
    let mut sorted = 0;
    let mut sum = 0.0;
    let mut step = NUCLEUS_FIRST;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let step_now = step.min(rest.len());
        if step_now < rest.len() {
            rest.select_nth_unstable_by(step_now - 1, heavier);
        }
        rest[..step_now].sort_unstable_by(heavier);
        for (offset, (weight, _)) in rest[..step_now].iter().enumerate() {
            sum += f64::from(*weight);
            if sum >= mass {
                return &candidates[..=sorted + offset];
            }
        }
        sorted += step_now;
        step *= 4;
    }
    candidates
}

/// The entry in which the running sum passes `target`, or the last possible one when rounding keeps the sum below it.
fn pick(weights: impl Iterator<Item = (usize, f32)>, target: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (index, weight) in weights {
        if weight > 0.0 {
            sum += f64::from(weight);
            last = index;
            if sum > target {
                break;
            }
        }
    }
    last
}

/// SplitMix64 (Steele, Lea, Flood 2014). Written here because a request's `seed` is a promise across releases, and
/// general-purpose generators reserve the right to change their algorithm.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        SplitMix64 { state: seed }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 <= x < 1.
    fn next_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
