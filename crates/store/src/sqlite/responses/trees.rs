//! The trees that responses form, and how what nobody needs any more leaves them.
//!
//! A row goes in two steps. When its response ends, all but its messages is removed and it is marked as `kept`; then
//! kept rows that nothing continues from are deleted, and those before them that were kept only for these. So every
//! kept row has one that continues from it, and nobody needs to look for those left over.

use std::collections::HashSet;

use holdfast_protocol::UnixMillis;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::failure;
use crate::StoreError;

/// Where a response is.
pub(super) struct Place {
    pub(super) sequence: i64,
    /// The first response of its tree.
    pub(super) tree: i64,
}

/// The response, if it is there for this project.
pub(super) async fn living(
    connection: &mut SqliteConnection,
    project: &str,
    id: &str,
    now: UnixMillis,
) -> Result<Place, StoreError> {
    let row = sqlx::query(
        "SELECT sequence, coalesce(tree, sequence) AS tree FROM responses \
         WHERE id = ? AND project = ? AND kept = 0 AND expires_at > ?",
    )
    .bind(id)
    .bind(project)
    .bind(now)
    .fetch_optional(connection)
    .await
    .map_err(failure)?
    .ok_or(StoreError::NotFound)?;
    Ok(Place {
        sequence: row.try_get("sequence").map_err(failure)?,
        tree: row.try_get("tree").map_err(failure)?,
    })
}

/// Ends a response, and those in its tree that wait for the sweep: else one of them might hold its messages.
pub(super) async fn end_with_expired(
    connection: &mut SqliteConnection,
    response: &Place,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let rows = sqlx::query(
        "UPDATE responses SET kept = 1, bytes = length(messages) - iif(substr(messages, 1, 1) = x'ff', 50, 0), input = x'', body = x'' WHERE sequence IN ( \
           SELECT ?1 UNION \
           SELECT sequence FROM responses WHERE tree = ?2 AND kept = 0 AND expires_at <= ?3 UNION \
           SELECT sequence FROM responses WHERE sequence = ?2 AND kept = 0 AND expires_at <= ?3) \
         RETURNING sequence",
    )
    .bind(response.sequence)
    .bind(response.tree)
    .bind(now)
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    leave(connection, &sequences(&rows)?, now).await
}

/// Ends at most `limit` responses that have expired; returns how many.
pub(super) async fn end_expired(
    connection: &mut SqliteConnection,
    now: UnixMillis,
    limit: u64,
) -> Result<u64, StoreError> {
    let rows = sqlx::query(
        "UPDATE responses SET kept = 1, bytes = length(messages) - iif(substr(messages, 1, 1) = x'ff', 50, 0), input = x'', body = x'' WHERE sequence IN ( \
           SELECT sequence FROM responses WHERE kept = 0 AND expires_at <= ? ORDER BY expires_at, id LIMIT ?) \
         RETURNING sequence",
    )
    .bind(now)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await
    .map_err(failure)?;
    leave(connection, &sequences(&rows)?, now).await?;
    Ok(rows.len() as u64)
}

/// What follows from the end of responses that are marked as `kept` by now.
async fn leave(
    connection: &mut SqliteConnection,
    ended: &[i64],
    now: UnixMillis,
) -> Result<(), StoreError> {
    move_heads(connection, ended, now).await?;
    let mut candidates = ended.to_vec();
    while !candidates.is_empty() {
        candidates = delete_unneeded(connection, &candidates).await?;
    }
    Ok(())
}

/// Conversations whose head is among `ended` go back to the nearest response before it that lives.
async fn move_heads(
    connection: &mut SqliteConnection,
    ended: &[i64],
    now: UnixMillis,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE conversations SET head = ( \
           WITH RECURSIVE back (sequence, previous, gone) AS ( \
             SELECT sequence, previous, kept = 1 OR expires_at <= ?2 FROM responses \
             WHERE sequence = conversations.head \
             UNION ALL \
             SELECT r.sequence, r.previous, r.kept = 1 OR r.expires_at <= ?2 \
             FROM back JOIN responses AS r ON r.sequence = back.previous WHERE back.gone) \
           SELECT sequence FROM back WHERE NOT gone) \
         WHERE head IN (SELECT value FROM json_each(?1))",
    )
    .bind(list(ended))
    .bind(now)
    .execute(connection)
    .await
    .map_err(failure)?;
    Ok(())
}

/// Deletes those of the kept `candidates` that nothing continues from, with those before them up to where something
/// else continues. Returns what may be unneeded now because several of its continuations went.
async fn delete_unneeded(
    connection: &mut SqliteConnection,
    candidates: &[i64],
) -> Result<Vec<i64>, StoreError> {
    let rows = sqlx::query(
        "DELETE FROM responses WHERE sequence IN ( \
           WITH RECURSIVE unneeded (sequence, previous) AS ( \
             SELECT sequence, previous FROM responses AS r \
             WHERE sequence IN (SELECT value FROM json_each(?)) AND kept = 1 \
               AND NOT EXISTS (SELECT 1 FROM responses AS other WHERE other.previous = r.sequence) \
             UNION ALL \
             SELECT r.sequence, r.previous \
             FROM unneeded JOIN responses AS r ON r.sequence = unneeded.previous \
             WHERE r.kept = 1 AND NOT EXISTS ( \
               SELECT 1 FROM responses AS other \
               WHERE other.previous = r.sequence AND other.sequence <> unneeded.sequence)) \
           SELECT sequence FROM unneeded) \
         RETURNING sequence, previous",
    )
    .bind(list(candidates))
    .fetch_all(connection)
    .await
    .map_err(failure)?;
    let deleted: HashSet<i64> = sequences(&rows)?.into_iter().collect();
    let mut before = HashSet::new();
    for row in &rows {
        before.extend(row.try_get::<Option<i64>, _>("previous").map_err(failure)?);
    }
    Ok(before.difference(&deleted).copied().collect())
}

fn sequences(rows: &[SqliteRow]) -> Result<Vec<i64>, StoreError> {
    rows.iter()
        .map(|row| row.try_get("sequence").map_err(failure))
        .collect()
}

/// As JSON, because a statement takes a fixed number of values.
fn list(sequences: &[i64]) -> String {
    let numbers: Vec<String> = sequences.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(","))
}
