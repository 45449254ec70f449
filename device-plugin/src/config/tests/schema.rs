//! The published schema and the reader know the same keys and words.

use serde_json::Value;

use super::*;
use crate::config::leg::{KINDS, LEG_KEYS};
use crate::config::own::{ANY, CHECKS, HOLD_DOWN, POLICIES, POOL_KEYS, PREFERENCES, SECTION_KEYS, TOP_KEYS};
use crate::selector::{LINK_TYPES, Selector, VDPA_TYPES};

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../../manifests/node/config.schema.json")).unwrap()
}

fn words<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

/// The objects that have fixed keys: where the schema describes one, and what the reader knows.
fn objects() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("", TOP_KEYS.to_vec()),
        ("/$defs/section", SECTION_KEYS.to_vec()),
        ("/$defs/pool", POOL_KEYS.to_vec()),
        ("/$defs/leg", LEG_KEYS.to_vec()),
        ("/$defs/selectors", Selector::ALL.into_iter().map(Selector::name).chain([ANY]).collect()),
        ("/$defs/health", words(&CHECKS).into_iter().chain([HOLD_DOWN]).collect()),
    ]
}

#[test]
fn the_schema_has_the_keys_that_the_reader_knows_and_no_others() {
    for (place, known) in objects() {
        let object = schema().pointer(place).unwrap().clone();
        let mut described: Vec<&str> =
            object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut known = known;
        described.sort_unstable();
        known.sort_unstable();
        assert_eq!(described, known, "{place}");
        assert_eq!(object["additionalProperties"], Value::Bool(false), "{place}");
    }
}

#[test]
fn the_schema_has_the_words_that_the_reader_knows() {
    let pool = "/$defs/pool/properties";
    let selectors = "/$defs/selectors/properties";
    for (place, known) in [
        ("/properties/cdi".to_owned(), words(&CdiMode::WORDS)),
        (format!("{pool}/deviceType"), words(&PoolKind::WORDS)),
        (format!("{pool}/rdma"), words(&PoolRdma::WORDS)),
        (format!("{pool}/preferredAllocation"), words(&PREFERENCES)),
        ("/$defs/policy".to_owned(), words(&POLICIES)),
        ("/$defs/leg/properties/kind".to_owned(), words(&KINDS)),
        (format!("{selectors}/linkTypes/items"), words(&LINK_TYPES)),
        (format!("{selectors}/vdpaType"), words(&VDPA_TYPES)),
    ] {
        assert_eq!(schema().pointer(&place).unwrap()["enum"], serde_json::json!(known), "{place}");
    }
    assert_eq!(schema().pointer(&format!("{pool}/shares")).unwrap()["maximum"], MOST_SHARES);
}

/// The `kind` and the health checks are complete lists because the compiler and this test say so.
#[test]
fn every_check_has_a_word() {
    let known: Vec<_> = CHECKS.iter().map(|(_, check)| *check).collect();
    assert_eq!(known, crate::health::Check::ALL);
    for (word, check) in CHECKS {
        assert_eq!(serde_json::to_value(check).unwrap(), word, "as metrics and zbctl write it");
    }
    for (word, kind) in PoolKind::WORDS {
        assert_eq!(kind.name(), word);
    }
}
