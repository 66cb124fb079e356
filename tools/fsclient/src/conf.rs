//! What a client needs of a daemon's configuration file: the cluster's name and its members' client addresses.

use std::fmt;
use std::path::{Path, PathBuf};

use fsd_wire::NodeId;
use serde::Deserialize;

/// A cluster as one of its daemons' configuration files describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConf {
    /// The cluster's name.
    pub cluster: String,
    /// The members and their addresses for clients, in the file's order.
    pub members: Vec<(NodeId, String)>,
}

/// Only the keys that concern a client: the daemon is the judge of the others.
#[derive(Deserialize)]
struct File {
    cluster: String,
    member: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    node: u32,
    client: String,
}

impl ClusterConf {
    /// Reads the configuration file of a daemon.
    ///
    /// # Errors
    /// The file cannot be read, or lacks what a client needs.
    pub fn load(path: &Path) -> Result<Self, ConfError> {
        let error = |reason: String| ConfError { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        Self::parse(&text).map_err(error)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if file.member.is_empty() {
            return Err("it names no member".to_owned());
        }
        let members = file.member.into_iter().map(|member| (NodeId(member.node), member.client)).collect();
        Ok(Self { cluster: file.cluster, members })
    }
}

/// A configuration file that is of no use to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

impl std::error::Error for ConfError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_cluster_and_the_client_addresses_and_leaves_the_rest_to_the_daemon() {
        let conf = ClusterConf::parse(
            "cluster = \"demo\"\nnode = 1\ndata_dir = \"data\"\n[raft]\nheartbeat_ms = 50\n\
             [[member]]\nnode = 1\npeer = \"a:1\"\nclient = \"a:2\"\n\
             [[member]]\nnode = 2\npeer = \"b:1\"\nclient = \"b:2\"\ntext = \"b:3\"\n",
        )
        .unwrap();
        assert_eq!(conf.cluster, "demo");
        assert_eq!(conf.members, [(NodeId(1), "a:2".to_owned()), (NodeId(2), "b:2".to_owned())]);
    }

    #[test]
    fn says_what_is_missing() {
        assert!(ClusterConf::parse("cluster = \"demo\"").unwrap_err().contains("member"));
        assert!(ClusterConf::parse("member = []\ncluster = \"demo\"").unwrap_err().contains("no member"));
        let error = ClusterConf::load(Path::new("no/such.conf")).unwrap_err();
        assert!(error.to_string().starts_with("no/such.conf: "), "{error}");
    }
}
