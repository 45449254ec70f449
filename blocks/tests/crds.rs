//! `manifests/crds/` is what the types say, and examples can be used. `UPDATE_CRDS=1 cargo test -p zerobridge-blocks --test crds` writes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use kube::CustomResourceExt as _;
use serde_json::json;
use zerobridge_blocks::{IPBlock, IPClaim, IPPool, Pool, Wishes};

#[test]
fn the_manifests_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    let definitions = [IPPool::crd(), IPBlock::crd(), IPClaim::crd()];
    for (file, crd) in ["ippools.yaml", "ipblocks.yaml", "ipclaims.yaml"].into_iter().zip(definitions) {
        let path = folder.join(file);
        let text = serde_saphyr::to_string(&crd).unwrap();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written, text, "{file} differs; run with UPDATE_CRDS=1");
    }
}

#[test]
fn the_examples_can_be_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples/ipclaims.yaml");
    let claims: Vec<IPClaim> = serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
    let pool = Pool::parse("gold", &json!({"subnet": "10.100.0.0/16"})).unwrap();
    let wishes = Wishes::of(&pool, &claims, &BTreeSet::new());
    assert_eq!((wishes.pods.len(), wishes.unusable.len(), wishes.conflicts.len()), (4, 0, 0));
}
