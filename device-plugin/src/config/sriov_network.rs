//! Files of sriov-network-device-plugin, `resourceList`, as they are.
//!
//! What that program drops in silence, and with it widens a pool, is refused here. `docs/migration.md` lists every
//! difference.

use super::document::{Fields, Placed, Spelling};
use super::file::{ConfigFile, Format, Notice};
use super::{CdiMode, ConfigError, PoolConfig, PoolKind, PoolRdma, names, own, selectors};
use crate::health::HealthPolicy;
use crate::preference::Preference;
use crate::selector::{PortMatch, Selector, Selectors};

/// The keys of a file.
pub(super) const TOP_KEYS: &[&str] = &["resourceList"];

/// The prefix of a resource that names none, unless the command line does.
const DEFAULT_PREFIX: &str = "intel.com";

const POOL_KEYS: &[&str] = &[
    "resourceName",
    "resourcePrefix",
    "deviceType",
    "excludeTopology",
    "selectors",
    "additionalInfo",
    SELECTOR_OBJECT,
    MISPLACED_RDMA,
];

/// A variable of that program which its serialiser also writes, and with it some that generate its files.
const SELECTOR_OBJECT: &str = "SelectorObj";

/// Stood beside the selectors in early versions, as some files still have it. Later ones do not read it there.
const MISPLACED_RDMA: &str = "isRdma";

/// Reads a file.
pub(super) fn read(document: Placed, resource_prefix: Option<&str>) -> Result<ConfigFile, ConfigError> {
    let mut fields = document.spelt(Spelling::Go).object(TOP_KEYS)?;
    let list = fields.require("resourceList", "the list of pools")?.list("pool")?;
    let places: Vec<String> = list.iter().map(|pool| pool.place().to_owned()).collect();
    let prefix = resource_prefix.unwrap_or(DEFAULT_PREFIX);
    let mut notices = Vec::new();
    let pools: Vec<PoolConfig> =
        list.into_iter().map(|entry| pool(entry, prefix, &mut notices)).collect::<Result<_, _>>()?;
    if pools.is_empty() {
        return Err(ConfigError::EmptyList { place: "resourceList".to_owned(), entry: "pool" });
    }
    names::check(&pools, &places)?;
    let cdi = CdiMode::default();
    Ok(ConfigFile {
        format: Format::SriovNetwork,
        notices,
        sections: Vec::new(),
        pools,
        legs: Vec::new(),
        cdi,
    })
}

fn pool(pool: Placed, prefix: &str, notices: &mut Vec<Notice>) -> Result<PoolConfig, ConfigError> {
    let mut fields = pool.object(POOL_KEYS)?;
    let resource = own::resource(&mut fields, prefix)?;
    let kind = own::kind(&mut fields)?;
    if fields.take(SELECTOR_OBJECT).is_some() {
        notices.push(Notice {
            place: fields.place_of(SELECTOR_OBJECT),
            effect: "not read, as there; the selectors are in \"selectors\"".to_owned(),
        });
    }
    if fields.take(MISPLACED_RDMA).is_some() {
        notices.push(Notice {
            place: fields.place_of(MISPLACED_RDMA),
            effect: "not read, as by present versions there; move it into \"selectors\" to have it"
                .to_owned(),
        });
    }
    Ok(PoolConfig {
        resource,
        kind,
        selectors: alternatives(&mut fields, kind, notices)?,
        shares: None,
        // The CNI plugin may be another one, which would tell no container what a name stands for.
        rdma: PoolRdma::Plain,
        topology: !fields.flag("excludeTopology")?,
        additional_info: own::additional_info(&mut fields)?,
        health: HealthPolicy::default(),
        preference: Preference::default(),
    })
}

fn alternatives(
    fields: &mut Fields,
    kind: PoolKind,
    notices: &mut Vec<Notice>,
) -> Result<Vec<Selectors>, ConfigError> {
    let place = fields.place_of("selectors");
    let none = ConfigError::NoSelector { place, remedy: "{}" };
    let Some(written) = fields.take("selectors") else { return Err(none) };
    let list = if written.is_list() { written.list("object of selectors")? } else { vec![written] };
    if list.is_empty() {
        return Err(none);
    }
    list.into_iter().map(|entry| one_alternative(entry, kind, notices)).collect()
}

fn one_alternative(
    entry: Placed,
    kind: PoolKind,
    notices: &mut Vec<Notice>,
) -> Result<Selectors, ConfigError> {
    let place = entry.place().to_owned();
    let known: Vec<&str> = Selector::ALL
        .into_iter()
        .filter(|selector| *selector != Selector::IfNames)
        .map(Selector::name)
        .collect();
    let mut fields = entry.object(&known)?;
    let mut selectors = selectors::read(&mut fields)?;
    selectors.port_match = PortMatch { any_case: true, itself: false };
    selectors::check(&selectors, &place, kind, false)?;
    if selectors.is_rdma && kind == PoolKind::NetDevice {
        let effect = "where RDMA devices move into pods (exclusive mode), containers get the nodes that a device has before it \
                      moves, which may be another's after; with the CNI plugin zerobridge, convert this file with \
                      --print-config and remove \"rdma\": \"plain\"";
        notices.push(Notice { place: format!("{place}.{}", Selector::IsRdma), effect: effect.to_owned() });
    }
    if selectors.is_empty() {
        notices.push(Notice { place, effect: "selects every device of its kind on this node".to_owned() });
    }
    Ok(selectors)
}
