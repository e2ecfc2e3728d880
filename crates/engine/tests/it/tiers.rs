//! Where a prefix is found, and that it is always the right one.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use holdfast_engine::EngineOptions;
use holdfast_protocol::usage::{CacheStatus, CacheTier};
use holdfast_seal::{DataKey, Keyring, StateKey};

use crate::support::{Answer, ask, options, options_on_disk, prefix, question, tiny};

const DOCUMENT: &str = "a long document that every question is about";

fn assert_hit(answer: &Answer, tier: CacheTier) {
    let usage = answer.prefix.as_ref().unwrap();
    assert_eq!(usage.status, CacheStatus::Hit);
    assert_eq!(usage.tier, Some(tier));
    assert_eq!(usage.cached_tokens, usage.tokens);
}

fn assert_rebuilt(answer: &Answer, reason: &str) {
    let usage = answer.prefix.as_ref().unwrap();
    assert_eq!(usage.status, CacheStatus::Rebuilt);
    assert_eq!(usage.reason, Some(reason));
    assert_eq!(usage.cached_tokens, 0);
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|name| name == extension) {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_prefix_is_computed_once_and_an_answer_from_it_equals_a_cold_one() {
    let engine = tiny(options());
    let held = prefix(&engine, "p", &[DOCUMENT]);
    let first = engine.hold("p", "ctx-1", held.clone()).await.unwrap();
    assert_eq!(first.computed_tokens, held.tokens());
    let again = engine
        .hold("p", "ctx-2", prefix(&engine, "p", &[DOCUMENT]))
        .await
        .unwrap();
    assert_eq!(again.computed_tokens, 0);

    let warm = ask(&engine, Some(&held), question("what?")).await;
    assert_hit(&warm, CacheTier::Kv);
    let mut cold_prompt = vec![crate::support::message("user", DOCUMENT)];
    cold_prompt.extend(question("what?"));
    let cold = ask(&engine, None, cold_prompt).await;
    assert_eq!(warm.texts, cold.texts);
    assert_eq!(warm.prompt_tokens, cold.prompt_tokens);
    assert_eq!(cold.prefix, None);
}

#[tokio::test]
async fn concurrent_holds_of_the_same_content_compute_it_once_and_other_projects_share_nothing() {
    let engine = tiny(options());
    let held = prefix(&engine, "p", &[DOCUMENT]);
    let holds = (0..8).map(|n| {
        let (engine, held) = (engine.clone(), held.clone());
        async move { engine.hold("p", &format!("ctx-{n}"), held).await.unwrap() }
    });
    let computed: Vec<u64> = futures_util::future::join_all(holds)
        .await
        .into_iter()
        .map(|held| held.computed_tokens)
        .collect();
    assert_eq!(computed.iter().filter(|tokens| **tokens > 0).count(), 1);
    assert_eq!(engine.status().prefill_tokens_total, held.tokens());

    let foreign = engine
        .hold("q", "ctx-q", prefix(&engine, "q", &[DOCUMENT]))
        .await
        .unwrap();
    assert_eq!(foreign.computed_tokens, held.tokens());
}

#[tokio::test]
async fn every_tier_gives_the_same_answer_and_says_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(options_on_disk(folder.path()));
    let held = prefix(&engine, "p", &[DOCUMENT, "and a second part"]);
    engine.hold("p", "ctx-1", held.clone()).await.unwrap();

    let from_kv = ask(&engine, Some(&held), question("what?")).await;
    assert_hit(&from_kv, CacheTier::Kv);
    engine.demote_all(false).await;
    let from_ram = ask(&engine, Some(&held), question("what?")).await;
    assert_hit(&from_ram, CacheTier::Ram);
    engine.demote_all(true).await;
    assert_eq!(engine.status().ram_bytes, 0);
    let from_disk = ask(&engine, Some(&held), question("what?")).await;
    assert_hit(&from_disk, CacheTier::Disk);
    assert_eq!(from_kv.texts, from_ram.texts);
    assert_eq!(from_kv.texts, from_disk.texts);
    assert_hit(
        &ask(&engine, Some(&held), question("what?")).await,
        CacheTier::Kv,
    );
}

