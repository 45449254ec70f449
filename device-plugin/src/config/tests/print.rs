//! What is printed reads as the same configuration.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use zerobridge_kernel::LinkType;

use super::*;
use crate::config::own::{POLICIES, PREFERENCES};
use crate::health::{Check, HealthPolicy};
use crate::resource::ResourceName;
use crate::selector::{PortMatch, Selectors, VdpaType};

fn printed(config: &Config) -> String {
    serde_json::to_string_pretty(config).unwrap()
}

/// A file of another program may say that case does not count. That cannot be written.
fn as_written(mut config: Config) -> Config {
    for selectors in config.pools.iter_mut().flat_map(|pool| &mut pool.selectors) {
        selectors.port_match.any_case = false;
    }
    config
}

#[test]
fn every_sample_is_printed_so_that_it_reads_the_same() {
    for folder in ["own", "sriov-network", "rdma-shared"] {
        for (path, text) in samples(folder) {
            let config = ConfigFile::parse(&text, None).unwrap().for_node(&NodeIdentity::default()).config;
            let printed = printed(&config);
            let again = Config::parse(&printed)
                .unwrap_or_else(|error| panic!("{}: {}\n{printed}", path.display(), chain(&error)));
            assert_eq!(again, as_written(config), "{}", path.display());
        }
    }
}

#[test]
fn everything_is_written_out() {
    let config =
        Config::parse(r#"{"pools": [{"resourceName": "vf", "selectors": {"pfNames": ["enp1s0#0-3"]}}]}"#);
    assert_eq!(
        printed(&config.unwrap()),
        r#"{
  "cdi": "auto",
  "pools": [
    {
      "resourceName": "vf",
      "resourcePrefix": "zerobridge.io",
      "deviceType": "netDevice",
      "selectors": [
        {
          "pfNames": [
            "enp1s0#0-3"
          ]
        }
      ],
      "rdma": "auto",
      "excludeTopology": false,
      "health": {
        "aerFatal": "unhealthy",
        "devicePresent": "unhealthy",
        "devlinkHealth": "warn",
        "dirtyVf": "unhealthy",
        "driverBound": "unhealthy",
        "holdDown": "1s",
        "nodeGuid": "warn",
        "pfCarrier": "warn",
        "rdmaPort": "warn"
      },
      "preferredAllocation": "packed"
    }
  ]
}"#
    );
}

fn texts(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(texts, 0..=texts.len()).prop_map(|texts| texts.into_iter().map(ToOwned::to_owned).collect())
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>(
    list: &'static [&'static str],
) -> impl Strategy<Value = Vec<T>> {
    texts(list).prop_map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect())
}

prop_compose! {
    fn net_selectors(shared: bool)(
        vendors in parsed(&["8086", "15b3"]),
        devices in parsed(&["10ca", "101e"]),
        drivers in texts(&["mlx5_core", "igbvf"]),
        pci_addresses in parsed(&["0000:01:10.0", "10000:e1:00.0"]),
        acpi_indexes in prop::collection::vec(any::<u32>(), 0..2),
        pf_names in parsed(&["enp1s0", "enp1s0#0-3,9", "a-long-alternative-name#4294967295"]),
        root_devices in parsed(&["0000:01:00.0", "0000:01:00.1#0-1"]),
        if_names in texts(&["enp1s0v0", "vf"]),
        link_types in subsequence(vec![LinkType::Infiniband, LinkType::Ethernet], 0..=2),
        p_keys in parsed(&["0x8001", "0x0001"]),
        ddp_profiles in texts(&["GTPv1-C/U IPv4/IPv6 payload", "\"quoted\" \\ profile"]),
        need_vhost_net in any::<bool>(),
        rdma_or_vdpa in select(vec![(true, None), (false, None), (false, Some(VdpaType::Vhost)), (false, Some(VdpaType::Virtio))]),
    ) -> Selectors {
        let (is_rdma, vdpa_type) = rdma_or_vdpa;
        let ethernet_only = !link_types.is_empty() && !link_types.contains(&LinkType::Infiniband);
        Selectors {
            vendors, devices, drivers, pci_addresses, acpi_indexes, pf_names, root_devices, if_names, link_types,
            is_rdma, ddp_profiles, need_vhost_net,
            p_keys: if ethernet_only { Vec::new() } else { p_keys },
            vdpa_type: vdpa_type.filter(|_| !shared),
            port_match: PortMatch { any_case: false, itself: shared },
            aux_types: Vec::new(),
        }
    }
}

