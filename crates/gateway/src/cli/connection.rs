//! Which server a command talks to, and with which key.

use std::net::IpAddr;

use crate::client::{Client, DEFAULT_URL};
use crate::config::Config;
use crate::keys::Secret;
use crate::serve::DataDir;

use super::{Failure, Session};

/// The server, by `--url`, HOLDFAST_URL, what the owner of the data directory wrote down, or the configuration; the
/// key by HOLDFAST_API_KEY or, on this machine, the file of the first start.
pub(super) fn client(session: &Session) -> Result<Client, Failure> {
    let named = session
        .url
        .as_deref()
        .or_else(|| session.environment.get("HOLDFAST_URL"));
    let key = session.environment.get("HOLDFAST_API_KEY").map(Secret::new);
    // With both given, a broken configuration file is no obstacle.
    if let (Some(url), Some(key)) = (named, &key) {
        return Ok(Client::new(url, Some(key.clone()))?);
    }
    let config = session.config()?;
    let data_dir = DataDir::new(&config.server.data_dir);
    let url = match named {
        Some(url) => url.to_owned(),
        None => data_dir
            .address()
            .unwrap_or_else(|| configured_url(&config)),
    };
    // The key of this machine's server is nobody else's business.
    let key = key.or_else(|| data_dir.first_key().filter(|_| is_this_machine(&url)));
    Ok(Client::new(&url, key)?)
}

/// Where the server listens by its configuration.
pub(super) fn configured_url(config: &Config) -> String {
    let listen = config.server.listen;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    if listen.port() == 0 {
        return DEFAULT_URL.into();
    }
    if listen.ip().is_unspecified() {
        return format!("{scheme}://127.0.0.1:{}", listen.port());
    }
    format!("{scheme}://{listen}")
}

fn is_this_machine(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn the_first_key_goes_to_this_machine_only() {
        for url in [
            "http://127.0.0.1:8080",
            "http://localhost",
            "http://[::1]:80",
            "http://127.8.9.1",
        ] {
            assert!(is_this_machine(url), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "https://example.com",
            "http://localhost.example.com",
            "nonsense",
        ] {
            assert!(!is_this_machine(url), "{url}");
        }
    }
}