#[tokio::test]
async fn a_restart_finds_the_state_on_disk_and_damage_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(options_on_disk(folder.path()));
    let held = prefix(&engine, "p", &[DOCUMENT]);
    engine.hold("p", "ctx-1", held.clone()).await.unwrap();
    let before = ask(&engine, Some(&held), question("what?")).await;
    engine.stop().await;

    let engine = tiny(options_on_disk(folder.path()));
    let after = ask(&engine, Some(&held), question("what?")).await;
    assert_hit(&after, CacheTier::Disk);
    assert_eq!(before.texts, after.texts);
    engine.stop().await;

    let states = files(folder.path(), "kv");
    assert_eq!(states.len(), 1);
    let mut bytes = fs::read(&states[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&states[0], bytes).unwrap();
    let engine = tiny(options_on_disk(folder.path()));
    let rebuilt = ask(&engine, Some(&held), question("what?")).await;
    assert_rebuilt(&rebuilt, "state_corrupt");
    assert_eq!(before.texts, rebuilt.texts);
    assert_hit(
        &ask(&engine, Some(&held), question("what?")).await,
        CacheTier::Kv,
    );
    engine.stop().await;

    for state in files(folder.path(), "kv") {
        fs::remove_file(state).unwrap();
    }
    let engine = tiny(options_on_disk(folder.path()));
    let rebuilt = ask(&engine, Some(&held), question("what?")).await;
    assert_rebuilt(&rebuilt, "state_lost");
    assert_eq!(before.texts, rebuilt.texts);
}

#[tokio::test]
async fn released_state_is_gone_from_disk_unless_another_pin_shares_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(options_on_disk(folder.path()));
    let parent = prefix(&engine, "p", &[DOCUMENT]);
    let child = prefix(&engine, "p", &[DOCUMENT, "a turn"]);
    engine.hold("p", "parent", parent.clone()).await.unwrap();
    let grown = engine.hold("p", "child", child.clone()).await.unwrap();
    assert_eq!(grown.computed_tokens, child.tokens() - parent.tokens());
    engine.demote_all(true).await;
    assert_eq!(files(folder.path(), "kv").len(), 2);

    engine.release("parent");
    assert_hit(
        &ask(&engine, Some(&child), question("what?")).await,
        CacheTier::Disk,
    );
    engine.release("child");
    engine.demote_all(true).await;
    engine.stop().await;
    assert_eq!(files(folder.path(), "kv").len(), 0);
    assert_eq!(engine.status().kv_tokens_used, 0);
    assert_eq!(engine.status().pinned, 0);
    assert_eq!(engine.status().disk_bytes, 0);
}

#[tokio::test]
async fn at_start_only_living_pins_keep_their_state() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(options_on_disk(folder.path()));
    let living = prefix(&engine, "p", &[DOCUMENT]);
    engine.hold("p", "living", living.clone()).await.unwrap();
    engine
        .hold("p", "dead", prefix(&engine, "p", &["deleted while away"]))
        .await
        .unwrap();
    engine.stop().await;

    let engine = tiny(options_on_disk(folder.path()));
    engine.retain_pins(HashSet::from(["living".to_owned()]));
    assert_hit(
        &ask(&engine, Some(&living), question("what?")).await,
        CacheTier::Disk,
    );
    engine.stop().await;
    assert_eq!(files(folder.path(), "kv").len(), 1);
}

#[tokio::test]
async fn a_growing_session_writes_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(options_on_disk(folder.path()));
    let mut held = prefix(&engine, "p", &[DOCUMENT]);
    engine.hold("p", "ctx", held.clone()).await.unwrap();
    for turn in 0..5 {
        held = engine.extend(
            &held,
            &[crate::support::message("user", &format!("turn {turn}"))],
        );
        engine.hold("p", "ctx", held.clone()).await.unwrap();
    }
    engine.demote_all(true).await;
    let bytes: u64 = files(folder.path(), "kv")
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum();
    // The toy model's state is four bytes per token; each file has a header of 72 bytes.
    assert_eq!(bytes, held.tokens() * 4 + 6 * 72);
    assert_eq!(engine.status().prefill_tokens_total, held.tokens());
    assert_hit(
        &ask(&engine, Some(&held), question("what?")).await,
        CacheTier::Disk,
    );
}

#[tokio::test]
async fn a_fork_from_an_earlier_turn_computes_nothing_it_shares() {
    let engine = tiny(options());
    let parent = prefix(&engine, "p", &[DOCUMENT, "turn one", "turn two"]);
    engine.hold("p", "parent", parent.clone()).await.unwrap();
    let fork = prefix(&engine, "p", &[DOCUMENT, "turn one"]);
    let held = engine.hold("p", "fork", fork.clone()).await.unwrap();
    assert_eq!(held.computed_tokens, 0);
    let own_way = prefix(&engine, "p", &[DOCUMENT, "turn one", "another turn"]);
    let held = engine.hold("p", "fork", own_way.clone()).await.unwrap();
    assert_eq!(held.computed_tokens, own_way.tokens() - fork.tokens());
    // The fork stands in the KV cache now; its parent comes back from memory.
    assert_hit(
        &ask(&engine, Some(&parent), question("what?")).await,
        CacheTier::Ram,
    );
}

