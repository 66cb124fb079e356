//! What the commands print.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use fsclient::{BackupSummary, FileInfo, NodeId, NodeReport};
use serde_json::json;

use super::Failure;

/// Writes to standard output, whole.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::Io { what: "cannot write to standard output".to_owned(), error })
}

/// The line of `stat` and `list`.
pub(crate) fn file_line(info: &FileInfo, json: bool) -> String {
    let FileInfo { name, version, size_bytes, expiry_seconds } = info;
    if json {
        let line = json!({ "version": version.0, "size": size_bytes, "ttl": expiry_seconds, "name": name });
        format!("{line}\n")
    } else {
        format!("{version} {size_bytes} {expiry_seconds} {name}\n")
    }
}

/// What a backup is of.
pub(crate) fn backup_line(summary: &BackupSummary, json: bool) -> String {
    let BackupSummary { head, bytes } = summary;
    if json {
        let line = json!({
            "cluster": head.cluster,
            "files": head.files,
            "contents": head.contents_bytes,
            "bytes": bytes,
            "revision": head.revision.0,
            "index": head.entry.index.0,
            "term": head.entry.term.0,
        });
        format!("{line}\n")
    } else {
        format!(
            "cluster {}: {} files, {bytes} bytes, revision {}, as of entry {} of term {}\n",
            head.cluster, head.files, head.revision, head.entry.index, head.entry.term
        )
    }
}

/// `status` as JSON, a line per node.
pub(crate) fn status_lines(reports: &[NodeReport], nodes: &[Option<NodeId>]) -> String {
    let mut text = String::new();
    for (report, node) in reports.iter().zip(nodes) {
        let line = match &report.status {
            Ok(status) => json!({
                "node": status.node.0,
                "role": status.role.to_string(),
                "term": status.term.0,
                "leader": status.leader.map(|leader| leader.0),
                "commit": status.commit_index.0,
                "applied": status.last_applied.0,
                "log_first": status.first_log_index.0,
                "log_last": status.last_log_index.0,
                "files": status.files,
                "address": report.address,
                "cluster": status.cluster,
                "revision": status.revision.0,
            }),
            Err(error) => json!({
                "node": node.map(|node| node.0),
                "address": report.address,
                "error": error.to_string(),
            }),
        };
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}

const COLUMNS: [&str; 10] =
    ["NODE", "ROLE", "TERM", "LEADER", "COMMIT", "APPLIED", "FIRST", "LAST", "FILES", "ADDRESS"];

/// `status` as a table. A node that does not answer has its reason in place of its figures.
pub(crate) fn status_table(reports: &[NodeReport], nodes: &[Option<NodeId>]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for (report, node) in reports.iter().zip(nodes) {
        rows.push(status_row(report, *node));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            // Words to the left, numbers to the right; the last column needs no padding.
            let _ = match COLUMNS[column] {
                "ROLE" => write!(line, "{gap}{cell:<width$}"),
                "ADDRESS" => write!(line, "{gap}{cell}"),
                _ => write!(line, "{gap}{cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn status_row(report: &NodeReport, node: Option<NodeId>) -> [String; 10] {
    let unknown = || "-".to_owned();
    match &report.status {
        Ok(status) => [
            status.node.to_string(),
            status.role.to_string(),
            status.term.to_string(),
            status.leader.map_or_else(unknown, |leader| leader.to_string()),
            status.commit_index.to_string(),
            status.last_applied.to_string(),
            status.first_log_index.to_string(),
            status.last_log_index.to_string(),
            status.files.to_string(),
            report.address.clone(),
        ],
        Err(error) => {
            let mut row = [(); 10].map(|()| unknown());
            row[0] = node.map_or_else(unknown, |node| node.to_string());
            row[1] = "no answer".to_owned();
            row[9] = format!("{} ({error})", report.address);
            row
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsclient::{AttemptError, NodeRole, NodeStatus, Term, Version};
    use fsd_wire::LogIndex;

    fn reports() -> Vec<NodeReport> {
        let status = NodeStatus {
            node: NodeId(1),
            role: NodeRole::Leader,
            term: Term(12),
            leader: Some(NodeId(1)),
            commit_index: LogIndex(1000),
            last_applied: LogIndex(999),
            first_log_index: LogIndex(1),
            last_log_index: LogIndex(1001),
            files: 7,
            revision: Version(8),
            cluster: "demo".to_owned(),
        };
        vec![
            NodeReport { address: "127.0.0.1:7101".to_owned(), status: Ok(status) },
            NodeReport { address: "127.0.0.1:7102".to_owned(), status: Err(AttemptError::TimedOut) },
        ]
    }

    #[test]
    fn the_table_is_aligned_and_names_who_does_not_answer() {
        let table = status_table(&reports(), &[None, Some(NodeId(2))]);
        let expected = "\
NODE  ROLE       TERM  LEADER  COMMIT  APPLIED  FIRST  LAST  FILES  ADDRESS
   1  leader       12       1    1000      999      1  1001      7  127.0.0.1:7101
   2  no answer     -       -       -        -      -     -      -  127.0.0.1:7102 (no answer in time)
";
        assert_eq!(table, expected);
    }

    #[test]
    fn json_has_a_line_per_node() {
        let text = status_lines(&reports(), &[None, None]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["commit"], 1000);
        assert_eq!(lines[0]["role"], "leader");
        assert_eq!(lines[1]["error"], "no answer in time");
        assert_eq!(lines[1]["node"], serde_json::Value::Null);
    }

    #[test]
    fn a_file_is_a_line() {
        let info =
            FileInfo { name: "a\"b".to_owned(), version: Version(3), size_bytes: 5, expiry_seconds: 0 };
        assert_eq!(file_line(&info, false), "3 5 0 a\"b\n");
        let value: serde_json::Value = serde_json::from_str(&file_line(&info, true)).unwrap();
        assert_eq!((&value["name"], &value["size"]), (&"a\"b".into(), &5.into()));
    }
}
