//! Files of k8s-rdma-shared-dev-plugin, `configList`, as they are.
//!
//! That program counts: any share of a resource is a share of every RDMA device that the resource selects. Here a share is
//! one of one device. `docs/migration.md` lists every difference.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use super::document::{Fields, Placed, Spelling};
use super::file::{ConfigFile, Format, Notice};
use super::pool::MOST_SHARES;
use super::{CdiMode, ConfigError, PoolConfig, PoolKind, PoolRdma, names, own, selectors};
use crate::health::HealthPolicy;
use crate::preference::Preference;
use crate::selector::{PortMatch, Selectors, interface};

/// The keys of a file.
pub(super) const TOP_KEYS: &[&str] = &["configList", PERIOD, KUBELET_ROOT];

/// How often, in seconds, that program looks at the machine again.
const PERIOD: &str = "periodicUpdateInterval";

/// The kubelet's root directory.
const KUBELET_ROOT: &str = "kubeletRootDir";

/// The prefix of a resource that names none, unless the command line does.
const DEFAULT_PREFIX: &str = "rdma";

const POOL_KEYS: &[&str] = &["resourceName", "resourcePrefix", "rdmaHcaMax", "selectors", "devices"];

/// The selectors, with that program's name for device IDs.
const SELECTOR_KEYS: &[&str] = &["vendors", "deviceIDs", "drivers", "ifNames", "linkTypes"];

/// Reads a file.
pub(super) fn read(document: Placed, resource_prefix: Option<&str>) -> Result<ConfigFile, ConfigError> {
    let mut fields = document.spelt(Spelling::Go).object(TOP_KEYS)?;
    let mut notices = Vec::new();
    if let Some(period) = fields.take(PERIOD) {
        let place = period.place().to_owned();
        period.number(0..=i32::MAX.unsigned_abs().into())?;
        let effect =
            "not used: changes are noticed when they happen, and the time between two full looks is --rescan";
        notices.push(Notice { place, effect: effect.to_owned() });
    }
    if let Some(folder) = fields.take(KUBELET_ROOT) {
        let place = folder.place().to_owned();
        let effect = format!("not used: start with --kubelet-root {}", folder.text()?);
        notices.push(Notice { place, effect });
    }
    let list = fields.require("configList", "the list of pools")?.list("pool")?;
    if list.is_empty() {
        return Err(ConfigError::EmptyList { place: "configList".to_owned(), entry: "pool" });
    }
    let prefix = resource_prefix.unwrap_or(DEFAULT_PREFIX);
    let (mut pools, mut places) = (Vec::new(), Vec::new());
    for entry in list {
        let place = entry.place().to_owned();
        if let Some(pool) = pool(entry, prefix, &mut notices)? {
            pools.push(pool);
            places.push(place);
        }
    }
    names::check(&pools, &places)?;
    let cdi = CdiMode::default();
    Ok(ConfigFile { format: Format::RdmaShared, notices, sections: Vec::new(), pools, legs: Vec::new(), cdi })
}

fn pool(pool: Placed, prefix: &str, notices: &mut Vec<Notice>) -> Result<Option<PoolConfig>, ConfigError> {
    let mut fields = pool.object(POOL_KEYS)?;
    let resource = own::resource(&mut fields, prefix)?;
    let shares = shares(&mut fields, notices)?;
    let selectors = selectors(&mut fields)?;
    Ok(shares.map(|shares| PoolConfig {
        resource,
        kind: PoolKind::NetDevice,
        selectors: vec![selectors],
        shares: Some(shares),
        rdma: PoolRdma::Auto,
        topology: true,
        additional_info: BTreeMap::new(),
        health: HealthPolicy::default(),
        preference: Preference::default(),
    }))
}

/// The shares of each device; `None` for a resource of which there are none.
fn shares(fields: &mut Fields, notices: &mut Vec<Notice>) -> Result<Option<NonZeroU16>, ConfigError> {
    let number = fields.require("rdmaHcaMax", "how many containers may have the resource at a time")?;
    let place = number.place().to_owned();
    let number = number.number(0..=i32::MAX.unsigned_abs().into())?;
    let (effect, shares) = match u16::try_from(number).ok().filter(|number| *number <= MOST_SHARES) {
        None => (
            format!("{number} is read as {MOST_SHARES}, the most shares of each RDMA device"),
            NonZeroU16::new(MOST_SHARES),
        ),
        Some(0) => ("0 shares: the resource is not offered".to_owned(), None),
        Some(shares) => (
            format!("{shares} is the number of shares of each RDMA device, and no longer of all together"),
            NonZeroU16::new(shares),
        ),
    };
    notices.push(Notice { place, effect });
    Ok(shares)
}

fn selectors(fields: &mut Fields) -> Result<Selectors, ConfigError> {
    let (place, selectors_key, devices_key) =
        (fields.place().to_owned(), fields.place_of("selectors"), fields.place_of("devices"));
    let devices = fields.list("devices", |entry| entry.parsed(interface))?;
    let mut selectors = match fields.take("selectors") {
        None => Selectors::default(),
        Some(written) => {
            let mut fields = written.object(SELECTOR_KEYS)?;
            let devices = fields.list("deviceIDs", |entry| entry.parsed(str::parse))?;
            Selectors { devices, ..selectors::read(&mut fields)? }
        }
    };
    selectors::check(&selectors, &selectors_key, PoolKind::NetDevice, true)?;
    match (selectors.is_empty(), devices.is_empty()) {
        (true, true) => {
            let remedy = "{\"linkTypes\": [\"ether\", \"infiniband\"]} as \"selectors\"";
            return Err(ConfigError::NoSelector { place, remedy });
        }
        (false, false) => {
            return Err(ConfigError::Conflict {
                place: devices_key,
                other: "selectors".to_owned(),
                reason: "\"devices\" is the old name of the selector ifNames",
                remedy: "move its entries into selectors.ifNames",
            });
        }
        (true, false) => selectors.if_names = devices,
        (false, true) => {}
    }
    selectors.port_match = PortMatch { any_case: false, itself: true };
    Ok(selectors)
}
