//! `holdfast project`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::administration::Administration;
use super::key::{text, words};
use super::limits::{self, ContextLimitArguments, LimitArguments};
use super::output::plain;
use super::{Failure, Session};

#[derive(Debug, Subcommand)]
pub(super) enum ProjectCommand {
    /// Make a project
    Create {
        /// Lower-case letters, digits and `-`, at most 63
        name: String,
        #[command(flatten)]
        settings: ProjectArguments,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List projects
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a project's settings
    Show {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Change a project's settings; those that are not named stay
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        settings: ProjectArguments,
    },
}

#[derive(Debug, Args)]
pub(super) struct ProjectArguments {
    /// What people call it
    #[arg(long)]
    display_name: Option<String>,
    /// A model that its keys may use, or the beginning of names followed by `*`; can be given more than once
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// The model of chats that name none
    #[arg(long, value_name = "NAME")]
    default_model: Option<String>,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    context_limits: ContextLimitArguments,
}

impl ProjectArguments {
    fn body(&self) -> Map<String, Value> {
        let mut body = Map::new();
        if let Some(display_name) = &self.display_name {
            body.insert("display_name".to_owned(), display_name.as_str().into());
        }
        if !self.models.is_empty() {
            body.insert("models".to_owned(), json!(self.models));
        }
        if let Some(model) = &self.default_model {
            body.insert("default_model".to_owned(), model.as_str().into());
        }
        self.limits.add_to(&mut body);
        self.context_limits.add_to(&mut body);
        body
    }
}

pub(super) async fn run(session: &Session, command: ProjectCommand) -> Result<(), Failure> {
    let admin = Administration::open(session).await?;
    let done = run_with(&admin, session, command).await;
    admin.close().await;
    done
}

async fn run_with(
    admin: &Administration,
    session: &Session,
    command: ProjectCommand,
) -> Result<(), Failure> {
    match command {
        ProjectCommand::Create {
            name,
            settings,
            json,
        } => {
            let mut body = settings.body();
            body.insert("name".to_owned(), name.as_str().into());
            let created = admin.create_project(&Value::Object(body)).await;
            let created =
                created.map_err(|failure| failure.doing(&format!("create `{}`", plain(&name))))?;
            match json {
                true => session.output.json(&created),
                false => session.output.note(&format!("created {}", plain(&name))),
            }
        }
        ProjectCommand::List { json } => {
            let projects = admin.projects().await;
            let projects = projects.map_err(|failure| failure.doing("list the projects"))?;
            match json {
                true => session.output.json(&Value::Array(projects)),
                false => show(session, &projects),
            }
        }
        ProjectCommand::Show { name, json } => {
            let project = admin.project(&name).await;
            let project =
                project.map_err(|failure| failure.doing(&format!("show `{}`", plain(&name))))?;
            match json {
                true => session.output.json(&project),
                false => show(session, &[project]),
            }
        }
        ProjectCommand::Set { name, settings } => {
            let body = Value::Object(settings.body());
            let changed = admin.update_project(&name, &body).await;
            changed.map_err(|failure| failure.doing(&format!("change `{}`", plain(&name))))?;
            session.output.note(&format!("changed {}", plain(&name)));
        }
    }
    Ok(())
}

fn show(session: &Session, projects: &[Value]) {
    let row = |project: &Value| {
        vec![
            text(project, "name"),
            text(project, "display_name"),
            words(&project["models"]),
            text(project, "default_model"),
            limits::shown(project),
        ]
    };
    session.output.table(
        &["NAME", "CALLED", "MODELS", "DEFAULT MODEL", "LIMITS"],
        projects.iter().map(row).collect(),
        "no projects",
    );
}
