//! One daemon as a child process.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::ports::ReservedPort;
use super::{PATIENCE, wait_for, wait_until};

/// A node of a test's cluster, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its number in the configuration, from 1.
    pub(crate) id: u32,
    pub(crate) conf: PathBuf,
    pub(crate) data_dir: PathBuf,
    /// Where its standard error goes, over all its lives.
    pub(crate) output: PathBuf,
    pub(crate) peer: String,
    pub(crate) client: String,
    pub(crate) text: String,
    pub(crate) http: String,
    child: Option<Child>,
    stopped: bool,
}

/// The daemon under test with these arguments; its output is not connected yet.
pub(crate) fn daemon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsd"));
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Node {
    pub(crate) fn new(id: u32, directory: &Path, ports: &[ReservedPort]) -> Self {
        let [peer, client, text, http] = [0, 1, 2, 3].map(|n| format!("127.0.0.1:{}", ports[n].number()));
        Self {
            id,
            conf: directory.join(format!("node{id}.conf")),
            data_dir: directory.join(format!("data{id}")),
            output: directory.join(format!("node{id}.log")),
            peer,
            client,
            text,
            http,
            child: None,
            stopped: false,
        }
    }

    pub(crate) fn launch(&mut self) {
        self.launch_as(daemon(&["-c", self.conf.to_str().unwrap()]));
    }

    /// Launches it through another program, which must become the daemon.
    pub(crate) fn launch_under(&mut self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).arg(env!("CARGO_BIN_EXE_fsd")).arg("-c").arg(&self.conf).stdin(Stdio::null());
        self.launch_as(command);
    }

    fn launch_as(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "node {} runs already", self.id);
        let output = OpenOptions::new().create(true).append(true).open(&self.output).unwrap();
        let child = command.stdout(Stdio::null()).stderr(output).spawn().expect("the daemon can be started");
        self.child = Some(child);
    }

    /// Whether it was launched and has not been reaped.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// Its exit status, if it ended by itself.
    pub(crate) fn take_exit(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        self.child = None;
        Some(status)
    }

    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
        self.stopped = false;
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.request_end();
        self.wait_for_end()
    }

    pub(crate) fn request_end(&mut self) {
        self.signal("TERM");
    }

    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait_for(PATIENCE, || self.take_exit()).unwrap_or_else(|| panic!("node {} does not end", self.id))
    }

    /// Stops it; when this returns, it does nothing any more.
    pub(crate) fn stop(&mut self) {
        self.signal("STOP");
        self.stopped = true;
        let path = format!("/proc/{}/stat", self.process_id());
        wait_until(PATIENCE, "the process stops", || {
            let stat = std::fs::read_to_string(&path).unwrap();
            // The state follows the program's name, which is in parentheses.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        });
    }

    pub(crate) fn cont(&mut self) {
        self.signal("CONT");
        self.stopped = false;
    }

    fn signal(&self, name: &str) {
        let process_id = self.process_id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &process_id]).status().unwrap();
        assert!(status.success(), "kill -{name} {process_id}");
    }

    /// Forgets everything that the node knew.
    pub(crate) fn wipe(&self) {
        assert!(self.child.is_none(), "node {} still runs", self.id);
        std::fs::remove_dir_all(&self.data_dir).unwrap();
    }

    /// What it said on standard error, in all its lives.
    pub(crate) fn output(&self) -> String {
        std::fs::read(&self.output)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its memory in use, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        // Anonymous memory only: mapped pages of the log come and go as the system sees fit.
        self.status_kib("RssAnon:")
    }

    /// The most memory that it ever had in use, mapped pages of the log included, in KiB.
    pub(crate) fn peak_resident_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process_id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).expect("the kernel reports it");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("it is a number")
    }

    /// Writes its configuration.
    pub(crate) fn write_conf(&self, text: &str) {
        use std::io::Write;
        File::create(&self.conf).and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
