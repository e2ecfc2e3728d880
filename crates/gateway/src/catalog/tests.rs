#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use holdfast_protocol::price::{Currency, Decimal, StoragePrice};
use tempfile::TempDir;

use super::*;

fn decimal(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn at(day: &str) -> UnixMillis {
    let day: Date = day.parse().unwrap();
    day.to_zoned(jiff::tz::TimeZone::UTC)
        .unwrap()
        .timestamp()
        .as_millisecond()
}

const TODAY: &str = "2026-11-22";

/// Catalog files in a folder of their own.
struct Files {
    _folder: TempDir,
    paths: Vec<PathBuf>,
}

fn files(texts: &[&str]) -> Files {
    let folder = TempDir::new().unwrap();
    let paths = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let path = folder.path().join(format!("prices{index}.toml"));
            std::fs::write(&path, text).unwrap();
            path
        })
        .collect();
    Files {
        _folder: folder,
        paths,
    }
}

fn load(texts: &[&str], replace: bool) -> Result<Catalog, String> {
    let files = files(texts);
    let folder = format!("{}/", files.paths[0].parent().unwrap().display());
    Catalog::load(&files.paths, replace).map_err(|errors| errors.to_string().replace(&folder, ""))
}

/// Checks the whole rendering, as a user sees it.
#[track_caller]
fn check_errors(texts: &[&str], expected: &str) {
    let shown = load(texts, false).unwrap_err();
    assert_eq!(shown.trim_end(), expected.trim(), "\n--- shown:\n{shown}");
}

/// A file with one row of these keys beside provider and model.
fn one_row(keys: &str) -> String {
    format!("schema = 1\n[[models]]\nprovider = \"openai\"\nmodel = \"m\"\n{keys}\n")
}

#[track_caller]
fn input_of(catalog: &Catalog, provider: &str, model: &str, day: &str) -> Option<Decimal> {
    Some(catalog.find(provider, model, at(day))?.price.rates.input)
}

#[test]
fn the_builtin_catalog_is_valid() {
    let file = CatalogFile::parse(BUILTIN_NAME, BUILTIN.to_owned(), true);
    assert!(file.problems.is_empty(), "{:?}", file.problems);
    let mut files = [file];
    overlaps(&mut files);
    assert!(files[0].problems.is_empty(), "{:?}", files[0].problems);
    let catalog = Catalog::builtin();
    assert_eq!(catalog.updated(), Some("2026-11-22".parse().unwrap()));
    for row in catalog.rows() {
        let rates = &row.price.rates;
        // A slip of a digit in one rate shows against the others.
        assert!(rates.cached_read <= rates.input, "{}", row.model);
        assert!(rates.output >= rates.input, "{}", row.model);
        for (seconds, rate) in &rates.writes {
            assert!(*rate >= rates.input, "{} {seconds}", row.model);
        }
    }
}

