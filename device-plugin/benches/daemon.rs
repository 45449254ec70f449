//! What the running daemon costs with 1,024 VFs on 16 PFs: from start to a served list, memory, time when nothing happens,
//! an allocation over the socket, and from a change in sysfs to the message that tells of it.
//!
//! `make bench` builds the static programs and names their folder in `ZEROBRIDGE_BIN_DIR`; without it, the program that
//! Cargo built for this bench is measured. The machine is a tree of files, of which the kernel reports no events: so the
//! daemon is told to look every 250 ms for the last figure only, which therefore holds half of that on average.
//!
//! With `ZEROBRIDGE_KUBECONFIG`, the daemon also talks to that API server, where a node `n1` need not be: what that costs in
//! memory. `cargo run -p zerobridge-cluster --example serve` is such a server.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use zerobridge_kernel::testing::SysfsTree;
use zerobridge_measure::{Outcome, figure, milliseconds, program, resident, run, show};
use zerobridge_proto::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, DevicePluginClient, Empty, ListAndWatchResponse,
    RegisterRequest, Registration, RegistrationServer,
};

const PFS: u8 = 16;
const VFS: u8 = 64;
const ALLOCATIONS: usize = 1000;
const IDLE: Duration = Duration::from_secs(60);
const CHANGES: usize = 20;
const REGISTER_LIMIT: Duration = Duration::from_secs(30);
/// `sysconf(_SC_CLK_TCK)` on every Linux of today: the unit of `/proc/PID/stat`.
const TICK: Duration = Duration::from_millis(10);

/// Names a kubeconfig.
const KUBECONFIG: &str = "ZEROBRIDGE_KUBECONFIG";

const CONFIG: &str = r#"{"pools": [{"resourceName": "vf", "selectors": {"any": true}}]}"#;

fn main() -> ExitCode {
    run(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(1).enable_all().build()?.block_on(measure())
    })
}

async fn measure() -> Outcome<()> {
    let name = "zerobridge-device-plugin";
    let program = program(name, env!("CARGO_BIN_EXE_zerobridge-device-plugin"));
    let folder = tempfile::tempdir()?;
    let tree = SysfsTree::new(folder.path().join("sys"));
    let vf = tree.add_large_machine(PFS, VFS);
    let kubelet = Kubelet::start(folder.path())?;
    fs::write(folder.path().join("config.json"), CONFIG)?;
    figure(name, &format!("{} bytes", fs::metadata(&program)?.len()));

    let started = Instant::now();
    let mut daemon = Daemon::start(&program, folder.path(), "60m")?;
    let mut registered = kubelet;
    let (mut plugin, mut lists) = registered.plugin(folder.path()).await?;
    let devices = next(&mut lists).await?.devices.len();
    let took = milliseconds(started.elapsed());
    figure("start to a served list", &format!("{took:.0} ms, {devices} devices"));

    let mut times = Vec::new();
    for _ in 0..ALLOCATIONS {
        let container = ContainerAllocateRequest { devices_ids: vec![vf.to_string()] };
        let request = AllocateRequest { container_requests: vec![container] };
        let began = Instant::now();
        plugin.allocate(request).await?;
        times.push(began.elapsed());
    }
    show("Allocate over the socket", times);
    let memory = resident(&daemon.0.id().to_string())?;
    figure("memory with 1,024 VFs", &format!("{memory} KiB RSS"));

    let before = daemon.processor_time()?;
    tokio::time::sleep(IDLE).await;
    let used = daemon.processor_time()?.saturating_sub(before);
    figure("processor time when idle", &format!("{} ms of {} s", used.as_millis(), IDLE.as_secs()));
    daemon.stop()?;
    drop((plugin, lists));

    let mut daemon = Daemon::start(&program, folder.path(), "250ms")?;
    let (_plugin, mut lists) = registered.plugin(folder.path()).await?;
    next(&mut lists).await?;
    let mut times = Vec::new();
    for round in 0..CHANGES {
        let began = Instant::now();
        if round % 2 == 0 {
            tree.remove(vf);
        } else {
            tree.add_large_machine_vf(PFS - 1, VFS - 1);
        }
        next(&mut lists).await?;
        times.push(began.elapsed());
    }
    show("change to message, 250 ms rescan", times);
    daemon.stop()
}

/// As much of a kubelet as it takes to be registered with.
struct Kubelet {
    registrations: mpsc::Receiver<RegisterRequest>,
}

struct Register(mpsc::Sender<RegisterRequest>);

#[tonic::async_trait]
impl Registration for Register {
    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<Empty>, Status> {
        self.0.send(request.into_inner()).await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(Empty {}))
    }
}

impl Kubelet {
    fn start(root: &Path) -> Outcome<Self> {
        let folder = root.join("kubelet/device-plugins");
        fs::create_dir_all(&folder)?;
        let incoming = UnixListenerStream::new(UnixListener::bind(folder.join("kubelet.sock"))?);
        let (sender, registrations) = mpsc::channel(4);
        let service = RegistrationServer::new(Register(sender));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Ok(Self { registrations })
    }

    /// The plugin that registers next, and its device lists.
    async fn plugin(
        &mut self,
        root: &Path,
    ) -> Outcome<(DevicePluginClient<Channel>, Streaming<ListAndWatchResponse>)> {
        let registered = tokio::time::timeout(REGISTER_LIMIT, self.registrations.recv()).await;
        let request = registered.ok().flatten().ok_or("the daemon does not register")?;
        let socket = root.join("kubelet/device-plugins").join(request.endpoint);
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
        let mut plugin = DevicePluginClient::new(channel);
        let lists = plugin.list_and_watch(Empty {}).await?.into_inner();
        Ok((plugin, lists))
    }
}

async fn next(lists: &mut Streaming<ListAndWatchResponse>) -> Outcome<ListAndWatchResponse> {
    Ok(lists.next().await.ok_or("the stream ended")??)
}

struct Daemon(Child);

impl Daemon {
    fn start(program: &Path, root: &Path, rescan: &str) -> Outcome<Self> {
        let mut command = Command::new(program);
        for (flag, name) in [
            ("--config", "config.json"),
            ("--kubelet-root", "kubelet"),
            ("--sysfs", "sys"),
            ("--devinfo-dir", "devinfo"),
            ("--cdi-dir", "cdi"),
            ("--state-dir", "state"),
            ("--run-dir", "run"),
        ] {
            command.arg(flag).arg(root.join(name));
        }
        if let Some(kubeconfig) = std::env::var_os(KUBECONFIG) {
            command.arg("--kubeconfig").arg(kubeconfig).args(["--node-name", "n1"]);
        }
        command.args(["--rescan", rescan, "--log-level", "off"]).stdin(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// User and system time so far: fields 14 and 15 of `/proc/PID/stat`, in ticks (proc_pid_stat(5)).
    fn processor_time(&self) -> Outcome<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        let behind_the_name = stat.rsplit_once(')').ok_or("no name in stat")?.1;
        let fields: Vec<&str> = behind_the_name.split_whitespace().collect();
        let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
        Ok(TICK * ticks)
    }

    fn stop(&mut self) -> Outcome<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone unless the measurement failed.
        let _ = self.stop();
    }
}
