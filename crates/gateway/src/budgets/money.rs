//! Amounts in several currencies.

use std::collections::BTreeMap;

use holdfast_protocol::price::{Currency, Decimal};
use rust_decimal::prelude::ToPrimitive;

/// Decimals of the amounts in the ledger.
const SCALE: u32 = 12;

/// What one unit of each currency is worth in US dollars. A dollar is worth one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates(BTreeMap<String, Decimal>);

impl Rates {
    /// By code; each above zero.
    pub fn new(rates: impl IntoIterator<Item = (Currency, Decimal)>) -> Self {
        let rates = rates.into_iter().filter(|(_, rate)| *rate > Decimal::ZERO);
        Rates(rates.map(|(code, rate)| (code.to_string(), rate)).collect())
    }

    fn rate(&self, code: &str) -> Option<Decimal> {
        if code == "USD" {
            return Some(Decimal::ONE);
        }
        self.0.get(code).copied()
    }

    /// `None` without a rate between them.
    pub(super) fn convert(&self, amount: Decimal, from: &str, to: Currency) -> Option<Decimal> {
        let to = to.to_string();
        if from == to {
            return Some(amount);
        }
        let dollars = amount.checked_mul(self.rate(from)?)?;
        dollars.checked_div(self.rate(&to)?)
    }

    /// The sum of amounts in trillionths, or the currency that has no rate.
    pub(super) fn sum<'a>(
        &self,
        amounts: impl IntoIterator<Item = (&'a str, i128)>,
        in_currency: Currency,
    ) -> Result<Decimal, String> {
        let mut sum = Decimal::ZERO;
        for (from, trillionths) in amounts {
            // What is nothing is nothing in every currency.
            if trillionths == 0 {
                continue;
            }
            let converted = self.convert(amount(trillionths), from, in_currency);
            sum = sum.saturating_add(converted.ok_or_else(|| from.to_owned())?);
        }
        Ok(sum)
    }

    /// The largest of several costs. One that can't be compared counts as the largest, so that whoever checks it sees
    /// that it can't be converted.
    pub(super) fn dearest(&self, costs: &[(Currency, Decimal)]) -> Option<(Currency, Decimal)> {
        let (first, _) = costs.first()?;
        if costs.iter().all(|(currency, _)| currency == first) {
            return costs.iter().copied().max_by_key(|(_, cost)| *cost);
        }
        let in_dollars = |(currency, cost): &(Currency, Decimal)| {
            self.convert(*cost, &currency.to_string(), Currency::USD)
                .unwrap_or(Decimal::MAX)
        };
        costs.iter().copied().max_by_key(in_dollars)
    }
}

/// What trillionths stand for. Sums are far below what a decimal holds; one that is not counts as the largest.
pub(super) fn amount(trillionths: i128) -> Decimal {
    Decimal::try_from_i128_with_scale(trillionths, SCALE).unwrap_or(Decimal::MAX)
}

/// Rounded up, so that what is reserved covers what it is for.
pub(super) fn trillionths(amount: Decimal) -> i64 {
    let scaled = amount.checked_mul(Decimal::from(10_i64.pow(SCALE)));
    scaled
        .and_then(|scaled| scaled.ceil().to_i64())
        .unwrap_or(i64::MAX)
}
