//! What is true at the moment of a scrape: how many devices there are, who is registered, what the VFs have carried.
//!
//! Read when somebody asks and not kept, so that a pool, a VF or a pod that is gone has no series left.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use zerobridge_proto::PciAddress;

use crate::kubelet::Standing;
use crate::pod_resources::Holder;

/// The state of the node, as far as it is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The devices of every pool.
    pub devices: Vec<DeviceCount>,
    /// How many devices a pool selects that are not offered, by the reason in one word.
    pub withheld: BTreeMap<&'static str, u64>,
    /// What is in the way of pools: the reason in one word, and the pool.
    pub obstacles: BTreeSet<(&'static str, String)>,
    /// Whether each of the node's own legs has its addresses and a carrier.
    pub legs: BTreeMap<String, bool>,
    /// What each VF has carried.
    pub traffic: Vec<VfTraffic>,
}

/// The devices of one pool. Each is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceCount {
    /// The pool.
    pub pool: String,
    /// Healthy, and given to no container.
    pub healthy_free: u64,
    /// Healthy, and given to one.
    pub healthy_allocated: u64,
    /// Unhealthy, and given to no container.
    pub unhealthy_free: u64,
    /// Unhealthy, and given to one.
    pub unhealthy_allocated: u64,
}

/// What a VF has carried since it was made, as its PF counts it (`IFLA_VF_STATS` in `linux/if_link.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VfTraffic {
    /// The VF.
    pub pci: PciAddress,
    /// The netdev of its PF.
    pub pf: String,
    /// Its number at the PF.
    pub vf: u16,
    /// The pool that it is in.
    pub pool: String,
    /// Who has it.
    pub holder: Option<Holder>,
    /// What came in for it.
    pub receive: Counters,
    /// What it sent.
    pub transmit: Counters,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

#[derive(Debug)]
struct Readings {
    snapshot: Snapshot,
    registrations: BTreeMap<String, Standing>,
}

impl Snapshot {
    /// Writes the series of this moment in the OpenMetrics text format, without the end mark.
    ///
    /// # Errors
    ///
    /// Only those of `out`.
    pub(crate) fn write(
        self,
        registrations: BTreeMap<String, Standing>,
        out: &mut impl Write,
    ) -> fmt::Result {
        let mut registry = Registry::with_prefix("zerobridge");
        registry.register_collector(Box::new(Readings { snapshot: self, registrations }));
        encode_registry(out, &registry)
    }
}

impl DeviceCount {
    fn cells(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("healthy", "free", self.healthy_free),
            ("healthy", "allocated", self.healthy_allocated),
            ("unhealthy", "free", self.unhealthy_free),
            ("unhealthy", "allocated", self.unhealthy_allocated),
        ]
    }
}

/// A series of [`VfTraffic`]: its name, what it counts, and where that is.
type Reading = (&'static str, &'static str, fn(&VfTraffic) -> u64);