#[tokio::test]
async fn more_prefixes_than_the_kv_cache_holds_all_stay_usable() {
    let engine = tiny(EngineOptions {
        kv_tokens: Some(600),
        window_tokens: Some(600),
        ..options()
    });
    let mut held = Vec::new();
    for n in 0..20 {
        let one = prefix(
            &engine,
            "p",
            &[&format!("document {n} {}", "x".repeat(150))],
        );
        engine
            .hold("p", &format!("ctx-{n}"), one.clone())
            .await
            .unwrap();
        held.push(one);
    }
    for one in &held {
        let answer = ask(&engine, Some(one), question("what?")).await;
        let usage = answer.prefix.unwrap();
        assert_eq!(usage.status, CacheStatus::Hit);
        assert_eq!(usage.cached_tokens, usage.tokens);
    }
    assert!(engine.status().kv_tokens_used <= 600);
}

#[tokio::test]
async fn a_disk_budget_that_is_used_up_keeps_state_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(EngineOptions {
        disk_bytes_max: 100,
        ..options_on_disk(folder.path())
    });
    let held = prefix(&engine, "p", &[DOCUMENT]);
    engine.hold("p", "ctx", held.clone()).await.unwrap();
    engine.demote_all(true).await;
    assert_eq!(engine.status().disk_bytes, 0);
    assert_hit(
        &ask(&engine, Some(&held), question("what?")).await,
        CacheTier::Ram,
    );
}

fn key(byte: u8) -> StateKey {
    Keyring::new(Some(DataKey::new([byte; 32])), &[])
        .state_key()
        .unwrap()
}

fn sealed_on_disk(folder: &Path, byte: u8) -> EngineOptions {
    EngineOptions {
        state_key: Some(key(byte)),
        ..options_on_disk(folder)
    }
}

#[tokio::test]
async fn sealed_state_is_found_after_a_restart_and_damage_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let engine = tiny(sealed_on_disk(folder.path(), 1));
    let held = prefix(&engine, "p", &[DOCUMENT]);
    engine.hold("p", "ctx-1", held.clone()).await.unwrap();
    let before = ask(&engine, Some(&held), question("what?")).await;
    engine.stop().await;
    let states = files(folder.path(), "kv");
    assert_eq!(states.len(), 1);
    assert!(!shows_the_document(&states[0]));

    let engine = tiny(sealed_on_disk(folder.path(), 1));
    let after = ask(&engine, Some(&held), question("what?")).await;
    assert_hit(&after, CacheTier::Disk);
    assert_eq!(before.texts, after.texts);
    engine.stop().await;

    for change in [
        |bytes: &mut Vec<u8>| bytes[100] ^= 1,
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
    ] {
        let mut bytes = fs::read(&states[0]).unwrap();
        change(&mut bytes);
        fs::write(&states[0], bytes).unwrap();
        let engine = tiny(sealed_on_disk(folder.path(), 1));
        let rebuilt = ask(&engine, Some(&held), question("what?")).await;
        assert_rebuilt(&rebuilt, "state_corrupt");
        assert_eq!(before.texts, rebuilt.texts);
        // It is held again, so that it is written again.
        engine.hold("p", "ctx-1", held.clone()).await.unwrap();
        engine.stop().await;
    }
}

#[tokio::test]
async fn state_under_no_key_or_another_one_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    for options in [
        options_on_disk(folder.path()),
        sealed_on_disk(folder.path(), 1),
        sealed_on_disk(folder.path(), 2),
        options_on_disk(folder.path()),
    ] {
        let engine = tiny(options);
        let held = prefix(&engine, "p", &[DOCUMENT]);
        let answer = ask(&engine, Some(&held), question("what?")).await;
        assert_ne!(
            answer.prefix.unwrap().tier,
            Some(CacheTier::Disk),
            "nothing of the others is taken for its own"
        );
        engine.hold("p", "ctx-1", held).await.unwrap();
        engine.stop().await;
        let states = files(folder.path(), "kv");
        assert_eq!(states.len(), 1, "those of the others are removed");
        names.push(states[0].file_name().unwrap().to_owned());
        let is_plain = names.len() % 3 == 1;
        assert_eq!(shows_the_document(&states[0]), is_plain);
    }
    // A name is a digest of what was said: whoever can't know the key can't try texts on it.
    assert_eq!(names[0], names[3]);
    assert_ne!(names[0], names[1]);
    assert_ne!(names[1], names[2]);
}

/// The toy model's state is its tokens, and these are the text's bytes.
fn shows_the_document(state: &Path) -> bool {
    let tokens: Vec<u8> = DOCUMENT
        .bytes()
        .flat_map(|byte| u32::from(byte).to_le_bytes())
        .collect();
    let bytes = fs::read(state).unwrap();
    bytes.windows(tokens.len()).any(|window| window == tokens)
}
