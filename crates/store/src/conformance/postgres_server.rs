//! A PostgreSQL of one's own, from Debian's binaries: on a free port of this machine, in a folder of its own, and gone
//! with the process that started it, however that ends.
//!
//! Where there are no binaries, or they do not work, it panics: tests that can't run must not look as if they had.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

/// Nothing that could be part of another text by chance.
pub const PASSWORD: &str = "pass word/of@the:tests?";

const USER: &str = "holdfast";

/// The whole machine may be at work.
const START_WAIT: Duration = Duration::from_secs(60);

/// Ends the server at the end of its standard input, which the system closes with the process that holds the other end.
const WATCHMAN: &str = r#"
"$1/postgres" -D "$2" -p "$3" -k "$2" >>"$2/log" 2>&1 &
server=$!
read -r order
kill -QUIT "$server"
wait "$server"
[ "$order" = keep ] || rm -rf "$4"
"#;

/// A running server, or one that was stopped.
pub struct PostgresServer {
    binaries: PathBuf,
    owner: Owner,
    /// Everything of it.
    folder: PathBuf,
    /// The part of it that is the server's.
    data: PathBuf,
    port: u16,
    watchman: Option<Child>,
}

/// Who the server runs as. PostgreSQL refuses to be root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    ThisUser,
    Other { user: u32, group: u32 },
}

impl PostgresServer {
    /// The server that all tests of this process share. Each takes a database of its own.
    pub fn shared() -> &'static PostgresServer {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(PostgresServer::start)
    }

    /// A new server, for tests that stop it.
    pub fn start() -> Self {
        let binaries = binaries();
        let owner = Owner::for_this_process();
        let folder = tempfile::Builder::new()
            .prefix("holdfast-postgres-")
            .tempdir()
            .expect("the temporary folder can be written")
            .keep();
        let password = folder.join("password");
        fs::write(&password, PASSWORD).expect("the new folder can be written");
        if let Owner::Other { user, group } = owner {
            for path in [&folder, &password] {
                chown(path, Some(user), Some(group)).expect("root may give files away");
            }
        }
        let data = folder.join("data");
        let made = owner
            .command(&binaries.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", USER, "-A", "scram-sha-256", "--no-sync"])
            .arg("--pwfile")
            .arg(&password)
            // Not the order of bytes, which the store must have all the same.
            .args(["-E", "UTF8", "--locale=C.UTF-8"])
            .args(["--locale-provider=icu", "--icu-locale=en-US"])
            .output()
            .expect("initdb can be run");
        assert!(
            made.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let settings = "listen_addresses = '127.0.0.1'\nfsync = off\nfull_page_writes = off\n\
                        shared_buffers = 32MB\nmax_connections = 200\n";
        let file = data.join("postgresql.conf");
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(file)
            .expect("initdb has made it");
        file.write_all(settings.as_bytes())
            .expect("it can be written");

        let mut server = PostgresServer {
            binaries,
            owner,
            folder,
            data,
            port: 0,
            watchman: None,
        };
        // Between looking for a free port and taking it, somebody else may take it.
        let started = (0..5).any(|_| {
            server.port = free_port();
            server.run()
        });
        assert!(started, "PostgreSQL does not start: {}", server.log());
        server
    }

    /// Makes an empty database and returns its URL.
    pub async fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.run_sql("postgres", &format!("CREATE DATABASE {name}"))
            .await;
        self.url(&name)
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        let password: String = PASSWORD
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        format!(
            "postgres://{USER}:{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Runs a statement as the server's owner.
    pub async fn run_sql(&self, database: &str, statement: &str) {
        let mut connection = self.connect(database).await;
        connection
            .execute(sqlx::AssertSqlSafe(statement.to_owned()))
            .await
            .expect("the statement is sound");
        connection
            .close()
            .await
            .expect("a connection can be closed");
    }

    async fn connect(&self, database: &str) -> PgConnection {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(USER)
            .password(PASSWORD)
            .database(database)
            .connect()
            .await
            .expect("the server runs")
    }

    /// Ends it as a crash would: at once, without a word to anybody.
    pub fn stop(&mut self) {
        self.end("keep\n");
    }

    /// Starts it again where it was.
    pub fn start_again(&mut self) {
        assert!(
            self.run(),
            "PostgreSQL does not start again: {}",
            self.log()
        );
    }

    /// Whether it is ready before it ends.
    fn run(&mut self) -> bool {
        let watchman = self
            .owner
            .command(Path::new("/bin/sh"))
            .args(["-c", WATCHMAN, "watchman"])
            .arg(&self.binaries)
            .arg(&self.data)
            .arg(self.port.to_string())
            .arg(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be run");
        self.watchman = Some(watchman);
        let began = Instant::now();
        while began.elapsed() < START_WAIT {
            if self.is_ready() {
                return true;
            }
            if self.log().contains("FATAL") && !self.data.join("postmaster.pid").exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end("keep\n");
        false
    }

    /// The server says so itself, in the last line of this file.
    fn is_ready(&self) -> bool {
        let state = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        state
            .lines()
            .nth(7)
            .is_some_and(|line| line.trim() == "ready")
    }

    fn end(&mut self, order: &str) {
        let Some(mut watchman) = self.watchman.take() else {
            return;
        };
        if let Some(mut input) = watchman.stdin.take() {
            // It may have ended by itself.
            let _ = input.write_all(order.as_bytes());
        }
        let _ = watchman.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.data.join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.end("");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Owner {
    fn for_this_process() -> Self {
        let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        if !is_root {
            return Owner::ThisUser;
        }
        let users = fs::read_to_string("/etc/passwd").expect("there is a list of users");
        let ids = |wanted: &str| {
            let mut fields = users
                .lines()
                .find(|line| line.split(':').next() == Some(wanted))?
                .split(':')
                .skip(2);
            let user = fields.next()?.parse().ok()?;
            let group = fields.next()?.parse().ok()?;
            Some(Owner::Other { user, group })
        };
        ids("postgres")
            .or_else(|| ids("nobody"))
            .expect("some user is not root")
    }

    fn command(self, program: &Path) -> Command {
        match self {
            Owner::ThisUser => Command::new(program),
            Owner::Other { user, group } => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={user}"))
                    .arg(format!("--regid={group}"))
                    .arg("--clear-groups")
                    .arg(program)
                    .current_dir("/");
                command
            }
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("some port is free");
    let address = listener.local_addr().expect("a listener knows its address");
    address.port()
}

/// The folder of the newest server: Debian keeps several versions, none of them on the path.
fn binaries() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    versions
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .chain(on_path)
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
        .expect("PostgreSQL's server is installed; `scripts/setup.sh test` does it")
}
