//! The pages of real daemons: health, readiness and metrics, and what is no request for one.

#![allow(clippy::disallowed_methods, reason = "tests stand outside the daemon: clock and files are theirs")]

mod support;

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use fsd::limits;
use fsd::metrics::definitions;
use support::http::{HttpClient, HttpReply, get};
use support::{PATIENCE, Reply, Settings, TestCluster, wait_for, wait_until};

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The value of a metric's line, which begins with its name and its labels.
fn value(page: &str, line: &str) -> f64 {
    let value = page.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in\n{page}")).parse().expect("a number")
}

fn metric(address: &str, line: &str) -> f64 {
    value(&get(address, "/metrics").body, line)
}

fn wait_until_ready(address: &str) {
    wait_until(PATIENCE, "the node is ready", || get(address, "/readyz").status == 200);
}

#[test]
fn a_node_tells_that_it_is_alive_and_that_it_is_ready() {
    let cluster = TestCluster::start(3);
    for node in &cluster.nodes {
        let reply = get(&node.http, "/healthz");
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok\n"));
        wait_until_ready(&node.http);
        let output = node.output();
        assert!(output.contains(&format!("HTTP pages on {}", node.http)), "the ready line: {output}");
    }
}

#[test]
fn a_node_without_a_majority_is_alive_and_not_ready_and_says_why() {
    let mut cluster = TestCluster::prepare(3, Settings::default());
    cluster.launch(&[0]);
    let address = cluster.nodes[0].http.clone();
    assert_eq!(get(&address, "/healthz").status, 200);
    let reply = get(&address, "/readyz");
    assert_eq!((reply.status, reply.body.as_str()), (503, "not ready: the node knows no leader\n"));
    cluster.launch(&[1]);
    wait_until_ready(&address);
}

#[test]
fn a_node_that_is_cut_off_notices_and_is_ready_again_when_the_others_are_back() {
    for is_leader in [true, false] {
        let mut cluster = TestCluster::start(3);
        let leader = cluster.wait_for_leader();
        let alone = if is_leader { leader } else { (leader + 1) % 3 };
        let address = cluster.nodes[alone].http.clone();
        wait_until_ready(&address);
        for n in (0..3).filter(|n| *n != alone) {
            cluster.nodes[n].stop();
        }
        wait_until(PATIENCE, "it is not ready", || {
            let HttpReply { status, body, .. } = get(&address, "/readyz");
            status == 503 && body.starts_with("not ready: ")
        });
        assert_eq!(get(&address, "/healthz").status, 200, "it is alive all the same");
        for n in (0..3).filter(|n| *n != alone) {
            cluster.nodes[n].cont();
        }
        wait_until_ready(&address);
    }
}

#[test]
fn requests_are_pipelined_and_connections_kept_or_closed_as_the_client_says() {
    let cluster = TestCluster::start(1);
    let mut client = HttpClient::connect(&cluster.nodes[0].http);
    let paths = ["/readyz", "/healthz", "/nothing", "/metrics", "/healthz?again"];
    client.send(paths.map(request).concat());
    let statuses: Vec<u16> = paths.iter().map(|_| client.reply(true).status).collect();
    assert_eq!(statuses, [200, 200, 404, 200, 200]);
    client.send("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.0\r\n\r\n");
    let head = client.reply(false);
    assert!(head.status == 200 && head.has_header("Content-Length: 3"), "{head:?}");
    let last = client.reply(true);
    assert!(last.status == 200 && last.has_header("Connection: close"), "{last:?}");
    assert!(client.is_closed());
}

