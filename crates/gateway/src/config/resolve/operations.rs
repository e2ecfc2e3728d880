//! Settings for those who run a server.

use super::super::TlsConfig;
use super::super::file::{Located, Server};
use super::super::problems::Problems;
use super::{Scope, Secrets};
use crate::tls::{Tls, TlsFile, TlsFiles};

/// `None` also where a file is not named, which has been reported.
pub(super) fn tls(file: &Server, scope: &Scope<'_>, problems: &mut Problems) -> Option<TlsConfig> {
    let table = file.tls.as_ref()?.get();
    let path = |value: &Located<String>| scope.folder.join(value.get());
    let (cert, key) = (table.cert.as_ref()?, table.key.as_ref()?);
    let files = TlsFiles {
        cert: path(cert),
        key: path(key),
        client_ca: table.client_ca.as_ref().map(path),
    };
    if scope.secrets == Secrets::Ignore {
        return Some(TlsConfig {
            files,
            loaded: None,
        });
    }
    let loaded = Tls::load(&files).map_err(|error| {
        let (name, span) = match error.file {
            TlsFile::Cert => ("cert", Some(cert.span())),
            TlsFile::Key => ("key", Some(key.span())),
            TlsFile::ClientCa => ("client_ca", table.client_ca.as_ref().map(Located::span)),
        };
        problems.add_with_help(span, format!("`{name}`: {}", error.message), error.help);
    });
    Some(TlsConfig {
        files,
        loaded: loaded.ok(),
    })
}
