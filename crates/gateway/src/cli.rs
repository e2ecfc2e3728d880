//! The command line. Results go to standard output, progress and errors to standard error.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use reqwest::Method;
use serde_json::Value;

use crate::client::Patience;
use crate::config::{Config, Environment, Flags};

mod administration;
mod audit;
mod budget;
mod chat;
mod connection;
mod contexts;
mod doctor;
mod failure;
mod key;
mod limits;
mod models;
mod output;
mod project;
mod seconds;
mod serve;
mod storage;
mod usage;

pub(crate) use failure::Failure;
use output::Output;

/// A gateway for language models that keeps contexts: store a long text once, chat with it by its id.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct GlobalFlags {
    /// Configuration file [env: HOLDFAST_CONFIG] [default: holdfast.toml, if it is there]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    config: Option<PathBuf>,
    /// Folder of the server's data [env: HOLDFAST_DATA_DIR] [default: ~/.local/share/holdfast]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    data_dir: Option<PathBuf>,
    /// Server to talk to [env: HOLDFAST_URL] [default: the one that uses the data directory]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Serve(serve::ServeArguments),
    /// Chat with a model, with or without a context
    Chat(chat::ChatArguments),
    /// Create and manage contexts
    #[command(subcommand)]
    Context(contexts::ContextCommand),
    /// Fetch and manage model files
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Sum up what was used and what it cost
    Usage(usage::UsageArguments),
    /// Seal what is stored
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// Create, change and revoke API keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Show what may be spent, and what is spent of it
    Budget(budget::BudgetCommand),
    /// Create and change projects
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Show what was done to projects, keys, configuration and storage, and check that the record is whole
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Check the configuration, print its schema, or let a running server read it again
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Say whether the server can work; fails if not
    Health,
    /// Find out why something does not work
    Doctor(doctor::DoctorArguments),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is valid, and if not, where
    Check {
        /// The file to check [default: the one that `serve` would read]
        file: Option<PathBuf>,
    },
    /// Print the JSON schema of holdfast.toml
    Schema,
    /// Let the running server read its configuration again
    Reload,
}

/// What every command gets.
struct Session {
    output: Output,
    environment: Environment,
    flags: Flags,
    url: Option<String>,
}

impl Session {
    /// The configuration without the server's secrets.
    fn config(&self) -> Result<Config, Failure> {
        Config::load_without_secrets(&self.flags, &self.environment).map_err(Failure::from)
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Serve(_)) {
        serve::begin_again_with_short_spins();
    }
    let environment = Environment::of_process();
    let session = Session {
        output: Output::of_process(&environment),
        environment,
        flags: Flags {
            config: cli.global.config,
            listen: None,
            data_dir: cli.global.data_dir,
        },
        url: cli.global.url,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            session
                .output
                .failure(&Failure::new(format!("can't start: {error}")));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dispatch(&session, cli.command));
    // What is still blocked (a line being typed, a file being copied) is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            session.output.failure(&failure);
            failure.exit_code()
        }
    }
}

async fn dispatch(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(arguments) => serve::run(session, arguments).await,
        Command::Chat(arguments) => chat::run(session, arguments).await,
        Command::Context(command) => contexts::run(session, command).await,
        Command::Models(command) => models::run(session, command).await,
        Command::Usage(arguments) => usage::run(session, arguments).await,
        Command::Storage(command) => storage::run(session, command).await,
        Command::Key(command) => key::run(session, command).await,
        Command::Budget(command) => budget::run(session, command).await,
        Command::Audit(command) => audit::run(session, command).await,
        Command::Project(command) => project::run(session, command).await,
        Command::Config(ConfigCommand::Schema) => {
            session.output.raw(&crate::config::schema());
            Ok(())
        }
        Command::Config(ConfigCommand::Reload) => reload_config(session).await,
        Command::Config(ConfigCommand::Check { file }) => check_config(session, file),
        Command::Health => health(session).await,
        Command::Doctor(arguments) => doctor::run(session, &arguments).await,
    }
}

/// The server reads its own file, which need not be the one that this command line would read.
async fn reload_config(session: &Session) -> Result<(), Failure> {
    let client = connection::client(session)?;
    let path = ["admin", "v1", "config", "reload"];
    let reloaded = client
        .call(Method::POST, &path, &[], None, Patience::Short)
        .await?;
    session.output.line("OK: the configuration applies");
    let names = reloaded["needs_restart"].as_array();
    for name in names.into_iter().flatten().filter_map(Value::as_str) {
        session
            .output
            .line(&format!("needs a restart: {}", output::plain(name)));
    }
    Ok(())
}

/// For whoever restarts containers: the exit code is the answer.
async fn health(session: &Session) -> Result<(), Failure> {
    let client = connection::client(session)?;
    client
        .call(Method::GET, &["readyz"], &[], None, Patience::Short)
        .await?;
    session.output.line("OK");
    Ok(())
}

fn check_config(session: &Session, file: Option<PathBuf>) -> Result<(), Failure> {
    let mut flags = session.flags.clone();
    flags.config = file.or(flags.config);
    let config = Config::load(&flags, &session.environment)?;
    let checked = match &config.file {
        Some(path) => path.display().to_string(),
        None => "no configuration file, so the defaults apply".into(),
    };
    session.output.line(&format!("OK: {checked}"));
    Ok(())
}

#[cfg(test)]
mod tests;
