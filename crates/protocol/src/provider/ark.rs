//! Volcengine Ark (facts section 2.5).

use super::families;
use super::{AuthScheme, Provider, RawPath, UpstreamDialectName};

pub(super) const PROVIDER: Provider = Provider {
    name: "ark",
    title: "Volcengine Ark",
    dialect: UpstreamDialectName::ArkResponses,
    other_dialects: &[
        UpstreamDialectName::ArkContext,
        UpstreamDialectName::OpenaiChat,
    ],
    base_url: Some("https://ark.cn-beijing.volces.com/api/v3"),
    auth: AuthScheme::Bearer,
    raw: &[RawPath::Embeddings, RawPath::ImageGenerations],
    worker_health: None,
    rules: families::ark,
};
