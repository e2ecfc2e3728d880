//! A Redis (or Valkey) of one's own, from Debian's package: on a free port of this machine, keeping nothing, and gone with
//! the process that started it, however that ends.
//!
//! Where there is no program, or it does not work, it panics: tests that can't run must not look as if they had.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The whole machine may be at work.
const START_WAIT: Duration = Duration::from_secs(30);

/// Ends the server at the end of its standard input, which the system closes with the process that holds the other end.
const WATCHMAN: &str = r#"
"$1" --port "$2" --bind 127.0.0.1 --save '' --appendonly no --dir "$3" >"$3/log" 2>&1 &
server=$!
read -r order
kill -KILL "$server"
wait "$server"
"#;

/// A running server, or one that was stopped.
pub struct RedisServer {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    watchman: Option<Child>,
}

impl RedisServer {
    /// A new server with nothing in it.
    pub fn start() -> Self {
        let mut server = RedisServer {
            program: program(),
            folder: tempfile::tempdir().unwrap(),
            port: 0,
            watchman: None,
        };
        // Between looking for a free port and taking it, somebody else may take it.
        let is_started = (0..5).any(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            server.port = listener.local_addr().unwrap().port();
            drop(listener);
            server.run()
        });
        assert!(is_started, "Redis does not start");
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Ends it as a crash would. What it held is gone.
    pub fn stop(&mut self) {
        if let Some(mut watchman) = self.watchman.take() {
            drop(watchman.stdin.take());
            let _ = watchman.wait();
        }
    }

    /// Starts it again where it was, with nothing in it.
    pub fn start_again(&mut self) {
        assert!(self.run(), "Redis does not start again");
    }

    /// The answer to a command without an argument of more than one word, as the wire has it.
    pub fn ask(&self, command: &str) -> String {
        let mut connection = TcpStream::connect(self.address()).unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        connection
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn run(&mut self) -> bool {
        // What it said the last time must not be taken for what it says now.
        let _ = std::fs::remove_file(self.folder.path().join("log"));
        let mut watchman = Command::new("/bin/sh")
            .args(["-c", WATCHMAN, "watchman"])
            .arg(&self.program)
            .arg(self.port.to_string())
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while began.elapsed() < START_WAIT {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if log.contains("Ready to accept connections") {
                self.watchman = Some(watchman);
                return true;
            }
            if log.contains("Failed listening") {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(watchman.stdin.take());
        let _ = watchman.wait();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin".into(), "/usr/sbin".into()])
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .find(|program| program.exists())
        .expect("Redis is installed; `scripts/setup.sh test` does it")
}