/// Facts section 7, column by column: input, cached read, write (shortest), write (1h or 12h), output, minimum, context.
#[test]
fn the_builtin_prices_are_those_of_the_table() {
    let table = "
        openai gpt-6-astra 10 1 12.5 25 50 - 922000
        openai gpt-6.1-sol 2 0.1 2.5 5 10 - 922000
        openai gpt-6.1-terra 1 0.05 1.25 2.5 5 - 922000
        openai gpt-6-luna 0.1 0.01 0.125 0.25 0.5 - 922000
        openai gpt-5.6 4 0.4 5 10 20 - 922000
        openai gpt-5.6-luna 0.2 0.02 0.25 0.5 1.2 - 922000
        openai gpt-5.5 5 0.5 - - 30 - 1050000
        openai gpt-5.4 2.5 0.25 - - 15 - 1050000
        openai gpt-5 1.25 0.125 - - 10 - 272000
        openai gpt-4.1 2 0.5 - - 8 - 1047576
        openai gpt-4o 2.5 1.25 - - 10 - 128000
        anthropic claude-fable-5-1 10 0.25 12.5 20 50 512 1000000
        anthropic claude-opus-5-5 4 0.2 5 8 20 512 1000000
        anthropic claude-sonnet-5-5 2 0.1 2.5 4 10 512 1000000
        anthropic claude-sonnet-4-6 3 0.3 3.75 6 15 1024 1000000
        anthropic claude-haiku-5-5 0.1 0.01 0.125 0.2 0.5 512 1000000
        anthropic claude-haiku-4-5 1 0.1 1.25 2 5 4096 200000
        gemini gemini-4-argon 2 0.1 - - 10 4096 1048576
        gemini gemini-3.1-pro-preview 2 0.2 - - 12 4096 1048576
        gemini gemini-3.8-flash 0.75 0.075 - - 3.75 4096 1048576
        gemini gemini-3.5-flash-lite 0.3 0.03 - - 2.5 - 1048576
        gemini gemini-2.5-pro 1.25 0.125 - - 10 2048 1048576
        gemini gemini-2.5-flash 0.3 0.03 - - 2.5 - 1048576
        deepseek deepseek-v4-pro 1.32 0.044 - - 3.96 - 1000000
        deepseek deepseek-v4-flash 0.3 0.006 - - 1.2 - 1000000
        kimi kimi-k3 3 0.3 3 6 15 - 1048576
        kimi kimi-k3.1-pro 2 0.2 2 4 10 - 1048576
        kimi kimi-k2.6 0.95 0.16 - - 4 - 262144
        qwen qwen3.7-max 2.5 0.5 3.125 - 7.5 - 991808
        qwen qwen3.8-max 2 0.25 - - 6 - 991808
        qwen qwen3.8-flash 0.15 0.016 0.2 - 0.47 - 991808
        byteplus doubao-seed-2-1-pro-260915 0.8625 0.1725 - - 4.312 - 1024000
        ark doubao-seed-2-1-lite-260915 0.115 0.023 - - 0.3881 - 1024000
        zhipu glm-5.3 1.4 0.26 - - 4.4 - 1000000
        zhipu glm-5.3-flash 0.15 0.03 - - 0.5 - 1048576
        minimax MiniMax-M3 0.3 0.06 - - 1.2 - 1000000
        minimax MiniMax-M2.5 0.3 0.03 0.375 - 1.2 - 1000000
        xai grok-4.7 2 0.5 - - 6 - 500000
        xai grok-4.3 1.25 0.2 - - 2.5 - 1000000
        mistral mistral-large-4 1.36 0.14 - - 4.18 - 1048576
        groq openai/gpt-oss-120b 0.15 0.075 - - 0.6 - 131072
        bedrock us.anthropic.claude-opus-5-5 4.4 0.22 5.5 8.8 22 512 1000000
        bedrock amazon.nova-2-lite-v1:0 0.3 0.075 - - 2.5 - 1000000
        fireworks kimi-k3 3 0.3 - - 15 - 1048576
        together deepseek-ai/DeepSeek-V4-Pro-0813 1.32 0.13 - - 3.96 - 1048576";
    let catalog = Catalog::builtin();
    let lines: Vec<&str> = table.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 45);
    for line in lines {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let row = catalog.find(cells[0], cells[1], at(TODAY)).expect(line);
        let rates = &row.price.rates;
        let writes: Vec<Decimal> = cells[4..6]
            .iter()
            .filter(|cell| **cell != "-")
            .map(|cell| decimal(cell))
            .collect();
        assert_eq!(row.price.currency, Currency::USD, "{line}");
        assert_eq!(rates.input, decimal(cells[2]), "{line}");
        assert_eq!(rates.cached_read, decimal(cells[3]), "{line}");
        assert!(rates.writes.values().eq(&writes), "{line}");
        assert_eq!(rates.output, decimal(cells[6]), "{line}");
        assert_eq!(row.min_cache_tokens, cells[7].parse().ok(), "{line}");
        assert_eq!(row.context_tokens, cells[8].parse().ok(), "{line}");
    }
}