const TRAFFIC: [Reading; 6] = [
    ("vf_receive_packets", "Packets that a VF received.", |vf| vf.receive.packets),
    ("vf_receive_bytes", "Bytes that a VF received.", |vf| vf.receive.bytes),
    ("vf_receive_dropped", "Packets for a VF that were dropped.", |vf| vf.receive.dropped),
    ("vf_transmit_packets", "Packets that a VF sent.", |vf| vf.transmit.packets),
    ("vf_transmit_bytes", "Bytes that a VF sent.", |vf| vf.transmit.bytes),
    ("vf_transmit_dropped", "Packets of a VF that were dropped.", |vf| vf.transmit.dropped),
];

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauge = MetricType::Gauge;
        let help = "Devices, by whether they are healthy and whether a container has them.";
        let mut family = encoder.encode_descriptor("devices", help, None, gauge)?;
        for pool in &self.snapshot.devices {
            for (state, r#use, count) in pool.cells() {
                let labels = [("pool", pool.pool.as_str()), ("state", state), ("use", r#use)];
                ConstGauge::new(saturated(count)).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Devices that a pool selects and does not offer, by the reason.";
        let mut family = encoder.encode_descriptor("withheld_devices", help, None, gauge)?;
        for (&reason, &count) in &self.snapshot.withheld {
            ConstGauge::new(saturated(count)).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        let help = "What keeps the node from giving what a pool promises: 1 for each pool and reason.";
        let mut family = encoder.encode_descriptor("obstacles", help, None, gauge)?;
        for (reason, pool) in &self.snapshot.obstacles {
            let labels = [("pool", pool.as_str()), ("reason", *reason)];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        let help = "Whether a leg of the node has its addresses and a carrier.";
        let mut family = encoder.encode_descriptor("leg_up", help, None, gauge)?;
        for (leg, &up) in &self.snapshot.legs {
            ConstGauge::new(i64::from(up)).encode(family.encode_family(&[("leg", leg.as_str())])?)?;
        }
        let help = "Whether the kubelet knows the devices of a pool.";
        let mut family = encoder.encode_descriptor("registered", help, None, gauge)?;
        for (pool, standing) in &self.registrations {
            let registered = i64::from(*standing == Standing::Registered);
            ConstGauge::new(registered).encode(family.encode_family(&[("pool", pool.as_str())])?)?;
        }
        for (name, help, count) in TRAFFIC {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for vf in &self.snapshot.traffic {
                ConstCounter::new(count(vf)).encode(family.encode_family(&labels(vf))?)?;
            }
        }
        Ok(())
    }
}

/// A VF that nobody has shows empty labels: to Prometheus that is the same as none.
fn labels(vf: &VfTraffic) -> [(&'static str, Cow<'_, str>); 7] {
    let (pod, namespace, container) = match &vf.holder {
        Some(holder) => (holder.pod.as_str(), holder.namespace.as_str(), holder.container.as_str()),
        None => ("", "", ""),
    };
    [
        ("pci", vf.pci.to_string().into()),
        ("pf", vf.pf.as_str().into()),
        ("vf", vf.vf.to_string().into()),
        ("pool", vf.pool.as_str().into()),
        ("pod", pod.into()),
        ("namespace", namespace.into()),
        ("container", container.into()),
    ]
}

fn saturated(count: u64) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_completely() {
        let direction = |from: u64| Counters { packets: from, bytes: from + 1, dropped: from + 2 };
        let vf = VfTraffic {
            pci: "0000:01:10.0".parse().unwrap(),
            pf: "enp1s0f0".to_owned(),
            vf: 0,
            pool: "zerobridge.io/vf".to_owned(),
            holder: None,
            receive: direction(10),
            transmit: direction(u64::MAX - 2),
        };
        let holder =
            Holder { pod: "trainer-0".to_owned(), namespace: "ml".to_owned(), container: "main".to_owned() };
        let held =
            VfTraffic { pci: "0000:01:10.2".parse().unwrap(), vf: 1, holder: Some(holder), ..vf.clone() };
        let snapshot = Snapshot {
            devices: vec![DeviceCount {
                pool: "zerobridge.io/vf".to_owned(),
                healthy_free: 1,
                healthy_allocated: 2,
                unhealthy_free: 3,
                unhealthy_allocated: 4,
            }],
            withheld: BTreeMap::from([("host_use", 1)]),
            legs: BTreeMap::from([("pods".to_owned(), true), ("wire".to_owned(), false)]),
            obstacles: [("no_uverbs", "zerobridge.io/vf".to_owned())].into(),
            traffic: vec![vf, held],
        };
        let registrations = BTreeMap::from([
            ("zerobridge.io/a".to_owned(), Standing::Unregistered { why: String::new() }),
            ("zerobridge.io/b".to_owned(), Standing::Registered),
        ]);
        let mut text = String::new();
        snapshot.write(registrations, &mut text).unwrap();
        let lines = [
            "# HELP zerobridge_devices Devices, by whether they are healthy and whether a container has them.",
            "# TYPE zerobridge_devices gauge",
            r#"zerobridge_devices{pool="zerobridge.io/vf",state="healthy",use="free"} 1"#,
            r#"zerobridge_devices{pool="zerobridge.io/vf",state="healthy",use="allocated"} 2"#,
            r#"zerobridge_devices{pool="zerobridge.io/vf",state="unhealthy",use="free"} 3"#,
            r#"zerobridge_devices{pool="zerobridge.io/vf",state="unhealthy",use="allocated"} 4"#,
            r#"zerobridge_withheld_devices{reason="host_use"} 1"#,
            r#"zerobridge_obstacles{pool="zerobridge.io/vf",reason="no_uverbs"} 1"#,
            r#"zerobridge_leg_up{leg="pods"} 1"#,
            r#"zerobridge_leg_up{leg="wire"} 0"#,
            r#"zerobridge_registered{pool="zerobridge.io/a"} 0"#,
            r#"zerobridge_registered{pool="zerobridge.io/b"} 1"#,
            "# TYPE zerobridge_vf_receive_packets counter",
            r#"zerobridge_vf_receive_packets_total{pci="0000:01:10.0",pf="enp1s0f0",vf="0",pool="zerobridge.io/vf",pod="",namespace="",container=""} 10"#,
            r#"zerobridge_vf_receive_bytes_total{pci="0000:01:10.2",pf="enp1s0f0",vf="1",pool="zerobridge.io/vf",pod="trainer-0",namespace="ml",container="main"} 11"#,
            r#"zerobridge_vf_transmit_dropped_total{pci="0000:01:10.2",pf="enp1s0f0",vf="1",pool="zerobridge.io/vf",pod="trainer-0",namespace="ml",container="main"} 18446744073709551615"#,
        ];
        for line in lines {
            assert!(text.lines().any(|own| own == line), "{line} is not in:\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.starts_with("zerobridge_vf_")).count(), 12);
    }

    #[test]
    fn nothing_that_is_gone_leaves_a_series() {
        let mut text = String::new();
        Snapshot::default().write(BTreeMap::new(), &mut text).unwrap();
        assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    }
}
