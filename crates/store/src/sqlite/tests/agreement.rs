//! Responses and the ledger as in memory, and nothing left over.

use super::*;
use crate::conformance::ledger::agreement as ledger;
use crate::conformance::responses::agreement::agrees_with_memory;

#[tokio::test]
async fn trees_are_as_in_memory_at_every_step() {
    let (_directory, store) = opened().await;
    let mut most = 0;
    agrees_with_memory(&store, 3000, async || {
        let kept = count(&store, "SELECT count(*) FROM responses WHERE kept = 1").await;
        most = most.max(kept);
    })
    .await;
    assert!(most > 9, "trees were large enough to matter: {most}");
    let unneeded = "SELECT count(*) FROM responses WHERE kept = 1 \
                    AND sequence NOT IN (SELECT previous FROM responses WHERE previous IS NOT NULL)";
    assert_eq!(count(&store, unneeded).await, 0);
}

#[tokio::test]
async fn the_ledger_is_as_in_memory_at_every_step() {
    let (_directory, store) = opened().await;
    ledger::agrees_with_memory(&store, 200).await;
}

#[tokio::test]
async fn more_tokens_than_can_be_counted_are_refused() {
    let (_directory, store) = opened().await;
    ledger::too_many_tokens_are_refused(&store).await;
}
