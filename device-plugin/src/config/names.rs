//! Names that two pools of one node may not share.

use std::collections::BTreeMap;

use super::{ConfigError, PoolConfig};

/// Two pools may not claim one name: the kubelet keeps the later registration and merges environment variables in
/// random order, so that one of the two would be lost without a word. `places` says where each pool stands.
pub(super) fn check(pools: &[PoolConfig], places: &[String]) -> Result<(), ConfigError> {
    let mut resources = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for (pool, place) in pools.iter().zip(places) {
        if let Some(first) = resources.insert(&pool.resource, place) {
            let (resource, first, second) = (pool.resource.to_string(), first.clone(), place.clone());
            return Err(ConfigError::RepeatedResource { resource, first, second });
        }
        for name in pool.resource.environment() {
            for variable in [format!("{name}_INFO"), name] {
                if let Some(first) = variables.insert(variable.clone(), place) {
                    let (first, second) = (first.clone(), place.clone());
                    return Err(ConfigError::RepeatedVariable { variable, first, second });
                }
            }
        }
    }
    Ok(())
}
