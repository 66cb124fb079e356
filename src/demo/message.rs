//! What a demo says, on standard error.

use std::io::Write;
use std::path::Path;

use fsd_wire::NodeId;

use super::directory::Directory;

/// Says a line of the demo itself.
pub(super) fn say(text: &str) {
    write_line("demo   | ", text.as_bytes());
}

/// Says a line of a node.
pub(super) fn say_for(node: NodeId, line: &[u8]) {
    write_line(&format!("node {node} | "), line);
}

/// In one piece, so that nothing gets into the middle of a line.
fn write_line(prefix: &str, line: &[u8]) {
    // If nobody reads what is said, the nodes run all the same.
    let _ = std::io::stderr().write_all(&[prefix.as_bytes(), line, b"\n"].concat());
}

/// Says that the cluster serves, and what to try.
pub(super) fn say_ready(
    after_ms: u64,
    leader: NodeId,
    directory: &Directory,
    processes: &[(NodeId, Option<u32>)],
) {
    let text = ready_text(after_ms, leader, directory, processes, &client_program());
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The commands have no prefix, so that they can be copied.
pub(super) fn ready_text(
    after_ms: u64,
    leader: NodeId,
    directory: &Directory,
    processes: &[(NodeId, Option<u32>)],
    client: &str,
) -> String {
    let seconds = after_ms as f64 / 1000.0;
    let servers: Vec<_> = directory.confs.iter().map(|conf| conf.member.client.to_string()).collect();
    let servers = servers.join(",");
    let count = directory.confs.len();
    let plural = if count == 1 { "" } else { "s" };
    let mut text = format!(
        "demo   | ready after {seconds:.2} s: node {leader} leads {count} node{plural}, all below {}\n\n\
         Try, in another terminal:\n\n    \
         echo hello | {client} -s {servers} write greeting\n    \
         {client} -s {servers} read greeting\n    \
         {client} -s {servers} status\n",
        directory.shown.display(),
    );
    let text_address =
        directory.confs.iter().find(|conf| conf.node == leader).and_then(|conf| conf.member.text);
    if let Some(address) = text_address {
        let (host, port) = (address.ip(), address.port());
        text += &format!("    printf 'read greeting\\r\\n' | nc -q1 {host} {port}\n");
    }
    if let Some((_, Some(process_id))) = processes.iter().find(|(node, _)| *node == leader) {
        text += &format!("    kill -9 {process_id}    # node {leader}; it is started again\n");
    }
    let pages: Vec<_> = directory.confs.iter().filter_map(|conf| conf.member.http).collect();
    if let Some(first) = pages.first() {
        text += &format!("    curl http://{first}/metrics    # also /healthz and /readyz");
        if let [_, .., last] = pages[..] {
            text += &format!(", and so on to {last}");
        }
        text += "\n";
    }
    text + "\nCtrl-C ends all. The same command goes on with the same data.\n\n"
}

/// The client beside this program, if it was built; by its bare name otherwise.
fn client_program() -> String {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("fsclient"));
    match beside {
        Some(path) if path.is_file() => shown_path(&path),
        _ => "cargo run -qrp fsclient --".to_owned(),
    }
}

/// Relative to where the demo was started if it is below, as one would type it.
fn shown_path(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
