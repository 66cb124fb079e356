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
                "log_bytes": report.storage.map(|storage| storage.log_bytes),
                "contents_bytes": report.storage.map(|storage| storage.contents_bytes),
                "checkpoint_bytes": report.storage.map(|storage| storage.checkpoint_bytes),
                "live_bytes": report.storage.map(|storage| storage.live_bytes),
                "total_bytes": report.storage.map(|storage| storage.total_bytes).filter(|bytes| *bytes > 0),
                "checkpoint": report.storage.map(|storage| storage.checkpoint_index.0),
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

/// What the data directory takes comes last: whoever picks a column by its place finds the ones before where they
/// always were.
const COLUMNS: [&str; 15] = [
    "NODE",
    "ROLE",
    "TERM",
    "LEADER",
    "COMMIT",
    "APPLIED",
    "FIRST",
    "LAST",
    "FILES",
    "ADDRESS",
    "LOG_BYTES",
    "CONTENTS_BYTES",
    "CHECKPOINT_BYTES",
    "LIVE_BYTES",
    "TOTAL_BYTES",
];
const ADDRESS_COLUMN: usize = 9;

/// `status` as a table. A node that does not answer has its reason in place of its figures, behind its address.
pub(crate) fn status_table(reports: &[NodeReport], nodes: &[Option<NodeId>]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for (report, node) in reports.iter().zip(nodes) {
        rows.push(status_row(report, *node));
    }
    let cell_width = |row: &Vec<String>, column: usize| match row.get(column) {
        // Nothing stands behind a reason, so nothing need make room for it.
        Some(cell) if row.len() == COLUMNS.len() || column < ADDRESS_COLUMN => cell.chars().count(),
        _ => 0,
    };
    let width = |column: usize| rows.iter().map(|row| cell_width(row, column)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            // Words to the left, numbers to the right.
            let _ = match COLUMNS[column] {
                "ROLE" | "ADDRESS" => write!(line, "{gap}{cell:<width$}"),
                _ => write!(line, "{gap}{cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn status_row(report: &NodeReport, node: Option<NodeId>) -> Vec<String> {
    let unknown = || "-".to_owned();
    let status = match &report.status {
        Ok(status) => status,
        Err(error) => {
            let mut row = vec![unknown(); ADDRESS_COLUMN + 1];
            row[0] = node.map_or_else(unknown, |node| node.to_string());
            row[1] = "no answer".to_owned();
            row[ADDRESS_COLUMN] = format!("{} ({error})", report.address);
            return row;
        }
    };
    let mut row = vec![
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
    ];
    row.extend(match &report.storage {
        Some(storage) => {
            let total = (storage.total_bytes > 0).then_some(storage.total_bytes);
            [
                storage.log_bytes.to_string(),
                storage.contents_bytes.to_string(),
                storage.checkpoint_bytes.to_string(),
                storage.live_bytes.to_string(),
                total.map_or_else(unknown, |total| total.to_string()),
            ]
        }
        None => [(); 5].map(|()| unknown()),
    });
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use fsclient::{AttemptError, NodeRole, NodeStatus, StorageStatus, Term, Version};
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
        let storage = StorageStatus {
            log_bytes: 16_777_216,
            contents_bytes: 0,
            checkpoint_bytes: 1703,
            live_bytes: 5_000_000_000,
            total_bytes: 16_787_111,
            checkpoint_index: LogIndex(900),
        };
        let untold = NodeStatus { node: NodeId(3), role: NodeRole::Follower, ..status.clone() };
        let address = |port: u16| format!("127.0.0.1:{port}");
        vec![
            NodeReport { address: address(7101), status: Ok(status), storage: Some(storage) },
            NodeReport { address: address(7102), status: Err(AttemptError::TimedOut), storage: None },
            NodeReport { address: address(7103), status: Ok(untold), storage: None },
        ]
    }

    #[test]
    fn the_table_is_aligned_and_names_who_does_not_answer() {
        let table = status_table(&reports(), &[None, Some(NodeId(2)), None]);
        let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<&str> = table.lines().collect();
        let (begin, end) = lines[0].split_at(lines[0].find("LOG_BYTES").unwrap());
        assert_eq!(
            begin,
            "NODE  ROLE       TERM  LEADER  COMMIT  APPLIED  FIRST  LAST  FILES  ADDRESS         "
        );
        assert_eq!(end, "LOG_BYTES  CONTENTS_BYTES  CHECKPOINT_BYTES  LIVE_BYTES  TOTAL_BYTES");
        let (begin, end) = lines[1].split_at(begin.len());
        assert_eq!(
            begin,
            "   1  leader       12       1    1000      999      1  1001      7  127.0.0.1:7101  "
        );
        assert_eq!(end, " 16777216               0              1703  5000000000     16787111");
        assert_eq!(
            lines[2],
            "   2  no answer     -       -       -        -      -     -      -  127.0.0.1:7102 (no answer in time)"
        );
        assert_eq!(columns(lines[3])[9..], ["127.0.0.1:7103", "-", "-", "-", "-", "-"]);
        assert_eq!((lines.len(), lines[3].len()), (4, lines[0].len()));
    }

    #[test]
    fn json_has_a_line_per_node() {
        let text = status_lines(&reports(), &[None, None, None]);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["commit"], 1000);
        assert_eq!(lines[0]["role"], "leader");
        assert_eq!((&lines[0]["log_bytes"], &lines[0]["contents_bytes"]), (&16_777_216.into(), &0.into()));
        assert_eq!(
            (&lines[0]["live_bytes"], &lines[0]["total_bytes"]),
            (&5_000_000_000_u64.into(), &16_787_111.into())
        );
        assert_eq!((&lines[0]["checkpoint_bytes"], &lines[0]["checkpoint"]), (&1703.into(), &900.into()));
        assert_eq!(lines[1]["error"], "no answer in time");
        assert_eq!(lines[1]["node"], serde_json::Value::Null);
        assert_eq!((&lines[2]["log_bytes"], &lines[2]["commit"]), (&serde_json::Value::Null, &1000.into()));
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
