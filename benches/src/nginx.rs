//! nginx in front of the same upstream: what a proxy costs that reads nothing and decides nothing.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::Result;

/// Where Debian has it, which is not on everybody's `PATH`.
const SYSTEM_FOLDER: &str = "/usr/sbin";

/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

/// How long it may take to end.
const END: Duration = Duration::from_secs(2);

/// A running nginx. It ends when this is dropped.
#[derive(Debug)]
pub struct Nginx {
    binary: PathBuf,
    config: PathBuf,
    url: String,
    process: Child,
}

/// The program named, or the first one on the `PATH`.
pub fn binary(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = named {
        return Some(path.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from(SYSTEM_FOLDER)])
        .map(|folder| folder.join("nginx"))
        .find(|file| file.is_file())
}

/// What it calls itself, such as `nginx/1.22.1`.
///
/// # Errors
/// It can't be started.
pub async fn version(binary: &Path) -> Result<String> {
    let output = Command::new(binary).arg("-v").output().await?;
    let text = String::from_utf8_lossy(&output.stderr);
    let name = text.trim().rsplit(' ').next().unwrap_or_default();
    Ok(name.to_owned())
}

impl Nginx {
    /// Starts it in front of `upstream` and waits until it listens. Both kinds of buffering are off, so that it passes on
    /// what comes as it comes, and connections to the upstream are kept.
    ///
    /// # Errors
    /// It can't be started, or does not listen in time.
    pub async fn start(binary: &Path, upstream: SocketAddr, folder: &Path) -> Result<Nginx> {
        let folder = folder.join("nginx");
        tokio::fs::create_dir_all(&folder).await?;
        // nginx can't be asked which port it was given. That somebody else takes this one meanwhile is unlikely.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.join("nginx.conf");
        tokio::fs::write(&config, configuration(address, upstream, &folder)).await?;
        let process = Command::new(binary)
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} can't be started: {error}", binary.display()))?;
        let mut nginx = Nginx {
            binary: binary.to_owned(),
            config,
            url: format!("http://{address}"),
            process,
        };
        let began = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = nginx.process.try_wait()? {
                return Err(format!("nginx ended at its start ({status})").into());
            }
            if began.elapsed() > START {
                return Err("nginx does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(nginx)
    }

    /// Where it listens, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers outlive a master that is killed, so it is asked to end.
        let asked = std::process::Command::new(&self.binary)
            .args(["-e", "stderr", "-s", "stop", "-c"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !asked.is_ok_and(|status| status.success()) {
            // There is nobody left to tell.
            let _ = self.process.start_kill();
        }
        // Its folder goes next, and it still has a file to remove there.
        let began = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) && began.elapsed() < END {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn configuration(address: SocketAddr, upstream: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .collect();
    format!(
        "daemon off;
worker_processes auto;
pid {folder}/nginx.pid;
error_log stderr error;
events {{
    worker_connections 1024;
}}
http {{
{temporary}    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    upstream mock {{
        server {upstream};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_request_buffering off;
            proxy_buffering off;
        }}
    }}
}}
"
    )
}
