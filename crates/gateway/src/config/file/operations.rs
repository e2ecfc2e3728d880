//! Settings for those who run a server, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Located;

/// HTTPS: files in PEM, relative to the configuration file. They are read again at each reload.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(in crate::config) struct TlsTable {
    /// File of the certificate, followed by those that vouch for it.
    #[schemars(required)]
    pub(in crate::config) cert: Option<Located<String>>,
    /// File of the certificate's private key.
    #[schemars(required)]
    pub(in crate::config) key: Option<Located<String>>,
    /// File of the certificates that clients' certificates are signed with: only clients that have one are let in.
    /// Default: clients need no certificate.
    pub(in crate::config) client_ca: Option<Located<String>>,
}
