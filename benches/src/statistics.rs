//! Medians and percentiles of a few measured values.

use std::time::{Duration, Instant};

/// The middle value, or the mean of the two middle ones; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => 0.0,
        values if values.len() % 2 == 1 => values[middle],
        values => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The smallest value that `percent` of all values do not exceed; 0 of nothing.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// The arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// How far the mean is likely to be off, if the values are independent of each other.
pub fn standard_error(values: &[f64]) -> f64 {
    let mean = mean(values);
    let count = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (count - 1.0).max(1.0) / count.max(1.0)).sqrt()
}

/// The median of durations.
pub fn median_duration(values: &[Duration]) -> Duration {
    let seconds: Vec<f64> = values.iter().map(Duration::as_secs_f64).collect();
    Duration::from_secs_f64(median(&seconds))
}

/// Tokens per second of an answer once it has begun: all but the first, over the time they took.
pub fn decode_rate(arrivals: &[Instant]) -> f64 {
    match (arrivals.first(), arrivals.last()) {
        (Some(first), Some(last)) if last > first => {
            (arrivals.len() - 1) as f64 / (*last - *first).as_secs_f64()
        }
        _ => 0.0,
    }
}

/// Tokens per second of several answers together while all of them run: from the last one's first token to the first
/// one's end. `None` when there is no such time, because one had ended before another began.
pub fn common_rate(answers: &[Vec<Instant>]) -> Option<f64> {
    let from = answers
        .iter()
        .filter_map(|arrivals| arrivals.first())
        .max()?;
    let until = answers
        .iter()
        .filter_map(|arrivals| arrivals.last())
        .min()?;
    let tokens = answers
        .iter()
        .flatten()
        .filter(|at| *at > from && *at <= until)
        .count();
    (until > from).then(|| tokens as f64 / (*until - *from).as_secs_f64())
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_takes_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn percentile_is_a_measured_value() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&values, 99.0), 198.0);
        assert_eq!(percentile(&[7.0], 50.0), 7.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }

    #[test]
    fn rates_count_only_the_time_in_which_tokens_came() {
        let start = Instant::now();
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        assert_eq!(decode_rate(&[at(0), at(1), at(2)]).round(), 10.0);
        // Both run from 0.2 s to 0.4 s: the first one brings two tokens then, the second one two.
        let answers = vec![
            vec![at(0), at(1), at(2), at(3), at(4)],
            vec![at(2), at(3), at(4), at(5)],
        ];
        assert_eq!(common_rate(&answers).map(f64::round), Some(20.0));
        assert_eq!(common_rate(&[vec![at(0), at(1)], vec![at(2)]]), None);
    }
}
