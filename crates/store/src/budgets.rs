//! What projects and keys have spent, and what requests that run may still spend.
//!
//! Spending is counted by day, in the same transaction as the row of the ledger that it comes from: each row once,
//! whatever crashes in between, and the same row takes its request's reservation away.

use async_trait::async_trait;
use holdfast_protocol::UnixMillis;
use holdfast_protocol::price::{Currency, Decimal};
use serde::{Deserialize, Serialize};

use crate::{LedgerRecord, StoreError};

const DAY_MS: i64 = 86_400_000;

/// A day of a spender holds no more than this, trillionths: what is beyond does not count, and nothing overflows.
pub(crate) const DAY_AMOUNT_MAX: i64 = 9_000_000_000_000_000_000;

/// No single row counts for more, trillionths: ten of them fit into a day whatever it holds.
pub(crate) const ROW_AMOUNT_MAX: i64 = 20_000_000_000_000_000;

/// How long it is remembered that a notice has been given, milliseconds: longer than any month.
pub const NOTICE_KEPT_MS: i64 = 62 * DAY_MS;

/// How much a project or a key may spend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// In which time.
    pub period: BudgetPeriod,
    /// Of both limits.
    pub currency: Currency,
    /// Nothing that would spend more is begun.
    pub hard: Option<Decimal>,
    /// Beyond it there are warnings.
    pub soft: Option<Decimal>,
}

/// The time that a budget is for. Days and months are those of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetPeriod {
    /// From midnight to midnight.
    Daily,
    /// From the first of the month on.
    Monthly,
    /// For ever.
    Total,
}

impl BudgetPeriod {
    /// All of them.
    pub const ALL: [BudgetPeriod; 3] = [
        BudgetPeriod::Daily,
        BudgetPeriod::Monthly,
        BudgetPeriod::Total,
    ];

    /// The word in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            BudgetPeriod::Daily => "daily",
            BudgetPeriod::Monthly => "monthly",
            BudgetPeriod::Total => "total",
        }
    }

    /// The period of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.as_str() == word)
    }
}

/// Who spends: a project or a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Spender {
    /// By public id.
    Key(String),
    /// By name.
    Project(String),
}

impl Spender {
    /// As it is stored. Neither names nor ids have a colon.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Spender::Key(id) => format!("key:{id}"),
            Spender::Project(name) => format!("project:{name}"),
        }
    }
}

/// A spender from a day on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Span {
    /// Whose spending.
    pub spender: Spender,
    /// The first day that counts, in days since the Unix epoch; `None`: all.
    pub from_day: Option<i64>,
}

/// What a request that begins may spend, until its row is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Of the row that will say what was spent.
    pub id: String,
    /// The gateway that answers the request; what its process has left behind is released when it starts again.
    pub owner: String,
    /// Who would spend it.
    pub spenders: Vec<Spender>,
    /// Trillionths.
    pub amount: i64,
    /// Of the amount.
    pub currency: Currency,
    /// When it lapses if nobody settles it.
    pub expires_at: UnixMillis,
}

/// Amounts in one currency, trillionths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// ISO 4217 code.
    pub currency: String,
    /// Of the rows in the ledger.
    pub spent: i128,
    /// Of requests that run.
    pub reserved: i128,
}

/// What came of asking for a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// Whether it was made.
    pub is_made: bool,
    /// For each span what there was before, by currency.
    pub tallies: Vec<Vec<Tally>>,
}

/// Decides by the tallies of each span whether a reservation may be made. It may be asked several times.
pub type Allows<'a> = &'a (dyn Fn(&[Vec<Tally>]) -> bool + Send + Sync);

/// Counts spending.
#[async_trait]
pub trait BudgetStore: Send + Sync {
    /// Makes a reservation if `allows` says so of what `spans` have spent and reserved at `now`: nobody else reserves for
    /// these spenders in between. A second one under the same id adds to the first.
    async fn reserve(
        &self,
        reservation: &Reservation,
        spans: &[Span],
        now: UnixMillis,
        allows: Allows<'_>,
    ) -> Result<Reserved, StoreError>;

