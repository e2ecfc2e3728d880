//! HTTPS on the listener, with certificates made by the tests.

use std::path::Path;

use holdfast_emulators::Emulator;
use holdfast_emulators::families::compatible::Compatible;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder, Identity, Version};
use serde_json::json;
use tempfile::TempDir;

use crate::process::{KEY, Process, config};
use crate::say;

/// One who signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Certificate and key in PEM.
    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages.push(purpose);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a server's certificate and key.
    fn serve(&self, folder: &Path) {
        let (cert, key) = self.sign("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
        std::fs::write(folder.join("cert.pem"), cert).unwrap();
        std::fs::write(folder.join("key.pem"), key).unwrap();
    }

    /// A client that trusts only this authority.
    fn client(&self) -> ClientBuilder {
        let root = Certificate::from_pem(self.pem.as_bytes()).unwrap();
        Client::builder().no_proxy().tls_certs_only([root])
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), "key-one").unwrap();
    folder
}

fn with_tls(base: &str, more: &str) -> String {
    let text = config(base, "key", &["m"]);
    format!("{text}\n[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n{more}")
}

async fn scene(authority: &Authority, more: &str) -> (Emulator, Process) {
    let emulator = Emulator::start(Compatible::vllm()).await;
    let folder = folder();
    authority.serve(folder.path());
    let process = Process::start_in(folder, &with_tls(&emulator.url, more), |_| {}).await;
    (emulator, process)
}

async fn chat(client: &Client, url: &str, stream: bool) -> reqwest::Result<(Version, String)> {
    let body = json!({"model": "m", "messages": [say("user", "hi")], "stream": stream});
    let response = client
        .post(format!("{url}/v1/chat/completions"))
        .bearer_auth(KEY)
        .json(&body)
        .send()
        .await?
        .error_for_status()?;
    Ok((response.version(), response.text().await?))
}

#[tokio::test]
async fn both_versions_of_http_are_served_over_tls_and_plain_text_is_not() {
    let authority = Authority::new();
    let (_emulator, process) = scene(&authority, "").await;
    assert!(process.url.starts_with("https://"), "{}", process.url);
    let client = authority.client().build().unwrap();
    let (version, answer) = chat(&client, &process.url, true).await.unwrap();
    assert_eq!(version, Version::HTTP_2);
    assert!(answer.trim_end().ends_with("data: [DONE]"), "{answer}");
    let older = authority.client().http1_only().build().unwrap();
    let (version, _) = chat(&older, &process.url, false).await.unwrap();
    assert_eq!(version, Version::HTTP_11);

    let plain = process.url.replace("https://", "http://");
    assert!(chat(&client, &plain, false).await.is_err());
    let stranger = Authority::new().client().build().unwrap();
    assert!(chat(&stranger, &process.url, false).await.is_err());
}

#[tokio::test]
async fn a_reload_takes_the_certificate_that_the_files_hold_now() {
    let (old, new) = (Authority::new(), Authority::new());
    let (_emulator, process) = scene(&old, "").await;
    let kept = old.client().build().unwrap();
    chat(&kept, &process.url, false).await.unwrap();

    new.serve(&process.path(""));
    process.signal("HUP").await;
    process.logs("the configuration has been reloaded").await;
    // A connection that is open goes on; a new one is shown the new certificate.
    chat(&kept, &process.url, false).await.unwrap();
    let client = new.client().build().unwrap();
    chat(&client, &process.url, false).await.unwrap();
    let client = old.client().build().unwrap();
    assert!(chat(&client, &process.url, false).await.is_err());

    // A key that is not the certificate's changes nothing.
    let (_, key) = new.sign("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    std::fs::write(process.path("key.pem"), key).unwrap();
    process.signal("HUP").await;
    process.logs("does not belong to the certificate").await;
    let client = new.client().build().unwrap();
    chat(&client, &process.url, false).await.unwrap();
}

#[tokio::test]
async fn clients_without_a_certificate_stay_outside_where_one_is_asked_for() {
    let authority = Authority::new();
    let own = Authority::new();
    let folder = folder();
    authority.serve(folder.path());
    std::fs::write(folder.path().join("clients.pem"), &own.pem).unwrap();
    let emulator = Emulator::start(Compatible::vllm()).await;
    let text = with_tls(&emulator.url, "client_ca = \"clients.pem\"\n");
    let process = Process::start_in(folder, &text, |_| {}).await;

    let identity = |by: &Authority| {
        let (cert, key) = by.sign("client", ExtendedKeyUsagePurpose::ClientAuth);
        Identity::from_pem(format!("{key}{cert}").as_bytes()).unwrap()
    };
    let client = authority.client().identity(identity(&own));
    chat(&client.build().unwrap(), &process.url, false)
        .await
        .unwrap();
    let client = authority.client().build().unwrap();
    assert!(chat(&client, &process.url, false).await.is_err());
    let client = authority.client().identity(identity(&authority));
    let client = client.build().unwrap();
    assert!(chat(&client, &process.url, false).await.is_err());
}

#[tokio::test]
async fn files_that_do_not_fit_are_refused_at_the_start_at_their_place() {
    let authority = Authority::new();
    let folder = folder();
    authority.serve(folder.path());
    let text = with_tls("http://127.0.0.1:9", "");
    let line = text.lines().count();
    let refused = async |expected: &str, place: String| {
        let arguments = ["serve", "--listen", "127.0.0.1:0"];
        let output = Process::run_alone(&folder, &text, &arguments).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(expected) && told.contains(&place), "{told}");
    };
    let (other, key) = authority.sign("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("key.pem"), key).unwrap();
    refused("does not belong to the certificate", format!(":{line}:7")).await;
    std::fs::write(path("key.pem"), other).unwrap();
    refused("has no private key in PEM", format!(":{line}:7")).await;
    std::fs::write(path("cert.pem"), "nonsense").unwrap();
    refused("has no certificate in PEM", format!(":{}:8", line - 1)).await;
    std::fs::remove_file(path("cert.pem")).unwrap();
    refused("can't be read", format!(":{}:8", line - 1)).await;
}
