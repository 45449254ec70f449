//! How a VF comes to another address. Each pair of drivers has its own order of asking, and the wrong one is refused, or
//! accepted and leads to a VF that drops everything.

use zerobridge_kernel::{VfAdmin, VfAdminChange};
use zerobridge_proto::Mac;

use super::diff::Operation;

/// In which order the PF's and the VF's driver have to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Lift the imposed address, set the VF's own, impose it. `igb` refuses any address from a VF that has one imposed,
    /// the same one included, and its VF keeps the old one until it is bound again (`igb_set_vf_mac_addr` in
    /// drivers/net/ethernet/intel/igb/igb_main.c, `igbvf_set_mac`).
    LiftFirst,
    /// Impose it and wait. `i40e` and `ice` reset a VF that they impose an address on, and the VF comes back with that one
    /// (`i40e_ndo_set_vf_mac`, `iavf_virtchnl_completion`). While it is being reset, a request to it waits for seconds
    /// under the kernel's RTNL lock (`iavf_set_mac`), so it is left alone.
    ImposeAndWait,
    /// Impose it, then set it. The VF's driver accepts what is imposed and nothing else (`ixgbe`, `bnxt_en`), or anything
    /// (`mlx5_core`, whose two addresses know nothing of each other, and whose VF takes the imposed one, and its node
    /// GUID from that, only when it is bound).
    ImposeFirst,
}

impl Order {
    fn of(vf_driver: Option<&str>) -> Self {
        match vf_driver {
            Some("igbvf") => Self::LiftFirst,
            Some("iavf" | "i40evf") => Self::ImposeAndWait,
            _ => Self::ImposeFirst,
        }
    }
}

/// The operations that lead a VF with a netdev from one imposed and carried address to another, `change` being made along
/// the way. `from` and `to` are pairs of what the PF imposes and what the netdev carries.
pub(super) fn operations(
    vf_driver: Option<&str>,
    from: (&VfAdmin, Mac),
    to: (&VfAdmin, Mac),
    mut change: VfAdminChange,
) -> Vec<Operation> {
    let ((imposed, carried), (to_impose, to_carry)) = ((from.0.mac, from.1), (to.0.mac, to.1));
    let order = Order::of(vf_driver);
    let lifts = order == Order::LiftFirst && carried != to_carry;
    change.mac = if lifts {
        (!imposed.is_zero()).then_some(Mac::ZERO)
    } else {
        (imposed != to_impose).then_some(to_impose)
    };
    let mut operations = Vec::new();
    if change != VfAdminChange::default() {
        operations.push(Operation::ChangeAdmin(change));
    }
    let awaited = change.mac.filter(|mac| order == Order::ImposeAndWait && !mac.is_zero());
    operations.extend(awaited.map(Operation::AwaitMac));
    if awaited.unwrap_or(carried) != to_carry {
        operations.push(Operation::SetMac(to_carry));
    }
    if lifts && !to_impose.is_zero() {
        let mac = Some(to_impose);
        operations.push(Operation::ChangeAdmin(VfAdminChange { mac, ..VfAdminChange::default() }));
    }
    operations
}
