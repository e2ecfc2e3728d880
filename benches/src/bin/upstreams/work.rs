//! How long the gateway works for a request, whatever else the machine does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use holdfast_benches::Result;
use holdfast_benches::machine::{own_processor_time, processor_time};
use holdfast_benches::report::{Table, say};
use holdfast_benches::server::Gateway;
use holdfast_benches::statistics::median;
use holdfast_benches::upstream::Upstream;

use super::{Case, PATH, Request, Way, find, whole};

/// Requests of each kind in a round that measures processor time.
const WORK_REQUESTS: usize = 50;

/// Processor time of the gateway for one request of each kind: what else the machine does is not in it. Beside it what
/// the same bytes take a thread that does nothing but write them.
pub(super) async fn print_work(
    client: &reqwest::Client,
    gateway: &Gateway,
    upstream: &Upstream,
    cases: &[Case],
    rounds: usize,
) -> Result<()> {
    let process = gateway.process().ok_or("the gateway has ended")?;
    let gateways: Vec<&Case> = cases
        .iter()
        .filter(|case| matches!(case.way, Way::Gateway(_)))
        .collect();
    let mut works = vec![Vec::new(); gateways.len()];
    let mut writings = Vec::new();
    for _ in 0..rounds {
        for (case, works) in gateways.iter().zip(&mut works) {
            let before = processor_time(process)?;
            for _ in 0..WORK_REQUESTS {
                whole(client, case).await?;
            }
            let took = processor_time(process)?.saturating_sub(before);
            works.push(microseconds(took) / WORK_REQUESTS as f64);
        }
        let address = upstream.address();
        let body = |request| {
            Ok::<_, holdfast_benches::Error>(find(cases, (request, Way::Direct))?.plain.clone())
        };
        let (small, replay) = (body(Request::Small)?, body(Request::Replay)?);
        let writing = tokio::task::spawn_blocking(move || {
            Ok::<_, holdfast_benches::Error>(written(address, &replay)? - written(address, &small)?)
        });
        writings.push(writing.await??);
    }

    say("One client, processor time of the gateway for each whole answer, medians:");
    let mut table = Table::new(&["request", "way", "processor time", "above 1 KB, same route"]);
    for (case, work) in gateways.iter().zip(&works) {
        let small = gateways
            .iter()
            .position(|small| small.request == Request::Small && small.way == case.way)
            .ok_or("nothing was measured of small requests")?;
        let above = work
            .iter()
            .zip(&works[small])
            .map(|(more, less)| more - less);
        table.row(vec![
            case.request.title().to_owned(),
            case.way.title(),
            format!("{:.0} \u{b5}s", median(work)),
            format!("{:.0} \u{b5}s", median(&above.collect::<Vec<f64>>())),
        ]);
    }
    table.row(vec![
        "context sent by a thread that only writes".to_owned(),
        "direct".to_owned(),
        String::new(),
        format!("{:.0} \u{b5}s", median(&writings)),
    ]);
    table.print();
    Ok(())
}

/// Processor time that sending this body takes the calling thread, and waiting for the answer, microseconds.
fn written(address: SocketAddr, body: &[u8]) -> Result<f64> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let mut request = format!(
        "POST {PATH} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    let mut answer = [0; 65_536];
    let before = own_processor_time()?;
    for _ in 0..WORK_REQUESTS {
        connection.write_all(&request)?;
        // The answer is small and comes at once.
        if connection.read(&mut answer)? == 0 {
            return Err("the upstream has closed the connection".into());
        }
    }
    let took = own_processor_time()?.saturating_sub(before);
    Ok(microseconds(took) / WORK_REQUESTS as f64)
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
