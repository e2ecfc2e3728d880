//! What a path of Google's means.

use axum::http::Method;
use holdfast_protocol::dialect::gemini::client::ResourceForm;
use holdfast_protocol::{ApiError, ContextId};
use percent_encoding::percent_decode_str;

use crate::server::surface::GOOGLE_VERBS;

/// Longest name of a model that is looked for, bytes.
const NAME_BYTES_MAX: usize = 512;

/// A request's resource and what is to be done with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) target: Target,
    /// How names in the answer look.
    pub(super) form: ResourceForm,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Generate { model: String, streams: bool },
    Count { model: String },
    Models,
    Model { name: String },
    CreateCached,
    ListCached,
    GetCached { id: ContextId },
    PatchCached { id: ContextId },
    DeleteCached { id: ContextId },
}

impl Call {
    /// Reads method and path.
    ///
    /// # Errors
    /// There is no such resource, or nothing that the method could do with it.
    pub(super) fn of(method: &Method, path: &str) -> Result<Call, ApiError> {
        let segments = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8().map(String::from))
            .collect::<Result<Vec<String>, _>>()
            .map_err(|_| ApiError::not_found())?;
        // One version, or two where a client puts its own behind a base URL that has one.
        let versions = segments
            .iter()
            .take(2)
            .take_while(|segment| matches!(segment.as_str(), "v1" | "v1beta" | "v1beta1"))
            .count();
        let names: Vec<&str> = segments[versions..].iter().map(String::as_str).collect();
        let (form, names) = match names.as_slice() {
            // What Google's SDK writes where it has neither.
            ["projects", "None", "locations", "None", rest @ ..] => (ResourceForm::GeminiApi, rest),
            ["projects", project, "locations", location, rest @ ..] => (
                ResourceForm::Vertex {
                    project: (*project).to_owned(),
                    location: (*location).to_owned(),
                },
                rest,
            ),
            names => (ResourceForm::GeminiApi, names),
        };
        let names = match names {
            ["publishers", "google", rest @ ..] => rest,
            names => names,
        };
        let target = match names {
            ["models"] if *method == Method::GET => Target::Models,
            ["models", rest @ ..] if !rest.is_empty() => of_model(method, &rest.join("/"))?,
            ["cachedContents"] if *method == Method::POST => Target::CreateCached,
            ["cachedContents"] if *method == Method::GET => Target::ListCached,
            ["models"] | ["cachedContents"] => return Err(ApiError::method_not_allowed()),
            ["cachedContents", id] => of_cached(method, id.parse()?)?,
            _ => return Err(ApiError::not_found()),
        };
        Ok(Call { target, form })
    }
}

fn of_model(method: &Method, rest: &str) -> Result<Target, ApiError> {
    if rest.len() > NAME_BYTES_MAX {
        return Err(ApiError::not_found());
    }
    let (model, verb) = match rest.rsplit_once(':') {
        Some((model, verb)) if GOOGLE_VERBS.contains(&verb) => (model.to_owned(), verb),
        // Names have colons, too. A POST to a model's name alone is a method that is not served.
        _ if *method == Method::GET => {
            return Ok(Target::Model {
                name: rest.to_owned(),
            });
        }
        _ => return Err(ApiError::not_found()),
    };
    let target = match verb {
        "generateContent" => Target::Generate {
            model,
            streams: false,
        },
        "streamGenerateContent" => Target::Generate {
            model,
            streams: true,
        },
        _ => Target::Count { model },
    };
    match *method {
        Method::POST => Ok(target),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn of_cached(method: &Method, id: ContextId) -> Result<Target, ApiError> {
    Ok(match *method {
        Method::GET => Target::GetCached { id },
        Method::PATCH => Target::PatchCached { id },
        Method::DELETE => Target::DeleteCached { id },
        _ => return Err(ApiError::method_not_allowed()),
    })
}

#[cfg(test)]
mod tests;
