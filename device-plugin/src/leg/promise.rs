//! A leg's addresses: leased in the ledger, like a pod's, to an owner that no runtime knows.
//!
//! One that is written in the configuration is leased too, so that no pod gets it, though no pool need have it. Refuses to
//! know links.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;
use zerobridge_ipam::{
    ConflictProbe, Foreign, IpamError, LeaseRequest, PoolConfig, PoolError, given_out, lease, set_aside,
};
use zerobridge_ledger::{Lease, Ledger, LedgerError, Owner, UnixSeconds};
use zerobridge_proto::{Mac, PciAddress};

use crate::config::{LegAddresses, LegConfig};

/// What goes into a leg's leases beside its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Carrier {
    /// The PF, or the VF.
    pub(crate) device: PciAddress,
    /// The Ethernet address of the interface.
    pub(crate) mac: Option<Mac>,
    /// The boot.
    pub(crate) boot_id: String,
    /// The time.
    pub(crate) now: UnixSeconds,
}

/// What a leg is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Its addresses, each with the length of its subnet's prefix.
    pub(crate) addresses: Vec<IpNet>,
    /// What it has a lease of and is no longer to have: to be released once no link has it.
    pub(crate) superseded: Vec<Lease>,
}

/// Why a leg has no address.
#[derive(Debug, Error)]
pub(crate) enum PromiseError {
    #[error("the pool of its configuration cannot be read")]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(
        "its address {address} is leased to {holder} in network {network}; it gets it when that is gone, or write another"
    )]
    Taken { address: IpAddr, holder: Owner, network: String },
    #[error("{mac} has its address {address} on the link; take it from there, or write another")]
    Foreign { address: IpAddr, mac: Mac },
}

/// How the link is asked for others who have the leg's addresses; `None` when it is not asked. A written address is always
/// asked for: no pool keeps it from others.
pub(crate) fn probe(leg: &LegConfig) -> Result<Option<ConflictProbe>, PromiseError> {
    match &leg.addresses {
        LegAddresses::Pool(ipam) => Ok(PoolConfig::parse(ipam, None)?.conflict_probe),
        LegAddresses::Fixed(_) => Ok(Some(ConflictProbe::default())),
    }
}

/// Leases the leg's addresses, the same whenever it is called. Where the ledger knows of none, those of `present`, which the
/// interface has, are taken if they can be: a ledger that was made anew has lost the lease, and not the node the address.
pub(crate) fn promise(
    ledger: &mut Ledger,
    leg: &LegConfig,
    carrier: &Carrier,
    present: &[IpNet],
) -> Result<Promise, PromiseError> {
    let owner = Owner::leg(&leg.name);
    let network = &leg.network;
    let mut transaction = ledger.begin()?;
    let held: Vec<Lease> =
        transaction.leases_of(&owner)?.into_iter().filter(|lease| lease.network == *network).collect();
    let addresses = match &leg.addresses {
        LegAddresses::Pool(ipam) => {
            let pool = PoolConfig::parse(ipam, None)?;
            let mut requested = Vec::new();
            if held.is_empty() {
                let present: Vec<IpAddr> = present.iter().map(IpNet::addr).collect();
                for address in given_out(&transaction, network, &pool, &present)? {
                    if transaction.lease_at(network, address)?.is_none() {
                        requested.push(address);
                    }
                }
            }
            let request = LeaseRequest {
                owner,
                pod: None,
                device: Some(carrier.device),
                mac: carrier.mac,
                vlan: leg.kind.vlan(),
                rdma: None,
                requested,
                now: carrier.now,
                boot_id: carrier.boot_id.clone(),
            };
            let leased = lease(&mut transaction, network, &pool, &request)?;
            leased.ips.into_iter().map(|ip| ip.address).collect()
        }
        LegAddresses::Fixed(addresses) => {
            for address in addresses.iter().map(IpNet::addr) {
                match transaction.lease_at(network, address)? {
                    Some(lease) if lease.owner == owner => continue,
                    Some(lease) if lease.owner.is_leg() || lease.boot_id == carrier.boot_id => {
                        let (holder, network) = (lease.owner, network.clone());
                        return Err(PromiseError::Taken { address, holder, network });
                    }
                    // A container's of an earlier boot: nobody uses it.
                    Some(_) => drop(transaction.free_address(network, address)?),
                    None => {}
                }
                transaction.insert_lease_in_use(&Lease {
                    network: network.clone(),
                    address,
                    owner: owner.clone(),
                    pod: None,
                    device: Some(carrier.device),
                    mac: carrier.mac,
                    vlan: leg.kind.vlan(),
                    rdma: None,
                    boot_id: carrier.boot_id.clone(),
                    created_at: carrier.now,
                })?;
            }
            addresses.clone()
        }
    };
    transaction.commit()?;
    let is_superseded =
        |lease: &Lease| !addresses.iter().any(|address: &IpNet| address.addr() == lease.address);
    let superseded = held.into_iter().filter(is_superseded).collect();
    Ok(Promise { addresses, superseded })
}

