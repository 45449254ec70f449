//! How an RDMA device comes to where it should be. Pure.
//!
//! One of RoCE follows its netdev into a pod, and leaves before it: its driver looks for the netdev where the device is. One
//! of InfiniBand goes first both ways, because IPoIB makes the netdev anew on the host whenever the device moves. One of
//! software is made on the netdev where that is, appears on the host, and is removed before the netdev moves, which would
//! destroy it in the kernel's own time.

use zerobridge_proto::PciAddress;

use super::diff::Operation;
use super::state::{Place, RdmaKind, RdmaPlace, RdmaState, VfState};

/// What to do about an RDMA device, around the move of the netdev if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// Before anything else.
    pub(super) before: Vec<Operation>,
    /// When the netdev is in the pod under its name.
    pub(super) after: Vec<Operation>,
}

/// The name under which a software device is made; a stranger's has any other.
pub(super) fn soft_name(device: PciAddress) -> String {
    format!("rxe_{}", device.to_string().replace([':', '.'], "_"))
}

/// The operations that lead to the RDMA device of `wanted`, whose netdev should be at `place`.
pub(super) fn operations(observed: &VfState, wanted: &VfState, place: Place) -> Steps {
    let before = |before| Steps { before, ..Steps::default() };
    let is_soft = |rdma: &RdmaState| rdma.kind == RdmaKind::Soft;
    match (&observed.rdma, &wanted.rdma) {
        (Some(now), Some(should)) if is_soft(now) == is_soft(should) => {
            let moves = movement(now, should);
            if place == Place::Host || now.kind == RdmaKind::Infiniband {
                return before(moves);
            }
            Steps { after: moves, ..Steps::default() }
        }
        (Some(now), _) if is_soft(now) => before(vec![Operation::RemoveSoftRdma]),
        (None, Some(should)) if is_soft(should) => {
            let mut after = vec![Operation::AddSoftRdma];
            if should.place == RdmaPlace::Sandbox {
                after.push(Operation::MoveRdma(Place::Sandbox));
                after.push(Operation::RenameRdma(should.name.clone()));
            }
            Steps { after, ..Steps::default() }
        }
        (None, Some(_)) => before(vec![Operation::AwaitRdma]),
        // A record that is older than the field says nothing of hardware.
        (_, None) | (Some(_), Some(_)) => Steps::default(),
    }
}

fn movement(now: &RdmaState, should: &RdmaState) -> Vec<Operation> {
    // Nobody can move a device in shared mode, whatever a record of the other mode says.
    if now.place == RdmaPlace::Everywhere || should.place == RdmaPlace::Everywhere {
        return Vec::new();
    }
    let to = if should.place == RdmaPlace::Sandbox { Place::Sandbox } else { Place::Host };
    let moves = (now.place != should.place).then_some(Operation::MoveRdma(to));
    let renames = (now.name != should.name).then(|| Operation::RenameRdma(should.name.clone()));
    // The pod's name for it may be another device's on the host, so it has that only in the pod.
    let in_order = if to == Place::Sandbox { [moves, renames] } else { [renames, moves] };
    in_order.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use Operation::{AddSoftRdma, AwaitRdma, Move, MoveRdma, RemoveSoftRdma, RenameRdma};

    use super::*;
    use crate::attachment::diff;
    use crate::attachment::model::{at_home, in_pod, with_roce, with_soft_rdma};

    fn rdma_operations(observed: &VfState, wanted: &VfState) -> Vec<Operation> {
        let is_meant = |operation: &Operation| {
            matches!(
                operation,
                MoveRdma(_) | RenameRdma(_) | AddSoftRdma | RemoveSoftRdma | AwaitRdma | Move { .. }
            )
        };
        diff(observed, wanted).into_iter().filter(is_meant).collect()
    }

    fn into_pod() -> Operation {
        Move { to: Place::Sandbox, name: "eth0".to_owned(), mtu: Some(9000) }
    }

    fn home() -> Operation {
        Move { to: Place::Host, name: at_home().link.unwrap().name, mtu: Some(1500) }
    }

    #[test]
    fn an_rdma_device_follows_its_netdev_and_leaves_before_it() {
        let (host, pod) = (with_roce(at_home()), with_roce(in_pod()));
        assert_eq!(rdma_operations(&host, &pod), [into_pod(), MoveRdma(Place::Sandbox)]);
        assert_eq!(rdma_operations(&pod, &host), [MoveRdma(Place::Host), home()]);
        let mut named = pod;
        named.rdma.as_mut().unwrap().name = "rdma0".to_owned();
        let rename = |name: &str| RenameRdma(name.to_owned());
        assert_eq!(rdma_operations(&host, &named), [into_pod(), MoveRdma(Place::Sandbox), rename("rdma0")]);
        assert_eq!(rdma_operations(&named, &host), [rename("mlx5_3"), MoveRdma(Place::Host), home()]);
        let lost = VfState { rdma: None, ..at_home() };
        assert_eq!(rdma_operations(&lost, &host), [AwaitRdma]);
        assert_eq!(rdma_operations(&host, &at_home()), [], "a record that is older than the field");
    }

    #[test]
    fn infiniband_goes_first_both_ways() {
        let infiniband = |state: VfState| {
            let mut state = with_roce(state);
            state.rdma.as_mut().unwrap().kind = RdmaKind::Infiniband;
            state
        };
        let (host, pod) = (infiniband(at_home()), infiniband(in_pod()));
        assert_eq!(rdma_operations(&host, &pod), [MoveRdma(Place::Sandbox), into_pod()]);
        assert_eq!(rdma_operations(&pod, &host), [MoveRdma(Place::Host), home()]);
    }

    #[test]
    fn a_software_device_is_made_in_the_pod_and_removed_there() {
        let shared = with_soft_rdma(in_pod(), RdmaPlace::Everywhere);
        assert_eq!(rdma_operations(&at_home(), &shared), [into_pod(), AddSoftRdma]);
        let exclusive = with_soft_rdma(in_pod(), RdmaPlace::Sandbox);
        let expected = [into_pod(), AddSoftRdma, MoveRdma(Place::Sandbox), RenameRdma("rdma0".to_owned())];
        assert_eq!(rdma_operations(&at_home(), &exclusive), expected);
        for state in [shared, exclusive.clone()] {
            assert_eq!(rdma_operations(&state, &at_home()), [RemoveSoftRdma, home()]);
        }
        let half_way = with_soft_rdma(in_pod(), RdmaPlace::Host);
        assert_eq!(rdma_operations(&half_way, &exclusive), [MoveRdma(Place::Sandbox)]);
    }

    #[test]
    fn in_shared_mode_nothing_moves_whatever_a_record_says() {
        let everywhere = |state| {
            let mut state = with_roce(state);
            state.rdma.as_mut().unwrap().place = RdmaPlace::Everywhere;
            state
        };
        assert_eq!(rdma_operations(&everywhere(at_home()), &everywhere(in_pod())), [into_pod()]);
        assert_eq!(rdma_operations(&everywhere(in_pod()), &with_roce(at_home())), [home()]);
    }
}
