//! What the daemon counts while it runs. `docs/device-plugin.md` lists the names.
//!
//! There is no global registry: a [`Metrics`] is made at start, and its clones are the same counters.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tonic::{Code, Status};
use zerobridge_blocks::{Answer, Held, Pool, Request};

use crate::health::Check;
use crate::resource::ResourceName;

/// Bounds in seconds. An allocation writes a file or two: below a millisecond, unless something is wrong.
const ALLOCATE_BUCKETS: [f64; 11] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0];

/// Bounds in seconds. A look at a thousand VFs takes about ten milliseconds.
const RESCAN_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Whether something worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did.
    Success,
    /// It did not.
    Failure,
}

/// What became of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AllocationResult {
    /// The container has what it asked for.
    Success,
    /// It asked for what there is not, or what cannot be used.
    Refused,
    /// It took too long.
    Timeout,
    /// Something else went wrong, such as writing a file.
    Error,
}

/// Which configuration is in force.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ConfigInfo {
    /// The file.
    pub path: String,
    /// Which of the formats that are read it has.
    pub format: String,
    /// Where in it this node's pools stand: `pools`, or `nodes[1]`.
    pub section: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolResult {
    pool: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseResult {
    cause: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatResult {
    what: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Transition {
    pool: String,
    check: &'static str,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AddressState {
    pool: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlockRequest {
    pool: String,
    request: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// The counters. Clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    allocations: Family<PoolResult, Counter>,
    allocate_seconds: Histogram,
    preferred: Family<PoolLabel, Counter>,
    registrations: Family<PoolResult, Counter>,
    reconnects: Family<PoolLabel, Counter>,
    lists: Family<PoolLabel, Counter>,
    rescans: Family<CauseResult, Counter>,
    rescan_seconds: Histogram,
    events: Family<KindLabel, Counter>,
    transitions: Family<Transition, Counter>,
    reloads: Family<ResultLabel, Counter>,
    config: Family<ConfigInfo, Gauge>,
    reload_success: Gauge,
    reload_time: Gauge,
    repairs: Family<WhatResult, Counter>,
    dropped: Counter,
    blocks: Family<AddressState, Gauge>,
    addresses: Family<AddressState, Gauge>,
    block_requests: Family<BlockRequest, Counter>,
}

impl Metrics {
    /// Counters that stand at nought.
    #[must_use]
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("zerobridge");
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version of the daemon", build);
        let mut new = Self {
            allocations: family(
                &mut registry,
                "allocations",
                "Answers to Allocate, by result: success, refused, timeout or error",
            ),
            allocate_seconds: histogram(
                &mut registry,
                "allocate_seconds",
                "How long Allocate took, in seconds",
                &ALLOCATE_BUCKETS,
            ),
            preferred: family(
                &mut registry,
                "preferred_allocations",
                "Questions of the kubelet which devices are preferred",
            ),
            registrations: family(&mut registry, "registrations", "Registrations that were tried"),
            reconnects: family(
                &mut registry,
                "reconnects",
                "Device streams that the kubelet opened after an earlier one had ended",
            ),
            lists: family(&mut registry, "list_messages", "Device lists sent to the kubelet"),
            rescans: family(&mut registry, "rescans", "Looks at the machine, by what caused them"),
            rescan_seconds: histogram(
                &mut registry,
                "rescan_seconds",
                "How long a look at the machine took, in seconds",
                &RESCAN_BUCKETS,
            ),
            events: family(&mut registry, "events", "Events of the kernel that were heard, by kind"),
            transitions: family(
                &mut registry,
                "health_transitions",
                "Changes of a check of a device, to passed or failed",
            ),
            reloads: family(&mut registry, "config_reloads", "Changed configuration files that were read"),
            config: family(&mut registry, "config_info", "The configuration in force"),
            reload_success: Gauge::default(),
            reload_time: Gauge::default(),
            repairs: family(
                &mut registry,
                "reconciler_repairs",
                "Repairs of what nobody owns, by what it was",
            ),
            dropped: Counter::default(),
            blocks: family(
                &mut registry,
                "ip_blocks",
                "Blocks of cluster-wide pools that this node holds, by state: held, draining or lost",
            ),
            addresses: family(
                &mut registry,
                "ip_addresses",
                "Addresses of the blocks that this node holds, by state: leased, resting or free",
            ),
            block_requests: family(
                &mut registry,
                "ip_block_requests",
                "Requests for blocks of cluster-wide pools, by what was asked and what came of it",
            ),
            registry: Arc::default(),
        };
        registry.register(
            "cluster_events_dropped",
            "Events for the API server that it did not get",
            new.dropped.clone(),
        );
        registry.register(
            "config_last_reload_successful",
            "Whether the configuration file as it is now is the one in force",
            new.reload_success.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970",
            new.reload_time.clone(),
        );
        for outcome in [Outcome::Success, Outcome::Failure] {
            let _ = new.reloads.get_or_create(&ResultLabel { result: outcome.label() });
        }
        new.registry = Arc::new(registry);
        new
    }

    /// Writes the series in the OpenMetrics text format, without the end mark.
    ///
    /// # Errors
    ///
    /// Only those of `out`.
    pub(crate) fn write(&self, out: &mut impl Write) -> fmt::Result {
        encode_registry(out, &self.registry)
    }

    /// Shows the series of a pool before anything has happened, so that the first event is seen as one.
    pub(crate) fn begin(&self, pool: &ResourceName) {
        let pool = pool.to_string();
        for result in AllocationResult::ALL {
            let _ =
                self.allocations.get_or_create(&PoolResult { pool: pool.clone(), result: result.label() });
        }
        for outcome in [Outcome::Success, Outcome::Failure] {
            let _ =
                self.registrations.get_or_create(&PoolResult { pool: pool.clone(), result: outcome.label() });
        }
        for family in [&self.preferred, &self.reconnects, &self.lists] {
            let _ = family.get_or_create(&PoolLabel { pool: pool.clone() });
        }
    }

    /// `Allocate` was answered.
    pub(crate) fn allocated(&self, pool: &ResourceName, result: AllocationResult, took: Duration) {
        let labels = PoolResult { pool: pool.to_string(), result: result.label() };
        self.allocations.get_or_create(&labels).inc();
        self.allocate_seconds.observe(took.as_secs_f64());
    }

    /// `GetPreferredAllocation` was called.
    pub(crate) fn preferred(&self, pool: &ResourceName) {
        self.preferred.get_or_create(&PoolLabel { pool: pool.to_string() }).inc();
    }

    /// `Register` was answered, or not in time.
    pub(crate) fn registered(&self, pool: &ResourceName, outcome: Outcome) {
        let labels = PoolResult { pool: pool.to_string(), result: outcome.label() };
        self.registrations.get_or_create(&labels).inc();
    }

    /// The kubelet opened a device stream again.
    pub(crate) fn reconnected(&self, pool: &ResourceName) {
        self.reconnects.get_or_create(&PoolLabel { pool: pool.to_string() }).inc();
    }

    /// A device list was sent.
    pub(crate) fn listed(&self, pool: &ResourceName) {
        self.lists.get_or_create(&PoolLabel { pool: pool.to_string() }).inc();
    }

    /// The machine was looked at. `cause` is one of few words.
    pub(crate) fn rescanned(&self, cause: &'static str, outcome: Outcome, took: Duration) {
        self.rescans.get_or_create(&CauseResult { cause, result: outcome.label() }).inc();
        self.rescan_seconds.observe(took.as_secs_f64());
    }

    /// The kernel told something. `kind` is one of few words.
    pub(crate) fn heard(&self, kind: &'static str) {
        self.events.get_or_create(&KindLabel { kind }).inc();
    }

    /// A check of a device has another result than before.
    pub(crate) fn health_changed(&self, pool: &ResourceName, check: Check, passed: bool) {
        let to = if passed { "passed" } else { "failed" };
        let labels = Transition { pool: pool.to_string(), check: check_label(check), to };
        self.transitions.get_or_create(&labels).inc();
    }

    /// Which part of which file is in force. Says nothing of the file as it is by now.
    pub(crate) fn config_in_force(&self, info: &ConfigInfo) {
        self.config.clear();
        self.config.get_or_create(info).set(1);
    }

    /// The configuration file as it is was taken over at `at`.
    pub(crate) fn config_loaded(&self, at: SystemTime) {
        self.reload_success.set(1);
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.reload_time.set(at.try_into().unwrap_or(i64::MAX));
    }

    /// A changed configuration file was read. One that is bad leaves the earlier one in force.
    pub(crate) fn config_reloaded(&self, outcome: Outcome) {
        self.reloads.get_or_create(&ResultLabel { result: outcome.label() }).inc();
        self.reload_success.set(i64::from(outcome == Outcome::Success));
    }

    /// The reconciler repaired something, or could not. `what` is one of few words.
    pub(crate) fn repaired(&self, what: &'static str, outcome: Outcome) {
        self.repairs.get_or_create(&WhatResult { what, result: outcome.label() }).inc();
    }

    /// What this node has of a cluster-wide pool; `lost` blocks are another node's by now.
    pub(crate) fn blocks_held(&self, name: &str, pool: &Pool, held: &BTreeMap<u32, Held>, lost: usize) {
        let sum = |of: &dyn Fn(u32, &Held) -> u32| -> i64 {
            held.iter().map(|(index, held)| i64::from(of(*index, held))).sum()
        };
        let free = |index, held: &Held| match held.draining {
            true => 0,
            false => pool.gives_out(index).saturating_sub(held.leased + held.resting),
        };
        let label = |state| AddressState { pool: name.to_owned(), state };
        self.blocks.get_or_create(&label("held")).set(sum(&|_, _| 1));
        self.blocks.get_or_create(&label("draining")).set(sum(&|_, held| u32::from(held.draining)));
        self.blocks.get_or_create(&label("lost")).set(i64::try_from(lost).unwrap_or(i64::MAX));
        self.addresses.get_or_create(&label("leased")).set(sum(&|_, held| held.leased));
        self.addresses.get_or_create(&label("resting")).set(sum(&|_, held| held.resting));
        self.addresses.get_or_create(&label("free")).set(sum(&free));
    }

    /// The API server was asked about a block.
    pub(crate) fn asked_for_blocks(&self, pool: &str, request: &Request, answer: &Answer) {
        let request = match request {
            Request::Create { .. } => "create",
            Request::Replace { .. } => "replace",
            Request::Delete { .. } => "delete",
            Request::Read { .. } => "read",
            Request::Survey => "list",
        };
        let result = match answer {
            Answer::Object(_) | Answer::Gone | Answer::Taken(_) => "success",
            Answer::Conflict => "conflict",
            Answer::None => "none",
        };
        self.block_requests.get_or_create(&BlockRequest { pool: pool.to_owned(), request, result }).inc();
    }

    /// Counts events for the API server that were lost: to a full queue, to a ration, or because it did not take them.
    #[must_use]
    pub(crate) fn dropped_events(&self) -> Counter {
        self.dropped.clone()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Outcome {
    /// That of a result.
    #[must_use]
    pub(crate) fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Success } else { Self::Failure }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

impl AllocationResult {
    const ALL: [Self; 4] = [Self::Success, Self::Refused, Self::Timeout, Self::Error];

    /// That of a refusal.
    #[must_use]
    pub(crate) fn of(refusal: &Status) -> Self {
        match refusal.code() {
            Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => Self::Refused,
            Code::DeadlineExceeded => Self::Timeout,
            _ => Self::Error,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

/// As Prometheus writes label values, whatever a configuration calls it.
const fn check_label(check: Check) -> &'static str {
    match check {
        Check::DevicePresent => "device_present",
        Check::DriverBound => "driver_bound",
        Check::PfCarrier => "pf_carrier",
        Check::RdmaPort => "rdma_port",
        Check::DevlinkHealth => "devlink_health",
        Check::AerFatal => "aer_fatal",
        Check::NodeGuid => "node_guid",
        Check::DirtyVf => "dirty_vf",
    }
}

fn family<L, M>(registry: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    Family<L, M>: Default + Clone + prometheus_client::registry::Metric,
    L: Clone + Hash + Eq,
{
    let family = Family::default();
    registry.register(name, help, family.clone());
    family
}

fn histogram(registry: &mut Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    let histogram = Histogram::new(bounds.iter().copied());
    registry.register(name, help, histogram.clone());
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        metrics.write(&mut text).unwrap();
        text
    }

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|own| own == line), "{line} is not in:\n{text}");
    }

    fn pool() -> ResourceName {
        ResourceName::new("zerobridge.io", "vf").unwrap()
    }

    #[test]
    fn everything_that_is_counted_is_in_the_text_under_its_documented_name() {
        let metrics = Metrics::new();
        let ms = Duration::from_millis(1);
        metrics.allocated(&pool(), AllocationResult::Success, Duration::from_micros(300));
        metrics.allocated(&pool(), AllocationResult::Refused, Duration::from_secs(60));
        metrics.preferred(&pool());
        metrics.registered(&pool(), Outcome::Failure);
        metrics.reconnected(&pool());
        metrics.listed(&pool());
        metrics.rescanned("timer", Outcome::Success, ms);
        metrics.heard("uevent");
        metrics.health_changed(&pool(), Check::PfCarrier, false);
        metrics.config_reloaded(Outcome::Failure);
        metrics.repaired("attachment", Outcome::Success);
        metrics.dropped_events().inc();
        let text = text(&metrics);
        for line in [
            "# TYPE zerobridge_allocations counter",
            r#"zerobridge_allocations_total{pool="zerobridge.io/vf",result="success"} 1"#,
            r#"zerobridge_allocations_total{pool="zerobridge.io/vf",result="refused"} 1"#,
            "# TYPE zerobridge_allocate_seconds histogram",
            r#"zerobridge_allocate_seconds_bucket{le="0.00025"} 0"#,
            r#"zerobridge_allocate_seconds_bucket{le="0.0005"} 1"#,
            r#"zerobridge_allocate_seconds_bucket{le="5.0"} 1"#,
            r#"zerobridge_allocate_seconds_bucket{le="+Inf"} 2"#,
            "zerobridge_allocate_seconds_count 2",
            r#"zerobridge_preferred_allocations_total{pool="zerobridge.io/vf"} 1"#,
            r#"zerobridge_registrations_total{pool="zerobridge.io/vf",result="failure"} 1"#,
            r#"zerobridge_reconnects_total{pool="zerobridge.io/vf"} 1"#,
            r#"zerobridge_list_messages_total{pool="zerobridge.io/vf"} 1"#,
            r#"zerobridge_rescans_total{cause="timer",result="success"} 1"#,
            "zerobridge_rescan_seconds_count 1",
            r#"zerobridge_events_total{kind="uevent"} 1"#,
            r#"zerobridge_health_transitions_total{pool="zerobridge.io/vf",check="pf_carrier",to="failed"} 1"#,
            r#"zerobridge_config_reloads_total{result="failure"} 1"#,
            r#"zerobridge_config_reloads_total{result="success"} 0"#,
            "zerobridge_config_last_reload_successful 0",
            "zerobridge_cluster_events_dropped_total 1",
            r#"zerobridge_reconciler_repairs_total{what="attachment",result="success"} 1"#,
        ] {
            has(&text, line);
        }
        has(&text, &format!("zerobridge_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_pool_is_shown_before_anything_has_happened() {
        let metrics = Metrics::new();
        metrics.begin(&pool());
        let text = text(&metrics);
        for line in [
            r#"zerobridge_allocations_total{pool="zerobridge.io/vf",result="timeout"} 0"#,
            r#"zerobridge_registrations_total{pool="zerobridge.io/vf",result="success"} 0"#,
            r#"zerobridge_reconnects_total{pool="zerobridge.io/vf"} 0"#,
        ] {
            has(&text, line);
        }
    }

    #[test]
    fn one_configuration_is_in_force_and_what_is_in_a_label_is_escaped() {
        let metrics = Metrics::new();
        let info = |section: &str| ConfigInfo {
            path: "/etc/a \"b\".json".to_owned(),
            format: "zerobridge".to_owned(),
            section: section.to_owned(),
        };
        metrics.config_loaded(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        metrics.config_in_force(&info("1"));
        metrics.config_reloaded(Outcome::Failure);
        metrics.config_in_force(&info("2"));
        let text = text(&metrics);
        let infos: Vec<_> = text.lines().filter(|l| l.starts_with("zerobridge_config_info{")).collect();
        let expected =
            r#"zerobridge_config_info{path="/etc/a \"b\".json",format="zerobridge",section="2"} 1"#;
        assert_eq!(infos, [expected]);
        has(&text, "zerobridge_config_last_reload_success_timestamp_seconds 7");
        // What is in force may change with the node's labels while the file is still bad.
        has(&text, "zerobridge_config_last_reload_successful 0");
    }

    #[test]
    fn a_refusal_counts_as_what_it_is() {
        for (code, result) in [
            (Code::NotFound, AllocationResult::Refused),
            (Code::FailedPrecondition, AllocationResult::Refused),
            (Code::DeadlineExceeded, AllocationResult::Timeout),
            (Code::Internal, AllocationResult::Error),
        ] {
            assert_eq!(AllocationResult::of(&Status::new(code, "")), result);
        }
    }
}
