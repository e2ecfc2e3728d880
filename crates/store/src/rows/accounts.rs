//! Rows to accounts.

use super::Columns;
use crate::StoreError;
use crate::upstreams::{Account, AccountRecord};

pub(crate) fn account(row: &impl Columns) -> Result<AccountRecord, StoreError> {
    Ok(AccountRecord {
        totals: Account {
            requests: row.count("requests")?,
            hits: row.count("hits")?,
            rebuilds: row.count("rebuilds")?,
            misses: row.count("misses")?,
            degraded: row.count("degraded")?,
            input_tokens: row.count("input_tokens")?,
            cache_read_tokens: row.count("cache_read_tokens")?,
            cache_write_tokens: row.count("cache_write_tokens")?,
            output_tokens: row.count("output_tokens")?,
            pings: row.count("pings")?,
            cost: row.number("cost")?,
            ping_cost: row.number("ping_cost")?,
            storage_cost: row.number("storage_cost")?,
            saved: row.number("saved")?,
        },
        currency: row.word("currency")?,
        home: row.optional_word("home")?,
        last_used_at: row.optional_number("last_used_at")?,
    })
}
