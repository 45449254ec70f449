//! The programs of a control plane that only a cluster with nodes needs, on the host.

use std::path::Path;

use super::error::ClusterError;
use super::users;
use crate::control_plane::ControlPlane;
use crate::process::Process;

/// Starts the controllers, each with the rights of its own account.
pub(super) fn start(programs: &Path, plane: &ControlPlane) -> Result<Process, ClusterError> {
    let kubeconfig = plane.kubeconfig_with("controllers-kubeconfig", users::CONTROLLERS)?;
    let arguments = [
        ("--kubeconfig", kubeconfig.display().to_string()),
        ("--use-service-account-credentials", "true".to_owned()),
        ("--service-account-private-key-file", plane.signing_key().display().to_string()),
        ("--root-ca-file", plane.authority().display().to_string()),
        ("--leader-elect", "false".to_owned()),
        ("--secure-port", "0".to_owned()),
    ];
    Ok(Process::start(&programs.join("kube-controller-manager"), plane.folder(), &arguments, &[])?)
}

/// Starts the scheduler.
pub(super) fn start_scheduler(programs: &Path, plane: &ControlPlane) -> Result<Process, ClusterError> {
    let kubeconfig = plane.kubeconfig_with("scheduler-kubeconfig", users::SCHEDULER)?;
    let arguments = [
        ("--kubeconfig", kubeconfig.display().to_string()),
        ("--leader-elect", "false".to_owned()),
        ("--secure-port", "0".to_owned()),
    ];
    Ok(Process::start(&programs.join("kube-scheduler"), plane.folder(), &arguments, &[])?)
}
