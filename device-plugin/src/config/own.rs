//! The project's own format. `manifests/node/config.schema.json` describes the same keys and words.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use super::document::{Fields, Placed};
use super::file::{ConfigFile, Format, Section};
use super::glob::Glob;
use super::pool::MOST_SHARES;
use super::{CdiMode, ConfigError, PoolConfig, PoolKind, PoolRdma, leg, names, pool_rdma, selectors};
use crate::device::DeviceId;
use crate::duration;
use crate::health::{Check, HealthPolicy, Policy};
use crate::preference::{Neighbour, Preference};
use crate::resource::{DEFAULT_PREFIX, ResourceName};
use crate::selector::{Selector, Selectors};

/// The keys of a file.
pub(super) const TOP_KEYS: &[&str] = &["$schema", "pools", "legs", "nodes", "cdi"];

/// The keys of an entry of `nodes`.
pub(super) const SECTION_KEYS: &[&str] = &["names", "labels", "pools", "legs"];

/// The keys of a pool.
pub(super) const POOL_KEYS: &[&str] = &[
    "resourceName",
    "resourcePrefix",
    "deviceType",
    "selectors",
    "shares",
    "rdma",
    "excludeTopology",
    "additionalInfo",
    "health",
    "preferredAllocation",
];

/// The key that asks for every device, beside the selectors.
pub(super) const ANY: &str = "any";

/// The key for the hold-down, beside the checks.
pub(super) const HOLD_DOWN: &str = "holdDown";

/// The checks, as they are written.
pub(super) const CHECKS: [(&str, Check); 8] = [
    ("devicePresent", Check::DevicePresent),
    ("driverBound", Check::DriverBound),
    ("pfCarrier", Check::PfCarrier),
    ("rdmaPort", Check::RdmaPort),
    ("nodeGuid", Check::NodeGuid),
    ("devlinkHealth", Check::DevlinkHealth),
    ("aerFatal", Check::AerFatal),
    ("dirtyVf", Check::DirtyVf),
];

/// What may follow from a check.
pub(super) const POLICIES: [(&str, Policy); 3] =
    [("unhealthy", Policy::Unhealthy), ("warn", Policy::Warn), ("off", Policy::Off)];

/// The orders of preference.
pub(super) const PREFERENCES: [(&str, Preference); 5] = [
    ("packed", Preference::Packed),
    ("spread", Preference::Spread),
    ("numa", Preference::Numa),
    ("near-gpu", Preference::Near(Neighbour::Gpu)),
    ("near-nvme", Preference::Near(Neighbour::Nvme)),
];

/// Every device ID, as a key of `additionalInfo`.
pub(super) const EVERY_DEVICE: &str = "*";