#[test]
fn what_breaks_the_rules_is_400_and_touches_nobody_else() {
    let cluster = TestCluster::start(1);
    let address = &cluster.nodes[0].http;
    let mut begun = HttpClient::connect(address);
    begun.send("GET /healthz HTTP/1.1\r\nHo");
    let long = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(limits::HTTP_HEAD_BYTES_MAX));
    let many =
        format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{}", "X: y\r\n".repeat(limits::HTTP_HEADERS_MAX + 1));
    for bad in [
        "\u{16}\u{3}\u{1}\u{2}",
        "read app/settings\r\n",
        "GET /healthz HTTP/3.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &long,
        &many,
    ] {
        let mut client = HttpClient::connect(address);
        client.send(bad);
        let reply = client.reply(true);
        assert!(reply.status == 400 && reply.has_header("Connection: close"), "{bad:?}: {reply:?}");
        assert!(client.is_closed(), "{bad:?}");
    }
    for line in ["GET /", "GET /metrics/", "DELETE /metrics", "POST /healthz"] {
        let mut client = HttpClient::connect(address);
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.reply(true).status, 404, "{line}");
    }
    let line = "fsd_protocol_errors_total{side=\"http\",reason=\"http_request\"}";
    assert_eq!(metric(address, line), 7.0);
    begun.send("st: a\r\n\r\n");
    assert_eq!(begun.reply(true).status, 200, "a request may come in pieces");
}

#[test]
fn pages_and_clients_take_no_places_from_each_other() {
    let mut cluster = TestCluster::prepare(1, Settings::default());
    let conf = std::fs::read_to_string(&cluster.nodes[0].conf).unwrap();
    cluster.nodes[0].write_conf(&conf.replace("[limits]", "[limits]\nmax_clients = 1"));
    cluster.launch(&[0]);
    let address = cluster.nodes[0].http.clone();
    // The connection that saw it start may still have the place.
    let writer = wait_for(PATIENCE, || {
        let mut writer = cluster.text(0);
        let reply = if writer.try_send("write f 0\r\n\r\n") { writer.try_reply() } else { None };
        matches!(reply, Some(Reply::Written(_))).then_some(writer)
    });
    let mut writer = writer.expect("a client finds its place");
    let reply = cluster.text(0).reply();
    assert!(reply.is_internal("too many connections"), "there is a place for one client: {reply:?}");
    let mut readers: Vec<HttpClient> = Vec::new();
    wait_until(PATIENCE, "all places are taken", || {
        let mut reader = HttpClient::connect(&address);
        if reader.try_send(request("/healthz")) && reader.try_reply(true).is_some() {
            readers.push(reader);
        }
        readers.len() == limits::HTTP_CONNECTIONS_MAX
    });
    assert!(HttpClient::connect(&address).is_closed(), "one reader is too many");
    assert!(matches!(writer.write("f", "contents"), Reply::Written(_)));
    readers[0].send(request("/metrics"));
    let page = readers[0].reply(true).body;
    assert_eq!(value(&page, "fsd_connections{side=\"http\"}"), limits::HTTP_CONNECTIONS_MAX as f64);
    assert_eq!(value(&page, "fsd_connections{side=\"text\"}"), 1.0);
    assert!(value(&page, "fsd_connections_refused_total{side=\"http\"}") >= 1.0);
    assert!(value(&page, "fsd_connections_refused_total{side=\"text\"}") >= 1.0);
}

#[test]
fn what_clients_do_is_measured_and_what_is_shown_is_what_is_defined() {
    const FILES: usize = 40;
    let cluster = TestCluster::start(3);
    let leader = &cluster.nodes[cluster.wait_for_leader()].http;
    let before = get(leader, "/metrics").body;
    let mut client = cluster.client();
    // A write may have an unknown outcome when leadership changes hands, as it may on a busy machine.
    let done = (0..FILES).filter(|n| client.write(&format!("f{n}"), vec![b'x'; *n], 0).is_ok()).count();
    assert!(done > 0);
    for _ in 0..FILES {
        client.list("").unwrap();
    }
    client.read("missing").unwrap_err();
    cluster.wait_until_caught_up(&[0, 1, 2]);

    let pages: Vec<String> = cluster.nodes.iter().map(|node| get(&node.http, "/metrics").body).collect();
    for page in &pages {
        assert!(value(page, "fsd_files") >= done as f64);
        assert_eq!(value(page, "fsd_commit_index"), value(page, "fsd_applied_index"));
        assert!(value(page, "fsd_disk_free_bytes") <= value(page, "fsd_disk_size_bytes"));
        for line in ["fsd_log_segments", "fsd_log_bytes", "fsd_log_last_segment_used_bytes", "fsd_term"] {
            assert!(value(page, line) > 0.0, "{line}");
        }
        let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let defined = definitions::ALL.iter().map(|definition| definition.name);
        assert!(families.eq(defined), "a page has each metric once, in the order of their table:\n{page}");
        check_with_promtool(page);
    }
    // Each was done at some node.
    let sum = |line: &str| pages.iter().map(|page| value(page, line)).sum::<f64>();
    assert!(sum("fsd_requests_total{kind=\"write\",outcome=\"done\"}") >= done as f64);
    assert!(sum("fsd_requests_total{kind=\"list\",outcome=\"done\"}") >= FILES as f64);
    assert!(sum("fsd_requests_total{kind=\"read\",outcome=\"not_found\"}") >= 1.0);
    let after = get(leader, "/metrics").body;
    for line in [
        "fsd_commit_index",
        "fsd_flush_duration_seconds_count",
        "fsd_flush_duration_seconds_sum",
        "fsd_flush_bytes_sum",
        "fsd_turn_duration_seconds_sum",
    ] {
        assert!(value(&after, line) > value(&before, line), "{line} has not grown");
    }
}

