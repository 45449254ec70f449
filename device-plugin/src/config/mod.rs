//! The node's configuration: which VFs form which pool.
//!
//! Read once, completely checked before anything is done with it. `docs/device-plugin.md` is its reference.

mod document;
mod error;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

pub use error::ConfigError;

use crate::resource::{DEFAULT_PREFIX, ResourceName};
use crate::selector::Selectors;
use document::{Fields, Placed};

/// Every pool of the node, in the order of the file: the first pool that takes a VF keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The pools, at least one.
    pub pools: Vec<PoolConfig>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// The resource under which the pool's VFs are offered.
    pub resource: ResourceName,
    /// Which VFs it takes. Empty only if the file says `"any": true`.
    pub selectors: Selectors,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the place, the value, what is allowed, and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads and checks the content of a file.
    ///
    /// # Errors
    ///
    /// As for [`Config::load`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut document = Placed::document(text)?.object(&["pools"])?;
        let pools = document.require("pools", "the list of pools")?.list("pool")?;
        let pools: Vec<PoolConfig> = pools.into_iter().map(pool).collect::<Result<_, _>>()?;
        check_names(&pools)?;
        Ok(Self { pools })
    }
}

fn pool(pool: Placed) -> Result<PoolConfig, ConfigError> {
    let place = pool.place().to_owned();
    let mut fields = pool.object(&["resourceName", "resourcePrefix", "selectors"])?;
    let name = fields.require("resourceName", "the part of the resource's name behind the slash")?.text()?;
    let prefix = fields.take("resourcePrefix").map_or_else(|| Ok(DEFAULT_PREFIX.to_owned()), Placed::text)?;
    let resource =
        ResourceName::new(&prefix, &name).map_err(|source| ConfigError::invalid(place.clone(), source))?;
    let Some(selectors) = fields.take("selectors") else {
        return Err(ConfigError::NoSelector { place: format!("{place}.selectors") });
    };
    Ok(PoolConfig { resource, selectors: self::selectors(selectors)? })
}

fn selectors(selectors: Placed) -> Result<Selectors, ConfigError> {
    let place = selectors.place().to_owned();
    let mut fields =
        selectors.object(&["pfNames", "vendors", "devices", "drivers", "pciAddresses", "any"])?;
    let selectors = Selectors {
        pf_names: parsed(&mut fields, "pfNames")?,
        vendors: parsed(&mut fields, "vendors")?,
        devices: parsed(&mut fields, "devices")?,
        drivers: parsed(&mut fields, "drivers")?,
        pci_addresses: parsed(&mut fields, "pciAddresses")?,
    };
    let any = fields.take("any").map_or(Ok(false), Placed::flag)?;
    match (any, selectors.is_empty()) {
        (true, false) => Err(ConfigError::AnyAndSome { place }),
        (false, true) => Err(ConfigError::NoSelector { place }),
        (true, true) | (false, false) => Ok(selectors),
    }
}

fn parsed<T: FromStr>(fields: &mut Fields, key: &'static str) -> Result<Vec<T>, ConfigError>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Some(list) = fields.take(key) else { return Ok(Vec::new()) };
    let entry = |entry: Placed| {
        let place = entry.place().to_owned();
        entry.text()?.parse().map_err(|source| ConfigError::invalid(place, source))
    };
    list.list("entry")?.into_iter().map(entry).collect()
}

/// Two pools may not claim one name: the kubelet keeps the later registration and merges environment variables in
/// random order, so that one of the two would be lost without a word.
fn check_names(pools: &[PoolConfig]) -> Result<(), ConfigError> {
    let mut resources = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for (position, pool) in pools.iter().enumerate() {
        if let Some(first) = resources.insert(&pool.resource, position) {
            let resource = pool.resource.to_string();
            return Err(ConfigError::RepeatedResource { resource, first, second: position });
        }
        for name in pool.resource.environment() {
            for variable in [format!("{name}_INFO"), name] {
                if let Some(first) = variables.insert(variable.clone(), position) {
                    return Err(ConfigError::RepeatedVariable { variable, first, second: position });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