/// Keeps back addresses that foreign hosts have, so that the next [`promise`] gives others. A written address has no other.
pub(crate) fn give_up(
    ledger: &mut Ledger,
    leg: &LegConfig,
    found: &[Foreign],
    now: UnixSeconds,
) -> Result<(), PromiseError> {
    if let (LegAddresses::Fixed(_), Some(&Foreign { address, mac })) = (&leg.addresses, found.first()) {
        return Err(PromiseError::Foreign { address, mac });
    }
    let mut transaction = ledger.begin()?;
    set_aside(&mut transaction, &Owner::leg(&leg.name), &leg.network, found, now)?;
    Ok(transaction.commit()?)
}

/// Ends leases of addresses that no link has any more.
pub(crate) fn release(ledger: &mut Ledger, leases: &[Lease], now: UnixSeconds) -> Result<(), LedgerError> {
    if leases.is_empty() {
        return Ok(());
    }
    let mut transaction = ledger.begin()?;
    for lease in leases {
        // Whoever has it by now keeps it.
        if transaction.lease_at(&lease.network, lease.address)?.is_some_and(|now| now.owner == lease.owner) {
            transaction.release_address(&lease.network, lease.address, now)?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{LegKind, PortName};

    fn leg(addresses: LegAddresses) -> LegConfig {
        let port = PortName::Netdev("ens1f0".to_owned());
        let kind = LegKind::Vlan { vlan: 100 };
        LegConfig { name: "pods".to_owned(), kind, port, mtu: None, network: "blue".to_owned(), addresses }
    }

    fn pool(subnet: &str) -> LegConfig {
        leg(LegAddresses::Pool(json!({"ranges": [[{"subnet": subnet}]]})))
    }

    fn fixed(address: &str) -> LegConfig {
        leg(LegAddresses::Fixed(vec![address.parse().unwrap()]))
    }

    fn carrier(boot_id: &str) -> Carrier {
        let device = "0000:01:00.0".parse().unwrap();
        Carrier { device, mac: None, boot_id: boot_id.to_owned(), now: UnixSeconds(100) }
    }

    struct World {
        _folder: tempfile::TempDir,
        ledger: Ledger,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(folder.path()).unwrap();
            Self { _folder: folder, ledger }
        }

        fn promise(
            &mut self,
            leg: &LegConfig,
            boot_id: &str,
            present: &[&str],
        ) -> Result<Promise, PromiseError> {
            let present: Vec<IpNet> = present.iter().map(|net| net.parse().unwrap()).collect();
            promise(&mut self.ledger, leg, &carrier(boot_id), &present)
        }

        fn addresses(&mut self, leg: &LegConfig, boot_id: &str, present: &[&str]) -> Vec<String> {
            let promise = self.promise(leg, boot_id, present).unwrap();
            promise.addresses.iter().map(ToString::to_string).collect()
        }

        /// What a pod gets, or why it gets nothing.
        fn pod(&mut self, leg: &LegConfig, boot_id: &str, id: &str) -> Result<String, String> {
            let LegAddresses::Pool(ipam) = &leg.addresses else { panic!("{leg:?}") };
            let request = LeaseRequest {
                owner: Owner { container_id: id.to_owned(), ifname: "eth0".to_owned() },
                pod: None,
                device: None,
                mac: None,
                vlan: None,
                rdma: None,
                requested: Vec::new(),
                now: UnixSeconds(200),
                boot_id: boot_id.to_owned(),
            };
            let pool = PoolConfig::parse(ipam, None).unwrap();
            let mut transaction = self.ledger.begin().unwrap();
            let leased =
                lease(&mut transaction, "blue", &pool, &request).map_err(|error| error.to_string())?;
            transaction.commit().unwrap();
            Ok(leased.ips[0].address.to_string())
        }
    }

    #[test]
    fn an_address_stays_over_boots_and_no_pod_gets_it() {
        let mut world = World::new();
        // Of four addresses, .1 is the gateway: one is left.
        let leg = pool("10.0.0.0/30");
        assert_eq!(world.addresses(&leg, "b1", &[]), ["10.0.0.2/30"]);
        assert_eq!(world.addresses(&leg, "b1", &["10.0.0.2/30"]), ["10.0.0.2/30"]);
        let lease = world.ledger.leases_of_legs().unwrap().remove(0);
        assert_eq!((lease.device, lease.vlan), (Some(carrier("b1").device), Some(100)));
        // A pod's lease of an earlier boot would be given out again; a leg's is not.
        for boot in ["b1", "b2"] {
            let refused = world.pod(&leg, boot, "c1").unwrap_err();
            assert!(refused.contains("blue"), "{refused}");
        }
        assert_eq!(world.addresses(&leg, "b2", &[]), ["10.0.0.2/30"]);
    }

    #[test]
    fn a_ledger_that_was_made_anew_learns_what_the_interface_has() {
        let mut world = World::new();
        let leg = pool("10.0.0.0/24");
        assert_eq!(world.addresses(&leg, "b1", &["192.0.2.7/24", "10.0.0.9/24"]), ["10.0.0.9/24"]);
        // One that a pod has by then cannot be taken from it.
        let mut world = World::new();
        let taken = world.pod(&leg, "b1", "c1").unwrap();
        assert_eq!(taken, "10.0.0.2/24");
        assert_eq!(world.addresses(&leg, "b1", &["10.0.0.2/24"]), ["10.0.0.3/24"]);
    }

    #[test]
    fn another_range_supersedes_the_address_of_the_one_before() {
        let mut world = World::new();
        world.promise(&pool("10.0.0.0/24"), "b1", &[]).unwrap();
        let promise = world.promise(&pool("10.1.0.0/24"), "b1", &["10.0.0.2/24"]).unwrap();
        assert_eq!(promise.addresses, ["10.1.0.2/24".parse().unwrap()]);
        assert_eq!(promise.superseded.len(), 1);
        release(&mut world.ledger, &promise.superseded, UnixSeconds(300)).unwrap();
        let left = world.ledger.leases_of_legs().unwrap();
        assert_eq!((left.len(), left[0].address), (1, "10.1.0.2".parse().unwrap()));
        assert_eq!(world.ledger.resting().unwrap()[0].lease.address, "10.0.0.2".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_written_address_is_kept_from_pods_and_not_taken_from_one() {
        let mut world = World::new();
        assert_eq!(world.addresses(&fixed("10.0.0.2/24"), "b1", &[]), ["10.0.0.2/24"]);
        assert_eq!(world.pod(&pool("10.0.0.0/24"), "b1", "c1").unwrap(), "10.0.0.3/24");
        // The gateway is given to no pod, and a leg can have it.
        let promise = world.promise(&fixed("10.0.0.1/24"), "b1", &[]).unwrap();
        assert_eq!(promise.superseded[0].address, "10.0.0.2".parse::<IpAddr>().unwrap());

        let refused = world.promise(&fixed("10.0.0.3/24"), "b1", &[]).unwrap_err();
        assert!(refused.to_string().contains("10.0.0.3 is leased to eth0 of container c1"), "{refused}");
        // After a reboot the pod is gone.
        assert_eq!(world.addresses(&fixed("10.0.0.3/24"), "b2", &[]), ["10.0.0.3/24"]);
    }

    #[test]
    fn a_foreign_host_keeps_its_address() {
        let mut world = World::new();
        let leg = pool("10.0.0.0/24");
        world.promise(&leg, "b1", &[]).unwrap();
        let found = [Foreign { address: "10.0.0.2".parse().unwrap(), mac: Mac::ZERO }];
        give_up(&mut world.ledger, &leg, &found, UnixSeconds(200)).unwrap();
        assert_eq!(world.addresses(&leg, "b1", &[]), ["10.0.0.3/24"]);
        let error = give_up(&mut world.ledger, &fixed("10.0.0.2/24"), &found, UnixSeconds(200)).unwrap_err();
        assert!(matches!(error, PromiseError::Foreign { .. }), "{error}");
    }
}
