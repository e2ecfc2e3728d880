//! One method, from its first statement to its commit: bounded, and done again when another transaction was in the way.

use std::time::Duration;

use super::PostgresStore;
use super::failure::Failure;
use crate::StoreError;

/// Each deadlock has one transaction that goes on, so that a few are enough for anything but a defect.
const RETRIES_MAX: u32 = 8;

/// Grows with each retry, so that the others are through by then.
const PAUSE: Duration = Duration::from_millis(3);

impl PostgresStore {
    /// What `attempt` answers. It is made again from its beginning where PostgreSQL has undone all of it because it
    /// could not be done together with what others did; a failure that leaves open whether it was done is final.
    pub(super) async fn attempt<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut retries = 0;
        loop {
            let outcome = tokio::time::timeout(self.answer_wait, attempt()).await;
            match outcome {
                Ok(Err(Failure::InTheWay(_))) if retries < RETRIES_MAX => {
                    retries += 1;
                    tokio::time::sleep(PAUSE * retries).await;
                }
                Ok(outcome) => return outcome.map_err(StoreError::from),
                Err(_) => {
                    return Err(StoreError::Unavailable(
                        "the database does not answer".to_owned(),
                    ));
                }
            }
        }
    }
}