#[test]
fn lifetimes_of_builtin_writes_are_each_vendors_own() {
    let catalog = Catalog::builtin();
    for (provider, model, expected) in [
        ("openai", "gpt-5.6", vec![1_800, 43_200]),
        ("anthropic", "claude-haiku-4-5", vec![300, 3_600]),
        ("kimi", "kimi-k3", vec![300, 3_600]),
        ("qwen", "qwen3.7-max", vec![300]),
        ("deepseek", "deepseek-v4-pro", vec![]),
    ] {
        let row = catalog.find(provider, model, at(TODAY)).unwrap();
        let lifetimes: Vec<u32> = row.price.rates.writes.keys().copied().collect();
        assert_eq!(lifetimes, expected, "{model}");
    }
}

/// Facts sections 2.4, 2.6 and 7: what the table does not have.
#[test]
fn builtin_storage_and_other_prices() {
    let catalog = Catalog::builtin();
    let find = |provider, model| catalog.find(provider, model, at(TODAY)).unwrap();
    for (model, expected) in [
        ("gemini-2.5-pro", "4.5"),
        ("gemini-3.1-pro-preview", "4.5"),
        ("gemini-3.8-flash", "0.5"),
        ("gemini-2.5-flash", "1"),
    ] {
        let storage = find("gemini", model).price.storage.unwrap();
        assert_eq!(storage.per_mtok_hour, decimal(expected), "{model}");
        assert!(!storage.is_whole_hours);
    }
    let ark = find("ark", "doubao-seed-2-1-pro-260915");
    assert_eq!(ark.price.currency, Currency::CNY);
    assert_eq!(ark.price.rates.input, decimal("6"));
    assert_eq!(ark.price.rates.cached_read, decimal("1.2"));
    assert_eq!(ark.price.rates.output, decimal("30"));
    assert_eq!(
        ark.price.storage,
        Some(StoragePrice {
            per_mtok_hour: decimal("0.017"),
            is_whole_hours: true
        })
    );
    let qwen = find("qwen", "qwen3.7-max");
    assert_eq!(qwen.price.rates.cached_read_explicit, Some(decimal("0.25")));
    for (provider, model, read, read_above) in [
        ("gemini", "gemini-2.5-pro", "0.125", "0.25"),
        ("xai", "grok-4.7", "0.5", "1"),
    ] {
        let price = &find(provider, model).price;
        assert_eq!(price.rates_for(200_000).cached_read, decimal(read));
        assert_eq!(price.rates_for(200_001).cached_read, decimal(read_above));
    }
    for (model, input) in [
        ("eu.anthropic.claude-opus-5-5", "4.4"),
        ("us-gov.anthropic.claude-opus-5-5", "4.8"),
        ("global.anthropic.claude-opus-5-5", "4"),
    ] {
        assert_eq!(find("bedrock", model).price.rates.input, decimal(input));
    }
}

#[test]
fn a_price_changes_on_its_day() {
    let catalog = Catalog::builtin();
    let millisecond_before_2027 = at("2027-01-01") - 1;
    let find = |now| catalog.find("gemini", "gemini-3.8-flash", now).unwrap();
    let last = find(millisecond_before_2027);
    assert_eq!(last.price.rates.input, decimal("0.75"));
    let first = find(at("2027-01-01"));
    assert_eq!(first.price.rates.input, decimal("1.5"));
    assert_eq!(first.price.rates.cached_read, decimal("0.15"));
    assert_eq!(first.price.rates.output, decimal("7.5"));
    assert_eq!(first.price.storage.unwrap().per_mtok_hour, Decimal::ONE);
    assert_eq!(catalog.find_all("gemini", "gemini-3.8-flash").len(), 2);
    assert_eq!(catalog.find("gemini", "gemini-3.8-flash", i64::MAX), None);
}

