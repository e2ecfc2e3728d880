//! Spending and reservations.

use holdfast_protocol::UnixMillis;
use holdfast_protocol::price::Currency;

use super::ledger::sample_row;
use super::{NOW, in_parallel};
use crate::budgets::{BudgetStore, NOTICE_KEPT_MS, Reservation, Span, Spender, Tally};
use crate::{LedgerRecord, LedgerStore};

const DAY: i64 = 86_400_000;

fn project(name: &str) -> Spender {
    Spender::Project(name.to_owned())
}

fn ever(spender: Spender) -> Span {
    Span {
        spender,
        from_day: None,
    }
}

fn row(project: &str, key: &str, id: &str, started_at: UnixMillis, cost: i64) -> LedgerRecord {
    LedgerRecord {
        cost,
        key_id: Some(key.to_owned()),
        ..sample_row(project, id, started_at)
    }
}

fn reservation(of: &str, id: &str, amount: i64) -> Reservation {
    Reservation {
        id: format!("{of}-{id}"),
        owner: format!("owner-of-{of}"),
        spenders: vec![Spender::Key(format!("key-of-{of}")), project(of)],
        amount,
        currency: Currency::USD,
        expires_at: NOW + 1000,
    }
}

async fn reserve<S: BudgetStore + ?Sized>(store: &S, reservation: &Reservation) {
    let reserved = store.reserve(reservation, &[], NOW, &|_| true).await;
    assert!(reserved.expect("an answer").is_made);
}

async fn tally<S: BudgetStore + ?Sized>(store: &S, span: Span, now: UnixMillis) -> Vec<Tally> {
    let tallies = store.tallies(&[span], now).await.expect("tallies are read");
    assert_eq!(tallies.len(), 1);
    tallies.into_iter().flatten().collect()
}

fn usd(spent: i128, reserved: i128) -> Vec<Tally> {
    vec![Tally {
        currency: "USD".to_owned(),
        spent,
        reserved,
    }]
}

/// A row adds to its key and its project, however often it comes.
pub async fn rows_of_the_ledger_are_spent_once<S: BudgetStore + LedgerStore>(store: &S) {
    let rows = [
        row("spent", "key-spent-a", "1", NOW, 700),
        row("spent", "key-spent-b", "2", NOW, 30),
        row("spent", "key-spent-a", "3", NOW, 0),
        LedgerRecord {
            key_id: None,
            ..row("spent", "", "4", NOW, 5)
        },
        LedgerRecord {
            currency: "CNY".to_owned(),
            ..row("spent", "key-spent-b", "5", NOW, 11)
        },
    ];
    for some in [&rows[..2], &rows[..], &rows[1..]] {
        store.append(some).await.expect("rows are added");
    }
    let of = async |spender| {
        let mut tallies = tally(store, ever(spender), NOW).await;
        tallies.sort_by(|a, b| a.currency.cmp(&b.currency));
        let tallies = tallies.into_iter();
        let amounts: Vec<_> = tallies.map(|it| (it.currency, it.spent)).collect();
        amounts
    };
    let amount = |currency: &str, spent| (currency.to_owned(), spent);
    assert_eq!(
        of(project("spent")).await,
        [amount("CNY", 11), amount("USD", 735)]
    );
    assert_eq!(
        of(Spender::Key("key-spent-a".to_owned())).await,
        [amount("USD", 700)]
    );
    assert_eq!(
        of(Spender::Key("key-spent-b".to_owned())).await,
        [amount("CNY", 11), amount("USD", 30)]
    );
    assert_eq!(of(project("nobody")).await, []);
    // A project is not the key of the same name.
    assert_eq!(of(Spender::Key("spent".to_owned())).await, []);
}

/// Days before the first one do not count.
pub async fn spans_begin_at_their_day<S: BudgetStore + LedgerStore>(store: &S) {
    let today = NOW.div_euclid(DAY);
    let at = |day: i64, ms: i64| (today + day) * DAY + ms;
    let rows = [
        row("days", "key-days", "1", at(-40, 0), 1),
        row("days", "key-days", "2", at(-1, DAY - 1), 20),
        row("days", "key-days", "3", at(0, 0), 300),
        row("days", "key-days", "4", at(0, DAY - 1), 4000),
    ];
    store.append(&rows).await.expect("rows are added");
    for (from_day, spent) in [(Some(today), 4300), (Some(today - 1), 4320), (None, 4321)] {
        let span = Span {
            spender: project("days"),
            from_day,
        };
        assert_eq!(tally(store, span, NOW).await, usd(spent, 0));
    }
    let tomorrow = Span {
        spender: project("days"),
        from_day: Some(today + 1),
    };
    assert_eq!(tally(store, tomorrow, NOW).await, []);
}