#[test]
fn pages_and_status_tell_alike_what_the_data_directory_takes() {
    let cluster = TestCluster::start_with(
        1,
        Settings { segment_mib: 1, max_file_bytes: 200_000, ..Settings::default() },
    );
    let node = &cluster.nodes[0];
    let mut client = cluster.client();
    let checkpoints = || metric(&node.http, "fsd_checkpoint_duration_seconds_count");
    let mut write = |n: u8| client.write(&format!("f{}", n % 7), vec![n; 100_000], 0).unwrap();
    for n in 0..7 {
        write(n);
    }
    // The next one to stand may have been begun before there were seven files.
    let enough = checkpoints() + 3.0;
    let mut n = 0;
    wait_until(PATIENCE, "three more checkpoints stand", || {
        write(n);
        n = (n + 1) % 7;
        checkpoints() >= enough
    });
    let files_bytes = || -> u64 {
        let items = std::fs::read_dir(&node.data_dir).unwrap();
        items.filter_map(|item| item.unwrap().metadata().ok()).map(|found| found.len()).sum()
    };
    // What is removed, and the next segment, may still be under way.
    wait_until(PATIENCE, "all figures agree", || {
        let page = get(&node.http, "/metrics").body;
        let storage = client.status()[0].storage.expect("this release tells");
        let told = [
            ("fsd_log_bytes", storage.log_bytes),
            ("fsd_contents_bytes", storage.contents_bytes),
            ("fsd_checkpoint_bytes", storage.checkpoint_bytes),
            ("fsd_live_bytes", storage.live_bytes),
            ("fsd_data_bytes", storage.total_bytes),
            ("fsd_checkpoint_index", storage.checkpoint_index.0),
        ];
        let parts = storage.log_bytes + storage.contents_bytes + storage.checkpoint_bytes;
        // Besides those, there are the hard state and the lock file, which is short.
        told.iter().all(|(line, told)| value(&page, line) == *told as f64)
            && storage.total_bytes == files_bytes()
            && (8192..8492).contains(&(storage.total_bytes - parts))
    });
    let storage = client.status()[0].storage.unwrap();
    // The records of seven files, filled up to a multiple of 8, and two checkpoints with these files and a session or two.
    let records: u64 = 7 * (100_000 + 2 + 64 + 19 + 25_u64).next_multiple_of(8);
    let sessions = storage.live_bytes - records - 2 * 7 * (34 + 2);
    assert!((2 * 44..2 * 44 * 4).contains(&sessions), "{sessions} bytes of sessions in {storage:?}");
    assert!(storage.checkpoint_index.0 > 0 && storage.log_bytes >= 1024 * 1024, "{storage:?}");
    assert!(metric(&node.http, "fsd_checkpoint_duration_seconds_sum") > 0.0);
    assert_eq!(metric(&node.http, "fsd_checkpoints"), 2.0);
}

/// Prometheus' own judgement of a page: its form, and the rules for names and help texts.
fn check_with_promtool(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("not tested: promtool is not there (Debian's package prometheus has it)");
            return;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}\n{page}");
}
