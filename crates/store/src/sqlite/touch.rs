//! Sliding expiries, the only write that every chat makes.
//!
//! Each touch is written and synced before it is acknowledged: an expiry that a client was told is never taken back,
//! not even by a power loss. Skipping "small" moves would save syncs only by storing an expiry earlier or later than
//! the one announced. Instead, touches that wait at the same time share one transaction, and so one sync of the disk:
//! whoever gets the writer first writes for all.

use std::sync::PoisonError;

use holdfast_protocol::UnixMillis;
use holdfast_protocol::context::ContextId;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::oneshot;

use super::SqliteStore;
use super::contexts::check_living;
use super::failure::failure;
use crate::StoreError;

/// A touch that waits for the writer.
pub(super) struct Touch {
    project: String,
    id: ContextId,
    expires_at: UnixMillis,
    now: UnixMillis,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl SqliteStore {
    pub(super) async fn touch_with_others(
        &self,
        project: &str,
        id: &ContextId,
        expires_at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        loop {
            let (done, mut answer) = oneshot::channel();
            self.waiting().push(Touch {
                project: project.to_owned(),
                id: id.clone(),
                expires_at,
                now,
                done,
            });
            let answered = tokio::select! {
                biased;
                answered = &mut answer => answered,
                connection = self.writer.acquire() => {
                    match connection {
                        Ok(mut connection) => self.write_waiting(&mut connection).await,
                        Err(error) => return Err(failure(error)),
                    }
                    answer.await
                }
            };
            // No answer: the caller who wrote for us gave up half way, and its transaction was rolled back.
            if let Ok(result) = answered {
                return result;
            }
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Touch>> {
        self.touches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_waiting(&self, connection: &mut SqliteConnection) {
        let mut touches = std::mem::take(&mut *self.waiting());
        // Empty when the last holder of the writer has taken ours along.
        touches.retain(|touch| !touch.done.is_closed());
        if touches.is_empty() {
            return;
        }
        match write_all(connection, &touches).await {
            Ok(results) => {
                for (touch, result) in touches.into_iter().zip(results) {
                    // A caller who has gone needs no answer.
                    let _ = touch.done.send(result);
                }
            }
            Err(error) => {
                for touch in touches {
                    let _ = touch.done.send(Err(same(&error)));
                }
            }
        }
    }
}

async fn write_all(
    connection: &mut SqliteConnection,
    touches: &[Touch],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(failure)?;
    let mut results = Vec::with_capacity(touches.len());
    for touch in touches {
        let outcome = sqlx::query(
            "UPDATE contexts SET expires_at = ?1 WHERE id = ?2 AND project = ?3 AND expires_at > ?4 \
             AND expires_at < ?1 AND expiry = 'sliding'",
        )
        .bind(touch.expires_at)
        .bind(touch.id.as_str())
        .bind(&touch.project)
        .bind(touch.now)
        .execute(&mut *transaction)
        .await
        .map_err(failure)?;
        results.push(match outcome.rows_affected() {
            0 => match check_living(&mut transaction, &touch.project, &touch.id, touch.now).await {
                Ok(()) => Ok(()),
                Err(StoreError::NotFound) => Err(StoreError::NotFound),
                Err(error) => return Err(error),
            },
            _ => Ok(()),
        });
    }
    // Nothing is written, or synced, where no expiry moved.
    transaction.commit().await.map_err(failure)?;
    Ok(results)
}

fn same(error: &StoreError) -> StoreError {
    match error {
        StoreError::NotFound => StoreError::NotFound,
        StoreError::Conflict => StoreError::Conflict,
        StoreError::Unavailable(reason) => StoreError::Unavailable(reason.clone()),
        StoreError::Corrupt(reason) => StoreError::Corrupt(reason.clone()),
    }
}