    /// What `spans` have spent and reserved at `now`, each by currency.
    async fn tallies(&self, spans: &[Span], now: UnixMillis)
    -> Result<Vec<Vec<Tally>>, StoreError>;

    /// Takes back all reservations of an owner whose process has ended; answers how many.
    async fn release_of(&self, owner: &str) -> Result<u64, StoreError>;

    /// Removes reservations that have lapsed at `now`, and forgets notices after [`NOTICE_KEPT_MS`]; answers how many
    /// reservations.
    async fn sweep_reservations(&self, now: UnixMillis) -> Result<u64, StoreError>;

    /// Whether this is the first time that `notice` is given. All who share the store agree on who was first.
    async fn notice_is_new(&self, notice: &str, now: UnixMillis) -> Result<bool, StoreError>;
}

/// What a row of the ledger adds to the spending of its day.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spending {
    pub(crate) spender: String,
    pub(crate) day: i64,
    pub(crate) currency: String,
}

/// What rows add, in the order of spenders, so that of those who add at the same time nobody waits in a circle.
pub(crate) fn spending<'a>(
    rows: impl IntoIterator<Item = &'a LedgerRecord>,
) -> std::collections::BTreeMap<Spending, i64> {
    let mut spending = std::collections::BTreeMap::new();
    for row in rows {
        let amount = row.cost.clamp(0, ROW_AMOUNT_MAX);
        if amount == 0 {
            continue;
        }
        let key = row.key_id.clone().map(Spender::Key);
        for spender in key
            .into_iter()
            .chain([Spender::Project(row.project.clone())])
        {
            let place = Spending {
                spender: spender.to_text(),
                day: row.started_at.div_euclid(DAY_MS),
                currency: row.currency.clone(),
            };
            let sum: &mut i64 = spending.entry(place).or_default();
            *sum = sum.saturating_add(amount).min(DAY_AMOUNT_MAX);
        }
    }
    spending
}

/// Adds amounts to the tally of their currency.
pub(crate) fn add(tallies: &mut Vec<Tally>, currency: &str, spent: i128, reserved: i128) {
    let at = match tallies.iter().position(|tally| tally.currency == currency) {
        Some(at) => at,
        None => {
            tallies.push(Tally {
                currency: currency.to_owned(),
                spent: 0,
                reserved: 0,
            });
            tallies.len() - 1
        }
    };
    tallies[at].spent += spent;
    tallies[at].reserved += reserved;
}

/// Reservations of stores that belong to one process: they end with it, and so do the requests that hold them.
#[derive(Default)]
pub(crate) struct Running {
    by_id: std::collections::HashMap<String, Reservation>,
}

impl Running {
    pub(crate) fn insert(&mut self, reservation: &Reservation) {
        match self.by_id.get_mut(&reservation.id) {
            Some(held) => {
                held.amount = held.amount.saturating_add(reservation.amount);
                held.expires_at = held.expires_at.max(reservation.expires_at);
            }
            None => {
                self.by_id
                    .insert(reservation.id.clone(), reservation.clone());
            }
        }
    }

    pub(crate) fn settle<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        for id in ids {
            self.by_id.remove(id);
        }
    }

    pub(crate) fn release_of(&mut self, owner: &str) -> u64 {
        self.remove(|reservation| reservation.owner == owner)
    }

    pub(crate) fn sweep(&mut self, now: UnixMillis) -> u64 {
        self.remove(|reservation| reservation.expires_at <= now)
    }

    fn remove(&mut self, is_over: impl Fn(&Reservation) -> bool) -> u64 {
        let before = self.by_id.len();
        self.by_id.retain(|_, reservation| !is_over(reservation));
        (before - self.by_id.len()) as u64
    }

    /// Adds what is reserved for a spender to its tallies.
    pub(crate) fn add_to(&self, tallies: &mut Vec<Tally>, spender: &Spender, now: UnixMillis) {
        for reservation in self.by_id.values() {
            if reservation.expires_at > now && reservation.spenders.contains(spender) {
                let code = reservation.currency.to_string();
                add(tallies, &code, 0, i128::from(reservation.amount));
            }
        }
    }
}
