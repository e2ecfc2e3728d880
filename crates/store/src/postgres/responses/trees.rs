//! The trees that responses form, and how what nobody needs any more leaves them.
//!
//! A row goes in two steps. When its response ends, all but its messages is removed and it is marked as `kept`; then
//! kept rows that nothing continues from are deleted, and those before them that were kept only for these. So every
//! kept row has one that continues from it, and nobody needs to look for those left over.

use std::collections::HashSet;

use holdfast_protocol::UnixMillis;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::StoreError;
use crate::postgres::failure::Failure;

/// Where a response is.
pub(super) struct Place {
    pub(super) sequence: i64,
    /// The first response of its tree.
    pub(super) tree: i64,
}

/// Waits until nobody else changes the tree that the response is in. Either may be gone by then.
pub(super) async fn lock_tree_of(
    connection: &mut PgConnection,
    project: &str,
    id: &str,
) -> Result<(), Failure> {
    sqlx::query(
        "SELECT 1 FROM responses WHERE sequence = \
         (SELECT coalesce(tree, sequence) FROM responses WHERE id = $1 AND project = $2) FOR UPDATE",
    )
    .bind(id)
    .bind(project)
    .execute(connection)
    .await?;
    Ok(())
}

/// The response, if it is there for this project.
pub(super) async fn living(
    connection: &mut PgConnection,
    project: &str,
    id: &str,
    now: UnixMillis,
) -> Result<Place, Failure> {
    let row = sqlx::query(
        "SELECT sequence, coalesce(tree, sequence) AS tree FROM responses \
         WHERE id = $1 AND project = $2 AND NOT kept AND expires_at > $3",
    )
    .bind(id)
    .bind(project)
    .bind(now)
    .fetch_optional(connection)
    .await?
    .ok_or(StoreError::NotFound)?;
    Ok(Place {
        sequence: row.try_get("sequence")?,
        tree: row.try_get("tree")?,
    })
}

/// Ends a response, and those in its tree that wait for the sweep: else one of them might hold its messages.
pub(super) async fn end_with_expired(
    connection: &mut PgConnection,
    response: &Place,
    now: UnixMillis,
) -> Result<(), Failure> {
    let rows = sqlx::query(
        "UPDATE responses SET kept = TRUE, bytes = length(messages) \
             - CASE WHEN substr(messages, 1, 1) = '\\xff'::bytea THEN 50 ELSE 0 END, input = '', body = '' WHERE sequence IN ( \
           SELECT $1::bigint UNION \
           SELECT sequence FROM responses WHERE tree = $2 AND NOT kept AND expires_at <= $3 UNION \
           SELECT sequence FROM responses WHERE sequence = $2 AND NOT kept AND expires_at <= $3) \
         RETURNING sequence",
    )
    .bind(response.sequence)
    .bind(response.tree)
    .bind(now)
    .fetch_all(&mut *connection)
    .await?;
    leave(connection, &numbers(&rows, "sequence")?, now).await
}

/// Ends at most `limit` responses that have expired, and fewer only when none is left; returns how many.
pub(super) async fn end_expired(
    connection: &mut PgConnection,
    now: UnixMillis,
    limit: u64,
) -> Result<u64, Failure> {
    let mut ended = 0;
    // Once more only where others have ended some of those that were found before their trees were locked.
    while ended < limit {
        let rows = sqlx::query(
            "SELECT sequence, coalesce(tree, sequence) AS tree FROM responses \
             WHERE NOT kept AND expires_at <= $1 ORDER BY expires_at, id LIMIT $2",
        )
        .bind(now)
        .bind(i64::try_from(limit - ended).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
        if rows.is_empty() {
            break;
        }
        let expired = numbers(&rows, "sequence")?;
        sqlx::query(
            "SELECT 1 FROM responses WHERE sequence = ANY($1) ORDER BY sequence FOR UPDATE",
        )
        .bind(numbers(&rows, "tree")?)
        .execute(&mut *connection)
        .await?;
        let rows = sqlx::query(
            "UPDATE responses SET kept = TRUE, bytes = length(messages) \
             - CASE WHEN substr(messages, 1, 1) = '\\xff'::bytea THEN 50 ELSE 0 END, input = '', body = '' \
             WHERE sequence = ANY($1) AND NOT kept RETURNING sequence",
        )
        .bind(expired)
        .fetch_all(&mut *connection)
        .await?;
        leave(connection, &numbers(&rows, "sequence")?, now).await?;
        ended += rows.len() as u64;
    }
    Ok(ended)
}

/// What follows from the end of responses that are marked as `kept` by now.
async fn leave(
    connection: &mut PgConnection,
    ended: &[i64],
    now: UnixMillis,
) -> Result<(), Failure> {
    move_heads(connection, ended, now).await?;
    let mut candidates = ended.to_vec();
    while !candidates.is_empty() {
        candidates = delete_unneeded(connection, &candidates).await?;
    }
    Ok(())
}

/// Conversations whose head is among `ended` go back to the nearest response before it that lives.
async fn move_heads(
    connection: &mut PgConnection,
    ended: &[i64],
    now: UnixMillis,
) -> Result<(), Failure> {
    sqlx::query(
        "UPDATE conversations SET head = ( \
           WITH RECURSIVE back (sequence, previous, gone) AS ( \
             SELECT sequence, previous, kept OR expires_at <= $2 FROM responses \
             WHERE sequence = conversations.head \
             UNION ALL \
             SELECT r.sequence, r.previous, r.kept OR r.expires_at <= $2 \
             FROM back JOIN responses AS r ON r.sequence = back.previous WHERE back.gone) \
           SELECT sequence FROM back WHERE NOT gone) \
         WHERE head = ANY($1)",
    )
    .bind(ended)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes those of the kept `candidates` that nothing continues from, with those before them up to where something
/// else continues. Returns what may be unneeded now because several of its continuations went.
async fn delete_unneeded(
    connection: &mut PgConnection,
    candidates: &[i64],
) -> Result<Vec<i64>, Failure> {
    let rows = sqlx::query(
        "DELETE FROM responses WHERE sequence IN ( \
           WITH RECURSIVE unneeded (sequence, previous) AS ( \
             SELECT sequence, previous FROM responses AS r \
             WHERE sequence = ANY($1) AND kept \
               AND NOT EXISTS (SELECT 1 FROM responses AS other WHERE other.previous = r.sequence) \
             UNION ALL \
             SELECT r.sequence, r.previous \
             FROM unneeded JOIN responses AS r ON r.sequence = unneeded.previous \
             WHERE r.kept AND NOT EXISTS ( \
               SELECT 1 FROM responses AS other \
               WHERE other.previous = r.sequence AND other.sequence <> unneeded.sequence)) \
           SELECT sequence FROM unneeded) \
         RETURNING sequence, previous",
    )
    .bind(candidates)
    .fetch_all(connection)
    .await?;
    let deleted: HashSet<i64> = numbers(&rows, "sequence")?.into_iter().collect();
    let mut before = HashSet::new();
    for row in &rows {
        before.extend(row.try_get::<Option<i64>, _>("previous")?);
    }
    Ok(before.difference(&deleted).copied().collect())
}

fn numbers(rows: &[PgRow], column: &str) -> Result<Vec<i64>, Failure> {
    Ok(rows
        .iter()
        .map(|row| row.try_get(column))
        .collect::<Result<_, _>>()?)
}