#[test]
fn exact_names_win_over_prefixes_and_long_prefixes_over_short_ones() {
    let row = |model: &str, prefixes: &str, input: u32| {
        format!(
            "[[models]]\nprovider = \"groq\"\nmodel = \"{model}\"\nprefixes = {prefixes}\ninput = {input}\noutput = 1\n"
        )
    };
    let text = format!(
        "schema = 1\n{}{}{}",
        row("a", "[\"a-\"]", 1),
        row("a-b", "[\"a-b-\", \"z\"]", 2),
        row("a-b-exact", "[]", 3)
    );
    let catalog = load(&[&text], true).unwrap();
    for (model, expected) in [
        ("a", Some(1)),
        ("a-", Some(1)),
        ("a-c", Some(1)),
        ("a-b", Some(2)),
        ("a-b-2026", Some(2)),
        ("zebra", Some(2)),
        ("a-b-exact", Some(3)),
        ("a-b-exactly", Some(2)),
        ("ab", None),
        ("", None),
        ("A", None),
    ] {
        let found = input_of(&catalog, "groq", model, TODAY);
        assert_eq!(found, expected.map(Decimal::from), "{model}");
    }
    assert_eq!(input_of(&catalog, "openai", "a", TODAY), None);
    assert_eq!(catalog.find_all("groq", "a-b-2026").len(), 2);
    assert_eq!(catalog.find_all("groq", "a-b-exact").len(), 1);
}

#[test]
fn snapshots_take_the_price_of_their_model_and_siblings_do_not() {
    let catalog = Catalog::builtin();
    let find = |model| input_of(&catalog, "openai", model, TODAY);
    assert_eq!(find("gpt-4o-2024-08-06"), Some(decimal("2.5")));
    assert_eq!(find("gpt-4o-mini"), None);
    assert_eq!(find("gpt-5.9"), None);
}

#[test]
fn a_file_extends_the_builtin_catalog_or_replaces_it() {
    let text = one_row(
        "input = \"7\"\noutput = \"8\"\n[[models]]\nprovider = \"openai\"\nmodel = \"gpt-4o\"\ninput = \"9\"\noutput = \"9\"",
    );
    let extended = load(&[&text], false).unwrap();
    assert_eq!(
        input_of(&extended, "openai", "m", TODAY),
        Some(decimal("7"))
    );
    assert_eq!(
        input_of(&extended, "openai", "gpt-4o", TODAY),
        Some(decimal("9"))
    );
    assert_eq!(
        input_of(&extended, "openai", "gpt-5", TODAY),
        Some(decimal("1.25"))
    );
    let replaced = load(&[&text], true).unwrap();
    assert_eq!(replaced.rows().len(), 2);
    assert_eq!(input_of(&replaced, "openai", "gpt-5", TODAY), None);
    assert!(Catalog::load::<&Path>(&[], true).unwrap().rows().is_empty());
}

#[test]
fn a_planned_price_leaves_the_builtin_one_until_its_day() {
    let text = "schema = 1\n[[models]]\nprovider = \"openai\"\nmodel = \"gpt-4o\"\nfrom = 2027-03-01\ninput = 9\noutput = 9\n";
    let catalog = load(&[text], false).unwrap();
    let find = |day| input_of(&catalog, "openai", "gpt-4o", day);
    assert_eq!(find("2027-02-28"), Some(decimal("2.5")));
    assert_eq!(find("2027-03-01"), Some(decimal("9")));
}