/// Reads a file.
pub(super) fn read(document: Placed, resource_prefix: Option<&str>) -> Result<ConfigFile, ConfigError> {
    let prefix = resource_prefix.unwrap_or(DEFAULT_PREFIX);
    let mut fields = document.object(TOP_KEYS)?;
    // For editors, which take it from there.
    fields.take("$schema").map(Placed::text).transpose()?;
    let cdi = fields.take("cdi").map_or(Ok(CdiMode::default()), |mode| mode.word(&CdiMode::WORDS))?;
    let sections = match fields.take("nodes") {
        Some(list) => {
            list.list("section")?.into_iter().map(|entry| section(entry, prefix)).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    let pools = match fields.take("pools") {
        Some(list) => pools(list, prefix)?,
        None if sections.is_empty() => {
            return Err(ConfigError::MissingKey { key: "pools".to_owned(), purpose: "the list of pools" });
        }
        None => Vec::new(),
    };
    let legs = fields.take("legs").map_or_else(|| Ok(Vec::new()), leg::legs)?;
    Ok(ConfigFile { format: Format::Own, notices: Vec::new(), sections, pools, legs, cdi })
}

fn section(section: Placed, prefix: &str) -> Result<Section, ConfigError> {
    let mut fields = section.object(SECTION_KEYS)?;
    let names = fields.list("names", |entry| entry.parsed(str::parse))?;
    let labels = fields.take("labels").map_or_else(|| Ok(BTreeMap::new()), labels)?;
    if names.is_empty() && labels.is_empty() {
        return Err(ConfigError::NoCondition { place: fields.place().to_owned() });
    }
    let pools = pools(fields.require("pools", "the pools of these nodes")?, prefix)?;
    let legs = fields.take("legs").map_or_else(|| Ok(Vec::new()), leg::legs)?;
    Ok(Section { names, labels, pools, legs })
}

fn labels(labels: Placed) -> Result<BTreeMap<String, Glob>, ConfigError> {
    let value = |(key, value): (String, Placed)| Ok((key, value.parsed(str::parse)?));
    labels.table()?.into_iter().map(value).collect()
}

fn pools(list: Placed, prefix: &str) -> Result<Vec<PoolConfig>, ConfigError> {
    let list = list.list("pool")?;
    let places: Vec<String> = list.iter().map(|pool| pool.place().to_owned()).collect();
    let pools: Vec<PoolConfig> =
        list.into_iter().map(|entry| pool(entry, prefix)).collect::<Result<_, _>>()?;
    names::check(&pools, &places)?;
    Ok(pools)
}

fn pool(pool: Placed, prefix: &str) -> Result<PoolConfig, ConfigError> {
    let mut fields = pool.object(POOL_KEYS)?;
    let resource = resource(&mut fields, prefix)?;
    let kind = kind(&mut fields)?;
    let shares = fields.take("shares").map(shares).transpose()?;
    if shares.is_some() && kind == PoolKind::Accelerator {
        return Err(ConfigError::Conflict {
            place: fields.place_of("deviceType"),
            other: "shares".to_owned(),
            reason: "an accelerator has no RDMA device that could be shared",
            remedy: "leave shares out, or write \"netDevice\"",
        });
    }
    let preference = fields.take("preferredAllocation");
    let health = fields.take("health");
    let rdma = fields.take("rdma").map_or(Ok(PoolRdma::default()), |word| word.word(&PoolRdma::WORDS))?;
    let selectors = alternatives(&mut fields, kind, shares.is_some())?;
    pool_rdma::check(rdma, &fields.place_of("rdma"), kind, shares.is_some(), &selectors)?;
    Ok(PoolConfig {
        resource,
        kind,
        selectors,
        shares,
        rdma,
        topology: !fields.flag("excludeTopology")?,
        additional_info: additional_info(&mut fields)?,
        health: health.map_or_else(|| Ok(HealthPolicy::default()), self::health)?,
        preference: preference.map_or(Ok(Preference::default()), |word| word.word(&PREFERENCES))?,
    })
}

/// The resource's name. `prefix` is for a pool that has none.
pub(super) fn resource(fields: &mut Fields, prefix: &str) -> Result<ResourceName, ConfigError> {
    let name = fields.require("resourceName", "the part of the resource's name behind the slash")?.text()?;
    let prefix = fields.take("resourcePrefix").map_or_else(|| Ok(prefix.to_owned()), Placed::text)?;
    ResourceName::new(&prefix, &name)
        .map_err(|source| ConfigError::invalid(fields.place().to_owned(), source))
}

pub(super) fn kind(fields: &mut Fields) -> Result<PoolKind, ConfigError> {
    fields.take("deviceType").map_or(Ok(PoolKind::default()), |word| word.word(&PoolKind::WORDS))
}

fn shares(number: Placed) -> Result<NonZeroU16, ConfigError> {
    let number = number.number(1..=MOST_SHARES.into())?;
    // Within the range that was just checked.
    Ok(u16::try_from(number).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN))
}

fn alternatives(fields: &mut Fields, kind: PoolKind, shared: bool) -> Result<Vec<Selectors>, ConfigError> {
    let Some(written) = fields.take("selectors") else {
        return Err(ConfigError::NoSelector {
            place: fields.place_of("selectors"),
            remedy: "{\"any\": true}",
        });
    };
    let list = if written.is_list() { written.list("object of selectors")? } else { vec![written] };
    list.into_iter().map(|entry| one_alternative(entry, kind, shared)).collect()
}

fn one_alternative(entry: Placed, kind: PoolKind, shared: bool) -> Result<Selectors, ConfigError> {
    let place = entry.place().to_owned();
    let known: Vec<&str> = Selector::ALL.into_iter().map(Selector::name).chain([ANY]).collect();
    let mut fields = entry.object(&known)?;
    let any = fields.flag(ANY)?;
    let mut selectors = selectors::read(&mut fields)?;
    match (any, selectors.is_empty()) {
        (true, false) => return Err(ConfigError::AnyAndSome { place }),
        (false, true) => return Err(ConfigError::NoSelector { place, remedy: "{\"any\": true}" }),
        (true, true) | (false, false) => {}
    }
    selectors::check(&selectors, &place, kind, shared)?;
    selectors.port_match.itself = shared;
    Ok(selectors)
}

/// What containers are told beside. IDs are brought into the form that devices have.
pub(super) fn additional_info(
    fields: &mut Fields,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, ConfigError> {
    let mut info = BTreeMap::new();
    let Some(table) = fields.take("additionalInfo") else { return Ok(info) };
    for (id, entries) in table.table()? {
        let place = entries.place().to_owned();
        let id = match id.as_str() {
            EVERY_DEVICE => id,
            _ => id
                .parse::<DeviceId>()
                .map_err(|source| ConfigError::invalid(place.clone(), source))?
                .to_string(),
        };
        let entry = |(key, value): (String, Placed)| Ok((key, value.text()?));
        let entries = entries.table()?.into_iter().map(entry).collect::<Result<_, _>>()?;
        if info.insert(id, entries).is_some() {
            return Err(ConfigError::RepeatedKey { key: place });
        }
    }
    Ok(info)
}

fn health(health: Placed) -> Result<HealthPolicy, ConfigError> {
    let known: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).chain([HOLD_DOWN]).collect();
    let mut fields = health.object(&known)?;
    let mut policy = HealthPolicy::default();
    if let Some(time) = fields.take(HOLD_DOWN) {
        policy.hold_down = time.parsed(duration::parse)?;
    }
    for (name, check) in CHECKS {
        let Some(word) = fields.take(name) else { continue };
        let written = word.word(&POLICIES)?;
        // What is as if it were not written is left out, so that equal policies are equal values.
        if written != check.default_policy() {
            policy.policies.insert(check, written);
        }
    }
    Ok(policy)
}
