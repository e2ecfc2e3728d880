//! One budget at a time: which days count, when it begins anew, and how it is called.

use holdfast_protocol::UnixMillis;
use holdfast_protocol::price::{Currency, Decimal};
use holdfast_store::{Budget, BudgetPeriod, Span, Spender};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Payer, shown};

/// The days that count for a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    /// In days since the Unix epoch; `None`: all that were.
    pub(crate) from_day: Option<i64>,
    /// When it begins anew.
    pub(crate) until: Option<UnixMillis>,
}

impl Period {
    /// The period in which `now` is.
    pub(crate) fn of(period: BudgetPeriod, now: UnixMillis) -> Self {
        let none = Period {
            from_day: None,
            until: None,
        };
        let Ok(now) = Timestamp::from_millisecond(now) else {
            return none;
        };
        let today = now.to_zoned(TimeZone::UTC).date();
        let (first, next) = match period {
            BudgetPeriod::Total => return none,
            BudgetPeriod::Daily => (today, today.tomorrow().ok()),
            BudgetPeriod::Monthly => {
                let last = today.last_of_month();
                (today.first_of_month(), last.tomorrow().ok())
            }
        };
        Period {
            from_day: midnight(first).map(|at| at.div_euclid(86_400_000)),
            until: next.and_then(midnight),
        }
    }
}

fn midnight(date: Date) -> Option<UnixMillis> {
    let zoned = date.to_zoned(TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond())
}

/// A budget at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) span: Span,
    pub(crate) period: BudgetPeriod,
    pub(crate) until: Option<UnixMillis>,
    pub(crate) currency: Currency,
    pub(crate) hard: Option<Decimal>,
    pub(crate) soft: Option<Decimal>,
}

impl Standing {
    pub(crate) fn of(spender: Spender, budget: &Budget, now: UnixMillis) -> Self {
        let Period { from_day, until } = Period::of(budget.period, now);
        Standing {
            span: Span { spender, from_day },
            period: budget.period,
            until,
            currency: budget.currency,
            hard: budget.hard,
            soft: budget.soft,
        }
    }

    pub(crate) fn is_of_key(&self) -> bool {
        matches!(self.span.spender, Spender::Key(_))
    }

    fn whose(&self) -> &'static str {
        match self.is_of_key() {
            true => "key",
            false => "project",
        }
    }

    /// As in a sentence.
    pub(super) fn name(&self) -> String {
        format!("the {}'s {} budget", self.whose(), self.period.as_str())
    }

    pub(super) fn when_again(&self) -> String {
        let until = self
            .until
            .and_then(|until| Timestamp::from_millisecond(until).ok());
        until.map_or_else(String::new, |until| format!(" It begins anew at {until}."))
    }

    /// The value of the warning header.
    pub(super) fn warning(&self, spent: Decimal) -> String {
        let limit = |word: &str, amount: Option<Decimal>| {
            amount.map_or_else(String::new, |amount| format!("; {word}={}", shown(amount)))
        };
        format!(
            "{} {}; currency={}; spent={}{}{}",
            self.whose(),
            self.period.as_str(),
            self.currency,
            shown(spent),
            limit("soft", self.soft),
            limit("hard", self.hard),
        )
    }

    /// What names the event, so that it is told once in each period, and again after the limit has been changed.
    pub(super) fn notice(&self, is_refusal: bool) -> String {
        let spender = match &self.span.spender {
            Spender::Key(id) => format!("key:{id}"),
            Spender::Project(name) => format!("project:{name}"),
        };
        let (word, limit) = match is_refusal {
            true => ("hard", self.hard),
            false => ("soft", self.soft),
        };
        format!(
            "budget {word} {spender} {} {} {} {}",
            self.period.as_str(),
            self.span.from_day.unwrap_or_default(),
            self.currency,
            limit.unwrap_or_default().normalize(),
        )
    }

    /// What receivers of the event are told.
    pub(super) fn event(&self, payer: &Payer) -> Value {
        let key = self.is_of_key().then_some(payer.key_id.as_str());
        json!({
            "project": payer.project,
            "key": key,
            "period": self.period.as_str(),
            "currency": self.currency.to_string(),
            "soft_limit": self.soft.map(|amount| amount.normalize().to_string()),
            "limit": self.hard.map(|amount| amount.normalize().to_string()),
        })
    }
}
