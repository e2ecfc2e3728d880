//! What the databases' statements about the ledger have in common.

use super::GroupBy;

/// Every field of a row, in the order in which rows are written.
pub(crate) const COLUMNS: &str = "id, kind, project, key_id, surface, endpoint, model, requested_model, upstream, upstream_model, \
     context, answer, request, started_at, first_token_ms, total_ms, stream, outcome, error, finish_reason, \
     input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_30m_tokens, cache_write_1h_tokens, \
     cache_write_12h_tokens, cache_write_other_tokens, output_tokens, reasoning_tokens, usage_source, cost, saved, \
     currency, cost_source, cache_status, cache_reason";

/// How many rows of a group are what. A row without a key is nobody's request.
pub(crate) const COUNTS: &str = "count(key_id) AS requests, \
     count(CASE WHEN outcome = 'completed' THEN key_id END) AS completed, \
     count(CASE WHEN outcome = 'cancelled' THEN key_id END) AS cancelled, \
     count(CASE WHEN outcome = 'failed' THEN key_id END) AS failed, \
     count(CASE WHEN outcome = 'refused' THEN key_id END) AS refused, \
     count(CASE WHEN cache_status = 'hit' THEN key_id END) AS hits, \
     count(CASE WHEN cache_status = 'rebuilt' THEN key_id END) AS rebuilds, \
     count(CASE WHEN cache_status = 'miss' THEN key_id END) AS misses, \
     count(CASE WHEN cache_status = 'degraded' THEN key_id END) AS degraded, \
     count(CASE WHEN usage_source = 'estimate' THEN 1 END) AS estimated";

/// What a row is grouped by. Rows are of the present, so that times are not negative.
pub(crate) fn key_expression(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Day => "started_at - started_at % 86400000",
        GroupBy::Hour => "started_at - started_at % 3600000",
        GroupBy::Project => "project",
        GroupBy::Key => "coalesce(key_id, '')",
        GroupBy::Model => "model",
        GroupBy::Upstream => "coalesce(upstream, '')",
        GroupBy::Context => "coalesce(context, '')",
    }
}
