//! AWS Signature Version 4.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use holdfast_protocol::upstream::{Failure, FailureKind};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::app::Clock;
use crate::keys::Secret;

/// Signs requests for one service in one region.
pub(crate) struct AwsSigner {
    identity: Identity,
    region: String,
    service: &'static str,
    clock: Clock,
}

impl AwsSigner {
    pub(super) fn new(
        access_key_id: &str,
        secret_access_key: &Secret,
        session_token: Option<&Secret>,
        region: &str,
        service: &'static str,
        clock: &Clock,
    ) -> Self {
        let credentials = Credentials::new(
            access_key_id,
            secret_access_key.expose(),
            session_token.map(|token| token.expose().to_owned()),
            None,
            "holdfast",
        );
        AwsSigner {
            identity: credentials.into(),
            region: region.to_owned(),
            service,
            clock: clock.clone(),
        }
    }

    pub(super) fn sign(
        &self,
        method: &reqwest::Method,
        url: &reqwest::Url,
        headers: &mut HeaderMap,
        body: &[Bytes],
    ) -> Result<(), Failure> {
        let failed = || Failure::new(FailureKind::Unauthorized, "the request can't be signed");
        let now_ms = u64::try_from((self.clock)()).unwrap_or(0);
        let time: SystemTime = UNIX_EPOCH + Duration::from_millis(now_ms);
        let parameters = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name(self.service)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| failed())?
            .into();
        // The signature covers a hash of the whole body, so that the pieces must be one for once.
        let body = body.concat();
        let signed_headers: Vec<(&str, &str)> = headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let request = SignableRequest::new(
            method.as_str(),
            url.as_str(),
            signed_headers.into_iter(),
            SignableBody::Bytes(&body),
        )
        .map_err(|_| failed())?;
        let (instructions, _signature) = sign(request, &parameters)
            .map_err(|_| failed())?
            .into_parts();
        let (new_headers, _) = instructions.into_parts();
        for header in new_headers {
            let name = HeaderName::from_static(header.name());
            let mut value = HeaderValue::try_from(header.value()).map_err(|_| failed())?;
            value.set_sensitive(header.sensitive());
            headers.insert(name, value);
        }
        Ok(())
    }
}
