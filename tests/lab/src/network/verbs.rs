//! Two programs that talk over RDMA devices, and what came of it.
//!
//! Refuses to know how a device came to where it is.

use std::time::Duration;

use zerobridge_lab_guest::{Output, State};

use super::rdma::inside;
use crate::machine::{Guest, GuestError, program};

/// How long a program may talk, in seconds: most wait for an answer for ever.
const TALK: &str = "20";
const LIMIT: Duration = Duration::from_secs(60);
/// Where `ibv_rc_pingpong` waits for its client.
const PING_PONG_PORT: &str = "sport = :18515";
/// Few, because what is of interest is whether they arrive, and each is copied by an emulated processor.
const MESSAGES: &str = "20";
const SIGTERM: i32 = 15;

/// One of two ends: where its program runs, and what it uses.
#[derive(Clone, Debug)]
pub struct VerbsEnd {
    /// The words that come before the program, such as those that enter a container.
    pub enter: Vec<String>,
    /// The network namespace that the program is then in.
    pub namespace: String,
    /// Its RDMA device.
    pub device: String,
    /// The address of the device's netdev.
    pub address: String,
}

impl VerbsEnd {
    /// Programs of the node that run in a network namespace and otherwise as everything else. They print line by line, so
    /// that one which is ended has said how far it came.
    #[must_use]
    pub fn in_namespace(namespace: &str, device: &str, address: &str) -> Self {
        let enter = inside(namespace, &["stdbuf", "-oL"]).into_iter().map(str::to_owned).collect();
        Self { enter, namespace: namespace.into(), device: device.into(), address: address.into() }
    }

    fn words<'a>(&'a self, argv: &[&'a str]) -> Vec<&'a str> {
        let enter = self.enter.iter().map(String::as_str);
        enter.chain(["timeout", TALK]).chain(argv.iter().copied()).collect()
    }
}

impl Guest {
    /// Has two ends exchange messages over a reliable connection (`ibv_rc_pingpong`). They agree on it over TCP before, for
    /// which the client asks at `meeting`. Returns what the client left behind, or the server if that ended at once.
    ///
    /// # Errors
    /// When a device has no identifier of its netdev's address, a program cannot be started, or the VM is lost.
    pub fn ping_pong(
        &mut self,
        server: &VerbsEnd,
        client: &VerbsEnd,
        meeting: &str,
    ) -> Result<Output, GuestError> {
        let gids = [server, client].map(|end| self.gid_of(&end.namespace, &end.device, &end.address));
        let [server_gid, client_gid] = gids;
        let (server_gid, client_gid) = (server_gid?, client_gid?);
        let serve = ["ibv_rc_pingpong", "-d", &server.device, "-g", &server_gid, "-n", MESSAGES];
        let call = ["ibv_rc_pingpong", "-d", &client.device, "-g", &client_gid, "-n", MESSAGES, meeting];
        let listening = inside(&server.namespace, &["ss", "-Hltn", PING_PONG_PORT]);
        self.talk(&server.words(&serve), &listening, &client.words(&call))
    }

    /// Has two ends exchange messages over a connection that the RDMA connection manager makes (`rping`). Returns what the
    /// client left behind, or the server if that ended at once.
    ///
    /// # Errors
    /// When a program cannot be started, or the VM is lost.
    pub fn rping(&mut self, server: &VerbsEnd, client: &VerbsEnd) -> Result<Output, GuestError> {
        self.gid_of(&server.namespace, &server.device, &server.address)?;
        self.gid_of(&client.namespace, &client.device, &client.address)?;
        let serve = ["rping", "-s", "-a", &server.address, "-C", "3"];
        let call = ["rping", "-c", "-a", &server.address, "-C", "3"];
        let listening = inside(
            &server.namespace,
            &["sh", "-c", "rdma resource show cm_id | grep 'state LISTEN' || true"],
        );
        self.talk(&server.words(&serve), &listening, &client.words(&call))
    }

    /// Starts `serve`, runs `call` as soon as `listening` prints something, and ends `serve` if it has not ended by itself.
    fn talk(&mut self, serve: &[&str], listening: &[&str], call: &[&str]) -> Result<Output, GuestError> {
        let name = "verbs-server";
        let log = format!("/out/{name}.log");
        let before = self.read(&log)?.unwrap_or_default().len();
        let pid = self.start(program(serve), name)?;
        let ended = self.wait_for("a listening server", LIMIT, |guest| {
            if let State::Ended(code) = guest.state(pid)? {
                return Ok(Ok(Some(code)));
            }
            let sockets = guest.run(listening)?;
            Ok(if sockets.is_empty() { Err("it does not listen".into()) } else { Ok(None) })
        })?;
        if let Some(code) = ended {
            let said = self.read(&log)?.unwrap_or_default().split_off(before);
            return Ok(Output { code, timed_out: false, stdout: String::new(), stderr: said });
        }
        let output = self.output(program(call), LIMIT)?;
        self.wait_for("the end of the server", LIMIT, |guest| {
            if guest.state(pid)? == State::Running {
                guest.signal(pid, SIGTERM)?;
                return Ok(Err(format!("process {pid} runs")));
            }
            Ok(Ok(()))
        })?;
        Ok(output)
    }
}
