//! Whatever happened before, an answer from a prefix is the answer a fresh engine gives to the whole prompt.

use proptest::prelude::*;

use crate::support::{ask, message, options_on_disk, question, tiny};

#[derive(Debug, Clone)]
enum Step {
    Hold {
        pin: u8,
        document: u8,
        turns: Vec<u8>,
    },
    Ask {
        document: u8,
        turns: Vec<u8>,
    },
    Release {
        pin: u8,
    },
    Demote {
        to_disk: bool,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let turns = || proptest::collection::vec(0..2_u8, 0..4);
    let step = prop_oneof![
        4 => (0..4_u8, 0..2_u8, turns()).prop_map(|(pin, document, turns)| Step::Hold { pin, document, turns }),
        4 => (0..2_u8, turns()).prop_map(|(document, turns)| Step::Ask { document, turns }),
        1 => (0..4_u8).prop_map(|pin| Step::Release { pin }),
        2 => any::<bool>().prop_map(|to_disk| Step::Demote { to_disk }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..25)
}

fn segments(document: u8, turns: &[u8]) -> Vec<String> {
    let mut segments = vec![message("system", &format!("document {document}"))];
    segments.extend(
        turns
            .iter()
            .map(|turn| message("user", &format!("turn {turn}"))),
    );
    segments
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn history_never_changes_an_answer(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let small = || holdfast_engine::EngineOptions {
                window_tokens: Some(300),
                kv_tokens: Some(420),
                idle_tokens_max: 100,
                ..options_on_disk(folder.path())
            };
            let mut engine = tiny(small());
            let fresh = tiny(crate::support::options());
            for step in steps {
                match step {
                    Step::Hold { pin, document, turns } => {
                        let prefix = engine.prefix("p", &segments(document, &turns));
                        let held = engine.hold("p", &format!("pin-{pin}"), prefix.clone()).await.unwrap();
                        assert!(held.computed_tokens <= prefix.tokens());
                    }
                    Step::Ask { document, turns } => {
                        let prefix = engine.prefix("p", &segments(document, &turns));
                        let answer = ask(&engine, Some(&prefix), question("what?")).await;
                        let mut prompt = segments(document, &turns);
                        prompt.extend(question("what?"));
                        let cold = ask(&fresh, None, prompt).await;
                        assert_eq!(answer.texts, cold.texts);
                        let usage = answer.prefix.unwrap();
                        assert!(usage.cached_tokens <= usage.tokens);
                    }
                    Step::Release { pin } => engine.release(&format!("pin-{pin}")),
                    Step::Demote { to_disk } => engine.demote_all(to_disk).await,
                    Step::Restart => {
                        engine.stop().await;
                        engine = tiny(small());
                    }
                }
                assert!(engine.status().kv_tokens_used <= 420);
            }
            for pin in 0..4 {
                engine.release(&format!("pin-{pin}"));
            }
            engine.demote_all(true).await;
            engine.stop().await;
            let status = engine.status();
            assert_eq!((status.kv_tokens_used, status.ram_bytes, status.disk_bytes, status.pinned), (0, 0, 0, 0));
        });
    }
}
