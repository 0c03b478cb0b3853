//! The subjects of the measurements: Millrace, and the peers beside it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_testkit::Process;
use millrace_testkit::programs::{spawn, tail};
use millrace_testkit::wait;
use millrace_tests::cluster::{Cluster, Node};
use millrace_tests::standalone::Standalone;
use tempfile::TempDir;

/// A started server that takes publishers.
pub(crate) struct Subject {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// The process whose family is measured.
    pub(crate) pid: u32,
    /// One push URL per publisher.
    pub(crate) push_urls: Vec<String>,
    /// One multivariant playlist per publisher, where the subject has them.
    pub(crate) hls_urls: Vec<String>,
    _keep: Keep,
}

/// Ends the processes with the measurement.
#[expect(dead_code, reason = "held for their end, never read")]
enum Keep {
    Millrace(Standalone),
    Cluster(Box<Cluster>),
    Peer(Process, TempDir),
}

/// `millrace standalone`, with a livestream for each publisher.
pub(crate) async fn millrace(publishers: usize) -> Result<Subject> {
    let mut server = Standalone::start().await?;
    let api = server.api();
    let (mut push_urls, mut hls_urls) = (Vec::new(), Vec::new());
    for number in 0..publishers {
        let live = api.create(&format!("bench {number}")).await?;
        push_urls.push(live.push_url());
        hls_urls.push(live.hls_url);
    }
    let pid = server.process().pid();
    Ok(Subject { name: "millrace standalone", pid, push_urls, hls_urls, _keep: Keep::Millrace(server) })
}

/// `millrace ingest`, publishing to NATS, and beside it the worker that takes what it publishes: without one its rings
/// would grow to their bound.
pub(crate) async fn ingest_alone(publishers: usize) -> Result<Subject> {
    let mut cluster = Cluster::start_with(&[Node::Control, Node::Ingest, Node::Transcode(1)]).await?;
    let api = cluster.api();
    let mut push_urls = Vec::new();
    for number in 0..publishers {
        push_urls.push(api.create(&format!("bench {number}")).await?.push_url());
    }
    let pid = cluster.node(Node::Ingest)?.pid();
    let keep = Keep::Cluster(Box::new(cluster));
    Ok(Subject { name: "millrace ingest, to NATS", pid, push_urls, hls_urls: Vec::new(), _keep: keep })
}

/// Debian's nginx with its RTMP module, one worker, cutting HLS or only relaying.
pub(crate) async fn nginx(hls: bool, publishers: usize) -> Result<Subject> {
    let folder = TempDir::with_prefix("millrace-nginx-").context("a folder for nginx")?;
    let port = free_port()?;
    let root = folder.path().display();
    let cut = if hls {
        format!("hls on; hls_path {root}/hls; hls_fragment 2s; hls_playlist_length 12s;")
    } else {
        String::new()
    };
    let configuration = format!(
        "daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;\n\
         load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;\n\
         events {{ worker_connections 4096; }}\n\
         rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 4096; access_log off;\n\
         application live {{ live on; {cut} }} }} }}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration)?;
    std::fs::create_dir(folder.path().join("hls"))?;
    // Its workers run as another user when it is started by root.
    make_writable(folder.path())?;
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
    let process = spawn("nginx", folder.path(), command)?;
    wait::value("nginx", Duration::from_secs(10), || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await
    .with_context(|| tail(&process))?;
    let push_urls = (0..publishers).map(|number| format!("rtmp://127.0.0.1:{port}/live/{number}")).collect();
    let name = if hls { "nginx-rtmp, HLS on" } else { "nginx-rtmp, HLS off" };
    Ok(Subject {
        name,
        pid: process.pid(),
        push_urls,
        hls_urls: Vec::new(),
        _keep: Keep::Peer(process, folder),
    })
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?.port())
}

fn make_writable(folder: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for path in [folder.to_owned(), folder.join("hls")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}
