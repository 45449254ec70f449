//! The lab: a VM with real SR-IOV network cards, a real containerd and a real kubelet, on any Linux machine.
//!
//! [`prepare`] makes and caches what a VM needs, [`Lab::boot`] starts one, [`Lab::node`] makes it a Kubernetes node.
//! Refuses to know what a scenario expects.
#![forbid(unsafe_code)]

mod attachments;
mod figures;
mod lab;
mod machine;
mod network;
mod node;
mod prepare;
mod programs;
mod report;
mod services;
mod story;

pub use attachments::{AttachmentFiguresError, attachment_figures};
pub use figures::{FiguresError, figures};
pub use lab::{CARDS, Lab, LabError, VFS_PER_CARD};
pub use machine::{
    Count, CrashPlan, CrashPoint, CrashReport, CrashRun, Forward, Guest, GuestError, HOST_ADDRESS, Hardware,
    MANAGEMENT_PREFIX, Member, Output, Place, PlaceError, Program, State, Vm, VmError, Wire, look_until,
    program,
};
pub use network::{
    CniCall, CniError, HOST, Link, LinkInfo, PLUGIN_FOLDER, Rate, RdmaMode, RdmaPort, Snapshot, VerbsEnd,
    VfInfo, VfPlace, Vlan, rebinding,
};
pub use node::{
    Address, BLUE, CNI_CONFIG, Change, Followed, GREEN, LinkAddresses, METRICS, Metrics, Node, Pod,
    PodRequest, Usage, Waited, Watch, Watched, cni_config, device_config, import_image, launch_runtime,
};
pub use prepare::{
    AptError, Cache, CacheError, HostError, IMAGE, KernelError, PackageError, PrepareError, Prepared,
    Progress, RDMA_IMAGE, checkout, cluster_programs, control_plane, manifest_tools, multus, prepare,
};
pub use programs::{LEDGER, Programs, ProgramsError};
pub use report::report;
pub use services::{ServicesError, compile_services, service_figures, services_in_pods};
pub use story::{StoryError, tell};