fn selectors(kind: PoolKind, shared: bool) -> impl Strategy<Value = Selectors> {
    net_selectors(shared).prop_map(move |all| match kind {
        PoolKind::NetDevice => all,
        PoolKind::Accelerator => Selectors {
            vendors: all.vendors,
            devices: all.devices,
            drivers: all.drivers,
            pci_addresses: all.pci_addresses,
            acpi_indexes: all.acpi_indexes,
            port_match: all.port_match,
            ..Selectors::default()
        },
        PoolKind::AuxNetDevice => Selectors {
            aux_types: vec!["sf".to_owned()],
            pci_addresses: Vec::new(),
            acpi_indexes: Vec::new(),
            p_keys: Vec::new(),
            ddp_profiles: Vec::new(),
            vdpa_type: None,
            ..all
        },
    })
}

fn kind_and_shares() -> impl Strategy<Value = (PoolKind, Option<u16>)> {
    let kinds: Vec<PoolKind> = PoolKind::WORDS.iter().map(|(_, kind)| *kind).collect();
    (select(kinds), prop::option::of(1..=MOST_SHARES))
        .prop_map(|(kind, shares)| (kind, shares.filter(|_| kind != PoolKind::Accelerator)))
}

fn pool(position: usize) -> impl Strategy<Value = PoolConfig> {
    let preferences: Vec<_> = PREFERENCES.iter().map(|(_, preference)| *preference).collect();
    let policies: Vec<_> = POLICIES.iter().map(|(_, policy)| *policy).collect();
    let info = prop::collection::btree_map(
        select(vec!["*", "0000:01:10.0", "mlx5_core.sf.4", "0000:01:00.0#3"]).prop_map(ToOwned::to_owned),
        prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3),
        0..3,
    );
    kind_and_shares().prop_flat_map(move |(kind, shares)| {
        (
            prop::collection::vec(selectors(kind, shares.is_some()), 1..3),
            any::<bool>(),
            info.clone(),
            prop::collection::vec(select(policies.clone()), Check::ALL.len()),
            0..100_000_u64,
            select(preferences.clone()),
            select(PoolRdma::WORDS.map(|(_, rdma)| rdma).to_vec()),
        )
            .prop_map(
                move |(selectors, topology, additional_info, policies, hold_down, preference, rdma)| {
                    PoolConfig {
                        rdma: if pool_rdma::check(rdma, "", kind, shares.is_some(), &selectors).is_ok() {
                            rdma
                        } else {
                            PoolRdma::Auto
                        },
                        resource: ResourceName::new("example.com", &format!("pool-{position}")).unwrap(),
                        kind,
                        selectors,
                        shares: shares.and_then(NonZeroU16::new),
                        topology,
                        additional_info,
                        health: HealthPolicy {
                            policies: Check::ALL
                                .into_iter()
                                .zip(policies)
                                .filter(|(check, policy)| check.default_policy() != *policy)
                                .collect::<BTreeMap<_, _>>(),
                            hold_down: Duration::from_millis(hold_down),
                        },
                        preference,
                    }
                },
            )
    })
}

proptest! {
    #[test]
    fn any_configuration_is_printed_so_that_it_reads_the_same(
        pools in (pool(0), pool(1)),
        cdi in select(vec![CdiMode::Auto, CdiMode::On, CdiMode::Off]),
    ) {
        let config = Config { pools: vec![pools.0, pools.1], legs: Vec::new(), cdi };
        let text = printed(&config);
        let again = Config::parse(&text).map_err(|error| TestCaseError::fail(format!("{}\n{text}", chain(&error))))?;
        prop_assert_eq!(again, config);
    }
}
