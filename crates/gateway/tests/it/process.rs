//! The program as a process of its own, for what concerns signals, files and sockets.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use holdfast_testkit::TestClient;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The key of all processes, with all scopes.
pub(crate) const KEY: &str = "a-key-for-tests-0123";

/// How long anything that must come may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server. Killed when it is dropped.
pub(crate) struct Process {
    /// Base URL without a slash at the end.
    pub(crate) url: String,
    folder: TempDir,
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts one in a folder that may have been prepared, and waits until it listens.
    pub(crate) async fn start_in(
        folder: TempDir,
        config: &str,
        change: impl FnOnce(&mut Command),
    ) -> Process {
        let command = program(&folder);
        Self::start_command(command, folder, config, change).await
    }

    /// The same after a shell has done something first.
    pub(crate) async fn start_by_shell(folder: TempDir, config: &str, first: &str) -> Process {
        let mut shell = Command::new("/bin/sh");
        let script = format!("{first}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_holdfast")]);
        let command = in_folder(shell, &folder);
        Self::start_command(command, folder, config, |_| {}).await
    }

    async fn start_command(
        mut command: Command,
        folder: TempDir,
        config: &str,
        change: impl FnOnce(&mut Command),
    ) -> Process {
        std::fs::write(folder.path().join("holdfast.toml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.arg("serve").env("HOLDFAST_LISTEN", "127.0.0.1:0");
        change(&mut command);
        command.stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut process = Process {
            url: String::new(),
            folder,
            child,
            output,
        };
        let line = process.line_with("listening on ").await;
        process.url = line.trim_start_matches("listening on ").to_owned();
        process
    }

    /// A client with [`KEY`].
    pub(crate) fn client(&self) -> TestClient {
        TestClient::new(&self.url, Some(KEY.to_owned()))
    }

    /// A file of its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces its configuration file, which it does not notice by itself.
    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.path("holdfast.toml"), text).unwrap();
    }

    /// Its log up to now.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until the log has this text.
    pub(crate) async fn logs(&self, text: &str) {
        self.logs_times(text, 1).await;
    }

    /// Waits until the log has it so many times.
    pub(crate) async fn logs_times(&self, text: &str, times: usize) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.log().matches(text).count() < times {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if waited.await.is_err() {
            panic!("no `{text}` in the log: {}", self.log());
        }
    }

    /// Sends it a signal, by its name without `SIG`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(sent.unwrap().success());
    }

    /// From now on it can write no file beyond so many bytes, as on a full disk; `None`: there is room again. Where it
    /// does not ignore the signal `XFSZ`, a write beyond the limit ends it.
    pub(crate) async fn limit_files(&self, bytes: Option<u64>) {
        let id = self.child.id().unwrap().to_string();
        let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let limit = format!("--fsize={soft}:unlimited");
        let command = Command::new("prlimit")
            .args(["--pid", &id, &limit])
            .status();
        assert!(command.await.unwrap().success());
    }

    /// Kills it with -9; what it leaves behind is in the folder.
    pub(crate) async fn killed(mut self) -> TempDir {
        self.child.kill().await.unwrap();
        self.folder
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> i32 {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(ended) = ended else {
            panic!("it does not end: {}", self.log());
        };
        ended.unwrap().code().unwrap()
    }

    /// Stops it as a service manager would; gives its folder.
    pub(crate) async fn stopped(mut self) -> TempDir {
        self.signal("TERM").await;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success(), "{}", self.log());
        self.folder
    }

    /// A command in a folder with this configuration, without a server.
    pub(crate) async fn run_alone(folder: &TempDir, config: &str, arguments: &[&str]) -> Output {
        std::fs::write(folder.path().join("holdfast.toml"), config).unwrap();
        let ended = program(folder).args(arguments).output();
        tokio::time::timeout(PATIENCE, ended)
            .await
            .unwrap()
            .unwrap()
    }

    /// A command of the command line that finds the server by itself.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = program(&self.folder);
        command.env("HOLDFAST_API_KEY", KEY).args(arguments);
        command.output().await.unwrap()
    }

    /// The first line on its standard output with this text.
    async fn line_with(&mut self, text: &str) -> String {
        let found = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.ok().flatten().unwrap_or_else(|| {
            panic!("the server says no `{text}`: {}", self.log());
        })
    }
}

/// The program with a folder's configuration and data, and nothing of this process's environment that concerns it.
fn program(folder: &TempDir) -> Command {
    in_folder(Command::new(env!("CARGO_BIN_EXE_holdfast")), folder)
}

fn in_folder(mut command: Command, folder: &TempDir) -> Command {
    command
        .current_dir(folder.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder.path())
        .env("HOLDFAST_BOOTSTRAP_KEY", KEY)
        .env("HOLDFAST_DATA_DIR", folder.path().join("data"))
        .env("HOLDFAST_CONFIG", folder.path().join("holdfast.toml"))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// A configuration with one upstream (`u`, a vLLM at `base`, with this key) and these models on it.
pub(crate) fn config(base: &str, key: &str, models: &[&str]) -> String {
    let mut text = format!(
        "[[upstreams]]\nname = \"u\"\nprovider = \"vllm\"\nbase_url = \"{base}/v1\"\napi_key = \"file:{key}\"\n\
         retries_max = 0\nbreaker_failures = 1\nbreaker_open_s = 600\n"
    );
    for model in models {
        text.push_str(&format!(
            "\n[[models]]\nname = \"{model}\"\nroute = [\"u\"]\nwindow_tokens = 100000\n"
        ));
    }
    text
}