#[test]
fn numbers_are_read_exactly_however_they_are_written() {
    for (written, expected) in [
        ("\"0.1\"", "0.1"),
        ("0.1", "0.1"),
        ("\"2.50\"", "2.5"),
        ("3", "3"),
        ("1_000.5", "1000.5"),
        ("0.1000000003", "0.1000000003"),
        ("1.5e-3", "0.0015"),
        ("\"15E-4\"", "0.0015"),
    ] {
        let text = one_row(&format!("input = {written}\noutput = 1"));
        let catalog = load(&[&text], true).unwrap();
        assert_eq!(
            input_of(&catalog, "openai", "m", TODAY),
            Some(decimal(expected)),
            "{written}"
        );
    }
    for bad in [
        "nan",
        "inf",
        "-1",
        "\"-0.1\"",
        "0x10",
        "true",
        "\"\"",
        "\"1,5\"",
        "\"$2\"",
        "1000001",
        "1e30",
        "0.00000000001",
        "\"0.1234567890123456789012345678901234567890\"",
        "[1]",
        "2026-01-01",
    ] {
        let text = one_row(&format!("input = {bad}\noutput = 1"));
        let errors = load(&[&text], true).unwrap_err();
        assert!(errors.contains("`input` in [[models]]"), "{bad}: {errors}");
    }
}

#[test]
fn a_complete_row_is_read() {
    let text = one_row(
        "also = [\"n\"]\ncurrency = \"EUR\"\ninput = 1\noutput = 2\ncached_read = \"0.2\"\ncached_read_explicit = \"0.1\"\n\
         writes = { 300 = 1.25, 30m = \"1.5\", 1h = 2 }\nstorage_per_mtok_hour = 0.5\nstorage_whole_hours = true\n\
         min_cache_tokens = 1_024\ncontext_tokens = 8192\nmax_output_tokens = 4096\nfrom = \"2026-01-01\"\nuntil = 2026-12-31\n\
         [[models.tiers]]\nabove_tokens = 100\ninput = 2\noutput = 4\ncached_read = 0.4\ncached_read_explicit = 0.2\n\
         writes = { 5m = 2, 1800 = 3, 3600s = 4 }",
    );
    let catalog = load(&[&text], true).unwrap();
    let row = catalog.find("openai", "n", at(TODAY)).unwrap();
    assert_eq!(row.price.currency.as_str(), "EUR");
    let lifetimes = |writes: &BTreeMap<u32, Decimal>| -> Vec<(u32, Decimal)> {
        writes
            .iter()
            .map(|(seconds, rate)| (*seconds, *rate))
            .collect()
    };
    assert_eq!(
        lifetimes(&row.price.rates.writes),
        [
            (300, decimal("1.25")),
            (1_800, decimal("1.5")),
            (3_600, decimal("2"))
        ]
    );
    let [tier] = row.price.tiers.as_slice() else {
        panic!("one tier")
    };
    assert_eq!(tier.above_tokens, 100);
    assert_eq!(tier.rates.cached_read_explicit, Some(decimal("0.2")));
    assert_eq!(tier.rates.writes.len(), 3);
    assert_eq!(
        (
            row.min_cache_tokens,
            row.context_tokens,
            row.max_output_tokens
        ),
        (Some(1024), Some(8192), Some(4096))
    );
    assert!(row.is_in_force("2026-01-01".parse().unwrap()));
    assert!(row.is_in_force("2026-12-31".parse().unwrap()));
    assert!(!row.is_in_force("2025-12-31".parse().unwrap()));
    assert!(!row.is_in_force("2027-01-01".parse().unwrap()));
    assert!(!row.is_builtin);
}

#[test]
fn a_read_without_a_price_costs_what_input_costs() {
    let text = one_row("input = 3\noutput = 9");
    let catalog = load(&[&text], true).unwrap();
    let row = catalog.find("openai", "m", at(TODAY)).unwrap();
    assert_eq!(row.price.rates.cached_read, decimal("3"));
    assert_eq!(row.price.rates.write(Some(300)), decimal("3"));
}

#[test]
fn a_wrong_number_is_shown_in_place() {
    check_errors(
        &[
            "schema = 1\n[[models]]\nprovider = \"openai\"\nmodel = \"m\"\ninput = \"2,5\"\noutput = \"8\"\n",
        ],
        "
error: `input` in [[models]]: this is not a decimal number
 --> prices0.toml:5:9
  |
5 | input = \"2,5\"
  |         ^^^^^
  = help: write a price per million tokens, such as \"2.50\"",
    );
}