/// It is reserved until the row is there, and spent from then on; a row without cost takes it away, too.
pub async fn a_row_takes_its_reservation_away<S: BudgetStore + LedgerStore>(store: &S) {
    let span = || ever(project("settled"));
    for (id, amount) in [("1", 100), ("2", 2000), ("2", 3000)] {
        reserve(store, &reservation("settled", id, amount)).await;
    }
    assert_eq!(
        tally(store, span(), NOW).await,
        usd(0, 5100),
        "the second adds up"
    );
    let key = "key-of-settled";
    let rows = [
        row("settled", key, "1", NOW, 70),
        row("settled", key, "2", NOW, 0),
    ];
    store.append(&rows[..1]).await.expect("a row is added");
    assert_eq!(tally(store, span(), NOW).await, usd(70, 5000));
    store.append(&rows).await.expect("a row is added");
    assert_eq!(tally(store, span(), NOW).await, usd(70, 0));
    assert_eq!(
        tally(store, ever(Spender::Key(key.to_owned())), NOW).await,
        usd(70, 0)
    );
    // A row that was there before its reservation came takes it away when it comes again.
    reserve(store, &reservation("settled", "1", 9)).await;
    store.append(&rows[..1]).await.expect("a row is added");
    assert_eq!(tally(store, span(), NOW).await, usd(70, 0));
}

/// Whoever asks is told what there is.
pub async fn what_is_refused_reserves_nothing<S: BudgetStore + LedgerStore>(store: &S) {
    reserve(store, &reservation("refused", "1", 60)).await;
    store
        .append(&[row("refused", "key-of-refused", "0", NOW, 5)])
        .await
        .expect("a row is added");
    let spans = [
        ever(project("refused")),
        ever(Spender::Key("key-of-refused".to_owned())),
        ever(project("nobody")),
    ];
    let asked = reservation("refused", "2", 50);
    let refused = store.reserve(&asked, &spans, NOW, &|tallies| {
        assert_eq!(tallies, [usd(5, 60), usd(5, 60), vec![]]);
        false
    });
    let refused = refused.await.expect("an answer");
    assert!(!refused.is_made);
    assert_eq!(refused.tallies, [usd(5, 60), usd(5, 60), vec![]]);
    assert_eq!(tally(store, spans[0].clone(), NOW).await, usd(5, 60));
}

/// Of all that ask at once no more get one than fit.
pub async fn parallel_reservations_keep_the_limit<S: BudgetStore + ?Sized>(store: &S) {
    let spans = [ever(project("crowd"))];
    let made = in_parallel(16, async |number| {
        let asked = reservation("crowd", &number.to_string(), 10);
        let reserved = store.reserve(&asked, &spans, NOW, &|tallies| {
            tallies[0]
                .iter()
                .map(|it| it.spent + it.reserved)
                .sum::<i128>()
                + 10
                <= 95
        });
        reserved.await.expect("an answer").is_made
    });
    assert_eq!(made.iter().filter(|is_made| **is_made).count(), 9);
    assert_eq!(tally(store, spans[0].clone(), NOW).await, usd(0, 90));
}

/// What nobody settles ends by itself, or with its owner.
pub async fn reservations_lapse_and_are_released<S: BudgetStore + ?Sized>(store: &S) {
    let span = || ever(project("lapsed"));
    reserve(store, &reservation("lapsed", "1", 1)).await;
    reserve(
        store,
        &Reservation {
            owner: "another".to_owned(),
            expires_at: NOW + 5000,
            ..reservation("lapsed", "2", 20)
        },
    )
    .await;
    assert_eq!(tally(store, span(), NOW + 999).await, usd(0, 21));
    assert_eq!(tally(store, span(), NOW + 1000).await, usd(0, 20));
    assert_eq!(tally(store, span(), NOW + 5000).await, []);
    store
        .release_of("owner-of-lapsed")
        .await
        .expect("an answer");
    assert_eq!(tally(store, span(), NOW).await, usd(0, 20));
    store.release_of("another").await.expect("an answer");
    assert_eq!(tally(store, span(), NOW).await, []);
    assert_eq!(store.release_of("another").await.expect("an answer"), 0);
    reserve(store, &reservation("lapsed", "3", 300)).await;
    assert!(
        store
            .sweep_reservations(NOW + 1000)
            .await
            .expect("an answer")
            >= 1
    );
    assert_eq!(tally(store, span(), NOW).await, []);
}

/// A provider may report anything, and rows must get into the ledger all the same.
pub async fn amounts_beyond_any_bound_do_no_harm<S: BudgetStore + LedgerStore>(store: &S) {
    for number in 0..600 {
        let cost = if number % 2 == 0 { i64::MAX } else { -5 };
        let row = row("huge", "key-huge", &number.to_string(), NOW, cost);
        store.append(&[row]).await.expect("a row is added");
    }
    for id in ["1", "2", "1", "2"] {
        reserve(store, &reservation("huge", id, i64::MAX / 2)).await;
    }
    let tallies = tally(store, ever(project("huge")), NOW).await;
    assert!(tallies[0].spent > 5_000_000_000_000_000_000, "{tallies:?}");
    assert!(
        tallies[0].reserved > 9_000_000_000_000_000_000,
        "{tallies:?}"
    );
}

/// Until it is forgotten.
pub async fn a_notice_is_new_once<S: BudgetStore + ?Sized>(store: &S) {
    let is_new = async |notice, now| store.notice_is_new(notice, now).await.expect("an answer");
    assert!(is_new("soft-1", NOW).await);
    assert!(!is_new("soft-1", NOW + 1).await);
    assert!(is_new("soft-2", NOW + 2).await);
    store
        .sweep_reservations(NOW + NOTICE_KEPT_MS + 1)
        .await
        .expect("an answer");
    assert!(is_new("soft-1", NOW).await);
    assert!(!is_new("soft-2", NOW).await);
    let first = in_parallel(8, async |_| is_new("soft-3", NOW).await);
    assert_eq!(first.iter().filter(|is_new| **is_new).count(), 1);
}
