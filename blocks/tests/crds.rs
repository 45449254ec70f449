//! `manifests/crds/` is what the types say. `UPDATE_CRDS=1 cargo test -p zerobridge-blocks --test crds` writes it.

use std::fs;
use std::path::Path;

use kube::CustomResourceExt as _;
use zerobridge_blocks::{IPBlock, IPPool};

#[test]
fn the_manifests_are_what_the_types_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for (file, crd) in [("ippools.yaml", IPPool::crd()), ("ipblocks.yaml", IPBlock::crd())] {
        let path = folder.join(file);
        let text = serde_saphyr::to_string(&crd).unwrap();
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written, text, "{file} differs; run with UPDATE_CRDS=1");
    }
}