#[test]
fn an_unknown_key_is_shown_in_place() {
    check_errors(
        &["schema = 1\nprices = 2\n"],
        "
error: unknown key `prices` in a catalog file
 --> prices0.toml:2:1
  |
2 | prices = 2
  | ^^^^^^
  = help: a catalog file has `schema`, `updated`, `models`",
    );
}

#[test]
fn two_prices_for_the_same_days_are_shown_with_both_places() {
    let first = "schema = 1\n[[models]]\nprovider = [\"openai\", \"azure\"]\nmodel = \"m\"\nuntil = 2026-06-30\ninput = 1\noutput = 1\n";
    let second = "schema = 1\n# another\n[[models]]\nprovider = \"azure\"\nmodel = \"x\"\nalso = \"m\"\nfrom = 2026-06-30\ninput = 1\noutput = 1\n";
    check_errors(
        &[first, second],
        "
error: the model `m` of azure has a price for the same days already
 --> prices1.toml:3:1
  |
3 | [[models]]
  | ^^^^^^^^^^
  = help: see prices0.toml:2; give both `from` and `until` so that their days do not overlap, or remove one",
    );
    let next_day = second.replace("06-30", "07-01");
    assert!(load(&[first, &next_day], false).is_ok());
}

#[test]
fn rows_overlap_by_names_and_by_prefixes() {
    let row =
        |keys: &str| format!("[[models]]\nprovider = \"groq\"\n{keys}\ninput = 1\noutput = 1\n");
    let with = |rows: &[&str]| {
        let rows: Vec<String> = rows.iter().map(|keys| row(keys)).collect();
        load(&[&format!("schema = 1\n{}", rows.concat())], true)
    };
    assert!(with(&["model = \"a\"", "model = \"a\""]).is_err());
    assert!(with(&["model = \"a\"\nalso = \"a\""]).is_err());
    assert!(
        with(&[
            "model = \"a\"\nprefixes = \"p\"",
            "model = \"b\"\nprefixes = \"p\""
        ])
        .is_err()
    );
    // A name and a prefix of the same letters mean different models.
    assert!(with(&["model = \"a\"", "model = \"b\"\nprefixes = \"a\""]).is_ok());
    // A long row that covers two short ones which do not touch each other.
    let whole = "model = \"a\"\nfrom = 2026-01-01\nuntil = 2026-12-31";
    let march = "model = \"a\"\nfrom = 2026-03-01\nuntil = 2026-03-31";
    let may = "model = \"a\"\nfrom = 2026-05-01\nuntil = 2026-05-31";
    assert!(with(&[march, may]).is_ok());
    let errors = with(&[whole, march, may]).unwrap_err();
    assert_eq!(errors.matches("error:").count(), 2, "{errors}");
}

