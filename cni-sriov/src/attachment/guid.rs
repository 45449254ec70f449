//! How an InfiniBand VF comes to another GUID. Pure.
//!
//! The PF imposes it, and the VF's driver reads it when it is bound, so the driver is bound anew in between: netdev and RDMA
//! device are made anew by that, and everything else waits until they are looked at again. That happens on the host only: a VF
//! that a pod has comes home first.

use zerobridge_kernel::VfAdminChange;

use super::diff::Operation;
use super::state::{Place, RdmaPlace, VfState};

/// The operations that must come before all others; `None` when the GUIDs are as wanted or cannot be set yet.
pub(super) fn operations(observed: &VfState, wanted: &VfState) -> Option<Vec<Operation>> {
    let (now, then) = (observed.admin?.guids?, wanted.admin?.guids?);
    let is_away = observed.link.as_ref().is_some_and(|link| link.place == Place::Sandbox)
        || observed.rdma.as_ref().is_some_and(|rdma| rdma.place == RdmaPlace::Sandbox);
    if now == then || is_away {
        return None;
    }
    let change = VfAdminChange { guids: Some(then), ..VfAdminChange::default() };
    let mut operations = vec![Operation::ChangeAdmin(change)];
    // A userspace driver resets the VF when it opens it, which has the same effect.
    operations.extend(observed.link.is_some().then_some(Operation::BindAnew));
    Some(operations)
}

#[cfg(test)]
mod tests {
    use zerobridge_kernel::VfGuids;
    use zerobridge_proto::Guid;

    use super::*;
    use crate::attachment::diff;
    use crate::attachment::model::{at_home, in_pod, with_roce, with_vfio};

    fn with_guid(state: VfState, guid: u64) -> VfState {
        let mut state = state;
        let guids = VfGuids { node: Guid(guid), port: Guid(guid) };
        state.admin.as_mut().unwrap().guids = Some(guids);
        state
    }

    fn guids(operation: &Operation) -> Option<u64> {
        match operation {
            Operation::ChangeAdmin(change) => change.guids.map(|guids| guids.node.0),
            _ => None,
        }
    }

    #[test]
    fn a_guid_is_set_and_the_driver_bound_anew_before_anything_else() {
        let (host, pod) = (with_guid(with_roce(at_home()), 1), with_guid(with_roce(in_pod()), 2));
        let operations = diff(&host, &pod);
        assert_eq!((operations.len(), guids(&operations[0])), (2, Some(2)));
        assert_eq!(operations[1], Operation::BindAnew);
        let set = with_guid(host, 2);
        assert!(!diff(&set, &pod).contains(&Operation::BindAnew), "then the rest");
        let vfio = diff(&with_guid(with_vfio(), 1), &with_guid(with_vfio(), 2));
        assert_eq!((vfio.len(), guids(&vfio[0])), (1, Some(2)));
    }

    #[test]
    fn a_vf_comes_home_before_its_guid_is_restored() {
        let (host, pod) = (with_guid(with_roce(at_home()), 1), with_guid(with_roce(in_pod()), 2));
        let operations = diff(&pod, &host);
        assert!(operations.contains(&Operation::MoveRdma(Place::Host)));
        assert!(operations.iter().all(|operation| guids(operation).is_none()));
        let came_home = with_guid(host.clone(), 2);
        assert_eq!(guids(&diff(&came_home, &host)[0]), Some(1));
    }
}
