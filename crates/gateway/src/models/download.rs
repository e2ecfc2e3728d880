//! Downloads over HTTP that can be resumed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::ModelError;
use super::pull::Progress;

/// A download without a byte for so long has failed.
const STALLED_SECONDS: u64 = 60;

/// Where to find a file, and what is known of it.
pub(super) struct Remote {
    pub(super) url: Url,
    pub(super) token: Option<String>,
    /// Hexadecimal, from the server.
    pub(super) sha256: Option<String>,
}

/// Asks a Hugging Face server for the checksum of a file. Large files carry it in the answer to the first request,
/// before the redirect to where the bytes are (the hub's documentation of `x-linked-etag`, 2026-11).
pub(super) async fn hugging_face(
    endpoint: &str,
    token: Option<&str>,
    repository: &str,
    file: &str,
    revision: &str,
) -> Result<Remote, ModelError> {
    let bad = || ModelError::Source(format!("HF_ENDPOINT `{endpoint}` is not a URL"));
    let mut url = Url::parse(endpoint).map_err(|_| bad())?;
    url.path_segments_mut()
        .map_err(|()| bad())?
        .pop_if_empty()
        .extend(repository.split('/'))
        .push("resolve")
        .push(revision)
        .extend(file.split('/'));
    let client = client(Policy::none())?;
    let mut asked = url.clone();
    let mut sha256 = None;
    // A renamed repository answers with a redirect to its new name, on the same host.
    for _ in 0..5 {
        let mut request = client.head(asked.clone()).timeout(Duration::from_secs(30));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(&asked, &error))?;
        let status = response.status();
        if let Some(etag) = response
            .headers()
            .get("x-linked-etag")
            .and_then(|value| value.to_str().ok())
        {
            sha256 = Some(etag.trim_matches('"').to_owned()).filter(|etag| is_sha256(etag));
        }
        if !status.is_redirection() {
            check_status(&asked, status)?;
            break;
        }
        let target = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|location| asked.join(location).ok());
        match target {
            Some(target) if sha256.is_none() && target.host_str() == asked.host_str() => {
                asked = target
            }
            _ => break,
        }
    }
    Ok(Remote {
        url,
        token: token.map(str::to_owned),
        sha256,
    })
}

/// Loads the file into `path`, continuing what an earlier attempt left there. Whether something was continued is
/// returned, because a wrong checksum then calls for one more attempt from the start.
pub(super) async fn fetch(
    remote: &Remote,
    path: &Path,
    progress: &dyn Progress,
) -> Result<bool, ModelError> {
    let client = client(Policy::limited(10))?;
    let present = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut response = get(&client, remote, present).await?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        // The part is as long as the file, or longer: only the checksum can tell.
        return Ok(true);
    }
    let resumed = response.status() == StatusCode::PARTIAL_CONTENT && starts_at(&response, present);
    if response.status() == StatusCode::PARTIAL_CONTENT && !resumed {
        response = get(&client, remote, 0).await?;
    }
    check_status(&remote.url, response.status())?;
    let mut done = if resumed { present } else { 0 };
    progress.step(
        "downloading",
        response.content_length().map(|length| length + done),
    );
    let mut file = File::options()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(path)
        .map_err(ModelError::io("can't write the download"))?;
    loop {
        let chunk = response.chunk().await.map_err(|error| {
            ModelError::Download(format!(
                "the download broke off after {done} bytes ({}): run the same command again to continue it",
                reason(&error)
            ))
        })?;
        let Some(chunk) = chunk else {
            return Ok(resumed);
        };
        file.write_all(&chunk)
            .map_err(ModelError::io("can't write the download"))?;
        done += chunk.len() as u64;
        progress.position(done);
    }
}

/// Whether a text is 64 hexadecimal digits.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn client(redirects: Policy) -> Result<Client, ModelError> {
    Client::builder()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(STALLED_SECONDS))
        .redirect(redirects)
        .build()
        .map_err(|error| {
            ModelError::Download(format!("no HTTP client can be made: {}", reason(&error)))
        })
}

async fn get(client: &Client, remote: &Remote, from: u64) -> Result<Response, ModelError> {
    let mut request = client.get(remote.url.clone());
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    if let Some(token) = &remote.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    request
        .send()
        .await
        .map_err(|error| unreachable(&remote.url, &error))
}

fn starts_at(response: &Response, offset: u64) -> bool {
    response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|range| range.starts_with(&format!("bytes {offset}-")))
}

fn check_status(url: &Url, status: StatusCode) -> Result<(), ModelError> {
    let host = url.host_str().unwrap_or_default();
    let hint = match status.as_u16() {
        200..=299 => return Ok(()),
        401 | 403 => {
            "it wants credentials: for Hugging Face, set HF_TOKEN to a token that may read the repository"
        }
        404 => "there is no such file: check owner, repository, file name and revision",
        429 => "it is busy: try again later",
        _ => "try again later",
    };
    Err(ModelError::Download(format!(
        "{host} answered {status}; {hint}"
    )))
}

fn unreachable(url: &Url, error: &reqwest::Error) -> ModelError {
    ModelError::Download(format!(
        "{} can't be reached ({}): check the network, or fetch the file elsewhere and give it with `file:PATH`",
        url.host_str().unwrap_or_default(),
        reason(error)
    ))
}

/// The innermost cause: the outer ones repeat the URL, which may carry credentials.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::eq(
        cause,
        std::ptr::from_ref(error) as *const dyn std::error::Error,
    ) {
        return "the connection failed".into();
    }
    cause.to_string()
}