#[test]
fn everything_wrong_is_reported_at_once() {
    for (keys, expected) in [
        ("output = 1", "`input` is missing in [[models]]"),
        ("input = 1", "`output` is missing in [[models]]"),
        (
            "input = 1\noutput = 1\ncurrency = \"dollars\"",
            "this is not a currency",
        ),
        ("input = 1\noutput = 1\nfrom = 2026-13-01", "invalid"),
        (
            "input = 1\noutput = 1\nfrom = \"soon\"",
            "this is not a day",
        ),
        (
            "input = 1\noutput = 1\nfrom = 2026-01-01T00:00:00Z",
            "this is not a day",
        ),
        (
            "input = 1\noutput = 1\nfrom = 2026-02-01\nuntil = 2026-01-01",
            "before `from`",
        ),
        (
            "input = 1\noutput = 1\nwrites = { soon = 1 }",
            "`soon` is not a lifetime",
        ),
        (
            "input = 1\noutput = 1\nwrites = { 0m = 1 }",
            "`0m` is not a lifetime",
        ),
        (
            "input = 1\noutput = 1\nwrites = { 99999999h = 1 }",
            "not a lifetime",
        ),
        (
            "input = 1\noutput = 1\nwrites = { 5m = 1, 300 = 2 }",
            "300 seconds is there twice",
        ),
        (
            "input = 1\noutput = 1\nwrites = \"1\"",
            "`writes` in [[models]]: this is a string",
        ),
        (
            "input = 1\noutput = 1\nmin_cache_tokens = -1",
            "out of range",
        ),
        (
            "input = 1\noutput = 1\nmin_cache_tokens = 1.5",
            "this is a float",
        ),
        (
            "input = 1\noutput = 1\ntiers = [{ input = 1, output = 1 }]",
            "`above_tokens` is missing",
        ),
        ("input = 1\noutput = 1\ntiers = 3", "not a list of tables"),
        ("input = 1\noutput = 1\ntiers = [3]", "not a table"),
        (
            "input = 1\noutput = 1\ncached_read = 0.1\ntiers = [{ above_tokens = 9, input = 2, output = 2 }]",
            "the same rates as its row",
        ),
        (
            "input = 1\noutput = 1\ntiers = [{ above_tokens = 9, input = 2, output = 2 }, { above_tokens = 9, input = 3, output = 3 }]",
            "ascending",
        ),
        ("input = 1\noutput = 1\nprefixes = \"\"", "names of 1 to"),
        ("input = 1\noutput = 1\nalso = [1]", "not all strings"),
        ("input = 1\noutput = 1\nprice = 1", "unknown key `price`"),
        (
            "input = 1\noutput = 1\nstorage_whole_hours = 1",
            "this is an integer",
        ),
    ] {
        let errors = load(&[&one_row(keys)], false).unwrap_err();
        assert!(errors.contains(expected), "{keys}: {errors}");
    }
    let both = one_row("input = \"x\"\noutput = \"y\"\nunknown = 1");
    let errors = load(&[&both, "schema = 2\n"], false).unwrap_err();
    assert_eq!(errors.matches("error:").count(), 4, "{errors}");
    let provider =
        "schema = 1\n[[models]]\nprovider = \"opena\"\nmodel = \"m\"\ninput = 1\noutput = 1\n";
    let errors = load(&[provider], false).unwrap_err();
    assert!(errors.contains("there is no provider `opena`"), "{errors}");
    for (text, expected) in [
        ("", "schema 1"),
        ("schema = 0x1\n", "schema 1"),
        ("schema = 1\nmodels = 1\n", "not a list of tables"),
        ("schema = 1\n[[models]]\n", "`provider` is missing"),
        ("schema = [", "prices0.toml:1:"),
    ] {
        let errors = load(&[text], false).unwrap_err();
        assert!(errors.contains(expected), "{text}: {errors}");
    }
}

#[test]
fn the_documented_example_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/prices.md");
    let text = std::fs::read_to_string(path).unwrap();
    let example = text
        .split("```")
        .find_map(|block| {
            block
                .strip_prefix("toml\n")
                .filter(|block| block.starts_with("schema"))
        })
        .unwrap();
    let catalog = load(&[example], false).unwrap();
    let own = catalog
        .find("azure", "gpt-4o-2024-08-06", at(TODAY))
        .unwrap();
    assert_eq!(own.price.rates.input, decimal("2.2"));
    let dated = |day| catalog.find("gemini", "gemini-example", at(day)).is_some();
    assert!(dated("2027-01-01") && !dated("2027-07-01"));
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let folder = TempDir::new().unwrap();
    let errors = Catalog::load(&[folder.path().join("absent.toml")], false).unwrap_err();
    assert!(errors.to_string().contains("absent.toml"), "{errors}");

    let large = folder.path().join("large.toml");
    let text = "#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1);
    std::fs::write(&large, text).unwrap();
    let errors = Catalog::load(&[large], false).unwrap_err().to_string();
    assert!(errors.contains("larger than"), "{errors}");
}
