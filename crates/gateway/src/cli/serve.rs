//! `holdfast serve`.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use clap::Args;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry, reload};

use crate::config::{Config, Flags, LogConfig, LogFormat};
use crate::serve::{Announcement, ConfigSource, SetLogFilter};

use super::output::Output;
use super::{Failure, Session};

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Address and port; port 0 takes any free one [env: HOLDFAST_LISTEN] [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

/// How often a thread of the engine looks for its next piece of work before it sleeps. By default libgomp's threads
/// look for milliseconds, and where anything else wants the cores (another engine, the server's own threads, a compiler)
/// each waits for one that is not running: measured beside one busy process, prefill fell to a quarter, and with two
/// engines on two cores to a twentieth. With this value alone on the machine nothing is lost.
const SPINS: (&str, &str) = ("GOMP_SPINCOUNT", "1000");

/// Starts this program once more, in the same process, with [`SPINS`] in its environment: libgomp reads it before `main`.
/// Does nothing when the person who started it has chosen, and goes on without when it can't be done.
pub(super) fn begin_again_with_short_spins() {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let (name, value) = SPINS;
        if std::env::var_os(name).is_some() || std::env::var_os("OMP_WAIT_POLICY").is_some() {
            return;
        }
        if let Ok(program) = std::env::current_exe() {
            // Returns only if it failed; the server then runs as it is.
            let _ = std::process::Command::new(program)
                .args(std::env::args_os().skip(1))
                .env(name, value)
                .exec();
        }
    }
}

pub(super) async fn run(session: &Session, arguments: ServeArguments) -> Result<(), Failure> {
    let flags = Flags {
        listen: arguments.listen,
        ..session.flags.clone()
    };
    let config = Config::load(&flags, &session.environment)?;
    let source = ConfigSource {
        flags,
        environment: session.environment.clone(),
        set_log_filter: start_log(&config.log, session.output),
    };
    let output = session.output;
    output.line(&format!("holdfast {}", env!("CARGO_PKG_VERSION")));
    output.line(&format!("data in {}", config.server.data_dir.display()));
    let open = !config.auth.required;
    let announce = move |announcement| show(output, open, announcement);
    crate::serve::run(config, source, Arc::new(output.progress()), &announce).await?;
    Ok(())
}

fn show(output: Output, open: bool, announcement: Announcement) {
    match announcement {
        Announcement::Engine {
            name,
            models,
            window_tokens,
        } => output.line(&format!(
            "engine {name}: {} (window of {window_tokens} tokens)",
            models.join(", ")
        )),
        Announcement::Route {
            models,
            upstreams,
            window_tokens,
        } => output.line(&format!(
            "route {}: {} (window of {window_tokens} tokens)",
            models.join(", "),
            upstreams.join(", ")
        )),
        Announcement::FirstKey { secret, file } => {
            output.line("");
            output.line("This is the API key of project `default`. It is shown only now:");
            output.line("");
            output.line(&format!("    {}", output.bold(secret.expose())));
            output.line("");
            output.line(&format!(
                "So that the command line works at once, it is also in {} (readable only by you).",
                file.display()
            ));
            output.line("Delete that file once you keep the key elsewhere, and set HOLDFAST_API_KEY instead.");
            output.line("");
        }
        Announcement::Listening { url } => {
            if open {
                output.note(
                    "warning: no key is required; everybody on this machine can use the server",
                );
            }
            output.line(&format!("listening on {url}"));
        }
        Announcement::Stopping => {
            output.note("stopping; running requests may finish (a second signal ends them)");
        }
    }
}

/// Begins to log; returns what changes the filter later on.
fn start_log(config: &LogConfig, output: Output) -> SetLogFilter {
    let (filter, handle) = reload::Layer::new(env_filter(&config.filter));
    let log = registry().with(filter);
    let started = match config.format {
        LogFormat::Json => log
            .with(fmt::layer().json().with_writer(io::stderr))
            .try_init(),
        LogFormat::Pretty => {
            let ansi = io::stderr().is_terminal() && output.has_colour();
            log.with(fmt::layer().with_ansi(ansi).with_writer(io::stderr))
                .try_init()
        }
    };
    if let Err(error) = started {
        output.note(&format!("warning: there will be no log: {error}"));
    }
    Arc::new(move |filter| {
        if let Err(error) = handle.reload(env_filter(filter)) {
            tracing::warn!(%error, "what is logged can't be changed");
        }
    })
}

/// The text was checked when the configuration was read.
fn env_filter(filter: &str) -> EnvFilter {
    EnvFilter::try_new(full_filter(filter)).unwrap_or_default()
}

/// A lone level is meant for the gateway; llama.cpp writes hundreds of lines at `info` for each model it loads.
fn full_filter(filter: &str) -> String {
    if matches!(filter.to_ascii_lowercase().as_str(), "info" | "warn") {
        return format!("{filter},llama-cpp-2=error");
    }
    filter.to_owned()
}
