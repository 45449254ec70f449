//! Who may do what at the API server: the users of its token file, each with the rights that Kubernetes itself gives to
//! that name.

/// Of the scheduler, the controllers and the proxy of Services.
pub(super) const SCHEDULER: &str = "lab-scheduler";
pub(super) const CONTROLLERS: &str = "lab-controllers";
pub(super) const PROXY: &str = "lab-proxy";
/// Of Multus, whose account `multus.yaml` gives its rights.
pub(super) const MULTUS: &str = "lab-multus";

/// Of the kubelet of a node.
pub(super) fn kubelet(node: &str) -> String {
    format!("lab-kubelet-{node}")
}

/// The lines of the token file for these nodes.
pub(super) fn tokens(nodes: &[String]) -> String {
    let kubelets = nodes.iter().map(|node| (kubelet(node), format!("system:node:{node}"), "system:nodes"));
    let programs = [
        (SCHEDULER, "system:kube-scheduler"),
        (CONTROLLERS, "system:kube-controller-manager"),
        (PROXY, "system:kube-proxy"),
        (MULTUS, "system:serviceaccount:kube-system:multus"),
    ];
    let programs = programs.map(|(token, user)| (token.to_owned(), user.to_owned(), "system:authenticated"));
    programs
        .into_iter()
        .chain(kubelets)
        .map(|(token, user, group)| format!("{token},{user},{user},{group}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_of_the_name_and_group_that_the_node_authorizer_looks_for() {
        let text = tokens(&["n1".to_owned(), "n2".to_owned()]);
        assert!(text.contains("lab-kubelet-n2,system:node:n2,system:node:n2,system:nodes\n"));
        assert_eq!(text.lines().count(), 6);
    }
}
