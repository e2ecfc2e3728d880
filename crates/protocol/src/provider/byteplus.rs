//! BytePlus ModelArk, the same service elsewhere (facts section 2.5).

use super::families;
use super::{AuthScheme, Provider, RawPath, UpstreamDialectName};

pub(super) const PROVIDER: Provider = Provider {
    name: "byteplus",
    title: "BytePlus ModelArk",
    dialect: UpstreamDialectName::ArkResponses,
    other_dialects: &[
        UpstreamDialectName::ArkContext,
        UpstreamDialectName::OpenaiChat,
    ],
    base_url: Some("https://ark.ap-southeast.bytepluses.com/api/v3"),
    auth: AuthScheme::Bearer,
    raw: &[RawPath::Embeddings, RawPath::ImageGenerations],
    worker_health: None,
    rules: families::ark,
};
